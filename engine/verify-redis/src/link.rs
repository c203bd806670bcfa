//! The connection: spending, watching, and the table of sessions, each in one round trip.
//!
//! Whether what is at the other end may be believed, `incarnation.rs` finds out before anything else is said.

use obol_verify::Clock;
use redis::{Connection, ConnectionLike as _, Value};

use crate::incarnation::{Common, Incarnation, Kind, Memory, enter};
use crate::options::RedisOptions;
use crate::script;
use crate::table;
use crate::unfit::{Unfit, nonsense, unfit_policy, unreachable};

/// What an exchange came to when it did not fail.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// All is well.
    Done(T),
    /// The incarnation is over: connect again and find out why.
    IncarnationIsOver,
}

/// A connection that was checked, in an incarnation.
pub(crate) struct Link {
    connection: Connection,
    /// The record, and what is kept.
    keys: [String; 2],
    id: String,
    fence: String,
    common: Common,
    wait: Option<(u32, u128)>,
}

/// A mark, and its end in Unix milliseconds.
pub(crate) type KeptMark = ([u8; 16], u64);

/// A token's mark, and that of what it stands on: both are set, or none.
pub(crate) struct Spend {
    pub(crate) mark: KeptMark,
    pub(crate) with: Option<KeptMark>,
}

/// A session's number and its sealed row.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// The session table, as it was read.
pub(crate) struct Sessions {
    pub(crate) now_ms: u64,
    /// Manifest and rows, if there was a change, and its number.
    pub(crate) changed: Option<(String, Vec<u8>, Vec<Row>)>,
}

impl Link {
    /// Connects, checks, and takes over the incarnation of this record or begins one.
    pub(crate) fn open(
        options: &RedisOptions,
        kind: &Kind,
        clock: &dyn Clock,
        memory: &mut Memory,
    ) -> Result<(Self, Incarnation), Unfit> {
        let mut connection = connect(options)?;
        let (incarnation, common) = enter(&mut connection, options, kind, clock, memory)?;
        let wait = (options.wait_replicas > 0)
            .then(|| (options.wait_replicas, (options.reply_timeout / 2).as_millis()));
        let record = options.key(kind.record);
        let kept = format!("{record}:{}:{}", incarnation.id, kind.kept);
        let link = Self {
            connection,
            keys: [record, kept],
            id: incarnation.id.clone(),
            fence: incarnation.fence.to_string(),
            common,
            wait,
        };
        Ok((link, incarnation))
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(crate) fn eval(&self, script: &str, now: u64) -> redis::Cmd {
        self.common.eval(script, &self.keys, now, &self.id, &self.fence)
    }

    /// Spends. `now` in Unix seconds. Answers with the server's time and a digit for each.
    pub(crate) fn spend(&mut self, marks: &[Spend], now: u64) -> Result<Answer<(u64, Vec<u8>)>, Unfit> {
        let mut eval = self.eval(script::SPEND, now);
        for Spend { mark: (mark, end), with } in marks {
            eval.arg(*end).arg(mark.as_slice());
            if let Some((with, end)) = with {
                eval.arg(format!("&{end}")).arg(with.as_slice());
            }
        }
        match parse(self.write(eval)?, now)? {
            Answer::IncarnationIsOver => Ok(Answer::IncarnationIsOver),
            Answer::Done((now, digits)) if digits.len() == marks.len() => Ok(Answer::Done((now, digits))),
            Answer::Done(_) => Err(nonsense(None)),
        }
    }

    /// Sends one command, and waits for the replicas that were asked for.
    pub(crate) fn write(&mut self, command: redis::Cmd) -> Result<Option<Value>, Unfit> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(command);
        let mut replies = 1;
        if let Some((replicas, milliseconds)) = self.wait {
            pipeline.cmd("WAIT").arg(replicas).arg(milliseconds.to_string());
            replies = 2;
        }
        let packed = pipeline.get_packed_pipeline();
        let mut values = self.connection.req_packed_commands(&packed, 0, replies).map_err(unreachable)?;
        if let Some((wanted, _)) = self.wait {
            match values.pop() {
                Some(Value::Int(replicas)) if replicas >= i64::from(wanted) => {}
                Some(Value::Int(replicas)) => return Err(Unfit::Replicas(replicas)),
                other => return Err(nonsense(other.as_ref())),
            }
        }
        Ok(values.pop())
    }

    /// Writes a change of the session table that was made on top of the change `known`. Answers whether it was: not where
    /// somebody else was faster.
    pub(crate) fn change(
        &mut self,
        known: &str,
        change: &table::Change,
        now: u64,
    ) -> Result<Answer<bool>, Unfit> {
        let mut eval = self.eval(script::CHANGE, now);
        eval.arg(known)
            .arg(&change.number)
            .arg(change.sealed.as_slice())
            .arg(change.number_of_change())
            .arg(change.manifest.as_slice());
        match parse(self.write(eval)?, now)? {
            Answer::IncarnationIsOver => Ok(Answer::IncarnationIsOver),
            Answer::Done((_, word)) if word == b"ok" => Ok(Answer::Done(true)),
            Answer::Done((_, word)) if word == b"stale" => Ok(Answer::Done(false)),
            Answer::Done(_) => Err(nonsense(None)),
        }
    }

