//! What the callers, the refiller and the writer share.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;
use obol_token::{SessionId, Suite};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::clock::Timeline;
use crate::demand::Limits;
use crate::error::Unavailable;
use crate::master_key::MasterKey;
use crate::partition::Partition;
use crate::seal::{SealingKey, SlotSecret, StoreId};
use crate::slots::KeySlots;
use crate::source::TokenSource;
use crate::writer::Job;

/// Bits of a sequence number that count inside one boot; the boot's number stands above them.
pub(crate) const BOOT_SHIFT: u32 = 40;

/// Limits and settings of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    /// Tokens with less life left than this are not handed out, in seconds; a quarter of the ttl at most.
    pub(crate) min_life: u64,
    pub(crate) max_sessions: usize,
}

/// A session's life in this queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Tokens are minted and handed out; or would be, were there no younger session.
    Active,
    /// Its time is over, or what is left of it is too short for a token.
    Expired,
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
    /// Counts provisionings; the youngest active session is the current one.
    pub(crate) order: u64,
    pub(crate) slot: u32,
    /// The shortest of its tools' least lives, in seconds.
    pub(crate) least_life: u64,
    pub(crate) partitions: Vec<Arc<Partition>>,
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
    NotGranted,
    Ambiguous(Vec<String>),
}

/// What identifies a session, without its tokens.
pub(crate) struct Identity {
    pub(crate) id: SessionId,
    pub(crate) agent_instance_id: String,
    pub(crate) suite: Suite,
    pub(crate) established_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) order: u64,
    pub(crate) slot: u32,
}

impl Session {
    /// A session whose keys are there; or, without any, one that was flushed.
    pub(crate) fn new(identity: Identity, partitions: Vec<Arc<Partition>>, is_active: bool) -> Self {
        let mut by_tool = HashMap::<Box<str>, Granted, _>::default();
        for partition in &partitions {
            by_tool
                .entry(partition.tool().into())
                .and_modify(|granted| granted.others.push(Arc::clone(partition)))
                .or_insert_with(|| Granted { first: Arc::clone(partition), others: Vec::new() });
        }
        let is_active = AtomicBool::new(is_active);
        let least_life = partitions.iter().map(|partition| partition.min_life).min().unwrap_or(0);
        let Identity { id, agent_instance_id, suite, established_at, expires_at, order, slot, .. } = identity;
        Self {
            id,
            agent_instance_id,
            suite,
            established_at,
            expires_at,
            order,
            slot,
            least_life,
            partitions,
            by_tool,
            is_active,
        }
    }

    /// Whether no flush has ended it.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }

    /// Ends the session for good: nothing of it is handed out from here on. Gives back how many tokens waited.
    pub(crate) fn end(&self) -> u64 {
        self.is_active.store(false, Ordering::SeqCst);
        let discarded = self.partitions.iter().map(|partition| partition.seal_off(|| u64::MAX)).sum();
        for partition in &self.partitions {
            partition.available.notify(usize::MAX);
        }
        discarded
    }

    pub(crate) fn route(&self, tool: &str, audience: Option<&str>) -> Route<'_> {
        let Some(Granted { first, others }) = self.by_tool.get(tool) else { return Route::NotGranted };
        let mut all = std::iter::once(first).chain(others);
        match audience {
            None if others.is_empty() => Route::One(first),
            None => Route::Ambiguous(all.map(|partition| partition.audience().to_owned()).collect()),
            Some(audience) => {
                all.find(|partition| partition.audience() == audience).map_or(Route::NotGranted, Route::One)
            }
        }
    }

    pub(crate) fn slots(&self) -> Vec<u32> {
        let partitions = self.partitions.iter().map(|partition| partition.key().slot);
        std::iter::once(self.slot).chain(partitions).collect()
    }
}

/// What may be handed out at all, whatever was granted.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// Tokens minted under an older epoch are given up.
    pub(crate) epoch: u64,
    /// The list that comes with the epoch.
    pub(crate) denied_tools: BTreeSet<String>,
    /// The operator's own list. What either denies is denied.
    #[serde(default)]
    pub(crate) operator_denied: BTreeSet<String>,
    /// Why no new session is taken, while none is.
    #[serde(default)]
    pub(crate) hold: Option<Hold>,
    /// Flushed sessions of a lower order no longer keep older ones from taking over.
    #[serde(default)]
    pub(crate) resumed: u64,
}

