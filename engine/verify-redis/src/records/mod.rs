//! Named records that several servers share. Redis holds them sealed; each server knows all of them in its own memory.
//!
//! Unlike the table of sessions, which is read again as a whole, they come as a log: every row has the number of the change that
//! wrote it, and who asks gets the rows behind the number that it knows. So a change costs what changed, however much is kept.
//!
//! A change is written only on top of the last one: who was overtaken reads first and thinks again. So all servers see the same
//! changes in the same order. What can be played back and what cannot is said in `ledger.rs`.
//!
//! # When Redis loses what it had
//!
//! The records belong to an incarnation of Redis (see `incarnation.rs`). When that is over, **every record is over**: the next answer of
//! [`RedisRecords::poll`] says so, and begins with nothing.

mod ledger;
mod wire;

use core::fmt;
use std::sync::Arc;

use obol_secret::key::Key32;
use obol_verify::Clock;
use zeroize::Zeroizing;

use crate::incarnation::{Memory, RECORDS, check_clock};
use crate::link::{Answer, Link};
use crate::options::RedisOptions;
use crate::spent::RedisOpenError;
use crate::unfit::Unfit;
use ledger::{Keeper, Ledger, Unbelievable};

/// The most rows in one reply.
const PAGE_ROWS: usize = 2_000;

/// A record to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is about; a later record of the same name takes its place. At most 255 bytes.
    pub name: &'a str,
    /// Until when it matters, in Unix seconds.
    pub ends: u64,
    /// What it says.
    pub value: &'a [u8],
}

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct News {
    /// Whatever was known before is over; what follows is all there is.
    pub is_new: bool,
    /// The values of what was written, in the order of writing.
    pub values: Vec<Zeroizing<Vec<u8>>>,
    /// Records that ended before this time (Unix seconds) are gone.
    pub forgotten_before: u64,
}

/// Records in Redis or Valkey. Has no thread of its own: who owns it polls.
pub struct RedisRecords {
    options: RedisOptions,
    clock: Arc<dyn Clock>,
    seal: Zeroizing<[u8; 32]>,
    sum: Zeroizing<[u8; 32]>,
    link: Option<Link>,
    memory: Memory,
    incarnation: String,
    fence: u64,
    ledger: Ledger,
    /// The last change of this incarnation that was ever seen, also where the ledger had to be read again.
    seen: u64,
    is_new: bool,
}

impl RedisRecords {
    /// Connects and checks the server; the first [`poll`](Self::poll) reads. The key is the same on every server.
    ///
    /// # Errors
    /// [`RedisOpenError`] says what is wrong with the server.
    pub fn open(options: RedisOptions, key: &Key32, clock: Arc<dyn Clock>) -> Result<Self, RedisOpenError> {
        let address = options.address();
        let mut records = Self {
            options,
            clock,
            seal: key.derive("obol-records-v1"),
            sum: key.derive("obol-records-sum-v1"),
            link: None,
            memory: Memory::default(),
            incarnation: String::new(),
            fence: 0,
            ledger: Ledger::default(),
            seen: 0,
            is_new: true,
        };
        records.connect().map_err(|reason| RedisOpenError { address, reason })?;
        Ok(records)
    }

