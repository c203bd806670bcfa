//! What an operator may do: look at a registration and decide, invite, end, enable, add resource servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use obol_session::{Grant, Suite};

use super::{Authority, Deciding, Now};
use crate::decider::{Decided, Decider, Moment, PerCall, Undecided};
use crate::directory::{
    Agent, AgentStatus, Answer, Approval, EndScope, Ended, Flow, Human, Invitation, Person, PolicyText,
    PolicyVersion, Polled, Registration, ResourceServer, Unharmed, approved_agent,
};
use crate::id::{AgentId, Bearer, RegistrationId, UserCode};
use crate::refused::Refused;
use crate::settings::{MAX_APPROVAL_SECS, PREFERENCE};

/// How long a join code is good for, in seconds.
const JOIN_CODE_SECS: u64 = 900;
/// How long an invitation lasts at most, in seconds: a week.
const MAX_INVITATION_SECS: u64 = 7 * 86_400;
/// The most agents that one invitation admits.
const MAX_INVITED: u32 = 1_000;
/// How long nothing is taken from a source that somebody blocked, in seconds.
const BLOCK_SECS: u64 = 3_600;

/// What a human looks at before deciding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Review {
    /// The registration.
    pub registration: Registration,
    /// The key in words; the same are on the agent's side.
    pub words: String,
    /// The agent as it was approved before, where this renews an approval.
    pub before: Option<Agent>,
}

impl Review {
    /// Who answers for the agent that this renews.
    pub(super) fn owner(&self) -> Option<Human> {
        self.before.as_ref().map(|before| before.owner.clone())
    }
}

/// What would follow from a yes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Preview {
    /// Whether policy lets this human say it.
    pub allowed: bool,
    /// What the agent would be granted now.
    pub grants: Vec<Grant>,
    /// What would take a human's yes to each call.
    pub per_call: Vec<PerCall>,
    /// What it is granted now, where it is an agent already.
    pub before: Option<Decided>,
}

/// Leave for agents to register by themselves.
#[derive(Debug)]
pub struct Invited {
    /// What an agent presents.
    pub ticket: Bearer,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
}

/// What was ended, and until when somebody who does not hear of it could still accept its tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KillReport {
    /// What was ended.
    pub ended: Ended,
    /// When the last of the sessions would have ended by itself, in Unix seconds.
    pub latest_end: Option<u64>,
    /// Those who hold the sessions, by audience.
    pub holders: Vec<Holder>,
}

/// A resource server that holds sessions which were ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its audience.
    pub audience: String,
    /// How many of them.
    pub sessions: u64,
    /// When the last of them would have ended by itself, in Unix seconds.
    pub until: u64,
}

impl Authority {
    /// The registration with this code.
    ///
    /// # Errors
    ///
    /// [`Refused::NoSuchCode`] if none waits.
    pub fn review(&self, code: &UserCode, now: Now) -> Result<Review, Refused> {
        let found = self.directory.registration(code.hash(&self.code_key), now.secs())?;
        self.reviewed(found.ok_or(Refused::NoSuchCode)?)
    }

    /// The registration with this id.
    ///
    /// # Errors
    ///
    /// [`Refused::NoSuchCode`] if none waits.
    pub fn review_named(&self, id: &RegistrationId, now: Now) -> Result<Review, Refused> {
        let found = self.directory.registration_named(id, now.secs())?;
        self.reviewed(found.ok_or(Refused::NoSuchCode)?)
    }

    pub(super) fn reviewed(&self, registration: Registration) -> Result<Review, Refused> {
        let words = registration.identity.words();
        let before = match &registration.renews {
            Some(id) => self.directory.agent(id.as_str())?,
            None => None,
        };
        Ok(Review { registration, words, before })
    }

