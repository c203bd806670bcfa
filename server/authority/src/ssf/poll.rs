//! Fetches security events from who keeps them (RFC 8936), where nobody can reach this service. What was carried out is
//! confirmed with the next request, and what cannot be is said to be wrong; what could not be yet is neither.
//!
//! A question waits at the transmitter until there is something (a long poll). One that answers at once, or whose questions break
//! off while they wait, is asked every few seconds instead.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::login::Login;
use super::refusal::Refusal;
use super::settings::{PollSettings, TransmitterSettings};
use crate::directory::TakenSet;
use crate::outbound::Outbound;

/// The most events of one answer.
const MAX_EVENTS: usize = 100;
/// The pause between questions where nothing waits, and the longest after failures.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Who answers that there is nothing in less than this has not waited.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// How many questions that wait may break off, one after the other, before none is asked for a while.
const BROKEN_OFF: u32 = 2;
/// That while.
const NO_WAITING: Duration = Duration::from_secs(600);

/// What is said of the events of the last answer.
#[derive(Debug, Default)]
struct Said {
    done: Vec<String>,
    wrong: Map<String, Value>,
}

/// Events that wait, by name, and whether there are more.
#[derive(Debug, Deserialize)]
struct Waiting {
    #[serde(default)]
    sets: BTreeMap<String, String>,
    #[serde(default, rename = "moreAvailable")]
    more: bool,
}

/// Asks, and remembers what to say of the last answer.
#[derive(Debug, Default)]
pub(super) struct Poller {
    said: Said,
    failures: u32,
    /// Whether nothing is to be asked for a while.
    is_idle: bool,
    /// Questions that broke off while they waited, since one was answered.
    broken_off: u32,
    /// Until when none waits.
    no_waiting_until: Option<Instant>,
}

impl Poller {
    /// The next tokens, each with its name; waits where there are none.
    pub(super) async fn next(
        &mut self,
        by: &TransmitterSettings,
        login: Option<&Login>,
        outbound: &Outbound,
    ) -> Vec<(String, Vec<u8>)> {
        let Some(place) = &by.poll else { return core::future::pending().await };
        if core::mem::take(&mut self.is_idle) {
            let pause = PAUSES.0.saturating_mul(2_u32.saturating_pow(self.failures.min(8)));
            sleep(pause.min(PAUSES.1)).await;
        }
        // Without a token nothing is asked; why there is none stands in the log.
        let shown = match login {
            Some(login) => Some(login.header().await),
            None => None,
        };
        let began = Instant::now();
        let may_wait = self.no_waiting_until.is_none_or(|until| began >= until);
        let wait = if may_wait { place.wait } else { Duration::ZERO };
        match ask(place, (login, shown), outbound, &self.said, wait).await {
            Ok(waiting) => {
                self.failures = 0;
                self.said = Said::default();
                if !wait.is_zero() {
                    self.broken_off = 0;
                }
                // Whoever was not asked to wait was slow, and has not.
                let has_waited = !wait.is_zero() && began.elapsed() >= LEAST_WAIT;
                // What was done is confirmed at once, so that nobody waits for a pause to end.
                self.is_idle = waiting.sets.is_empty() && !waiting.more && !has_waited;
                let sets = waiting.sets.into_iter().take(MAX_EVENTS);
                sets.map(|(name, token)| (name, token.into_bytes())).collect()
            }
            // Something between here and there cuts off what is silent for long; nothing is lost by it.
            Err(error) if !wait.is_zero() && began.elapsed() >= LEAST_WAIT => {
                tracing::warn!(issuer = by.issuer, error, "a question for security events broke off");
                self.broken_off += 1;
                if self.broken_off >= BROKEN_OFF {
                    (self.broken_off, self.no_waiting_until) = (0, Some(Instant::now() + NO_WAITING));
                }
                Vec::new()
            }
            Err(error) => {
                tracing::warn!(issuer = by.issuer, error, "security events could not be fetched");
                (self.failures, self.is_idle) = (self.failures.saturating_add(1), true);
                Vec::new()
            }
        }
    }

    /// Notes what came of a token.
    pub(super) fn note(&mut self, name: String, taken: &Result<TakenSet, Refusal>) {
        match taken {
            Ok(_) => self.said.done.push(name),
            Err(Refusal::Wrong(wrong, why)) => {
                self.said.wrong.insert(name, json!({ "err": wrong.code(), "description": why }));
            }
            // It stays there, and comes again.
            Err(Refusal::Later(..)) => self.is_idle = true,
        }
    }
}

#[expect(clippy::indexing_slicing, reason = "an object takes a member of any name")]
async fn ask(
    place: &PollSettings,
    (login, shown): (Option<&Login>, Option<HeaderValue>),
    outbound: &Outbound,
    said: &Said,
    wait: Duration,
) -> Result<Waiting, String> {
    let mut question = json!({ "maxEvents": MAX_EVENTS, "returnImmediately": wait.is_zero() });
    if !said.done.is_empty() {
        question["ack"] = json!(said.done);
    }
    if !said.wrong.is_empty() {
        question["setErrs"] = json!(said.wrong);
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(shown) = &shown {
        headers.insert(AUTHORIZATION, shown.clone());
    }
    let answer = outbound.post_and_wait(&place.url, headers, question.to_string().into_bytes(), wait).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if let (StatusCode::UNAUTHORIZED, Some(login), Some(shown)) = (answer.status, login, &shown) {
        login.was_refused(shown);
    }
    if !answer.status.is_success() {
        return Err(answer.status.to_string());
    }
    obol_secret::json::parse(&answer.body).map_err(|error| error.to_string())
}
