//! Several organisations at one service: who is of which, and who reaches beyond their own.
//!
//! An agent is of the organisation of whoever answers for it; servers, policies, keys and the audit log are of the service's own. Users
//! of the service's machine reach everything. Everybody else sees, and decides on, what is of their own organisation, unless policy
//! says otherwise (`reach`); that is asked beside what they may do, and lets nobody do anything alone. What they do not reach is, to
//! them, as if it were not there.

use std::collections::{BTreeSet, HashMap};

use obol_handshake::IdentityPublic;
use obol_session::SessionId;

use super::{Authority, Now, Review};
use crate::directory::{
    Agent, Answer, EndScope, Event, Happening, Human, KeyStanding, MAX_PAGE, PersonStatus, Registration,
    SessionRow,
};
use crate::id::{AgentId, RegistrationId, UserCode};
use crate::refused::Refused;

/// What policies call reaching beyond one's own organisation.
const REACH: &str = "reach";
/// The most pages that are looked through for one of what somebody reaches.
const MAX_PAGES: usize = 64;

impl Authority {
    /// The organisation of a human: as settings say of who knows them. Where they know of one alone, everybody's is that one;
    /// else whom nobody vouches for is of none that somebody else is of: it is called as their issuer.
    pub(crate) fn organisation_of<'a>(&'a self, human: &'a Human) -> &'a str {
        let settings = &self.settings;
        match settings.organisations.get(&human.issuer) {
            Some(named) => named,
            None if human.is_local() => &settings.org_id,
            None if settings.organisations.values().all(|name| *name == settings.org_id) => &settings.org_id,
            None => &human.issuer,
        }
    }

    /// Whether `by` may see, and decide on, what belongs to an agent of this owner.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where it cannot be decided.
    pub fn reaches(&self, by: &Human, owner: &Human) -> Result<bool, Refused> {
        self.reaches_organisation(by, self.organisation_of(owner))
    }

    /// Whether they may of what is the service's own: its servers, policies, keys, and its audit log, which is of everybody.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where it cannot be decided.
    pub fn reaches_service(&self, by: &Human) -> Result<bool, Refused> {
        self.reaches_organisation(by, &self.settings.org_id)
    }

    fn reaches_organisation(&self, by: &Human, organisation: &str) -> Result<bool, Refused> {
        if by.is_local() || self.organisation_of(by) == organisation {
            return Ok(true);
        }
        let person = self.person(by)?;
        if person.status == PersonStatus::Disabled {
            return Ok(false);
        }
        let decider = self.deciding.read().decider.clone();
        decider.may_reach(&person, organisation).map_err(|error| Refused::Unavailable(error.to_string()))
    }

    /// Whether they may look at this registration: it renews nothing, or what they reach.
    pub(super) fn check_reach_of(&self, review: &Review, by: &Human) -> Result<(), Refused> {
        match self.reaches_registration(review, by)? {
            true => Ok(()),
            false => Err(Refused::NoSuchCode),
        }
    }

    /// The same, as an answer.
    pub(super) fn reaches_registration(&self, review: &Review, by: &Human) -> Result<bool, Refused> {
        review.before.as_ref().map_or(Ok(true), |before| self.reaches(by, &before.owner))
    }

    /// The registration with this code, if it renews nothing, or what they reach: else it is a code like one that nobody has.
    pub(crate) fn review_reached(&self, code: &UserCode, by: &Human, now: Now) -> Result<Review, Refused> {
        let review = self.review(code, now)?;
        self.check_reach_of(&review, by)?;
        Ok(review)
    }

    /// The same of the registration with this id.
    pub(crate) fn review_named_reached(
        &self,
        id: &RegistrationId,
        by: &Human,
        now: Now,
    ) -> Result<Review, Refused> {
        let review = self.review_named(id, now)?;
        self.check_reach_of(&review, by)?;
        Ok(review)
    }

