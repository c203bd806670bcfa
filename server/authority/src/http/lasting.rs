//! Connections that live as long as a stream runs on them.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A connection whose life is not bounded while a stream runs on it, which bounds itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Lasting(Arc<AtomicUsize>);

impl Lasting {
    /// Whether a stream runs.
    pub(super) fn is_kept(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    pub(super) fn keep(self) -> Keeps {
        self.0.fetch_add(1, Ordering::SeqCst);
        Keeps(self)
    }
}

/// Held by a stream that runs.
#[derive(Debug)]
pub(super) struct Keeps(Lasting);

impl Drop for Keeps {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
