//! Purpose 6: an agent asks for a human's yes to calls; and what the human says.
//!
//! What is asked for is within an offer that policy allows this agent with a human's yes, and is shown to the human field for
//! field: what the human sees is what the digest covers, and what resource servers accept, once.

use core::time::Duration;
use std::time::Instant;

use obol_handshake::{Proven, Random as _};
use obol_secret::json::{Bounds, ReadArguments, canonical, parse_within};
use obol_secret::text::{plain, to_hex};
use obol_session::{AgentIdentity, Call};
use obol_token::{Constraints, one_or_many};
use serde::Deserialize;
use serde_json::{Value, json};

use super::payload::{self, check_client_and_clock};
use super::reach::{Reach, Reached};
use super::{Authority, Deciding, Now, Outcome, answered, handshake_of, seal_with};
use crate::decider::{Moment, PerCall};
use crate::directory::{
    Agent, Answer, AskedCall, CallApproval, CallDecision, CallPlace, CallStanding, CallState, CallUse,
    Carried, Human, MAX_APPROVED_SECS, MAX_CALL_APPROVALS, MAX_CALLS, MAX_PAGE, MAX_USES, NewCallApproval,
    PersonStatus, Replica,
};
use crate::id::{ApprovalId, Bearer};
use crate::notices::quoted;
use crate::refused::Refused;
use crate::settings::PREFERENCE;

/// How often whoever waits should ask, in seconds.
const POLL_INTERVAL_SECS: u64 = 2;
/// The longest text of a call, in bytes: its arguments, a purpose.
const MAX_TEXT_BYTES: usize = 4_096;
/// The longest purpose, in bytes: a human reads it.
const MAX_PURPOSE_BYTES: usize = 512;
/// How long whoever hears of a yes waits for the resource servers to have heard of it.
const HEARD_PATIENCE: Duration = Duration::from_millis(1_000);

/// Purpose 6.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalRequest {
    calls: Vec<Wanted>,
    #[serde(default)]
    purpose: Option<String>,
    #[serde(default)]
    lifetime_secs: Option<u64>,
    #[serde(default)]
    client: String,
    now: u64,
}

/// A call, as the agent asks for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tool: String,
    #[serde(default)]
    aud: Option<String>,
    #[serde(default, with = "one_or_many")]
    action: Vec<String>,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    constraints: Option<Constraints>,
    /// A JSON object, as text.
    #[serde(default)]
    arguments: Option<String>,
    #[serde(default)]
    count: Option<u64>,
}

/// A request, and what whoever decides about it needs to know beside it.
#[derive(Clone, PartialEq, Debug)]
pub struct AskedApproval {
    /// The request.
    pub approval: CallApproval,
    /// Who asks.
    pub agent: Agent,
    /// Whether policy lets the one who looks say yes.
    pub allowed: bool,
}

impl Authority {
    pub(super) fn ask_approval(&self, proven: Proven, now: Now) -> Answer<Outcome> {
        let (agent, new, poll) = match self.plan_approval(&proven, now)? {
            Ok(planned) => planned,
            Err(refused) => return self.refuse(proven, refused, now),
        };
        let identity = proven.identity;
        let place = self.auditor.reserve()?;
        let handshake = handshake_of(&proven);
        let seal = seal_with(proven, move |approval| told(approval, &poll));
        let carried = self.directory.ask_approval(handshake, new, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(approval), _) => {
                place.asked(&agent, approval);
                self.call_waits(&agent, approval, now);
            }
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }

    /// Says that calls wait for a human. Their arguments, and why the agent wants them, are on the page alone, behind a login.
    fn call_waits(&self, agent: &Agent, approval: &CallApproval, now: Now) {
        let at = match self.settings.has_pages {
            true => format!("{}/console/approvals/{}", self.settings.origin, approval.id),
            false => format!("`obol approvals` where the service runs ({})", approval.id),
        };
        let calls = match approval.calls.as_slice() {
            [one] => format!("a call of {}", quoted(&one.scope.tool)),
            all => format!("{} calls", all.len()),
        };
        let name = quoted(&agent.wanted.name);
        let text = format!(
            "agent {name} asks for a human's yes to {calls}, within {} s: {at}",
            self.settings.call_wait_secs
        );
        self.notices.waits(agent.id.as_str(), "call_waits", text, now.secs(), Some(approval.id.clone()));
    }

