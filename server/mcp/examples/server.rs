//! An MCP server over stdio whose tools want single-use tokens.
//!
//!     obol session create --audience https://api.example --tool greet --tool add
//!     cargo run -p obol-mcp --features rmcp --example mcp-server -- rs-sessions.json https://api.example
//!
//! The guard is the part between the two lines in `main`; the rest is a server as the SDK's own examples have it.

use core::error::Error;
use std::sync::Arc;

use obol_mcp::{ToolGuard, rmcp::Guarded};
use obol_resource::{Gate, SpentToken, ToolCall};
use obol_token::Audience;
use obol_verify::{MemorySessionTable, MemorySpentSet, SystemClock, Verifier, read_session_file};
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::JsonSchema;
use rmcp::transport::stdio;
use rmcp::{ServiceExt as _, tool, tool_handler, tool_router};

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Sum {
    a: i64,
    b: i64,
}

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Name {
    name: String,
}

struct Tools;

#[tool_router]
impl Tools {
    #[tool(description = "Adds two numbers")]
    fn add(&self, Parameters(Sum { a, b }): Parameters<Sum>) -> String {
        a.saturating_add(b).to_string()
    }

    #[tool(description = "Greets somebody, and says who sent the greeting")]
    fn greet(
        &self,
        Parameters(Name { name }): Parameters<Name>,
        Extension(token): Extension<SpentToken>,
    ) -> String {
        format!("Hello {name}, from {}", token.scope().agent_instance_id)
    }

    #[tool(description = "Says what time the server's clock has, which needs no token")]
    fn ping(&self) -> String {
        "pong".to_owned()
    }
}

#[tool_handler]
impl rmcp::ServerHandler for Tools {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Standard output belongs to the protocol.
    let level = tracing::Level::TRACE;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_ansi(false).init();
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(audience)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mcp-server <session file> <audience>".into());
    };

    // ------------------------------------------------------------------------------------------------------------
    let sessions = Arc::new(MemorySessionTable::new());
    sessions.replace_all(read_session_file(file.as_ref())?)?;
    // Without a fence, because the example's session is as new as this process.
    let spent = Arc::new(MemorySpentSet::unfenced(Arc::new(SystemClock::new()), 60));
    let verifier = Verifier::builder(Audience::new(audience)?, sessions, spent).build()?;
    let guard =
        ToolGuard::new(Gate::new(verifier)).tool(ToolCall::new("add").action("call")).open_tool("ping");
    let server = Guarded::new(Tools, guard);
    // ------------------------------------------------------------------------------------------------------------

    server.serve(stdio()).await?.waiting().await?;
    Ok(())
}