    /// Approves a registration with these roles, for so many seconds, by what policies call `local`, or `remote` where whoever
    /// approves is not of this machine.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn approve(
        &self,
        review: &Review,
        roles: &[String],
        secs: Option<u64>,
        by: Human,
        now: Now,
    ) -> Result<Agent, Refused> {
        self.check_reach_of(review, &by)?;
        let secs = self.approval_secs(secs)?;
        let flow = flow_of(&by, Flow::Local);
        self.may_register(&by, &review.registration.wanted.class, roles, flow, secs)?;
        let place = self.auditor.reserve()?;
        let approval = Approval {
            registration: review.registration.id.clone(),
            agent: AgentId::generate(&mut self.random()),
            by,
            roles: roles.to_vec(),
            secs,
            flow,
            reached: review.owner(),
        };
        let agent = self.directory.approve(approval, now.secs())??;
        place.approved(&agent, review.owner().as_ref());
        Ok(agent)
    }

    pub(super) fn approval_secs(&self, asked: Option<u64>) -> Result<u64, Refused> {
        let secs = asked.unwrap_or(self.settings.approval_secs);
        if secs == 0 || secs > MAX_APPROVAL_SECS {
            let rule = format!("an approval lasts 1 to {MAX_APPROVAL_SECS} seconds");
            return Err(Refused::Malformed(rule));
        }
        Ok(secs)
    }

    /// A human as last known.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::directory::Unavailable).
    pub(crate) fn person(&self, human: &Human) -> Answer<Person> {
        let known = if human.is_local() { None } else { self.directory.person(human)? };
        let known = known.unwrap_or_else(|| Person::unknown(human.clone()));
        Ok(Person { organisation: self.organisation_of(human).to_owned(), ..known })
    }

    /// What would follow from approving a registration with these roles, for so many seconds. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn preview(
        &self,
        review: &Review,
        roles: &[String],
        secs: Option<u64>,
        by: &Human,
        flow: Flow,
        now: Now,
    ) -> Result<Preview, Refused> {
        self.check_reach_of(review, by)?;
        let secs = self.approval_secs(secs)?;
        let undecided = |error: Undecided| Refused::Unavailable(error.to_string());
        let decider = self.deciding.read().decider.clone();
        let class = &review.registration.wanted.class;
        let (person, flow) = (self.person(by)?, flow_of(by, flow));
        let allowed =
            decider.may_register(&person, class, roles, flow, secs.div_ceil(86_400)).map_err(undecided)?;
        let approval = Approval {
            registration: review.registration.id.clone(),
            agent: AgentId::generate(&mut self.random()),
            by: by.clone(),
            roles: roles.to_vec(),
            secs,
            flow,
            reached: review.owner(),
        };
        let agent = approved_agent(&review.registration, &approval, review.before.as_ref(), now.secs());
        let Decided { grants, per_call, .. } = self.would_get_of(&agent, &person, now)?;
        let before = match &review.before {
            Some(before) if before.status == AgentStatus::Active && !before.is_expired(now.secs()) => {
                Some(self.would_get(before, now)?)
            }
            _ => None,
        };
        Ok(Preview { allowed, grants, per_call, before })
    }

    /// What an agent would be granted in a session that it opened now, tools left out that nobody is granted.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where it cannot be decided.
    pub(crate) fn would_get(&self, agent: &Agent, now: Now) -> Result<Decided, Refused> {
        self.would_get_of(agent, &self.person(&agent.owner)?, now)
    }

    fn would_get_of(&self, agent: &Agent, owner: &Person, now: Now) -> Result<Decided, Refused> {
        let decider = self.deciding.read().decider.clone();
        let best = PREFERENCE.into_iter().find(|suite| self.settings.suites.contains(suite));
        let suite = best.unwrap_or(Suite::HybridAesGcm).number();
        let decided = decider.decide(agent, owner, Moment { now: now.secs(), suite });
        let mut decided = decided.map_err(|error| Refused::Unavailable(error.to_string()))?;
        let denied = self.directory.denied_tools()?;
        let is_denied = |tool: &str| denied.iter().any(|denied| denied.tool == tool);
        decided.grants.retain(|grant| !is_denied(&grant.tool));
        decided.per_call.retain(|offer| !is_denied(&offer.grant.tool));
        Ok(decided)
    }

    pub(super) fn may_register(
        &self,
        by: &Human,
        class: &str,
        roles: &[String],
        flow: &str,
        secs: u64,
    ) -> Result<(), Refused> {
        let decider = self.deciding.read().decider.clone();
        let allowed = decider
            .may_register(&self.person(by)?, class, roles, flow, secs.div_ceil(86_400))
            .map_err(|error| Refused::Unavailable(error.to_string()))?;
        if allowed { Ok(()) } else { Err(Refused::ApprovalDenied) }
    }

    /// Denies a registration; with `block`, nothing more is taken from where it came from for an hour.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn deny(
        &self,
        id: RegistrationId,
        block: bool,
        by: &Human,
        now: Now,
    ) -> Result<Registration, Refused> {
        // Also where a yes has yet to come back: that no page shows it is no reason to let everybody decide on it.
        let open = self.directory.open_registration(&id, now.secs())?.ok_or(Refused::NoSuchCode)?;
        self.check_reach_of(&self.reviewed(open)?, by)?;
        let place = self.auditor.reserve()?;
        let registration = self.directory.deny(id, if block { BLOCK_SECS } else { 0 }, now.secs())??;
        place.denied(&registration, by);
        Ok(registration)
    }

    /// What became of a registration, for whoever made it; `None` if there is none, or it is another's.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn poll(
        &self,
        id: RegistrationId,
        token: &Bearer,
        now: Now,
    ) -> Result<Option<Polled>, Refused> {
        Ok(self.directory.poll(id, token.hash(), now.secs())?)
    }

    /// Lets up to so many agents of a class register by themselves, with these roles, until `secs` from now.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    #[expect(clippy::needless_pass_by_value, reason = "who acts is named once, and not again after it")]
    pub fn invite(
        &self,
        class: &str,
        roles: &[String],
        max_agents: u32,
        secs: u64,
        by: Human,
        now: Now,
    ) -> Result<Invited, Refused> {
        if !obol_session::limits::is_name(class)
            || roles.iter().any(|role| !obol_session::limits::is_name(role))
        {
            return Err(Refused::Malformed("class and roles are visible ASCII without spaces".to_owned()));
        }
        if secs == 0 || secs > MAX_INVITATION_SECS || max_agents == 0 || max_agents > MAX_INVITED {
            return Err(Refused::Malformed(format!(
                "an invitation lasts 1 to {MAX_INVITATION_SECS} seconds and admits 1 to {MAX_INVITED} agents"
            )));
        }
        self.may_register(&by, class, roles, "invite", self.settings.approval_secs)?;
        let place = self.auditor.reserve()?;
        let (ticket, expires_at) = (Bearer::generate(&mut self.random()), now.secs().saturating_add(secs));
        let scope = format!("{max_agents} of class {class} roles {}", roles.join(" "));
        let invitation = Invitation {
            class: class.to_owned(),
            roles: roles.to_vec(),
            max_agents,
            used: 0,
            expires_at,
            approval_secs: self.settings.approval_secs,
            by: by.clone(),
        };
        self.directory.invite(ticket.hash(), invitation)??;
        place.invited(&scope, &by, expires_at);
        Ok(Invited { ticket, expires_at })
    }

    /// Ends agents, sessions, or the use of a tool: no new session, and the old ones end.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing was ended then.
    pub fn end(&self, scope: &EndScope, reason: &str, by: &Human, now: Now) -> Result<KillReport, Refused> {
        self.check_reach_of_end(scope, by)?;
        self.end_as(scope, reason, by, now)
    }

    /// The same, where it is known that `by` may.
    pub(super) fn end_as(
        &self,
        scope: &EndScope,
        reason: &str,
        by: &Human,
        now: Now,
    ) -> Result<KillReport, Refused> {
        let mut whole = Ended::default();
        loop {
            let place = self.auditor.reserve()?;
            let part = self.directory.end(scope.clone(), reason.to_owned(), by.clone(), now.secs())??;
            place.ended(&name_of(scope), reason, &by.to_string(), &part);
            whole.agents.extend(part.agents);
            whole.sessions.extend(part.sessions);
            whole.event = part.event;
            if !part.more {
                break;
            }
        }
        if let EndScope::Owner(owner, _) = scope {
            self.end_logins_of(owner, reason);
        }
        self.report(whole)
    }

    /// Who holds what was ended, and until when.
    pub(crate) fn report(&self, ended: Ended) -> Result<KillReport, Refused> {
        let mut latest_end = None;
        let mut holders: BTreeMap<String, Holder> = BTreeMap::new();
        for id in &ended.sessions {
            let Some(session) = self.directory.session(*id)? else { continue };
            latest_end = latest_end.max(Some(session.expires_at));
            for audience in session.audiences {
                let holder =
                    holders.entry(audience.clone()).or_insert(Holder { audience, sessions: 0, until: 0 });
                holder.sessions += 1;
                holder.until = holder.until.max(session.expires_at);
            }
        }
        Ok(KillReport { ended, latest_end, holders: holders.into_values().collect() })
    }

    /// Lets a suspended agent open sessions again.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn enable_agent(&self, name: &str, by: &Human, now: Now) -> Result<Agent, Refused> {
        if self.reached_agent(name, by)?.is_none() {
            return Err(Refused::Unknown("agent"));
        }
        let place = self.auditor.reserve()?;
        let agent = self.directory.enable_agent(name, now.secs())??;
        place.enabled(&format!("agent {}", agent.id), by);
        Ok(agent)
    }

    /// Lets a tool be granted again.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn enable_tool(&self, tool: &str, by: &Human, now: Now) -> Result<(), Refused> {
        self.check_reach_of_service(by)?;
        let place = self.auditor.reserve()?;
        self.directory.enable_tool(tool, now.secs())??;
        place.enabled(&format!("tool {tool}"), by);
        Ok(())
    }

    /// Adds a resource server, or changes its suites, and gives a code by which one copy of it can join.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn add_resource_server(
        &self,
        audience: &str,
        suites: &[Suite],
        by: &Human,
        now: Now,
    ) -> Result<Invited, Refused> {
        let longest = obol_session::limits::MAX_AUDIENCE_BYTES;
        if audience.is_empty() || audience.len() > longest || audience.contains(char::is_control) {
            let rule = format!("an audience has 1 to {longest} bytes without control characters");
            return Err(Refused::Malformed(rule));
        }
        if suites.is_empty() {
            return Err(Refused::Malformed("a resource server reads at least one suite".to_owned()));
        }
        self.check_reach_of_service(by)?;
        let place = self.auditor.reserve()?;
        let (code, expires_at) =
            (Bearer::generate(&mut self.random()), now.secs().saturating_add(JOIN_CODE_SECS));
        let server = ResourceServer {
            audience: audience.to_owned(),
            suites: super::payload::numbers(suites),
            added_at: now.secs(),
        };
        self.directory.add_resource_server(server, code.hash(), expires_at)??;
        place.invited(&format!("resource server {audience}"), by, expires_at);
        Ok(Invited { ticket: code, expires_at })
    }

    /// Puts a policy in force, which this decider decides by: sessions opened from now on have a higher epoch.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the policy that was in force still is.
    pub(crate) fn activate_policy(
        &self,
        text: PolicyText,
        decider: Arc<dyn Decider>,
        unharmed: Unharmed,
        by: &Human,
        now: Now,
    ) -> Result<PolicyVersion, Refused> {
        self.check_reach_of_service(by)?;
        // Both before anything is done: a line that has no room undoes nothing.
        let (place, of_sessions) = (self.auditor.reserve()?, self.auditor.reserve()?);
        // Held until the commit: what is decided meanwhile by the old one is decided anew, under the new epoch.
        let mut deciding = self.deciding.write();
        let told = self.directory.activate_policy(text, unharmed, by.clone(), now.secs())?;
        let (version, ended) = told?;
        *deciding = Deciding { decider, epoch: version.epoch };
        drop(deciding);
        place.policy(version.epoch, &version.digest, by);
        if !ended.sessions.is_empty() {
            of_sessions.ended("agents that have less", "the policy gives less now", &by.to_string(), &ended);
        }
        Ok(version)
    }

    /// Has another policy looked at beside the one in force, or none. `decider` decides by the one in force, and looks.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn observe_policy(
        &self,
        other: Option<PolicyText>,
        decider: Arc<dyn Decider>,
        by: &Human,
    ) -> Result<(), Refused> {
        self.check_reach_of_service(by)?;
        let place = self.auditor.reserve()?;
        let digest = other.as_ref().map(|other| other.digest.clone());
        let mut deciding = self.deciding.write();
        self.directory.observe_policy(other)??;
        deciding.decider = decider;
        drop(deciding);
        place.observed(digest.as_deref(), by);
        Ok(())
    }
}

/// What policies call the way by which an agent is approved.
fn flow_of(by: &Human, flow: Flow) -> &'static str {
    match flow {
        Flow::Local if !by.is_local() => "remote",
        flow => flow.name(),
    }
}

fn name_of(scope: &EndScope) -> String {
    match scope {
        EndScope::Agent(name) => format!("agent {name}"),
        EndScope::Revoke(name) => format!("agent {name}, for good"),
        EndScope::Session(id) => format!("session {id}"),
        EndScope::Tool(tool) => format!("tool {tool}"),
        EndScope::Owner(owner, _) => format!("agents of {owner}"),
    }
}
