//! The connection: who is at the other end, and whether what it holds is all that was ever spent.
//!
//! # Epochs and the fence
//!
//! Redis can lose marks without an error: it restarts with nothing or with an old file, a replica that had not
//! received the last writes takes over, somebody flushes the database, keys are evicted, its clock leaps ahead and
//! they expire. So the marks belong to an *epoch*, recorded beside them in `obol:{namespace}:epoch`: a random id, and
//! what must stay as it is for the marks to be complete: the server process (`run_id`), its replication history
//! (`master_replid`), its count of evicted keys. Every script compares the record first, in the same atomic step.
//! Where anything differs, somebody begins a new epoch with a fence: whatever was issued at or before
//!
//! ```text
//! the later of this machine's time and the server's + clock skew + 2 × the clock difference allowed + 2 s
//! ```
//!
//! is refused by everyone. A token spent in the lost past cannot have been issued later: whoever accepted it had a
//! clock within the allowed difference of the server's, as we have, and accepts issue times at most the skew ahead. The
//! last two seconds are for clocks that are compared in whole seconds.
//!
//! A connection belongs to one server process, so `run_id` is asked once for each connection. (This is why a proxy
//! that spreads one connection over several servers is not supported.)

use core::fmt;
use std::time::Instant;

use obol_verify::Clock;
use redis::{Connection, ConnectionLike as _, Value};

use crate::info::{field, is_new_enough};
use crate::options::RedisOptions;
use crate::script;

/// The longest text of an error that is passed on, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// Two comparisons of clocks in whole seconds may each be wrong by one.
const ROUNDING_SEC: u64 = 2;

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
    /// Its clock leapt, so marks may have expired before their time.
    Leapt,
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

/// A connection that was checked, in an epoch.
pub(crate) struct Link {
    connection: Connection,
    epoch_key: String,
    epoch: String,
    wait: Option<(u32, u128)>,
}

/// The epoch that was taken over or begun.
pub(crate) struct Epoch {
    /// Seconds; 0 is none.
    pub(crate) fence: u64,
    pub(crate) id: String,
    /// The one before, where this one is new.
    pub(crate) before: Option<String>,
}

/// A change of the session table.
pub(crate) struct Change<'a> {
    /// `add` or `revoke`.
    pub(crate) what: &'static str,
    /// 16 hex digits.
    pub(crate) number: &'a str,
    pub(crate) value: &'a [u8],
    pub(crate) max_sessions: usize,
}

/// A session's number and its sealed text.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// The session table, as it was read.
pub(crate) struct Sessions {
    pub(crate) now_ms: u64,
    pub(crate) changes: String,
    pub(crate) rows: Option<Vec<Row>>,
}

/// What is remembered from one connection to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The server's time in milliseconds, and when it said so.
    server_clock: Option<(Instant, u64)>,
    /// The server's clock leapt: what expired meanwhile is unknown.
    pub(crate) leapt: bool,
    /// Whether a connection was ever made.
    connected_before: bool,
}

/// What the server said about itself.
struct Identity {
    run_id: String,
    replid: String,
    evicted: String,
    now_ms: u64,
}

impl Link {
    /// Connects, checks, and takes over the epoch of this record or begins one.
    pub(crate) fn open(
        options: &RedisOptions,
        record: &str,
        clock: &dyn Clock,
        memory: &mut Memory,
    ) -> Result<(Self, Epoch), Unfit> {
        let mut connection = connect(options)?;
        let identity = inspect(&mut connection, options)?;
        check_clock(identity.now_ms, options, clock, memory)?;
        let epoch_key = options.key(record);
        let epoch = adopt(&mut connection, options, &epoch_key, clock, &identity, memory)?;
        memory.connected_before = true;
        memory.leapt = false;
        let wait = (options.wait_replicas > 0)
            .then(|| (options.wait_replicas, (options.reply_timeout / 2).as_millis()));
        Ok((Self { connection, epoch_key, epoch: epoch.id.clone(), wait }, epoch))
    }

