//! The provider asks a human itself, on a device that it knows: Client-Initiated Backchannel Authentication, poll mode.
//!
//! It is given whom to ask and a code that the human compares. What it says is taken as an ID token of a login is: signed, by the
//! issuer, for this client, of now. Whether somebody may say yes to what was asked is decided elsewhere.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use obol_secret::json::parse;
use obol_secret::text::plain;
use openidconnect::core::CoreClientAuthMethod;
use openidconnect::{ClaimsVerificationError, Nonce};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::login::{Known, LoginError};
use super::provider::{FRESH_SECS, Found, Provider, Tokens, not_trusted, told, unreachable};
use crate::outbound::Target;

/// The provider's answers are asked for with this.
const GRANT: &str = "urn:openid:params:grant-type:ciba";
/// How long is waited between two questions if the provider does not say, and what it may say, in seconds.
const USUAL_PAUSE_SECS: u64 = 5;
const PAUSE_SECS: core::ops::RangeInclusive<u64> = 1..=60;
/// The longest name of a question, in bytes.
const MAX_ID_BYTES: usize = 2_048;
/// The longest name of an error that is repeated, in characters.
const MAX_ERROR_CHARS: usize = 100;

/// A question that the provider has put to a human.
pub(crate) struct Question {
    id: Zeroizing<String>,
    /// How long to wait before it is asked what came of it, and between two times.
    pub(crate) pause: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Word {
    /// Nothing yet.
    Waits,
    /// Nothing yet, and it was asked too soon.
    SlowDown,
    /// A human said no.
    No,
    /// Nobody said anything in time.
    Over,
    /// This human said yes.
    Yes(Known),
}

/// The provider's answer to a question.
#[derive(Deserialize)]
struct Acknowledged {
    auth_req_id: String,
    #[serde(default)]
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Provider {
    /// Has the provider ask a human, whom it knows by this subject; they see the code. For at most so many seconds.
    ///
    /// # Errors
    ///
    /// [`LoginError`]; nobody is asked then.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        code: &str,
        secs: u64,
        now: u64,
    ) -> Result<Question, LoginError> {
        let found = self.found(FRESH_SECS, now).await?;
        let endpoint = found.metadata.additional_metadata().backchannel_authentication_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| unreachable("it does not ask humans itself (CIBA)"))?;
        let scope = core::iter::once("openid").chain(self.settings.scopes.iter().map(String::as_str));
        let (scope, secs) = (scope.collect::<Vec<_>>().join(" "), secs.to_string());
        let acr = self.settings.acr_values.join(" ");
        let mut form = vec![
            ("scope", scope.as_str()),
            ("login_hint", subject),
            ("binding_message", code),
            ("requested_expiry", &secs),
        ];
        form.extend((!acr.is_empty()).then_some(("acr_values", acr.as_str())));
        let (status, body) = self.post(endpoint, form, &found).await?;
        if status != StatusCode::OK {
            return Err(said(&body));
        }
        let answer: Acknowledged = parse(&body).map_err(not_trusted)?;
        let is_name = |id: &str| {
            (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_name(&answer.auth_req_id) {
            return Err(not_trusted("its name for the question is none"));
        }
        let pause = answer.interval.unwrap_or(USUAL_PAUSE_SECS).clamp(*PAUSE_SECS.start(), *PAUSE_SECS.end());
        Ok(Question { id: Zeroizing::new(answer.auth_req_id), pause: Duration::from_secs(pause) })
    }

    /// What came of a question.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub(crate) async fn hear(&self, question: &Question, now: u64) -> Result<Word, LoginError> {
        let found = self.found(FRESH_SECS, now).await?;
        let endpoint = found.metadata.token_endpoint().ok_or_else(|| unreachable("it gives no tokens"))?;
        let form = vec![("grant_type", GRANT), ("auth_req_id", question.id.as_str())];
        let (status, body) = self.post(endpoint.as_str(), form, &found).await?;
        if status != StatusCode::OK {
            let refused: Result<Refused, _> = parse(&body);
            return match refused.as_ref().map(|refused| refused.error.as_str()) {
                Ok("authorization_pending") => Ok(Word::Waits),
                Ok("slow_down") => Ok(Word::SlowDown),
                Ok("access_denied") => Ok(Word::No),
                Ok("expired_token") => Ok(Word::Over),
                _ if status.is_server_error() => Err(unreachable(status)),
                _ => Err(said(&body)),
            };
        }
        let tokens: Tokens = parse(&body).map_err(not_trusted)?;
        let claims = match self.verify(&found, &tokens, any_nonce, true, now) {
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                let found = self.found(0, now).await?;
                self.verify(&found, &tokens, any_nonce, true, now)
            }
            verified => verified,
        };
        self.known(claims.map_err(|error| not_trusted(told(&error)))?).map(Word::Yes)
    }

    /// A form, as the client that the provider knows.
    async fn post(
        &self,
        url: &str,
        mut form: Vec<(&str, &str)>,
        found: &Found,
    ) -> Result<(StatusCode, hyper::body::Bytes), LoginError> {
        let target = Target::parse(url).map_err(unreachable)?;
        let secret = self.settings.client_secret.as_ref();
        let secret = secret.ok_or_else(|| unreachable("the service has no secret there"))?;
        let (id, mut headers) = (self.settings.client_id.as_str(), HeaderMap::new());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let offered = found.metadata.token_endpoint_auth_methods_supported();
        if offered.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic)) {
            let part = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair = Zeroizing::new(format!("{}:{}", part(id), part(secret)));
            let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
                .map_err(unreachable)?;
            basic.set_sensitive(true);
            headers.insert(AUTHORIZATION, basic);
        } else {
            form.push(("client_id", id));
            form.push(("client_secret", secret));
        }
        let body = Serializer::new(String::new()).extend_pairs(form).finish().into_bytes();
        let answer = self.outbound.post(&target, headers, body).await;
        answer.map(|answer| (answer.status, answer.body)).map_err(unreachable)
    }
}

/// A question's name is known to nobody else, so there is no nonce.
fn any_nonce(_: Option<&Nonce>) -> Result<(), String> {
    Ok(())
}

/// What the provider says instead, as an error.
fn said(body: &[u8]) -> LoginError {
    match parse::<Refused>(body) {
        Ok(refused) => LoginError::Said(plain(&refused.error).chars().take(MAX_ERROR_CHARS).collect()),
        Err(_) => not_trusted("its answer is none"),
    }
}
