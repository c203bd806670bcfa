//! The connection: who is at the other end, and whether what it holds is all that was ever spent.
//!
//! # Epochs and the fence
//!
//! Redis can lose marks without an error: it restarts with nothing or with an old file, a replica that had not
//! received the last writes takes over, somebody flushes the database, keys are evicted, its clock leaps. So the marks
//! belong to an *epoch*, recorded beside them in `obol:{namespace}:epoch`: a random id, and what must stay as it is for the
//! marks to be complete (`script.rs` has the list, down to how many there are). Every script compares the whole record
//! first, in the same atomic step. Where anything differs, somebody begins a new epoch with a fence: whatever was issued at
//! or before
//!
//! ```text
//! the later of this machine's time and the server's + clock skew + 2 × the clock difference allowed + 2 s
//! ```
//!
//! is refused by everyone. A token spent in the lost past cannot have been issued later: whoever accepted it had a
//! clock within the allowed difference of the server's, as we have, and accepts issue times at most the skew ahead. The
//! last two seconds are for clocks that are compared in whole seconds.
//!
//! Redis ends no mark by itself: all of them are members of one sorted set without an end, and the scripts take out what
//! is over. So a clock that leaps and comes back loses nothing unseen.

use core::fmt;
use std::time::Instant;

use obol_verify::Clock;
use redis::{Connection, ConnectionLike as _, Value};

use crate::info::{field, is_new_enough};
use crate::options::RedisOptions;
use crate::script;
use crate::table;

/// The longest text of an error that is passed on, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// Two comparisons of clocks in whole seconds may each be wrong by one.
const ROUNDING_SECS: u64 = 2;

/// Why the server at the other end is not fit for the marks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unfit {
    /// It does not answer, answers with an error, or with something that makes no sense.
    Unreachable(String),
    /// It is older than 6.2.
    Version(String),
    /// It is part of a cluster.
    Cluster,
    /// It is a replica.
    NotMaster(String),
    /// It is still reading its file.
    Loading,
    /// It may evict marks.
    Eviction(String),
    /// It does not say whether it may evict marks.
    EvictionUnknown,
    /// It does not say who it is (`INFO`).
    Silent(&'static str),
    /// Its clock and this machine's are too far apart, in seconds.
    Clock(u64),
    /// Its clock leapt, so marks may have been taken out before their time.
    Leapt,
    /// What it holds was held before: somebody put it back.
    PlayedBack,
    /// Somebody shares the set with another clock skew, in seconds.
    Skew(String),
    /// The record is of another format.
    Format(String),
    /// Fewer replicas than asked for have the marks.
    Replicas(i64),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "it cannot be used: {why}"),
            Self::Version(found) => write!(f, "it is version {found}; 6.2 or later is needed"),
            Self::Cluster => f.write_str("it is part of a cluster; use one master, with replicas if you like"),
            Self::NotMaster(role) => write!(f, "its role is {role}; name the master"),
            Self::Loading => f.write_str("it is still loading its data"),
            Self::Eviction(policy) => write!(
                f,
                "its maxmemory-policy is {policy}, which drops spent marks when memory runs short; run CONFIG SET \
                 maxmemory-policy noeviction and put it into its configuration"
            ),
            Self::EvictionUnknown => f.write_str(
                "it does not say what its maxmemory-policy is; make sure that it is noeviction and then say so \
                 (assume_noeviction)",
            ),
            Self::Silent(what) => {
                write!(f, "INFO does not give {what}; the user needs the right to call INFO, also in scripts")
            }
            Self::Clock(seconds) => write!(
                f,
                "its clock and this machine's are {seconds} s apart; let both follow a time service"
            ),
            Self::Leapt => f.write_str("its clock leapt; tokens issued so far will be refused"),
            Self::PlayedBack => f.write_str(
                "somebody has put back what it held before, or changed it; every session is over. Find out who can write to it",
            ),
            Self::Skew(theirs) => write!(
                f,
                "another server shares this namespace with a clock skew of {theirs} s; use one figure on all of them"
            ),
            Self::Format(found) => write!(f, "its marks have format {found}, which this build does not read"),
            Self::Replicas(found) => write!(f, "only {found} of its replicas have the marks in time"),
        }
    }
}

impl std::error::Error for Unfit {}

/// What an exchange came to when it did not fail.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// All is well.
    Done(T),
    /// The epoch is over: connect again and find out why.
    EpochIsOver,
}

