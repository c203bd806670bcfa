//! What is written about one thing that happened.

use core::fmt;
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
    /// A scoped token was issued.
    TokenIssue,
    /// A scoped token was replaced by a new one.
    TokenRotate,
    /// A scoped token was ended.
    TokenRevoke,
    /// An agent asked the Authentication Service to be registered.
    Register,
    /// A human approved an agent there, or denied it.
    Approve,
    /// An agent asked there for a human's yes to calls.
    ApprovalAsked,
    /// A human said yes to calls there, or no.
    ApprovalGiven,
    /// An invitation, or a code to join with, was made there.
    Invite,
    /// A session was opened there.
    SessionOpen,
    /// An agent, a session or the use of a tool was ended there.
    Disable,
    /// An agent or a tool was let in there again.
    Enable,
    /// An agent replaces its identity key.
    KeyRotate,
    /// An agent's identity key seems to have a copy.
    CloneSuspected,
    /// An agent says that somebody else spent a token of its.
    TokenStolen,
    /// An operator of another machine logged in there, or was refused.
    OperatorLogin,
    /// An operator's login from another machine ended before its time.
    OperatorLogout,
    /// An operator of another machine asked for something there.
    Operate,
    /// A resource server's copy joined.
    Join,
    /// A session would have been opened otherwise there by a policy that is only looked at.
    Observed,
    /// The sidecar was flushed, and its authenticator opens no session until it is resumed.
    Hold,
    /// The Authentication Service was told of such a flush.
    FlushTold,
}

/// Whether what was asked for was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was allowed.
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
    /// The agent. Where it is absent and the session is known to the log, the log fills it in.
    pub agent: Option<Box<str>>,
    /// The session's number.
    pub session: Option<u64>,
    /// The tool.
    pub tool: Option<Box<str>>,
    /// The resource server.
    pub audience: Option<Box<str>>,
    /// The token's `jti`; only its hash is written.
    pub jti: Option<[u8; 22]>,
    /// The `jti` of a token of another kind, in the place of `jti`; only its hash is written.
    pub token_id: Option<Box<str>>,
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
    /// A name or a text was longer than is written, and cut. The log sees to it.
    pub cut: bool,
}

/// The longest name that is written, in bytes. What is longer, and only then, was not made by Obol.
const MAX_NAME_BYTES: usize = 256;
/// The longest scope or reason that is written, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

impl Entry {
    /// Cuts what is too long, so that nobody fills the log, or the memory of what waits, with a name.
    pub(crate) fn cut_names(&mut self) {
        for name in [&mut self.agent, &mut self.tool, &mut self.audience] {
            self.cut |= cut(name, MAX_NAME_BYTES);
        }
        for text in [&mut self.scope, &mut self.reason] {
            self.cut |= cut(text, MAX_TEXT_BYTES);
        }
        self.cut |= cut(&mut self.client, MAX_NAME_BYTES);
    }

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
            token_id: None,
            expires_at: None,
            code: None,
            check: None,
            count: None,
            scope: None,
            reason: None,
            tokens: None,
            sessions_ended: None,
            epoch: None,
            cut: false,
        }
    }
}

/// Cuts a text between two characters; whether it was too long.
fn cut<T: AsRef<str> + for<'a> From<&'a str>>(text: &mut Option<T>, most: usize) -> bool {
    let Some(long) = text.as_ref().map(AsRef::as_ref).filter(|text| text.len() > most) else { return false };
    let short = T::from(long.get(..long.floor_char_boundary(most)).unwrap_or_default());
    *text = Some(short);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters_and_marked() {
        let mut entry = Entry {
            tool: Some("t".repeat(MAX_NAME_BYTES).into()),
            client: Some("c".into()),
            ..Entry::new(Event::Denial)
        };
        let whole = entry.clone();
        entry.cut_names();
        assert_eq!(entry, whole);
        entry.audience = Some(format!("a{}", "é".repeat(MAX_NAME_BYTES)).into());
        entry.cut_names();
        assert_eq!(entry.audience.as_ref().map(|name| name.len()), Some(MAX_NAME_BYTES - 1));
        assert!(entry.cut && entry.tool == whole.tool);
    }
}
