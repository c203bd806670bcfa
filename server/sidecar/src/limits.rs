//! What one peer may take of the daemon, so that the others keep theirs.
//!
//! Three rates hold for each request: the connection's own; the user's, over all of the user's connections; and
//! between the two each connection's fair share of the user's rate, which it gets whatever the others ask for: an equal part
//! of its process's, of its control group's ([`crate::owner`]). What goes beyond is refused with `OVERLOADED` and a time.
//! Refusals cost work as well, so they have a rate too: a peer that does not listen to them is read more slowly, and the
//! system's socket buffer holds it back.
//!
//! Connections, and requests that wait, are bounded in number. Where all places are taken who holds most gives way first
//! ([`crate::seats`], [`crate::waits`]).

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use obol_ipc::refusal::Refusal;
use obol_probe::rate::{Bucket, Rate, Start};
use parking_lot::Mutex;

use crate::counters::Counters;
use crate::owner::Owner;
use crate::seats::{Placement, Seat, Seats};
use crate::waits::{Wait, Waits};

/// Refusals a second for one connection; beyond, it is not read for a while.
const REFUSALS_PER_SECOND: u32 = 1_000;
/// The most requests that may wait for a token at a time, over all connections.
const MAX_WAITING_IN_ALL: usize = 16_384;
/// Descriptors kept back from connections: the store, the listeners, the operator, the log, connections that are leaving.
const RESERVED_DESCRIPTORS: u64 = 96;
/// Connections that are served however few descriptors there are.
const LEAST_CONNECTIONS: usize = 8;

/// Bounds for peers. They can be changed while the daemon runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerLimits {
    /// The most connections on the agent's socket at once. Fewer where the process may not open as many files.
    pub connections: usize,
    /// Requests a second of one connection, of which one second's worth may come at once; 0 for no limit.
    pub connection_rate: u32,
    /// Requests a second of all connections of one user together; 0 for no limit.
    pub user_rate: u32,
    /// When all connections are taken and nobody holds more than others, one that was silent for this long is closed to
    /// make room.
    pub idle: Duration,
}

impl Default for PeerLimits {
    /// Far more than an agent that calls tools needs, and less than what occupies a whole core.
    fn default() -> Self {
        Self {
            connections: 16_384,
            connection_rate: 50_000,
            user_rate: 200_000,
            idle: Duration::from_secs(60),
        }
    }
}

impl PeerLimits {
    /// No rates; for sockets whose peers are trusted to behave.
    pub(crate) fn unmetered(connections: usize) -> Self {
        Self { connections, connection_rate: 0, user_rate: 0, ..Self::default() }
    }

    /// The connections there can really be, given how many files the process may open.
    fn possible_connections(&self) -> usize {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let Some(descriptors) = descriptors else { return self.connections };
        let free = descriptors.saturating_sub(RESERVED_DESCRIPTORS);
        self.connections.min(usize::try_from(free).unwrap_or(usize::MAX)).max(LEAST_CONNECTIONS)
    }
}

/// All connections of one socket.
#[derive(Debug)]
pub(crate) struct Peers {
    started: Start,
    limits: Mutex<PeerLimits>,
    /// Raised with every change, so that connections need not lock to see that there was none.
    version: AtomicU64,
    seats: Mutex<Seats>,
    waits: Arc<Waits>,
    pub(crate) counters: Arc<Counters>,
}

impl Peers {
    pub(crate) fn new(limits: PeerLimits) -> Arc<Self> {
        Arc::new(Self {
            started: Start::now(),
            limits: Mutex::new(limits),
            version: AtomicU64::new(0),
            seats: Mutex::new(Seats::default()),
            waits: Waits::new(MAX_WAITING_IN_ALL),
            counters: Arc::default(),
        })
    }

    /// Puts other limits in force, for connections that are open as well.
    pub(crate) fn set_limits(&self, limits: PeerLimits) {
        *self.limits.lock() = limits;
        self.seats.lock().look_again();
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn limits(&self) -> PeerLimits {
        *self.limits.lock()
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.seats.lock().len()
    }

    /// A place for a new connection. Where all are taken somebody who holds more, or was silent long enough, is asked to
    /// leave; if there is nobody, the error is how many there are.
    pub(crate) fn admit(self: &Arc<Self>, owner: Owner) -> Result<Account, usize> {
        let limits = self.limits();
        let most = limits.possible_connections();
        let taken = self.seats.lock().take(owner, most, self.milliseconds(), limits.idle);
        let (place, leaves) = taken.ok_or(most)?;
        if let Some(seat) = leaves {
            // What it waits for would keep it here.
            self.waits.end_all_of(seat.owner, seat.number);
        }
        Ok(Account {
            version: self.version.load(Ordering::Acquire),
            peers: Arc::clone(self),
            limits,
            place,
            own: Bucket::default(),
            share: Bucket::default(),
            refused: Bucket::default(),
        })
    }

    fn nanoseconds(&self) -> u64 {
        self.started.nanoseconds()
    }

    fn milliseconds(&self) -> u64 {
        self.nanoseconds() / 1_000_000
    }
}

/// What one connection has used.
#[derive(Debug)]
pub(crate) struct Account {
    peers: Arc<Peers>,
    limits: PeerLimits,
    version: u64,
    place: Placement,
    own: Bucket,
    share: Bucket,
    refused: Bucket,
}

/// The time, read once for several requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick(u64);

impl Account {
    /// Notes that the peer does something, and sees whether the limits have changed.
    pub(crate) fn awake(&mut self) -> Tick {
        let version = self.peers.version.load(Ordering::Acquire);
        if version != self.version {
            (self.version, self.limits) = (version, self.peers.limits());
        }
        let now = self.peers.nanoseconds();
        self.place.seat.active.store(now / 1_000_000, Ordering::Relaxed);
        Tick(now)
    }

