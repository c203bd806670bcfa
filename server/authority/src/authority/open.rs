//! Purpose 1: an agent opens a session.

use std::collections::BTreeSet;

use obol_handshake::{IdentityPublic, Proven, SekPublic};
use obol_session::{AgentIdentity, DocumentError, Establish, Grant, ResourceHalf, Suite};
use sha2::{Digest as _, Sha256};

use super::payload::{self, SessionRequest, Told};
use super::{Authority, Deciding, Now, Outcome, answered, handshake_of, holds_sek, seal_with};
use crate::decider::{Decider, Moment, Route};
use crate::directory::{
    Agent, AgentStatus, Answer, Carried, KeyStanding, PersonStatus, ResourceServer, SessionPlan, SessionRow,
};
use crate::notices::{Topic, quoted};
use crate::refused::Refused;
use crate::settings::{PREFERENCE, strength};

/// What a session grants, and where its tokens may go.
type Granted = (Vec<Grant>, Vec<Route>);

/// A session that may be opened.
struct Decided {
    agent: Agent,
    request: SessionRequest,
    grants: Vec<Grant>,
    routes: Vec<Route>,
    policy_epoch: u64,
}

impl Authority {
    pub(super) fn open_session(&self, proven: Proven, now: Now) -> Answer<Outcome> {
        let decided = match self.decide(&proven, now)? {
            Ok(decided) => decided,
            Err(refused) => return self.refuse(proven, refused, now),
        };
        let (grants, routes) = (decided.grants.clone(), decided.routes.clone());
        let approval_ends = decided.agent.expires_at;
        let organisation = self.organisation_of(&decided.agent.owner).to_owned();
        let told = Told { organisation, identity: proven.identity, grants, routes, approval_ends };
        let (name, identity) = (decided.agent.wanted.name.clone(), proven.identity);
        let plan = match self.plan(&proven, decided, now) {
            Ok(plan) => plan,
            Err(error) => {
                let why = Refused::Unavailable(format!("what policy grants makes no session: {error}"));
                return self.refuse(proven, why, now);
            }
        };
        let place = self.auditor.reserve()?;
        // What the answer says of the service does not change while it runs.
        let facts = payload::AuthorityFacts::of(self);
        let handshake = handshake_of(&proven);
        let seal = seal_with(proven, move |opened| payload::session(&facts, opened, &told));
        let carried = self.directory.open_session(handshake, plan, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(opened), _) => {
                place.opened(&name, opened);
                if opened.clone_suspected {
                    let text = format!(
                        "a copy of the key of agent {} ({}) is suspected, or its disk was put back",
                        quoted(&name),
                        opened.session.agent
                    );
                    self.notices.say(Topic::Alarms, "clone_suspected", text, now.secs());
                }
                self.wait_until_sent(&opened.session.audiences, opened.event);
            }
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }

