//! OAuth 2.0 client credentials (RFC 6749, section 4.4): a token that is fetched ahead of its need, once for all who wait for it.
//!
//! It is renewed in the background, so that nobody who needs it waits for the token endpoint, or fails because that is away; and so
//! that there is never more than one request for it under way. Neither the secret nor what an answer says is ever in an error.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use obol_secret::json;
use obol_secret::wipe::{Wiped, WipedText};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long the token endpoint may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer of it that is to be read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How long a token lasts whose answer does not say.
const USUAL_LIFE: Duration = Duration::from_secs(300);
/// How long a token is taken to last at the most, whatever its answer says.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
/// The shortest and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The least time between two tokens, however soon one is over or refused.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// The token endpoint, and who holds its tokens.
pub trait TokenEndpoint: Sync {
    /// Sends it a form; status and body of its answer, of which no more than [`MAX_ANSWER_BYTES`] are read.
    fn post(
        &self,
        headers: HeaderMap,
        form: Vec<u8>,
    ) -> impl Future<Output = Result<(StatusCode, Wiped), String>> + Send;

    /// Uses this token from now on; none where the last is over and there is no other.
    ///
    /// # Errors
    ///
    /// It cannot be used. What is said does not repeat it.
    fn put(&self, token: Option<&WipedText>) -> Result<(), String>;
}

/// A client, as the token endpoint knows it.
pub struct OauthClient {
    id: String,
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

impl OauthClient {
    /// With this secret.
    pub fn new(id: &str, scope: Option<&str>, secret: &[u8]) -> Self {
        let secret = Mutex::new(Wiped::new(secret.to_vec()));
        Self { id: id.to_owned(), scope: scope.map(str::to_owned), secret, asked: Notify::new() }
    }

    /// Fetches a token before its time.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Takes another secret.
    pub fn replace(&self, secret: &[u8]) {
        *self.secret.lock() = Wiped::new(secret.to_vec());
        self.ask();
    }

    /// Keeps the token renewed, for ever. `what` is whose it is, for the log.
    pub async fn keep(&self, what: &str, endpoint: &impl TokenEndpoint) {
        let mut pause = PAUSES.0;
        // When the token at hand is over.
        let mut ends = None;
        loop {
            let fetched = timeout(PATIENCE, self.fetch(endpoint)).await;
            let outcome = fetched.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            let outcome = outcome.and_then(|(token, life)| endpoint.put(Some(&token)).map(|()| life));
            let rest = match outcome {
                Ok(life) => {
                    tracing::info!(what, seconds = life.as_secs(), "a token of OAuth was renewed");
                    pause = PAUSES.0;
                    ends = Some(Instant::now() + life);
                    life.mul_f32(0.8).max(LEAST_PAUSE)
                }
                Err(error) => {
                    tracing::error!(what, error, "a token of OAuth cannot be renewed");
                    if ends.is_some_and(|ends| ends <= Instant::now()) {
                        let _fits = endpoint.put(None);
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

    async fn fetch(&self, endpoint: &impl TokenEndpoint) -> Result<(WipedText, Duration), String> {
        let (headers, form) = self.request()?;
        let (status, body) = endpoint.post(headers, form).await?;
        if status != StatusCode::OK {
            return Err(format!("the token endpoint answered {status}"));
        }
        // What an answer says may repeat the secret.
        let answer: Answer =
            json::parse(&body).map_err(|_| "its answer is not one of a token endpoint".to_owned())?;
        let token = WipedText::new(answer.access_token);
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err("it gives another type of token than Bearer".to_owned());
        }
        let life = answer.expires_in.map_or(USUAL_LIFE, Duration::from_secs);
        Ok((token, life.min(LONGEST_LIFE)))
    }

    /// The client is authenticated as section 2.3.1 has it, which every server must support.
    fn request(&self) -> Result<(HeaderMap, Vec<u8>), String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let login = {
            let secret = self.secret.lock();
            let encoded = |bytes: &[u8]| form_urlencoded::byte_serialize(bytes).collect::<String>();
            WipedText::new(format!("{}:{}", encoded(self.id.as_bytes()), encoded(&secret)))
        };
        let login = WipedText::new(format!("Basic {}", STANDARD.encode(login.as_bytes())));
        let mut login =
            HeaderValue::from_str(&login).map_err(|_| "the client's name cannot be sent".to_owned())?;
        login.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, login);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        Ok((headers, form.finish().into_bytes()))
    }
}

impl core::fmt::Debug for OauthClient {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OauthClient({})", self.id)
    }
}
