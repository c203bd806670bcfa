//! A lease, with the clocks moved by hand: over when either clock says so, and never before the service was heard.

use std::sync::Arc;

use obol_queue::{AgentHalf, DequeueError, Queue, SessionId, SessionState};
use obol_world::ManualClock;
use obol_world::halves::AgentSession;
use obol_world::home::Store;
use serde_json::json;

use super::{eventually, open_at};

const START: u64 = 1_800_000_000;
const LEASE_SECS: u64 = 300;

/// A session that a service opened.
fn leased(number: u64) -> AgentHalf {
    let mut document =
        AgentSession { expires_at: START + 3_600, ..AgentSession::new(number, START, &["search"]) }
            .agent_json();
    document["lease_secs"] = json!(LEASE_SECS);
    AgentHalf::from_json(document.to_string().as_bytes()).unwrap()
}

fn states(queue: &Queue) -> Vec<SessionState> {
    queue.sessions().into_iter().map(|session| session.state).collect()
}

fn draws(queue: &Queue) -> bool {
    match queue.dequeue_within("search", core::time::Duration::from_secs(10)) {
        Ok(_) => true,
        Err(DequeueError::Lapsed { lease_secs: LEASE_SECS, .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn nothing_of_a_leased_session_is_handed_out_before_the_service_is_heard_and_once_it_was_not_for_too_long() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(leased(1)).unwrap();
    assert_eq!(
        queue.dequeue("search").unwrap_err(),
        DequeueError::Lapsed { unheard_secs: None, lease_secs: LEASE_SECS }
    );
    assert_eq!((states(&queue), queue.sessions()[0].lease_ends_at), (vec![SessionState::Lapsed], None));

    queue.heard(0);
    assert!(draws(&queue));
    assert_eq!(queue.sessions()[0].lease_ends_at, Some(START + LEASE_SECS));
    clock.advance(LEASE_SECS - 1);
    assert!(draws(&queue), "the last second counts");
    let handle = queue.tool("search").unwrap();
    clock.advance(1);
    assert!(!draws(&queue));
    let over = DequeueError::Lapsed { unheard_secs: Some(LEASE_SECS), lease_secs: LEASE_SECS };
    assert_eq!(handle.dequeue().unwrap_err(), over, "whoever looked the tool up before gets no more");
    assert_eq!(queue.session_info().unwrap_err(), over);
    assert!(!queue.status(None).unwrap().session_active);
    assert_eq!(states(&queue), [SessionState::Lapsed]);
    assert_eq!(queue.last_end(), Some(START + 3_600), "it is not over for good");

    queue.heard(LEASE_SECS + 5);
    assert!(!draws(&queue), "word from long ago prolongs nothing");
    queue.heard(10);
    assert!(draws(&queue), "it goes on by itself");
    queue.heard(LEASE_SECS);
    assert!(draws(&queue), "nor does it take anything away");
}

#[test]
fn a_machine_that_slept_and_a_clock_that_was_set_back_prolong_no_lease() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    queue.provision(leased(1)).unwrap();
    queue.heard(0);
    assert!(draws(&queue));
    // Asleep: the wall's clock alone went on.
    clock.set(START + LEASE_SECS);
    assert!(!draws(&queue));
    queue.heard(0);
    assert!(draws(&queue));
    // Set back by a day: the other clock alone goes on. Time is given to what has to be minted anew.
    clock.set(START - 86_400);
    eventually("it is drawn from", || queue.dequeue("search").is_ok());
    clock.advance(LEASE_SECS);
    assert!(!draws(&queue));
}

#[test]
fn a_session_made_by_hand_has_no_lease_and_a_restart_forgets_that_the_service_was_heard() {
    let (store, clock) = (Store::new(), Arc::new(ManualClock::new(START)));
    let queue = open_at(&store, &clock);
    let by_hand = AgentSession { expires_at: START + 3_600, ..AgentSession::new(1, START, &["search"]) };
    queue.provision(by_hand.document()).unwrap();
    clock.advance(2 * LEASE_SECS);
    assert!(draws(&queue));
    queue.provision(leased(2)).unwrap();
    queue.heard(0);
    assert!(draws(&queue));
    drop(queue);

    let queue = open_at(&store, &clock);
    assert!(!draws(&queue), "the lease is kept with the session, the word is not");
    assert_eq!(states(&queue), [SessionState::Active, SessionState::Lapsed]);
    queue.heard(0);
    let token = queue.dequeue_within("search", core::time::Duration::from_secs(10)).unwrap();
    assert_eq!(token.session_id(), SessionId::from_u64(2));
}
