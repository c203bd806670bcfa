//! What goes to Redis and comes back.

use redis::Value;

use super::ledger::{Change, Row};
use crate::link::{Answer, Link, pairs, parse};
use crate::script;
use crate::unfit::{Unfit, nonsense, unreachable};

/// Rows behind those that were known.
pub(super) struct Page {
    pub(super) now_ms: u64,
    /// `None` if nothing changed.
    pub(super) changed: Option<Changed>,
}

/// The last change, its manifest, and the next rows.
pub(super) struct Changed {
    pub(super) number: u64,
    pub(super) manifest: Vec<u8>,
    pub(super) rows: Vec<Row>,
}

impl Link {
    /// Writes a change. Answers whether it was: not where somebody else was faster.
    pub(super) fn change_records(&mut self, change: &Change, now: u64) -> Result<Answer<bool>, Unfit> {
        let mut eval = self.eval(script::CHANGE_RECORDS, now);
        eval.arg(change.known).arg(change.number).arg(change.manifest.as_slice()).arg(change.gone.len());
        for number in &change.gone {
            eval.arg(*number);
        }
        for (number, sealed) in &change.rows {
            eval.arg(*number).arg(sealed.as_slice());
        }
        match parse(self.write(eval)?, now)? {
            Answer::IncarnationIsOver => Ok(Answer::IncarnationIsOver),
            Answer::Done((_, word)) if word == b"ok" => Ok(Answer::Done(true)),
            Answer::Done((_, word)) if word == b"stale" => Ok(Answer::Done(false)),
            Answer::Done(_) => Err(nonsense(None)),
        }
    }

    /// The rows behind the one with the number `last`, if the last change is not the one known.
    pub(super) fn read_records(
        &mut self,
        known: u64,
        last: u64,
        most: usize,
        now: u64,
    ) -> Result<Answer<Page>, Unfit> {
        let mut eval = self.eval(script::READ_RECORDS, now);
        eval.arg(known).arg(last).arg(most);
        let value = self.query(&eval)?;
        let Value::Array(mut values) = value else { return Err(nonsense(Some(&value))) };
        let behind = if values.len() == 5 { Some((values.pop(), values.pop())) } else { None };
        let (now_ms, number) = match parse(Some(Value::Array(values)), now)? {
            Answer::IncarnationIsOver => return Ok(Answer::IncarnationIsOver),
            Answer::Done((now_ms, number)) => (now_ms, digits(&number)?),
        };
        let changed = match behind {
            None => None,
            Some((Some(Value::Array(rows)), Some(Value::BulkString(manifest)))) => {
                let rows = pairs(&rows)?.into_iter().map(|(sealed, number)| Ok((digits(&number)?, sealed)));
                Some(Changed { number, manifest, rows: rows.collect::<Result<_, Unfit>>()? })
            }
            Some(_) => return Err(nonsense(None)),
        };
        Ok(Answer::Done(Page { now_ms, changed }))
    }

    fn query(&mut self, command: &redis::Cmd) -> Result<Value, Unfit> {
        command.query(self.connection()).map_err(unreachable)
    }
}

fn digits(bytes: &[u8]) -> Result<u64, Unfit> {
    core::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| nonsense(None))
}
