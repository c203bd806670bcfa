//! One token in, permission or refusal out.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_audit::AuditLog;
use obol_token::SessionId;
use obol_verify::{Code, Denial, FailedCheck, Opened, Unverified, Verified, Verifier};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tracing::Span;

use crate::audit::{About, Auditor};
use crate::call::ToolCall;
#[cfg(feature = "http")]
use crate::metrics::Identified;
use crate::metrics::{Metrics, Seen, not_ready};
use crate::spent_token::SpentToken;

/// How long a request waits for the spent set. When it is over the answer is 503, and the token may be burned.
pub(crate) const SPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Verifies and spends tokens, counts and logs the outcome. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Gate {
    verifier: Verifier,
    opaque: bool,
    metrics: Arc<Metrics>,
    audit: Option<Arc<Auditor>>,
    log_lines_dropped: Option<&'static AtomicU64>,
}

impl Gate {
    /// A gate that tells callers the exact code of a refusal.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, opaque: false, metrics: Arc::default(), audit: None, log_lines_dropped: None }
    }

    /// Tells callers only that a cryptographic check failed, not which ([`Denial::folded`]). The log keeps the code.
    #[must_use]
    pub fn opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// Writes an audit log: a line for each token that is accepted, and one for each that is refused unless there are too
    /// many, which are counted. Nothing is accepted that is not in it.
    #[must_use]
    pub fn audited(mut self, log: Arc<AuditLog>) -> Self {
        self.audit = Some(Arc::new(Auditor::new(log)));
        self
    }

    /// Also shows in the metrics how many lines of the process's log were given up, which is counted there.
    #[must_use]
    pub fn log_lines_dropped(mut self, lines: &'static AtomicU64) -> Self {
        self.log_lines_dropped = Some(lines);
        self
    }

    /// Whether tokens can be verified, spent and, where there is an audit log, written down.
    ///
    /// # Errors
    ///
    /// The denial that every token would get: the session table, the spent set or the audit log cannot be used.
    pub fn health(&self) -> Result<(), Denial> {
        self.verifier.health()?;
        self.audit.as_ref().map_or(Ok(()), |audit| audit.health())
    }

    /// Counts what became of an identifier that is no token's.
    #[cfg(feature = "http")]
    pub(crate) fn count_identifier(&self, outcome: Identified) {
        self.metrics.count_identifier(outcome);
    }

    /// The verifier.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// How many tokens were accepted and refused, for what, and how long that took; in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let seen = Seen {
            not_ready: self.health().err().map(|denial| not_ready(&denial)),
            audit: self.audit.as_ref().map(|audit| audit.seen()),
            log_lines_dropped: self.log_lines_dropped.map(|lines| lines.load(Ordering::Relaxed)),
        };
        self.metrics.render(&self.verifier, &seen)
    }

    /// Verifies a token's text for a call, and spends it. Needs a tokio runtime with time enabled.
    ///
    /// # Errors
    ///
    /// The denial to answer with. The token may have been spent for nothing; it was not accepted.
    pub async fn admit(&self, token: &[u8], call: &ToolCall) -> Result<SpentToken, Denial> {
        self.admit_opened(self.open(token, Some(call.tool()))?, call).await
    }

    /// Looks at the token alone, before anything that comes with it is read: with this much shown, who presents it may
    /// cost a server more. It is not spent, and allows nothing. `tool` is what it is presented for, as far as is known.
    ///
    /// # Errors
    ///
    /// The denial to answer with: the token is malformed, of an unknown session, or not sealed by it.
    pub fn open(&self, token: &[u8], tool: Option<&str>) -> Result<OpenedToken, Denial> {
        let started = Instant::now();
        let mut about = About { tool, ..About::default() };
        let opened = Unverified::from_text(token).and_then(|token| {
            about.session = Some(token.claimed_session_id());
            about.jti = Some(*token.claimed_jti().as_bytes());
            token.open(&self.verifier)
        });
        opened.map(|opened| OpenedToken { started, opened }).map_err(|denial| {
            let span = about.session.zip(about.jti).map(|(session, jti)| token_span(session, &jti));
            span.unwrap_or_else(Span::none).in_scope(|| log_refusal(&denial));
            self.note_refusal(&denial, &about);
            self.metrics.times.record(started.elapsed(), 1);
            self.outward(denial)
        })
    }

    /// Verifies a token that was opened for a call, and spends it. Needs a tokio runtime with time enabled.
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit).
    pub async fn admit_opened(&self, token: OpenedToken, call: &ToolCall) -> Result<SpentToken, Denial> {
        let OpenedToken { started, opened } = token;
        let outcome = self.decide(opened, call).await;
        self.metrics.times.record(started.elapsed(), 1);
        match outcome {
            Ok(token) => {
                self.metrics.count(None);
                Ok(token)
            }
            Err(denial) => Err(self.outward(denial)),
        }
    }

    /// Opens the sealed arguments of a call without spending the token, for servers that must see them to know what
    /// the call is. The token is good for the call as given; it must be [admitted](Self::admit) for what the arguments
    /// ask before anything is done.
    ///
    /// # Errors
    ///
    /// The denial to answer with: the token is not good for the call, or the arguments are not sealed for it.
    pub fn open_arguments(&self, token: &[u8], call: &ToolCall) -> Result<Map<String, Value>, Denial> {
        let mut about = About { tool: Some(call.tool()), ..About::default() };
        let verified = Unverified::from_text(token).and_then(|token| {
            about.session = Some(token.claimed_session_id());
            about.jti = Some(*token.claimed_jti().as_bytes());
            token.verify(&self.verifier, &call.as_request())
        });
        let opened = verified.and_then(check_encryption_wanted).and_then(|verified| {
            let sealed_only = || Denial::malformed_request("the arguments are not sealed");
            verified.opened_arguments().cloned().ok_or_else(sealed_only)
        });
        opened.map_err(|denial| self.refuse_about(denial, &about))
    }

    /// Whether a token is good for a call, without spending it: for a call that is several at once, of which the last one
    /// [spends](Self::admit) it. Nothing may be done for this answer alone.
    ///
    /// # Errors
    ///
    /// The denial to answer with.
    pub fn check(&self, token: &[u8], call: &ToolCall) -> Result<(), Denial> {
        let mut about = About { tool: Some(call.tool()), ..About::default() };
        let verified = Unverified::from_text(token).and_then(|token| {
            about.session = Some(token.claimed_session_id());
            about.jti = Some(*token.claimed_jti().as_bytes());
            token.verify(&self.verifier, &call.as_request())
        });
        verified
            .and_then(check_encryption_wanted)
            .map(drop)
            .map_err(|denial| self.refuse_about(denial, &about))
    }

    /// Counts and logs a refusal that needed no token to be looked at, and makes it fit to be told.
    #[must_use]
    pub fn refuse(&self, denial: Denial) -> Denial {
        self.refuse_about(denial, &About::default())
    }

    fn refuse_about(&self, denial: Denial, about: &About<'_>) -> Denial {
        log_refusal(&denial);
        self.note_refusal(&denial, about);
        self.outward(denial)
    }

    fn note_refusal(&self, denial: &Denial, about: &About<'_>) {
        if let Some(audit) = &self.audit {
            audit.refused(denial, about);
        }
    }

    async fn decide(&self, token: Opened, call: &ToolCall) -> Result<SpentToken, Denial> {
        let (session, jti) = (token.session_id(), *token.jti().as_bytes());
        let span = token_span(session, &jti);
        let outcome = match token.verify(&call.as_request()).and_then(check_encryption_wanted) {
            Ok(verified) => self.spend(verified).await,
            Err(denial) => {
                let about = About { session: Some(session), jti: Some(jti), tool: Some(call.tool()) };
                self.note_refusal(&denial, &about);
                Err(denial)
            }
        };
        span.in_scope(|| match &outcome {
            Ok(_) => tracing::info!("accepted"),
            Err(denial) => log_refusal(denial),
        });
        outcome
    }

    /// Spends, if it can be written down.
    async fn spend(&self, verified: Verified) -> Result<SpentToken, Denial> {
        let pending = self.audit.as_ref().map(|audit| audit.begin(&verified)).transpose()?;
        let outcome = spend(verified).await;
        if let Some(pending) = pending {
            pending.settle(outcome.as_ref().err());
        }
        outcome
    }

    fn outward(&self, denial: Denial) -> Denial {
        self.metrics.count(Some(denial.code));
        if self.opaque { denial.folded() } else { denial }
    }
}

