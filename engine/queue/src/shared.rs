//! What the callers and the three threads of a queue share.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;

use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::clock::Timeline;
use crate::demand::DemandLimits;
use crate::error::Unavailable;
use crate::jobs::{Chore, Job};
use crate::keys::Keys;
use crate::partition::Partition;
use crate::refills::Refills;
use crate::session::Sessions;
use crate::source::TokenSource;
use crate::store::Policy;

/// Bits of a sequence number that count inside one boot; the boot's number stands above them.
pub(crate) const BOOT_SHIFT: u32 = 40;

/// Limits and settings of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: DemandLimits,
    /// Tokens with less life left than this are not handed out, in seconds; a quarter of the ttl at most.
    pub(crate) min_life: u64,
    pub(crate) max_sessions: usize,
}

/// See the module's header.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) source: Box<dyn TokenSource>,
    /// Read by every hand-out, so apart from what others write.
    pub(crate) timeline: CachePadded<Timeline>,
    pub(crate) keys: Keys,
    pub(crate) sessions: Sessions,
    /// Changed all the time, and so apart from what a hand-out reads.
    pub(crate) work: CachePadded<Work>,
    pub(crate) next: Next,
    pub(crate) policy: PolicyInForce,
    /// The embedder's note.
    pub(crate) note: Mutex<Vec<u8>>,
    eras: Eras,
    ending: Ending,
}

/// What waits for the threads.
pub(crate) struct Work {
    pub(crate) jobs: Sender<Job>,
    pub(crate) chores: Mutex<VecDeque<Chore>>,
    pub(crate) refills: Refills,
}

/// Numbers that are given out once.
pub(crate) struct Next {
    /// Of batches.
    pub(crate) sequence: CachePadded<AtomicU64>,
    /// Of tokens.
    pub(crate) token: CachePadded<AtomicU64>,
    pub(crate) partition: AtomicU64,
    /// Of provisionings.
    pub(crate) order: AtomicU64,
}

/// What may be handed out at all.
pub(crate) struct PolicyInForce {
    pub(crate) kept: Mutex<Policy>,
    /// Tokens minted under an older epoch are given up.
    pub(crate) min_epoch: AtomicU64,
}

/// The eras of the clock.
#[derive(Default)]
struct Eras {
    /// The last one whose predecessors have been given up.
    settled: AtomicU64,
    settling: Mutex<()>,
}

/// Whether the engine goes on.
#[derive(Default)]
struct Ending {
    /// Why it hands out nothing any more.
    failed: OnceLock<Unavailable>,
    /// Its threads are to come to an end.
    stopping: AtomicBool,
}

/// Everything a [`Shared`] starts from.
pub(crate) struct SharedParts {
    pub(crate) settings: Settings,
    pub(crate) source: Box<dyn TokenSource>,
    pub(crate) timeline: Timeline,
    pub(crate) keys: Keys,
    pub(crate) policy: Policy,
    pub(crate) note: Vec<u8>,
    pub(crate) boot: u64,
    pub(crate) next_partition: u64,
    pub(crate) jobs: Sender<Job>,
}

impl Shared {
    pub(crate) fn new(from: SharedParts) -> Self {
        let first = from.boot << BOOT_SHIFT;
        Self {
            settings: from.settings,
            source: from.source,
            timeline: CachePadded::new(from.timeline),
            keys: from.keys,
            sessions: Sessions::default(),
            work: CachePadded::new(Work {
                jobs: from.jobs,
                chores: Mutex::default(),
                refills: Refills::default(),
            }),
            next: Next {
                sequence: CachePadded::new(AtomicU64::new(first)),
                token: CachePadded::new(AtomicU64::new(first)),
                partition: AtomicU64::new(from.next_partition),
                order: AtomicU64::new(0),
            },
            policy: PolicyInForce {
                min_epoch: AtomicU64::new(from.policy.epoch),
                kept: Mutex::new(from.policy),
            },
            note: Mutex::new(from.note),
            eras: Eras::default(),
            ending: Ending::default(),
        }
    }

    /// Whether the engine may still hand out.
    pub(crate) fn check(&self) -> Result<(), Unavailable> {
        self.ending.failed.get().map_or(Ok(()), |failed| Err(failed.clone()))
    }

    /// Stops handing out, for good. The first reason stays.
    pub(crate) fn fail(&self, reason: &dyn fmt::Display) -> Unavailable {
        let failed = self.ending.failed.get_or_init(|| {
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
        self.ending.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.ending.stopping.store(true, Ordering::SeqCst);
        self.work.refills.wake();
    }

    pub(crate) fn for_each_partition(&self, act: impl FnMut(&Arc<Partition>)) {
        self.sessions.for_each_partition(act);
    }

    pub(crate) fn chore(&self, chore: Chore) {
        self.work.chores.lock().push_back(chore);
    }

    /// Gives up everything minted before the clock last stepped back. Called before anything is claimed, so that a
    /// batch of an earlier era can never be labelled with the present one: whoever mints takes its sequence first and
    /// looks at the era afterwards, so what was minted in an earlier era has a sequence below the floor set here.
    pub(crate) fn settle_era(&self) -> u64 {
        let era = self.timeline.look().era;
        if self.eras.settled.load(Ordering::Acquire) >= era {
            return era;
        }
        // Whoever comes while it is being settled waits: the floors must stand before anything is claimed.
        let _settling = self.eras.settling.lock();
        if self.eras.settled.load(Ordering::Acquire) < era {
            let below = self.next.sequence.load(Ordering::SeqCst);
            self.for_each_partition(|partition| {
                partition.give_up(below);
                self.chore(Chore::Discard { partition: partition.id, below });
            });
            self.eras.settled.store(era, Ordering::Release);
        }
        era
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}