impl Policy {
    pub(crate) fn denies(&self, tool: &str) -> bool {
        self.denied_tools.contains(tool) || self.operator_denied.contains(tool)
    }
}

/// Why no new session is taken: [`Queue::flush_and_hold`](crate::Queue::flush_and_hold).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Since when, in Unix seconds.
    pub since: u64,
    /// What was flushed.
    pub scope: String,
    /// The reason that was given.
    pub reason: String,
}

/// Work that can wait: done by the writer, a bounded piece at a time.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Remove the rows of a partition below a sequence.
    Discard { partition: u64, below: u64 },
    /// Write down that a session was flushed, so that a restart still says so.
    Tombstone { session: SessionId, row: Vec<u8> },
    /// Forget a session whose time is over.
    Forget { session: SessionId },
    /// Overwrite key slots of a session that is gone and give them back.
    Release { slots: Vec<u32> },
}

/// See the module's header.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) source: Box<dyn TokenSource>,
    /// Read by every hand-out, so apart from what others write.
    pub(crate) timeline: CachePadded<Timeline>,
    pub(crate) store_id: StoreId,
    pub(crate) master: MasterKey,
    pub(crate) slots_key: SealingKey,
    pub(crate) slots: Mutex<KeySlots>,
    pub(crate) root: RwLock<SlotSecret>,
    pub(crate) sessions: RwLock<HashMap<SessionId, Arc<Session>>>,
    /// The session that calls without a session number use: see [`crate::current`].
    pub(crate) current: ArcSwapOption<Session>,
    pub(crate) electing: Mutex<()>,
    /// When the last session ended whose time is over, in Unix seconds; 0 if there was none.
    pub(crate) last_end: AtomicU64,
    pub(crate) policy: Mutex<Policy>,
    /// The embedder's note.
    pub(crate) note: Mutex<Vec<u8>>,
    /// Serialises what changes sessions; counts flushes, so that a provisioning notices one that overtook it.
    pub(crate) admin: Mutex<u64>,
    pub(crate) jobs: Sender<Job>,
    pub(crate) chores: Mutex<VecDeque<Chore>>,
    pub(crate) refills: Refills,
    pub(crate) sequence: CachePadded<AtomicU64>,
    pub(crate) counter: CachePadded<AtomicU64>,
    pub(crate) next_partition: AtomicU64,
    pub(crate) next_order: AtomicU64,
    /// The last era of the clock whose predecessors have been given up.
    era_settled: AtomicU64,
    settling: Mutex<()>,
    pub(crate) min_policy_epoch: AtomicU64,
    failed: OnceLock<Unavailable>,
    stopping: AtomicBool,
}

/// Everything a [`Shared`] starts from.
pub(crate) struct Foundation {
    pub(crate) settings: Settings,
    pub(crate) source: Box<dyn TokenSource>,
    pub(crate) timeline: Timeline,
    pub(crate) master: MasterKey,
    pub(crate) slots_key: SealingKey,
    pub(crate) slots: KeySlots,
    pub(crate) root: SlotSecret,
    pub(crate) policy: Policy,
    pub(crate) note: Vec<u8>,
    pub(crate) boot: u64,
    pub(crate) next_partition: u64,
}

