//! A grant as the queue uses it: with the keys to mint with, ready at hand.

use std::collections::HashMap;
use std::sync::Arc;

use obol_session::{AgentHalf, PopKey};
use obol_token::{Audience, Scope, SessionMaterial};

/// The right to mint tokens of one scope for one resource server: the first state of a token.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    pub(crate) audience: Audience,
    pub(crate) material: Arc<SessionMaterial>,
    /// Life of a token, in seconds.
    pub(crate) ttl: u64,
    /// What proofs of possession are made with, where its tokens ask for them and this queue is who makes them.
    pub(crate) pop_key: Option<Arc<PopKey>>,
}

impl Grant {
    /// The grants of a session that are minted ahead, and those that take a human's yes to each call; each in the session's
    /// order. One that names no resource server of the session is left out; a half that was checked has none.
    pub(crate) fn of(half: &AgentHalf) -> (Vec<Self>, Vec<Self>) {
        let servers: HashMap<&str, (Audience, Arc<SessionMaterial>)> = half
            .resource_servers
            .iter()
            .filter_map(|keys| {
                let material = Arc::new(keys.material(half.session_id, half.suite));
                Some((keys.aud.as_str(), (keys.audience().ok()?, material)))
            })
            .collect();
        let pop_key = half.pop_key.as_ref().map(|key| Arc::new(PopKey::from_bytes(*key.expose())));
        let ready = |grant: &obol_session::Grant| {
            let (audience, material) = servers.get(grant.aud.as_str())?;
            Some(Self {
                scope: grant.scope(&half.agent, &half.org_id),
                audience: audience.clone(),
                material: Arc::clone(material),
                ttl: grant.ttl,
                pop_key: pop_key.clone().filter(|_| grant.require_pop),
            })
        };
        let (per_call, ahead): (Vec<_>, Vec<_>) = half.grants.iter().partition(|grant| grant.is_per_call());
        let all = |grants: Vec<_>| grants.into_iter().filter_map(ready).collect();
        (all(ahead), all(per_call))
    }

    /// Tokens with less life left than this are not handed out, in seconds: what the settings say, and a quarter of the
    /// ttl at most.
    pub(crate) fn least_life(&self, min_life: u64) -> u64 {
        least_life(self.ttl, min_life)
    }

    /// Whether its tokens ask for calls and answers to be sealed.
    pub(crate) fn asks_for_channel(&self) -> bool {
        self.scope.constraints.as_ref().is_some_and(|limits| limits.require_channel_encryption == Some(true))
    }
}

/// The least life of a token of this ttl; all in seconds.
pub(crate) fn least_life(ttl: u64, min_life: u64) -> u64 {
    min_life.min(ttl / 4)
}
