//! Who keeps events for whoever fetches them, and gives the tokens that one fetches them with.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use axum::routing::{MethodRouter, post};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// How long an answer takes of a provider that is slow: longer than a question that was told to wait for nothing.
const SLOW: Duration = Duration::from_millis(1_500);

/// What is kept, and what was asked.
pub(super) struct Kept {
    pub(super) waiting: Mutex<Map<String, Value>>,
    pub(super) asked: Mutex<Vec<Value>>,
    /// When questions came and were answered.
    pub(super) times: Mutex<Vec<(Instant, Instant)>>,
    /// The token that is accepted, and what was said where tokens are given.
    pub(super) token: Mutex<String>,
    pub(super) logins: Mutex<Vec<String>>,
    /// Whether questions that wait are cut off, as by something on the way.
    pub(super) cuts_off: AtomicBool,
    /// Whether every answer takes a while, also where nobody was asked to wait.
    pub(super) is_slow: AtomicBool,
}

impl Kept {
    pub(super) fn nothing() -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            asked: Mutex::default(),
            times: Mutex::default(),
            token: Mutex::new("hush".to_owned()),
            logins: Mutex::default(),
            cuts_off: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
        })
    }

    /// Where events are fetched.
    pub(super) fn poll(self: &Arc<Self>) -> MethodRouter {
        let kept = Arc::clone(self);
        post(async move |headers: HeaderMap, body: String| kept.answer(&headers, &body).await)
    }

    async fn answer(&self, headers: &HeaderMap, body: &str) -> (StatusCode, String) {
        if headers["authorization"] != format!("Bearer {}", self.token.lock()) {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        let came = Instant::now();
        let question: Value = serde_json::from_str(body).unwrap();
        for name in question["ack"].as_array().into_iter().flatten() {
            self.waiting.lock().remove(name.as_str().unwrap());
        }
        for (name, _) in question["setErrs"].as_object().into_iter().flatten() {
            self.waiting.lock().remove(name);
        }
        let waits = question["returnImmediately"] == false;
        self.asked.lock().push(question);
        for _ in (0..300).take_while(|_| waits && self.waiting.lock().is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(SLOW).await;
        }
        self.times.lock().push((came, Instant::now()));
        match waits && self.cuts_off.load(Ordering::SeqCst) {
            true => (StatusCode::GATEWAY_TIMEOUT, String::new()),
            false => (StatusCode::OK, json!({ "sets": *self.waiting.lock() }).to_string()),
        }
    }

    /// Where a client of the right name and secret gets another token each time, which is the one that is accepted from then on.
    pub(super) fn tokens(self: &Arc<Self>) -> MethodRouter {
        let kept = Arc::clone(self);
        post(async move |headers: HeaderMap, body: String| {
            // `obol` and the secret `s+3/cret` as RFC 6749, section 2.3.1 writes them.
            if headers["authorization"] != "Basic b2JvbDpzJTJCMyUyRmNyZXQ=" {
                return (StatusCode::UNAUTHORIZED, String::new());
            }
            let mut logins = kept.logins.lock();
            logins.push(body);
            let token = format!("token-{}", logins.len());
            kept.token.lock().clone_from(&token);
            let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3});
            (StatusCode::OK, answer.to_string())
        })
    }
}
