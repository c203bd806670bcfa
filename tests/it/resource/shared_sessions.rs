//! The session table in Redis, and `obol rs` with tables that are kept.

use core::time::Duration;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_token::{Jti, SessionId};
use obol_verify::{
    Clock, Mark, ResourceHalf, SessionSealKey, SessionStore, SessionStoreError, SessionTable, SpendError,
    SpentSet, SystemClock,
};
use obol_verify_redis::{RedisOptions, RedisSessionTable, RedisSpentSet, Unfit};
use obol_world::SESSION;
use obol_world::home::{home, wait_until, write_private};
use obol_world::http::Http;
use obol_world::redis::RedisServer;
use obol_world::rs::{RsProcess, write_sessions, write_sessions_as};
use serde_json::json;

use crate::resource::replicas::mint;

const SECRET: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn entry(id: u64, start: u64) -> ResourceHalf {
    let document = json!({"obol_rs_sessions": 1, "sessions": [{
        "session_id": format!("{id:016x}"), "suite": 1, "aud": "https://rs", "K_session": SECRET,
        "verifier_secret": SECRET, "mutual_auth": SECRET, "SEK_PK": SECRET, "org_id": "org",
        "window": {"start": start, "end": start + 1_000}
    }]});
    ResourceHalf::from_json(document.to_string().as_bytes()).unwrap()
}

fn options(redis: &RedisServer) -> RedisOptions {
    RedisOptions::new(&redis.url(), "rs").unwrap().reply_timeout(Duration::from_secs(5))
}

fn open(options: RedisOptions) -> RedisSessionTable {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    RedisSessionTable::open(options, SessionSealKey::from_bytes([7; 32]), clock).unwrap()
}

/// Whether a session is known and active; `None` while the table cannot tell.
fn active(table: &RedisSessionTable, id: u64) -> Option<bool> {
    let found = table.look_up(SessionId::from_u64(id)).ok()?;
    Some(found.is_some_and(|session| session.is_active()))
}

#[test]
fn a_session_added_or_revoked_on_one_server_is_so_on_the_other() {
    let redis = RedisServer::start(&[]);
    let (one, other) = (open(options(&redis).first_start()), open(options(&redis)));
    one.add(&entry(1, now()), now()).unwrap();
    assert_eq!(active(&one, 1), Some(true));
    wait_until("the other has it", || active(&other, 1) == Some(true));
    let held = one.look_up(SessionId::from_u64(1)).unwrap().unwrap();
    other.revoke(SessionId::from_u64(1), now()).unwrap();
    assert_eq!(active(&other, 1), Some(false));
    wait_until("it is revoked on the first", || active(&one, 1) == Some(false));
    assert!(!held.is_active(), "also for those who hold it");
    for table in [&one, &other, &open(options(&redis))] {
        assert!(matches!(table.add(&entry(1, now()), now()), Err(SessionStoreError::Revoked)));
    }
}