impl Shared {
    pub(crate) fn new(from: Foundation, jobs: Sender<Job>) -> Self {
        let first = from.boot << BOOT_SHIFT;
        Self {
            settings: from.settings,
            source: from.source,
            store_id: *from.slots.store_id(),
            timeline: CachePadded::new(from.timeline),
            master: from.master,
            slots_key: from.slots_key,
            slots: Mutex::new(from.slots),
            root: RwLock::new(from.root),
            sessions: RwLock::default(),
            current: ArcSwapOption::empty(),
            electing: Mutex::new(()),
            last_end: AtomicU64::new(0),
            min_policy_epoch: AtomicU64::new(from.policy.epoch),
            policy: Mutex::new(from.policy),
            note: Mutex::new(from.note),
            admin: Mutex::new(0),
            jobs,
            chores: Mutex::default(),
            refills: Refills::default(),
            sequence: CachePadded::new(AtomicU64::new(first)),
            counter: CachePadded::new(AtomicU64::new(first)),
            next_partition: AtomicU64::new(from.next_partition),
            next_order: AtomicU64::new(0),
            era_settled: AtomicU64::new(0),
            settling: Mutex::new(()),
            failed: OnceLock::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether the engine may still hand out.
    pub(crate) fn check(&self) -> Result<(), Unavailable> {
        self.failed.get().map_or(Ok(()), |failed| Err(failed.clone()))
    }

    /// Stops handing out, for good. The first reason stays.
    pub(crate) fn fail(&self, reason: &dyn fmt::Display) -> Unavailable {
        let failed = self.failed.get_or_init(|| {
            tracing::error!(%reason, "the token store failed; nothing is handed out any more");
            Unavailable(reason.to_string())
        });
        self.for_each_partition(|partition| {
            partition.seal_off(|| u64::MAX);
            partition.available.notify(usize::MAX);
        });
        failed.clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.refills.wake();
    }

    pub(crate) fn for_each_partition(&self, mut act: impl FnMut(&Arc<Partition>)) {
        let sessions: Vec<_> = self.sessions.read().values().cloned().collect();
        sessions.iter().flat_map(|session| &session.partitions).for_each(&mut act);
    }

    pub(crate) fn chore(&self, chore: Chore) {
        self.chores.lock().push_back(chore);
    }

    /// Gives up everything minted before the clock last stepped back. Called before anything is claimed, so that a
    /// batch of an earlier era can never be labelled with the present one: whoever mints takes its sequence first and
    /// looks at the era afterwards, so what was minted in an earlier era has a sequence below the floor set here.
    pub(crate) fn settle_era(&self) -> u64 {
        let era = self.timeline.look().era;
        if self.era_settled.load(Ordering::Acquire) >= era {
            return era;
        }
        // Whoever comes while it is being settled waits: the floors must stand before anything is claimed.
        let _settling = self.settling.lock();
        if self.era_settled.load(Ordering::Acquire) < era {
            let below = self.sequence.load(Ordering::SeqCst);
            self.for_each_partition(|partition| {
                partition.give_up(below);
                self.chore(Chore::Discard { partition: partition.id, below });
            });
            self.era_settled.store(era, Ordering::Release);
        }
        era
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Partitions that asked for a refill.
#[derive(Default)]
pub(crate) struct Refills {
    due: Mutex<Due>,
    signal: Condvar,
}

#[derive(Default)]
struct Due {
    /// Callers wait for these, or will soon.
    now: VecDeque<Arc<Partition>>,
    /// These can wait: stocks to be filled up.
    later: VecDeque<Arc<Partition>>,
}

impl Refills {
    /// Asks for a refill. A partition asks once until it was served ([`Partition::ask_refill`]), so this is bounded
    /// by the number of partitions.
    pub(crate) fn ask(&self, partition: &Arc<Partition>) {
        self.due.lock().now.push_back(Arc::clone(partition));
        self.signal.notify_one();
    }

    /// Asks to be served once nobody waits. The refiller asks once for each partition.
    pub(crate) fn ask_later(&self, partition: &Arc<Partition>) {
        self.due.lock().later.push_back(Arc::clone(partition));
    }

    pub(crate) fn wake(&self) {
        let _due = self.due.lock();
        self.signal.notify_one();
    }

    /// The next to be served; waits until somebody asks, or the time is over.
    pub(crate) fn next(&self, at_most: std::time::Duration) -> Option<Arc<Partition>> {
        let mut due = self.due.lock();
        if due.now.is_empty() && due.later.is_empty() {
            self.signal.wait_for(&mut due, at_most);
        }
        due.now.pop_front().or_else(|| {
            let later = due.later.pop_front();
            drop(due);
            if let Some(partition) = &later {
                partition.refill.lock().queued = false;
            }
            later
        })
    }
}
