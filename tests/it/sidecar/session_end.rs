//! Sessions end in the open: an older one takes over, nothing is minted for nobody, and whoever asks hears the same.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_ipc::refusal::ErrorCode;
use obol_ipc::time::UtcTime;
use obol_queue::{DequeueError, FlushScope, ProvisionError, Queue, SessionId, SessionState, ToolStatus};
use obol_world::ManualClock;
use obol_world::halves::AgentSession;
use obol_world::home::{self, Store, wait_until};
use obol_world::tqs::Tqs;
use serde_json::Value;

use super::{get, tool};
use crate::queue::{eventually, now, open_at};

const PATIENCE: Duration = Duration::from_secs(10);
const START: u64 = 1_800_000_000;
/// The least life of a token of the fixture's tools, in seconds.
const MIN_LIFE_SECS: u64 = 5;

fn session(number: u64, lifetime: u64) -> AgentSession {
    AgentSession { expires_at: START + lifetime, ..AgentSession::new(number, START, &["search"]) }
}

fn states(queue: &Queue) -> Vec<SessionState> {
    queue.sessions().into_iter().map(|session| session.state).collect()
}

#[test]
fn an_older_session_serves_when_the_newer_ends() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(session(1, 3600).document()).unwrap();
    queue.provision(session(2, 60).document()).unwrap();
    let from = || queue.dequeue_within("search", PATIENCE).map(|token| token.session_id());
    assert_eq!(from().unwrap(), SessionId::from_u64(2));
    assert_eq!(states(&queue), [SessionState::Active; 2]);

    clock.set(START + 60 - MIN_LIFE_SECS + 1);
    assert_eq!(from().unwrap(), SessionId::from_u64(1), "what is left of the newer is too short for a token");
    assert_eq!(states(&queue), [SessionState::Active, SessionState::Expired]);
    assert_eq!(queue.session_info().unwrap().session_id, SessionId::from_u64(1));
    assert_eq!(queue.last_end(), Some(START + 3600));

    clock.set(START + 3600);
    assert_eq!(from().unwrap_err(), DequeueError::SessionEnded(START + 3600));
    assert_eq!(queue.session_info().unwrap_err(), DequeueError::SessionEnded(START + 3600));
    clock.set(START + 4000);
    eventually("both are forgotten", || queue.sessions().is_empty());
    assert_eq!(from().unwrap_err(), DequeueError::SessionEnded(START + 3600), "its end is remembered");
    assert_eq!(queue.last_end(), Some(START + 3600));
}

#[test]
fn who_waits_for_a_token_of_a_session_that_ends_gets_one_of_the_older() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(session(1, 3600).document()).unwrap();
    queue.provision(session(2, 60).document()).unwrap();
    // Whatever is ready is used up; the one who draws then waits.
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            loop {
                let token = queue.dequeue_within("search", PATIENCE).unwrap();
                if token.session_id() == SessionId::from_u64(1) {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        clock.set(START + 60);
        waiting.join().unwrap();
    });
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn nothing_is_minted_that_could_not_be_handed_out() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(session(1, 60).document()).unwrap();
    queue.dequeue_within("search", PATIENCE).unwrap();
    clock.set(START + 60 - MIN_LIFE_SECS + 1);
    let minted = || queue.tools().iter().map(|tool| tool.minted).sum::<u64>();
    // One batch may be under way.
    std::thread::sleep(Duration::from_millis(300));
    let before = minted();
    for _ in 0..50 {
        assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionEnded(START + 60));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(minted(), before);
    let tool = &queue.tools()[0];
    assert_eq!((tool.renewal_pending, tool.retry_after), (false, None));
}

#[test]
fn a_flush_is_not_undone_by_an_older_session_until_resume() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(session(1, 3600).document()).unwrap();
    queue.provision(session(2, 60).document()).unwrap();
    queue.flush(&FlushScope::Session(SessionId::from_u64(2)), "test").unwrap();
    let from = |queue: &Queue| queue.dequeue_within("search", PATIENCE).map(|token| token.session_id());
    for time in [START, START + 60, START + 600] {
        clock.set(time);
        // Time enough to forget a session whose time is over.
        std::thread::sleep(Duration::from_millis(1_300));
        assert!(from(&queue).is_err(), "at {time}");
        assert_eq!(states(&queue), [SessionState::Held, SessionState::Flushed], "at {time}");
    }
    drop(queue);
    let queue = open_at(&store, &clock);
    assert!(from(&queue).is_err(), "after a restart");
    assert_eq!(queue.resume().unwrap(), None, "nothing was held back");
    assert_eq!(from(&queue).unwrap(), SessionId::from_u64(1));
    drop(queue);
    assert_eq!(from(&open_at(&store, &clock)).unwrap(), SessionId::from_u64(1), "resume lasts");
}

#[test]
fn a_session_that_is_too_near_its_end_for_a_token_is_not_taken() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    clock.set(START + 60 - MIN_LIFE_SECS);
    queue.provision(session(1, 60).document()).unwrap();
    queue.dequeue_within("search", PATIENCE).unwrap();
    clock.advance(1);
    let refused = queue.provision(session(2, 60).document());
    assert!(matches!(refused, Err(ProvisionError::Expired)), "{refused:?}");
}

