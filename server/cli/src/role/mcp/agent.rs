//! Tokens for the calls of a client, from the sidecar.

use core::time::Duration;
use std::ffi::OsString;

use obol_agent::{Agent, CallOptions, Code, Error, Token, arguments_hash};
use obol_mcp::TokenText;
use obol_mcp::wrap::{Call, Channel, Drawn};
use obol_resource::{PopProof, SealedMessage};
use tokio::sync::Mutex;

use crate::settings::args::mcp::McpWrapArgs;

/// How often a draw is repeated whose answer was lost.
const MAX_LOST: u32 = 3;

/// Draws for one resource server. The sidecar is looked for when the first token is needed: a server that knows nothing of
/// tokens needs none.
pub(super) struct Drawer {
    audience: String,
    wait: Duration,
    socket: Option<OsString>,
    auth_socket: Option<OsString>,
    agent: Mutex<Option<Agent>>,
}

impl Drawer {
    pub(super) fn new(args: &McpWrapArgs) -> Self {
        Self {
            audience: args.audience.clone(),
            wait: Duration::from_secs(u64::from(args.wait)),
            socket: args.socket.clone(),
            auth_socket: args.auth_socket.clone(),
            agent: Mutex::new(None),
        }
    }

    /// A token for a call; or why there is none, for whoever called.
    pub(super) async fn draw(&self, call: &Call) -> Result<Drawn, String> {
        self.drawn(call).await.map_err(|error| {
            tracing::warn!(tool = call.tool(), %error, "no token could be drawn");
            error.to_string()
        })
    }

    async fn drawn(&self, call: &Call) -> Result<Drawn, Error> {
        let agent = self.agent().await?;
        let options = CallOptions::new().tool(call.tool()).audience(&*self.audience).timeout(self.wait);
        let arguments = arguments_hash(call.arguments().as_bytes());
        let mut lost = 0;
        let token = loop {
            match agent.dequeue_token_with(&options, arguments).await {
                Err(error) if error.code() == Code::OutcomeUnknown && lost < MAX_LOST => lost += 1,
                token => break token?,
            }
        };
        of(&token)
    }

    async fn agent(&self) -> Result<Agent, Error> {
        let mut agent = self.agent.lock().await;
        if let Some(agent) = &*agent {
            return Ok(agent.clone());
        }
        let mut builder =
            Agent::builder().name(concat!("obol-mcp-wrap/", env!("CARGO_PKG_VERSION"))).timeout(self.wait);
        if let Some(socket) = &self.socket {
            builder = builder.socket(socket);
        }
        if let Some(socket) = &self.auth_socket {
            builder = builder.auth_socket(socket);
        }
        Ok(agent.insert(builder.connect().await?).clone())
    }

    /// Tells the operator that somebody else spent a token.
    pub(super) async fn tell_stolen(&self, tool: &str) {
        tracing::error!(tool, "somebody else spent the token of a call before it arrived");
        if let Ok(agent) = self.agent().await {
            let _nothing_depends_on_it = agent.report_stolen(tool, &self.audience).await;
        }
    }
}

fn of(token: &Token) -> Result<Drawn, Error> {
    let proof = token.proof().and_then(|proof| PopProof::from_text(proof.as_bytes()).ok());
    let channel = token.channel()?.map(|channel| Box::new(TokenChannel(channel)) as Box<dyn Channel>);
    Ok(Drawn { token: TokenText::new(token.expose()), proof, channel })
}

/// What seals and opens, under one token.
struct TokenChannel(obol_agent::Channel);

impl Channel for TokenChannel {
    fn seal(&self, arguments: &[u8]) -> Option<SealedMessage> {
        let sealed = self.0.seal_arguments(arguments).ok()?;
        Some(SealedMessage::from_bytes(&sealed).ok()?.of_algorithm(self.0.algorithm()))
    }

    fn open(&self, sealed: &SealedMessage) -> Option<Vec<u8>> {
        if sealed.algorithm() != Some(self.0.algorithm()) {
            return None;
        }
        self.0.open_result(&sealed.to_bytes()).map(Vec::from)
    }
}
