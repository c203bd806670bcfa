//! Who waits for the refiller.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::partition::Partition;

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
    pub(crate) fn next(&self, at_most: Duration) -> Option<Arc<Partition>> {
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
