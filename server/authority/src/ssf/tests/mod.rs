//! A service that listens, on real sockets, and an identity provider that it listens to. Each attack is beside the token
//! that it was made from, which is taken.

mod keeping;
mod polling;
mod rotating;
mod telling;

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;

use axum::routing::get;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use obol_handshake::AuthoritySecret;
use obol_secret::file::PrivateFile;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::keeping::Kept;
use super::*;
use crate::decider::NoPolicy;
use crate::directory::contract::agent_at;
use crate::directory::{AgentStatus, MemoryDirectory};
use crate::http::{Options, now};
use crate::jws::{Algorithm, SigningKeys};
use crate::outbound::{Answer, Outbound, Target};
use crate::{Authority, Parts, Settings};

const AUDIENCE: &str = "https://as.example";
const CAEP_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const RISC_DISABLED: &str = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// An identity provider that publishes keys, and keeps events for who fetches them.
struct Idp {
    issuer: String,
    keys: SigningKeys,
    published: Arc<Mutex<Value>>,
    fetches: Arc<AtomicUsize>,
    kept: Arc<Kept>,
    serving: JoinHandle<()>,
}

impl Idp {
    async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    /// `jwks_uri` may be somewhere else.
    async fn start_with(jwks_uri: impl Fn(&str) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let keys = SigningKeys::generate_es256().unwrap();
        let published = Arc::new(Mutex::new(keys.key_set()));
        let (fetches, kept) = (Arc::new(AtomicUsize::new(0)), Kept::nothing());
        let jwks_uri = jwks_uri(&issuer).unwrap_or_else(|| format!("{issuer}/jwks"));
        let configuration =
            json!({"issuer": issuer, "jwks_uri": jwks_uri, "spec_version": "1_0"}).to_string();
        let (shown, counted) = (Arc::clone(&published), Arc::clone(&fetches));
        let routes = axum::Router::new()
            .route("/.well-known/ssf-configuration", get(async move || configuration))
            .route(
                "/jwks",
                get(async move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                    shown.lock().to_string()
                }),
            )
            .route("/elsewhere", get(async || (StatusCode::FOUND, [(LOCATION, "/jwks")])))
            .route("/token", kept.tokens())
            .route("/poll", kept.poll());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { issuer, keys, published, fetches, kept, serving }
    }

    fn claims(&self, jti: &str, event: &str, user: &str) -> Value {
        json!({
            "iss": self.issuer, "aud": AUDIENCE, "jti": jti, "iat": now().secs(),
            "sub_id": {"format": "iss_sub", "iss": self.issuer, "sub": user},
            "events": { event: { "event_timestamp": now().secs() } },
        })
    }

    fn sign(&self, claims: &Value) -> String {
        self.keys.sign(Algorithm::Es256, effect::SET_TYPE, claims).unwrap()
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A service that listens.
struct Listening {
    authority: Arc<Authority>,
    events: Arc<Events>,
    place: Target,
    client: Outbound,
    serving: JoinHandle<()>,
}

impl Listening {
    async fn to(idp: &Idp, more: &Value) -> Self {
        let mut transmitter = json!({ "issuer": idp.issuer, "users_of": "local" });
        transmitter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self::with(&json!({ "transmitters": [transmitter] })).await
    }

    async fn with(text: &Value) -> Self {
        let text = text.to_string();
        let settings = EventSettings::from_json(text.as_bytes(), AUDIENCE, &std::env::temp_dir()).unwrap();
        let parts = Parts {
            settings: Settings::new(AUDIENCE, "example").unwrap(),
            directory: Arc::new(MemoryDirectory::new()),
            decider: Arc::new(NoPolicy("none".to_owned())),
            key: AuthoritySecret::generate(&mut crate::id::SystemRandom),
            code_key: [3; 32],
            audit: None,
        };
        let authority = Arc::new(Authority::new(parts, now()).unwrap());
        let client = Outbound::new(None).unwrap();
        let events = Arc::new(Events::new(settings, client.clone()));
        let options = Options::new("127.0.0.1:0".parse().unwrap()).events(Arc::clone(&events));
        let service = options.bind(Arc::clone(&authority)).await.unwrap();
        let address = service.handle().addresses()[0].tcp().unwrap();
        let place = Target::parse(&format!("http://{address}/v1/events")).unwrap();
        let serving = tokio::spawn(async move {
            let _said_in_the_log = service.run(core::future::pending()).await;
        });
        Self { authority, events, place, client, serving }
    }

    async fn send_as(&self, kind: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        self.client.post(&self.place, headers, body.into()).await.unwrap()
    }

    async fn send(&self, token: impl Into<Vec<u8>>) -> Answer {
        self.send_as("application/secevent+jwt", token).await
    }

    async fn taken(&self, token: &str) {
        let answer = self.send(token).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::ACCEPTED, 0), "{:?}", answer.body);
    }

    /// The code with which it is refused.
    async fn refused(&self, token: &str) -> String {
        let answer = self.send(token).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{:?}", answer.body);
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(said["description"].is_string());
        said["err"].as_str().unwrap().to_owned()
    }

    /// An agent that this user of the machine answers for.
    fn agent(&self, number: u64, name: &str) -> crate::directory::Agent {
        agent_at(self.authority.directory(), number, name, now().secs())
    }

    fn state(&self, name: &str) -> AgentStatus {
        self.authority.directory().agent(name).unwrap().unwrap().status
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_disabled_at_the_provider_suspends_its_agents_before_the_answer() {
    let idp = Idp::start().await;
    let service = Listening::to(&idp, &json!({})).await;
    service.agent(1, "builder");
    service.agent(2, "other");
    // `human-1` approved the first, `human-2` the second.
    service.taken(&idp.sign(&idp.claims("1", RISC_DISABLED, "human-1"))).await;
    assert_eq!(service.state("builder"), AgentStatus::Suspended);
    assert_eq!(service.state("other"), AgentStatus::Active);
    service.taken(&idp.sign(&idp.claims("2", RISC_DISABLED, "nobody"))).await;
    service.taken(&idp.sign(&idp.claims("3", "https://example.com/unheard-of", "human-2"))).await;
    assert_eq!(service.state("other"), AgentStatus::Active);
    let verification = json!({
        "iss": idp.issuer, "aud": [AUDIENCE], "jti": "4", "iat": now().secs(),
        "sub_id": {"format": "opaque", "id": "a stream"}, "events": { VERIFICATION: {"state": "x"} },
    });
    service.taken(&idp.sign(&verification)).await;
    let [status] = &service.events.status()[..] else { panic!("it listens to one") };
    assert_eq!((status.taken, status.unknown, status.refused, status.keys), (3, 1, 0, 1), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_or_misdirected_event_does_nothing_and_the_one_it_was_made_from_does() {
    let idp = Idp::start().await;
    let service = Listening::to(&idp, &json!({})).await;
    service.agent(1, "builder");
    let good = idp.claims("good", RISC_DISABLED, "human-1");
    let with = |member: &str, value: Value| {
        let mut claims = good.clone();
        claims[member] = value;
        idp.sign(&claims)
    };
    let refused = async |token: String, code: &str| {
        assert_eq!(service.refused(&token).await, code, "{token}");
        assert_eq!(service.state("builder"), AgentStatus::Active, "{code}");
    };
    refused(with("iss", json!("https://other.example")), "invalid_issuer").await;
    refused(with("aud", json!("https://other.example")), "invalid_audience").await;
    refused(with("aud", json!([])), "invalid_audience").await;
    refused(with("iat", json!(now().secs() - 601)), "invalid_request").await;
    refused(with("iat", json!(now().secs() + 660)), "invalid_request").await;
    refused(with("exp", json!(now().secs() - 1)), "invalid_request").await;
    refused(with("jti", json!("")), "invalid_request").await;
    refused(with("jti", json!("x".repeat(513))), "invalid_request").await;
    refused(with("events", json!({})), "invalid_request").await;
    refused(with("sub_id", Value::Null), "invalid_request").await;
    // Keys: another's, under his name and under ours; and headers that bring their own.
    let evil = SigningKeys::generate_es256().unwrap();
    let of_evil = evil.sign(Algorithm::Es256, effect::SET_TYPE, &good).unwrap();
    assert_ne!(service.send(of_evil).await.status, StatusCode::ACCEPTED);
    assert_eq!(service.state("builder"), AgentStatus::Active, "of a key that was never published");
    let kid = idp.keys.key_set()["keys"][0]["kid"].clone();
    let header = json!({"alg": "ES256", "typ": "secevent+jwt", "kid": kid});
    let mut own_key = header.clone();
    own_key["jwk"] = evil.key_set()["keys"][0].clone();
    refused(evil.sign_with_header(&own_key, &good), "authentication_failed").await;
    for (member, value, code) in [
        ("crit", json!(["x"]), "invalid_request"),
        ("typ", json!("JWT"), "invalid_request"),
        ("alg", json!("none"), "invalid_key"),
        ("alg", json!("HS256"), "invalid_key"),
    ] {
        let mut header = header.clone();
        header[member] = value;
        refused(idp.keys.sign_with_header(&header, &good), code).await;
    }
    // Humans of somebody else.
    for about in [
        json!({"format": "iss_sub", "iss": "https://other.example", "sub": "human-1"}),
        json!({"format": "email", "email": "human-1@corp.example"}),
    ] {
        service.taken(&with("sub_id", about)).await;
        assert_eq!(service.state("builder"), AgentStatus::Active);
    }
    let twice = service.send_as("application/json", idp.sign(&good)).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST, "another content type");
    assert_eq!(service.send("x".repeat(70_000)).await.status, StatusCode::BAD_REQUEST);
    // The control. The name `good` was heard above, so it has another one.
    service.taken(&with("jti", json!("control"))).await;
    assert_eq!(service.state("builder"), AgentStatus::Suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_sent_again_is_confirmed_and_does_nothing_again() {
    let idp = Idp::start().await;
    let service = Listening::to(&idp, &json!({"email_domain": "corp.example"})).await;
    service.agent(1, "builder");
    let mut claims = idp.claims("once", RISC_DISABLED, "human-1");
    claims["sub_id"] = json!({"format": "email", "email": "human-1@corp.example"});
    let token = idp.sign(&claims);
    service.taken(&token).await;
    assert_eq!(service.state("builder"), AgentStatus::Suspended);
    let by = crate::directory::Human::local("op");
    service.authority.enable_agent("builder", &by, now()).unwrap();
    let before = service.authority.directory().last_event().unwrap();
    let answers = (0..10).map(|_| service.send(token.clone()));
    for answer in futures_all(answers).await {
        assert_eq!(answer.status, StatusCode::ACCEPTED);
    }
    // The same name with another text is the same event.
    service.taken(&idp.sign(&claims)).await;
    assert_eq!(service.state("builder"), AgentStatus::Active);
    assert_eq!(service.authority.directory().last_event().unwrap(), before);
    claims["jti"] = json!("another");
    service.taken(&idp.sign(&claims)).await;
    assert_eq!(service.state("builder"), AgentStatus::Suspended, "the control");
}

async fn futures_all(answers: impl Iterator<Item = impl Future<Output = Answer>>) -> Vec<Answer> {
    let mut all = Vec::new();
    for answer in answers {
        all.push(answer.await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_replaced_are_fetched_when_a_token_names_one_and_not_for_every_token() {
    let mut idp = Idp::start().await;
    let service = Listening::to(&idp, &json!({})).await;
    service.agent(1, "builder");
    until("the first keys", || service.events.status()[0].keys == 1).await;
    let old = idp.sign(&idp.claims("old", CAEP_REVOKED, "human-1"));
    service.taken(&old).await;
    let fetched = idp.fetches.load(Ordering::SeqCst);
    let withdrawn = core::mem::replace(&mut idp.keys, SigningKeys::generate_es256().unwrap());
    *idp.published.lock() = idp.keys.key_set();
    let new = idp.sign(&idp.claims("new", RISC_DISABLED, "human-1"));
    // Junk and the new key alike cause one fetch in a while; until then it is to be sent again, and is not lost.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = service.send(new.clone()).await;
        if answer.status == StatusCode::ACCEPTED {
            break;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.body);
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(service.state("builder"), AgentStatus::Suspended);
    let junk = SigningKeys::generate_es256().unwrap();
    for number in 0..50 {
        let claims = idp.claims(&number.to_string(), RISC_DISABLED, "human-1");
        let answer = service.send(junk.sign(Algorithm::Es256, effect::SET_TYPE, &claims).unwrap()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(idp.fetches.load(Ordering::SeqCst) <= fetched + 2, "fifty tokens, at most one more fetch");
    // What was withdrawn is taken no more.
    let late = withdrawn.sign(Algorithm::Es256, effect::SET_TYPE, &idp.claims("l", CAEP_REVOKED, "human-1"));
    assert_ne!(service.send(late.unwrap()).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_not_fetched_in_clear_nor_by_a_redirect() {
    for elsewhere in ["http://10.0.0.1/jwks", "REDIRECT"] {
        let idp = Idp::start_with(|issuer| {
            Some(if elsewhere == "REDIRECT" { format!("{issuer}/elsewhere") } else { elsewhere.to_owned() })
        });
        let idp = idp.await;
        let service = Listening::to(&idp, &json!({})).await;
        until("an error", || service.events.status()[0].error.is_some()).await;
        let status = &service.events.status()[0];
        assert_eq!((status.keys, idp.fetches.load(Ordering::SeqCst)), (0, 0), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_is_carried_out_confirmed_and_refused_one_by_one() {
    let idp = Idp::start().await;
    let evil = SigningKeys::generate_es256().unwrap();
    let claims = idp.claims("bad", RISC_DISABLED, "human-1");
    let kid = idp.keys.key_set()["keys"][0]["kid"].clone();
    let forged = evil.sign_with_header(&json!({"alg": "ES256", "typ": "secevent+jwt", "kid": kid}), &claims);
    idp.kept.waiting.lock().extend([
        ("good".to_owned(), json!(idp.sign(&idp.claims("good", RISC_DISABLED, "human-1")))),
        ("bad".to_owned(), json!(forged)),
    ]);
    let poll = json!({"poll": {"url": format!("{}/poll", idp.issuer), "token": "hush"}});
    let service = Listening::to(&idp, &poll).await;
    service.agent(1, "builder");
    until("both are gone", || idp.kept.waiting.lock().is_empty()).await;
    let asked = idp.kept.asked.lock().clone();
    assert!(asked.iter().any(|question| question["ack"] == json!(["good"])), "{asked:?}");
    assert!(
        asked.iter().any(|question| question["setErrs"]["bad"]["err"] == "authentication_failed"),
        "{asked:?}"
    );
    assert!(
        !asked
            .iter()
            .any(|question| question["ack"].as_array().is_some_and(|ack| ack.contains(&json!("bad"))))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_what_comes_and_who_cuts_it_off_is_asked_now_and_then() {
    for cuts_off in [false, true] {
        let idp = Idp::start().await;
        idp.kept.cuts_off.store(cuts_off, Ordering::SeqCst);
        let poll = json!({"poll": {"url": format!("{}/poll", idp.issuer), "token": "hush"}});
        let service = Listening::to(&idp, &poll).await;
        service.agent(1, "builder");
        // The first question waits. Two that were cut off are enough, and the third does not.
        let asked = if cuts_off { 3 } else { 1 };
        until("it has asked", || idp.kept.asked.lock().len() == asked).await;
        assert_eq!(
            idp.kept.asked.lock().last().unwrap()["returnImmediately"],
            cuts_off,
            "{:?}",
            idp.kept.asked
        );
        let began = tokio::time::Instant::now();
        let token = idp.sign(&idp.claims("new", RISC_DISABLED, "human-1"));
        idp.kept.waiting.lock().insert("new".to_owned(), json!(token));
        until("it is carried out", || service.state("builder") == AgentStatus::Suspended).await;
        // A pause between questions is longer.
        assert!(cuts_off || began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        until("it is confirmed", || idp.kept.waiting.lock().is_empty()).await;
    }
    // Whom an operator does not want to keep waiting.
    let idp = Idp::start().await;
    let poll = json!({"poll": {"url": format!("{}/poll", idp.issuer), "token": "hush", "wait_secs": 0}});
    let _service = Listening::to(&idp, &poll).await;
    until("it has asked", || !idp.kept.asked.lock().is_empty()).await;
    assert_eq!(idp.kept.asked.lock()[0]["returnImmediately"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_provider_has_a_token_before_it_asks_and_another_before_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    for (name, secret) in [("right", "s+3/cret\n"), ("wrong", "another")] {
        PrivateFile::create_whole(folder.path().join(name), secret.as_bytes()).unwrap();
    }
    let poll = |idp: &Idp, file: &str| {
        let client = json!({
            "token_url": format!("{}/token", idp.issuer), "client_id": "obol", "scope": "ssf.read",
            "secret_file": folder.path().join(file),
        });
        json!({"poll": {"url": format!("{}/poll", idp.issuer), "wait_secs": 0, "client": client}})
    };
    let idp = Idp::start().await;
    idp.kept.token.lock().clear();
    let service = Listening::to(&idp, &poll(&idp, "right")).await;
    service.agent(1, "builder");
    let token = idp.sign(&idp.claims("new", RISC_DISABLED, "human-1"));
    idp.kept.waiting.lock().insert("new".to_owned(), json!(token));
    until("it is carried out", || service.state("builder") == AgentStatus::Suspended).await;
    assert_eq!(idp.kept.logins.lock()[0], "grant_type=client_credentials&scope=ssf.read");
    let debug = format!("{:?}", service.events);
    assert!(!debug.contains("cret") && !debug.contains("token-"), "{debug}");
    // Ahead of its end, by itself.
    until("it is renewed", || idp.kept.logins.lock().len() >= 2).await;
    // One that is not taken any more is replaced at once, and what was not confirmed is.
    let renewed = idp.kept.logins.lock().len();
    "revoked".clone_into(&mut idp.kept.token.lock());
    until("there is another", || idp.kept.logins.lock().len() > renewed).await;
    until("it is confirmed", || idp.kept.waiting.lock().is_empty()).await;
    // The control: who cannot log in asks nothing, and nothing is carried out.
    let idp = Idp::start().await;
    idp.kept.token.lock().clear();
    let service = Listening::to(&idp, &poll(&idp, "wrong")).await;
    service.agent(1, "builder");
    let token = idp.sign(&idp.claims("new", RISC_DISABLED, "human-1"));
    idp.kept.waiting.lock().insert("new".to_owned(), json!(token));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(idp.kept.asked.lock().is_empty() && idp.kept.logins.lock().is_empty());
    assert_eq!(service.state("builder"), AgentStatus::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_goes_the_way_of_every_event() {
    let idp = Idp::start().await;
    let service = Listening::to(&idp, &json!({})).await;
    let (one, two) = (service.agent(1, "builder"), service.agent(2, "other"));
    let authority = &service.authority;
    let human = one.owner.clone();
    let done = trial(authority, Trial::AccountDisabled, &human, None, now()).unwrap().unwrap();
    assert_eq!(done.ended.agents, [one.id]);
    assert_eq!(service.state("other"), AgentStatus::Active);
    assert!(trial(authority, Trial::SessionRevoked, &two.owner, Some(&two.id), now()).unwrap().is_some());
    assert_eq!(service.state("other"), AgentStatus::Active, "its sessions end, and nothing else");
    let nobody = crate::directory::Human::local("nobody");
    assert!(trial(authority, Trial::SessionRevoked, &nobody, None, now()).unwrap().is_none());
}
