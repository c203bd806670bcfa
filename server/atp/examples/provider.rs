//! An API that gives out its own tokens, on this machine.
//!
//!     cargo run -p obol-atp-server --example provider -- PORT SECRETS_FILE
//!
//! Everything is in memory: tokens end with the process, and requests signed before its start are refused. Agents reach it by HTTPS at
//! https://api.example.com alone; put TLS in front of it.

#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use core::error::Error;
use core::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::routing::get;
use obol_atp_server::{AgentToken, SecretBook, Store};
use obol_verify::{MemorySpentSet, SystemClock};
use tokio::net::TcpListener;

async fn data(token: AgentToken) -> String {
    format!("Data for {}\n", token.agent_id)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let secrets = SecretBook::load(Path::new(&arguments.next().ok_or("which file has the secrets?")?))?;
    let (store, spent) =
        (Store::memory(), Arc::new(MemorySpentSet::fenced(Arc::new(SystemClock::new()), 60)));

    let atp = obol_atp_server::Router::builder("https://api.example.com/v1/agent-tokens".parse()?)
        .secrets(secrets)
        .scopes(["read", "write"])
        .store(store)
        .spent(spent)
        .build()?;
    let app = axum::Router::new()
        .route("/v1/data", get(data).layer(atp.require("read")))
        .merge(atp.well_known())
        .nest("/v1/agent-tokens", atp.into());

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}
