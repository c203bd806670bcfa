//! The queue's promises, on real files.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use obol_queue::{
    AgentHalf, DequeueError, Draw, FlushScope, MasterKey, ProvisionError, Queue, SessionId, SessionState,
    StoreOpenError, ToolHandle,
};
use obol_token::Envelope;
use obol_world::ManualClock;
use obol_world::halves::AgentSession;
use obol_world::home::Store;
use serde_json::json;

use super::{PATIENCE, draw, eventually, now, open_at};

fn open(store: &Store) -> Queue {
    Queue::open(store.database(), store.master_key()).unwrap()
}

#[test]
fn every_token_is_handed_out_once() {
    let store = Store::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search", "pay"]).document()).unwrap();
    let mut seen = HashSet::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let queue = &queue;
                let tool = if i % 2 == 0 { "search" } else { "pay" };
                scope.spawn(move || (0..100).map(|_| draw(queue, tool)).collect::<Vec<_>>())
            })
            .collect();
        for thread in threads {
            for token in thread.join().unwrap() {
                assert!(seen.insert(token), "a token was handed out twice");
            }
        }
    });
    assert_eq!(seen.len(), 800);
}

#[test]
fn a_token_is_for_its_tool_and_lives_as_granted() {
    let store = Store::new();
    let queue = open(&store);
    let mut world = AgentSession::new(1, now(), &["search"]);
    world.grants[0]["ttl"] = json!(30);
    let document = world.document();
    queue.provision(document).unwrap();
    let token = queue.dequeue_within("search", PATIENCE).unwrap();
    let envelope = Envelope::parse(token.as_bytes()).unwrap();
    assert_eq!(envelope.expires_at() - envelope.issued_at(), 30);
    assert_eq!(token.expires_at(), envelope.expires_at());
    assert_eq!(envelope.session_id(), SessionId::from_u64(1));
}

#[test]
fn a_reopened_queue_goes_on_with_what_waits_and_repeats_nothing() {
    let store = Store::new();
    let mut seen = HashSet::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    drop(queue);
    for _ in 0..5 {
        let queue = open(&store);
        for _ in 0..25 {
            assert!(seen.insert(draw(&queue, "search")), "a token was handed out again after a restart");
        }
    }
}

#[test]
fn sessions_that_nobody_flushed_survive_a_restart() {
    let store = Store::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    queue.provision(AgentSession::new(2, now(), &["search"]).document()).unwrap();
    let before = queue.sessions();
    drop(queue);
    let queue = open(&store);
    assert_eq!(queue.sessions(), before);
    assert_eq!(queue.session_info().unwrap().session_id, SessionId::from_u64(2));
    draw(&queue, "search");
}

#[test]
fn a_flush_of_any_scope_is_final_also_after_a_restart() {
    for scope in [
        FlushScope::All,
        FlushScope::Session(SessionId::from_u64(1)),
        FlushScope::Agent("agent-1".to_owned()),
    ] {
        let store = Store::new();
        let queue = open(&store);
        queue.provision(AgentSession::new(1, now(), &["search", "pay"]).document()).unwrap();
        draw(&queue, "search");
        let flushed = queue.flush(&scope, "test").unwrap();
        assert_eq!((flushed.sessions_ended, flushed.partitions), (1, 2));
        assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionFlushed);
        assert_eq!(queue.status(None).unwrap().queue_depth, 0);
        queue.sync().unwrap();
        drop(queue);
        let queue = open(&store);
        assert_eq!(queue.dequeue("pay").unwrap_err(), DequeueError::SessionFlushed, "{scope}");
        assert_eq!(queue.sessions()[0].state, SessionState::Flushed);
        let again = queue.provision(AgentSession::new(1, now(), &["search"]).document());
        assert!(matches!(again, Err(ProvisionError::Exists(id)) if id == SessionId::from_u64(1)));
        queue.provision(AgentSession::new(2, now(), &["search"]).document()).unwrap();
        draw(&queue, "search");
    }
}

#[test]
fn a_flush_of_a_tool_destroys_what_waits_and_nothing_else() {
    let store = Store::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search", "pay"]).document()).unwrap();
    draw(&queue, "search");
    draw(&queue, "pay");
    eventually("tokens wait", || queue.status(Some("search")).unwrap().queue_depth > 0);
    let counters = |queue: &Queue| queue.tools().into_iter().find(|tool| tool.tool == "search").unwrap();
    let minted_before = counters(&queue).minted;
    let flushed = queue.flush(&FlushScope::Tool("search".to_owned()), "test").unwrap();
    assert_eq!((flushed.sessions_ended, flushed.partitions), (0, 1));
    draw(&queue, "search");
    assert!(counters(&queue).minted > minted_before, "what is handed out after a flush was minted after it");
    draw(&queue, "pay");
    drop(queue);
    draw(&open(&store), "search");
}

