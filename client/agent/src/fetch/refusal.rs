//! Whether an answer is a refusal, and which: in a challenge, or in a problem document.

use core::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use obol_secret::json;
use serde::Deserialize;

use super::tries::Happened;
use crate::arguments::media_type;
use crate::body::ResponseBody;

/// The longest problem document that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;
/// When to ask again where that is not said.
const USUAL_PAUSE: Duration = Duration::from_secs(1);

/// The code of a problem document.
fn problem(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }

    json::parse(body).ok().map(|Problem { code }| code)
}

/// The code in a challenge of the guard: `TBAC error="CODE"`.
fn challenged(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(WWW_AUTHENTICATE)?.to_str().ok()?;
    let rest = value.strip_prefix("TBAC ")?.split("error=\"").nth(1)?;
    rest.split_once('"').map(|(code, _)| code)
}

/// In whole seconds; anything else counts as one.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let digits =
        |text: &&str| (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let secs = headers.get(RETRY_AFTER)?.to_str().ok().filter(digits).and_then(|text| text.parse().ok());
    Some(secs.map_or(USUAL_PAUSE, Duration::from_secs))
}

/// An answer, looked at.
pub(super) struct Looked {
    pub(super) response: Response<ResponseBody>,
    /// The refusal's code, where it is one.
    pub(super) code: Option<String>,
    retry_after: Option<Duration>,
}

impl Looked {
    /// Looks at an answer; reads its body only where that may be a refusal that says more in it.
    pub(super) async fn at(response: Response<Incoming>, patience: Duration) -> Self {
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let may_say_more = matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE
        );
        let code =
            challenged(response.headers()).filter(|_| status == StatusCode::UNAUTHORIZED).map(str::to_owned);
        let response = response.map(|body| ResponseBody::coming(body, patience));
        let is_problem = media_type(response.headers()) == Some(b"application/problem+json");
        if code.is_some() || !may_say_more || !is_problem {
            return Self { response, code, retry_after };
        }
        let mut response = response;
        let code = response.body_mut().peek(MAX_PROBLEM_BYTES).await.and_then(|body| problem(&body));
        Self { response, code, retry_after }
    }

    pub(super) fn happened(&self) -> Happened<'_> {
        let pause = self.retry_after.unwrap_or(USUAL_PAUSE);
        match (self.response.status().as_u16(), self.code.as_deref()) {
            (401, Some(code)) => Happened::Refused(code),
            (409, _) if self.retry_after.is_some() => Happened::Running(pause),
            (503, Some("UNAVAILABLE" | "OVERLOADED")) => Happened::NotRun(pause),
            (500.., _) => Happened::Failed,
            _ => Happened::Answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_as_the_guard_writes_it() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, value.parse().unwrap());
            challenged(&headers).map(str::to_owned)
        };
        assert_eq!(
            of("TBAC error=\"SESSION_EXPIRED\", failed_check=\"X\"").as_deref(),
            Some("SESSION_EXPIRED")
        );
        for value in ["Bearer error=\"SESSION_EXPIRED\"", "TBAC", "Basic realm=\"x\""] {
            assert_eq!(of(value), None, "{value}");
        }
    }
}
