//! What is said of an event of the directory: as a security event token of CAEP, and as a document for webhooks. Both are made
//! from what the directory knows when it is said; none holds a key.

use obol_session::SessionId;
use serde_json::{Value, json};

use crate::directory::{Agent, Answer, Directory, Event, Happening};
use crate::ssf::effect::{CAEP, SSF};
use crate::ssf::trial::subject;

/// CAEP's names of what is told.
pub(super) const SESSION_REVOKED: &str = "session-revoked";
pub(super) const SESSION_ESTABLISHED: &str = "session-established";

/// A session that opened or ended.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// The event's number.
    pub(super) seq: u64,
    at: u64,
    pub(super) kind: &'static str,
    session: SessionId,
    agent: Agent,
    audiences: Vec<String>,
    reason: Option<String>,
}

/// CAEP's events, as they are named in full.
pub(super) fn full(kind: &str) -> String {
    format!("{CAEP}{kind}")
}

/// What is said of an event, if anything.
pub(super) fn of(event: &Event, directory: &dyn Directory) -> Answer<Option<Said>> {
    let (kind, session, agent, audiences, reason) = match &event.what {
        Happening::SessionOpen { session, agent, audiences } => {
            (SESSION_ESTABLISHED, *session, agent, audiences, None)
        }
        Happening::SessionEnd { session, agent, audiences, reason } => {
            (SESSION_REVOKED, *session, agent, audiences, Some(reason.clone()))
        }
        _ => return Ok(None),
    };
    let Some(agent) = directory.agent(agent.as_str())? else { return Ok(None) };
    let (seq, at, audiences) = (event.seq, event.at, audiences.clone());
    Ok(Some(Said { seq, at, kind, session, agent, audiences, reason }))
}

impl Said {
    /// The claims of a token.
    #[expect(clippy::indexing_slicing, reason = "an object takes a member of any name")]
    pub(super) fn claims(&self, issuer: &str, audience: &str, jti: &str, now: u64) -> Value {
        let mut about = subject(&self.agent.owner, Some(&self.agent.id));
        about["session"] = json!({ "format": "opaque", "id": self.session.to_string() });
        let mut event = json!({ "event_timestamp": self.at });
        if let Some(reason) = &self.reason {
            event["initiating_entity"] = json!("policy");
            event["reason_admin"] = json!({ "en": reason });
        }
        json!({
            "iss": issuer, "aud": audience, "jti": jti, "iat": now, "txn": self.seq.to_string(),
            "sub_id": about, "events": { full(self.kind): event },
        })
    }

    /// As a document.
    #[expect(clippy::indexing_slicing, reason = "an object takes a member of any name")]
    pub(super) fn to_json(&self, origin: &str) -> Value {
        let kind = if self.kind == SESSION_REVOKED { "session.revoked" } else { "session.established" };
        let mut data = json!({
            "session": self.session.to_string(),
            "agent": { "id": self.agent.id, "name": self.agent.wanted.name, "class": self.agent.wanted.class },
            "owner": { "issuer": self.agent.owner.issuer, "subject": self.agent.owner.subject },
            "audiences": self.audiences,
            "service": origin,
        });
        if let Some(reason) = &self.reason {
            data["reason"] = json!(reason);
        }
        json!({ "type": kind, "timestamp": self.at, "data": data })
    }
}

/// The claims of a token that shows that a stream works.
#[expect(clippy::indexing_slicing, reason = "an object takes a member of any name")]
pub(super) fn verification(
    issuer: &str,
    audience: &str,
    stream: &str,
    state: &str,
    jti: &str,
    now: u64,
) -> Value {
    let [family, _] = SSF;
    let mut event = json!({});
    if !state.is_empty() {
        event["state"] = json!(state);
    }
    json!({
        "iss": issuer, "aud": audience, "jti": jti, "iat": now,
        "sub_id": { "format": "opaque", "id": stream },
        "events": { format!("{family}verification"): event },
    })
}
