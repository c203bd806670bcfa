//! What the ring synchronises with. `shuttled.rs` has another module of this name.

pub(super) use core::sync::atomic::{AtomicU64, Ordering};

pub(super) use crossbeam::queue::SegQueue as Queue;
pub(super) use parking_lot::{Mutex, MutexGuard};
