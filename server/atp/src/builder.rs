//! A provider from its parts.

use core::fmt;
use core::hash::Hash;
use core::str::FromStr as _;
use core::time::Duration;
use std::sync::Arc;

use obol_atp::discovery::Published;
use obol_atp::jwt::Algorithm;
use obol_atp::{AtpEndpoint, AtpScope, ScopeSet, TimestampWindow};
use obol_audit::AuditLog;
use obol_probe::rate::{Limiter, Rate, Start};
use obol_verify::{Clock, MemorySpentSet, SpentSet, SystemClock};
use parking_lot::RwLock;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::audit::Auditor;
use crate::keys::KeyPolicy;
use crate::metrics::Metrics;
use crate::networks::Networks;
use crate::provider::{Provider, Time};
use crate::router::Router;
use crate::secrets::SecretBook;
use crate::store::Store;

/// The life of a token, in seconds: the hour that the protocol's documentation names.
const DEFAULT_TTL_SECS: u64 = 3_600;
/// The longest life of a token, in seconds.
const MAX_TTL_SECS: u64 = 86_400;
/// Requests a second of one address, and of one agent; an agent may send ten at once.
const ADDRESS_RATE: u32 = 100;
const AGENT_RATE: u32 = 1;
const AGENT_BURST: u32 = 10;
/// How far the clocks of those who sign may be ahead while replay marks are in memory, in seconds: what was signed up to so long
/// after a start may have been answered before it, and is refused.
const MEMORY_AHEAD_SECS: u64 = 5;

/// Why there is no provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// Nobody could ask.
    NoSecrets,
    /// A text is not a scope, is there twice, or there are none.
    Scopes,
    /// A single-use scope is not on offer.
    SingleUse,
    /// A life of 0, or of more than a day.
    Ttl,
    /// A window of 0, or of more than 900 s.
    Window,
    /// The key for tokens is also a secret that an agent has, who could then make tokens.
    SecretIsKey,
    /// A JWT key cannot be made or kept, or the store cannot remember which secrets are over.
    NoKey,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSecrets => "there are no secrets, so nobody could ask for a token; make one with `obol atp secret new`",
            Self::Scopes => "scopes must be 1 to 32 distinct texts of 1 to 64 characters of A-Z a-z 0-9 . _ : / * -",
            Self::SingleUse => "a single-use scope must be one of the scopes on offer",
            Self::Ttl => "a token's life must be 1 s to 86,400 s",
            Self::Window => "the window must be 1 s to 900 s",
            Self::SecretIsKey => "a secret in the list is also the token key, so anyone who holds it could make tokens; replace it",
            Self::NoKey => "the token store cannot be written: a JWT key, or which secrets are over, cannot be kept",
        })
    }
}

impl core::error::Error for BuildError {}

/// Collects what a provider is made of. Each setting has a default but the secrets and the scopes.
#[derive(Debug)]
pub struct Builder {
    endpoint: AtpEndpoint,
    secrets: Option<SecretBook>,
    scopes: Vec<String>,
    single_use: Vec<String>,
    ttl: Duration,
    max_ttl: Duration,
    window: Duration,
    require_aud: bool,
    signed_only: bool,
    store: Store,
    spent: Option<Arc<dyn SpentSet>>,
    clock: Option<Arc<dyn Clock>>,
    audit: Option<Arc<AuditLog>>,
    algorithm: Algorithm,
    address_rate: u32,
    agent_rate: u32,
    name: Option<String>,
    capabilities: Value,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name.into();
            self
        }
    )+};
}

impl Builder {
    pub(crate) fn new(endpoint: AtpEndpoint) -> Self {
        Self {
            endpoint,
            secrets: None,
            scopes: Vec::new(),
            single_use: Vec::new(),
            ttl: Duration::from_secs(DEFAULT_TTL_SECS),
            max_ttl: Duration::from_secs(MAX_TTL_SECS),
            window: Duration::from_secs(300),
            require_aud: false,
            signed_only: false,
            store: Store::memory(),
            spent: None,
            clock: None,
            audit: None,
            algorithm: Algorithm::Hs256,
            address_rate: ADDRESS_RATE,
            agent_rate: AGENT_RATE,
            name: None,
            capabilities: Value::Array(Vec::new()),
        }
    }

