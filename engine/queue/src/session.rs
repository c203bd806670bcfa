//! A session in memory: its partitions, by tool and audience, and what has become of it. And all of them.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use crossbeam::utils::CachePadded;
use obol_token::{SessionId, Suite};
use parking_lot::{Mutex, RwLock};

use crate::approvals::ApprovedCalls;
use crate::grant::Grant;
use crate::identity::Identity;
use crate::lease::Contact;
use crate::partition::Partition;

/// A session's life in this queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Tokens are minted and handed out; or would be, were there no younger session.
    Active,
    /// Its time is over, or what is left of it is too short for a token.
    Expired,
    /// Its lease is over: the service that opened it was not heard for so long. It goes on once that is heard again
    /// ([`Queue::heard`](crate::Queue::heard)).
    Lapsed,
    /// Not flushed itself, but older than one that was: it does not take that one's place before
    /// [`Queue::resume`](crate::Queue::resume).
    Held,
    /// A flush ended the session; its keys are destroyed.
    Flushed,
}

/// A provisioned session.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) agent_instance_id: String,
    pub(crate) suite: Suite,
    pub(crate) established_at: u64,
    pub(crate) expires_at: u64,
    /// For how many seconds it is drawn from while the service is not heard; without, to its end.
    pub(crate) lease_secs: Option<u64>,
    /// Counts provisionings; the youngest active session is the current one.
    pub(crate) order: u64,
    pub(crate) slot: u32,
    /// The shortest of its tools' least lives, in seconds.
    pub(crate) least_life: u64,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// The policy epoch that it was established under.
    pub(crate) policy_epoch: u64,
    /// What takes a human's yes to each call; nothing once the session has ended.
    per_call: Mutex<Vec<Grant>>,
    by_tool: HashMap<Box<str>, Granted, foldhash::fast::RandomState>,
    is_active: AtomicBool,
}

/// The partitions of one tool: one for each audience.
struct Granted {
    first: Arc<Partition>,
    others: Vec<Arc<Partition>>,
}

/// A partition for each grant, or why there is none.
pub(crate) enum Route<'a> {
    One(&'a Arc<Partition>),
    /// It is granted with a human's yes to each call, and not otherwise.
    PerCall,
    NotGranted,
    Ambiguous(Vec<String>),
}

impl Session {
    /// A session whose keys are there; or, without any, one that was flushed.
    pub(crate) fn new(
        identity: Identity,
        partitions: Vec<Arc<Partition>>,
        per_call: Vec<Grant>,
        is_active: bool,
    ) -> Self {
        let mut by_tool = HashMap::<Box<str>, Granted, _>::default();
        for partition in &partitions {
            by_tool
                .entry(partition.tool().into())
                .and_modify(|granted| granted.others.push(Arc::clone(partition)))
                .or_insert_with(|| Granted { first: Arc::clone(partition), others: Vec::new() });
        }
        let is_active = AtomicBool::new(is_active);
        let least_life = partitions.iter().map(|partition| partition.min_life).min().unwrap_or(0);
        let Identity {
            id,
            agent_instance_id,
            suite,
            established_at,
            expires_at,
            policy_epoch,
            lease_secs,
            order,
            slot,
        } = identity;
        Self {
            id,
            agent_instance_id,
            suite,
            established_at,
            expires_at,
            lease_secs,
            order,
            slot,
            least_life,
            partitions,
            policy_epoch,
            per_call: Mutex::new(per_call),
            by_tool,
            is_active,
        }
    }

    /// The grants that a call of this tool can be approved under; at this resource server alone where one is named.
    pub(crate) fn per_call(&self, tool: &str, audience: Option<&str>) -> impl Iterator<Item = Grant> {
        let is_it = |grant: &&Grant| {
            grant.scope.tool == tool && audience.is_none_or(|audience| grant.audience.as_str() == audience)
        };
        let found: Vec<Grant> = self.per_call.lock().iter().filter(is_it).cloned().collect();
        found.into_iter()
    }

    /// Whether no flush has ended it.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }

    /// Ends the session for good: nothing of it is handed out from here on. Gives back how many tokens waited.
    pub(crate) fn end(&self) -> u64 {
        self.is_active.store(false, Ordering::SeqCst);
        self.per_call.lock().clear();
        let discarded = self.partitions.iter().map(|partition| partition.seal_off(|| u64::MAX)).sum();
        for partition in &self.partitions {
            partition.available.notify(usize::MAX);
        }
        discarded
    }

    pub(crate) fn route(&self, tool: &str, audience: Option<&str>) -> Route<'_> {
        let otherwise = || match self.per_call(tool, audience).next() {
            Some(_) => Route::PerCall,
            None => Route::NotGranted,
        };
        let Some(Granted { first, others }) = self.by_tool.get(tool) else { return otherwise() };
        let mut all = core::iter::once(first).chain(others);
        match audience {
            None if others.is_empty() => Route::One(first),
            None => Route::Ambiguous(all.map(|partition| partition.audience().to_owned()).collect()),
            Some(audience) => {
                all.find(|partition| partition.audience() == audience).map_or_else(otherwise, Route::One)
            }
        }
    }

    pub(crate) fn slots(&self) -> Vec<u32> {
        let partitions = self.partitions.iter().map(|partition| partition.key().slot);
        core::iter::once(self.slot).chain(partitions).collect()
    }
}

/// All sessions that the queue knows.
#[derive(Default)]
pub(crate) struct Sessions {
    pub(crate) all: RwLock<HashMap<SessionId, Arc<Session>>>,
    /// The session that calls without a session number use: see [`crate::current`]. Read by every such hand-out, so apart
    /// from what others write.
    pub(crate) current: CachePadded<ArcSwapOption<Session>>,
    pub(crate) electing: Mutex<()>,
    /// When the last session ended whose time is over, in Unix seconds; 0 if there was none.
    pub(crate) last_end: AtomicU64,
    /// Serialises what changes sessions; counts flushes, so that a provisioning notices one that overtook it.
    pub(crate) flushes: Mutex<u64>,
    /// When the service that opened them was heard.
    pub(crate) contact: Contact,
    /// What a human said yes to.
    pub(crate) approved: ApprovedCalls,
}

impl Sessions {
    /// All of them, the youngest last.
    pub(crate) fn by_age(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.all.read().values().cloned().collect();
        sessions.sort_by_key(|session| session.order);
        sessions
    }

    pub(crate) fn for_each_partition(&self, mut act: impl FnMut(&Arc<Partition>)) {
        let sessions: Vec<_> = self.all.read().values().cloned().collect();
        sessions.iter().flat_map(|session| &session.partitions).for_each(&mut act);
    }
}
