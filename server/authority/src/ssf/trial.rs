//! A trial: the service says a security event to itself. It goes the way of every other, from a signed token to what it
//! ends; only the network before it is left out.

use std::sync::Arc;

use obol_handshake::Random as _;
use obol_secret::text::to_base64url;
use serde_json::{Value, json};

use super::effect::{CAEP, RISC, SET_TYPE};
use super::receive;
use super::refusal::Refusal;
use super::settings::TransmitterSettings;
use super::transmitter::Transmitter;
use crate::authority::{Authority, KillReport, Now};
use crate::directory::{Human, TakenSet};
use crate::id::{AgentId, SystemRandom};
use crate::issuer_keys::Keys;
use crate::jws::{Algorithm, KeySet};
use crate::outbound::Target;
use crate::refused::Refused;

/// What a trial says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trial {
    /// Their sessions end; their agents may open others.
    SessionRevoked,
    /// Their agents are suspended as well.
    AccountDisabled,
}

impl Trial {
    /// By the event's short name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "session-revoked" => Some(Self::SessionRevoked),
            "account-disabled" => Some(Self::AccountDisabled),
            _ => None,
        }
    }

    fn event(self) -> String {
        match self {
            Self::SessionRevoked => format!("{CAEP}session-revoked"),
            Self::AccountDisabled => format!("{RISC}account-disabled"),
        }
    }
}

/// Says this of a human, or of one agent of theirs. `None` where nobody answers for agents who is called so.
///
/// # Errors
///
/// [`Refused`] where it cannot be carried out.
pub fn trial(
    authority: &Authority,
    trial: Trial,
    human: &Human,
    agent: Option<&AgentId>,
    now: Now,
) -> Result<Option<KillReport>, Refused> {
    let issuer = authority.settings().origin().to_owned();
    let keys = authority.signing_keys(now)?;
    let unavailable = |error: &dyn core::fmt::Display| Refused::Unavailable(error.to_string());
    let by = Transmitter {
        settings: TransmitterSettings {
            configuration: Target::parse(&issuer).map_err(|error| unavailable(&error))?,
            audience: issuer.clone(),
            users_of: human.issuer.clone(),
            email_domain: None,
            suspend_on: Vec::new(),
            max_age_secs: 60,
            poll: None,
            issuer: issuer.clone(),
        },
        keys: Arc::new(Keys::of(
            KeySet::read(keys.key_set(now.secs()).to_string().as_bytes())
                .map_err(|error| unavailable(&error))?,
        )),
        counts: Arc::default(),
        login: None,
    };
    let claims = json!({
        "iss": issuer, "aud": issuer, "iat": now.secs(), "jti": fresh_name(),
        "sub_id": subject(human, agent),
        "events": { trial.event(): { "event_timestamp": now.secs(), "initiating_entity": "admin" } },
    });
    let token =
        keys.sign(Algorithm::Rs256, SET_TYPE, &claims, now.secs()).map_err(|error| unavailable(&error))?;
    let refused = |refusal: Refusal| Refused::Unavailable(refusal.to_string());
    let token = token.into_bytes();
    if let receive::Signed::UnknownKey = receive::signed(&token, &by).map_err(refused)? {
        return Err(Refused::Unavailable("the service's own keys do not check what it signs".to_owned()));
    }
    match receive::carry_out(&token, &by, authority, now).map_err(refused)? {
        TakenSet::Done(ended) => authority.report(ended).map(Some),
        TakenSet::Unknown | TakenSet::Again => Ok(None),
    }
}

/// A human as others are told of them, and one agent of theirs.
pub(in crate::ssf) fn subject(human: &Human, agent: Option<&AgentId>) -> Value {
    let user = match human.issuer.as_str() {
        "local" => json!({ "format": "opaque", "id": human.subject }),
        issuer => json!({ "format": "iss_sub", "iss": issuer, "sub": human.subject }),
    };
    match agent {
        None => user,
        Some(agent) => {
            let application = json!({ "format": "opaque", "id": agent });
            json!({ "format": "complex", "user": user, "application": application })
        }
    }
}

/// A name that no token had before.
pub(crate) fn fresh_name() -> String {
    let mut bytes = [0; 16];
    SystemRandom.fill(&mut bytes);
    to_base64url(&bytes)
}
