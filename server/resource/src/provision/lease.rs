//! How long a resource server goes on without hearing from its Authentication Service: as long as its lease, and then it
//! accepts nothing. A line that is silent, or cut by somebody who withholds an end of a session, is no way around that end.

use core::fmt;
use std::sync::Arc;

use obol_session::SessionId;
use obol_session::clock::{Clock, Reading};
use obol_uplink::MAX_SKEW_SECS;
use obol_verify::{Session, SessionStore, SessionTable, SessionTableUnavailable};
use parking_lot::RwLock;

/// How long nothing needs to be heard.
pub struct Lease {
    secs: u64,
    clock: Arc<dyn Clock>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    heard: Option<Reading>,
    follows: bool,
    problem: Option<String>,
}

/// How a resource server stands with its service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseState {
    /// Whether the service is heard now.
    pub follows: bool,
    /// When nothing is accepted any more unless something is heard, in Unix seconds; `None` where nothing was heard yet.
    pub lease_ends: Option<u64>,
    /// What is wrong, if anything is.
    pub problem: Option<String>,
}

impl Lease {
    /// Of so many seconds. Nothing is accepted until something was heard.
    pub fn new(secs: u64, clock: Arc<dyn Clock>) -> Self {
        Self { secs, clock, state: RwLock::default() }
    }

    /// Its length, in seconds.
    pub fn secs(&self) -> u64 {
        self.secs
    }

    fn now(&self) -> Reading {
        Reading::of(&*self.clock)
    }

    /// The service says that all it had to say was said, and that it is `service_now` there.
    pub(super) fn hear(&self, service_now: u64) {
        let now = self.now();
        let apart = now.wall.abs_diff(service_now);
        let mut state = self.state.write();
        if apart > MAX_SKEW_SECS {
            // It was said long ago and held back, or one of the clocks is wrong: neither shows that all is well.
            state.problem = Some(format!(
                "what the service says is {apart} s {}: set this machine's clock right, and the service's; otherwise \
                 somebody on the way holds it back",
                if now.wall > service_now { "old" } else { "ahead" }
            ));
            return;
        }
        (state.heard, state.follows, state.problem) = (Some(now), true, None);
    }

    /// The service is not heard any more.
    pub(super) fn lose(&self, problem: String) {
        let mut state = self.state.write();
        (state.follows, state.problem) = (false, Some(problem));
    }

    /// Whether tokens may be accepted.
    ///
    /// # Errors
    ///
    /// Says since when not, and why.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state.read();
        let because = |state: &State| match &state.problem {
            Some(problem) => format!(": {problem}"),
            None => String::new(),
        };
        let Some(heard) = state.heard else {
            return Err(format!(
                "the Authentication Service was not heard since the start{}",
                because(&state)
            ));
        };
        let passed = self.now().since(heard);
        if passed < self.secs {
            return Ok(());
        }
        Err(format!(
            "the Authentication Service was not heard for {passed} s, and the lease is {} s{}",
            self.secs,
            because(&state)
        ))
    }

    /// How things are.
    pub fn standing(&self) -> LeaseState {
        let state = self.state.read();
        LeaseState {
            follows: state.follows,
            lease_ends: state.heard.map(|heard| heard.wall.saturating_add(self.secs)),
            problem: state.problem.clone(),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("secs", &self.secs)
            .field("state", &*self.state.read())
            .finish_non_exhaustive()
    }
}

/// A table of sessions that answers only while the lease lasts.
#[derive(Debug)]
pub struct LeasedTable {
    sessions: Arc<dyn SessionStore>,
    lease: Arc<Lease>,
}

impl LeasedTable {
    /// The table, under the lease.
    pub fn new(sessions: Arc<dyn SessionStore>, lease: Arc<Lease>) -> Self {
        Self { sessions, lease }
    }
}

impl SessionTable for LeasedTable {
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable> {
        self.lease.check().map_err(SessionTableUnavailable)?;
        self.sessions.look_up(id)
    }

    fn health(&self) -> Result<(), SessionTableUnavailable> {
        self.sessions.health()?;
        self.lease.check().map_err(SessionTableUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct ByHand {
        wall: AtomicU64,
        monotonic: AtomicU64,
    }

    impl ByHand {
        fn set(&self, wall: u64, monotonic: u64) {
            self.wall.store(wall, Ordering::SeqCst);
            self.monotonic.store(monotonic, Ordering::SeqCst);
        }
    }

    impl Clock for ByHand {
        fn now(&self) -> u64 {
            self.wall.load(Ordering::SeqCst)
        }

        fn monotonic(&self) -> u64 {
            self.monotonic.load(Ordering::SeqCst)
        }
    }

    fn lease() -> (Arc<ByHand>, Lease) {
        let clock = Arc::new(ByHand::default());
        clock.set(1_000, 50);
        (Arc::clone(&clock), Lease::new(300, clock))
    }

    #[test]
    fn nothing_is_accepted_before_anything_was_heard_and_after_the_lease() {
        let (clock, lease) = lease();
        assert!(lease.check().unwrap_err().contains("since the start"));
        lease.hear(1_000);
        assert_eq!(lease.check(), Ok(()));
        clock.set(1_299, 349);
        assert_eq!(lease.check(), Ok(()));
        lease.lose("connection refused".to_owned());
        assert_eq!(lease.check(), Ok(()), "a line that is cut costs nothing yet");
        for (wall, monotonic) in [(1_300, 50), (1_000, 350), (900, 350)] {
            clock.set(wall, monotonic);
            let why = lease.check().unwrap_err();
            assert!(why.contains("not heard for 300 s") && why.contains("connection refused"), "{why}");
        }
        lease.hear(900);
        assert_eq!(lease.check(), Ok(()), "it comes back by itself");
    }

    #[test]
    fn what_was_held_back_on_the_way_does_not_prolong_it() {
        let (clock, lease) = lease();
        lease.hear(1_000);
        clock.set(1_200, 250);
        for old in [1_000, 1_169, 1_231] {
            lease.hear(old);
        }
        assert!(lease.standing().problem.unwrap().contains("31 s ahead"));
        clock.set(1_300, 350);
        assert!(lease.check().is_err(), "recorded heartbeats keep nothing alive");
        lease.hear(1_270);
        assert_eq!(lease.check(), Ok(()));
    }
}