#[test]
fn a_denied_tool_gets_no_token_even_if_one_waits_and_stays_denied_after_a_restart() {
    let store = Store::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search", "pay"]).document()).unwrap();
    draw(&queue, "pay");
    queue.set_policy(1, BTreeSet::from(["pay".to_owned()])).unwrap();
    assert_eq!(queue.dequeue("pay").unwrap_err(), DequeueError::PolicyDenied);
    draw(&queue, "search");
    drop(queue);
    let queue = open(&store);
    assert_eq!(queue.dequeue("pay").unwrap_err(), DequeueError::PolicyDenied);
    queue.set_policy(1, BTreeSet::new()).unwrap();
    draw(&queue, "pay");
}

#[test]
fn a_newer_policy_epoch_gives_up_what_was_minted_under_an_older_one() {
    let store = Store::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    draw(&queue, "search");
    queue.set_policy(5, BTreeSet::new()).unwrap();
    for _ in 0..30 {
        let token = draw(&queue, "search");
        assert_eq!(Envelope::parse(&token).unwrap().policy_epoch(), 5);
    }
}

#[test]
fn a_tool_looked_up_once_obeys_policy_and_flushes_and_stays_with_its_session() {
    let store = Store::new();
    let clock = Arc::new(ManualClock::new(now()));
    let queue = open_at(&store, &clock);
    let first = AgentSession::new(1, now(), &["search", "pay"]);
    queue.provision(first.document()).unwrap();
    assert_eq!(queue.tool("delete").unwrap_err(), DequeueError::PolicyDenied);
    let (search, pay) = (queue.tool("search").unwrap(), queue.tool("pay").unwrap());
    assert_eq!((search.session_id(), search.name()), (SessionId::from_u64(1), "search"));
    let draw = |tool: &ToolHandle<'_>| tool.dequeue_within(PATIENCE).map(|token| token.as_bytes().to_vec());
    let mut seen: HashSet<Vec<u8>> = (0..100).map(|_| draw(&search).unwrap()).collect();
    seen.extend((0..100).map(|_| self::draw(&queue, "search")));
    assert_eq!(seen.len(), 200, "handed out twice");

    queue.set_policy(1, BTreeSet::from(["pay".to_owned()])).unwrap();
    assert_eq!(draw(&pay).unwrap_err(), DequeueError::PolicyDenied);
    queue.set_policy(1, BTreeSet::new()).unwrap();
    draw(&pay).unwrap();
    queue.flush(&FlushScope::Tool("search".to_owned()), "test").unwrap();
    assert!(seen.insert(draw(&search).unwrap()), "a tool that was flushed gets new tokens");

    queue.provision(AgentSession::new(2, now(), &["search"]).document()).unwrap();
    assert_eq!(search.dequeue_within(PATIENCE).unwrap().session_id(), SessionId::from_u64(1));
    assert_eq!(queue.tool("search").unwrap().session_id(), SessionId::from_u64(2));
    queue.flush(&FlushScope::Session(SessionId::from_u64(1)), "test").unwrap();
    assert_eq!(draw(&search).unwrap_err(), DequeueError::SessionFlushed);
    clock.set(first.expires_at);
    assert_eq!(search.dequeue().unwrap_err(), DequeueError::SessionEnded(first.expires_at));
}

#[test]
fn unknown_tools_missing_sessions_and_several_audiences_have_errors_of_their_own() {
    let store = Store::new();
    let queue = open(&store);
    assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::NoSession);
    let world = AgentSession::new(1, now(), &["search", "pay"]);
    let mut json = world.agent_json();
    let mut second = json["resource_servers"][0].clone();
    second["aud"] = json!("https://other.example");
    json["resource_servers"].as_array_mut().unwrap().push(second);
    let mut grant = json["grants"][0].clone();
    grant["aud"] = json!("https://other.example");
    json["grants"].as_array_mut().unwrap().push(grant);
    queue.provision(AgentHalf::from_json(json.to_string().as_bytes()).unwrap()).unwrap();

    assert_eq!(queue.dequeue("delete").unwrap_err(), DequeueError::PolicyDenied);
    assert!(matches!(queue.dequeue("search"), Err(DequeueError::AudienceNeeded(list)) if list.len() == 2));
    let draw = Draw { tool: "search", audience: Some("https://other.example"), session: None };
    queue.dequeue_within(draw, PATIENCE).unwrap();
    let missing = Draw { session: Some(SessionId::from_u64(99)), ..draw };
    assert_eq!(queue.dequeue(missing).unwrap_err(), DequeueError::NoSession);
}

#[test]
fn nothing_expired_is_handed_out_and_expired_rows_go_away() {
    let store = Store::new();
    let clock = Arc::new(ManualClock::new(1_800_000_000));
    let queue = open_at(&store, &clock);
    queue.provision(AgentSession::new(1, 1_800_000_000, &["search"]).document()).unwrap();
    draw(&queue, "search");
    for _ in 0..20 {
        clock.advance(37);
        let token = queue.dequeue_within("search", PATIENCE).unwrap();
        assert!(token.expires_at() >= 5 + Envelope::parse(token.as_bytes()).unwrap().issued_at());
        assert!(token.expires_at() >= obol_queue::Clock::now(&clock) + 5);
    }
}