    /// The server's time, and the session table if its last change is not the one known.
    pub(crate) fn read(&mut self, known: &str, now: u64) -> Result<Answer<Sessions>, Unfit> {
        let mut eval = self.eval(script::READ, now);
        let value: Value = eval.arg(known).query(&mut self.connection).map_err(unreachable)?;
        let Value::Array(mut values) = value else { return Err(nonsense(Some(&value))) };
        let table = if values.len() == 5 { Some((values.pop(), values.pop())) } else { None };
        let (now_ms, changes) = match parse(Some(Value::Array(values)), now)? {
            Answer::IncarnationIsOver => return Ok(Answer::IncarnationIsOver),
            Answer::Done((now_ms, changes)) => (now_ms, changes),
        };
        let changed = match table {
            None => None,
            Some((Some(Value::Array(rows)), Some(Value::BulkString(manifest)))) => {
                let changes = String::from_utf8(changes).map_err(|_| nonsense(None))?;
                Some((changes, manifest, pairs(&rows)?))
            }
            Some(_) => return Err(nonsense(None)),
        };
        Ok(Answer::Done(Sessions { now_ms, changed }))
    }

    /// Looks whether all is well. Answers with the server's time.
    pub(crate) fn watch(&mut self, now: u64) -> Result<Answer<u64>, Unfit> {
        let value = self.eval(script::WATCH, now).query(&mut self.connection).map_err(unreachable)?;
        match parse(Some(value), now)? {
            Answer::IncarnationIsOver => Ok(Answer::IncarnationIsOver),
            Answer::Done((now, _)) => Ok(Answer::Done(now)),
        }
    }
}

fn connect(options: &RedisOptions) -> Result<Connection, Unfit> {
    let client = redis::Client::open(options.connection.clone()).map_err(unreachable)?;
    let connection = client.get_connection_with_timeout(options.reply_timeout).map_err(unreachable)?;
    connection.set_read_timeout(Some(options.reply_timeout)).map_err(unreachable)?;
    connection.set_write_timeout(Some(options.reply_timeout)).map_err(unreachable)?;
    Ok(connection)
}

/// `{"epoch"}`, `{"policy", name}`, `{"clock", time}` or `{"done", time, text}`. `now` is the caller's time, as the script was
/// told.
pub(crate) fn parse(value: Option<Value>, now: u64) -> Result<Answer<(u64, Vec<u8>)>, Unfit> {
    let Some(Value::Array(values)) = value else { return Err(nonsense(value.as_ref())) };
    let milliseconds = |time: &i64| u64::try_from(*time).map_err(|_| nonsense(None));
    match values.as_slice() {
        [Value::BulkString(word)] if word == b"epoch" => Ok(Answer::IncarnationIsOver),
        [Value::BulkString(word), Value::BulkString(policy)] if word == b"policy" => {
            Err(unfit_policy(&String::from_utf8_lossy(policy)))
        }
        [Value::BulkString(word), Value::Int(time)] if word == b"clock" => {
            Err(Unfit::Clock((milliseconds(time)? / 1_000).abs_diff(now)))
        }
        [Value::BulkString(word), Value::Int(time), Value::BulkString(rest)] if word == b"done" => {
            Ok(Answer::Done((milliseconds(time)?, rest.clone())))
        }
        _ => Err(nonsense(None)),
    }
}

pub(crate) fn pairs(values: &[Value]) -> Result<Vec<Row>, Unfit> {
    let (pairs, rest) = values.as_chunks::<2>();
    let bytes = |pair: &[Value; 2]| match pair {
        [Value::BulkString(key), Value::BulkString(value)] => Some((key.clone(), value.clone())),
        _ => None,
    };
    let read: Option<Vec<_>> = pairs.iter().map(bytes).collect();
    read.filter(|_| rest.is_empty()).ok_or_else(|| nonsense(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn only_the_replies_that_the_scripts_give_make_sense() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert!(matches!(parse(Some(Value::Array(vec![word("epoch")])), NOW), Ok(Answer::IncarnationIsOver)));
        let done = Value::Array(vec![word("done"), Value::Int(5), word("10")]);
        assert!(matches!(parse(Some(done), NOW), Ok(Answer::Done((5, digits))) if digits == b"10"));
        for nonsense in [
            Value::Nil,
            Value::Okay,
            Value::Array(vec![]),
            Value::Array(vec![word("done")]),
            Value::Array(vec![word("done"), Value::Int(-1), word("1")]),
            Value::Array(vec![word("done"), word("5"), word("1")]),
        ] {
            assert!(parse(Some(nonsense.clone()), NOW).is_err(), "{nonsense:?}");
        }
        assert!(parse(None, NOW).is_err());
    }
}
