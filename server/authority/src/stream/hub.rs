//! The streams that are open, and who is told what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use obol_handshake::Opener;
use obol_stream::StreamId;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::live::{Live, Who};
use crate::directory::{Event, Happening};

/// The most events that wait for one follower; one more, and its stream is cut.
pub(super) const MAX_QUEUED: usize = 1_024;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Somebody was sent something, has applied something, or is gone.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<StreamId, Open>,
    /// The stream of each follower: it has one.
    followers: HashMap<String, StreamId>,
    /// The streams of each resource server's copies.
    audiences: HashMap<String, Vec<StreamId>>,
    /// Every event up to this one was handed out.
    dispatched: u64,
}

/// A stream, and where events for it go. The queue ends once this is dropped.
#[derive(Debug)]
struct Open {
    live: Arc<Live>,
    queue: mpsc::Sender<Arc<Event>>,
}

/// A stream that has just been opened.
pub(crate) struct Joined {
    pub(crate) live: Arc<Live>,
    /// Events from now on.
    pub(crate) queue: mpsc::Receiver<Arc<Event>>,
    /// The last event that is not in the queue.
    pub(crate) head: u64,
}

impl Hub {
    /// Without any stream. `head`: the newest event that nobody needs to be handed.
    pub(crate) fn new(head: u64) -> Self {
        let state = State { dispatched: head, ..State::default() };
        Self { state: Mutex::new(state), moved: Condvar::new() }
    }

    /// Opens a stream. One that the same follower had is over.
    pub(crate) fn join(&self, id: StreamId, who: Who, lease_secs: u64, opener: Opener) -> Joined {
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        let live = Arc::new(Live::new(id, who, lease_secs, opener));
        let mut state = self.state.lock();
        if let Some(old) = state.followers.insert(live.who.id().to_owned(), id) {
            state.remove(old);
        }
        state.streams.insert(id, Open { live: Arc::clone(&live), queue: sender });
        if let Who::Replica { audience, .. } = &live.who {
            state.audiences.entry(audience.clone()).or_default().push(id);
        }
        let head = state.dispatched;
        Joined { live, queue, head }
    }

    /// A stream is over.
    pub(crate) fn leave(&self, live: &Live) {
        let mut state = self.state.lock();
        if state.followers.get(live.who.id()) == Some(&live.id) {
            state.followers.remove(live.who.id());
        }
        state.remove(live.id);
        drop(state);
        self.moved.notify_all();
    }

    /// The stream with this name, while it is open.
    pub(crate) fn stream(&self, id: StreamId) -> Option<Arc<Live>> {
        self.state.lock().streams.get(&id).map(|open| Arc::clone(&open.live))
    }

    /// The stream of a follower, while one is open.
    pub(crate) fn stream_of(&self, follower: &str) -> Option<Arc<Live>> {
        let state = self.state.lock();
        state.streams.get(state.followers.get(follower)?).map(|open| Arc::clone(&open.live))
    }

    /// How many streams are open: of copies of resource servers, and of agents.
    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        let replicas = state.audiences.values().map(Vec::len).sum();
        (replicas, state.streams.len().saturating_sub(replicas))
    }

    /// Every event up to this one was handed out.
    pub(crate) fn dispatched(&self) -> u64 {
        self.state.lock().dispatched
    }

    /// Hands out events, in the order of their numbers.
    pub(crate) fn dispatch(&self, events: Vec<Event>) {
        let mut state = self.state.lock();
        for event in events {
            if event.seq <= state.dispatched {
                continue;
            }
            state.dispatched = event.seq;
            state.hand_out(&Arc::new(event));
        }
    }

    /// Events were forgotten before they were handed out: every stream is over, and comes back by a snapshot.
    pub(crate) fn start_over(&self, head: u64) {
        let mut state = self.state.lock();
        *state = State { dispatched: state.dispatched.max(head), ..State::default() };
        drop(state);
        self.moved.notify_all();
    }

    pub(crate) fn note_written(&self, live: &Live, seq: u64) {
        live.note_written(seq);
        // Whoever looks holds the lock from the look to the wait.
        drop(self.state.lock());
        self.moved.notify_all();
    }

    /// What is not handed out yet cannot have been applied.
    pub(crate) fn note_applied(&self, live: &Live, seq: u64) {
        let state = self.state.lock();
        live.note_applied(seq.min(state.dispatched));
        drop(state);
        self.moved.notify_all();
    }

    /// Waits until all open streams of these resource servers' copies have been sent everything up to `seq`.
    pub(crate) fn wait_written(&self, audiences: &[String], seq: u64, until: Instant) {
        self.wait(until, |state| {
            let streams = audiences.iter().filter_map(|audience| state.audiences.get(audience)).flatten();
            streams.filter_map(|id| state.streams.get(id)).all(|open| open.live.written() >= seq)
        });
    }

    /// Waits until those of these followers whose streams are open have applied everything up to `seq`.
    pub(crate) fn wait_applied(&self, followers: &[&str], seq: u64, until: Instant) {
        self.wait(until, |state| {
            let streams = followers.iter().filter_map(|follower| state.followers.get(*follower));
            streams.filter_map(|id| state.streams.get(id)).all(|open| open.live.applied() >= seq)
        });
    }

    fn wait(&self, until: Instant, is_done: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        while !is_done(&state) {
            if self.moved.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

impl State {
    fn remove(&mut self, id: StreamId) {
        let Some(open) = self.streams.remove(&id) else { return };
        if let Who::Replica { audience, .. } = &open.live.who
            && let Some(list) = self.audiences.get_mut(audience)
        {
            list.retain(|other| *other != id);
            if list.is_empty() {
                self.audiences.remove(audience);
            }
        }
    }

    fn hand_out(&mut self, event: &Arc<Event>) {
        let mut cut = Vec::new();
        if let Happening::Removed { replica, .. } = &event.what {
            cut.extend(self.followers.remove(replica.as_str()));
        }
        for id in self.concerned(&event.what) {
            let Some(open) = self.streams.get(&id) else { continue };
            if open.queue.try_send(Arc::clone(event)).is_err() {
                tracing::warn!(
                    follower = open.live.who.id(),
                    "a follower does not read in time; its stream is cut"
                );
                cut.push(id);
            }
        }
        for id in cut {
            self.remove(id);
        }
    }

    fn concerned(&self, what: &Happening) -> Vec<StreamId> {
        let (audiences, agent) = match what {
            Happening::SessionOpen { audiences, .. } => (audiences.as_slice(), None),
            Happening::SessionEnd { audiences, agent, .. }
            | Happening::CallsDecided { audiences, agent, .. } => (audiences.as_slice(), Some(agent)),
            Happening::AgentEnd { agent, .. } | Happening::AgentEnabled { agent } => (&[][..], Some(agent)),
            _ => (&[][..], None),
        };
        let replicas = audiences.iter().filter_map(|audience| self.audiences.get(audience)).flatten();
        let agent = agent.and_then(|agent| self.followers.get(agent.as_str()));
        replicas.chain(agent).copied().collect()
    }
}