    fn plan_approval(
        &self,
        proven: &Proven,
        now: Now,
    ) -> Answer<Result<(Agent, NewCallApproval, Bearer), Refused>> {
        let request = payload::read::<ApprovalRequest>(&proven.payload).and_then(|request| {
            check_client_and_clock(&request.client, request.now, now.secs())?;
            check(&request)?;
            Ok(request)
        });
        let request = match request {
            Ok(request) => request,
            Err(refused) => return Ok(Err(refused)),
        };
        let agent = match self.agent_that_may_act(proven.identity, now)? {
            Ok(agent) => agent,
            Err(refused) => return Ok(Err(refused)),
        };
        let Deciding { decider, epoch } = self.deciding.read().clone();
        let moment = Moment { now: now.secs(), suite: proven.header.suite.number() };
        let owner = self.person(&agent.owner)?;
        if owner.status == PersonStatus::Disabled {
            return Ok(Err(Refused::Suspended));
        }
        let offers = match decider.decide(&agent, &owner, moment) {
            Ok(decided) => decided.per_call,
            Err(error) => return Ok(Err(Refused::Unavailable(error.to_string()))),
        };
        let purpose = request.purpose.as_deref().map(|purpose| plain(purpose).into_owned());
        let identity = self.identity_of(&agent, proven.identity.subject());
        let organisation = self.organisation_of(&agent.owner);
        let mut calls = Vec::with_capacity(request.calls.len());
        for wanted in &request.calls {
            match self.narrow(wanted, &offers, (&identity, organisation), purpose.as_deref()) {
                Ok(call) => calls.push(call),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        let poll = Bearer::generate(&mut self.random());
        let approval = CallApproval {
            id: ApprovalId::generate(&mut self.random()),
            agent: agent.id.clone(),
            purpose,
            calls,
            lifetime_secs: request.lifetime_secs.unwrap_or(MAX_APPROVED_SECS),
            created_at: now.secs(),
            expires_at: now.secs().saturating_add(self.settings.call_wait_secs),
            state: CallState::Waiting,
            poll_hash: poll.hash(),
        };
        let decided_by = (agent.version, epoch);
        let per_hour = self.settings.call_approvals_per_hour;
        Ok(Ok((agent, NewCallApproval { approval, decided_by, per_hour }, poll)))
    }

    fn identity_of(&self, agent: &Agent, sub: String) -> AgentIdentity {
        AgentIdentity { agent_instance_id: agent.id.to_string(), iss: self.settings.origin.clone(), sub }
    }

    /// The weakest offer that the call is within, narrowed to it.
    fn narrow(
        &self,
        wanted: &Wanted,
        offers: &[PerCall],
        (agent, organisation): (&AgentIdentity, &str),
        purpose: Option<&str>,
    ) -> Result<AskedCall, Refused> {
        let is_it = |offer: &&PerCall| {
            offer.grant.tool == wanted.tool && wanted.aud.as_ref().is_none_or(|aud| offer.grant.aud == *aud)
        };
        let mut of_tool: Vec<&PerCall> = offers.iter().filter(is_it).collect();
        if of_tool.iter().any(|offer| Some(&offer.grant.aud) != of_tool.first().map(|first| &first.grant.aud))
        {
            return Err(Refused::Malformed(
                "aud: the tool is at several resource servers; name one".to_owned(),
            ));
        }
        of_tool.reverse();
        let mut why = format!("the tool {:?} is not among them", plain(&wanted.tool));
        for offer in of_tool {
            let call = Call {
                tool: wanted.tool.clone(),
                aud: offer.grant.aud.clone(),
                action: wanted.action.clone(),
                resource: wanted.resource.clone(),
                constraints: wanted.constraints.clone(),
                purpose: purpose.map(str::to_owned),
            };
            match call.scope_within(&offer.grant.scope(agent, organisation), [0; 16]) {
                Ok(scope) => return self.uses(wanted, &offer.offer, scope),
                Err(widening) => why = format!("it goes beyond the offer in {}", widening.as_str()),
            }
        }
        Err(Refused::NotOffered(why))
    }

    /// The call with a transaction for each of its uses.
    fn uses(&self, wanted: &Wanted, offer: &str, scope: obol_token::Scope) -> Result<AskedCall, Refused> {
        let arguments = wanted.arguments.as_deref().map(in_canonical_form).transpose()?;
        let count = usize::try_from(wanted.count.unwrap_or(1)).unwrap_or(usize::MAX).min(MAX_USES);
        let mut scope = scope;
        let mut uses = Vec::with_capacity(count);
        for _ in 0..count {
            let mut txn_id = [0; 16];
            self.random().fill(&mut txn_id);
            scope.txn_id = Some(txn_id);
            let digest = scope.compute_approval_digest();
            let digest = digest.map_err(|error| Refused::Malformed(error.to_string()))?;
            uses.push(CallUse { txn_id, digest });
        }
        scope.txn_id = None;
        Ok(AskedCall { offer: offer.to_owned(), scope, arguments, uses })
    }

    /// The requests that wait, as `by` sees them, the one whose time is over next first; at most a page. Of agents of another
    /// organisation only those that policy lets them reach.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub fn asked_approvals(&self, by: &Human, now: Now) -> Result<Vec<AskedApproval>, Refused> {
        self.reached_approvals((None, MAX_PAGE), by, now, |_| true).map(|(asked, _)| asked)
    }

    /// Up to so many of them, behind a place, that are such; and where to go on, if there may be more. What `by` does not reach takes
    /// nobody's place. Of what they reach a page is looked at, such or not: each look asks the policy.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn reached_approvals(
        &self,
        (mut behind, most): (Option<CallPlace>, usize),
        by: &Human,
        now: Now,
        is_such: impl Fn(&AskedApproval) -> bool,
    ) -> Result<Reached<AskedApproval, CallPlace>, Refused> {
        let (mut reach, mut found, mut looks) = (Reach::of(self, by), Vec::new(), 0);
        // There are no more than so many pages; what comes meanwhile is behind them.
        for _ in 0..=MAX_CALL_APPROVALS / MAX_PAGE as u64 {
            let page = self.directory.waiting_calls(now.secs(), behind.as_ref(), MAX_PAGE)?;
            if page.is_empty() {
                return Ok((found, None));
            }
            for approval in page {
                let place = (approval.expires_at, approval.id.clone());
                let agent =
                    self.directory.agent(approval.agent.as_str())?.ok_or(Refused::Unknown("agent"))?;
                if reach.has(&agent.owner)? {
                    if looks == MAX_PAGE || found.len() == most {
                        return Ok((found, behind));
                    }
                    looks += 1;
                    let asked = self.seen(approval, agent, by, now);
                    if is_such(&asked) {
                        found.push(asked);
                    }
                }
                behind = Some(place);
            }
        }
        Ok((found, behind))
    }

