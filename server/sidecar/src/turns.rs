//! Turns: which of the requests that wait for one tool is served next.
//!
//! Tokens go to the processes that wait for them in turn, and within a process to the request that has waited longest; so
//! who has a thousand requests waiting gets no more than who has one. Where there are several users, or control groups, the
//! turns are theirs first, as everywhere ([`crate::owner`]).
//!
//! The order is that of start-time fair queueing: each process is due in some round; whoever is due first is served, and
//! is then due as many rounds later as there are others in its part of the line. Who comes new is due in the round that
//! is on. A request that does not wait may draw past the line only when its process is due.

use core::hash::Hash;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use obol_queue::DequeueError;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::owner::Owner;

/// What is waited for: a tool, and the resource server its tokens are for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Wanted {
    pub(crate) tool: Box<str>,
    pub(crate) audience: Box<str>,
}

/// Those that wait, for all that is waited for.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    lines: Mutex<HashMap<Wanted, Shared<W>>>,
    /// Requests that wait anywhere.
    waiting: AtomicUsize,
    /// The highest number that any request ever had. A line that is over and begun again goes on behind it: a place in the
    /// old one that is given up late must not be taken for one in the new.
    last: AtomicU64,
}

/// A line, and how it is with what it waits for.
#[derive(Debug)]
struct Shared<W> {
    line: Line<W>,
    /// Why the last attempt to draw gave nothing.
    empty: DequeueError,
    /// Told when nobody waits any more.
    left: Arc<Notify>,
}

/// A place in a line. Dropped, it is given up.
pub(crate) struct PlaceInLine<W> {
    turns: Arc<Turns<W>>,
    wanted: Wanted,
    owner: Owner,
    number: u64,
    /// The line has begun with this one, and somebody has to serve it.
    pub(crate) is_first: bool,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { lines: Mutex::default(), waiting: AtomicUsize::new(0), last: AtomicU64::new(0) }
    }
}

impl<W> Turns<W> {
    /// Whether any request waits. Cheap: most of the time none does.
    pub(crate) fn anyone_waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Joins the line.
    pub(crate) fn join(
        self: &Arc<Self>,
        wanted: Wanted,
        owner: Owner,
        waiter: W,
        empty: DequeueError,
    ) -> PlaceInLine<W> {
        let mut lines = self.lines.lock();
        let is_first = !lines.contains_key(&wanted);
        let shared = lines.entry(wanted.clone()).or_insert_with(|| Shared {
            line: Line { last: self.last.load(Ordering::Relaxed), ..Line::default() },
            empty,
            left: Arc::default(),
        });
        let number = shared.line.join(owner, waiter);
        self.last.fetch_max(number, Ordering::Relaxed);
        drop(lines);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        PlaceInLine { turns: Arc::clone(self), wanted, owner, number, is_first }
    }

    /// Whether a request of this process that does not wait may draw now; otherwise why not.
    pub(crate) fn may_draw(&self, wanted: &Wanted, owner: Owner) -> Result<(), DequeueError> {
        match self.lines.lock().get(wanted) {
            Some(shared) if !shared.line.is_due(owner) => Err(shared.empty.clone()),
            _ => Ok(()),
        }
    }

    /// Notes that a process was served.
    pub(crate) fn served(&self, wanted: &Wanted, owner: Owner) {
        if let Some(shared) = self.lines.lock().get_mut(wanted) {
            shared.line.served(owner);
        }
    }

    /// Takes the next request out of the line. Where there is none the line is over.
    pub(crate) fn next(&self, wanted: &Wanted) -> Option<Next<W>> {
        let mut lines = self.lines.lock();
        let next = lines.get_mut(wanted)?.line.next();
        if next.is_none() {
            lines.remove(wanted);
        }
        next
    }

    /// Puts a request back where it was: there was nothing for it. What is given back is told once nobody waits any more.
    pub(crate) fn put_back(
        &self,
        wanted: &Wanted,
        next: Next<W>,
        empty: DequeueError,
    ) -> Option<Arc<Notify>> {
        let mut lines = self.lines.lock();
        let shared = lines.get_mut(wanted)?;
        shared.line.put(next.owner, next.number, next.waiter);
        shared.empty = empty;
        Some(Arc::clone(&shared.left))
    }
}

impl<W> PlaceInLine<W> {
    /// Why there is still nothing.
    pub(crate) fn why_empty(&self) -> Option<DequeueError> {
        self.turns.lines.lock().get(&self.wanted).map(|shared| shared.empty.clone())
    }
}

