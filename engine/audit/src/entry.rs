//! What is written about one thing that happened.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

/// What happened. The names are those in the log's field `event`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A chain begins.
    Genesis,
    /// A file begins that goes on with the chain of another.
    Rotate,
    /// A process begins to write.
    Start,
    /// A process ended in good order.
    Stop,
    /// Lines could not be written for a while; what must not go unaudited was refused.
    Suspended,
    /// Lines that nobody waits for were given up because too many waited.
    Dropped,
    /// A token was handed out.
    HandOut,
    /// No token was handed out, or one was not accepted, for a reason that lies with who asked.
    Denial,
    /// Denials that have no lines of their own, because there were too many.
    Denials,
    /// A token was accepted, and spent.
    Spend,
    /// Tokens were minted ahead.
    Renewal,
    /// A session was provisioned.
    SessionStart,
    /// A session's time is over, or a flush ended it.
    SessionEnd,
    /// What was minted ahead was destroyed.
    Flush,
    /// A security event was reported; what was minted ahead for its subject was destroyed.
    SecurityEvent,
    /// A policy came into force, or the operator's own list of denials changed.
    Policy,
    /// New sessions are taken again after a flush.
    Resume,
    /// An operator revoked a session at a resource server.
    Revoke,
}

/// Whether what was asked for was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was.
    Allow,
    /// It was not.
    Deny,
}

/// Names one request of this process: connection and request, both counted from 1. As text `12.3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestTag {
    /// The connection.
    pub connection: u64,
    /// The request on it.
    pub request: u64,
}

impl fmt::Display for RequestTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.connection, self.request)
    }
}

impl Serialize for RequestTag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that happened; what does not apply is absent from its line.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Entry {
    /// When.
    pub time: SystemTime,
    /// What.
    pub event: Event,
    /// Whether it was done.
    pub decision: Option<Decision>,
    /// The request that asked for it.
    pub request: Option<RequestTag>,
    /// The name the connection's client gave.
    pub client: Option<Arc<str>>,
    /// The agent. Where it is absent and the session is known to the log, the log puts it in.
    pub agent: Option<Box<str>>,
    /// The session's number.
    pub session: Option<u64>,
    /// The tool.
    pub tool: Option<Box<str>>,
    /// The resource server.
    pub audience: Option<Box<str>>,
    /// The token's `jti`; only its hash is written.
    pub jti: Option<[u8; 22]>,
    /// When the token ends, in Unix seconds.
    pub expires_at: Option<u64>,
    /// Why it was not done: the protocol's error code.
    pub code: Option<&'static str>,
    /// Which check failed, where a code alone does not say.
    pub check: Option<&'static str>,
    /// How many things happened that this one line is about.
    pub count: Option<u64>,
    /// What was meant: the scope of a flush, the subject of a security event.
    pub scope: Option<Box<str>>,
    /// The reason somebody gave.
    pub reason: Option<Box<str>>,
    /// How many tokens it was about.
    pub tokens: Option<u64>,
    /// How many sessions ended.
    pub sessions_ended: Option<u64>,
    /// The policy epoch.
    pub epoch: Option<u64>,
}

impl Entry {
    /// Something that happened now.
    pub fn new(event: Event) -> Self {
        Self {
            time: SystemTime::now(),
            event,
            decision: None,
            request: None,
            client: None,
            agent: None,
            session: None,
            tool: None,
            audience: None,
            jti: None,
            expires_at: None,
            code: None,
            check: None,
            count: None,
            scope: None,
            reason: None,
            tokens: None,
            sessions_ended: None,
            epoch: None,
        }
    }
}
