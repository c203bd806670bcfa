//! The lease of a session at a real `obol tqs`: counted by the sidecar itself, whatever becomes of whoever tells it that the
//! service was heard.

use core::time::Duration;
use std::time::Instant;

use obol_client::{CallError, ControlClient};
use obol_ipc::control::SessionState;
use obol_ipc::refusal::ErrorCode;
use obol_ipc::secret::SessionDocumentText;
use obol_world::halves::AgentSession;
use obol_world::home::{self, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::json;

use super::{get, tool};

const LEASE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);

fn provision(control: &mut ControlClient, number: u64, lease: Option<Duration>) {
    let mut document = AgentSession::new(number, now(), &["search"]).agent_json();
    if let Some(lease) = lease {
        document["lease_secs"] = json!(lease.as_secs());
    }
    control.provision(SessionDocumentText::new(document.to_string()).unwrap()).unwrap();
}

/// Draws; `false` where the lease is over, which must be said so.
fn draws(tqs: &Tqs) -> bool {
    match tqs.client().dequeue_token(&tool("search"), PATIENCE) {
        Ok(_) => true,
        Err(CallError::Refused(refusal)) => {
            assert_eq!(refusal.code(), ErrorCode::NoSession);
            assert!(refusal.message().contains("was not heard"), "{refusal}");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_sidecar_that_is_told_nothing_hands_nothing_out_once_the_lease_is_over_and_goes_on_when_it_is() {
    let home = home::home();
    let tqs = Tqs::start(home.path(), &[]);
    let mut control = tqs.control();
    provision(&mut control, 1, Some(LEASE));
    assert!(!draws(&tqs), "the service was not heard yet");
    let heard = Instant::now();
    control.lease(0).unwrap();
    assert!(draws(&tqs));
    let shown = control.status().unwrap().sessions.remove(0);
    assert_eq!(shown.state, SessionState::Active);
    assert!(
        shown.lease_ends_at.is_some_and(|end| end.unix_seconds() <= now() + LEASE.as_secs()),
        "{shown:?}"
    );

    // Nobody says anything any more, as when the authenticator was killed.
    wait_until("the lease is over", || !draws(&tqs));
    let passed = heard.elapsed();
    assert!(passed > LEASE - Duration::from_secs(1) && passed < LEASE + PATIENCE, "{passed:?}");
    assert_eq!(control.status().unwrap().sessions[0].state, SessionState::Lapsed);
    let (status, why) = get(home.path(), "/readyz");
    assert!(
        status == 503 && why.contains("was not heard for") && why.contains("obol authenticator"),
        "{why}"
    );
    assert!(get(home.path(), "/metrics").1.contains("obol_not_ready{reason=\"lease_over\"} 1"));
    assert!(tqs.client().session_info().is_err());
    let told = home::command(home.path()).arg("status").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("lapsed") && told.contains("does not answer and the lease is over"), "{told}");

    control.lease(60).unwrap();
    assert!(!draws(&tqs), "word of a minute ago prolongs nothing");
    control.lease(0).unwrap();
    assert!(draws(&tqs), "it goes on by itself");
}

#[test]
fn a_restarted_sidecar_waits_for_word_of_the_service_and_one_without_a_service_for_none() {
    let home = home::home();
    let tqs = Tqs::start(home.path(), &[]);
    let mut control = tqs.control();
    provision(&mut control, 1, Some(Duration::from_secs(900)));
    control.lease(0).unwrap();
    assert!(draws(&tqs));
    tqs.kill();
    let tqs = Tqs::start(home.path(), &[]);
    assert!(!draws(&tqs), "whatever was true before the restart");
    tqs.control().lease(1).unwrap();
    assert!(draws(&tqs));
    // By hand, and so without a lease.
    provision(&mut tqs.control(), 2, None);
    tqs.kill();
    let tqs = Tqs::start(home.path(), &[]);
    assert!(draws(&tqs));
}
