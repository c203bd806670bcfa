//! An API with one route that takes single-use tokens.
//!
//!     cargo run -p obol-resource --example guarded
//!
//! The program makes a session of its own, mints three tokens for it, and prints how to use them. In earnest the
//! session comes from an Authentication Service and the tokens from the sidecar beside the agent.

#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use core::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use obol_resource::{Gate, SpentToken, TbacLayer, ToolCall};
use obol_token::text::to_base64url;
use obol_token::{
    Audience, Jti, Minter, MutualAuth, ResponseKey, Scope, SessionId, SessionKey, SessionMaterial, Suite,
    TokenSeed, Validity, VerifierSecret,
};
use obol_verify::{Clock, MemorySessionTable, MemorySpentSet, Session, SystemClock, Verifier};
use tokio::net::TcpListener;

const AUDIENCE: &str = "https://weather.example";
/// How long the printed tokens live, in seconds.
const LIFE_SECS: u64 = 60;

async fn forecast(token: SpentToken) -> String {
    format!("Sunny, says the tool that {} may call once.\n", token.scope().agent_instance_id)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let session = new_session()?;
    let grant = grant()?;
    let tokens = mint(&session, &grant, clock.now())?;

    let audience = Audience::new(AUDIENCE)?;
    let sessions = MemorySessionTable::new();
    sessions.add(Session::new(session, audience.clone(), "example-org").with_grants([grant]))?;
    // Without a fence, because the session is as new as this process.
    let spent = MemorySpentSet::unfenced(Arc::clone(&clock), 60);
    let verifier = Verifier::builder(audience, Arc::new(sessions), Arc::new(spent)).clock(clock).build()?;

    let call = ToolCall::new("forecast").action("read");
    let guarded = get(forecast).layer(TbacLayer::new(Gate::new(verifier), call));
    let app = Router::new().route("/forecast", guarded);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    for token in tokens {
        println!("curl -i http://{address}/forecast -H 'Authorization: TBAC {token}'\n");
    }
    println!("Each line works once, within {LIFE_SECS} seconds. Ctrl-C ends the program.");
    axum::serve(listener, app).await?;
    Ok(())
}

fn new_session() -> Result<SessionMaterial, getrandom::Error> {
    Ok(SessionMaterial::new(
        SessionId::from_u64(1),
        Suite::Tbac,
        SessionKey::from_bytes(random()?),
        VerifierSecret::from_bytes(random()?),
        MutualAuth::from_bytes(random()?),
        random()?,
    ))
}

/// What the session's tokens may allow, at most. These allow all of it.
fn grant() -> Result<Scope, serde_json::Error> {
    serde_json::from_value(serde_json::json!({
        "iss": "https://auth.example", "sub": "agent-key:1", "agent_instance_id": "agent-1", "tool": "forecast",
        "action": "read", "resource": "**", "delegation_depth": 0, "aud": AUDIENCE, "org_id": "example-org",
        "trust_level": 1, "human_confirmed_at": 0
    }))
}

fn mint(session: &SessionMaterial, scope: &Scope, now: u64) -> Result<Vec<String>, Box<dyn Error>> {
    let seeds = (0..3).map(|_| seed()).collect::<Result<Vec<_>, _>>()?;
    let validity = Validity { issued_at: now, expires_at: now + LIFE_SECS };
    let tokens = Minter::new(session, scope, 1)?.mint(validity, &seeds)?;
    Ok(tokens.iter().map(|token| to_base64url(token)).collect())
}

fn seed() -> Result<TokenSeed, getrandom::Error> {
    let response_key = ResponseKey::from_bytes(random()?);
    Ok(TokenSeed { jti: Jti::from_random(random()?), iv: random()?, response_key, nonce: None })
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
