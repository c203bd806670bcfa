//! Draws one token for a tool and prints it.
//!
//! ```text
//! cargo run -p obol-client --example draw -- mail.send
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

use core::error::Error;
use core::time::Duration;
use std::process::ExitCode;

use obol_client::protocol::Endpoint;
use obol_client::protocol::names::{PeerName, ToolName};
use obol_client::{Client, ConnectOptions};

/// How long to wait if no token is ready.
const WAIT: Duration = Duration::from_secs(2);

fn draw(tool: &str) -> Result<(), Box<dyn Error>> {
    let tool = ToolName::new(tool)?;
    let endpoint = Endpoint::agent_to_connect(None, |name| std::env::var_os(name))?;
    let options = ConnectOptions::new(PeerName::new("draw/0.1.0")?);
    let mut client = Client::connect(endpoint, options)?;
    let drawn = client.dequeue_token(&tool, WAIT)?;
    println!("{}", drawn.token.expose());
    eprintln!("for {}, until {} (Unix seconds)", drawn.tool, drawn.expires_at);
    Ok(())
}

fn main() -> ExitCode {
    let Some(tool) = std::env::args().nth(1) else {
        eprintln!("usage: draw TOOL");
        return ExitCode::from(2);
    };
    match draw(&tool) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