    /// Whether a request may be answered; otherwise, when the peer should ask again.
    pub(crate) fn admit(&mut self, Tick(now): Tick) -> Result<(), Duration> {
        if let Some(rate) = Rate::new(self.limits.connection_rate) {
            self.own.take(now, rate)?;
        }
        let Some(rate) = Rate::new(self.limits.user_rate) else { return Ok(()) };
        let share = rate.shared_by(self.place.sharers());
        let mut used = self.place.user.used.lock();
        // One's own share is never taken up by others; what is beyond must be left over.
        match self.share.take(now, share) {
            Ok(()) => used.charge(now, rate),
            Err(_) => used.take(now, rate)?,
        }
        Ok(())
    }

    /// Notes a refusal for going too fast; how long not to read the peer, if it has had too many.
    pub(crate) fn refuse(&mut self, Tick(now): Tick) -> Option<Duration> {
        let rate = Rate::new(REFUSALS_PER_SECOND)?;
        self.refused.take(now, rate).err()
    }

    /// Notes how a request ended.
    pub(crate) fn ended<T>(&self, outcome: &Result<T, Refusal>) {
        self.peers.counters.ended(outcome);
    }

    /// Notes that this many answers were written since then.
    pub(crate) fn answered(&self, since: Tick, times: u64) {
        self.peers.counters.answers.record(self.since(since), times);
    }

    /// What counts the request that has begun to wait.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.peers.counters)
    }

    fn since(&self, Tick(then): Tick) -> Duration {
        Duration::from_nanos(self.peers.nanoseconds().saturating_sub(then))
    }

    /// Whose connection it is.
    pub(crate) fn owner(&self) -> Owner {
        self.place.seat.owner
    }

    /// A place among the requests that wait, if there is one.
    pub(crate) fn wait(&self) -> Option<Wait> {
        self.peers.waits.take(self.owner(), self.place.seat.number)
    }

    /// Resolves when this connection is to make room for another.
    pub(crate) fn asked_to_leave(&self) -> impl Future<Output = ()> + use<> {
        let seat = Arc::clone(&self.place.seat);
        async move { seat.leave.notified().await }
    }

    /// Its seat among the others.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.place.seat)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.peers.seats.lock().leave(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Owner = Owner::new(1, 1, 10);
    const OTHER_USER: Owner = Owner::new(2, 1, 20);
    const OTHER_PROCESS: Owner = Owner::new(1, 1, 11);

    fn limits(connections: usize, connection_rate: u32, user_rate: u32, idle: Duration) -> PeerLimits {
        PeerLimits { connections, connection_rate, user_rate, idle }
    }

    fn admitted(account: &mut Account, now: u64, tries: u32) -> usize {
        (0..tries).filter(|_| account.admit(Tick(now)).is_ok()).count()
    }

    #[test]
    fn a_connection_gets_its_share_however_much_another_takes() {
        let peers = Peers::new(limits(16, 0, 1000, Duration::ZERO));
        let (mut greedy, mut modest) = (peers.admit(ONE).unwrap(), peers.admit(ONE).unwrap());
        let now = peers.nanoseconds();
        assert!(admitted(&mut greedy, now, 5000) >= 1000, "what nobody else uses is lent");
        assert_eq!(admitted(&mut modest, now, 500), 500, "half of the rate is its own");
        assert!(modest.admit(Tick(now)).is_err());
    }

    #[test]
    fn users_do_not_share_and_a_connection_has_a_bound_of_its_own() {
        let peers = Peers::new(limits(16, 10, 100, Duration::ZERO));
        let (mut one, mut other) = (peers.admit(ONE).unwrap(), peers.admit(OTHER_USER).unwrap());
        let now = peers.nanoseconds();
        assert_eq!(admitted(&mut one, now, 100), 10);
        assert_eq!(admitted(&mut other, now, 100), 10);
    }

