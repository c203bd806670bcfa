//! All receipts in memory, and what follows from them. No store waits for anything here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use obol_session::clock::Reading;

use super::row::{Row, State};
use super::{Begun, CallDigest, Finished, Limits, MAX_ANSWER_BYTES, ReceiptId, ReceiptsUnavailable};

/// What [`Table::begin`] came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Draft {
    /// There is a receipt already.
    Found(Begun),
    /// There is none: this row is to be written first.
    New(Row),
}

/// All receipts.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    /// This process.
    life: [u8; 16],
    /// No other process writes here, so what runs in another life has ended with it.
    is_alone: bool,
    rows: HashMap<ReceiptId, (Row, u64)>,
    ends: BTreeSet<(u64, ReceiptId)>,
    bytes: usize,
}

impl Table {
    /// An empty table, for a process of this random name.
    pub fn new(limits: Limits, life: [u8; 16], is_alone: bool) -> Self {
        Self { limits, life, is_alone, rows: HashMap::new(), ends: BTreeSet::new(), bytes: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How long and how many.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Looks for a receipt. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`ReceiptsUnavailable`] where there is no room for another.
    pub fn begin(
        &self,
        id: &ReceiptId,
        call: &CallDigest,
        now: Reading,
    ) -> Result<Draft, ReceiptsUnavailable> {
        if let Some((row, _)) = self.rows.get(id) {
            return Ok(Draft::Found(self.found(row, call, now)));
        }
        if self.rows.len() >= self.limits.most || self.bytes + MAX_ANSWER_BYTES > self.limits.most_bytes {
            return Err(ReceiptsUnavailable("there are as many as are kept at a time".into()));
        }
        let until = now.wall.saturating_add(self.limits.running_secs);
        let state = State::Running { life: self.life, until };
        Ok(Draft::New(Row { call: *call, ends: now.wall.saturating_add(self.limits.lifetime_secs), state }))
    }

    fn found(&self, row: &Row, call: &CallDigest, now: Reading) -> Begun {
        if row.call != *call {
            return Begun::OtherCall;
        }
        match &row.state {
            State::Running { life, .. } if self.is_alone && *life != self.life => Begun::Unknown,
            State::Running { until, .. } if now.wall > *until => Begun::Unknown,
            State::Running { .. } => Begun::Running,
            State::Done(answer) => Begun::Done(Arc::clone(answer)),
            State::NotKept => Begun::NotKept,
            State::Unknown => Begun::Unknown,
        }
    }

    /// The row of a call that ended, if it was begun in this process and still runs.
    pub fn finish(&self, id: &ReceiptId, finished: Finished<'_>) -> Option<Row> {
        let (row, _) = self.rows.get(id)?;
        let State::Running { life, .. } = &row.state else { return None };
        if *life != self.life {
            return None;
        }
        let state = match finished {
            Finished::Answer(answer) if answer.len() <= MAX_ANSWER_BYTES => State::Done(answer.into()),
            Finished::Answer(_) | Finished::NotKept => State::NotKept,
            Finished::Unknown => State::Unknown,
        };
        Some(Row { state, ..row.clone() })
    }

    /// Takes in a row that was written.
    pub fn put(&mut self, id: ReceiptId, row: Row, now: Reading) {
        self.ends.insert((row.ends, id));
        self.bytes += row.answer_bytes();
        // Known since the first time that it was seen.
        let since = self.rows.get(&id).map_or(now.monotonic, |(_, since)| *since);
        if let Some((old, _)) = self.rows.insert(id, (row, since)) {
            self.bytes -= old.answer_bytes();
            if self.rows.get(&id).is_none_or(|(new, _)| new.ends != old.ends) {
                self.ends.remove(&(old.ends, id));
            }
        }
    }

    /// Receipts that are over by both clocks.
    pub fn over(&self, now: Reading) -> Vec<ReceiptId> {
        let ended = self.ends.iter().take_while(|(ends, _)| *ends < now.wall).map(|(_, id)| id);
        let is_old = |id: &&ReceiptId| {
            self.rows
                .get(id)
                .is_some_and(|(_, since)| now.monotonic.saturating_sub(*since) >= self.limits.lifetime_secs)
        };
        ended.filter(is_old).copied().collect()
    }

    /// Forgets what ended before this time (Unix seconds): where somebody else has done so for all.
    pub fn forget_before(&mut self, horizon: u64) {
        let over: Vec<_> =
            self.ends.iter().take_while(|(ends, _)| *ends < horizon).map(|(_, id)| *id).collect();
        over.iter().for_each(|id| self.remove(id));
    }

    /// Whether something ended before this time (Unix seconds).
    pub fn has_ended(&self, before: u64) -> bool {
        self.ends.first().is_some_and(|(ends, _)| *ends < before)
    }

    /// Forgets one.
    pub fn remove(&mut self, id: &ReceiptId) {
        if let Some((row, _)) = self.rows.remove(id) {
            self.ends.remove(&(row.ends, *id));
            self.bytes -= row.answer_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { lifetime_secs: 100, running_secs: 10, most: 2, most_bytes: 1 << 20 };
    const NOW: Reading = Reading { wall: 1_000, monotonic: 5 };

    fn later(secs: u64) -> Reading {
        Reading { wall: NOW.wall + secs, monotonic: NOW.monotonic + secs }
    }

    fn id(number: u8) -> ReceiptId {
        ReceiptId::from_bytes([number; 32])
    }

    fn call(name: &str) -> CallDigest {
        CallDigest::new(&[name.as_bytes()])
    }

    fn begun(table: &mut Table, number: u8, name: &str, now: Reading) -> Result<Begun, ReceiptsUnavailable> {
        Ok(match table.begin(&id(number), &call(name), now)? {
            Draft::Found(found) => found,
            Draft::New(row) => {
                table.put(id(number), row, now);
                Begun::Fresh
            }
        })
    }

    #[test]
    fn a_call_is_fresh_once_and_then_running_and_then_done() {
        let mut table = Table::new(LIMITS, [1; 16], true);
        assert_eq!(begun(&mut table, 1, "pay", NOW), Ok(Begun::Fresh));
        assert_eq!(begun(&mut table, 1, "pay", later(1)), Ok(Begun::Running));
        assert_eq!(begun(&mut table, 1, "other", later(1)), Ok(Begun::OtherCall));
        assert_eq!(begun(&mut table, 1, "pay", later(11)), Ok(Begun::Unknown), "it takes too long");
        let row = table.finish(&id(1), Finished::Answer(b"paid")).unwrap();
        table.put(id(1), row, later(20));
        assert_eq!(begun(&mut table, 1, "pay", later(90)), Ok(Begun::Done(Arc::from(&b"paid"[..]))));
        assert_eq!(table.finish(&id(1), Finished::Unknown), None, "what is done stays done");
        assert_eq!(table.over(later(100)), []);
        assert_eq!(table.over(later(101)), [id(1)]);
        table.remove(&id(1));
        assert_eq!((table.len(), table.bytes, table.ends.len()), (0, 0, 0));
    }

    #[test]
    fn what_ran_in_another_life_is_unknown_where_nobody_else_writes_and_runs_where_somebody_may() {
        for (is_alone, expected) in [(true, Begun::Unknown), (false, Begun::Running)] {
            let mut table = Table::new(LIMITS, [2; 16], is_alone);
            let state = State::Running { life: [1; 16], until: NOW.wall + 10 };
            table.put(id(1), Row { call: call("pay"), ends: NOW.wall + 100, state }, NOW);
            assert_eq!(begun(&mut table, 1, "pay", NOW), Ok(expected));
            assert_eq!(table.finish(&id(1), Finished::NotKept), None, "it is not this process's");
            assert_eq!(begun(&mut table, 1, "pay", later(11)), Ok(Begun::Unknown));
        }
    }

    #[test]
    fn a_clock_that_leaps_forgets_nothing_and_a_full_table_begins_nothing() {
        let mut table = Table::new(LIMITS, [1; 16], true);
        for number in 1..=2 {
            assert_eq!(begun(&mut table, number, "pay", NOW), Ok(Begun::Fresh));
        }
        assert!(begun(&mut table, 3, "pay", NOW).is_err());
        let leapt = Reading { wall: NOW.wall + 86_400, monotonic: NOW.monotonic + 1 };
        assert_eq!(table.over(leapt), []);
        assert_eq!(table.over(Reading { wall: 0, ..later(200) }), [], "nor one that was set back");
        let few = Limits { most_bytes: MAX_ANSWER_BYTES - 1, ..LIMITS };
        assert!(begun(&mut Table::new(few, [1; 16], true), 1, "pay", NOW).is_err());
    }
}
