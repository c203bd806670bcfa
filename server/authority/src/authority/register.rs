//! Purpose 2: an agent asks to be registered, and hears the code that a human types.

use obol_handshake::{IdentityPublic, Proven, SekPublic};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::payload::{self, AssertionText, RegisterRequest};
use super::{Authority, Now, Outcome, answered, handshake_of, holds_sek, seal_with};
use crate::directory::{
    ATTESTED, Answer, Attested, Carried, Flow, Human, NewRegistration, PENDING_SECS, PersonStatus,
    Registered, Wanted,
};
use crate::id::{AgentId, Bearer, RegistrationId, UserCode};
use crate::notices::quoted;
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
            let attested = match (&ticket, request.assertion) {
                (_, None) => None,
                (None, Some(assertion)) => Some(self.attested(&assertion, &request.wanted, now)?),
                (Some(_), Some(_)) => {
                    return Err(Refused::Malformed("a ticket or an assertion, and not both".to_owned()));
                }
            };
            // Without pages nobody could decide on one.
            let flow = request.flow.filter(|_| self.settings.has_pages).map_or(Flow::Local, Flow::from);
            let wanted = payload::clean(request.wanted)?;
            let ticket_hash = ticket.transpose()?.map(|ticket| ticket.hash());
            let reached = self.reached_unseen(proven.identity, ticket_hash, attested.as_ref(), now)?;
            Ok((sek, wanted, (ticket_hash, attested, reached), flow))
        });
        let (sek, wanted, (ticket_hash, attested, reached), flow) = match checked {
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
            flow,
            poll_hash: poll.hash(),
            code_hash: code.hash(&self.code_key),
            ticket_hash,
            attested: attested.clone(),
            reached: reached.clone(),
        };
        let place = self.auditor.reserve()?;
        let handshake = handshake_of(&proven);
        let origin = self.settings.origin.clone();
        let seal =
            seal_with(proven, move |done| told(done, &poll.to_text(), &code, page(&origin, flow, done)));
        let carried = self.directory.register(handshake, new, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(done), _) => {
                place.registered((&identity, &name, source), attested.as_ref(), reached.as_ref(), done);
                if matches!(done, Registered::Waits(_)) {
                    self.waits(&name, source, now);
                }
            }
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }

    /// Who answers for the agent that has this key already, if they are of the organisation of whoever gave the ticket, or is to answer
    /// by the word.
    fn reached_unseen(
        &self,
        key: IdentityPublic,
        ticket_hash: Option<[u8; 32]>,
        attested: Option<&Attested>,
        now: Now,
    ) -> Result<Option<Human>, Refused> {
        let invitation = ticket_hash.map(|hash| self.directory.invitation(hash)).transpose()?.flatten();
        let giver = invitation.map(|invitation| invitation.by).or(attested.map(|word| word.owner.clone()));
        giver.map_or(Ok(None), |giver| self.owner_beside(&giver, key, now))
    }

    /// What somebody whom the service takes at their word says of an agent, as far as its owner and policy allow it.
    fn attested(&self, assertion: &AssertionText, wanted: &Wanted, now: Now) -> Result<Attested, Refused> {
        let word = self.attestors.check(assertion.0.as_bytes(), wanted, now.secs())?;
        let owner = self.person(&word.owner)?;
        let roles = owner.bounds(&word.roles);
        if owner.status == PersonStatus::Disabled {
            return Err(Refused::OwnerDisabled);
        }
        // Whoever has none of the roles is not whom the rule speaks of.
        if roles.is_empty() && !word.roles.is_empty() {
            return Err(Refused::ApprovalDenied);
        }
        self.approval_secs(Some(word.secs))?;
        self.may_register(&word.owner, &wanted.class, &roles, ATTESTED, word.secs)?;
        Ok(Attested { roles, ..word })
    }

    /// Says that a registration waits. Its code is in the agent's terminal and nowhere else, and so not here.
    fn waits(&self, name: &str, source: &str, now: Now) {
        let at = match self.settings.has_pages {
            true => format!("{}/activate", self.settings.origin),
            false => "`obol registrations` where the service runs".to_owned(),
        };
        let text = format!("agent {} from {} waits for a human's word: {at}", quoted(name), quoted(source));
        self.notices.waits(source, "registration_waits", text, now.secs(), None);
    }
}

/// Message D of purpose 2.
fn told(done: &Registered, poll: &Zeroizing<String>, code: &UserCode, page: Option<Value>) -> Value {
    match done {
        Registered::Waits(id) => {
            let mut told = json!({
                "registration_id": id,
                "poll_token": poll.as_str(),
                "user_code": code.to_string(),
                "interval": POLL_INTERVAL_SECS,
                "expires_in": PENDING_SECS,
            });
            if let (Some(page), Some(told)) = (page, told.as_object_mut()) {
                told.insert("page".to_owned(), page);
            }
            told
        }
        Registered::Active(agent) => json!({ "agent_id": agent.id, "expires_at": agent.expires_at }),
    }
}

/// Where a human decides in a browser. By code, the address says nothing: a link that somebody mailed shows nothing either.
fn page(origin: &str, flow: Flow, done: &Registered) -> Option<Value> {
    let Registered::Waits(id) = done else { return None };
    let url = match flow {
        Flow::Local => return None,
        Flow::Loopback(_) => format!("{origin}/activate/{id}"),
        Flow::Code => format!("{origin}/activate"),
    };
    Some(json!({ "flow": flow.name(), "url": url }))
}
