//! What all routes share.

use core::net::IpAddr;
use std::sync::Arc;

use obol_atp::jwt::{Claims, Credential, Use, jti};
use obol_atp::{AtpEndpoint, ScopeSet, TimestampWindow};
use obol_probe::rate::{Limiter, Start};
use obol_verify::{Clock, Mark, SpentSet};
use parking_lot::RwLock;

use crate::audit::Auditor;
use crate::denied::Denied;
use crate::keys::KeyPolicy;
use crate::metrics::{Metrics, NOT_READY};
use crate::networks::Networks;
use crate::secrets::SecretBook;
use crate::store::Store;

/// What single-use tokens' marks are made for.
const ONCE_LABEL: &[u8] = b"obol-atp-jti-v1";

/// Where the time comes from. Requests are timed in milliseconds, everything else in seconds.
#[derive(Debug)]
pub(crate) struct Time(pub(crate) Arc<dyn Clock>);

impl Time {
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    pub(crate) fn now(&self) -> u64 {
        self.now_ms() / 1_000
    }
}

/// A provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) endpoint: AtpEndpoint,
    pub(crate) scopes: ScopeSet,
    pub(crate) single_use: ScopeSet,
    /// The life of a signed dialect's token, and the longest of a master's, in seconds.
    pub(crate) ttl: u64,
    pub(crate) max_ttl: u64,
    pub(crate) window: TimestampWindow,
    pub(crate) require_aud: bool,
    pub(crate) signed_only: bool,
    pub(crate) secrets: RwLock<Arc<SecretBook>>,
    pub(crate) key_policy: KeyPolicy,
    pub(crate) store: Store,
    pub(crate) spent: Arc<dyn SpentSet>,
    pub(crate) time: Time,
    pub(crate) auditor: Auditor,
    pub(crate) metrics: Metrics,
    pub(crate) started: Start,
    pub(crate) address_limit: Limiter<Option<IpAddr>>,
    pub(crate) agent_limit: Limiter<obol_atp::AgentId>,
    pub(crate) networks: Networks,
    pub(crate) document: Vec<u8>,
    pub(crate) etag: String,
}

/// To whom a token is issued, and for what.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    pub(crate) id: &'a str,
    pub(crate) generation: u32,
    pub(crate) agent: &'a str,
    pub(crate) scopes: &'a ScopeSet,
    pub(crate) issued: u64,
    pub(crate) ttl: u64,
    pub(crate) cred: Option<Credential>,
}

impl Provider {
    pub(crate) fn book(&self) -> Arc<SecretBook> {
        Arc::clone(&self.secrets.read())
    }

    pub(crate) fn limit_address(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        self.address_limit.take(address, self.started.nanoseconds()).map_err(Denied::too_many)
    }

    /// A token's id, from randomness.
    pub(crate) fn new_id() -> Result<String, Denied> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Denied::unavailable())?;
        Ok(obol_atp::master::token_id(&random))
    }

    pub(crate) fn claims(&self, grant: &Grant<'_>) -> Claims {
        let origin = self.endpoint.origin();
        let once = grant.scopes.iter().any(|scope| self.single_use.contains(scope));
        Claims {
            iss: origin.to_owned(),
            aud: origin.to_owned(),
            sub: grant.agent.to_owned(),
            agent_id: grant.agent.to_owned(),
            scope: grant.scopes.joined(),
            scopes: grant.scopes.iter().map(str::to_owned).collect(),
            iat: grant.issued,
            exp: grant.issued.saturating_add(grant.ttl),
            jti: jti(grant.id, grant.generation),
            cred: grant.cred,
            usage: once.then_some(Use::Once),
        }
    }

    /// The claims of a token that holds now, and was neither revoked nor rotated away. `None` if there is no such token.
    ///
    /// # Errors
    /// Where what was revoked is not known for sure.
    pub(crate) fn live(&self, token: &str) -> Result<Option<Claims>, Denied> {
        self.must_be_fresh()?;
        let (now, book, kept) = (self.time.now(), self.book(), self.store.kept());
        let live = || {
            let claims = kept.keys.read(token, self.endpoint.origin(), now)?;
            let (id, generation) = claims.id_and_generation()?;
            let over = kept.tokens.is_over(id, generation, now);
            let ended = if claims.cred == Some(Credential::Master) {
                // Its master may be gone from the operator's file.
                !kept.tokens.get(id).is_some_and(|record| book.has_master(&record.master))
            } else {
                book.ended(&claims.sub, claims.iat, &kept.owners)
            };
            (!over && !ended).then_some(claims)
        };
        Ok(live())
    }

    /// Nothing is issued or accepted on what may be out of date.
    pub(crate) fn must_be_fresh(&self) -> Result<(), Denied> {
        if self.store.is_fresh() { Ok(()) } else { Err(Denied::unavailable()) }
    }

    /// Makes a token with the newest key; `None` if there is no key.
    pub(crate) fn mint(&self, claims: &Claims) -> Option<String> {
        let kept = self.store.kept();
        kept.keys.current(self.key_policy, self.time.now()).map(|key| key.mint(claims))
    }

    /// Spends a single-use token that came from this address.
    pub(crate) async fn spend_once(&self, claims: &Claims, address: Option<IpAddr>) -> Result<(), Denied> {
        let place = self.auditor.reserve()?;
        if self.spent.fence().is_some_and(|fence| claims.iat <= fence) {
            return Err(Denied::unavailable());
        }
        self.spent.spend(Mark::labelled(ONCE_LABEL, claims.jti.as_bytes(), claims.exp)).await?;
        if self.spent.fence().is_some_and(|fence| claims.iat <= fence) {
            return Err(Denied::unavailable());
        }
        place.done(obol_audit::Event::Spend, &about_token(claims, address));
        Ok(())
    }

    /// What that is needed cannot be written, if anything.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        let parts = [self.store.is_healthy(), self.auditor.is_healthy(), self.spent.health().is_ok()];
        let reasons = NOT_READY.into_iter().zip(parts);
        reasons.filter(|(_, is_healthy)| !is_healthy).map(|(reason, _)| reason).next()
    }
}

pub(crate) fn about_token(claims: &Claims, address: Option<IpAddr>) -> crate::audit::About {
    crate::audit::About {
        address,
        agent: Some(claims.agent_id.as_str().into()),
        proof: Some("token"),
        scopes: Some(claims.scope.as_str().into()),
        jti: Some(claims.jti.as_str().into()),
        expires_at: Some(claims.exp),
        purpose: None,
    }
}
