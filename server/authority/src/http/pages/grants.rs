//! A grant as people read it: with every limit, and whether a human is asked about each call.

use super::calls::limits;
use super::words::{shown, span};
use crate::decider::PerCall;

/// One thing that an agent may do, or could.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) tool: String,
    pub(super) at: String,
    pub(super) may: String,
    pub(super) on: String,
    pub(super) limits: Vec<String>,
    /// Whether each call takes a human's yes.
    pub(super) asks: bool,
    /// What policy knows it by, where a human is asked.
    pub(super) offer: String,
}

impl Granted {
    /// What is minted ahead, then what takes a human's yes.
    pub(super) fn all(grants: &[obol_session::Grant], per_call: &[PerCall]) -> Vec<Self> {
        let ahead = grants.iter().map(|grant| Self::of(grant, ""));
        ahead.chain(per_call.iter().map(|offer| Self::of(&offer.grant, &offer.offer))).collect()
    }

    fn of(grant: &obol_session::Grant, offer: &str) -> Self {
        let mut limits = grant.constraints.as_ref().map(limits).unwrap_or_default();
        limits.push(format!("trust level {}", grant.trust_level));
        limits.push(format!("a token lasts {}", span(grant.ttl)));
        limits.push(match grant.delegation_depth {
            0 => "not passed on".to_owned(),
            1 => "passed on once".to_owned(),
            times => format!("passed on {times} times"),
        });
        if grant.require_pop {
            limits.push("only with proof of the session's key".to_owned());
        }
        limits.extend(grant.purpose.iter().map(|purpose| format!("for {}", shown(purpose))));
        Self {
            tool: shown(&grant.tool),
            at: shown(&grant.aud),
            may: shown(&grant.action.join(", ")),
            on: shown(&grant.resource),
            limits,
            asks: grant.is_per_call() || !offer.is_empty(),
            offer: shown(offer),
        }
    }
}