#[test]
fn redis_never_sees_a_key_and_another_key_opens_nothing() {
    let redis = RedisServer::start(&[]);
    let table = open(options(&redis).first_start());
    table.add(&entry(1, now()), now()).unwrap();
    assert_eq!(redis.ask(&["SAVE"]), "OK");
    let dump = std::fs::read(redis.dump()).unwrap();
    assert!(dump.windows(16).any(|window| window == b"0000000000000001"), "the session is in it");
    for secret in [&SECRET.as_bytes()[..12], b"K_session"] {
        assert!(!dump.windows(secret.len()).any(|window| window == secret));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let other = RedisSessionTable::open(options(&redis), SessionSealKey::from_bytes([8; 32]), clock);
    assert!(other.unwrap_err().to_string().contains("another"));
}

#[test]
fn the_rights_that_the_documentation_names_are_enough() {
    let redis = RedisServer::start(&["--protected-mode", "no"]);
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let (_, rest) = document.split_once("ACL SETUSER obol on >… ").expect("the documented user");
    let rights = rest.split("\n\n").next().unwrap().replace('\\', " ");
    let words: Vec<_> =
        ["ACL", "SETUSER", "obol", "on", ">hunter2"].into_iter().chain(rights.split_whitespace()).collect();
    assert_eq!(redis.ask(&words), "OK", "{words:?}");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    write_private(&password, "hunter2");
    let url = redis.tcp_url().replace("redis://", "redis://obol@");
    let options = RedisOptions::new(&url, "rs").unwrap().password_file(&password).unwrap().first_start();
    let table = open(options.clone());
    table.add(&entry(1, now()), now()).unwrap();
    table.add(&entry(2, now()), now()).unwrap();
    table.revoke(SessionId::from_u64(1), now()).unwrap();
    wait_until("changes are read", || (active(&table, 1), active(&table, 2)) == (Some(false), Some(true)));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let spent = RedisSpentSet::open(options, clock).unwrap();
    let mark = Mark::new(SessionId::from_u64(1), &Jti::from_random([1; 16]), now() + 60);
    assert_eq!(spent.spend(mark).wait(), Ok(()));
    assert_eq!(spent.spend(mark).wait(), Err(SpendError::AlreadySpent));
}

fn with_epoch(id: u64, epoch: u64) -> ResourceHalf {
    ResourceHalf { policy_epoch: epoch, ..entry(id, now()) }
}

fn epoch(table: &RedisSessionTable, id: u64) -> Option<u64> {
    Some(table.look_up(SessionId::from_u64(id)).ok()??.policy_epoch())
}

#[test]
fn a_sessions_policy_epoch_never_falls_on_any_server_whatever_is_added() {
    let redis = RedisServer::start(&[]);
    let (one, other) = (open(options(&redis).first_start()), open(options(&redis)));
    one.add(&with_epoch(1, 5), now()).unwrap();
    wait_until("the other knows", || epoch(&other, 1) == Some(5));
    for (server, added, in_force) in [(&other, 1, 5), (&one, 0, 5), (&other, 7, 7), (&one, 6, 7)] {
        server.add(&with_epoch(1, added), now()).unwrap();
        wait_until("it is in force", || {
            [&one, &other].iter().all(|server| epoch(server, 1) == Some(in_force))
        });
        assert_eq!(epoch(&open(options(&redis)), 1), Some(in_force), "a server that starts now");
    }
}

#[test]
fn servers_that_change_the_table_at_the_same_time_lose_nothing() {
    let redis = RedisServer::start(&[]);
    let servers = [
        open(options(&redis).first_start()),
        open(options(&redis)),
        open(options(&redis)),
        open(options(&redis)),
    ];
    std::thread::scope(|scope| {
        for (number, server) in (1..).zip(&servers) {
            scope.spawn(move || {
                for id in 0..20 {
                    server.add(&entry(number * 100 + id, now()), now()).unwrap();
                }
                server.revoke(SessionId::from_u64(number * 100), now()).unwrap();
            });
        }
    });
    let fresh = open(options(&redis));
    for id in (1..=4).flat_map(|server| server * 100..server * 100 + 20) {
        assert_eq!(active(&fresh, id), Some(id % 100 != 0), "{id}");
    }
    assert_eq!(redis.ask(&["HGET", "obol:rs:sessions", "changes"]), "84");
}

/// The key of the sessions of the epoch that is recorded.
fn rows_of(redis: &RedisServer) -> String {
    format!("obol:rs:sessions:{}:rows", redis.ask(&["HGET", "obol:rs:sessions", "id"]))
}

/// Whoever can write to Redis puts something back; what was revoked stays so, on servers that run and on new ones.
fn expect_no_return(put_back: impl Fn(&RedisServer, &str), keep: impl Fn(&RedisServer, &str)) {
    let redis = RedisServer::start(&[]);
    let (one, other) = (open(options(&redis).first_start()), open(options(&redis)));
    one.add(&entry(1, now()), now()).unwrap();
    one.add(&entry(2, now()), now()).unwrap();
    let rows = rows_of(&redis);
    keep(&redis, &rows);
    one.revoke(SessionId::from_u64(1), now()).unwrap();
    wait_until("the other knows", || active(&other, 1) == Some(false));
    put_back(&redis, &rows);
    wait_until("it is noticed: every session is over, on all servers", || {
        [&one, &other].iter().all(|server| server.health().is_ok() && server.fence().is_some())
    });
    for server in [&one, &other, &open(options(&redis))] {
        assert_eq!((active(server, 1), active(server, 2)), (Some(false), Some(false)));
        assert!(matches!(server.add(&entry(1, now()), now()), Err(SessionStoreError::Fenced(_))));
    }
}

#[test]
fn an_old_row_that_is_put_back_ends_every_session() {
    let number = "0000000000000001";
    let keep = |redis: &RedisServer, rows: &str| {
        let script = "return redis.call('SET', 'aside', redis.call('HGET', KEYS[1], ARGV[1]))";
        assert_eq!(redis.ask(&["EVAL", script, "1", rows, number]), "OK");
    };
    let put_back = |redis: &RedisServer, rows: &str| {
        let script = "redis.call('HSET', KEYS[1], ARGV[1], redis.call('GET', 'aside')) \
                      return redis.call('HINCRBY', 'obol:rs:sessions', 'changes', 1)";
        // The manifest of that change is missing, so it does not even open as one.
        assert_eq!(redis.ask(&["EVAL", script, "1", rows, number]), "4");
        redis.ask(&["HDEL", "obol:rs:sessions", "count"]);
    };
    expect_no_return(put_back, keep);
}

#[test]
fn a_revocation_that_is_taken_out_ends_every_session() {
    let put_back = |redis: &RedisServer, rows: &str| {
        assert_eq!(redis.ask(&["HDEL", rows, "0000000000000001"]), "1");
    };
    expect_no_return(put_back, |_, _| {});
}

#[test]
fn a_whole_table_that_is_put_back_ends_every_session() {
    let keep = |redis: &RedisServer, rows: &str| {
        assert_eq!(redis.ask(&["COPY", rows, "aside"]), "1");
        assert_eq!(redis.ask(&["COPY", "obol:rs:sessions", "record-aside"]), "1");
    };
    let put_back = |redis: &RedisServer, rows: &str| {
        redis.ask_all(&[
            &["COPY", "aside", rows, "REPLACE"],
            &["COPY", "record-aside", "obol:rs:sessions", "REPLACE"],
        ]);
    };
    expect_no_return(put_back, keep);
}

#[test]
fn a_row_that_does_not_fit_its_manifest_is_believed_by_no_server() {
    let redis = RedisServer::start(&[]);
    let one = open(options(&redis).first_start());
    one.add(&entry(1, now()), now()).unwrap();
    let rows = rows_of(&redis);
    let script = "return redis.call('SET', 'aside', redis.call('HGET', KEYS[1], ARGV[1]))";
    assert_eq!(redis.ask(&["EVAL", script, "1", &rows, "0000000000000001"]), "OK");
    one.revoke(SessionId::from_u64(1), now()).unwrap();
    // With as many rows and changes as there are: a server that is new has nothing but the manifest to go by.
    let script = "return redis.call('HSET', KEYS[1], ARGV[1], redis.call('GET', 'aside'))";
    assert_eq!(redis.ask(&["EVAL", script, "1", &rows, "0000000000000001"]), "0");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let refused = RedisSessionTable::open(options(&redis), SessionSealKey::from_bytes([7; 32]), clock);
    assert!(matches!(refused.unwrap_err().reason, Unfit::PlayedBack));
    assert_eq!(active(&one, 1), Some(false), "and one that has seen it is not moved");
}

#[test]
fn while_redis_is_away_nothing_is_known_and_when_it_comes_back_every_session_is_over() {
    let mut redis = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let table = open(options(&redis).first_start());
    table.add(&entry(1, now()), now()).unwrap();
    let held = table.look_up(SessionId::from_u64(1)).unwrap().unwrap();
    redis.kill();
    wait_until("it cannot tell", || {
        table.look_up(SessionId::from_u64(1)).is_err() && table.health().is_err()
    });
    assert!(matches!(table.add(&entry(2, now()), now()), Err(SessionStoreError::Unavailable(_))));
    redis.start_again();
    wait_until("it can tell again", || table.health().is_ok());
    assert_eq!(active(&table, 1), Some(false));
    assert!(!held.is_active());
    let fence = table.fence().unwrap();
    assert!(matches!(table.add(&entry(1, now()), now()), Err(SessionStoreError::Fenced(at)) if at == fence));
    table.add(&entry(3, fence + 1), now()).unwrap();
    assert_eq!(active(&table, 3), Some(true));
}

#[test]
fn a_revocation_that_redis_did_not_get_counts_here() {
    let mut redis = RedisServer::start(&[]);
    let table = open(options(&redis).first_start());
    table.add(&entry(1, now()), now()).unwrap();
    let held = table.look_up(SessionId::from_u64(1)).unwrap().unwrap();
    redis.kill();
    assert!(matches!(table.revoke(SessionId::from_u64(1), now()), Err(SessionStoreError::Unavailable(_))));
    assert!(!held.is_active());
}

#[test]
fn a_server_that_keeps_its_sessions_keeps_revocations_through_kill_dash_nine() {
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    for (place, spent) in [("kept.redb", "spent.redb"), (url.as_str(), url.as_str())] {
        let home = home();
        write_sessions(home.path(), now());
        let arguments =
            ["--session-store", place, "--session-key", "session.key", "--spent", spent, "--first-start"];
        let mut rs = RsProcess::start(home.path(), &arguments);
        let mut number = 0;
        let mut present = |rs: &RsProcess| {
            number += 1;
            let token = mint(u64::from(place == url) * 1_000 + number, 1).pop().unwrap();
            Http::new(rs.port()).present(&token).unwrap()
        };
        assert_eq!(present(&rs), "OK", "{place}");
        write_sessions_as(home.path(), now(), "revoked");
        assert!(Command::new("kill").args(["-HUP", &rs.pid().to_string()]).status().unwrap().success());
        wait_until("it is said to be revoked", || rs.log().contains("sessions read again"));
        assert_ne!(present(&rs), "OK", "{place}");
        // The file says that it is active, as an old copy of it would.
        write_sessions(home.path(), now());
        rs.kill();
        rs.start_again();
        assert_eq!(present(&rs), "SESSION_NOT_FOUND", "{place}: session {SESSION}");
    }
}