    /// Whether, and with what, this agent may have a session.
    fn decide(&self, proven: &Proven, now: Now) -> Answer<Result<Decided, Refused>> {
        let request: SessionRequest = match payload::read(&proven.payload) {
            Ok(request) => request,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = request.check(now.secs()) {
            return Ok(Err(refused));
        }
        let agent = match self.agent_that_may_act(proven.identity, now)? {
            Ok(agent) => agent,
            Err(refused) => return Ok(Err(refused)),
        };
        let sek = SekPublic(request.sek_pk);
        if agent.sek != sek || !holds_sek(proven, &sek, &request.sek_proof) {
            return Ok(Err(Refused::SekProof));
        }
        let suite = proven.header.suite;
        let Deciding { decider, epoch: policy_epoch } = self.deciding.read().clone();
        let (grants, routes) = match self.grants(&*decider, &agent, &request, suite, now)? {
            Ok(granted) => granted,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = self.check_suite(&agent, &grants, suite)? {
            return Ok(Err(refused));
        }
        Ok(Ok(Decided { agent, request, grants, routes, policy_epoch }))
    }

    /// The agent with this key, if it may open sessions and make calls.
    pub(super) fn agent_that_may_act(
        &self,
        identity: IdentityPublic,
        now: Now,
    ) -> Answer<Result<Agent, Refused>> {
        let agent = match self.directory.standing(identity, now.secs())? {
            KeyStanding::Agent(agent) => *agent,
            KeyStanding::Unknown => return Ok(Err(Refused::NotRegistered)),
            KeyStanding::Pending => return Ok(Err(Refused::PendingApproval)),
            KeyStanding::Retired => return Ok(Err(Refused::Revoked)),
        };
        Ok(match agent.status {
            AgentStatus::Suspended => Err(Refused::Suspended),
            AgentStatus::Revoked => Err(Refused::Revoked),
            AgentStatus::Active if agent.is_expired(now.secs()) => Err(Refused::ApprovalExpired),
            AgentStatus::Active => Ok(agent),
        })
    }

    /// What policy grants, also with a human's yes to each call, less the tools that are denied and the resource servers that were not asked for.
    fn grants(
        &self,
        decider: &dyn Decider,
        agent: &Agent,
        request: &SessionRequest,
        suite: Suite,
        now: Now,
    ) -> Answer<Result<Granted, Refused>> {
        let owner = self.person(&agent.owner)?;
        if owner.status == PersonStatus::Disabled {
            return Ok(Err(Refused::Suspended));
        }
        let decided = match decider.decide(agent, &owner, Moment { now: now.secs(), suite: suite.number() }) {
            Ok(decided) => decided,
            Err(error) => return Ok(Err(Refused::Unavailable(error.to_string()))),
        };
        for alert in &decided.alerts {
            tracing::error!(agent = %agent.id, alert, "a rule could not be evaluated, and so denies");
        }
        for change in &decided.otherwise {
            self.auditor.would_change(&agent.id, change);
        }
        let denied: BTreeSet<String> =
            self.directory.denied_tools()?.into_iter().map(|denied| denied.tool).collect();
        let asked = |audience: &String| request.audiences.as_ref().is_none_or(|list| list.contains(audience));
        let (mut grants, mut routes) = (decided.grants, decided.routes);
        grants.extend(decided.per_call.into_iter().map(|offer| offer.grant));
        grants.retain(|grant| !denied.contains(&grant.tool) && asked(&grant.aud));
        routes.retain(|route| grants.iter().any(|grant| grant.tool == route.tool && grant.aud == route.aud));
        Ok(if grants.is_empty() { Err(Refused::NoGrants) } else { Ok((grants, routes)) })
    }

    /// Whether the suite is strong enough, and every resource server can read it.
    fn check_suite(&self, agent: &Agent, grants: &[Grant], suite: Suite) -> Answer<Result<(), Refused>> {
        let of_agent = agent.min_suite.and_then(Suite::from_number).map_or(0, strength);
        let least = strength(self.settings.min_suite).max(of_agent);
        let servers = self.directory.resource_servers()?;
        let granted = |server: &&ResourceServer| grants.iter().any(|grant| grant.aud == server.audience);
        let servers: Vec<_> = servers.iter().filter(granted).collect();
        let all_read = |suite: Suite| servers.iter().all(|server| server.reads(suite));
        if strength(suite) >= least && all_read(suite) {
            return Ok(Ok(()));
        }
        let spoken = |suite: &Suite| self.settings.suites.contains(suite) && strength(*suite) >= least;
        let because = servers.iter().filter(|server| !server.reads(suite));
        let because = because.map(|server| server.audience.clone()).collect();
        let better = PREFERENCE.into_iter().filter(spoken).find(|suite| all_read(*suite));
        // Where no suite serves all of them, one that is strong enough: the agent then asks for fewer resource servers.
        let suite = better.or_else(|| PREFERENCE.into_iter().find(spoken)).unwrap_or(Suite::HybridAesGcm);
        Ok(Err(Refused::SuiteRequired { suite: suite.number(), because }))
    }

    /// Derives the keys for each resource server. The session's own secret is gone after this.
    fn plan(&self, proven: &Proven, decided: Decided, now: Now) -> Result<SessionPlan, DocumentError> {
        let Decided { agent, request, grants, policy_epoch, routes: _ } = decided;
        let org_id = self.organisation_of(&agent.owner).to_owned();
        let suite = proven.header.suite;
        let session_id = self.numbers.next(now.ms);
        let mut audiences: Vec<String> = grants.iter().map(|grant| grant.aud.clone()).collect();
        audiences.sort();
        audiences.dedup();
        let mut tools: Vec<String> = grants.iter().map(|grant| grant.tool.clone()).collect();
        tools.sort();
        tools.dedup();
        let names: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let establish = Establish {
            session_id,
            suite,
            agent: AgentIdentity {
                agent_instance_id: agent.id.to_string(),
                iss: self.settings.origin.clone(),
                sub: proven.identity.subject(),
            },
            org_id,
            lifetime_secs: self.settings.session_secs,
            policy_epoch,
            sek_public: request.sek_pk,
            // The private half never comes here.
            pop_key: None,
        };
        let secret = &proven.established.secret;
        let (of_agent, mut halves) = establish.from_secret(secret, &names, grants, now.secs())?;
        for half in &mut halves {
            half.pop_pub = request.pop_pub;
        }
        halves.iter().try_for_each(ResourceHalf::check)?;
        let row = SessionRow {
            id: session_id,
            agent: agent.id,
            suite: suite.number(),
            established_at: of_agent.established_at,
            expires_at: of_agent.expires_at,
            policy_epoch,
            audiences,
            tools,
            closes_at: None,
            ended: None,
        };
        Ok(SessionPlan {
            row,
            agent_version: agent.version,
            previous: request.previous_session,
            presented: request.chain.iter().map(|value| chain_digest(value.expose())).collect(),
            chain: chain_digest(proven.established.chain.expose()),
            clones: self.settings.clones,
            halves,
        })
    }
}

/// What is kept of the value that an agent's next session must present: whoever reads it here cannot present it.
fn chain_digest(value: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"obol-chain-v1").chain_update(value).finalize().into()
}
