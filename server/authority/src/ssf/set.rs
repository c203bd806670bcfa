//! What a security event token says (RFC 8417), once its signature holds: for whom, when, of whom, what.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::effect::{Effect, effect, short};
use super::refusal::{Refusal, Wrong};
use super::settings::TransmitterSettings;
use super::subject::subject;
use crate::directory::{HeardSet, OwnerEnd, Subject};

/// How far a token may be from the future, in seconds: clocks differ.
const MAX_AHEAD_SECS: u64 = 600;
/// The longest name of a token, in bytes.
const MAX_JTI_BYTES: usize = 512;
/// The most events of one token.
const MAX_EVENTS: usize = 16;

/// What a token says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    jti: String,
    iat: u64,
    #[serde(default)]
    exp: Option<u64>,
    aud: Audience,
    #[serde(default)]
    sub_id: Option<Value>,
    events: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn holds(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// A token that may be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Checked {
    pub(super) heard: HeardSet,
    /// The short names of its events, for logs.
    pub(super) events: String,
    /// Whether it is about the stream alone.
    pub(super) of_stream: bool,
}

/// Checks what a token says, and what follows from it.
pub(super) fn check(claims: Claims, by: &TransmitterSettings, now: u64) -> Result<Checked, Refusal> {
    if !claims.aud.holds(&by.audience) {
        return Err(Wrong::Audience.because("`aud` does not name this service"));
    }
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI_BYTES {
        return Err(Wrong::Request.because(format!("`jti` has 1 to {MAX_JTI_BYTES} bytes")));
    }
    if claims.iat > now.saturating_add(MAX_AHEAD_SECS) {
        return Err(Wrong::Request.because("`iat` is in the future"));
    }
    let replayable_until = claims.iat.saturating_add(by.max_age_secs);
    if now > replayable_until || claims.exp.is_some_and(|exp| now >= exp) {
        return Err(Refusal::too_late(by.max_age_secs));
    }
    if claims.events.is_empty() || claims.events.len() > MAX_EVENTS {
        return Err(Wrong::Request.because(format!("`events` has 1 to {MAX_EVENTS} members")));
    }
    let (mut deed, mut of_stream, mut about) = (None::<OwnerEnd>, true, None::<&Value>);
    for (kind, said) in &claims.events {
        let said = said.as_object().ok_or_else(|| Wrong::Request.because("an event is an object"))?;
        // Before it had a place of its own, the subject was in the event.
        about = about.or_else(|| said.get("subject"));
        match effect(kind, said, &by.suspend_on) {
            Effect::Deed(one) => (deed, of_stream) = (deed.max(Some(one)), false),
            Effect::Noted => of_stream = false,
            Effect::OfStream => {}
        }
    }
    let about = claims.sub_id.as_ref().or(about);
    let subject = match (about, of_stream) {
        (Some(about), false) => {
            subject(about, by).map_err(|_| Wrong::Request.because("the subject is malformed"))?
        }
        _ => None,
    };
    if deed.is_some() && about.is_none() {
        return Err(Wrong::Request.because("`sub_id` is missing: nobody is named"));
    }
    let names = claims.events.keys().map(|kind| short(kind).unwrap_or("unknown event"));
    let events = names.collect::<Vec<_>>().join(" ");
    let reason = format!("{events}, said by {}", claims.iss);
    let heard = HeardSet { issuer: claims.iss, jti: claims.jti, replayable_until, subject, deed, reason };
    Ok(Checked { heard, events, of_stream })
}

/// A subject as logs have it.
pub(super) fn name(subject: Option<&Subject>) -> String {
    match subject {
        None => "nobody here".to_owned(),
        Some(Subject { human, agent, session }) => {
            let agent = agent.as_ref().map(|id| format!(", agent {id}")).unwrap_or_default();
            let session = session.map(|id| format!(", session {id}")).unwrap_or_default();
            format!("{human}{agent}{session}")
        }
    }
}
