//! The client's side of the extension, for clients that know nothing of it: line by line, without a socket or a clock.
//!
//! [`Wrap`] is shown each line that a client and its server say to each other, and says what becomes of it. Most pass as they
//! are. Changed are:
//!
//! | line | change |
//! |---|---|
//! | `initialize`, `server/discover` | the client's capabilities name the extension |
//! | `tools/call`, where the server speaks the extension | a token in `_meta`, a proof, sealed arguments |
//! | a sealed result | opened |
//! | a refusal that a fresh token mends | kept back, and the call is made once more, under a number of its own |
//!
//! A server that knows nothing of the extension is sent no token, and none is drawn for it. One that says so when it is
//! first asked for something ([`crate::Denied`], `TBAC_REQUIRED`) is believed: a refused call was not made. The tool that a
//! token is drawn for is always the one that the client called, whatever a refusal names.

mod call;
mod denial;
mod pending;
mod sealed;

use obol_secret::json;

use self::call::Carried;
pub use self::call::{Call, Channel, Drawn, Sent};
use self::denial::Denial;
use self::pending::{Pending, State, Table};
use crate::capability::{
    Capability as _, ClientCapability, Negotiated, Position, ServerCapability, WhyDisabled, negotiate,
};
use crate::jsonrpc::{self, CANCELLED, CLIENT_CAPABILITIES, DISCOVER, INITIALIZE, Id, Kind, TOOLS_CALL};
use crate::raw::RawObject;
use crate::{EXTENSION, ToolResult};

/// The most methods besides `tools/call` that are known to want tokens.
const MAX_GUARDED_METHODS: usize = 64;

/// What becomes of a line of the client.
#[derive(Debug)]
pub enum FromClient {
    /// It goes on as it is.
    Pass,
    /// This goes on in its place.
    Send(String),
    /// A token has to be drawn for it: [`Wrap::with_token`] then says what goes on.
    Draw(Call),
    /// It goes no further; this is the answer to the client.
    Answer(String),
}

/// What becomes of a line of the server.
#[derive(Debug)]
pub enum FromServer {
    /// It goes on as it is.
    Pass,
    /// This goes on in its place.
    Tell(String),
    /// The call is to be made once more, with a fresh token: [`Wrap::with_token`].
    Again(Call),
    /// This goes on in its place, and the operator should hear of it: somebody else had spent the token for this tool.
    Stolen {
        /// What goes on.
        line: String,
        /// The tool.
        tool: String,
    },
    /// Nothing goes on: it is an answer that nobody waits for.
    Drop,
}

/// Whether the server speaks the extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speaks {
    /// It has not said anything yet.
    Unknown,
    /// It does.
    Yes,
    /// It does not mention it.
    No,
    /// It speaks another revision, which must not be guessed at.
    Otherwise,
}

/// What stands in front of a client that knows nothing of the extension.
#[derive(Debug)]
pub struct Wrap {
    speaks: Speaks,
    guarded_methods: Vec<String>,
    pending: Table,
    /// What the numbers of calls begin with that are made once more.
    prefix: String,
    again: u64,
}

impl Wrap {
    /// For one connection. `random` keeps the numbers of calls that are made once more apart from the client's own.
    pub fn new(random: [u8; 8]) -> Self {
        let prefix = format!("obol-{:016x}-", u64::from_be_bytes(random));
        Self {
            speaks: Speaks::Unknown,
            guarded_methods: Vec::new(),
            pending: Table::default(),
            prefix,
            again: 0,
        }
    }

    /// Looks at a line of the client, without its end.
    pub fn from_client(&mut self, line: &str) -> FromClient {
        let Some(message) = RawObject::read(line) else { return FromClient::Pass };
        match jsonrpc::kind(&message) {
            Some(Kind::Request(id, method)) => self.request(line, &message, id, &method),
            Some(Kind::Notification(method)) if method == CANCELLED => self.cancelled(&message),
            _ => FromClient::Pass,
        }
    }

