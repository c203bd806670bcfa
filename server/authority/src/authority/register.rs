//! Purpose 2: an agent asks to be registered, and hears the code that a human types.

use obol_handshake::{Proven, SekPublic};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::payload::{self, RegisterRequest};
use super::{Authority, Now, Outcome, answered, handshake_of, holds_sek, seal_with};
use crate::directory::{Answer, Carried, NewRegistration, PENDING_SECS, Registered};
use crate::id::{AgentId, Bearer, RegistrationId, UserCode};
use crate::refused::Refused;

/// How often whoever waits should ask, in seconds.
pub(super) const POLL_INTERVAL_SECS: u64 = 5;

impl Authority {
    pub(super) fn register(&self, proven: Proven, source: &str, now: Now) -> Answer<Outcome> {
        let checked = payload::read::<RegisterRequest>(&proven.payload).and_then(|request| {
            let sek = SekPublic(request.sek_pk);
            if !holds_sek(&proven, &sek, &request.sek_proof) {
                return Err(Refused::SekProof);
            }
            let ticket = request.ticket.map(|ticket| Bearer::parse(&ticket).ok_or(Refused::Invitation));
            Ok((sek, payload::clean(request.wanted)?, ticket.transpose()?))
        });
        let (sek, wanted, ticket) = match checked {
            Ok(checked) => checked,
            Err(refused) => return self.refuse(proven, refused, now),
        };
        let rng = &mut self.random();
        let (poll, code) = (Bearer::generate(rng), UserCode::generate(rng));
        let (identity, name) = (proven.identity, wanted.name.clone());
        let new = NewRegistration {
            id: RegistrationId::generate(rng),
            agent: AgentId::generate(rng),
            wanted,
            identity,
            sek,
            source: source.to_owned(),
            poll_hash: poll.hash(),
            code_hash: code.hash(&self.code_key),
            ticket_hash: ticket.map(|ticket| ticket.hash()),
        };
        let place = self.auditor.reserve()?;
        let handshake = handshake_of(&proven);
        let seal = seal_with(proven, move |done| told(done, &poll.to_text(), &code));
        let carried = self.directory.register(handshake, new, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(done), _) => place.registered(&identity, &name, source, done),
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }
}

/// Message D of purpose 2.
fn told(done: &Registered, poll: &Zeroizing<String>, code: &UserCode) -> Value {
    match done {
        Registered::Waits(id) => json!({
            "registration_id": id,
            "poll_token": poll.as_str(),
            "user_code": code.to_string(),
            "interval": POLL_INTERVAL_SECS,
            "expires_in": PENDING_SECS,
        }),
        Registered::Active(agent) => json!({ "agent_id": agent.id, "expires_at": agent.expires_at }),
    }
}