/// What belongs to a record.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The name of the record.
    record: &'static str,
    /// The name of what is kept beside it.
    kept: &'static str,
    /// The command that counts it.
    counting: &'static str,
}

/// Spent marks, in a sorted set by the end of each.
pub(crate) const MARKS: Kind = Kind { record: "epoch", kept: "marks", counting: "ZCARD" };
/// Sessions, in a hash by their numbers.
pub(crate) const SESSIONS: Kind = Kind { record: "sessions", kept: "rows", counting: "HLEN" };

/// A connection that was checked, in an epoch.
pub(crate) struct Link {
    connection: Connection,
    /// The record, and what is kept.
    keys: [String; 2],
    epoch: String,
    fence: String,
    common: Common,
    wait: Option<(u32, u128)>,
}

/// What all scripts are told.
struct Common {
    max_clock_difference: u64,
    counting: &'static str,
    assume_noeviction: bool,
    clock_skew: u64,
}

impl Common {
    /// A script with the arguments that all have: about the epoch with this id and fence.
    fn eval(&self, script: &str, keys: &[String], now: u64, id: &str, fence: &str) -> redis::Cmd {
        let mut eval = redis::cmd("EVAL");
        eval.arg(script)
            .arg(keys.len())
            .arg(keys)
            .arg(now)
            .arg(self.max_clock_difference)
            .arg(self.counting)
            .arg(u8::from(self.assume_noeviction))
            .arg(id)
            .arg(fence)
            .arg(self.clock_skew);
        eval
    }
}

/// The epoch that was taken over or begun.
pub(crate) struct Epoch {
    /// Seconds; 0 is none.
    pub(crate) fence: u64,
    pub(crate) id: String,
}

/// A session's number and its sealed row.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// The session table, as it was read.
pub(crate) struct Sessions {
    pub(crate) now_ms: u64,
    /// Manifest and rows, if there was a change, and its number.
    pub(crate) changed: Option<(String, Vec<u8>, Vec<Row>)>,
}

/// What is remembered from one connection to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The server's time in milliseconds, and when it said so.
    server_clock: Option<(Instant, u64)>,
    /// The server's clock leapt: what was taken out meanwhile is unknown.
    pub(crate) leapt: bool,
    /// What the server held before was put back.
    pub(crate) played_back: bool,
    /// Whether a connection was ever made.
    connected_before: bool,
}

impl Link {
    /// Connects, checks, and takes over the epoch of this record or begins one.
    pub(crate) fn open(
        options: &RedisOptions,
        kind: &Kind,
        clock: &dyn Clock,
        memory: &mut Memory,
    ) -> Result<(Self, Epoch), Unfit> {
        let mut connection = connect(options)?;
        let server_ms = inspect(&mut connection, options)?;
        check_clock(server_ms, options, clock, memory)?;
        let common = Common {
            max_clock_difference: options.max_clock_difference,
            counting: kind.counting,
            assume_noeviction: options.assume_noeviction,
            clock_skew: options.clock_skew,
        };
        let record = options.key(kind.record);
        let epoch = {
            let latest = clock.now().max(server_ms / 1_000 + 1);
            let begin = Beginning { options, memory, kept: kind.kept, latest, now: clock.now() };
            adopt(&mut connection, &common, &record, &begin)?
        };
        memory.connected_before = true;
        memory.leapt = false;
        memory.played_back = false;
        let wait = (options.wait_replicas > 0)
            .then(|| (options.wait_replicas, (options.reply_timeout / 2).as_millis()));
        let keys = [format!("{record}:{}:{}", epoch.id, kind.kept), record];
        let [kept, record] = keys;
        let fence = epoch.fence.to_string();
        Ok((Self { connection, keys: [record, kept], epoch: epoch.id.clone(), fence, common, wait }, epoch))
    }

    fn eval(&self, script: &str, now: u64) -> redis::Cmd {
        self.common.eval(script, &self.keys, now, &self.epoch, &self.fence)
    }

