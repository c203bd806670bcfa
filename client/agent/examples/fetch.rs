//! Sends one request with a token for it, and prints the answer.
//!
//!     cargo run -p obol-agent --example fetch -- https://api.example/v1/query?q=rain
//!
//! For a session made by hand the audience and the tool follow: where the URL is, tokens of that audience may go.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use core::error::Error;

use http::{Request, Uri};
use obol_agent::{Agent, Route, protocol, read_url};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = read_url(&arguments.next().ok_or("which URL?")?)?;
    if let (Some(audience), Some(tool)) = (arguments.next(), arguments.next()) {
        let agent = Agent::builder().routes([route(&url, &audience, &tool)?]).connect().await?;
        return show(&agent, url).await;
    }
    let agent = Agent::connect().await?;
    show(&agent, url).await
}

async fn show(agent: &Agent, url: Uri) -> Result<(), Box<dyn Error>> {
    let answer = agent.fetch(Request::get(url).body(())?).await?;
    println!("{}", answer.status());
    print!("{}", String::from_utf8_lossy(&answer.into_body().collect_up_to(1 << 20).await?));
    Ok(())
}

/// Where tokens may go that no session says it of: to the URL's own origin.
fn route(url: &Uri, audience: &str, tool: &str) -> Result<Route, Box<dyn Error>> {
    let origin = format!("{}://{}", url.scheme_str().unwrap_or_default(), url.authority().ok_or("no host")?);
    Ok(Route {
        audience: protocol::names::Audience::new(audience)?,
        tools: vec![protocol::names::ToolName::new(tool)?],
        url: Some(origin),
        method: None,
        path: None,
        via: None,
        sealed: false,
    })
}
