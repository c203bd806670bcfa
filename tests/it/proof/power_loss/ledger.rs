//! What the outside world knows: what was handed out and what was acknowledged. Whatever the queue does later is held
//! against it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use obol_queue::{DequeueError, Queue, SessionId, SessionState, StoreOpenError};
use obol_token::{Envelope, MutualAuth, SessionKey, SessionMaterial, Suite, VerifierSecret};
use obol_world::halves::AgentSession;

use super::{FILLED_DEPTH, MOST_READY, TOOLS};

/// A promise that was broken.
#[derive(Debug)]
#[allow(dead_code, reason = "what each says is for whoever reads the failure")]
pub(super) enum Violation {
    /// A token was handed out again.
    Repeated(String),
    /// A flush that had returned was undone.
    FlushUndone(String),
    /// A session whose provisioning had returned is gone.
    SessionLost(String),
    /// A policy that had been set is not in force.
    PolicyLost(String),
    /// Tokens are gone that nobody had claimed.
    TokensLost(String),
    /// The store does not open.
    DoesNotOpen(StoreOpenError),
    /// A token that no resource server would accept.
    Forged(String),
    /// A token that is too old, or of a later time.
    Stale(String),
    /// An answer that the state of the world does not explain.
    Absurd(String),
    /// A token was handed out after the store had failed.
    NotStopped(String),
}

pub(super) type Verdict = Result<(), Violation>;

/// How a session may stand, as far as anybody was told.
#[derive(Clone)]
struct Known {
    may_be: BTreeSet<Standing>,
    agent: u64,
    tools: Vec<&'static str>,
    /// Place in the order of provisioning.
    order: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    Absent,
    Active,
    Flushed,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Policy {
    epoch: u64,
    denied: BTreeSet<String>,
}

/// What a flush takes away.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    All,
    Session(u64),
    Agent(u64),
    Tool(&'static str),
}

/// See the module's header.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    tokens: HashSet<[u8; 22]>,
    nonces: HashSet<[u8; 12]>,
    sessions: BTreeMap<u64, Known>,
    /// The last policies set; more than one where the last answer never came.
    policies: Vec<Policy>,
    /// Tokens of a tool with a nonce counter below this were minted before a flush of the tool.
    floors: HashMap<&'static str, u64>,
    /// Tokens that must be on disk, for each session and tool.
    stored: HashMap<(u64, String), u64>,
    /// Sessions and tools whose rows may have to be given up: what stands on disk for them says nothing.
    uncertain: HashSet<(u64, String)>,
    /// The number of the present process is at least this: the upper bits of a nonce counter.
    boot: u64,
    next_session: u64,
    verified: u64,
}

/// Bits of a nonce counter that count inside one process.
const BOOT_SHIFT: u32 = 40;
/// Tokens that may have left the disk since it was looked at, besides those drawn: what is ready, and what a claim had
/// removed already and not counted yet.
const IN_FLIGHT: u64 = 2 * MOST_READY;