    /// What may have been lost was written at or before this time (Unix seconds). `None` if nothing ever was.
    pub fn fence(&self) -> Option<u64> {
        Some(self.fence).filter(|fence| *fence > 0)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.ledger.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what changed.
    ///
    /// # Errors
    /// [`Unfit`]: nothing is known of what happened meanwhile.
    pub fn poll(&mut self) -> Result<News, Unfit> {
        let outcome = self.read();
        if outcome.is_err() {
            self.begin_again();
        }
        outcome
    }

    /// Writes records, and takes out those that ended before `forget_before` (Unix seconds). `false` if another server was faster:
    /// nothing is written then, and what to write has to be thought over after a [`poll`](Self::poll).
    ///
    /// # Errors
    /// [`Unfit`]: whether it was written is unknown.
    pub fn write(&mut self, records: &[Record<'_>], forget_before: u64) -> Result<bool, Unfit> {
        let outcome = self.try_write(records, forget_before);
        if outcome.is_err() {
            self.begin_again();
        }
        outcome
    }

    /// Makes the next [`poll`](Self::poll) begin with nothing: for who could not make sense of what was read.
    pub fn read_again(&mut self) {
        self.begin_again();
    }

    fn try_write(&mut self, records: &[Record<'_>], forget_before: u64) -> Result<bool, Unfit> {
        let keeper = Keeper {
            seal: &self.seal,
            sum: &self.sum,
            namespace: &self.options.namespace,
            incarnation: &self.incarnation,
        };
        let change = self.ledger.draft(&keeper, records, forget_before);
        let change = change.map_err(|why| Unfit::Unreachable(why.to_owned()))?;
        let Some(link) = &mut self.link else { return Err(lost()) };
        match link.change_records(&change, self.clock.now())? {
            Answer::IncarnationIsOver => Err(lost()),
            Answer::Done(false) => Ok(false),
            Answer::Done(true) => {
                self.ledger.apply(change);
                self.seen = self.ledger.changes();
                Ok(true)
            }
        }
    }

    fn read(&mut self) -> Result<News, Unfit> {
        self.connect()?;
        let mut news = News::default();
        loop {
            let Some(link) = &mut self.link else { return Err(lost()) };
            let (known, last) = (self.ledger.changes(), self.ledger.last_row());
            let Answer::Done(page) = link.read_records(known, last, PAGE_ROWS, self.clock.now())? else {
                return Err(lost());
            };
            check_clock(page.now_ms, &self.options, &*self.clock, &mut self.memory)?;
            if self.memory.leapt {
                return Err(Unfit::Leapt);
            }
            let Some(changed) = page.changed else { break };
            let keeper = Keeper {
                seal: &self.seal,
                sum: &self.sum,
                namespace: &self.options.namespace,
                incarnation: &self.incarnation,
            };
            let is_last = changed.rows.len() < PAGE_ROWS;
            let read = self.ledger.read(&keeper, &changed.rows).and_then(|values| {
                news.values.extend(values);
                if !is_last {
                    return Ok(());
                }
                if changed.number < self.seen {
                    return Err(Unbelievable::PlayedBack);
                }
                self.ledger.settle(&keeper, changed.number, &changed.manifest)
            });
            self.memory.played_back |= read == Err(Unbelievable::PlayedBack);
            read.map_err(|why| match why {
                Unbelievable::PlayedBack => Unfit::PlayedBack,
                Unbelievable::DoesNotOpen => {
                    Unfit::Unreachable("its records do not open with this key".to_owned())
                }
            })?;
            if is_last {
                self.seen = self.ledger.changes();
                break;
            }
        }
        // A server that has seen changes, and is told that there were none.
        if self.ledger.changes() < self.seen {
            self.memory.played_back = true;
            return Err(Unfit::PlayedBack);
        }
        news.is_new = core::mem::take(&mut self.is_new);
        news.forgotten_before = self.ledger.horizon();
        Ok(news)
    }

    /// After an error nobody knows what the connection still holds, nor whether all of a change was read.
    fn begin_again(&mut self) {
        self.link = None;
        self.ledger = Ledger::default();
        self.is_new = true;
    }

    /// Makes sure of a connection. A new incarnation ends every record.
    fn connect(&mut self) -> Result<(), Unfit> {
        if self.link.is_some() {
            return Ok(());
        }
        let (link, incarnation) = Link::open(&self.options, &RECORDS, &*self.clock, &mut self.memory)?;
        if self.incarnation != incarnation.id {
            self.ledger = Ledger::default();
            (self.incarnation, self.seen, self.is_new) = (incarnation.id, 0, true);
        }
        self.fence = self.fence.max(incarnation.fence);
        self.link = Some(link);
        Ok(())
    }
}

impl fmt::Debug for RedisRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRecords")
            .field("address", &self.options.address())
            .field("records", &self.len())
            .finish_non_exhaustive()
    }
}

fn lost() -> Unfit {
    Unfit::Unreachable("it has lost records, or may have; all of them are over".to_owned())
}
