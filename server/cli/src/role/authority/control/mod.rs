//! What the operator of the Authentication Service may ask for on `as-control.sock`.

mod calls;
mod events;
mod remote;
mod shown;
mod uploads;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use obol_authority::directory::{Agent, EndScope, Flow, Human, MAX_PAGE};
use obol_authority::id::{AgentId, RegistrationId, UserCode};
use obol_authority::policy::Policies;
use obol_authority::{Authority, Events, Mail, Now, Refused, Review};
use obol_ipc::as_control::{
    ActivateMode, ActivateParams, ActivateResult, AgentResult, AgentsResult, ApproveParams,
    AsControlProtocol, AsControlReply, AsControlRequest, AsStatusResult, ConfirmationsParams,
    ConfirmationsResult, DenyParams, DenyTarget, DisableParams, DisableResult, DisableScope, EnableResult,
    EnableScope, InviteParams, InviteServerParams, PolicyVersionsResult, RegistrationParams,
    RegistrationResult, RegistrationsResult, RemoveCopyResult, ServersResult, TicketResult,
    WaitingRegistration,
};
use obol_ipc::control::HealthResult;
use obol_ipc::message::Empty;
use obol_ipc::names::Label;
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_ipc::user::name_of;
use obol_policy::PolicyVersion;
use obol_session::Suite;
use obol_sidecar::{Answer, Answerer, Requester};
use parking_lot::Mutex;
use tracing::Span;

use self::shown::{ANSWER_BYTES, LIST_BYTES, fitting, short};
use self::uploads::Uploads;

/// How long an operator may wait for others to confirm, in milliseconds.
const MAX_WAIT_MS: u32 = 10_000;
/// The most roles that an agent can be given at once.
const MAX_ROLES: usize = 64;

type Outcome<T> = Result<T, Refusal>;

/// Answers the operator.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) authority: Arc<Authority>,
    pub(super) policies: Arc<Policies>,
    /// The service with its key, as agents pin it.
    pub(super) pin: String,
    /// The key in words.
    pub(super) words: String,
    events: Arc<Events>,
    mail: Option<Arc<Mail>>,
    uploads: Mutex<Uploads>,
}

/// Answers the operator of this machine, on a socket; [`Control`] answers those of others too.
#[derive(Debug)]
pub(super) struct Door(pub(super) Arc<Control>);

impl Answerer<AsControlProtocol> for Door {
    fn answer(self: &Arc<Self>, call: AsControlRequest, requester: &Requester) -> Answer<AsControlProtocol> {
        let (control, uid, span) = (Arc::clone(&self.0), requester.uid(), Span::current());
        // All of it may wait for the disk, and so may the list of users.
        Answer::later(async move {
            let act = move || span.in_scope(|| control.act(call, &Human::local(name_of(uid))));
            tokio::task::spawn_blocking(act)
                .await
                .unwrap_or_else(|_| Err(Refusal::unavailable("internal error; see the service's log")))
        })
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::info_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

/// A refusal of the service as this socket says it.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn refusal(refused: Refused) -> Refusal {
    let text = refused.to_string();
    match refused {
        Refused::Unavailable(_) | Refused::Full(_) => Refusal::unavailable(text),
        Refused::ApprovalDenied
        | Refused::CallDenied
        | Refused::NotOffered(_)
        | Refused::TooManyApprovals
        | Refused::MayNotLogIn
        | Refused::MayNotOperate(_)
        | Refused::PolicyTakesTooMuch { .. } => Refusal::new(ErrorCode::PolicyDeny, text),
        Refused::NotLoggedIn => Refusal::new(ErrorCode::NoSession, text),
        _ => Refusal::invalid_argument(text),
    }
}

fn found<T>(asked: Result<T, impl Into<Refused>>) -> Outcome<T> {
    asked.map_err(|refused| refusal(refused.into()))
}

fn roles_of(labels: &[Label]) -> Outcome<Vec<String>> {
    if labels.len() > MAX_ROLES {
        return Err(Refusal::invalid_argument(format!("roles: at most {MAX_ROLES}")));
    }
    Ok(labels.iter().map(|role| role.as_str().to_owned()).collect())
}

impl Control {
    pub(super) fn new(
        authority: Arc<Authority>,
        policies: Arc<Policies>,
        events: Arc<Events>,
        pin: String,
        words: String,
    ) -> Self {
        Self { authority, policies, pin, words, events, mail: None, uploads: Mutex::default() }
    }