pub(super) fn world(number: u64, agent: u64, tools: &[&'static str], now: u64) -> serde_json::Value {
    let mut world = AgentSession::new(number, now, tools);
    world.expires_at = now + 10_000_000;
    for grant in &mut world.grants {
        grant["ttl"] = 3600.into();
    }
    let mut json = world.agent_json();
    json["agent_instance_id"] = format!("agent-{agent}").into();
    json
}

fn material(number: u64) -> SessionMaterial {
    let json = world(number, 0, &TOOLS, 1);
    let server = &json["resource_servers"][0];
    let bytes = |name: &str| obol_token::text::from_hex::<32>(server[name].as_str().unwrap()).unwrap();
    SessionMaterial::new(
        SessionId::from_u64(number),
        Suite::Tbac,
        SessionKey::from_bytes(bytes("K_session")),
        VerifierSecret::from_bytes(bytes("verifier_secret")),
        MutualAuth::from_bytes(bytes("mutual_auth")),
        bytes("SEK_PK"),
    )
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { policies: vec![Policy::default()], ..Self::default() }
    }

    /// Sessions that are there and not flushed, as far as is certain.
    pub(super) fn active(&self) -> Vec<(u64, Vec<&'static str>)> {
        let certain = |known: &Known| known.may_be.iter().eq([&Standing::Active]);
        self.sessions
            .iter()
            .filter(|(_, known)| certain(known))
            .map(|(id, known)| (*id, known.tools.clone()))
            .collect()
    }

    pub(super) fn sessions(&self) -> Vec<u64> {
        self.sessions.keys().copied().collect()
    }

    pub(super) fn tools(&self, session: u64) -> Vec<&'static str> {
        self.sessions[&session].tools.clone()
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.policies.iter().map(|policy| policy.epoch).max().unwrap_or(0)
    }

    pub(super) fn is_denied_for_sure(&self, tool: &str) -> bool {
        self.policies.iter().all(|policy| policy.denied.contains(tool))
    }

    fn may_be_denied(&self, tool: &str) -> bool {
        self.policies.iter().any(|policy| policy.denied.contains(tool))
    }

    /// A number for a new session.
    pub(super) fn new_session(&mut self) -> u64 {
        self.next_session += 1;
        self.next_session
    }

    pub(super) fn provisioned(&mut self, id: u64, agent: u64, tools: &[&'static str], acknowledged: bool) {
        let mut may_be = BTreeSet::from([Standing::Active]);
        if !acknowledged {
            may_be.insert(Standing::Absent);
        }
        self.sessions.insert(id, Known { may_be, agent, tools: tools.to_vec(), order: id });
    }

    /// A flush has answered. `minted_before` is how many tokens this process had minted when it began.
    pub(super) fn flushed(&mut self, scope: &Scope, minted_before: u64, acknowledged: bool) {
        if let Scope::Tool(tool) = scope {
            if acknowledged {
                self.floors.insert(tool, (self.boot << BOOT_SHIFT) + minted_before);
            }
            self.lose_track(|_, found| found == *tool);
            return;
        }
        for (id, known) in &mut self.sessions {
            let meant = match scope {
                Scope::All => true,
                Scope::Session(session) => session == id,
                Scope::Agent(agent) => *agent == known.agent,
                Scope::Tool(_) => false,
            };
            if meant && known.may_be.contains(&Standing::Active) {
                if acknowledged {
                    known.may_be.remove(&Standing::Active);
                }
                known.may_be.insert(Standing::Flushed);
            }
        }
    }

    pub(super) fn policy_set(&mut self, epoch: u64, denied: BTreeSet<String>, acknowledged: bool) {
        // Of an epoch that was never acknowledged nobody knows whether it is in force: if it is not, this raises it, and
        // what waits is given up.
        if self.policies.iter().any(|policy| policy.epoch < epoch) {
            self.lose_track(|_, _| true);
        }
        if acknowledged {
            self.policies.clear();
        }
        self.policies.push(Policy { epoch, denied });
    }

    /// What waits may have become too old, or be given up.
    pub(super) fn time_passed(&mut self) {
        self.lose_track(|_, _| true);
    }

    fn lose_track(&mut self, meant: impl Fn(u64, &str) -> bool) {
        for (id, known) in &self.sessions {
            let tools = known.tools.iter().filter(|tool| meant(*id, tool));
            self.uncertain.extend(tools.map(|tool| (*id, (*tool).to_owned())));
        }
    }

    /// A token was handed out, while the clock showed `now`.
    pub(super) fn handed_out(&mut self, session: u64, tool: &str, bytes: &[u8], now: u64) -> Verdict {
        let envelope =
            Envelope::parse(bytes).map_err(|error| Violation::Forged(format!("{error} in {tool}")))?;
        let what = format!("{tool} of session {session}, {envelope:?}, iv {:02x?}", envelope.iv());
        if envelope.session_id() != SessionId::from_u64(session) {
            return Err(Violation::Forged(format!("another session's token: {what}")));
        }
        if !self.tokens.insert(*envelope.jti().as_bytes()) {
            return Err(Violation::Repeated(what));
        }
        if !self.nonces.insert(envelope.iv()) {
            return Err(Violation::Repeated(format!("nonce: {what}")));
        }
        self.verified += 1;
        // Opening costs more than drawing; every eighth tells enough where nothing damages bytes.
        if self.verified.is_multiple_of(8) {
            verify(session, tool, bytes)?;
        }
        let known = &self.sessions[&session];
        if !known.may_be.contains(&Standing::Active) {
            return Err(Violation::FlushUndone(what));
        }
        let [.., a, b, c, d, e, f, g, h] = envelope.iv();
        let counter = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        self.boot = self.boot.max(counter >> BOOT_SHIFT);
        if self.floors.get(tool).is_some_and(|floor| counter < *floor) {
            return Err(Violation::FlushUndone(format!("minted before its tool was flushed: {what}")));
        }
        if self.is_denied_for_sure(tool)
            || self.policies.iter().all(|policy| envelope.policy_epoch() < policy.epoch)
        {
            return Err(Violation::PolicyLost(what));
        }
        // Inside two seconds the clock may stand still rather than run backwards.
        if envelope.issued_at() > now + 2 || envelope.expires_at() < now + 5 {
            return Err(Violation::Stale(what));
        }
        if let Some(stored) = self.stored.get_mut(&(session, tool.to_owned())) {
            *stored = stored.saturating_sub(1);
        }
        Ok(())
    }

    /// A token that somebody drew while other things went on: it must be new, whatever else holds.
    pub(super) fn drawn_beside(&mut self, bytes: &[u8]) -> Verdict {
        let envelope = Envelope::parse(bytes).map_err(|error| Violation::Forged(error.to_string()))?;
        self.stored.clear();
        let is_new = self.tokens.insert(*envelope.jti().as_bytes()) & self.nonces.insert(envelope.iv());
        if is_new { Ok(()) } else { Err(Violation::Repeated(format!("drawn beside: {envelope:?}"))) }
    }

    /// A draw got no token. `failed` tells whether the store had a reason to fail.
    pub(super) fn refused(&self, session: u64, tool: &str, error: &DequeueError, failed: bool) -> Verdict {
        let known = self.sessions.get(&session);
        let may_be = |standing| known.is_some_and(|known| known.may_be.contains(&standing));
        let explained = match error {
            DequeueError::Unavailable(_) => failed,
            DequeueError::PolicyDenied => {
                self.may_be_denied(tool) || !known.is_some_and(|known| known.tools.contains(&tool))
            }
            DequeueError::SessionFlushed => may_be(Standing::Flushed),
            DequeueError::NoSession => known.is_none() || may_be(Standing::Absent),
            _ => false,
        };
        if explained {
            Ok(())
        } else {
            Err(Violation::Absurd(format!("{tool} of session {session}: {error:?}")))
        }
    }

    /// Holds a queue that was just opened against what was promised before, and learns what it settled. `failed` tells
    /// whether the store has had a reason to fail by now: its threads work as soon as it is open.
    pub(super) fn reopened(&mut self, queue: &Queue, failed: impl Fn() -> bool) -> Verdict {
        self.boot += 1;
        let found: BTreeMap<u64, SessionState> =
            queue.sessions().into_iter().map(|info| (info.session_id.as_u64(), info.state)).collect();
        for (id, known) in &mut self.sessions {
            let standing = match found.get(id) {
                None => Standing::Absent,
                Some(
                    SessionState::Active | SessionState::Held | SessionState::Lapsed | SessionState::Expired,
                ) => Standing::Active,
                Some(SessionState::Flushed) => Standing::Flushed,
            };
            if !known.may_be.contains(&standing) {
                let what = format!("session {id} is {standing:?}, not one of {:?}", known.may_be);
                return Err(match standing {
                    Standing::Active => Violation::FlushUndone(what),
                    Standing::Absent | Standing::Flushed => Violation::SessionLost(what),
                });
            }
            known.may_be = BTreeSet::from([standing]);
        }
        self.sessions.retain(|_, known| !known.may_be.contains(&Standing::Absent));
        if let Some(unknown) = found.keys().find(|id| !self.sessions.contains_key(id)) {
            return Err(Violation::Absurd(format!("session {unknown} was never provisioned")));
        }
        let youngest = self.sessions.iter().max_by_key(|(_, known)| known.order);
        let expected = match youngest {
            None => Err(DequeueError::NoSession),
            Some((_, known)) if known.may_be.contains(&Standing::Flushed) => {
                Err(DequeueError::SessionFlushed)
            }
            Some((id, _)) => Ok(*id),
        };
        let current = queue.session_info().map(|info| info.session_id.as_u64());
        let excused = matches!(current, Err(DequeueError::Unavailable(_))) && failed();
        if current != expected && !excused {
            return Err(Violation::Absurd(format!("the current session is {current:?}, not {expected:?}")));
        }
        self.settle_policy(queue)?;
        self.check_stored(queue)
    }

    fn settle_policy(&mut self, queue: &Queue) -> Verdict {
        let tools = queue.tools();
        let fits =
            |policy: &Policy| tools.iter().all(|tool| policy.denied.contains(&tool.tool) == tool.denied);
        if !self.policies.iter().any(fits) {
            return Err(Violation::PolicyLost(format!("{:?} instead of {:?}", tools, self.policies)));
        }
        self.policies.retain(fits);
        Ok(())
    }

    fn check_stored(&mut self, queue: &Queue) -> Verdict {
        let tools = queue.tools();
        // A queue that has failed by now counts nothing as stored any more; the next start tells.
        if queue.health().is_err() {
            self.stored.clear();
            return Ok(());
        }
        let active: BTreeSet<u64> = self.active().into_iter().map(|(id, _)| id).collect();
        for (place, expected) in &self.stored {
            let (session, tool) = place;
            if !active.contains(session) || self.uncertain.contains(place) {
                continue;
            }
            let found = tools
                .iter()
                .find(|found| found.session_id.as_u64() == *session && found.tool == *tool)
                .map_or(0, |found| found.stored);
            if found + IN_FLIGHT < *expected {
                return Err(Violation::TokensLost(format!(
                    "{tool} of session {session}: {found} on disk instead of {expected}"
                )));
            }
        }
        self.stored.clear();
        Ok(())
    }

    /// Notes what waits, and that the numbers make sense.
    pub(super) fn look(&mut self, queue: &Queue) -> Verdict {
        for tool in queue.tools() {
            if tool.ready > MOST_READY || tool.stored > 2 * FILLED_DEPTH as u64 {
                return Err(Violation::Absurd(format!("{tool:?}")));
            }
            self.stored.insert((tool.session_id.as_u64(), tool.tool), tool.stored);
        }
        Ok(())
    }
}

/// Opens a token as its resource server would.
pub(super) fn verify(session: u64, tool: &str, bytes: &[u8]) -> Verdict {
    let forged = |what: &str| Violation::Forged(format!("{what}: {tool} of session {session}"));
    let envelope = Envelope::parse(bytes).map_err(|_| forged("framing"))?;
    let material = material(session);
    let body = material.open(&envelope).map_err(|_| forged("does not open"))?;
    let scope = body.scope().map_err(|_| forged("scope"))?;
    if scope.tool == tool
        && body.privilege_signature_matches(
            &material.privilege_signature(envelope.policy_epoch(), body.scope_tlv()),
        )
    {
        Ok(())
    } else {
        Err(forged("another tool or signature"))
    }
}

#[test]
fn an_epoch_that_was_never_acknowledged_counts_as_raised_when_it_is_set_again() {
    let mut ledger = Ledger::new();
    ledger.policy_set(2, BTreeSet::new(), false);
    ledger.provisioned(1, 1, &["search"], true);
    ledger.policy_set(2, BTreeSet::new(), true);
    assert!(ledger.uncertain.contains(&(1, "search".to_owned())), "what waits may be given up");
}