    /// Spends marks: each, and its end in Unix milliseconds. `now` in Unix seconds. Answers with the server's time and a
    /// digit for each.
    pub(crate) fn spend(
        &mut self,
        marks: &[([u8; 16], u64)],
        now: u64,
    ) -> Result<Answer<(u64, Vec<u8>)>, Unfit> {
        let mut eval = self.eval(script::SPEND, now);
        for (mark, end) in marks {
            eval.arg(*end).arg(mark.as_slice());
        }
        match parse(self.write(eval)?, now)? {
            Answer::EpochIsOver => Ok(Answer::EpochIsOver),
            Answer::Done((now, digits)) if digits.len() == marks.len() => Ok(Answer::Done((now, digits))),
            Answer::Done(_) => Err(nonsense(None)),
        }
    }

    /// Sends one command, and waits for the replicas that were asked for.
    fn write(&mut self, command: redis::Cmd) -> Result<Option<Value>, Unfit> {
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
            Answer::EpochIsOver => Ok(Answer::EpochIsOver),
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
            Answer::EpochIsOver => return Ok(Answer::EpochIsOver),
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
            Answer::EpochIsOver => Ok(Answer::EpochIsOver),
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

/// Looks whether the server is fit; its time, in milliseconds.
fn inspect(connection: &mut Connection, options: &RedisOptions) -> Result<u64, Unfit> {
    let mut pipeline = redis::pipe();
    for section in ["server", "replication", "memory", "stats", "persistence"] {
        pipeline.cmd("INFO").arg(section);
    }
    pipeline.cmd("TIME");
    let (server, replication, memory, stats, persistence, time): (
        String,
        String,
        String,
        String,
        String,
        (u64, u64),
    ) = pipeline.query(connection).map_err(unreachable)?;
    let version = field(&server, "redis_version").ok_or(Unfit::Silent("redis_version"))?;
    if !is_new_enough(version) {
        return Err(Unfit::Version(version.to_owned()));
    }
    if field(&server, "redis_mode") == Some("cluster") {
        return Err(Unfit::Cluster);
    }
    match field(&replication, "role").ok_or(Unfit::Silent("role"))? {
        "master" => {}
        other => return Err(Unfit::NotMaster(other.to_owned())),
    }
    if field(&persistence, "loading").is_some_and(|loading| loading != "0") {
        return Err(Unfit::Loading);
    }
    check_policy(field(&memory, "maxmemory_policy").unwrap_or(""), options)?;
    // What a script does not see it would take for unchanged.
    for (section, name) in [(&server, "run_id"), (&replication, "master_replid"), (&stats, "evicted_keys")] {
        field(section, name).ok_or(Unfit::Silent(name))?;
    }
    Ok(time.0.saturating_mul(1_000).saturating_add(time.1 / 1_000))
}

fn check_policy(policy: &str, options: &RedisOptions) -> Result<(), Unfit> {
    match policy {
        "noeviction" => Ok(()),
        "" if options.assume_noeviction => Ok(()),
        other => Err(unfit_policy(other)),
    }
}

fn unfit_policy(policy: &str) -> Unfit {
    if policy.is_empty() { Unfit::EvictionUnknown } else { Unfit::Eviction(shortened(policy)) }
}

/// Compares the server's time with this machine's, and with what the server's should be by what it was.
pub(crate) fn check_clock(
    server_ms: u64,
    options: &RedisOptions,
    clock: &dyn Clock,
    memory: &mut Memory,
) -> Result<(), Unfit> {
    let allowed = options.max_clock_difference;
    let now = Instant::now();
    if let Some((then, then_ms)) = memory.server_clock {
        let elapsed = u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX);
        let expected = then_ms.saturating_add(elapsed);
        memory.leapt |= expected.abs_diff(server_ms) / 1_000 > allowed;
    }
    memory.server_clock = Some((now, server_ms));
    // This machine's clock is read in whole seconds.
    let apart = (server_ms / 1_000).abs_diff(clock.now());
    if apart > allowed { Err(Unfit::Clock(apart)) } else { Ok(()) }
}

/// What a new epoch would begin with.
struct Beginning<'a> {
    options: &'a RedisOptions,
    memory: &'a Memory,
    kept: &'static str,
    /// The later of both clocks, and this machine's; Unix seconds.
    latest: u64,
    now: u64,
}

