//! How often whoever keeps events is asked for them.

use core::sync::atomic::Ordering;
use core::time::Duration;

use serde_json::json;

use super::{Idp, Listening, until};

/// The pause between the first answer and the next question, of a provider that is slow, or has nothing for a while.
async fn pause(wait_secs: u64, is_slow: bool) -> Duration {
    let idp = Idp::start().await;
    idp.kept.is_slow.store(is_slow, Ordering::SeqCst);
    let place = format!("{}/poll", idp.issuer);
    let poll = json!({"poll": {"url": place, "token": "hush", "wait_secs": wait_secs}});
    let _service = Listening::to(&idp, &poll).await;
    until("it has asked twice", || idp.kept.times.lock().len() >= 2).await;
    let times = idp.kept.times.lock();
    times[1].0 - times[0].1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_to_a_question_that_did_not_wait_is_followed_by_the_pause() {
    let after_slow = pause(0, true).await;
    assert!(after_slow >= Duration::from_millis(4_500), "{after_slow:?}");
    // Control: after a question that waited, the next comes at once.
    let after_waiting = pause(10, false).await;
    assert!(after_waiting < Duration::from_millis(4_000), "{after_waiting:?}");
}