    fn request(&mut self, line: &str, message: &RawObject<'_>, id: Id, method: &str) -> FromClient {
        if self.pending.holds(&id) {
            return FromClient::Pass;
        }
        if matches!(method, INITIALIZE | DISCOVER) {
            // One of them, whatever the client does.
            self.pending.insert(id, Pending::opening());
            return advertising(message, method).map_or(FromClient::Pass, FromClient::Send);
        }
        if matches!(self.speaks, Speaks::No | Speaks::Otherwise) && method != TOOLS_CALL
            || self.speaks == Speaks::Otherwise
        {
            return FromClient::Pass;
        }
        let Some(call) = Call::of(line, message, &id, method) else { return FromClient::Pass };
        if !self.pending.has_room_for(line) {
            return FromClient::Answer(
                call.answer_with_error("Too many calls wait for an answer; this one was not made"),
            );
        }
        let wants_token = match method {
            TOOLS_CALL => self.speaks == Speaks::Yes,
            method => self.guarded_methods.iter().any(|guarded| guarded == method),
        };
        if wants_token {
            return FromClient::Draw(call);
        }
        self.pending.insert(id, Pending::of(call, State::Plain));
        FromClient::Pass
    }

    /// What goes to the server, or back to the client, now that a token was drawn for a call, or why none could be. Without one
    /// the call goes as it is: the tool may need none, and the server has to say so.
    pub fn with_token(&mut self, mut call: Call, drawn: Result<Drawn, String>) -> Sent {
        let drawn = match drawn {
            Ok(drawn) => drawn,
            Err(why) => match call.take_refusal() {
                Some(refusal) => return Sent::ToClient(denial::explained(&refusal, &why)),
                None => return self.without_token(call, why),
            },
        };
        if call.is_again() {
            self.again += 1;
            call.renumber(Id::Text(format!("{}{}", self.prefix, self.again)));
        }
        match call.carrying(drawn) {
            Ok(Carried { line, channel }) => {
                self.pending.insert(call.id().clone(), Pending::of(call, State::Carries(channel)));
                Sent::ToServer(line)
            }
            Err(why) => Sent::ToClient(call.answer_with_error(&format!("The call was not made: {why}"))),
        }
    }

    fn without_token(&mut self, call: Call, why: String) -> Sent {
        let line = call.line().to_owned();
        self.pending.insert(call.id().clone(), Pending::of(call, State::Without(why)));
        Sent::ToServer(line)
    }

    /// A call that was made once more has another number for the server.
    fn cancelled(&mut self, message: &RawObject<'_>) -> FromClient {
        let Some(mut params) = message.object("params") else { return FromClient::Pass };
        let Some(id) = params.get("requestId").and_then(Id::read) else { return FromClient::Pass };
        // The server does not answer any more.
        match self.pending.cancel(&id) {
            Some(sent) if sent != id => {
                params.set("requestId", sent.to_string());
                let params = params.write();
                let mut message = message.clone();
                message.set("params", params);
                FromClient::Send(message.write())
            }
            _ => FromClient::Pass,
        }
    }

    /// Looks at a line of the server, without its end.
    pub fn from_server(&mut self, line: &str) -> FromServer {
        if self.pending.is_empty() && !line.contains(&self.prefix) {
            return FromServer::Pass;
        }
        let Some(message) = RawObject::read(line) else { return FromServer::Pass };
        let Some(Kind::Answer(id)) = jsonrpc::kind(&message) else { return FromServer::Pass };
        match self.pending.take(&id) {
            Some(pending) => self.answer(&message, pending),
            None if matches!(&id, Id::Text(text) if text.starts_with(&self.prefix)) => FromServer::Drop,
            None => FromServer::Pass,
        }
    }