fn adopt(
    connection: &mut Connection,
    common: &Common,
    record: &str,
    begin: &Beginning<'_>,
) -> Result<Epoch, Unfit> {
    let Beginning { options, memory, kept, latest, now } = *begin;
    let fence = latest
        .saturating_add(options.clock_skew)
        .saturating_add(options.max_clock_difference.saturating_mul(2))
        .saturating_add(ROUNDING_SECS);
    let trusted = options.first_start && !memory.connected_before;
    let value: Value = common
        .eval(script::ADOPT, &[record.to_owned()], now, &new_epoch()?, &fence.to_string())
        .arg(u8::from(memory.leapt || memory.played_back))
        .arg(u8::from(trusted))
        .arg(kept)
        .query(connection)
        .map_err(unreachable)?;
    let words: Vec<String> = match &value {
        Value::Array(values) => values.iter().map(text).collect::<Option<_>>(),
        _ => None,
    }
    .ok_or_else(|| nonsense(Some(&value)))?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["kept" | "new", id, fence] => {
            Ok(Epoch { fence: fence.parse().map_err(|_| nonsense(None))?, id: (*id).to_owned() })
        }
        ["format", found] => Err(Unfit::Format(shortened(found))),
        ["skew", theirs] => Err(Unfit::Skew(shortened(theirs))),
        ["policy", policy] => Err(unfit_policy(policy)),
        ["clock", server_ms] => {
            Err(Unfit::Clock((server_ms.parse().unwrap_or(u64::MAX) / 1_000).abs_diff(now)))
        }
        _ => Err(nonsense(None)),
    }
}

fn new_epoch() -> Result<String, Unfit> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|_| Unfit::Unreachable("the system's random number generator failed".to_owned()))?;
    Ok(obol_token::text::to_hex(&id))
}

/// `{"epoch"}`, `{"policy", name}`, `{"clock", time}` or `{"done", time, text}`. `now` is the caller's time, as the script was
/// told.
fn parse(value: Option<Value>, now: u64) -> Result<Answer<(u64, Vec<u8>)>, Unfit> {
    let Some(Value::Array(values)) = value else { return Err(nonsense(value.as_ref())) };
    let milliseconds = |time: &i64| u64::try_from(*time).map_err(|_| nonsense(None));
    match values.as_slice() {
        [Value::BulkString(word)] if word == b"epoch" => Ok(Answer::EpochIsOver),
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

fn pairs(values: &[Value]) -> Result<Vec<Row>, Unfit> {
    let (pairs, rest) = values.as_chunks::<2>();
    let bytes = |pair: &[Value; 2]| match pair {
        [Value::BulkString(key), Value::BulkString(value)] => Some((key.clone(), value.clone())),
        _ => None,
    };
    let read: Option<Vec<_>> = pairs.iter().map(bytes).collect();
    read.filter(|_| rest.is_empty()).ok_or_else(|| nonsense(None))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.to_string()),
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

fn nonsense(value: Option<&Value>) -> Unfit {
    match value {
        Some(Value::ServerError(error)) => {
            Unfit::Unreachable(shortened(&format!("{} {}", error.code(), error.details().unwrap_or(""))))
        }
        _ => Unfit::Unreachable("its reply makes no sense".to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreachable(error: redis::RedisError) -> Unfit {
    Unfit::Unreachable(shortened(&error.to_string()))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_verify::ManualClock;

    const NOW: u64 = 1_800_000_000;

    fn options() -> RedisOptions {
        RedisOptions::new("redis://h", "rs").unwrap()
    }

    #[test]
    fn clocks_that_are_too_far_apart_are_refused() {
        let clock = ManualClock::new(NOW);
        for (server, apart) in
            [(NOW, None), (NOW + 5, None), (NOW - 5, None), (NOW + 6, Some(6)), (NOW - 9, Some(9))]
        {
            let outcome = check_clock(server * 1_000, &options(), &clock, &mut Memory::default());
            assert_eq!(outcome, apart.map_or(Ok(()), |apart| Err(Unfit::Clock(apart))), "{server}");
        }
    }

    #[test]
    fn a_leap_of_the_servers_clock_is_remembered_until_a_new_epoch() {
        let clock = ManualClock::new(NOW);
        let mut memory = Memory::default();
        let mut look = |server| {
            let _too_far = check_clock(server * 1_000, &options(), &clock, &mut memory);
            memory.leapt
        };
        assert!(!look(NOW) && !look(NOW + 1));
        assert!(look(NOW + 3_600));
        assert!(look(NOW), "right again, but what expired meanwhile is unknown");
    }

    #[test]
    fn only_the_replies_that_the_scripts_give_make_sense() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert!(matches!(parse(Some(Value::Array(vec![word("epoch")])), NOW), Ok(Answer::EpochIsOver)));
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