    /// Shows how it stands with e-mail, too.
    pub(super) fn with_mail(self, mail: Option<Arc<Mail>>) -> Self {
        Self { mail, ..self }
    }

    fn act(&self, call: AsControlRequest, by: &Human) -> Outcome<AsControlReply> {
        let now = Now::read();
        Ok(match call {
            AsControlRequest::Registrations(_) => AsControlReply::Registrations(self.registrations(by, now)?),
            AsControlRequest::Registration(params) => {
                AsControlReply::Registration(self.registration(&params, by, now)?)
            }
            AsControlRequest::Approve(params) => {
                AsControlReply::Approve(shown::agent(self.approve(&params, by, now)?, now.secs()))
            }
            AsControlRequest::Deny(params) => AsControlReply::Deny(self.deny(params, by, now)?),
            AsControlRequest::Agents(params) => {
                AsControlReply::Agents(self.agents(params.after.as_ref(), by, now)?)
            }
            AsControlRequest::Agent(params) => AsControlReply::Agent(self.agent(&params.agent, by, now)?),
            AsControlRequest::Disable(params) => AsControlReply::Disable(self.disable(params, by, now)?),
            AsControlRequest::Enable(params) => {
                AsControlReply::Enable(self.enable(&params.scope, by, now)?)
            }
            AsControlRequest::Invite(params) => AsControlReply::Invite(self.invite(&params, by, now)?),
            AsControlRequest::InviteServer(params) => {
                AsControlReply::InviteServer(self.invite_server(&params, by, now)?)
            }
            AsControlRequest::PolicyPart(part) => {
                let taken = self.uploads.lock().take(part, Instant::now());
                taken.map_err(Refusal::invalid_argument)?;
                AsControlReply::PolicyPart(Empty {})
            }
            AsControlRequest::Activate(params) => AsControlReply::Activate(self.activate(&params, by, now)?),
            AsControlRequest::PolicyVersions(_) => AsControlReply::PolicyVersions(self.policy_versions()?),
            AsControlRequest::Status(_) => AsControlReply::Status(self.status(by, now)?),
            AsControlRequest::Confirmations(params) => {
                AsControlReply::Confirmations(self.confirmations(&params, by)?)
            }
            AsControlRequest::Servers(_) => AsControlReply::Servers(self.servers()?),
            AsControlRequest::RemoveCopy(params) => {
                let removed = self.authority.remove_replica(params.copy_id.as_str(), by, now);
                AsControlReply::RemoveCopy(match removed {
                    Ok(_) => RemoveCopyResult { matched: true },
                    Err(Refused::Unknown(_)) => RemoveCopyResult { matched: false },
                    Err(refused) => return Err(refusal(refused)),
                })
            }
            AsControlRequest::Events(_) => AsControlReply::Events(self.events()?),
            AsControlRequest::TestEvent(params) => {
                AsControlReply::TestEvent(self.test_event(&params, by, now)?)
            }
            AsControlRequest::Approvals(_) => AsControlReply::Approvals(self.approvals(by, now)?),
            AsControlRequest::Approval(params) => {
                AsControlReply::Approval(self.approval(&params.approval_id, by, now)?)
            }
            AsControlRequest::DecideApproval(params) => {
                AsControlReply::DecideApproval(self.decide_approval(&params, by, now)?)
            }
            AsControlRequest::Logins(_) => AsControlReply::Logins(self.logins(by, now)?),
            AsControlRequest::EndLogin(params) => {
                AsControlReply::EndLogin(self.end_login(&params.login, by, now)?)
            }
            AsControlRequest::Health(_) => {
                let reason = self.authority.health().err();
                AsControlReply::Health(HealthResult { ready: reason.is_none(), reason })
            }
        })
    }

