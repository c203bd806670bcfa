//! What the cascade needs to know, put together once.

use core::fmt;
use obol_token::{Audience, SessionId, Suite};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::parents::ConsumedParents;
use crate::session::{Session, SessionTable};
use crate::spent::{KEEP_MARGIN_SEC, SpentSet};
use crate::template::{Template, Templates};
use crate::{Code, Denial, FailedCheck};
use obol_session::clock::{Clock, SystemClock};

/// How far two clocks may be apart unless told otherwise, in seconds (TBAC r41, section 4.3).
pub const DEFAULT_CLOCK_SKEW_SEC: u64 = 60;
/// How long a token may live unless told otherwise, in seconds (section 3.0).
pub const DEFAULT_MAX_TTL_SEC: u64 = 60;
/// How old a human's approval may be when a token is issued on it, in seconds. The text asks for freshness and gives
/// no figure; this is the reference implementation's.
pub const MAX_APPROVAL_AGE_SEC: u64 = 300;

/// How often a scope may still be delegated unless told otherwise: the length of the longest chain.
pub const DEFAULT_MAX_DELEGATION_DEPTH: u64 = 3;

/// The figures of the cascade; times in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How far two clocks may be apart.
    pub clock_skew: u64,
    /// The longest a token may live.
    pub max_ttl: u64,
    /// The oldest approval a token may be issued on.
    pub max_approval_age: u64,
    /// The highest `delegation_depth` of a token.
    pub max_delegation_depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clock_skew: DEFAULT_CLOCK_SKEW_SEC,
            max_ttl: DEFAULT_MAX_TTL_SEC,
            max_approval_age: MAX_APPROVAL_AGE_SEC,
            max_delegation_depth: DEFAULT_MAX_DELEGATION_DEPTH,
        }
    }
}

/// Why a verifier cannot be built from its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// The spent set would forget tokens while they can still be accepted.
    SpentSetForgetsTooSoon {
        /// Seconds that it keeps marks after `exp`.
        keeps: u64,
        /// Seconds that the clock skew calls for.
        needed: u64,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpentSetForgetsTooSoon { keeps, needed } => write!(
                f,
                "the spent set keeps marks for {keeps} s after a token's end and the clock skew calls for {needed} s; \
                 open both with the same clock skew"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Verifies tokens for one audience. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Verifier {
    pub(crate) parts: Arc<Parts>,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) audience: Audience,
    pub(crate) sessions: Arc<dyn SessionTable>,
    pub(crate) spent: Arc<dyn SpentSet>,
    pub(crate) templates: Arc<dyn Templates>,
    pub(crate) parents: Arc<ConsumedParents>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    policy_epoch: AtomicU64,
}

impl Verifier {
    /// Starts from what has no default: who this server is, its sessions, and what was spent.
    pub fn builder(
        audience: Audience,
        sessions: Arc<dyn SessionTable>,
        spent: Arc<dyn SpentSet>,
    ) -> VerifierBuilder {
        VerifierBuilder {
            parts: Parts {
                audience,
                sessions,
                spent,
                templates: Arc::new(Template::default()),
                parents: Arc::default(),
                clock: Arc::new(SystemClock::new()),
                limits: Limits::default(),
                policy_epoch: AtomicU64::new(0),
            },
        }
    }

    /// Who this server is.
    pub fn audience(&self) -> &Audience {
        &self.parts.audience
    }

    /// The figures of the cascade.
    pub fn limits(&self) -> Limits {
        self.parts.limits
    }

    /// The spent set, for its health and size.
    pub fn spent_set(&self) -> &dyn SpentSet {
        &*self.parts.spent
    }

    /// Whether tokens can be verified and spent, as far as is known.
    pub fn health(&self) -> Result<(), Denial> {
        self.parts
            .sessions
            .health()
            .map_err(|error| Denial::new(Code::Unavailable, FailedCheck::SessionTable, error.to_string()))?;
        self.parts.spent.health().map_err(|error| crate::spend::spend_denial(&error))
    }

    /// Refuses from now on, for every session, what was minted under an older policy. Never lowers the epoch.
    pub fn raise_policy_epoch(&self, epoch: u64) {
        self.parts.policy_epoch.fetch_max(epoch, Ordering::SeqCst);
    }

    /// The oldest policy epoch that is accepted from every session.
    pub fn policy_epoch(&self) -> u64 {
        self.parts.policy_epoch.load(Ordering::SeqCst)
    }
}

impl Parts {
    /// The oldest policy epoch that is accepted from this session.
    pub(crate) fn policy_epoch_for(&self, session: &Session) -> u64 {
        self.policy_epoch.load(Ordering::SeqCst).max(session.policy_epoch())
    }

    /// Cascade step 2. A token of another suite than its session's is none of that session's tokens: it is answered
    /// as TBAC r41 answers an `alg_id` that it does not know, before anything is computed for it.
    pub(crate) fn active_session(&self, id: SessionId, suite: Suite) -> Result<Arc<Session>, Denial> {
        let session = self
            .sessions
            .look_up(id)
            .map_err(|error| Denial::new(Code::Unavailable, FailedCheck::SessionTable, error.to_string()))?
            .ok_or_else(|| {
                Denial::new(Code::SessionNotFound, FailedCheck::SessionLookup, "no such session")
            })?;
        if session.material().suite() != suite {
            let detail = "the token's alg_id is not the suite that its session negotiated";
            return Err(Denial::new(Code::MalformedToken, FailedCheck::FramingCheck, detail));
        }
        check_active(&session)?;
        Ok(session)
    }
}

/// Asked when the session is looked up, when its token is spent, and when that is done.
pub(crate) fn check_active(session: &Session) -> Result<(), Denial> {
    if session.is_active() {
        return Ok(());
    }
    Err(Denial::new(Code::SessionExpired, FailedCheck::SessionValidity, "the session is revoked"))
}

/// A [`Verifier`] in the making.
#[derive(Debug)]
pub struct VerifierBuilder {
    parts: Parts,
}

impl VerifierBuilder {
    /// Policy, in addition to the grants of those sessions that have some. Without it [`Template::Granted`]: sessions that
    /// say nothing of grants are refused.
    #[must_use]
    pub fn templates(mut self, templates: Arc<dyn Templates>) -> Self {
        self.parts.templates = templates;
        self
    }

    /// The memory of spent parents, where verifiers are to share one.
    #[must_use]
    pub fn parents(mut self, parents: Arc<ConsumedParents>) -> Self {
        self.parts.parents = parents;
        self
    }

    /// The clock. Without it, the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.parts.clock = clock;
        self
    }

    /// The figures of the cascade.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.parts.limits = limits;
        self
    }

    /// The oldest policy epoch that is accepted from every session.
    #[must_use]
    pub fn policy_epoch(self, epoch: u64) -> Self {
        self.parts.policy_epoch.fetch_max(epoch, Ordering::SeqCst);
        self
    }

    /// Checks that the parts fit together.
    pub fn build(self) -> Result<Verifier, ConfigError> {
        let keeps = self.parts.spent.keep_after_expiry();
        let needed = self.parts.limits.clock_skew.saturating_add(KEEP_MARGIN_SEC);
        if keeps < needed {
            return Err(ConfigError::SpentSetForgetsTooSoon { keeps, needed });
        }
        Ok(Verifier { parts: Arc::new(self.parts) })
    }
}
