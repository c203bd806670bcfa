//! The spent set itself: what the verifier sees.

use core::fmt;
use std::sync::Arc;

use obol_verify::inbox::{Inbox, Writer};
use obol_verify::{Clock, KEEP_MARGIN_SECS, Mark, SpendError, SpendTicket, SpentSet};

use crate::incarnation::{MARKS, Memory};
use crate::link::Link;
use crate::options::RedisOptions;
use crate::unfit::Unfit;
use crate::writer::{Contact, Fence, MAX_WAITING, Work};

/// Why the set was not opened. Nothing can be spent then.
#[derive(Debug)]
pub struct RedisOpenError {
    pub(crate) address: String,
    /// What is wrong with the server.
    pub reason: Unfit,
}

impl fmt::Display for RedisOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}: {}", self.address, self.reason)
    }
}

impl core::error::Error for RedisOpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Spent marks in Redis or Valkey, shared by all servers of one audience.
///
/// Nothing about single tokens is kept in this process. Dropping it finishes what is under way.
pub struct RedisSpentSet {
    writer: Writer<Contact>,
    fence: Arc<Fence>,
    address: String,
    keep_after_expiry: u64,
}

impl RedisSpentSet {
    /// Connects and checks the server. Blocks for some round trips; a server that is not fit, or not there, is an error,
    /// later it is only unreadiness.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`].
    pub fn open(options: RedisOptions, clock: Arc<dyn Clock>) -> Result<Self, RedisOpenError> {
        let mut memory = Memory::default();
        let address = options.address();
        let (link, incarnation) = Link::open(&options, &MARKS, &*clock, &mut memory)
            .map_err(|reason| RedisOpenError { address: address.clone(), reason })?;
        let keep_after_expiry = options.clock_skew.saturating_add(KEEP_MARGIN_SECS);
        let fence = Arc::new(Fence::new(incarnation.fence));
        let work = Work { fence: Arc::clone(&fence), memory, options, clock, keep_after_expiry };
        let inbox = Inbox::new(MAX_WAITING, Contact::now());
        let writer = Writer::start(inbox, "obol-spent-redis", |inbox| work.run(inbox, link));
        Ok(Self { writer, fence, address, keep_after_expiry })
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
        self.health().map(|()| false)
    }

    fn spend_with(&self, mark: Mark, with: Option<Mark>) -> SpendTicket {
        self.writer.inbox().spend(mark, with, |contact| contact.check())
    }

    fn fence(&self) -> Option<u64> {
        self.fence.get()
    }

    fn keep_after_expiry(&self) -> u64 {
        self.keep_after_expiry
    }

    fn health(&self) -> Result<(), SpendError> {
        self.writer.inbox().ask(Contact::check)
    }

    fn marks(&self) -> Option<usize> {
        None
    }
}
