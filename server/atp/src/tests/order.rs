//! The order of the checks is part of the protocol: of two things that are wrong with a request, the earlier one is answered.

use http::header::{CONTENT_TYPE, HeaderValue};
use obol_atp::{AgentId, Secret, TokenBody};

use super::{SECRET, World, agent, request};
use crate::Store;

/// What is wrong, in the order of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    AddressRate,
    Size,
    ContentType,
    Form,
    Signature,
    AgentRate,
    Audience,
    Time,
    Replay,
    Status,
    Scopes,
}

const ORDER: [(Fault, &str); 11] = [
    (Fault::AddressRate, "too_many_requests"),
    (Fault::Size, "request_too_large"),
    (Fault::ContentType, "unsupported_media_type"),
    (Fault::Form, "invalid_request"),
    (Fault::Signature, "invalid_signature"),
    (Fault::AgentRate, "too_many_requests"),
    (Fault::Audience, "wrong_audience"),
    (Fault::Time, "stale_timestamp"),
    (Fault::Replay, "replayed"),
    (Fault::Status, "agent_disabled"),
    (Fault::Scopes, "invalid_scope"),
];

/// A request with these faults, and a provider that is in the state for it.
struct Faulty<'a> {
    faults: &'a [Fault],
    world: World,
    agent: AgentId,
    secret: Secret,
}

impl<'a> Faulty<'a> {
    fn new(faults: &'a [Fault]) -> Self {
        let has = |fault| faults.contains(&fault);
        let world = World::with(Store::memory(), |builder| {
            let agent_rate = u32::from(has(Fault::AgentRate));
            builder.address_rate(u32::from(has(Fault::AddressRate))).agent_rate(agent_rate)
        });
        let (agent, secret): (_, &[u8]) = if has(Fault::Status) {
            (AgentId::from_random([2; 16]), b"the secret of the other agent")
        } else {
            (agent(), SECRET)
        };
        Self { faults, world, agent, secret: Secret::of_any_length(secret) }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn body(&self) -> TokenBody<'static> {
        let scopes: &[&str] = if self.has(Fault::Scopes) { &["admin"] } else { &["read"] };
        let mut body = TokenBody { agent_id: self.agent, ..self.world.body(scopes) };
        if self.has(Fault::Audience) {
            body.aud = Some("https://evil.example/t".into());
        }
        body
    }

    fn text(&self, body: &TokenBody<'_>) -> Vec<u8> {
        let mut text = if self.has(Fault::Signature) {
            body.signed_with(&Secret::of_any_length(b"a secret that is nobody's"))
        } else {
            body.signed_with(&self.secret)
        };
        if self.has(Fault::Form) {
            text.splice(1..1, br#""unknown":1,"#.iter().copied());
        }
        if self.has(Fault::Size) {
            text.resize(text.len() + obol_atp::MAX_BODY_BYTES, b' ');
        }
        text
    }

    async fn send(&self, text: Vec<u8>) -> String {
        let mut request = request("POST", "/v1/agent-tokens", "", text);
        if self.has(Fault::ContentType) {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        let (status, answer) = self.world.send(request).await;
        answer["error"].as_str().map_or_else(|| status.to_string(), str::to_owned)
    }

    /// Uses a rate up, with requests that are sound but for who asks.
    async fn use_up(&self) {
        for _ in 0..1_000 {
            let body = TokenBody { agent_id: self.agent, ..self.world.body(&["read"]) };
            let text = body.signed_with(&self.secret);
            let (_, answer) = self.world.send(request("POST", "/v1/agent-tokens", "", text)).await;
            if answer["error"] == "too_many_requests" {
                return;
            }
        }
        panic!("the rate was never used up");
    }

    /// What is answered.
    async fn answer(&self) -> String {
        let body = self.body();
        let text = self.text(&body);
        if self.has(Fault::Replay) {
            self.send(text.clone()).await;
        }
        if self.has(Fault::Time) {
            self.world.clock.set(body.timestamp / 1_000 + 301);
        }
        if self.has(Fault::AddressRate) || self.has(Fault::AgentRate) {
            self.use_up().await;
        }
        self.send(text).await
    }
}

/// What such a request is refused with. A rate is given back by and by, also between two requests, so that is tried again.
async fn refusal(faults: &[Fault], expected: &str) -> String {
    let faulty = Faulty::new(faults);
    let mut answer = faulty.answer().await;
    for _ in 0..10 {
        if answer == expected || expected != "too_many_requests" {
            break;
        }
        answer = faulty.answer().await;
    }
    answer
}

#[tokio::test]
async fn of_two_faults_the_earlier_one_is_answered_whichever_they_are() {
    assert_eq!(refusal(&[], "").await, "200 OK", "control");
    for (place, (first, code)) in ORDER.into_iter().enumerate() {
        assert_eq!(refusal(&[first], code).await, code, "control: {first:?} alone");
        for (second, _) in ORDER.into_iter().skip(place + 1) {
            assert_eq!(refusal(&[first, second], code).await, code, "{first:?} before {second:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_was_refused_for_status_or_scopes_is_spent() {
    for (fault, code) in [(Fault::Status, "agent_disabled"), (Fault::Scopes, "invalid_scope")] {
        let faults = [fault];
        let faulty = Faulty::new(&faults);
        let text = faulty.text(&faulty.body());
        assert_eq!(faulty.send(text.clone()).await, code);
        assert_eq!(
            faulty.send(text).await,
            "replayed",
            "{fault:?}: a copy learns nothing that changed since"
        );
        assert_eq!(faulty.send(faulty.text(&faulty.body())).await, code, "control: one that is new");
    }
}
