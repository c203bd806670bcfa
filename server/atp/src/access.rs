//! `POST E/verify` and `POST E/revoke`.

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use obol_atp::jwt::{Claims, Use};
use obol_atp::{AtpErrorCode, RevokeBody, Signed};
use obol_audit::Event;
use serde::{Deserialize, Serialize};

use crate::audit::About;
use crate::denied::{Denied, json};
use crate::provider::Provider;
use crate::request;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    #[serde(default)]
    spend: bool,
}

#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: bool,
}

impl Provider {
    /// What is valid is described; what is not is not, whatever the cause.
    pub(crate) async fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        about: &About,
    ) -> Result<Response, Denied> {
        let spend = match body.trim_ascii() {
            b"" => false,
            text => {
                let read: VerifyBody = obol_secret::json::parse(text).map_err(|_| {
                    Denied::new(AtpErrorCode::InvalidRequest, "body: must be empty, {} or {\"spend\":true}")
                })?;
                read.spend
            }
        };
        let claims = request::bearer(headers).map(|token| self.live(token)).transpose()?.flatten();
        let invalid = || {
            json(StatusCode::OK, &Verdict { valid: false, scopes: None, expires_at: None, agent_id: None })
        };
        let Some(claims) = claims else { return Ok(invalid()) };
        if spend && claims.usage == Some(Use::Once) {
            match self.spend_once(&claims, about.address).await {
                Ok(()) => {}
                Err(denied) if denied.code == AtpErrorCode::Replayed => return Ok(invalid()),
                Err(denied) => return Err(denied),
            }
        }
        Ok(valid(&claims))
    }

    /// Ends a token: one that is shown, or one that its agent names in a signed body. The answer does not tell whether there
    /// was such a token.
    pub(crate) async fn revoke(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        about: &mut About,
    ) -> Result<Response, Denied> {
        let place = self.auditor.reserve()?;
        let claims = match request::bearer(headers) {
            Some(token) => self.live(token)?,
            None => {
                request::is_json(headers)?;
                let proven = self.prove(Signed::<RevokeBody<'_>>::parse(body)?, about)?;
                self.spend_request(&proven.body).await?;
                let signer = proven.body.body().agent_id.to_string();
                self.live(&proven.body.body().token)?.filter(|claims| claims.sub == signer)
            }
        };
        if let Some(claims) = claims {
            self.end(&claims).await?;
            about.agent.get_or_insert_with(|| claims.agent_id.as_str().into());
            about.proof.get_or_insert("token");
            (about.jti, about.expires_at) = (Some(claims.jti.into()), Some(claims.exp));
            place.done(Event::TokenRevoke, about);
        }
        Ok(json(StatusCode::OK, &Revoked { revoked: true }))
    }

    async fn end(&self, claims: &Claims) -> Result<(), Denied> {
        let Some((id, _)) = claims.id_and_generation() else { return Err(Denied::unavailable()) };
        self.end_id(id, claims.exp).await
    }

    /// Ends all generations of a token; durable when this returns.
    pub(crate) async fn end_id(&self, id: &str, ends: u64) -> Result<(), Denied> {
        let id = id.to_owned();
        let done = self.store.change(move |kept| match kept.tokens.revocation(&id, ends) {
            Some(row) => (true, vec![row]),
            None => (false, Vec::new()),
        });
        if done.await == Ok(true) { Ok(()) } else { Err(Denied::unavailable()) }
    }
}

fn valid(claims: &Claims) -> Response {
    let verdict = Verdict {
        valid: true,
        scopes: Some(&claims.scopes),
        expires_at: Some(claims.exp.saturating_mul(1_000)),
        agent_id: Some(&claims.agent_id),
    };
    json(StatusCode::OK, &verdict)
}