    #[test]
    fn other_limits_hold_at_once_for_connections_that_are_open() {
        let peers = Peers::new(limits(16, 10, 0, Duration::ZERO));
        let mut account = peers.admit(ONE).unwrap();
        let now = account.awake();
        assert_eq!(admitted(&mut account, now.0, 100), 10);
        peers.set_limits(limits(16, 0, 0, Duration::ZERO));
        let now = account.awake();
        assert_eq!(admitted(&mut account, now.0, 100), 100);
    }

    #[test]
    fn only_a_silent_connection_makes_room() {
        let peers = Peers::new(limits(LEAST_CONNECTIONS, 0, 0, Duration::from_secs(3600)));
        let mut accounts: Vec<_> = (0..LEAST_CONNECTIONS).map(|_| peers.admit(ONE).unwrap()).collect();
        assert_eq!(peers.admit(ONE).err(), Some(LEAST_CONNECTIONS), "nobody is silent for an hour");
        peers.set_limits(limits(LEAST_CONNECTIONS, 0, 0, Duration::ZERO));
        let extra = peers.admit(ONE).unwrap();
        assert_eq!(peers.seats.lock().leaving(), [ONE]);
        drop(extra);
        accounts.retain(|account| !account.place.seat.is_leaving());
        accounts.push(peers.admit(ONE).unwrap());
        assert_eq!(peers.connections(), LEAST_CONNECTIONS);
        drop(accounts);
        assert!(peers.seats.lock().is_empty());
    }

    #[test]
    fn who_holds_most_connections_gives_way_though_it_keeps_them_busy_and_only_until_shares_are_equal() {
        let peers = Peers::new(limits(20, 0, 0, Duration::from_secs(3600)));
        let mut hoard: Vec<_> = (0..20).map(|_| peers.admit(ONE).unwrap()).collect();
        let mut others = Vec::new();
        for _ in 0..10 {
            hoard.iter_mut().for_each(|account| {
                account.awake();
            });
            assert!(peers.admit(ONE).is_err(), "it gets no more itself");
            others.push(peers.admit(OTHER_PROCESS).unwrap());
            assert_eq!(peers.seats.lock().leaving(), [ONE]);
            hoard.retain(|account| !account.place.seat.is_leaving());
            assert_eq!(peers.connections(), 20);
        }
        assert!(peers.admit(OTHER_PROCESS).is_err(), "half is its share");
        assert!(peers.admit(Owner::new(1, 1, 12)).is_ok(), "and a third has one of its own");
    }

    #[test]
    fn connections_that_were_asked_to_leave_and_do_not_are_bounded_in_number() {
        let peers = Peers::new(limits(200, 0, 0, Duration::ZERO));
        let _hoard: Vec<_> = (0..200).map(|_| peers.admit(ONE).unwrap()).collect();
        let others: Vec<_> = (0..100).map_while(|_| peers.admit(OTHER_PROCESS).ok()).collect();
        assert!((1..100).contains(&others.len()), "{}", others.len());
        assert_eq!(peers.connections(), 200 + others.len());
    }

    #[test]
    fn a_connection_that_makes_room_waits_for_nothing_any_more() {
        let peers = Peers::new(limits(LEAST_CONNECTIONS, 0, 0, Duration::from_secs(3600)));
        let hoard: Vec<_> = (0..LEAST_CONNECTIONS).map(|_| peers.admit(ONE).unwrap()).collect();
        let waits: Vec<_> = hoard.iter().map(|account| account.wait().unwrap()).collect();
        let _other = peers.admit(OTHER_PROCESS).unwrap();
        let leaving = hoard.iter().position(|account| account.place.seat.is_leaving()).unwrap();
        let asked: Vec<_> = waits.iter().map(Wait::is_asked).collect();
        assert_eq!(asked.iter().position(|asked| *asked), Some(leaving));
        assert_eq!(asked.iter().filter(|asked| **asked).count(), 1);
    }

    #[test]
    fn a_process_gets_its_share_of_the_rate_however_many_connections_another_has() {
        let peers = Peers::new(limits(200, 0, 1000, Duration::ZERO));
        let mut greedy: Vec<_> = (0..99).map(|_| peers.admit(ONE).unwrap()).collect();
        let mut modest = peers.admit(OTHER_PROCESS).unwrap();
        let now = peers.nanoseconds();
        greedy.iter_mut().for_each(|account| {
            admitted(account, now, 1000);
        });
        assert_eq!(
            admitted(&mut modest, now, 500),
            500,
            "half of the rate is its own, though it has one of a hundred"
        );
    }

    #[test]
    fn refusals_have_a_rate_beyond_which_a_peer_is_not_read() {
        let peers = Peers::new(limits(8, 1, 0, Duration::ZERO));
        let mut account = peers.admit(ONE).unwrap();
        let now = account.awake();
        let free = (0..REFUSALS_PER_SECOND + 1).filter(|_| account.refuse(now).is_none()).count();
        assert_eq!(free, usize::try_from(REFUSALS_PER_SECOND).unwrap());
        assert!(account.refuse(now).is_some());
    }
}