/// A genuine token on its way, that nobody has asked yet what it is for.
#[derive(Debug)]
pub struct OpenedToken {
    started: Instant,
    opened: Opened,
}

async fn spend(verified: Verified) -> Result<SpentToken, Denial> {
    match tokio::time::timeout(SPEND_TIMEOUT, verified.spend()).await {
        Ok(spent) => spent.map(SpentToken::new),
        Err(_) => Err(Denial::new(
            Code::Unavailable,
            FailedCheck::SpentSet,
            "the spent set did not answer in time; the token may be burned",
        )),
    }
}

/// The flag of the scope decides in both directions: nothing is sealed under a token that does not ask for it (TBAC
/// r41, section 10.2).
fn check_encryption_wanted(verified: Verified) -> Result<Verified, Denial> {
    let constraints = verified.scope().constraints.as_ref();
    let wanted = constraints.and_then(|constraints| constraints.require_channel_encryption) == Some(true);
    if verified.opened_arguments().is_some() && !wanted {
        return Err(Denial::malformed_request(
            "the arguments are sealed under a token that does not ask for it",
        ));
    }
    Ok(verified)
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

/// What ties the lines about one token together.
fn token_span(session_id: SessionId, jti: &[u8]) -> Span {
    tracing::info_span!("token", %session_id, jti_sha256 = jti_prefix(jti))
}

/// Enough to find a token again, and nothing that could be presented.
fn jti_prefix(jti: &[u8]) -> String {
    const PREFIX_BYTES: usize = 6;
    let hash = Sha256::digest(jti);
    obol_token::text::to_hex(hash.get(..PREFIX_BYTES).unwrap_or_default())
}
