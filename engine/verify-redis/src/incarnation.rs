//! One life of a Redis: whether what it holds is all that was ever spent, and what follows where it is not.
//!
//! # Incarnations and the fence
//!
//! Redis can lose marks without an error: it restarts with nothing or with an old file, a replica that had not
//! received the last writes takes over, somebody flushes the database, keys are evicted, its clock leaps. So the marks
//! belong to an *incarnation*, recorded beside them in `obol:{namespace}:epoch`: a random id, and what must stay as it is
//! for the marks to be complete (`script.rs` has the list, down to how many there are). Every script compares the whole
//! record first, in the same atomic step. Where anything differs, somebody begins a new incarnation with a fence: whatever
//! was issued at or before
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

use std::time::Instant;

use obol_verify::Clock;
use redis::{Connection, Value};

use crate::info::{field, is_new_enough};
use crate::options::RedisOptions;
use crate::script;
use crate::unfit::{Unfit, nonsense, shortened, unfit_policy, unreachable};

/// Two comparisons of clocks in whole seconds may each be wrong by one.
const ROUNDING_SECS: u64 = 2;

/// What belongs to a record.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The name of the record.
    pub(crate) record: &'static str,
    /// The name of what is kept beside it.
    pub(crate) kept: &'static str,
    /// The command that counts it.
    counting: &'static str,
}

/// Spent marks, in a sorted set by the end of each.
pub(crate) const MARKS: Kind = Kind { record: "epoch", kept: "marks", counting: "ZCARD" };
/// Sessions, in a hash by their numbers.
pub(crate) const SESSIONS: Kind = Kind { record: "sessions", kept: "rows", counting: "HLEN" };
/// Records, in a sorted set by the number of the change that wrote each.
pub(crate) const RECORDS: Kind = Kind { record: "records", kept: "log", counting: "ZCARD" };

/// What all scripts are told.
pub(crate) struct Common {
    max_clock_difference: u64,
    counting: &'static str,
    assume_noeviction: bool,
    clock_skew: u64,
}

impl Common {
    /// A script with the arguments that all have: about the incarnation with this id and fence.
    pub(crate) fn eval(&self, script: &str, keys: &[String], now: u64, id: &str, fence: &str) -> redis::Cmd {
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

/// The incarnation that was taken over or begun.
pub(crate) struct Incarnation {
    /// Seconds; 0 is none.
    pub(crate) fence: u64,
    pub(crate) id: String,
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

/// Looks whether the server is fit, and takes over the incarnation of this record or begins one.
pub(crate) fn enter(
    connection: &mut Connection,
    options: &RedisOptions,
    kind: &Kind,
    clock: &dyn Clock,
    memory: &mut Memory,
) -> Result<(Incarnation, Common), Unfit> {
    let server_ms = inspect(connection, options)?;
    check_clock(server_ms, options, clock, memory)?;
    let common = Common {
        max_clock_difference: options.max_clock_difference,
        counting: kind.counting,
        assume_noeviction: options.assume_noeviction,
        clock_skew: options.clock_skew,
    };
    let latest = clock.now().max(server_ms / 1_000 + 1);
    let begin = Beginning { options, memory, kind, latest, now: clock.now() };
    let incarnation = adopt(connection, &common, &begin)?;
    memory.connected_before = true;
    memory.leapt = false;
    memory.played_back = false;
    Ok((incarnation, common))
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

/// What a new incarnation would begin with.
struct Beginning<'a> {
    options: &'a RedisOptions,
    memory: &'a Memory,
    kind: &'a Kind,
    /// The later of both clocks, and this machine's; Unix seconds.
    latest: u64,
    now: u64,
}

fn adopt(connection: &mut Connection, common: &Common, begin: &Beginning<'_>) -> Result<Incarnation, Unfit> {
    let Beginning { options, memory, kind, latest, now } = *begin;
    let fence = latest
        .saturating_add(options.clock_skew)
        .saturating_add(options.max_clock_difference.saturating_mul(2))
        .saturating_add(ROUNDING_SECS);
    let trusted = options.first_start && !memory.connected_before;
    let value: Value = common
        .eval(script::ADOPT, &[options.key(kind.record)], now, &new_id()?, &fence.to_string())
        .arg(u8::from(memory.leapt || memory.played_back))
        .arg(u8::from(trusted))
        .arg(kind.kept)
        .query(connection)
        .map_err(unreachable)?;
    let words: Vec<String> = match &value {
        Value::Array(values) => values.iter().map(text).collect::<Option<_>>(),
        _ => None,
    }
    .ok_or_else(|| nonsense(Some(&value)))?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["kept" | "new", id, fence] => {
            Ok(Incarnation { fence: fence.parse().map_err(|_| nonsense(None))?, id: (*id).to_owned() })
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

fn new_id() -> Result<String, Unfit> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|_| Unfit::Unreachable("the system's random number generator failed".to_owned()))?;
    Ok(obol_token::text::to_hex(&id))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.to_string()),
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_clock::ManualClock;

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
    fn a_leap_of_the_servers_clock_is_remembered_until_a_new_id() {
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
}
