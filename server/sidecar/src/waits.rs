//! Requests that wait for a token: how many there may be, and which gives way to another.
//!
//! Where all places are taken, the newest request of whoever has most of them waiting is refused, for one of somebody
//! who has fewer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::owner::{Owner, gives_way};

/// All of one socket's.
#[derive(Debug)]
pub(crate) struct Waits {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    all: usize,
    /// Whose they are, in the order in which they began.
    held: HashMap<Owner, BTreeMap<u64, Held>>,
}

#[derive(Debug)]
struct Held {
    /// The connection's number.
    seat: u64,
    give_way: Arc<Notify>,
}

impl Waits {
    /// At most this many at a time.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// A place, if there is one.
    pub(crate) fn take(self: &Arc<Self>, owner: Owner, seat: u64) -> Option<Wait> {
        let mut state = self.state.lock();
        if state.all >= self.most {
            let held = state.held.iter().map(|(owner, held)| (*owner, held.len()));
            let gives_way = gives_way(held, owner)?;
            let newest = state.held.get(&gives_way)?.last_key_value().map(|(number, _)| *number)?;
            state.end(gives_way, newest);
        }
        state.last += 1;
        state.all += 1;
        let (number, give_way) = (state.last, Arc::new(Notify::new()));
        let held = Held { seat, give_way: Arc::clone(&give_way) };
        state.held.entry(owner).or_default().insert(number, held);
        Some(Wait { waits: Arc::clone(self), owner, number, give_way })
    }

    /// Ends all of one connection.
    pub(crate) fn end_all_of(&self, owner: Owner, seat: u64) {
        let mut state = self.state.lock();
        let all = state.held.get(&owner).into_iter().flatten();
        let numbers: Vec<_> = all.filter(|(_, held)| held.seat == seat).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| state.end(owner, number));
    }
}

impl State {
    /// Has a request give way, and counts it no more.
    fn end(&mut self, owner: Owner, number: u64) {
        if let Some(held) = self.forget(owner, number) {
            held.give_way.notify_one();
        }
    }

    fn forget(&mut self, owner: Owner, number: u64) -> Option<Held> {
        let held = self.held.get_mut(&owner)?;
        let forgotten = held.remove(&number)?;
        if held.is_empty() {
            self.held.remove(&owner);
        }
        self.all -= 1;
        Some(forgotten)
    }
}

/// A place of one request that waits.
#[derive(Debug)]
pub(crate) struct Wait {
    waits: Arc<Waits>,
    owner: Owner,
    number: u64,
    give_way: Arc<Notify>,
}

impl Wait {
    /// Resolves when the request is to make room for another.
    pub(crate) async fn asked_to_give_way(&self) {
        self.give_way.notified().await;
    }
}

#[cfg(test)]
impl Wait {
    pub(crate) fn is_asked(&self) -> bool {
        use core::pin::pin;
        use core::task::{Context, Poll, Waker};
        let asked = pin!(self.asked_to_give_way()).poll(&mut Context::from_waker(Waker::noop()));
        asked == Poll::Ready(())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.state.lock().forget(self.owner, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_request_of_who_has_most_waiting_gives_way() {
        let (greedy, modest) = (Owner::new(1, 1, 10), Owner::new(1, 1, 11));
        let waits = Waits::new(10);
        let all: Vec<_> = (0..10).map(|_| waits.take(greedy, 1).unwrap()).collect();
        assert!(waits.take(greedy, 2).is_none(), "no other connection of the same process helps");
        let half: Vec<_> = (0..5).map(|_| waits.take(modest, 3).unwrap()).collect();
        assert!(waits.take(modest, 3).is_none(), "half is its share");
        assert_eq!(all.iter().map(Wait::is_asked).collect::<Vec<_>>(), [[false; 5], [true; 5]].concat());
        assert!(!half.iter().any(Wait::is_asked));
        drop((all, half));
        let state = waits.state.lock();
        assert!(state.all == 0 && state.held.is_empty());
    }

    #[test]
    fn a_connection_that_leaves_takes_its_requests_with_it() {
        let owner = Owner::new(1, 1, 10);
        let waits = Waits::new(10);
        let (one, other) = (waits.take(owner, 1).unwrap(), waits.take(owner, 2).unwrap());
        waits.end_all_of(owner, 1);
        assert!(one.is_asked() && !other.is_asked());
        assert_eq!(waits.state.lock().all, 1);
    }
}
