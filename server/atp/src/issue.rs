//! `POST E`: a signed request for a token. The order of the checks is part of the protocol: cheap before dear, nothing that
//! depends on who exists before the signature, replay before status and scopes.

use std::time::Instant;

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use obol_atp::jwt::Credential;
use obol_atp::{AtpErrorCode, Authentic, Body, KeyUsed, ScopeSet, Signed, TokenAnswer, TokenBody};
use obol_audit::Event;
use obol_verify::Mark;

use crate::audit::About;
use crate::denied::{Denied, json};
use crate::provider::{Grant, Provider};
use crate::request;

/// What replay marks are made for.
const REQUEST_LABEL: &[u8] = b"obol-atp-request-v1";
/// How long after its signing a request's mark is filed, in seconds: as far back as any window reaches, so that another setting
/// never looks elsewhere.
const FILED_SECS: u64 = obol_atp::MAX_WINDOW_BACK_SECS;

/// A body whose signature held, and what that proves.
pub(crate) struct Proven<B> {
    pub(crate) body: Authentic<B>,
    pub(crate) is_shared: bool,
}

impl Provider {
    pub(crate) async fn issue(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        about: &mut About,
    ) -> Result<Response, Denied> {
        request::is_json(headers)?;
        let proven = self.prove(Signed::<TokenBody<'_>>::parse(body)?, about)?;
        let asked = proven.body.body();
        about.purpose = asked.purpose.as_deref().map(Into::into);
        let place = self.auditor.reserve()?;
        self.spend_request(&proven.body).await?;
        if !self.book().is_active(asked.agent_id) {
            return Err(Denied::new(AtpErrorCode::AgentDisabled, "this agent is disabled"));
        }
        let scopes = self.grant(asked)?;
        let id = Self::new_id()?;
        let agent = asked.agent_id.to_string();
        let cred = proven.is_shared.then_some(Credential::Shared);
        let grant = Grant {
            id: &id,
            generation: 0,
            agent: &agent,
            scopes: &scopes,
            issued: self.time.now(),
            ttl: self.ttl,
            cred,
        };
        let claims = self.claims(&grant);
        let token = self.mint(&claims).ok_or_else(Denied::unavailable)?;
        (about.scopes, about.jti, about.expires_at) =
            (Some(claims.scope.into()), Some(claims.jti.into()), Some(claims.exp));
        place.done(Event::TokenIssue, about);
        Ok(answer(&token, &grant))
    }

    /// Looks the keys up, checks the signature, the agent's rate, for whom and when it was signed.
    pub(crate) fn prove<B: Body>(&self, signed: Signed<B>, about: &mut About) -> Result<Proven<B>, Denied> {
        self.must_be_fresh()?;
        let now_ms = self.time.now_ms();
        let agent = signed.claimed_agent();
        let book = self.book();
        let keys = book.keys(agent, now_ms / 1_000, &self.store.kept().owners);
        let body = signed.verify(keys.current, keys.previous).ok_or_else(Denied::invalid_signature)?;
        about.agent = Some(agent.to_string().into());
        about.proof = Some(if keys.is_shared { "shared secret" } else { "own secret" });
        if body.key() == KeyUsed::Previous {
            self.metrics.previous_secret.increment();
        }
        // Several agents share a shared secret, and may well share a name.
        if !keys.is_shared && self.networks.is_second(agent, about.address, Instant::now()) {
            self.metrics.two_networks.increment();
            tracing::warn!(
                %agent,
                "signed from two networks within ten minutes: its secret may have been copied; `obol atp secret rotate` replaces it"
            );
        }
        self.agent_limit.take(agent, self.started.nanoseconds()).map_err(Denied::too_many)?;
        let for_here = match body.body().aud() {
            Some(aud) => aud == self.endpoint.as_str(),
            None => !self.require_aud,
        };
        if !for_here {
            return Err(Denied::new(
                AtpErrorCode::WrongAudience,
                "signed for another endpoint; sign with aud set to this one",
            ));
        }
        if !self.window.contains(body.body().timestamp(), now_ms) {
            return Err(Denied::new(
                AtpErrorCode::StaleTimestamp,
                "signed too long ago, or ahead of this clock (see Date)",
            ));
        }
        Ok(Proven { body, is_shared: keys.is_shared })
    }

    /// Leaves the request's mark; only one of any number of copies gets past here, and only once the mark cannot be lost.
    pub(crate) async fn spend_request<B: Body>(&self, body: &Authentic<B>) -> Result<(), Denied> {
        let signed = body.body().timestamp() / 1_000;
        let is_fenced = || self.spent.fence().is_some_and(|fence| signed <= fence);
        if is_fenced() {
            return Err(Denied::unavailable());
        }
        let filed = body.body().timestamp().div_ceil(1_000).saturating_add(FILED_SECS);
        self.spent.spend(Mark::labelled(REQUEST_LABEL, body.signature().as_bytes(), filed)).await?;
        if is_fenced() { Err(Denied::unavailable()) } else { Ok(()) }
    }

    /// All of what was asked for, or nothing.
    fn grant(&self, asked: &TokenBody<'_>) -> Result<ScopeSet, Denied> {
        let refused = || {
            Denied::new(
                AtpErrorCode::InvalidScope,
                "ask for one or more scopes, all of them offered to this agent",
            )
        };
        let wanted = ScopeSet::from_texts(asked.scopes.iter().map(|scope| &**scope)).ok_or_else(refused)?;
        let granted = !wanted.is_empty()
            && wanted.is_within(&self.scopes)
            && self.book().may_have(asked.agent_id, &wanted);
        if granted { Ok(wanted) } else { Err(refused()) }
    }
}

/// The answer that carries a token.
pub(crate) fn answer(token: &str, grant: &Grant<'_>) -> Response {
    let body = TokenAnswer {
        token,
        token_type: "Bearer",
        expires_in: grant.ttl,
        expires_at: grant.issued.saturating_add(grant.ttl).saturating_mul(1_000),
        scopes_granted: grant.scopes,
        scopes: grant.scopes,
        id: grant.id,
        agent_id: grant.agent,
    };
    json(StatusCode::OK, &body)
}