impl<W> Drop for PlaceInLine<W> {
    fn drop(&mut self) {
        self.turns.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut lines = self.turns.lines.lock();
        let Some(shared) = lines.get_mut(&self.wanted) else { return };
        shared.line.leave(self.owner, self.number);
        if shared.line.is_empty() {
            shared.left.notify_one();
        }
    }
}

/// A request whose turn it is.
#[derive(Debug)]
pub(crate) struct Next<W> {
    pub(crate) owner: Owner,
    number: u64,
    pub(crate) waiter: W,
}

/// One line. See the module's header for its order.
#[derive(Debug)]
struct Line<W> {
    /// The round that is on.
    round: u64,
    last: u64,
    processes: HashMap<Owner, Process<W>>,
    /// Processes that wait, by the round in which they are due and then by when they began to wait.
    order: BTreeSet<(u64, u64, Owner)>,
    /// How many processes wait of each group, and how many groups of each user.
    groups: HashMap<(u32, u64), u64>,
    users: HashMap<u32, u64>,
}

#[derive(Debug)]
struct Process<W> {
    due: u64,
    /// The number of its first request, since it waits.
    since: u64,
    waiters: BTreeMap<u64, W>,
}

/// Processes that do not wait are remembered until they are due, and looked for when there are this many more than those
/// that do.
const FORGET_BEYOND: usize = 64;

impl<W> Default for Line<W> {
    fn default() -> Self {
        let (processes, order) = (HashMap::new(), BTreeSet::new());
        Self { round: 0, last: 0, processes, order, groups: HashMap::new(), users: HashMap::new() }
    }
}

impl<W> Line<W> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn join(&mut self, owner: Owner, waiter: W) -> u64 {
        self.last += 1;
        self.put(owner, self.last, waiter);
        self.last
    }

    fn put(&mut self, owner: Owner, number: u64, waiter: W) {
        let round = self.round;
        let process = self.process(owner);
        let waits = !process.waiters.is_empty();
        process.waiters.insert(number, waiter);
        if !waits {
            (process.due, process.since) = (process.due.max(round), number);
            let place = (process.due, process.since, owner);
            self.order.insert(place);
            if add(&mut self.groups, owner.group()) {
                add(&mut self.users, owner.uid());
            }
        }
    }

    fn process(&mut self, owner: Owner) -> &mut Process<W> {
        let new = || Process { due: 0, since: 0, waiters: BTreeMap::new() };
        self.processes.entry(owner).or_insert_with(new)
    }

    /// The request that has waited longest, of the process that is due first.
    fn next(&mut self) -> Option<Next<W>> {
        let (_, _, owner) = *self.order.first()?;
        let number = *self.processes.get(&owner)?.waiters.first_key_value()?.0;
        self.leave(owner, number).map(|waiter| Next { owner, number, waiter })
    }

    fn leave(&mut self, owner: Owner, number: u64) -> Option<W> {
        let process = self.processes.get_mut(&owner)?;
        let waiter = process.waiters.remove(&number)?;
        if process.waiters.is_empty() {
            self.order.remove(&(process.due, process.since, owner));
            if take(&mut self.groups, &owner.group()) {
                take(&mut self.users, &owner.uid());
            }
        }
        Some(waiter)
    }

    fn is_due(&self, owner: Owner) -> bool {
        self.processes.get(&owner).is_none_or(|process| process.due <= self.round)
    }

    fn served(&mut self, owner: Owner) {
        let count = |number: Option<&u64>| number.copied().unwrap_or(0).max(1);
        let rounds = count(self.groups.get(&owner.group())) * count(self.users.get(&owner.uid()));
        self.round = self.round.max(self.processes.get(&owner).map_or(0, |process| process.due));
        let round = self.round;
        let process = self.process(owner);
        let before = (process.due, process.since, owner);
        process.due = round + rounds;
        let after = (process.due, process.since, owner);
        if self.order.remove(&before) {
            self.order.insert(after);
        }
        self.forget();
    }

    /// Forgets those that are due anyway, as whoever comes new is.
    fn forget(&mut self) {
        if self.processes.len() > 2 * self.order.len() + FORGET_BEYOND {
            let round = self.round;
            self.processes.retain(|_, process| !process.waiters.is_empty() || process.due > round);
        }
    }
}

/// Counts one more; whether it is the first.
fn add<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: K) -> bool {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count == 1
}

