//! Several real resource servers and one real Redis, all of them killed and started again, while every token is sent
//! five times: none is accepted twice.
//!
//! `OBOL_SOAK_REPLICA_TOKENS=100000 cargo nextest run --release -p obol-tests replicas` is the long form.

use core::cmp::Reverse;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_token::text::to_base64url;
use obol_token::{Jti, Minter, ResponseKey, TokenSeed, Validity};
use obol_world::KEYS;
use obol_world::home::{home, wait_until};
use obol_world::http::Http;
use obol_world::redis::RedisServer;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::scope::{parsed, scope_json};

/// How often each token is sent.
const SENDS: usize = 5;
/// Within how long.
const SPREAD: Duration = Duration::from_secs(6);
/// Connections to each server.
const SENDERS: usize = 8;
/// How late a sending may be before no more tokens are made. Otherwise all that is sent on a busy machine is older than
/// the newest fence, and nothing is tried.
const MOST_LATE: Duration = Duration::from_millis(300);
/// Between two blows.
const LULL: Duration = Duration::from_secs(4);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Tokens of the fixture's session, issued now.
pub(crate) fn mint(first: u64, count: u64) -> Vec<String> {
    let seeds: Vec<_> = (first..first + count)
        .map(|number| {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&number.to_be_bytes());
            let jti = Jti::from_random(name);
            let mut iv = [0; 12];
            iv[..8].copy_from_slice(&number.to_be_bytes());
            TokenSeed { jti, iv, response_key: ResponseKey::from_bytes([5; 32]), nonce: None }
        })
        .collect();
    let issued_at = now();
    let material = KEYS.material();
    let minter = Minter::new(&material, &parsed(&scope_json()), 1).unwrap();
    let tokens = minter.mint(Validity { issued_at, expires_at: issued_at + 60 }, &seeds).unwrap();
    tokens.iter().map(|token| to_base64url(token)).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

#[derive(Default)]
struct Schedule {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    /// What is still to be sent: when, which token, to which server.
    sends: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    tokens: Vec<Arc<str>>,
    complete: bool,
}

impl Schedule {
    fn add(&self, token: &str, sends: impl Iterator<Item = (Instant, usize)>) {
        let mut state = self.state.lock().unwrap();
        let number = state.tokens.len();
        state.tokens.push(token.into());
        state.sends.extend(sends.map(|(when, server)| Reverse((when, number, server))));
        self.changed.notify_all();
    }

    fn complete(&self) {
        self.state.lock().unwrap().complete = true;
        self.changed.notify_all();
    }

    /// Waits until the senders have caught up.
    fn caught_up(&self) {
        let late = || {
            let state = self.state.lock().unwrap();
            state.sends.peek().is_some_and(|Reverse((when, ..))| when.elapsed() > MOST_LATE)
        };
        while late() {
            std::thread::sleep(MOST_LATE / 10);
        }
    }

