//! OAuth 2.0 client credentials (RFC 6749, section 4.4): a token that is fetched ahead of its need, once for all who wait for it.
//!
//! It is renewed in the background, so that a call neither waits for the token endpoint nor burns its own token for one that is
//! away; and so that there is never more than one request for it under way.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use obol_secret::json;
use obol_secret::wipe::{Wiped, WipedText};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Credential;
use crate::upstream::Upstream;

/// How long the token endpoint may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How long a token lasts whose answer does not say.
const USUAL_LIFE: Duration = Duration::from_secs(300);
/// The shortest and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The least time between two tokens, however soon one is over or refused.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// What it takes to fetch a token.
pub(crate) struct Renewal {
    token_url: Uri,
    client_id: String,
    scope: Option<String>,
    secret: Mutex<Wiped>,
    asked: Notify,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Renewal {
    pub(crate) fn new(token_url: Uri, client_id: &str, scope: Option<&str>, secret: &[u8]) -> Self {
        let secret = Mutex::new(Wiped::new(secret.to_vec()));
        let scope = scope.map(str::to_owned);
        Self { token_url, client_id: client_id.to_owned(), scope, secret, asked: Notify::new() }
    }

    /// Fetches one before its time.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    pub(super) fn replace(&self, secret: &[u8]) {
        *self.secret.lock() = Wiped::new(secret.to_vec());
        self.ask();
    }

    /// Keeps the credential renewed, for ever.
    pub(crate) async fn keep(&self, api: &str, credential: &Credential, upstream: &Upstream) {
        let mut pause = PAUSES.0;
        // When the token at hand is over.
        let mut ends = None;
        loop {
            let fetched = timeout(PATIENCE, self.fetch(upstream)).await;
            let outcome = fetched.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            let outcome = outcome.and_then(|(token, life)| {
                credential.put(Some(token.as_bytes())).map_err(|unfit| unfit.to_string())?;
                Ok(life)
            });
            let rest = match outcome {
                Ok(life) => {
                    tracing::info!(api, seconds = life.as_secs(), "the API's token was renewed");
                    pause = PAUSES.0;
                    ends = Some(tokio::time::Instant::now() + life);
                    life.mul_f32(0.8).max(LEAST_PAUSE)
                }
                Err(error) => {
                    tracing::error!(api, error, "the API's token cannot be renewed");
                    if ends.is_some_and(|ends| ends <= tokio::time::Instant::now()) {
                        let _fits = credential.put(None);
                    }
                    let now = pause;
                    pause = (pause * 2).min(PAUSES.1);
                    now
                }
            };
            tokio::select! {
                () = sleep(rest) => {}
                () = self.asked.notified() => sleep(LEAST_PAUSE).await,
            }
        }
    }

    async fn fetch(&self, upstream: &Upstream) -> Result<(WipedText, Duration), String> {
        let response =
            upstream.send_to(self.request()?).await.map_err(|unanswered| unanswered.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        // What an answer says may repeat the secret.
        let body = body.map_err(|_| "its answer broke off, or is too long".to_owned())?.to_bytes();
        if status != 200 {
            return Err(format!("the token endpoint answered {status}"));
        }
        let answer: Answer =
            json::parse(&body).map_err(|_| "its answer is not one of a token endpoint".to_owned())?;
        let token = WipedText::new(answer.access_token);
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err("it gives another type of token than Bearer".to_owned());
        }
        Ok((token, answer.expires_in.map_or(USUAL_LIFE, Duration::from_secs)))
    }

    /// The client is authenticated as section 2.3.1 has it, which every server must support.
    fn request(&self) -> Result<Request<axum::body::Body>, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let login = {
            let secret = self.secret.lock();
            let encoded = |bytes: &[u8]| form_urlencoded::byte_serialize(bytes).collect::<String>();
            WipedText::new(format!("{}:{}", encoded(self.client_id.as_bytes()), encoded(&secret)))
        };
        let login = WipedText::new(format!("Basic {}", STANDARD.encode(login.as_bytes())));
        let mut login =
            HeaderValue::from_str(&login).map_err(|_| "the client's name cannot be sent".to_owned())?;
        login.set_sensitive(true);
        Request::builder()
            .method(Method::POST)
            .uri(self.token_url.clone())
            .header(AUTHORIZATION, login)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish().into())
            .map_err(|error| error.to_string())
    }
}
