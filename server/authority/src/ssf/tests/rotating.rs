//! Keys that are replaced: ours, of which every token that is on its way can be checked; and those of others, of which one that was
//! withdrawn is good for nothing.

use std::sync::Arc;

use obol_secret::text::to_hex;
use serde_json::json;

use super::{AUDIENCE, Idp, Listening, RISC_DISABLED, until};
use crate::authority::Now;
use crate::directory::AgentStatus;
use crate::http::now;
use crate::jws::{AFTER_SECS, AHEAD_SECS, KeySet, LIFE_SECS, Unchecked};
use crate::ssf::effect::SET_TYPE;
use crate::ssf::{EventSettings, Verb};

const TOKEN: &str = "receiver-token";

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_keeps_our_keys_for_a_day_checks_every_token_while_they_are_replaced() {
    let hash = to_hex(ring::digest::digest(&ring::digest::SHA256, TOKEN.as_bytes()).as_ref());
    let receivers = json!({ "receivers": [{ "name": "siem", "token_sha256": hash }] });
    let service = Arc::new(Listening::with(&receivers).await);
    let act = |verb: Verb, id: Option<String>, body: serde_json::Value, at: u64| {
        let service = Arc::clone(&service);
        let act = move || {
            let (asked, body) = ((Some(TOKEN), id.as_deref()), body.to_string());
            let at = Now { ms: at * 1_000 };
            service.events.act(verb, asked, body.as_bytes(), &service.authority, at).unwrap()
        };
        async { tokio::task::spawn_blocking(act).await.unwrap() }
    };
    let start = now().secs();
    let asked = json!({ "delivery": { "method": "urn:ietf:rfc:8936" } });
    let stream = act(Verb::Create, None, asked, start).await["stream_id"].as_str().unwrap().to_owned();
    let keys_at = async |at: u64| {
        let keys = act(Verb::Keys, None, json!({}), at).await;
        KeySet::read(keys.to_string().as_bytes()).unwrap()
    };
    let token_at = async |at: u64| {
        act(Verb::Verify, None, json!({ "stream_id": stream }), at).await;
        let said = act(Verb::Fetch, Some(stream.clone()), json!({ "returnImmediately": true }), at).await;
        said["sets"].as_object().unwrap().values().next_back().unwrap().as_str().unwrap().to_owned()
    };
    let is_taken =
        |token: &str, keys: &KeySet| Unchecked::read(token.as_bytes(), SET_TYPE).unwrap().check(keys).is_ok();
    let tend = async |at: u64| {
        let authority = Arc::clone(&service.authority);
        let tended = move || authority.tend_signing_keys(Now { ms: at * 1_000 }).unwrap();
        tokio::task::spawn_blocking(tended).await.unwrap();
    };
    let mut kept = keys_at(start).await;
    let first = token_at(start).await;
    assert!(is_taken(&first, &kept));
    // Half a year, looked at every six hours; a receiver fetches keys once a day.
    for step in 0..=(2 * (LIFE_SECS + AHEAD_SECS) / 21_600) {
        let at = start + step * 21_600;
        tend(at).await;
        if step % 4 == 0 {
            kept = keys_at(at).await;
        }
        let token = token_at(at).await;
        assert!(is_taken(&token, &kept), "after {step} times six hours");
        assert!(
            is_taken(&token, &keys_at(at + AFTER_SECS - 1).await),
            "a token that is looked at a day later"
        );
        assert!(kept.len() <= 4, "two pairs at the most");
    }
    // The control: the keys did change, and the first are gone.
    assert!(!is_taken(&first, &kept));
    let settings = EventSettings::from_json(b"{}", AUDIENCE, &std::env::temp_dir()).unwrap();
    service.events.replace(settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_by_a_key_that_was_withdrawn_does_nothing() {
    let mut idp = Idp::start().await;
    let service = Listening::to(&idp, &json!({})).await;
    for (number, name) in [(1, "builder"), (2, "other")] {
        service.agent(number, name);
    }
    until("the first keys", || service.events.status()[0].keys == 1).await;
    // A key that is stolen and withdrawn; what was signed with it before is as good as what is signed later: nothing.
    let stolen = idp.sign(&idp.claims("by the stolen key", RISC_DISABLED, "human-1"));
    let taken = idp.sign(&idp.claims("before", RISC_DISABLED, "human-2"));
    service.taken(&taken).await;
    assert_eq!(service.state("other"), AgentStatus::Suspended, "the control: it was good before");
    idp.keys = crate::jws::SigningKeys::generate_es256().unwrap();
    *idp.published.lock() = idp.keys.key_set();
    // A token by the new key has the keys fetched.
    let fresh = idp.sign(&idp.claims("fresh", super::CAEP_REVOKED, "human-2"));
    let deadline = tokio::time::Instant::now() + super::PATIENCE;
    while service.send(fresh.clone()).await.status != http::StatusCode::ACCEPTED {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(core::time::Duration::from_millis(100)).await;
    }
    assert_ne!(service.send(stolen).await.status, http::StatusCode::ACCEPTED);
    assert_eq!(service.state("builder"), AgentStatus::Active);
}