    fn answer(&mut self, message: &RawObject<'_>, pending: Pending) -> FromServer {
        let Some((call, state)) = pending.into_call() else {
            self.hear(message);
            return FromServer::Pass;
        };
        let renumbered = || call.is_again().then(|| with_id(message, call.client_id()));
        let on = |line: Option<String>| line.map_or(FromServer::Pass, FromServer::Tell);
        let Some(denial) = Denial::of(message) else {
            return match state {
                State::Carries(Some(channel)) => FromServer::Tell(sealed::opened(message, &*channel, &call)),
                _ => on(renumbered()),
            };
        };
        match (denial.reason.as_str(), state) {
            ("TBAC_REQUIRED", State::Plain) if self.speaks != Speaks::Otherwise => {
                self.learn(call.method());
                let refusal = message.write();
                FromServer::Again(call.again(refusal))
            }
            ("TBAC_REQUIRED", State::Without(why)) => {
                FromServer::Tell(denial::explained(&message.write(), &why))
            }
            // The token was drawn a moment too early. None of these is spent for it.
            ("STALE_TIMESTAMP" | "EPOCH_EXPIRED" | "SESSION_EXPIRED", State::Carries(_))
                if !call.is_again() =>
            {
                let refusal = message.write();
                FromServer::Again(call.again(refusal))
            }
            ("TOKEN_REPLAYED", State::Carries(_)) => {
                FromServer::Stolen { line: with_id(message, call.client_id()), tool: call.tool().to_owned() }
            }
            _ => on(renumbered()),
        }
    }

    /// What the server says of itself.
    fn hear(&mut self, message: &RawObject<'_>) {
        let capabilities =
            message.object("result").and_then(|result| result.get("capabilities").map(str::to_owned));
        let Some(Ok(capabilities)) = capabilities.map(|text| json::parse(text.as_bytes())) else { return };
        self.speaks = match negotiate::<ServerCapability>(&capabilities) {
            Negotiated::Enabled { .. } => Speaks::Yes,
            Negotiated::Disabled(WhyDisabled::Absent) => Speaks::No,
            Negotiated::Disabled(_) => Speaks::Otherwise,
        };
    }

    /// A refusal in the extension's own words says that the server speaks it.
    fn learn(&mut self, method: &str) {
        self.speaks = Speaks::Yes;
        let known = method == TOOLS_CALL || self.guarded_methods.iter().any(|guarded| guarded == method);
        if !known && self.guarded_methods.len() < MAX_GUARDED_METHODS {
            self.guarded_methods.push(method.to_owned());
        }
    }
}

/// A request whose capabilities of the client name the extension.
fn advertising(message: &RawObject<'_>, method: &str) -> Option<String> {
    let params = message.object("params")?;
    let params = match method {
        INITIALIZE => {
            let capabilities = params.get("capabilities")?.to_owned();
            let mut params = params.clone();
            params.set("capabilities", advertised(&capabilities, Position::Experimental)?);
            params.write()
        }
        _ => stateless_advertising(&params)?,
    };
    let mut message = message.clone();
    message.set("params", params);
    Some(message.write())
}

/// The same where each request says what the client can do. `None` where it does not.
fn stateless_advertising(params: &RawObject<'_>) -> Option<String> {
    let mut meta = params.object("_meta")?;
    let capabilities = advertised(meta.get(CLIENT_CAPABILITIES)?, Position::Extensions)?;
    meta.set(CLIENT_CAPABILITIES, capabilities);
    let meta = meta.write();
    let mut params = params.clone();
    params.set("_meta", meta);
    Some(params.write())
}

/// Capabilities with the extension among them. Revisions of MCP that know no `extensions` know `experimental`; where the client
/// has the one, it is taken.
fn advertised(capabilities: &str, usual: Position) -> Option<String> {
    let mut capabilities = RawObject::read(capabilities)?;
    let place = if capabilities.get("extensions").is_some() { Position::Extensions } else { usual };
    let extensions = capabilities.get(place.key()).unwrap_or("{}").to_owned();
    let mut extensions = RawObject::read(&extensions)?;
    if extensions.get(EXTENSION).is_some() {
        return None;
    }
    extensions.set(EXTENSION, serde_json::Value::Object(ClientCapability::default().to_object()).to_string());
    capabilities.set(place.key(), extensions.write());
    Some(capabilities.write())
}

/// A message under the client's own number.
fn with_id(message: &RawObject<'_>, id: &Id) -> String {
    let mut message = message.clone();
    message.set("id", id.to_string());
    message.write()
}

/// A result of one text, for what goes wrong on this side.
fn failed(text: &str, stateless: bool) -> String {
    jsonrpc::result_text(&ToolResult::error(text), stateless)
}

#[cfg(test)]
mod tests;