    fn registrations(&self, by: &Human, now: Now) -> Outcome<RegistrationsResult> {
        let waiting = found(self.authority.waiting_registrations(by, now))?;
        let (registrations, more) = short(waiting.into_iter().map(shown::waiting), ANSWER_BYTES);
        Ok(RegistrationsResult { registrations, more })
    }

    fn review(&self, code: &Label, now: Now) -> Outcome<Review> {
        let code = UserCode::parse(code.as_str()).ok_or(Refused::NoSuchCode);
        found(code.and_then(|code| self.authority.review(&code, now)))
    }

    fn registration(&self, params: &RegistrationParams, by: &Human, now: Now) -> Outcome<RegistrationResult> {
        let review = self.review(&params.code, now)?;
        let roles = match &params.roles {
            Some(roles) => roles_of(roles)?,
            None => review.registration.wanted.roles.clone(),
        };
        let preview =
            found(self.authority.preview(&review, &roles, params.lifetime_seconds, by, Flow::Local, now))?;
        let mut shown = RegistrationResult {
            registration: shown::reviewed(&review),
            renews: review.before.map(|before| shown::agent(before, now.secs())),
            roles,
            lifetime_seconds: params
                .lifetime_seconds
                .unwrap_or(self.authority.settings().approval_life_secs()),
            allowed: preview.allowed,
            grants: Vec::new(),
            more_grants: 0,
        };
        let grants = preview.grants.into_iter().map(shown::preview);
        (shown.grants, shown.more_grants) = fitting(grants, ANSWER_BYTES, &shown);
        Ok(shown)
    }

    fn approve(&self, params: &ApproveParams, by: &Human, now: Now) -> Outcome<Agent> {
        let review = self.review(&params.code, now)?;
        if review.registration.id.as_str() != params.registration_id.as_str() {
            return Err(refusal(Refused::Changed));
        }
        let roles = roles_of(&params.roles)?;
        found(self.authority.approve(&review, &roles, params.lifetime_seconds, by.clone(), now))
    }

    fn deny(&self, params: DenyParams, by: &Human, now: Now) -> Outcome<WaitingRegistration> {
        let id = match params.target {
            DenyTarget::Code(code) => self.review(&code, now)?.registration.id,
            DenyTarget::Registration(id) => {
                found(RegistrationId::parse(id.as_str()).ok_or(Refused::Unknown("registration")))?
            }
        };
        found(self.authority.deny(id, params.block, by, now)).map(shown::waiting)
    }

    /// Those that `by` reaches.
    fn agents(&self, after: Option<&Label>, by: &Human, now: Now) -> Outcome<AgentsResult> {
        let after = after.map(|id| AgentId::parse(id.as_str()).ok_or(Refused::Unknown("agent"))).transpose();
        let reached = self.authority.reached_agents(found(after)?.as_ref(), MAX_PAGE, by);
        let (page, next) = found(reached)?;
        let (agents, left) =
            short(page.into_iter().map(|agent| shown::agent(agent, now.secs())), ANSWER_BYTES);
        let next = match agents.last() {
            Some(last) if left > 0 => Some(last.agent_id.clone()),
            _ => next.map(|id| id.to_string()),
        };
        Ok(AgentsResult { agents, more: next.is_some(), next })
    }

    fn agent(&self, name: &Label, by: &Human, now: Now) -> Outcome<AgentResult> {
        let directory = self.authority.directory();
        let Some(agent) = found(self.authority.reached_agent(name.as_str(), by))? else {
            return Ok(AgentResult { agent: None, sessions: Vec::new() });
        };
        let sessions = found(directory.sessions(&agent.id))?.into_iter().map(shown::session).collect();
        Ok(AgentResult { agent: Some(shown::agent(agent, now.secs())), sessions })
    }

