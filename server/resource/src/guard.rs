//! One token in, permission or refusal out.

use std::sync::Arc;
use std::time::Duration;

use obol_token::Jti;
use obol_verify::{Code, Denial, FailedCheck, Unverified, Verifier};
use sha2::{Digest, Sha256};

use crate::call::ToolCall;
use crate::metrics::Metrics;
use crate::verified::VerifiedToken;

/// How long a request waits for the spent set. When it is over the answer is 503, and the token may be burned.
const SPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Verifies and spends tokens, counts and logs the outcome. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Guard {
    verifier: Verifier,
    opaque: bool,
    metrics: Arc<Metrics>,
}

impl Guard {
    /// A guard that tells callers the exact code of a refusal.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, opaque: false, metrics: Arc::default() }
    }

    /// Tells callers only that a cryptographic check failed, not which ([`Denial::folded`]). The log keeps the code.
    #[must_use]
    pub fn opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// The verifier.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Verifies a token's text for a call, and spends it. Needs a tokio runtime with time enabled.
    pub async fn admit(&self, token: &[u8], call: &ToolCall) -> Result<VerifiedToken, Denial> {
        self.outward(match Unverified::from_text(token) {
            Ok(token) => self.decide(token, call).await,
            Err(denial) => Err(denial),
        })
    }

    /// Counts and logs a refusal that needed no token to be looked at.
    pub(crate) fn refuse<T>(&self, denial: Denial) -> Result<T, Denial> {
        self.outward(Err(denial))
    }

    async fn decide(&self, token: Unverified, call: &ToolCall) -> Result<VerifiedToken, Denial> {
        let (session_id, jti) = (token.claimed_session_id(), token.claimed_jti());
        let span = tracing::info_span!("token", %session_id, jti_sha256 = jti_prefix(&jti));
        let outcome = match token.verify(&self.verifier, &call.as_request()) {
            Ok(verified) => match tokio::time::timeout(SPEND_TIMEOUT, verified.spend()).await {
                Ok(spent) => spent.map(VerifiedToken::new),
                Err(_) => Err(Denial::new(
                    Code::Unavailable,
                    FailedCheck::SpentSet,
                    "the spent set did not answer in time; the token may be burned",
                )),
            },
            Err(denial) => Err(denial),
        };
        span.in_scope(|| match &outcome {
            Ok(_) => tracing::info!("accepted"),
            Err(denial) => log_refusal(denial),
        });
        outcome
    }

    fn outward<T>(&self, outcome: Result<T, Denial>) -> Result<T, Denial> {
        self.metrics.count(outcome.as_ref().err().map(|denial| denial.code));
        outcome.map_err(|denial| if self.opaque { denial.folded() } else { denial })
    }
}

/// Not being able to answer is the server's trouble; a refusal is everyday.
fn log_refusal(denial: &Denial) {
    let (code, failed_check, detail) = (denial.code, denial.failed_check, &denial.detail);
    if code == Code::Unavailable {
        tracing::error!(%code, %failed_check, %detail, "cannot decide");
    } else {
        tracing::info!(%code, %failed_check, %detail, "refused");
    }
}

/// Enough to find a token again, and nothing that could be presented.
fn jti_prefix(jti: &Jti) -> String {
    const PREFIX_BYTES: usize = 6;
    let hash = Sha256::digest(jti.as_bytes());
    obol_token::text::to_hex(hash.get(..PREFIX_BYTES).unwrap_or_default())
}