    /// Spends marks: key and end in Unix milliseconds of each. Answers with the server's time and a digit for each.
    pub(crate) fn spend(&mut self, marks: &[(Vec<u8>, u64)]) -> Result<Answer<(u64, Vec<u8>)>, Unfit> {
        let mut pipeline = redis::pipe();
        let eval = pipeline.cmd("EVAL").arg(script::SPEND).arg(marks.len() + 1).arg(&self.epoch_key);
        for (key, _) in marks {
            eval.arg(key.as_slice());
        }
        eval.arg(&self.epoch);
        for (_, end) in marks {
            eval.arg(*end);
        }
        match parse(self.write(pipeline)?)? {
            Answer::EpochIsOver => Ok(Answer::EpochIsOver),
            Answer::Done((now, digits)) if digits.len() == marks.len() => Ok(Answer::Done((now, digits))),
            Answer::Done(_) => Err(nonsense(None)),
        }
    }

    /// Sends one command, and waits for the replicas that were asked for.
    fn write(&mut self, mut pipeline: redis::Pipeline) -> Result<Option<Value>, Unfit> {
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

    /// Adds a session (`add` and its sealed text) or revokes one (`revoke` and the time). Answers with what came of it.
    pub(crate) fn change(&mut self, change: &Change<'_>) -> Result<Answer<Vec<u8>>, Unfit> {
        let [sealed, revoked] = self.session_keys(&self.epoch);
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVAL")
            .arg(script::CHANGE)
            .arg(3)
            .arg(&self.epoch_key)
            .arg(sealed)
            .arg(revoked)
            .arg(&self.epoch)
            .arg(change.what)
            .arg(change.number)
            .arg(change.value)
            .arg(change.max_sessions);
        Ok(match parse(self.write(pipeline)?)? {
            Answer::EpochIsOver => Answer::EpochIsOver,
            Answer::Done((_, word)) => Answer::Done(word),
        })
    }

    /// The server's time, the number of the last change, and the sealed sessions if that is not the one known.
    pub(crate) fn read(&mut self, known: &str) -> Result<Answer<Sessions>, Unfit> {
        let [sealed, revoked] = self.session_keys(&self.epoch);
        let value: Value = redis::cmd("EVAL")
            .arg(script::READ)
            .arg(3)
            .arg(&self.epoch_key)
            .arg(sealed)
            .arg(revoked)
            .arg(&self.epoch)
            .arg(known)
            .query(&mut self.connection)
            .map_err(unreachable)?;
        let Value::Array(mut values) = value else { return Err(nonsense(Some(&value))) };
        let rows = match values.len() {
            4 => match values.pop() {
                Some(Value::Array(rows)) => Some(pairs(&rows)?),
                other => return Err(nonsense(other.as_ref())),
            },
            _ => None,
        };
        Ok(match parse(Some(Value::Array(values)))? {
            Answer::EpochIsOver => Answer::EpochIsOver,
            Answer::Done((now_ms, changes)) => {
                let changes = String::from_utf8(changes).map_err(|_| nonsense(None))?;
                Answer::Done(Sessions { now_ms, changes, rows })
            }
        })
    }

    /// Deletes the sessions of an epoch that is over. Nobody reads them any more; this only makes room.
    pub(crate) fn forget(&mut self, epoch: &str) {
        let keys = self.session_keys(epoch);
        let _makes_room_only = redis::cmd("UNLINK").arg(&keys).query::<Value>(&mut self.connection);
    }

    /// Sessions belong to an epoch by name: what a new one finds is empty.
    fn session_keys(&self, epoch: &str) -> [String; 2] {
        ["sealed", "revoked"].map(|what| format!("{}:{epoch}:{what}", self.epoch_key))
    }

    /// Looks whether all is well. Answers with the server's time.
    pub(crate) fn watch(&mut self, options: &RedisOptions) -> Result<Answer<u64>, Unfit> {
        let value = redis::cmd("EVAL")
            .arg(script::WATCH)
            .arg(1)
            .arg(&self.epoch_key)
            .arg(&self.epoch)
            .query(&mut self.connection)
            .map_err(unreachable)?;
        match parse(Some(value))? {
            Answer::EpochIsOver => Ok(Answer::EpochIsOver),
            Answer::Done((now, policy)) => {
                check_policy(core::str::from_utf8(&policy).unwrap_or("unreadable"), options)?;
                Ok(Answer::Done(now))
            }
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

fn inspect(connection: &mut Connection, options: &RedisOptions) -> Result<Identity, Unfit> {
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
    let text = |value: Option<&str>, what| value.map(str::to_owned).ok_or(Unfit::Silent(what));
    Ok(Identity {
        run_id: text(field(&server, "run_id"), "run_id")?,
        replid: text(field(&replication, "master_replid"), "master_replid")?,
        evicted: text(field(&stats, "evicted_keys"), "evicted_keys")?,
        now_ms: time.0.saturating_mul(1_000).saturating_add(time.1 / 1_000),
    })
}

fn check_policy(policy: &str, options: &RedisOptions) -> Result<(), Unfit> {
    match policy {
        "noeviction" => Ok(()),
        "" if options.assume_noeviction => Ok(()),
        "" => Err(Unfit::EvictionUnknown),
        other => Err(Unfit::Eviction(other.to_owned())),
    }
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

fn adopt(
    connection: &mut Connection,
    options: &RedisOptions,
    epoch_key: &str,
    clock: &dyn Clock,
    identity: &Identity,
    memory: &Memory,
) -> Result<Epoch, Unfit> {
    let latest = clock.now().max(identity.now_ms / 1_000 + 1);
    let fence = latest
        .saturating_add(options.clock_skew)
        .saturating_add(options.max_clock_difference.saturating_mul(2))
        .saturating_add(ROUNDING_SEC);
    let trusted = options.first_start && !memory.connected_before;
    let value: Value = redis::cmd("EVAL")
        .arg(script::ADOPT)
        .arg(1)
        .arg(epoch_key)
        .arg(new_epoch()?)
        .arg(&identity.run_id)
        .arg(&identity.replid)
        .arg(&identity.evicted)
        .arg(fence)
        .arg(options.clock_skew)
        .arg(u8::from(memory.leapt))
        .arg(u8::from(trusted))
        .query(connection)
        .map_err(unreachable)?;
    let words: Vec<String> = match &value {
        Value::Array(values) => values.iter().map(text).collect::<Option<_>>(),
        _ => None,
    }
    .ok_or_else(|| nonsense(Some(&value)))?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["kept" | "new", id, fence, before @ ..] => {
            let fence = fence.parse().map_err(|_| nonsense(None))?;
            let before = before.first().filter(|id| !id.is_empty()).map(|id| (*id).to_owned());
            Ok(Epoch { fence, id: (*id).to_owned(), before })
        }
        ["format", found] => Err(Unfit::Format((*found).to_owned())),
        ["skew", theirs] => Err(Unfit::Skew((*theirs).to_owned())),
        ["again"] => Err(Unfit::Unreachable("its replication history changed meanwhile".to_owned())),
        _ => Err(nonsense(None)),
    }
}

fn new_epoch() -> Result<String, Unfit> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|_| Unfit::Unreachable("the system's random number generator failed".to_owned()))?;
    Ok(obol_token::text::to_hex(&id))
}

/// `{"epoch"}`, or `{"done", time, text}`.
fn parse(value: Option<Value>) -> Result<Answer<(u64, Vec<u8>)>, Unfit> {
    let Some(Value::Array(values)) = value else { return Err(nonsense(value.as_ref())) };
    match values.as_slice() {
        [Value::BulkString(word)] if word == b"epoch" => Ok(Answer::EpochIsOver),
        [Value::BulkString(word), Value::Int(now), Value::BulkString(rest)] if word == b"done" => {
            let now = u64::try_from(*now).map_err(|_| nonsense(None))?;
            Ok(Answer::Done((now, rest.clone())))
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
        assert!(matches!(parse(Some(Value::Array(vec![word("epoch")]))), Ok(Answer::EpochIsOver)));
        let done = Value::Array(vec![word("done"), Value::Int(5), word("10")]);
        assert!(matches!(parse(Some(done)), Ok(Answer::Done((5, digits))) if digits == b"10"));
        for nonsense in [
            Value::Nil,
            Value::Okay,
            Value::Array(vec![]),
            Value::Array(vec![word("done")]),
            Value::Array(vec![word("done"), Value::Int(-1), word("1")]),
            Value::Array(vec![word("done"), word("5"), word("1")]),
        ] {
            assert!(parse(Some(nonsense.clone())).is_err(), "{nonsense:?}");
        }
        assert!(parse(None).is_err());
    }
}