    /// The registrations that wait, the one whose time is over next first: those that renew nothing, and those that renew what `by`
    /// reaches; at most a page.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub fn waiting_registrations(&self, by: &Human, now: Now) -> Result<Vec<Registration>, Refused> {
        let (mut reach, mut found, mut behind) = (Reach::of(self, by), Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let page = self.directory.waiting(now.secs(), behind.as_ref())?;
            let Some(last) = page.last().cloned() else { break };
            for waiting in page {
                let before = match &waiting.renews {
                    Some(id) => self.directory.agent(id.as_str())?,
                    None => None,
                };
                if before.map_or(Ok(true), |before| reach.has(&before.owner))? {
                    found.push(waiting);
                }
                if found.len() == MAX_PAGE {
                    return Ok(found);
                }
            }
            behind = Some(last);
        }
        Ok(found)
    }

    /// Of these resource servers those that `by` may know of: all, where they reach what is the service's own; else those that hold
    /// sessions of these agents, which they reach, or held some that ended with this event or not long before it.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub fn reached_audiences(
        &self,
        mut audiences: Vec<String>,
        agents: &[AgentId],
        event: u64,
        by: &Human,
    ) -> Result<Vec<String>, Refused> {
        if self.reaches_service(by)? {
            return Ok(audiences);
        }
        let mut theirs = BTreeSet::new();
        for agent in agents {
            let live = self.directory.sessions(agent)?;
            theirs.extend(live.into_iter().flat_map(|session| session.audiences));
        }
        for happened in self.events_up_to(event)? {
            if let Happening::SessionEnd { agent, audiences, .. } = happened.what
                && agents.contains(&agent)
            {
                theirs.extend(audiences);
            }
        }
        audiences.retain(|audience| theirs.contains(audience));
        Ok(audiences)
    }

    /// The last events up to this one, as far as they are known still; at most a page.
    fn events_up_to(&self, event: u64) -> Answer<Vec<Event>> {
        let mut back = MAX_PAGE as u64;
        while back > 0 {
            if let Some(mut known) = self.directory.events(event.saturating_sub(back))? {
                known.retain(|known| known.seq <= event);
                return Ok(known);
            }
            back /= 2;
        }
        Ok(Vec::new())
    }

    /// Who answers for the agent with this key, if there is one of this human's own organisation. Nobody looks at what a ticket or a
    /// signed word brings about, so neither moves an agent to another organisation, however far reaches whoever stands behind it.
    pub(super) fn owner_beside(
        &self,
        human: &Human,
        key: IdentityPublic,
        now: Now,
    ) -> Result<Option<Human>, Refused> {
        let KeyStanding::Agent(agent) = self.directory.standing(key, now.secs())? else { return Ok(None) };
        let is_beside = self.organisation_of(human) == self.organisation_of(&agent.owner);
        Ok(is_beside.then_some(agent.owner))
    }

    /// The agent of this name or id, if there is one that they reach.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub fn reached_agent(&self, name: &str, by: &Human) -> Result<Option<Agent>, Refused> {
        let Some(agent) = self.directory.agent(name)? else { return Ok(None) };
        Ok(self.reaches(by, &agent.owner)?.then_some(agent))
    }

    /// Whether they may end this.
    pub(super) fn check_reach_of_end(&self, scope: &EndScope, by: &Human) -> Result<(), Refused> {
        let found = match scope {
            EndScope::Agent(name) | EndScope::Revoke(name) => self.reached_agent(name, by)?.is_some(),
            EndScope::Session(id) => match self.directory.session(*id)? {
                Some(row) => self.reached_agent(row.agent.as_str(), by)?.is_some(),
                None => false,
            },
            EndScope::Owner(owner, _) => self.reaches(by, owner)?,
            EndScope::Tool(_) => return self.check_reach_of_service(by),
        };
        match (found, scope) {
            (true, _) => Ok(()),
            (false, EndScope::Session(_)) => Err(Refused::Unknown("session")),
            (false, _) => Err(Refused::Unknown("agent")),
        }
    }

    /// Whether they may do something to what is the service's own.
    pub(super) fn check_reach_of_service(&self, by: &Human) -> Result<(), Refused> {
        match self.reaches_service(by)? {
            true => Ok(()),
            false => Err(Refused::MayNotOperate(REACH.to_owned())),
        }
    }

    /// Up to so many agents that they reach, behind this one; and where to go on, if there may be more.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub fn reached_agents(
        &self,
        after: Option<&AgentId>,
        most: usize,
        by: &Human,
    ) -> Result<Reached<Agent, AgentId>, Refused> {
        let (mut reach, mut found, mut behind) = (Reach::of(self, by), Vec::new(), after.cloned());
        for _ in 0..MAX_PAGES {
            let page = self.directory.agents(behind.as_ref())?;
            let Some(last) = page.last().map(|agent| agent.id.clone()) else { return Ok((found, None)) };
            for agent in page {
                if !reach.has(&agent.owner)? {
                    continue;
                }
                if found.len() == most {
                    let last = found.last().map(|agent: &Agent| agent.id.clone());
                    return Ok((found, last));
                }
                found.push(agent);
            }
            behind = Some(last);
        }
        Ok((found, behind))
    }

    /// Up to so many live sessions of agents that they reach, each with its agent, behind this one; and where to go on, if there may
    /// be more.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn reached_sessions(
        &self,
        after: Option<SessionPlace>,
        most: usize,
        by: &Human,
    ) -> Result<Reached<(SessionRow, Agent), SessionPlace>, Refused> {
        let place = |row: &SessionRow| (row.agent.clone(), row.id);
        let (mut reach, mut found, mut behind) = (Reach::of(self, by), Vec::new(), after);
        for _ in 0..MAX_PAGES {
            let from = behind.as_ref().map(|(agent, session)| (agent, *session));
            let page = self.directory.live_sessions(from, MAX_PAGE)?;
            let Some(last) = page.last().map(place) else { return Ok((found, None)) };
            for row in page {
                let agent = self.directory.agent(row.agent.as_str())?.ok_or(Refused::Unknown("agent"))?;
                if !reach.has(&agent.owner)? {
                    continue;
                }
                if found.len() == most {
                    let last = found.last().map(|(row, _)| place(row));
                    return Ok((found, last));
                }
                found.push((row, agent));
            }
            behind = Some(last);
        }
        Ok((found, behind))
    }
}

/// Where a list of sessions goes on: behind this one of this agent.
pub(crate) type SessionPlace = (AgentId, SessionId);
/// What was found, and where to go on, if there may be more.
pub(crate) type Reached<T, P> = (Vec<T>, Option<P>);

/// What somebody reaches, by the organisations that were asked about so far.
pub(super) struct Reach<'a> {
    authority: &'a Authority,
    by: &'a Human,
    known: HashMap<String, bool>,
}

impl<'a> Reach<'a> {
    pub(super) fn of(authority: &'a Authority, by: &'a Human) -> Self {
        Self { authority, by, known: HashMap::new() }
    }

    pub(super) fn has(&mut self, owner: &Human) -> Result<bool, Refused> {
        let organisation = self.authority.organisation_of(owner);
        if let Some(known) = self.known.get(organisation) {
            return Ok(*known);
        }
        let reaches = self.authority.reaches_organisation(self.by, organisation)?;
        self.known.insert(organisation.to_owned(), reaches);
        Ok(reaches)
    }
}
