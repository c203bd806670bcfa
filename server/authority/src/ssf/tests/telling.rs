//! What others are told: by streams that are pushed or fetched, and by webhooks; and that nobody waits for any of them.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use axum::routing::post;
use base64::Engine as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use obol_secret::text::to_hex;
use obol_session::SessionId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Listening, until};
use crate::directory::contract::{approval, handshake, new_registration, plan, seal};
use crate::directory::{Agent, Carried, EndScope, Human, Registered};
use crate::http::now;
use crate::jws::{KeySet, Unchecked};
use crate::notices::Topic;
use crate::outbound::Target;
use crate::ssf::effect::SET_TYPE;

const TOKEN: &str = "receiver-token";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const ESTABLISHED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-established";

/// Who is answered in less was answered at once.
const LEAST: Duration = Duration::from_millis(900);

/// What came, with its headers.
type Came = (HeaderMap, Vec<u8>);

/// Somebody who is told: what came, in order, with its headers; while it is broken it takes nothing.
struct Receiver {
    origin: String,
    came: Arc<Mutex<Vec<Came>>>,
    is_broken: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (came, is_broken) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        let (noted, broken) = (Arc::clone(&came), Arc::clone(&is_broken));
        let take = async move |headers: HeaderMap, body: axum::body::Bytes| {
            if broken.load(Ordering::SeqCst) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            noted.lock().push((headers, body.to_vec()));
            StatusCode::ACCEPTED
        };
        let routes = axum::Router::new().route("/take", post(take));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { origin, came, is_broken, serving }
    }

    fn count(&self) -> usize {
        self.came.lock().len()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A service that tells one receiver, and one webhook.
async fn telling(receiver: &Receiver) -> Listening {
    let hash = to_hex(ring::digest::digest(&ring::digest::SHA256, TOKEN.as_bytes()).as_ref());
    let other = to_hex(ring::digest::digest(&ring::digest::SHA256, b"other").as_ref());
    let text = json!({
        "receivers": [
            { "name": "siem", "token_sha256": hash, "push": [receiver.origin], "algorithm": "ES256" },
            { "name": "other", "token_sha256": other },
        ],
        "webhooks": [{
            "name": "chat", "url": format!("{}/take", receiver.origin),
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "tells": ["alarms", "approvals"],
        }],
    });
    Listening::with(&text).await
}

async fn ask(service: &Listening, verb: &str, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
    let place = Target::parse(service.place.as_str()).unwrap().at(path);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    let answer = match verb {
        "POST" => service.client.post(&place, headers, body.to_string().into_bytes()).await.unwrap(),
        _ => service.client.get(&place).await.unwrap(),
    };
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// An agent of Anna's with a session of now: what is over is forgotten by a service that runs.
fn session(service: &Listening, number: u64) -> Agent {
    let (directory, at) = (service.authority.directory(), now().secs());
    let name = format!("agent-{number}");
    let known = directory.agent(&name).unwrap();
    let agent = known.unwrap_or_else(|| {
        let new = new_registration(number, &name);
        let Carried::Now(Ok(Registered::Waits(id)), _) =
            directory.register(handshake(1 << 40 | number), new, at, seal(number)).unwrap()
        else {
            panic!("it waits")
        };
        directory.approve(approval(&id, "anna"), at).unwrap().unwrap()
    });
    let mut plan = plan(&agent, number, 0);
    (plan.row.established_at, plan.row.expires_at) = (at, at + 900);
    let opened = directory.open_session(handshake(number), plan, at, seal(number)).unwrap();
    assert!(matches!(opened, Carried::Now(Ok(_), _)), "{opened:?}");
    agent
}

fn end(service: &Listening, number: u64) {
    let scope = EndScope::Session(SessionId::from_u64(number));
    service.authority.end(&scope, "a drill", &Human::local("op"), now()).unwrap();
}

/// The claims of a token, once its signature holds by the keys that the service shows.
async fn claims(service: &Listening, token: &[u8]) -> Value {
    let (_, keys) = ask(service, "GET", "/.well-known/jwks.json", "", &Value::Null).await;
    let set = KeySet::read(keys.to_string().as_bytes()).unwrap();
    let read = Unchecked::read(token, SET_TYPE).unwrap();
    read.check(&set).unwrap();
    read.claims().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_stream_tells_every_end_in_order_also_after_its_receiver_was_away() {
    let receiver = Receiver::start().await;
    let service = telling(&receiver).await;
    let (status, configuration) =
        ask(&service, "GET", "/.well-known/ssf-configuration", "", &Value::Null).await;
    assert_eq!((status, configuration["spec_version"].as_str()), (StatusCode::OK, Some("1_0")));
    let asked = json!({
        "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": format!("{}/take", receiver.origin),
            "authorization_header": "Bearer theirs" },
        "events_requested": [REVOKED, ESTABLISHED, "https://example.com/unheard-of"],
    });
    let (status, stream) = ask(&service, "POST", "/ssf/streams", TOKEN, &asked).await;
    assert_eq!(status, StatusCode::CREATED, "{stream}");
    assert_eq!(stream["events_delivered"], json!([REVOKED, ESTABLISHED]));
    receiver.is_broken.store(true, Ordering::SeqCst);
    let agent = session(&service, 1);
    // Nobody waits for a receiver that is away.
    let began = Instant::now();
    end(&service, 1);
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
    until("it was tried", || {
        service.events.outlets(0).iter().any(|one| one.kind == "stream" && one.error.is_some())
    })
    .await;
    session(&service, 2);
    receiver.is_broken.store(false, Ordering::SeqCst);
    until("three are told", || receiver.count() == 3).await;
    let came = receiver.came.lock().clone();
    let mut kinds = Vec::new();
    for (headers, token) in &came {
        assert_eq!(headers["content-type"], "application/secevent+jwt");
        assert_eq!(headers["authorization"], "Bearer theirs");
        let claims = claims(&service, token).await;
        assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some(super::AUDIENCE), Some("siem")));
        kinds.extend(claims["events"].as_object().unwrap().keys().cloned());
        assert!(claims.get("exp").is_none() && claims.get("sub").is_none());
    }
    assert_eq!(kinds, [ESTABLISHED, REVOKED, ESTABLISHED]);
    let about = claims(&service, &came[1].1).await["sub_id"].clone();
    assert_eq!(about["format"], "complex");
    assert_eq!(about["session"]["id"], "0000000000000001");
    assert_eq!(about["application"]["id"], agent.id.as_str());
    let verify = json!({ "stream_id": stream["stream_id"], "state": "here?" });
    assert_eq!(ask(&service, "POST", "/ssf/verify", TOKEN, &verify).await.0, StatusCode::NO_CONTENT);
    until("the stream is verified", || receiver.count() == 4).await;
    let last = receiver.came.lock()[3].1.clone();
    let said = claims(&service, &last).await["events"].to_string();
    assert!(said.contains("ssf/event-type/verification") && said.contains("here?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetched_stream_keeps_what_was_not_acknowledged_and_is_its_receivers_alone() {
    let receiver = Receiver::start().await;
    let service = telling(&receiver).await;
    let asked = json!({ "delivery": { "method": "urn:ietf:rfc:8936" } });
    let (status, stream) = ask(&service, "POST", "/ssf/streams", TOKEN, &asked).await;
    assert_eq!(status, StatusCode::CREATED, "{stream}");
    let id = stream["stream_id"].as_str().unwrap();
    let path = format!("/ssf/poll/{id}");
    assert!(stream["delivery"]["endpoint_url"].as_str().unwrap().ends_with(&path));
    for number in 1..=3 {
        session(&service, number);
        end(&service, number);
    }
    let fetch = async |body: Value| {
        let (status, answer) = ask(&service, "POST", &path, TOKEN, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let sets = answer["sets"].as_object().unwrap().clone();
        (sets.keys().cloned().collect::<Vec<_>>(), answer["moreAvailable"] == true, sets)
    };
    let (names, more, sets) = fetch(json!({ "maxEvents": 2, "returnImmediately": true })).await;
    assert_eq!((names.len(), more), (2, true));
    for token in sets.values() {
        let claims = claims(&service, token.as_str().unwrap().as_bytes()).await;
        assert!(claims["events"].get(REVOKED).is_some(), "only what is asked for: {claims}");
    }
    assert_eq!(fetch(json!({})).await.0.len(), 3, "nothing was acknowledged");
    // The second alone: the first comes again, and so does the third.
    let left = fetch(json!({ "ack": [names[1]] })).await.0;
    assert!(left.len() == 2 && left.contains(&names[0]) && !left.contains(&names[1]), "{left:?}");
    let last = left.iter().find(|name| **name != names[0]).unwrap().clone();
    let rest = json!({
        "ack": [names[0]], "setErrs": { last: { "err": "invalid_key" } }, "returnImmediately": true,
    });
    assert_eq!(fetch(rest).await.0.len(), 0);
    // Others, and nobody.
    for (token, status) in [("other", StatusCode::NOT_FOUND), ("nobody", StatusCode::UNAUTHORIZED)] {
        assert_eq!(ask(&service, "POST", &path, token, &json!({})).await.0, status);
        let change = json!({ "stream_id": id, "status": "disabled" });
        assert_eq!(ask(&service, "POST", "/ssf/status", token, &change).await.0, status);
    }
    let elsewhere =
        json!({ "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": "http://127.0.0.1:9/" } });
    assert_eq!(ask(&service, "POST", "/ssf/streams", TOKEN, &elsewhere).await.0, StatusCode::BAD_REQUEST);
    for _ in 0..3 {
        assert_eq!(ask(&service, "POST", "/ssf/streams", TOKEN, &asked).await.0, StatusCode::CREATED);
    }
    assert_eq!(
        ask(&service, "POST", "/ssf/streams", TOKEN, &asked).await.0,
        StatusCode::CONFLICT,
        "four at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fetches_waits_for_what_comes_and_who_waits_is_in_nobodys_way() {
    let receiver = Receiver::start().await;
    let service = Arc::new(telling(&receiver).await);
    let asked = json!({ "delivery": { "method": "urn:ietf:rfc:8936" } });
    let (_, stream) = ask(&service, "POST", "/ssf/streams", TOKEN, &asked).await;
    let path = format!("/ssf/poll/{}", stream["stream_id"].as_str().unwrap());
    let fetch = |body: Value| {
        let (service, path) = (Arc::clone(&service), path.clone());
        async move {
            let (status, answer) = ask(&service, "POST", &path, TOKEN, &body).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            answer["sets"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        }
    };
    // The controls: who does not want to wait, and who asks for nothing.
    for at_once in [json!({ "returnImmediately": true }), json!({ "maxEvents": 0 })] {
        let began = Instant::now();
        assert!(fetch(at_once).await.is_empty());
        assert!(began.elapsed() < LEAST, "{:?}", began.elapsed());
    }
    // Two of a stream wait, and a third is answered at once.
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        waiting.spawn(fetch(json!({ "returnImmediately": false })));
    }
    let third = tokio::time::timeout(super::PATIENCE, waiting.join_next()).await.unwrap().unwrap().unwrap();
    assert!(third.is_empty());
    // Meanwhile others are served, and what they see is no end of the waiting.
    session(&service, 1);
    for _ in 0..20 {
        let (status, _) = ask(&service, "GET", "/.well-known/jwks.json", "", &Value::Null).await;
        assert_eq!(status, StatusCode::OK);
    }
    assert!(waiting.try_join_next().is_none(), "a session that opens was not asked for");
    let began = Instant::now();
    end(&service, 1);
    let mut told = Vec::new();
    while let Some(names) = waiting.join_next().await {
        told.push(names.unwrap());
    }
    assert!(began.elapsed() < super::PATIENCE / 2, "{:?}", began.elapsed());
    assert!(told.len() == 2 && told[0].len() == 1 && told[0] == told[1], "{told:?}");
    // What it says while it asks is heard at once: the next waits, for nothing is left.
    let next = fetch(json!({ "ack": told[0] }));
    assert!(tokio::time::timeout(LEAST, next).await.is_err());
    let verify = json!({ "stream_id": stream["stream_id"], "state": "here?" });
    let next = tokio::spawn(fetch(json!({})));
    assert_eq!(ask(&service, "POST", "/ssf/verify", TOKEN, &verify).await.0, StatusCode::NO_CONTENT);
    assert_eq!(next.await.unwrap().len(), 1, "a verification is something, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_hears_of_what_it_asked_for_signed_and_again_until_it_takes_it() {
    let receiver = Receiver::start().await;
    let service = telling(&receiver).await;
    receiver.is_broken.store(true, Ordering::SeqCst);
    until("somebody listens", || service.authority.notices().listeners() > 0).await;
    service.authority.notices().say(
        Topic::Alarms,
        "clone_suspected",
        "agent builder".to_owned(),
        now().secs(),
    );
    until("it was tried", || {
        service.events.outlets(0).iter().any(|one| one.name == "chat" && one.error.is_some())
    })
    .await;
    receiver.is_broken.store(false, Ordering::SeqCst);
    until("it came", || receiver.count() == 1).await;
    let (headers, body) = receiver.came.lock()[0].clone();
    let said: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (said["type"].as_str(), said["data"]["text"].as_str()),
        (Some("alarm.clone_suspected"), Some("agent builder"))
    );
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let signed = format!("{}.{}.", text("webhook-id"), text("webhook-timestamp"));
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    let signature = decode(text("webhook-signature").strip_prefix("v1,").unwrap());
    ring::hmac::verify(&key, &[signed.as_bytes(), &body].concat(), &signature).unwrap();
    // Too many of one kind are left out, and counted: nobody fills a mailbox.
    for _ in 0..100 {
        service.authority.notices().say(Topic::Alarms, "token_stolen", "x".to_owned(), now().secs());
    }
    assert!(service.authority.notices().left_out() >= 70);
}
