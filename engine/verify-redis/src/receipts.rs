//! Receipts that several servers share: records in Redis, of which each server knows all in its own memory.
//!
//! A receipt is written only on top of the last change of anybody's ([`RedisRecords`]): who was overtaken reads first and looks again.
//! So of any number of servers one begins a call. When Redis has lost records, or may have, nothing is begun for a lifetime.

use core::fmt;
use std::sync::Arc;

use obol_secret::key::Key32;
use obol_secret::text::to_hex;
use obol_session::clock::{Clock, Reading};
use obol_verify::receipt::{
    Begun, CallDigest, Draft, Finished, Limits, ReceiptId, ReceiptStore, ReceiptsUnavailable, Row, Table,
};
use parking_lot::Mutex;

use crate::contention::attempts;
use crate::options::RedisOptions;
use crate::records::{Record, RedisRecords};
use crate::spent::RedisOpenError;

/// What has ended so long ago, in seconds, has ended by every clock.
const FORGET_AFTER_SECS: u64 = 60;

/// Receipts in Redis or Valkey. All servers that share them have the same key.
pub struct RedisReceipts {
    clock: Arc<dyn Clock>,
    limits: Limits,
    inner: Mutex<Inner>,
}

struct Inner {
    records: RedisRecords,
    limits: Limits,
    life: [u8; 16],
    table: Table,
    /// Why the last call failed, if it did.
    failed: Option<String>,
}

impl RedisReceipts {
    /// Connects and checks the server.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] says what is wrong with the server.
    pub fn open(
        options: RedisOptions,
        key: &Key32,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RedisOpenError> {
        let records = RedisRecords::open(options, key, Arc::clone(&clock))?;
        let mut life = [0; 16];
        // Nothing depends on it but whose a running call is, and every server has its own calls besides.
        let _without = getrandom::fill(&mut life);
        let table = Table::new(limits, life, false);
        let inner = Inner { records, limits, life, table, failed: None };
        Ok(Self { clock, limits, inner: Mutex::new(inner) })
    }

    /// Does something on what is known, and remembers whether it went well.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Inner, Reading) -> Result<T, ReceiptsUnavailable>,
    ) -> Result<T, ReceiptsUnavailable> {
        let now = Reading::of(&*self.clock);
        let mut inner = self.inner.lock();
        let outcome = work(&mut inner, now);
        inner.failed = outcome.as_ref().err().map(|error| error.0.clone().into_owned());
        outcome
    }
}

impl Inner {
    /// Reads what changed.
    fn read(&mut self, now: Reading) -> Result<(), ReceiptsUnavailable> {
        let news = self.records.poll().map_err(|unfit| ReceiptsUnavailable(unfit.to_string().into()))?;
        if news.is_new {
            self.table = Table::new(self.limits, self.life, false);
        }
        for value in &news.values {
            let read =
                value.split_first_chunk::<32>().and_then(|(id, row)| Some((*id, Row::from_bytes(row).ok()?)));
            let Some((id, row)) = read else {
                self.records.read_again();
                return Err(ReceiptsUnavailable(
                    "there is a receipt that this build does not understand".into(),
                ));
            };
            self.table.put(ReceiptId::from_bytes(id), row, now);
        }
        self.table.forget_before(news.forgotten_before);
        Ok(())
    }

    /// Writes a row, if nobody was faster.
    fn write(&mut self, id: &ReceiptId, row: Row, now: Reading) -> Result<bool, ReceiptsUnavailable> {
        let value = [&id.as_bytes()[..], &row.to_bytes()].concat();
        let name = to_hex(id.as_bytes());
        let before = now.wall.saturating_sub(FORGET_AFTER_SECS);
        let forget_before = if self.table.has_ended(before) { before } else { 0 };
        let record = Record { name: &name, ends: row.ends, value: &value };
        let written = self
            .records
            .write(&[record], forget_before)
            .map_err(|unfit| ReceiptsUnavailable(unfit.to_string().into()))?;
        if written {
            self.table.put(*id, row, now);
            self.table.forget_before(forget_before);
        }
        Ok(written)
    }

    fn check(&self, now: Reading) -> Result<(), ReceiptsUnavailable> {
        let fence = self.records.fence().map_or(0, |fence| fence.saturating_add(self.limits.lifetime_secs));
        if now.wall < fence {
            let secs = fence - now.wall;
            let why = format!("Redis has lost receipts, or may have: nothing is begun for {secs} s");
            return Err(ReceiptsUnavailable(why.into()));
        }
        Ok(())
    }

    /// Tries until it is written, or there is nothing to write.
    fn change<T>(
        &mut self,
        id: &ReceiptId,
        now: Reading,
        draft: impl Fn(&Self) -> Result<Result<T, Row>, ReceiptsUnavailable>,
        done: T,
    ) -> Result<T, ReceiptsUnavailable> {
        for _ in attempts() {
            self.read(now)?;
            let row = match draft(self)? {
                Ok(found) => return Ok(found),
                Err(row) => row,
            };
            if self.write(id, row, now)? {
                return Ok(done);
            }
        }
        Err(ReceiptsUnavailable("other servers change them all the time".into()))
    }
}

impl fmt::Debug for RedisReceipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReceipts").field("records", &self.inner.lock().records).finish_non_exhaustive()
    }
}

impl ReceiptStore for RedisReceipts {
    fn begin(&self, id: &ReceiptId, call: &CallDigest) -> Result<Begun, ReceiptsUnavailable> {
        self.with(|inner, now| {
            let draft = |inner: &Inner| match inner.table.begin(id, call, now)? {
                Draft::Found(found) => Ok(Ok(found)),
                Draft::New(row) => inner.check(now).map(|()| Err(row)),
            };
            inner.change(id, now, draft, Begun::Fresh)
        })
    }

    fn finish(&self, id: &ReceiptId, finished: Finished<'_>) -> Result<(), ReceiptsUnavailable> {
        self.with(|inner, now| {
            inner.change(id, now, |inner| Ok(inner.table.finish(id, finished).map_or(Ok(()), Err)), ())
        })
    }

    fn health(&self) -> Result<(), ReceiptsUnavailable> {
        let inner = self.inner.lock();
        match &inner.failed {
            Some(why) => Err(ReceiptsUnavailable(why.clone().into())),
            None => inner.check(Reading::of(&*self.clock)),
        }
    }

    fn receipts(&self) -> usize {
        self.inner.lock().table.len()
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}
