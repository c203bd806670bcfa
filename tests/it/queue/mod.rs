//! The token queue as those see it who embed it.

mod files;
mod lease;

use core::time::Duration;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_queue::Queue;
use obol_world::ManualClock;
use obol_world::home::Store;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn open_at(store: &Store, clock: &Arc<ManualClock>) -> Queue {
    Queue::builder().clock(Arc::clone(clock)).open(store.database(), store.master_key()).unwrap()
}

pub(crate) fn draw(queue: &Queue, tool: &str) -> Vec<u8> {
    queue.dequeue_within(tool, PATIENCE).unwrap().as_bytes().to_vec()
}

/// Waits until the background has brought about what is asked for.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
