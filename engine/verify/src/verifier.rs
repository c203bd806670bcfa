//! What the cascade needs to know, put together once.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use obol_session::clock::{Clock, SystemClock};
use obol_token::Audience;

use crate::approvals::Approvals;
use crate::cascade::parents::ConsumedParents;
use crate::cascade::template::{Template, Templates};
use crate::denial::{Code, Denial, FailedCheck};
use crate::limits::CascadeLimits;
use crate::parts::Parts;
use crate::session::table::SessionTable;
use crate::spent::{KEEP_MARGIN_SECS, SpentSet};

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

impl core::error::Error for ConfigError {}

/// Verifies tokens for one audience. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Verifier {
    pub(crate) parts: Arc<Parts>,
}

impl Verifier {
    /// Starts from what has no default: who this server is, its sessions, and what was spent.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn builder(
        audience: Audience,
        sessions: Arc<dyn SessionTable>,
        spent: Arc<dyn SpentSet>,
    ) -> VerifierBuilder {
        VerifierBuilder {
            parts: Parts {
                audience_hash: audience.hash(),
                audience,
                sessions,
                spent,
                templates: Arc::new(Template::default()),
                parents: Arc::default(),
                approvals: None,
                clock: Arc::new(SystemClock::new()),
                limits: CascadeLimits::default(),
                policy_epoch: AtomicU64::new(0),
            },
        }
    }

    /// Who this server is.
    pub fn audience(&self) -> &Audience {
        &self.parts.audience
    }

    /// The figures of the cascade.
    pub fn limits(&self) -> CascadeLimits {
        self.parts.limits
    }

    /// The spent set, for its health and size.
    pub fn spent_set(&self) -> &dyn SpentSet {
        &*self.parts.spent
    }

    /// Whether tokens can be verified and spent, as far as is known.
    ///
    /// # Errors
    ///
    /// The [`Denial`] that every token would get.
    pub fn health(&self) -> Result<(), Denial> {
        self.parts
            .sessions
            .health()
            .map_err(|error| Denial::new(Code::Unavailable, FailedCheck::SessionTable, error.to_string()))?;
        self.parts.spent.health().map_err(|error| Denial::from(&error))
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

    /// What humans said yes to, as an Authentication Service tells it: tokens of trust level 3 are accepted for these alone, each
    /// once. Without it, they are accepted as TBAC r41 has it, where the session's grants do not say that a human is asked.
    #[must_use]
    pub fn approvals(mut self, approvals: Arc<Approvals>) -> Self {
        self.parts.approvals = Some(approvals);
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
    pub fn limits(mut self, limits: CascadeLimits) -> Self {
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
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the spent set would forget tokens that can still be accepted.
    pub fn build(self) -> Result<Verifier, ConfigError> {
        let keeps = self.parts.spent.keep_after_expiry();
        let needed = self.parts.limits.clock_skew.saturating_add(KEEP_MARGIN_SECS);
        if keeps < needed {
            return Err(ConfigError::SpentSetForgetsTooSoon { keeps, needed });
        }
        Ok(Verifier { parts: Arc::new(self.parts) })
    }
}
