//! The spent set itself: what the verifier sees.

use core::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use obol_verify::spent::KEEP_MARGIN_SECS;
use obol_verify::{Clock, Mark, SpendError, SpendTicket, SpentSet};

use crate::link::{Link, MARKS, Memory, Unfit};
use crate::options::RedisOptions;
use crate::writer::{self, Shared};

/// Why the set was not opened. Nothing can be spent then.
#[derive(Debug)]
pub struct OpenError {
    pub(crate) address: String,
    /// What is wrong with the server.
    pub reason: Unfit,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}: {}", self.address, self.reason)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Spent marks in Redis or Valkey, shared by all servers of one audience.
///
/// Nothing about single tokens is kept in this process. Dropping it finishes what is under way.
pub struct RedisSpentSet {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    address: String,
    keep_after_expiry: u64,
}

impl RedisSpentSet {
    /// Connects and checks the server. Blocks for some round trips; a server that is not fit, or not there, is an error,
    /// later it is only unreadiness.
    pub fn open(options: RedisOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let mut memory = Memory::default();
        let address = options.address();
        let (link, epoch) = Link::open(&options, &MARKS, &*clock, &mut memory)
            .map_err(|reason| OpenError { address: address.clone(), reason })?;
        let keep_after_expiry = options.clock_skew.saturating_add(KEEP_MARGIN_SECS);
        let shared = Arc::new(Shared::new(epoch.fence));
        let writer = writer::spawn(&shared, link, memory, options, clock, keep_after_expiry);
        Ok(Self { shared, writer, address, keep_after_expiry })
    }
}

impl Drop for RedisSpentSet {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has refused everyone already.
            let _panicked = writer.join();
        }
    }
}

impl fmt::Debug for RedisSpentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSpentSet")
            .field("address", &self.address)
            .field("fence", &self.fence())
            .finish_non_exhaustive()
    }
}

impl SpentSet for RedisSpentSet {
    /// Only [`spend`](SpentSet::spend) can tell; this says whether it is worth trying.
    fn is_spent(&self, _mark: &Mark) -> Result<bool, SpendError> {
        self.shared.health().map(|()| false)
    }

    fn spend(&self, mark: Mark) -> SpendTicket {
        self.shared.spend(mark)
    }

    fn fence(&self) -> Option<u64> {
        self.shared.fence()
    }

    fn keep_after_expiry(&self) -> u64 {
        self.keep_after_expiry
    }

    fn health(&self) -> Result<(), SpendError> {
        self.shared.health()
    }

    fn marks(&self) -> Option<usize> {
        None
    }
}