    /// One request, as `by` sees it, also one that was decided.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn asked_approval(&self, id: &ApprovalId, by: &Human, now: Now) -> Result<AskedApproval, Refused> {
        let approval = self.directory.call_approval(id)?.ok_or(Refused::NoSuchApproval)?;
        self.seen_by(approval, by, now)
    }

    fn seen_by(&self, approval: CallApproval, by: &Human, now: Now) -> Result<AskedApproval, Refused> {
        let agent = self.directory.agent(approval.agent.as_str())?;
        let agent = agent.ok_or(Refused::Unknown("agent"))?;
        if !self.reaches(by, &agent.owner)? {
            return Err(Refused::NoSuchApproval);
        }
        Ok(self.seen(approval, agent, by, now))
    }

    /// A request of an agent that they reach.
    fn seen(&self, approval: CallApproval, agent: Agent, by: &Human, now: Now) -> AskedApproval {
        let waits = approval.standing(now.secs()) == CallStanding::Waiting;
        let allowed = waits && self.check_decision(&approval, &agent, by, now).is_ok();
        AskedApproval { approval, agent, allowed }
    }

    /// Carries out the word of `by` about a request. Only who policy lets says yes; a no is everybody's who comes here.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing was decided then.
    pub fn decide_approval(
        &self,
        id: &ApprovalId,
        approve: bool,
        by: &Human,
        now: Now,
    ) -> Result<AskedApproval, Refused> {
        let approval = self.directory.call_approval(id)?.ok_or(Refused::NoSuchApproval)?;
        if approval.standing(now.secs()) != CallStanding::Waiting {
            return Err(Refused::NoSuchApproval);
        }
        let agent = self.directory.agent(approval.agent.as_str())?.ok_or(Refused::Unknown("agent"))?;
        if !self.reaches(by, &agent.owner)? {
            return Err(Refused::NoSuchApproval);
        }
        let mut decided_by = (agent.version, 0);
        if approve {
            decided_by.1 = self.check_decision(&approval, &agent, by, now)?;
        }
        let place = self.auditor.reserve()?;
        let decision = CallDecision { id: id.clone(), by: by.clone(), approve, decided_by };
        let approval = self.directory.decide_calls(decision, now.secs())??;
        place.decided(&agent, &approval, by, approve);
        self.wait_until_heard(&approval)?;
        Ok(AskedApproval { approval, agent, allowed: approve })
    }

    /// Whether policy still offers the calls, and lets this human say yes; the policy epoch that it says so in.
    fn check_decision(
        &self,
        approval: &CallApproval,
        agent: &Agent,
        by: &Human,
        now: Now,
    ) -> Result<u64, Refused> {
        let undecided = |error: crate::decider::Undecided| Refused::Unavailable(error.to_string());
        let Deciding { decider, epoch } = self.deciding.read().clone();
        let best = PREFERENCE.into_iter().find(|suite| self.settings.suites.contains(suite));
        let suite = best.unwrap_or(obol_session::Suite::HybridAesGcm).number();
        let (person, owner) = (self.person(by)?, self.person(&agent.owner)?);
        if [&person, &owner].iter().any(|one| one.status == PersonStatus::Disabled) {
            return Err(Refused::CallDenied);
        }
        let moment = Moment { now: now.secs(), suite };
        let offers = decider.decide(agent, &owner, moment).map_err(undecided)?.per_call;
        let denied = self.directory.denied_tools()?;
        for call in &approval.calls {
            let scope = &call.scope;
            let is_it = |offer: &&PerCall| {
                offer.offer == call.offer && offer.grant.tool == scope.tool && offer.grant.aud == scope.aud
            };
            let gone = || Refused::NotOffered(format!("{} is not any more", plain(&call.offer)));
            let offer = offers.iter().find(is_it).ok_or_else(gone)?;
            if denied.iter().any(|denied| denied.tool == scope.tool) {
                return Err(gone());
            }
            let identity = self.identity_of(agent, scope.sub.clone());
            let granted = offer.grant.scope(&identity, self.organisation_of(&agent.owner));
            obol_token::delegation::check_granted(scope, &granted).map_err(|_| gone())?;
            if !decider.may_approve_call(&person, agent, &owner, offer, now.secs()).map_err(undecided)? {
                return Err(Refused::CallDenied);
            }
        }
        Ok(epoch)
    }

    /// How a request stands, for whoever made it; `None` if there is none, or it is another's. A yes is told once the resource
    /// servers that follow have heard of it.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn poll_approval(
        &self,
        id: &ApprovalId,
        token: &Bearer,
        now: Now,
    ) -> Result<Option<CallStanding>, Refused> {
        let found = self.directory.call_approval(id)?;
        let is_theirs =
            |found: &CallApproval| obol_secret::compare::ct_eq_32(&found.poll_hash, &token.hash());
        let Some(approval) = found.filter(is_theirs) else { return Ok(None) };
        self.wait_until_heard(&approval)?;
        Ok(Some(approval.standing(now.secs())))
    }

    /// Waits, not for long, until the resource servers that follow have applied a yes.
    fn wait_until_heard(&self, approval: &CallApproval) -> Answer<()> {
        let CallState::Approved { event, .. } = approval.state else { return Ok(()) };
        let audiences = approval.audiences();
        let mut replicas = self.directory.replicas()?;
        replicas.retain(|replica: &Replica| audiences.contains(&replica.audience));
        let ids: Vec<&str> = replicas.iter().map(|replica| replica.id.as_str()).collect();
        self.hub.wait_applied(&ids, event, Instant::now() + HEARD_PATIENCE);
        Ok(())
    }
}

