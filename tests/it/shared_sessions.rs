//! The session table in Redis, and `obol rs` with tables that are kept.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use obol_token::{Jti, SessionId};
use obol_verify::{
    Clock, Mark, ResourceHalf, SessionSealKey, SessionStore, SessionStoreError, SessionTable, SpendError,
    SpentSet, SystemClock,
};
use obol_verify_redis::{RedisOptions, RedisSessionTable, RedisSpentSet};
use serde_json::json;

use crate::process::{home, write_private};
use crate::redis_server::{RedisServer, eventually};
use crate::replicas::mint;
use crate::rs_fixture::SESSION;
use crate::rs_process::{Http, RsProcess, write_sessions, write_sessions_as};

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
    let found = table.look_up(SessionId(id)).ok()?;
    Some(found.is_some_and(|session| session.is_active()))
}

#[test]
fn a_session_added_or_revoked_on_one_server_is_so_on_the_other() {
    let redis = RedisServer::start(&[]);
    let (one, other) = (open(options(&redis).first_start()), open(options(&redis)));
    one.add(&entry(1, now()), now()).unwrap();
    assert_eq!(active(&one, 1), Some(true));
    eventually("the other has it", || active(&other, 1) == Some(true));
    let held = one.look_up(SessionId(1)).unwrap().unwrap();
    other.revoke(SessionId(1), now()).unwrap();
    assert_eq!(active(&other, 1), Some(false));
    eventually("it is revoked on the first", || active(&one, 1) == Some(false));
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
    table.revoke(SessionId(1), now()).unwrap();
    eventually("changes are read", || (active(&table, 1), active(&table, 2)) == (Some(false), Some(true)));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let spent = RedisSpentSet::open(options, clock).unwrap();
    let mark = Mark::new(SessionId(1), &Jti::from_random([1; 16]), now() + 60);
    assert_eq!(spent.spend(mark).wait(), Ok(()));
    assert_eq!(spent.spend(mark).wait(), Err(SpendError::AlreadySpent));
}

#[test]
fn while_redis_is_away_nothing_is_known_and_when_it_comes_back_every_session_is_over() {
    let mut redis = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let table = open(options(&redis).first_start());
    table.add(&entry(1, now()), now()).unwrap();
    let held = table.look_up(SessionId(1)).unwrap().unwrap();
    redis.kill();
    eventually("it cannot tell", || table.look_up(SessionId(1)).is_err() && table.health().is_err());
    assert!(matches!(table.add(&entry(2, now()), now()), Err(SessionStoreError::Unavailable(_))));
    redis.start_again();
    eventually("it can tell again", || table.health().is_ok());
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
    let held = table.look_up(SessionId(1)).unwrap().unwrap();
    redis.kill();
    assert!(matches!(table.revoke(SessionId(1), now()), Err(SessionStoreError::Unavailable(_))));
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
        eventually("it is said to be revoked", || rs.log().contains("sessions read again"));
        assert_ne!(present(&rs), "OK", "{place}");
        // The file says that it is active, as an old copy of it would.
        write_sessions(home.path(), now());
        rs.kill();
        rs.start_again();
        assert_eq!(present(&rs), "SESSION_NOT_FOUND", "{place}: session {SESSION}");
    }
}
