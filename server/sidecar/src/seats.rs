//! The connections of one socket, whose they are, and which of them makes room for another.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use obol_probe::rate::Bucket;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::owner::{Owner, gives_way};

/// Connections that were asked to leave and have not left yet, at a time. Descriptors are kept back for them.
const MAX_LEAVING: usize = 32;
/// How long a connection that was asked to leave may take over it.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long an owner that was refused is refused again without another look at everybody's holdings, in milliseconds.
const REFUSED_FOR_MS: u64 = 10;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    last: u64,
    taken: HashMap<u64, Arc<Seat>>,
    users: HashMap<u32, Arc<User>>,
    groups: HashMap<(u32, u64), Arc<Group>>,
    processes: HashMap<Owner, Arc<Process>>,
}

/// One connection, as the others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) number: u64,
    pub(crate) owner: Owner,
    /// Milliseconds since the start.
    pub(crate) active: AtomicU64,
    pub(crate) leave: Notify,
    leaving: AtomicBool,
    /// The task that serves it.
    served_by: OnceLock<AbortHandle>,
}

impl Seat {
    /// Names the task that serves it, which is cut off if it does not leave when it is asked to.
    pub(crate) fn is_served_by(&self, task: AbortHandle) {
        let _named_once = self.served_by.set(task);
    }

    /// Asks it to leave, and sees to it that it does: a peer that reads nothing would keep it. Whoever serves it need not
    /// look at the time; that would cost each request a part of its own price.
    fn ask_to_leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.leave.notify_one();
        let Some(task) = self.served_by.get().cloned() else { return };
        tokio::spawn(async move {
            sleep(LEAVE_PATIENCE).await;
            if !task.is_finished() {
                task.abort();
                tracing::debug!("a connection that was to make room was cut off");
            }
        });
    }
}

/// What connections of one user share.
#[derive(Debug, Default)]
pub(crate) struct User {
    groups: AtomicUsize,
    pub(crate) used: Mutex<Bucket>,
}

/// What processes of one control group share.
#[derive(Debug, Default)]
pub(crate) struct Group {
    processes: AtomicUsize,
}

/// What connections of one process share.
#[derive(Debug, Default)]
pub(crate) struct Process {
    connections: AtomicUsize,
    refused_until: AtomicU64,
}

/// A connection's place, and those it shares with.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) seat: Arc<Seat>,
    pub(crate) user: Arc<User>,
    group: Arc<Group>,
    process: Arc<Process>,
}

impl Placement {
    /// Among how many its user's part is to be divided, so that this connection has its own.
    pub(crate) fn sharers(&self) -> usize {
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed).max(1);
        count(&self.user.groups) * count(&self.group.processes) * count(&self.process.connections)
    }
}

impl Seats {
    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    /// A place for a connection of this owner. Where all `most` are taken somebody is asked to leave, whose seat is
    /// given back as well; `None` where nobody has to.
    pub(crate) fn take(
        &mut self,
        owner: Owner,
        most: usize,
        now: u64,
        idle: Duration,
    ) -> Option<(Placement, Option<Arc<Seat>>)> {
        let leaves = if self.taken.len() < most { None } else { self.make_room(owner, most, now, idle)? };
        self.last += 1;
        let seat = Arc::new(Seat {
            number: self.last,
            owner,
            active: AtomicU64::new(now),
            leave: Notify::new(),
            leaving: AtomicBool::new(false),
            served_by: OnceLock::new(),
        });
        self.taken.insert(seat.number, Arc::clone(&seat));
        Some((self.place(seat), leaves))
    }

    fn place(&mut self, seat: Arc<Seat>) -> Placement {
        let owner = seat.owner;
        let user = Arc::clone(self.users.entry(owner.uid()).or_default());
        let group = Arc::clone(self.groups.entry(owner.group()).or_insert_with(|| {
            user.groups.fetch_add(1, Ordering::Relaxed);
            Arc::default()
        }));
        let process = Arc::clone(self.processes.entry(owner).or_insert_with(|| {
            group.processes.fetch_add(1, Ordering::Relaxed);
            Arc::default()
        }));
        process.connections.fetch_add(1, Ordering::Relaxed);
        Placement { seat, user, group, process }
    }

    /// Looks at everybody's holdings again, also for those that were refused a moment ago.
    pub(crate) fn look_again(&self) {
        self.processes.values().for_each(|process| process.refused_until.store(0, Ordering::Relaxed));
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, place: &Placement) {
        let owner = place.seat.owner;
        self.taken.remove(&place.seat.number);
        let last_of = |number: &AtomicUsize| number.fetch_sub(1, Ordering::Relaxed) == 1;
        if last_of(&place.process.connections) {
            self.processes.remove(&owner);
            if last_of(&place.group.processes) {
                self.groups.remove(&owner.group());
                if last_of(&place.user.groups) {
                    self.users.remove(&owner.uid());
                }
            }
        }
    }

    /// Asks a connection to leave. There may be some above the limit until they have.
    fn make_room(&self, newcomer: Owner, most: usize, now: u64, idle: Duration) -> Option<Option<Arc<Seat>>> {
        let leaving = self.taken.values().filter(|seat| seat.is_leaving()).count();
        if self.taken.len() - leaving < most {
            return Some(None);
        }
        let own = self.processes.get(&newcomer);
        if leaving >= MAX_LEAVING || own.is_some_and(|own| now < own.refused_until.load(Ordering::Relaxed)) {
            return None;
        }
        let Some(seat) = self.of_who_holds_most(newcomer).or_else(|| self.silent(newcomer, now, idle)) else {
            if let Some(own) = own {
                own.refused_until.store(now + REFUSED_FOR_MS, Ordering::Relaxed);
            }
            return None;
        };
        seat.ask_to_leave();
        Some(Some(Arc::clone(seat)))
    }

    /// The connection that did nothing for longest, of the process that holds most.
    fn of_who_holds_most(&self, newcomer: Owner) -> Option<&Arc<Seat>> {
        let held = self.processes.iter().map(|(owner, process)| (*owner, process.connections()));
        let owner = gives_way(held, newcomer)?;
        self.longest_silent(|seat| seat.owner == owner)
    }

    /// The connection that did nothing for longest, if that is long enough, of those who hold no less than the newcomer.
    fn silent(&self, newcomer: Owner, now: u64, idle: Duration) -> Option<&Arc<Seat>> {
        let holds = |owner: &Owner| self.processes.get(owner).map_or(0, |process| process.connections());
        let own = holds(&newcomer);
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.longest_silent(|seat| {
            now.saturating_sub(seat.active.load(Ordering::Relaxed)) >= idle && holds(&seat.owner) >= own
        })
    }

    fn longest_silent(&self, choose: impl Fn(&Seat) -> bool) -> Option<&Arc<Seat>> {
        let staying = self.taken.values().filter(|seat| !seat.is_leaving() && choose(seat));
        staying.min_by_key(|seat| (seat.active.load(Ordering::Relaxed), seat.number))
    }

    #[cfg(test)]
    pub(crate) fn leaving(&self) -> Vec<Owner> {
        self.taken.values().filter(|seat| seat.is_leaving()).map(|seat| seat.owner).collect()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.users.is_empty() && self.groups.is_empty() && self.processes.is_empty()
    }
}

impl Process {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Seat {
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}