/// What reading alone does not see.
fn check(request: &ApprovalRequest) -> Result<(), Refused> {
    let refuse = |rule: String| Err(Refused::Malformed(rule));
    if request.calls.is_empty() || request.calls.len() > MAX_CALLS {
        return refuse(format!("calls: 1 to {MAX_CALLS}"));
    }
    if request.purpose.as_ref().is_some_and(|purpose| purpose.len() > MAX_PURPOSE_BYTES) {
        return refuse(format!("purpose: at most {MAX_PURPOSE_BYTES} bytes"));
    }
    if request.lifetime_secs.is_some_and(|secs| secs == 0 || secs > MAX_APPROVED_SECS) {
        return refuse(format!("lifetime_secs: 1 to {MAX_APPROVED_SECS}"));
    }
    let counts = request.calls.iter().map(|call| call.count.unwrap_or(1));
    let all = counts.clone().fold(0_u64, u64::saturating_add);
    if counts.min() == Some(0) || all > MAX_USES as u64 {
        return refuse(format!("count: at least 1, and {MAX_USES} for all calls together"));
    }
    for call in &request.calls {
        let own = [Some(&call.tool), call.aud.as_ref(), call.resource.as_ref(), call.arguments.as_ref()];
        if own.into_iter().flatten().chain(&call.action).any(|text| text.len() > MAX_TEXT_BYTES) {
            return refuse(format!("calls: a text has at most {MAX_TEXT_BYTES} bytes"));
        }
        if call
            .resource
            .iter()
            .chain(&call.action)
            .any(|text| text.is_empty() || text.contains(char::is_control))
        {
            return refuse(
                "calls: action and resource are not empty and hold no control characters".to_owned(),
            );
        }
    }
    Ok(())
}

