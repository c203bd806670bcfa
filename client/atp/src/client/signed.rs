//! The dialect of signed requests.

use http::Method as HttpMethod;
use obol_atp::discovery::SignedEndpoints;
use obol_atp::{AgentId, AtpEndpoint, Host, RevokeBody, Secret, TokenBody};
use obol_secret::json;
use obol_secret::text::to_base64url;
use serde::Deserialize;

use super::{Client, code, now_ms, refused};
use crate::connect::{Answer, Outgoing};
use crate::date::http_date_ms;
use crate::entry::{Entry, Method};
use crate::error::AtpError;
use crate::secrets;
use crate::token::TokenRequest;

/// How wrong this machine's clock may be to be corrected by a provider's, in milliseconds.
const MAX_CORRECTION_MS: i64 = 15 * 60_000;

#[derive(Deserialize)]
struct Revoked {
    revoked: bool,
}

/// What makes one signed body differ from every other.
struct Stamp {
    agent: AgentId,
    nonce: String,
    timestamp: u64,
}

impl Client {
    pub(super) async fn ask_signed(
        &self,
        host: &Host,
        endpoints: &SignedEndpoints,
        request: &TokenRequest,
    ) -> Result<Entry, AtpError> {
        let sign = |secret: &Secret, stamp: Stamp| {
            let body = TokenBody {
                agent_id: stamp.agent,
                aud: Some(endpoints.token.as_str().into()),
                nonce: Some(stamp.nonce.into()),
                purpose: request.purpose.as_deref().map(Into::into),
                scopes: request.scopes.iter().map(Into::into).collect(),
                timestamp: stamp.timestamp,
            };
            body.signed_with(secret)
        };
        let answer = self.signed(host, &endpoints.token, sign).await?;
        self.entry_of(host, Method::Signed, &endpoints.token, &answer)
    }

    /// Whether the provider says that a token is over.
    pub(super) async fn revoke_signed(
        &self,
        host: &Host,
        endpoints: &SignedEndpoints,
        token: &str,
    ) -> Result<bool, AtpError> {
        let sign = |secret: &Secret, stamp: Stamp| {
            let body = RevokeBody {
                agent_id: stamp.agent,
                aud: Some(endpoints.token.as_str().into()),
                nonce: Some(stamp.nonce.into()),
                timestamp: stamp.timestamp,
                token: token.into(),
            };
            body.signed_with(secret)
        };
        let answer = self.signed(host, &endpoints.revoke, sign).await?;
        let failed = refused(&answer);
        if failed.is_passing() {
            return Err(failed);
        }
        Ok(answer.status == 200 && json::parse::<Revoked>(&answer.body).is_ok_and(|body| body.revoked))
    }

    /// Signs and sends; once more with the clock corrected, or with a secret that was changed meanwhile.
    async fn signed(
        &self,
        host: &Host,
        to: &AtpEndpoint,
        sign: impl Fn(&Secret, Stamp) -> Vec<u8>,
    ) -> Result<Answer, AtpError> {
        let mut secret = self.secret(host).await?;
        let mut answer = self.send_signed(to, sign(&secret, self.stamp(host)?)).await?;
        if answer.status == 401 {
            let repeat = match code(&answer).as_str() {
                "stale_timestamp" => self.correct_clock(host, &answer),
                "invalid_signature" => {
                    let newer = self.secret(host).await?;
                    let changed = !newer.is_same(secret.expose());
                    secret = newer;
                    changed
                }
                _ => false,
            };
            if repeat {
                answer = self.send_signed(to, sign(&secret, self.stamp(host)?)).await?;
            }
        }
        Ok(answer)
    }

    async fn send_signed(&self, to: &AtpEndpoint, body: Vec<u8>) -> Result<Answer, AtpError> {
        let headers = vec![("content-type", "application/json".to_owned())];
        let outgoing = Outgoing { method: HttpMethod::POST, path: to.path(), headers, body };
        self.send(to.host(), outgoing).await
    }

    fn stamp(&self, host: &Host) -> Result<Stamp, AtpError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| AtpError::System(error.to_string()))?;
        let correction = self.0.corrections.lock().get(host).copied().unwrap_or(0);
        let timestamp = now_ms().saturating_add_signed(correction);
        Ok(Stamp { agent: self.agent_id_at(host)?, nonce: to_base64url(&random), timestamp })
    }

    fn correct_clock(&self, host: &Host, answer: &Answer) -> bool {
        let date = answer.headers.get("date").and_then(|date| http_date_ms(date.to_str().ok()?));
        let difference = date.map(|date| date.wrapping_sub(now_ms()).cast_signed());
        let Some(difference) = difference.filter(|difference| difference.abs() <= MAX_CORRECTION_MS) else {
            return false;
        };
        self.0.corrections.lock().insert(host.clone(), difference);
        true
    }

    async fn secret(&self, host: &Host) -> Result<Secret, AtpError> {
        secrets::find(host, &self.0.options, &self.0.keychain, &self.0.state).await
    }
}