/// What everybody who can be asked says of the only session: whether it can be drawn from.
fn opinions(home: &std::path::Path, tqs: &Tqs) -> Vec<(&'static str, bool)> {
    let status = tqs.control().status().unwrap();
    let active = |state| state == obol_ipc::control::SessionState::Active;
    vec![
        ("status", status.sessions.iter().any(|session| active(session.state))),
        ("/readyz", get(home, "/readyz").0 == 200),
        ("health", tqs.control().health().unwrap().ready),
        ("tokenStatus", tqs.client().token_status(None).unwrap().session_active),
        ("sessionInfo", tqs.client().session_info().is_ok()),
        ("the audit log", {
            let log = std::fs::read_to_string(home.join("audit.jsonl")).unwrap_or_default();
            !log.lines().any(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["event"] == "session_end" && line["reason"] == "its time is over"
            })
        }),
    ]
}

#[test]
fn everybody_says_within_a_second_that_a_session_has_ended() {
    let home = home::home();
    let end = now() + 14;
    let world = AgentSession { expires_at: end, ..AgentSession::new(1, now(), &["search"]) };
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    let tqs = Tqs::start(home.path(), &["--session", "session.json", "--audit-log", "audit.jsonl"]);
    tqs.wait_for_log("the last session ends soon");
    let metrics = get(home.path(), "/metrics").1;
    assert!(metrics.contains(&format!("\nobol_session_expires_timestamp_seconds {end}\n")), "{metrics}");
    for (who, active) in opinions(home.path(), &tqs) {
        assert!(active, "{who}");
    }
    let mut client = tqs.client();
    let mut refusal = None;
    wait_until("the session gives nothing more", || {
        match client.dequeue_token(&tool("search"), Duration::ZERO) {
            Err(error) if error.refusal().unwrap().code() == ErrorCode::NoSession => {
                refusal = error.refusal().cloned();
                true
            }
            _ => false,
        }
    });
    assert!(now() <= end - MIN_LIFE_SECS + 2, "at {}", now());
    let message = refusal.unwrap().message().to_owned();
    assert!(message.contains(&UtcTime::from_unix_seconds(end).to_string()), "{message}");
    std::thread::sleep(Duration::from_secs(1));
    for (who, active) in opinions(home.path(), &tqs) {
        assert!(!active, "{who}");
    }
    let ready = get(home.path(), "/readyz").1;
    assert!(ready.contains(&UtcTime::from_unix_seconds(end).to_string()), "{ready}");
    let metrics = get(home.path(), "/metrics").1;
    assert!(metrics.contains(&format!("\nobol_session_expires_timestamp_seconds {end}\n")), "{metrics}");
    assert!(metrics.contains("\nobol_ready 0\n"));
}

#[test]
fn status_says_how_long_a_session_lasts() {
    let home = home::home();
    let world = AgentSession { expires_at: now() + 7_260, ..AgentSession::new(1, now(), &["search"]) };
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    let _tqs = Tqs::start(home.path(), &["--session", "session.json"]);
    let shown = home::command(home.path()).arg("status").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let row = shown.lines().find(|line| line.starts_with("0000000000000001")).unwrap();
    assert!(
        shown.contains("ends in") && (row.ends_with("2 h 0 min") || row.ends_with("2 h 1 min")),
        "{shown}"
    );
}

#[test]
fn a_session_is_followed_without_a_gap_for_who_draws_and_does_not_wait() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(session(1, 3600).document()).unwrap();
    queue.dequeue_within("search", PATIENCE).unwrap();
    let (stop, drawn) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let drawing = scope.spawn(|| {
            let mut last = 0;
            while !stop.load(Ordering::SeqCst) {
                // No faster than they are made: what is ready is there for whoever asks, also where another session is the
                // current one by then.
                let current = queue.session_info().unwrap().session_id;
                let is_ready = |tool: ToolStatus| tool.session_id == current && tool.ready > 0;
                if !queue.tools().into_iter().any(is_ready) {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                let token = queue.dequeue("search").expect("a token without waiting");
                assert!(token.session_id().as_u64() >= last, "an older session came back");
                last = token.session_id().as_u64();
                drawn.fetch_add(1, Ordering::SeqCst);
            }
            last
        });
        for number in 2..=20 {
            queue.provision(session(number, 3600).document()).unwrap();
            assert_eq!(queue.session_info().unwrap().session_id, SessionId::from_u64(number));
            let before = drawn.load(Ordering::SeqCst);
            eventually("tokens are drawn on", || {
                drawing.is_finished() || drawn.load(Ordering::SeqCst) >= before + 3
            });
        }
        eventually("the last session serves", || {
            drawing.is_finished()
                || queue
                    .tools()
                    .iter()
                    .any(|tool| tool.session_id == SessionId::from_u64(20) && tool.handed_out > 0)
        });
        stop.store(true, Ordering::SeqCst);
        assert_eq!(drawing.join().unwrap(), 20);
    });
}