    /// Waits for the next sending; `None` when there is none left.
    fn next(&self) -> Option<(usize, Arc<str>, usize)> {
        let mut state = self.state.lock().unwrap();
        loop {
            let left = match state.sends.peek() {
                Some(Reverse((when, ..))) => when.saturating_duration_since(Instant::now()),
                None if state.complete => return None,
                None => LULL,
            };
            if left.is_zero() {
                let Reverse((_, number, server)) = state.sends.pop()?;
                return Some((number, Arc::clone(&state.tokens[number]), server));
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// What came of it.
#[derive(Default, Debug)]
struct Ledger {
    /// Acceptances of each token.
    accepted: BTreeMap<usize, u32>,
    outcomes: BTreeMap<String, u32>,
}

impl Ledger {
    fn accepted_twice(&self) -> usize {
        self.accepted.values().filter(|count| **count > 1).count()
    }

    fn count(&self, outcome: &str) -> u32 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

/// Sends `tokens` tokens five times each, at random moments to random servers, while `blows` fall in turn until all is
/// sent.
fn storm(ports: &[u16], tokens: u64, lasting: Duration, mut blow: impl FnMut(usize)) -> Ledger {
    let schedule = Schedule::default();
    let ledger = Mutex::new(Ledger::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut random = Random(0x0B01 + now());
            let began = Instant::now();
            for number in 0..tokens {
                let due = began + lasting.mul_f64(number as f64 / tokens as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                schedule.caught_up();
                let token = mint(number, 1).pop().unwrap();
                let sends: Vec<_> = (0..SENDS)
                    .map(|_| {
                        // A third comes at once, so that equals race; the rest straddles what happens meanwhile.
                        let late = if random.below(3) == 0 { 0 } else { random.below(1_000) };
                        (Instant::now() + SPREAD.mul_f64(late as f64 / 1_000.0), random.below(ports.len()))
                    })
                    .collect();
                schedule.add(&token, sends.into_iter());
            }
            schedule.complete();
        });
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut servers: Vec<_> = ports.iter().map(|port| Http::new(*port)).collect();
                    while let Some((number, token, server)) = schedule.next() {
                        let outcome = servers[server].present(&token);
                        let mut ledger = ledger.lock().unwrap();
                        if outcome.as_deref() == Some("OK") {
                            *ledger.accepted.entry(number).or_default() += 1;
                        }
                        *ledger.outcomes.entry(outcome.unwrap_or("(no answer)".to_owned())).or_default() += 1;
                    }
                })
            })
            .collect();
        let over = &over;
        scope.spawn(move || {
            producer.join().unwrap();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            over.store(true, Ordering::SeqCst);
        });
        let mut next_blow = Instant::now() + LULL;
        let mut number = 0;
        while !over.load(Ordering::SeqCst) {
            if Instant::now() >= next_blow {
                blow(number);
                number += 1;
                next_blow = Instant::now() + LULL;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    ledger.into_inner().unwrap()
}

/// How many tokens, and over which time.
fn size(quick: u64) -> (u64, Duration) {
    match std::env::var("OBOL_SOAK_REPLICA_TOKENS") {
        Ok(tokens) => {
            let tokens = tokens.parse().expect("OBOL_SOAK_REPLICA_TOKENS is a number of tokens");
            (tokens, Duration::from_secs(tokens / 300).max(Duration::from_secs(27)))
        }
        Err(_) => (quick, Duration::from_secs(27)),
    }
}

fn check(ledger: &Ledger, tokens: u64) {
    eprintln!("{} of {tokens} tokens accepted; answers: {:?}", ledger.accepted.len(), ledger.outcomes);
    assert_eq!(ledger.accepted_twice(), 0, "accepted twice");
    let sent: u32 = ledger.outcomes.values().sum();
    assert_eq!(u64::from(sent), tokens * SENDS as u64);
    // Otherwise nothing was tried.
    assert!(ledger.accepted.len() as u64 > tokens / 20, "{:?}", ledger.outcomes);
    assert!(ledger.count("TOKEN_REPLAYED") > 0, "{:?}", ledger.outcomes);
}

/// A home with sessions and a configuration that allows for no skew, so that a fence passes within seconds.
fn prepared_home() -> tempfile::TempDir {
    let home = home();
    write_sessions(home.path(), now());
    std::fs::write(home.path().join("obol.toml"), "[rs]\nclock_skew = 0\nredis_clock_difference = 1\n")
        .unwrap();
    home
}

#[test]
fn three_replicas_over_one_redis_accept_no_token_twice_whatever_is_killed() {
    let mut redis = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let home = prepared_home();
    let url = redis.url();
    let mut replicas: Vec<_> =
        (0..3).map(|_| RsProcess::start(home.path(), &["--config", "obol.toml", "--spent", &url])).collect();
    let ports: Vec<_> = replicas.iter().map(RsProcess::port).collect();
    let (tokens, lasting) = size(5_000);
    redis.copy_files();
    let ledger = storm(&ports, tokens, lasting, |number| match number % 8 {
        1 => {
            redis.kill();
            redis.start_again();
        }
        3 => {
            redis.kill();
            redis.lose_files();
            redis.start_again();
            redis.copy_files();
        }
        5 => {
            redis.kill();
            redis.restore_files();
            redis.start_again();
        }
        7 => {
            redis.ask(&["FLUSHALL"]);
        }
        other => {
            let replica = &mut replicas[other / 2 % 3];
            replica.kill();
            replica.start_again();
        }
    });
    check(&ledger, tokens);
    assert!(ledger.count("STALE_TIMESTAMP") > 0, "a fence stopped nothing: {:?}", ledger.outcomes);
}

#[test]
fn one_server_with_a_file_accepts_no_token_twice_however_often_it_is_killed() {
    let home = prepared_home();
    let arguments = ["--config", "obol.toml", "--spent", "spent.redb", "--first-start"];
    let mut rs = RsProcess::start(home.path(), &arguments);
    let (tokens, lasting) = size(3_000);
    let port = rs.port();
    let ledger = storm(&[port], tokens, lasting, |_| {
        rs.kill();
        rs.start_again();
    });
    check(&ledger, tokens);
}

/// The control: servers that forget, or do not share what they know. The same storm must catch them.
#[test]
fn the_storm_catches_servers_that_do_not_share_their_marks() {
    let home = prepared_home();
    let arguments = ["--config", "obol.toml", "--spent", "memory", "--first-start"];
    let mut replicas: Vec<_> = (0..3).map(|_| RsProcess::start(home.path(), &arguments)).collect();
    let ports: Vec<_> = replicas.iter().map(RsProcess::port).collect();
    let ledger = storm(&ports, 200, Duration::from_secs(7), |number| {
        let replica = &mut replicas[number % 3];
        replica.kill();
        replica.start_again();
    });
    assert!(ledger.accepted_twice() > 20, "{ledger:?}");
}

/// The control for the fence: whoever says wrongly that nothing was spent yet does without it.
#[test]
fn without_the_fence_a_redis_that_lost_its_marks_lets_a_token_in_again() {
    let mut redis = RedisServer::start(&[]);
    let home = prepared_home();
    let url = redis.url();
    for (first_start, second) in [(true, "OK"), (false, "STALE_TIMESTAMP")] {
        redis.kill();
        redis.start_again();
        let mut arguments = vec!["--config", "obol.toml", "--spent", &url, "--first-start"];
        let mut rs = RsProcess::start(home.path(), &arguments);
        let token = mint(u64::from(first_start), 1).pop().unwrap();
        assert_eq!(Http::new(rs.port()).present(&token).unwrap(), "OK");
        assert_eq!(Http::new(rs.port()).present(&token).unwrap(), "TOKEN_REPLAYED");
        rs.kill();
        redis.kill();
        redis.start_again();
        if !first_start {
            arguments.pop();
        }
        let rs = RsProcess::start(home.path(), &arguments);
        assert_eq!(Http::new(rs.port()).present(&token).unwrap(), second);
    }
}

#[test]
fn a_server_is_not_ready_while_redis_is_away_and_accepts_nothing() {
    let mut redis = RedisServer::start(&[]);
    let home = prepared_home();
    let rs =
        RsProcess::start(home.path(), &["--config", "obol.toml", "--spent", &redis.url(), "--first-start"]);
    let token = mint(1, 1).pop().unwrap();
    redis.kill();
    let began = Instant::now();
    wait_until("it is not ready", || rs.get("/readyz") == 503);
    eprintln!("not ready after {:?}", began.elapsed());
    assert_eq!(Http::new(rs.port()).present(&token).unwrap(), "UNAVAILABLE");
    redis.start_again();
    wait_until("it is ready again", || rs.get("/readyz") == 200);
    // The token was refused and not burned, and now the fence stands before it.
    assert_eq!(Http::new(rs.port()).present(&token).unwrap(), "STALE_TIMESTAMP");
    wait_until("the fence is behind", || {
        let fresh = mint(1_000 + now(), 1).pop().unwrap();
        Http::new(rs.port()).present(&fresh).unwrap() == "OK"
    });
}

#[test]
fn a_redis_that_may_evict_stops_the_start_with_words() {
    let redis = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let home = prepared_home();
    let output = obol_world::home::command(home.path())
        .args(["rs", "--sessions", "sessions.json", "--listen", "127.0.0.1:0", "--spent", &redis.url()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.contains("allkeys-lru") && text.contains("CONFIG SET maxmemory-policy noeviction"),
        "{text}"
    );
}