    /// What there is not, is said as such: whoever misspells a name must not take it for done.
    fn disable(&self, params: DisableParams, by: &Human, now: Now) -> Outcome<DisableResult> {
        let (scope, tool) = match params.scope {
            DisableScope::Agent(name) => (EndScope::Agent(name.as_str().to_owned()), None),
            DisableScope::AgentForGood(name) => (EndScope::Revoke(name.as_str().to_owned()), None),
            DisableScope::Session(id) => (EndScope::Session(id), None),
            DisableScope::Tool(name) => (EndScope::Tool(name.as_str().to_owned()), Some(name)),
        };
        match self.authority.end(&scope, params.reason.as_str(), by, now) {
            Ok(report) => {
                let is_offered = tool.is_none_or(|tool| self.is_offered(tool.as_str()));
                let matched = is_offered || !report.ended.sessions.is_empty();
                Ok(shown::ended(report, matched))
            }
            Err(Refused::Unknown(_)) => Ok(DisableResult::default()),
            Err(refused) => Err(refusal(refused)),
        }
    }

    /// Who has heard of an event; of agents those that `by` reaches, and of resource servers those that they may know of.
    fn confirmations(&self, params: &ConfirmationsParams, by: &Human) -> Outcome<ConfirmationsResult> {
        if params.wait_ms > MAX_WAIT_MS {
            return Err(Refusal::invalid_argument(format!("waitMs: at most {MAX_WAIT_MS}")));
        }
        let audiences: Vec<String> =
            params.audiences.iter().map(|audience| audience.as_str().to_owned()).collect();
        let mut agents: BTreeSet<String> =
            params.agents.iter().map(|agent| agent.as_str().to_owned()).collect();
        for session in &params.sessions {
            let row = found(self.authority.directory().session(*session))?;
            agents.extend(row.map(|row| row.agent.to_string()));
        }
        let mut reached = Vec::new();
        for agent in agents {
            reached.extend(found(self.authority.reached_agent(&agent, by))?.map(|agent| agent.id));
        }
        let agents: Vec<String> = reached.iter().map(ToString::to_string).collect();
        let audiences = found(self.authority.reached_audiences(audiences, &reached, params.event, by))?;
        let patience = Duration::from_millis(params.wait_ms.into());
        let told = self.authority.confirmations(params.event, &audiences, &agents, patience);
        let (mut copies, sidecars) = found(told)?;
        copies.sort_by_key(|copy| copy.confirmed);
        let (copies, more_copies) = short(copies.into_iter().map(shown::copy), ANSWER_BYTES / 2);
        let sidecars = short(sidecars.into_iter().map(shown::sidecar), ANSWER_BYTES / 4).0;
        Ok(ConfirmationsResult { copies, more_copies, sidecars })
    }

    fn servers(&self) -> Outcome<ServersResult> {
        let directory = self.authority.directory();
        let servers = found(directory.resource_servers())?;
        let audiences: Vec<String> = servers.iter().map(|server| server.audience.clone()).collect();
        let event = found(directory.last_event())?;
        let (copies, _) = found(self.authority.confirmations(event, &audiences, &[], Duration::ZERO))?;
        let (servers, left) = short(servers.into_iter().map(shown::server), ANSWER_BYTES / 2);
        let (copies, more) = short(copies.into_iter().map(shown::copy), ANSWER_BYTES / 2);
        Ok(ServersResult { servers, copies, more: left + more })
    }

    fn is_offered(&self, tool: &str) -> bool {
        let in_force = self.policies.in_force();
        in_force.is_some_and(|version| version.catalogue().tools().iter().any(|known| &*known.name == tool))
    }

    fn enable(&self, scope: &EnableScope, by: &Human, now: Now) -> Outcome<EnableResult> {
        let done = match scope {
            EnableScope::Agent(name) => self.authority.enable_agent(name.as_str(), by, now).map(drop),
            EnableScope::Tool(name) => self.authority.enable_tool(name.as_str(), by, now),
        };
        match done {
            Ok(()) => Ok(EnableResult { matched: true }),
            Err(Refused::Unknown(_)) => Ok(EnableResult { matched: false }),
            Err(refused) => Err(refusal(refused)),
        }
    }