#[test]
fn a_clock_that_jumps_a_day_either_way_revives_nothing_and_repeats_nothing() {
    let store = Store::new();
    let start = 1_800_000_000;
    let clock = Arc::new(ManualClock::new(start));
    let queue = open_at(&store, &clock);
    let mut world = AgentSession::new(1, start - 200_000, &["search"]);
    world.expires_at = start + 400_000;
    queue.provision(world.document()).unwrap();
    let mut seen = HashSet::new();
    for time in [start, start + 86_400, start, start - 86_400, start - 86_430, start, start + 30, start + 10]
    {
        clock.set(time);
        for _ in 0..15 {
            let token = draw(&queue, "search");
            let envelope = Envelope::parse(&token).unwrap();
            assert!(envelope.issued_at() <= time && time < envelope.expires_at(), "at {time}: {envelope:?}");
            assert!(seen.insert(token));
        }
    }
}

#[test]
fn a_boot_with_a_clock_behind_gives_up_what_waits() {
    let store = Store::new();
    let start = 1_800_000_000;
    let clock = Arc::new(ManualClock::new(start));
    let queue = open_at(&store, &clock);
    queue.provision(AgentSession::new(1, start - 1000, &["search"]).document()).unwrap();
    draw(&queue, "search");
    eventually("tokens on disk or ready", || queue.status(None).unwrap().queue_depth > 0);
    queue.sync().unwrap();
    drop(queue);
    clock.set(start - 500);
    let queue = open_at(&store, &clock);
    assert_eq!(queue.status(None).unwrap().queue_depth, 0);
    let token = draw(&queue, "search");
    assert!(Envelope::parse(&token).unwrap().issued_at() <= start - 500);
}

#[test]
fn a_session_whose_time_is_over_hands_out_nothing_and_is_forgotten() {
    let store = Store::new();
    let start = 1_800_000_000;
    let clock = Arc::new(ManualClock::new(start));
    let queue = open_at(&store, &clock);
    queue.provision(AgentSession::new(1, start, &["search"]).document()).unwrap();
    draw(&queue, "search");
    clock.set(start + 3600);
    assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionEnded(start + 3600));
    clock.set(start + 3700);
    eventually("the session is forgotten", || queue.sessions().is_empty());
    drop(queue);
    assert!(open_at(&store, &clock).sessions().is_empty());
}

#[test]
fn a_session_that_is_over_or_known_is_not_taken() {
    let store = Store::new();
    let queue = open(&store);
    let world = AgentSession::new(1, now() - 7200, &["search"]);
    assert!(matches!(queue.provision(world.document()), Err(ProvisionError::Expired)));
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    let again = queue.provision(AgentSession::new(1, now(), &["search"]).document());
    assert!(matches!(again, Err(ProvisionError::Exists(id)) if id == SessionId::from_u64(1)));
}

#[test]
fn a_second_process_a_wrong_key_and_foreign_files_are_refused_untouched() {
    let store = Store::new();
    let queue = open(&store);
    assert!(matches!(Queue::open(store.database(), store.master_key()), Err(StoreOpenError::InUse(_))));
    drop(queue);

    let wrong = MasterKey::from_bytes([9; 32]);
    assert!(matches!(Queue::open(store.database(), wrong), Err(StoreOpenError::WrongMasterKey(_))));
    drop(open(&store));

    let text = store.path("notes.txt");
    std::fs::write(&text, "dear diary").unwrap();
    set_mode(&text, 0o600);
    let error = Queue::open(&text, store.master_key()).unwrap_err();
    assert!(matches!(error, StoreOpenError::NotAStore(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "dear diary");

    let keys = store.path("tokens.redb.keys");
    let saved = std::fs::read(&keys).unwrap();
    std::fs::write(&keys, b"no key file").unwrap();
    assert!(matches!(open_error(&store), StoreOpenError::Mismatch(_)));
    std::fs::write(&keys, saved).unwrap();
    set_mode(&store.database(), 0o644);
    assert!(matches!(open_error(&store), StoreOpenError::File(_)));
    set_mode(&store.database(), 0o600);
    drop(open(&store));
}

fn open_error(store: &Store) -> StoreOpenError {
    Queue::open(store.database(), store.master_key()).unwrap_err()
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_the_master_key_the_files_hold_no_key_and_no_token() {
    let store = Store::new();
    let queue = open(&store);
    let world = AgentSession::new(1, now(), &["search"]);
    queue.provision(world.document()).unwrap();
    let token = draw(&queue, "search");
    queue.sync().unwrap();
    drop(queue);
    let json = world.agent_json();
    let key = json["resource_servers"][0]["K_session"].as_str().unwrap().to_owned();
    let raw_key = obol_token::text::bytes_from_hex(&key).unwrap();
    for name in ["tokens.redb", "tokens.redb.keys"] {
        let bytes = std::fs::read(store.path(name)).unwrap();
        for secret in [key.as_bytes(), &raw_key, &token[..64], b"agent-1", b"search"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{name}");
        }
    }
}

#[test]
fn waiting_callers_are_served_as_soon_as_a_session_is_there_and_told_of_a_flush() {
    let store = Store::new();
    let queue = open(&store);
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..50).map(|_| scope.spawn(|| queue.dequeue_within("search", PATIENCE).is_ok())).collect();
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
    });
}