    setters! {
        /// Who may ask.
        secrets: SecretBook;
        /// The longest life of a token in the master dialect; a day.
        max_ttl: Duration;
        /// How long ago a request may have been signed; 5 minutes, at most 15.
        window: Duration;
        /// Whether a request must name this endpoint.
        require_aud: bool;
        /// Whether the master dialect is switched off.
        signed_only: bool;
        /// Where keys, tokens and revocations are kept; in memory.
        store: Store;
        /// Where replay marks are kept; in memory, and then what was signed before the start is refused.
        spent: Arc<dyn SpentSet>;
        /// Where the time comes from.
        clock: Arc<dyn Clock>;
        /// Nothing is done that is not in this log.
        audit: Arc<AuditLog>;
        /// How tokens are signed; HS256.
        algorithm: Algorithm;
        /// Requests a second of one address; 100, 0 for no limit.
        address_rate: u32;
        /// Requests a second of one agent, after ten at once; 1, 0 for no limit.
        agent_rate: u32;
        /// The provider's name in the discovery document; the host's.
        name: String;
        /// What the API can do, for the discovery document.
        capabilities: Value;
    }

    /// The scopes on offer.
    #[must_use]
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Scopes whose tokens are good for one request.
    #[must_use]
    pub fn single_use<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.single_use = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// The life of a token of the signed dialect; an hour.
    #[must_use]
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Checks the settings, and makes or takes over the JWT key.
    ///
    /// # Errors
    /// [`BuildError`] names the setting that does not fit.
    pub fn build(self) -> Result<Router, BuildError> {
        let mut secrets = self.secrets.filter(|secrets| !secrets.is_empty()).ok_or(BuildError::NoSecrets)?;
        let scopes = set(&self.scopes).filter(|scopes| !scopes.is_empty()).ok_or(BuildError::Scopes)?;
        let single_use = set(&self.single_use).ok_or(BuildError::Scopes)?;
        if !single_use.is_within(&scopes) {
            return Err(BuildError::SingleUse);
        }
        let (ttl, max_ttl) = (self.ttl.as_secs(), self.max_ttl.as_secs());
        if !(1..=MAX_TTL_SECS).contains(&ttl) || !(1..=MAX_TTL_SECS).contains(&max_ttl) {
            return Err(BuildError::Ttl);
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let time = Time(Arc::clone(&clock));
        let key_policy = KeyPolicy { algorithm: self.algorithm };
        self.store.admit(&mut secrets, key_policy, time.now())?;
        let window = TimestampWindow::back(self.window.as_secs()).ok_or(BuildError::Window)?;
        let (spent, window): (Arc<dyn SpentSet>, _) = match self.spent {
            Some(spent) => (spent, window),
            None => {
                (Arc::new(MemorySpentSet::fenced(clock, MEMORY_AHEAD_SECS)), window.ahead(MEMORY_AHEAD_SECS))
            }
        };
        let name = self.name.unwrap_or_else(|| self.endpoint.host().name().to_owned());
        let document = Published {
            endpoint: &self.endpoint,
            name: &name,
            scopes: &scopes,
            master_max_ttl: (!self.signed_only).then_some(max_ttl),
            capabilities: &self.capabilities,
        }
        .document()
        .to_string()
        .into_bytes();
        let etag = format!(
            "\"{}\"",
            obol_secret::text::to_hex(Sha256::digest(&document).get(..16).unwrap_or_default())
        );
        let provider = Provider {
            auditor: Auditor::new(self.audit, self.endpoint.origin()),
            endpoint: self.endpoint,
            scopes,
            single_use,
            ttl,
            max_ttl,
            window,
            require_aud: self.require_aud,
            signed_only: self.signed_only,
            secrets: RwLock::new(Arc::new(secrets)),
            key_policy,
            store: self.store,
            spent,
            time,
            metrics: Metrics::default(),
            started: Start::now(),
            address_limit: limiter(self.address_rate, self.address_rate.saturating_mul(2)),
            agent_limit: limiter(self.agent_rate, AGENT_BURST),
            networks: Networks::default(),
            document,
            etag,
        };
        Ok(Router { provider: Arc::new(provider) })
    }
}

/// So many at once, and then so many a second; a rate of 0 sets no limit.
fn limiter<K: Hash + Eq>(per_second: u32, burst: u32) -> Limiter<K> {
    Limiter::new(Rate::new(per_second).map(|rate| rate.with_burst(burst)))
}

fn set(texts: &[String]) -> Option<ScopeSet> {
    let scopes: Result<Vec<AtpScope>, _> = texts.iter().map(|text| AtpScope::from_str(text)).collect();
    let set: ScopeSet = scopes.ok()?.into_iter().collect();
    (set.len() == texts.len() && set.len() <= obol_atp::MAX_SCOPES).then_some(set)
}