    fn invite(&self, params: &InviteParams, by: &Human, now: Now) -> Outcome<TicketResult> {
        let (class, roles) = (params.class.as_str(), roles_of(&params.roles)?);
        let (most, secs) = (params.max_agents, params.lifetime_seconds);
        let invited = self.authority.invite(class, &roles, most, secs, by.clone(), now);
        found(invited).and_then(|invited| shown::ticket(&invited))
    }

    fn invite_server(&self, params: &InviteServerParams, by: &Human, now: Now) -> Outcome<TicketResult> {
        let suite = |number: &u32| {
            u8::try_from(*number).ok().and_then(Suite::from_number).ok_or_else(|| {
                Refusal::invalid_argument(format!("there is no suite {number}; suites are 1 to 4"))
            })
        };
        let mut suites = params.suites.iter().map(suite).collect::<Outcome<Vec<_>>>()?;
        suites.sort_by_key(|suite| suite.number());
        suites.dedup();
        let invited = self.authority.add_resource_server(params.audience.as_str(), &suites, by, now);
        found(invited).and_then(|invited| shown::ticket(&invited))
    }

    fn activate(&self, params: &ActivateParams, by: &Human, now: Now) -> Outcome<ActivateResult> {
        let sessions_last_seconds = self.authority.settings().session_life_secs();
        let done = match params.mode {
            ActivateMode::StopObserving => {
                found(self.policies.observe(None, by))?;
                return Ok(ActivateResult {
                    version: None,
                    impact: Default::default(),
                    warnings: Vec::new(),
                    sessions_last_seconds,
                });
            }
            ActivateMode::Force => {
                found(self.policies.activate(self.version(&params.digest)?, by, params.anyway, now))?
            }
            ActivateMode::Observe => {
                let version = self.version(&params.digest)?;
                let weighed = found(self.policies.weigh(&version, now))?;
                found(self.policies.observe(Some(version), by))?;
                weighed
            }
            ActivateMode::Weigh => {
                let version = self.version(&params.digest)?;
                found(self.policies.weigh(&version, now))?
            }
        };
        Ok(ActivateResult {
            impact: shown::impact(&done),
            version: done.version.map(shown::version),
            warnings: short(done.warnings, LIST_BYTES).0,
            sessions_last_seconds,
        })
    }

    /// The version whose parts were sent, or else one that is kept.
    fn version(&self, digest: &Label) -> Outcome<Arc<PolicyVersion>> {
        let sent = self.uploads.lock().whole(digest.as_str());
        match sent {
            Some(Ok(version)) => Ok(Arc::new(version)),
            Some(Err(why)) => Err(Refusal::invalid_argument(why)),
            None => found(self.policies.kept(digest.as_str())),
        }
    }

    fn policy_versions(&self) -> Outcome<PolicyVersionsResult> {
        let versions = found(self.authority.directory().policies())?;
        Ok(PolicyVersionsResult {
            versions: versions.into_iter().map(shown::version).collect(),
            observed: self.policies.observed().map(|version| version.digest().to_string()),
        })
    }

    fn status(&self, by: &Human, now: Now) -> Outcome<AsStatusResult> {
        let directory = self.authority.directory();
        let policy = found(directory.policy())?;
        let denied = found(directory.denied_tools())?.into_iter().map(|denied| denied.tool);
        // Which resource servers there are is nothing for those of another organisation.
        let servers = match found(self.authority.reaches_service(by))? {
            true => found(directory.resource_servers())?,
            false => Vec::new(),
        };
        let servers = servers.into_iter().map(|server| server.audience);
        Ok(AsStatusResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            pin: self.pin.clone(),
            words: self.words.clone(),
            policy_epoch: policy.as_ref().map_or(0, |policy| policy.epoch),
            policy: policy.map(|policy| policy.digest),
            observed_policy: self.policies.observed().map(|version| version.digest().to_string()),
            last_event: found(directory.last_event())?,
            waiting: found(self.authority.waiting_registrations(by, now))?.len() as u64,
            denied_tools: short(denied, LIST_BYTES).0,
            resource_servers: short(servers, LIST_BYTES).0,
        })
    }
}