/// Counts one less; whether it was the last.
fn take<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose requests are served, of this many tokens.
    fn served(line: &mut Line<()>, tokens: usize) -> Vec<Owner> {
        let mut owners = Vec::new();
        for _ in 0..tokens {
            let Some(next) = line.next() else { break };
            line.served(next.owner);
            owners.push(next.owner);
        }
        owners
    }

    fn count(owners: &[Owner], owner: Owner) -> usize {
        owners.iter().filter(|served| **served == owner).count()
    }

    fn joined(line: &mut Line<()>, owner: Owner, times: usize) {
        (0..times).for_each(|_| {
            line.join(owner, ());
        });
    }

    #[test]
    fn processes_are_served_in_turn_however_many_requests_each_has() {
        let (greedy, modest) = (Owner::new(1, 1, 10), Owner::new(1, 1, 11));
        let mut line = Line::default();
        joined(&mut line, greedy, 10_000);
        assert_eq!(count(&served(&mut line, 100), greedy), 100, "alone it gets all");
        joined(&mut line, modest, 1);
        assert!(served(&mut line, 2).contains(&modest), "who comes new is next, or the one after");
        joined(&mut line, modest, 50);
        assert_eq!(count(&served(&mut line, 100), modest), 50);
    }

    #[test]
    fn within_a_process_who_has_waited_longest_is_served_first_and_keeps_its_place() {
        let owner = Owner::new(1, 1, 10);
        let mut line = Line::default();
        let numbers: Vec<_> = (0..3).map(|_| line.join(owner, "waits")).collect();
        let next = line.next().unwrap();
        assert_eq!(next.number, numbers[0]);
        line.put(next.owner, next.number, next.waiter);
        assert!(line.leave(owner, numbers[1]).is_some() && line.leave(owner, numbers[1]).is_none());
        let order: Vec<_> = core::iter::from_fn(|| line.next().map(|next| next.number)).collect();
        assert_eq!(order, [numbers[0], numbers[2]]);
        assert!(line.is_empty() && line.groups.is_empty() && line.users.is_empty());
    }

    #[test]
    fn a_group_that_forks_gets_no_more_turns_and_neither_does_a_user_with_many_groups() {
        let mut line = Line::default();
        (0..50).for_each(|pid| joined(&mut line, Owner::new(1, 1, pid), 100));
        let alone = Owner::new(1, 2, 99);
        joined(&mut line, alone, 1_000);
        let turns = count(&served(&mut line, 1_000), alone);
        assert!((450..=550).contains(&turns), "{turns}");

        let mut line = Line::default();
        (0..10).for_each(|group| joined(&mut line, Owner::new(1, group, 10), 1_000));
        let other = Owner::new(2, 1, 99);
        joined(&mut line, other, 1_000);
        let turns = count(&served(&mut line, 1_000), other);
        assert!((450..=550).contains(&turns), "{turns}");
    }

    #[test]
    fn who_does_not_wait_draws_past_the_line_no_more_often_than_its_turn_comes() {
        let (waits, polls) = (Owner::new(1, 1, 10), Owner::new(1, 1, 11));
        let mut line = Line::default();
        joined(&mut line, waits, 1_000);
        let mut drawn = 0;
        for _ in 0..100 {
            for _ in 0..50 {
                if line.is_due(polls) {
                    line.served(polls);
                    drawn += 1;
                }
            }
            served(&mut line, 1);
        }
        assert!((98..=101).contains(&drawn), "{drawn}");
    }

    #[test]
    fn processes_that_came_once_are_forgotten() {
        let mut line = Line::default();
        joined(&mut line, Owner::new(1, 1, 10), 100_000);
        for pid in 0..10_000 {
            line.served(Owner::new(1, 1, 100 + pid));
            served(&mut line, 1);
        }
        assert!(line.processes.len() <= 2 + FORGET_BEYOND + 2, "{}", line.processes.len());
    }

    #[test]
    fn a_place_given_up_late_takes_nobody_out_of_the_line_that_came_after() {
        let (owner, turns) = (Owner::new(1, 1, 10), Arc::new(Turns::default()));
        let wanted = Wanted { tool: "search".into(), audience: "a".into() };
        let join = |waiter| turns.join(wanted.clone(), owner, waiter, DequeueError::NoSession);
        let first = join("first");
        assert_eq!(turns.next(&wanted).unwrap().waiter, "first");
        assert!(turns.next(&wanted).is_none(), "the line is over");
        let _second = join("second");
        drop(first);
        assert_eq!(turns.next(&wanted).unwrap().waiter, "second");
    }
}