/// The arguments as they are hashed. A number that not everybody reads alike is refused.
fn in_canonical_form(text: &str) -> Result<String, Refused> {
    let read: ReadArguments = parse_within(text.as_bytes(), Bounds::REQUEST)
        .map_err(|error| Refused::Malformed(format!("arguments: {error}")))?;
    let exact = || Refused::Malformed("arguments: a number is beyond 2^53; say it as a text".to_owned());
    if read.rounded {
        return Err(exact());
    }
    let canonical = canonical(&read.map).ok_or_else(exact)?;
    String::from_utf8(canonical).map_err(|error| Refused::Malformed(error.to_string()))
}

/// Message D of purpose 6.
fn told(approval: &CallApproval, poll: &Bearer) -> Value {
    let call = |(number, call): (usize, &AskedCall)| {
        let uses = call
            .uses
            .iter()
            .map(|one| json!({ "txn_id": to_hex(&one.txn_id), "digest": to_hex(&one.digest) }));
        json!({
            "id": format!("{}.{}", approval.id, number + 1),
            "tool": call.scope.tool,
            "aud": call.scope.aud,
            "action": call.scope.action,
            "resource": call.scope.resource,
            "constraints": call.scope.constraints,
            "purpose": call.scope.purpose,
            "uses": uses.collect::<Vec<_>>(),
        })
    };
    json!({
        "approval_id": approval.id,
        "poll_token": poll.to_text().as_str(),
        "interval": POLL_INTERVAL_SECS,
        "expires_at": approval.expires_at,
        "calls": approval.calls.iter().enumerate().map(call).collect::<Vec<_>>(),
    })
}
