//! What a human says in a browser: yes or no to an agent, and what is known of them.

use super::{Authority, Now, Review};
use crate::decider::Verdict;
use crate::directory::{Agent, Approval, Ended, Flow, Human, Person, PersonStatus, RegistrationState};
use crate::id::{AgentId, Bearer, RegistrationId, ReturnCode};
use crate::refused::Refused;

/// What has to come back to the agent after a yes.
#[derive(Debug)]
pub enum Confirmed {
    /// The browser carries it to this port of its own machine.
    Loopback(u16, Bearer),
    /// The human types it into the agent's terminal.
    Code(ReturnCode),
}

impl Authority {
    /// What has to come back by this flow after a yes, fresh, and what it is hashed to; `None` where no browser says it.
    pub(super) fn to_come_back(&self, flow: Flow) -> Option<(Confirmed, [u8; 32])> {
        let rng = &mut self.random();
        match flow {
            Flow::Local => None,
            Flow::Loopback(port) => {
                let code = Bearer::generate(rng);
                let hash = code.hash();
                Some((Confirmed::Loopback(port, code), hash))
            }
            Flow::Code => {
                let code = ReturnCode::generate(rng);
                let hash = code.hash(&self.code_key);
                Some((Confirmed::Code(code), hash))
            }
        }
    }

    /// What whatever came back is hashed to.
    pub(super) fn came_back(&self, shown: &str) -> Result<[u8; 32], Refused> {
        let bearer = Bearer::parse(shown).map(|code| code.hash());
        let hash = bearer.or_else(|| ReturnCode::parse(shown).map(|code| code.hash(&self.code_key)));
        hash.ok_or_else(|| {
            Refused::Malformed(
                "a return code is three words of five letters, as the page shows them".to_owned(),
            )
        })
    }

    /// Notes a human's yes to a registration, with these roles, for so many seconds. The agent is none until what is given here came
    /// back to it.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn confirm(
        &self,
        review: &Review,
        roles: &[String],
        secs: Option<u64>,
        by: &Human,
        now: Now,
    ) -> Result<Confirmed, Refused> {
        self.check_reach_of(review, by)?;
        let registration = &review.registration;
        let secs = self.approval_secs(secs)?;
        self.may_register(by, &registration.wanted.class, roles, registration.flow.name(), secs)?;
        let (confirmed, code_hash) = self.to_come_back(registration.flow).ok_or(Refused::ApprovalDenied)?;
        let place = self.auditor.reserve()?;
        let yes = Approval {
            registration: registration.id.clone(),
            agent: AgentId::generate(&mut self.random()),
            by: by.clone(),
            roles: roles.to_vec(),
            secs,
            flow: registration.flow.name(),
            reached: review.owner(),
        };
        let registration = self.directory.confirm(yes, code_hash, now.secs())??;
        place.confirmed(&registration, by);
        Ok(confirmed)
    }

    /// Makes an agent of a registration that a human said yes to, for whoever holds its poll token and what came back.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn complete(
        &self,
        id: RegistrationId,
        token: &Bearer,
        shown: &str,
        now: Now,
    ) -> Result<Agent, Refused> {
        let hash = self.came_back(shown)?;
        let reached = self.reached_by_yes(&id, now)?;
        let place = self.auditor.reserve()?;
        let agent = self.directory.complete(id, token.hash(), hash, reached.clone(), now.secs())??;
        place.approved(&agent, reached.as_ref());
        Ok(agent)
    }

    /// Who answers for the agent that a registration renews, if whoever said yes to it reaches them still.
    fn reached_by_yes(&self, id: &RegistrationId, now: Now) -> Result<Option<Human>, Refused> {
        let Some(open) = self.directory.open_registration(id, now.secs())? else { return Ok(None) };
        let RegistrationState::Confirming(yes) = &open.state else { return Ok(None) };
        let by = yes.by.clone();
        let review = self.reviewed(open)?;
        Ok(if self.reaches_registration(&review, &by)? { review.owner() } else { None })
    }

    /// Notes what is known of a human now; sessions end that follow from roles which they have lost.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn know_person(&self, person: &Person, now: Now) -> Result<(), Refused> {
        loop {
            let place = self.auditor.reserve()?;
            let part: Ended = self.directory.know_person(person.clone(), now.secs())??;
            if !part.agents.is_empty() {
                let human = person.human.to_string();
                place.ended(&format!("agents of {human}"), "their owner has fewer roles", &human, &part);
            }
            if !part.more {
                return Ok(());
            }
        }
    }

    /// Whether policy lets this human do what an operator does, by the verb's name. Whoever is disabled does nothing, also
    /// where they are logged in still and policy asks for no role.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where it cannot be decided.
    pub(crate) fn may_operate(&self, by: &Human, verb: &str) -> Result<Verdict, Refused> {
        let person = self.person(by)?;
        if person.status == PersonStatus::Disabled {
            return Ok(Verdict { allowed: false, decided_by: Vec::new() });
        }
        let decider = self.deciding.read().decider.clone();
        decider.may_operate(&person, verb).map_err(|error| Refused::Unavailable(error.to_string()))
    }
}
