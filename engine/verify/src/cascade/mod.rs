//! The cascade (TBAC r41, section 4.3), steps 2 to 14: cheap before dear, verify before decrypt, spend last.
//!
//! Step 1 makes an [`Unverified`], steps 2 to 12 an [`Opened`], 13 and 14 a [`Verified`], and step 15 a
//! [`crate::Spent`]. Steps 16 and 17 belong to the consumer profile, whose tokens are refused in step 1.

pub(crate) mod approval;
mod evaluation;
pub(crate) mod parents;
pub(crate) mod possession;
mod resource_form;
pub(crate) mod template;

use std::sync::Arc;

use obol_secret::json::{Bounds, ReadArguments};
use obol_token::{Body, BodyOpenError, Envelope, Jti, ScopeError};

use self::evaluation::Subject;
use crate::denial::{Code, Denial, FailedCheck};
use crate::parts::Parts;
use crate::request::{Arguments, Request};
use crate::session::Session;
use crate::session::known_scope::KnownScope;
use crate::spent::{Mark, SpendError};
use crate::token::{Facts, Opened, Unverified, Verified};

/// Steps 2 to 12: what the token is, whatever it is presented for.
pub(crate) fn open(token: &Unverified, parts: &Arc<Parts>) -> Result<Opened, Denial> {
    let envelope = token.envelope()?;

    // Steps 2 to 4: the header alone, no cryptography.
    let (now, issued_at) = (parts.clock.now(), envelope.issued_at());
    let session = parts.active_session(envelope.session_id(), envelope.suite())?;
    check_times(parts, &envelope, now)?;
    check_fence(parts, issued_at)?;
    check_audience(parts, &session, &envelope)?;
    check_window(parts, &session, issued_at, now)?;

    // Steps 5 to 9: keys, signature, decryption, and what the body must repeat.
    let body = open_body(&session, &envelope)?;
    check_mutual_auth(&session, &body)?;
    check_verifier_secret(&session, &body)?;
    let known = session.known_scopes().find_or_read(&body, session.material(), envelope.policy_epoch());
    let scope = known.map_err(|error| scope_denial(&error))?;

    // Steps 10 to 12: spent before, policy epoch, privilege signature.
    let (jti, policy_epoch) = (envelope.jti(), envelope.policy_epoch());
    let mark = Mark::new(envelope.session_id(), &jti, envelope.expires_at());
    check_not_spent(parts, &mark)?;
    check_policy_epoch(parts, &session, policy_epoch)?;
    check_privilege_signature(&scope, &body)?;
    session.known_scopes().keep(&scope);

    let facts = Box::new(Facts { session, body, scope, jti, opened: None });
    Ok(Opened { parts: Arc::clone(parts), mark, issued_at, policy_epoch, facts })
}

/// Steps 13 and 14: the scope, and who presents it. Both look at the arguments in the clear.
pub(crate) fn evaluate(mut token: Opened, request: &Request<'_>) -> Result<Verified, Denial> {
    let Facts { session, body, scope, jti, .. } = &*token.facts;
    let opened = open_arguments(request, session, jti, body)?;
    let arguments = opened.as_ref().map_or(request.arguments, |opened| Arguments::Opened(Some(&opened.map)));
    let rounded = opened.as_ref().map_or(request.rounded, |opened| opened.rounded);
    let subject = Subject {
        parts: &token.parts,
        session,
        issued_at: token.issued_at,
        scope: &scope.scope,
        known: scope,
        request,
        arguments,
        rounded,
    };
    evaluation::run(&subject)?;
    let stands_on = approval::check(&subject)?;
    possession::check(session, jti, &scope.scope, arguments, rounded, request.proof)?;

    token.facts.opened = opened.map(|opened| opened.map);
    Ok(Verified { token, stands_on })
}

fn stale(detail: &'static str) -> Denial {
    Denial::new(Code::StaleTimestamp, FailedCheck::TemporalValidation, detail)
}

/// All sums saturate: a time near the end of the range lies in the far future, and does not wrap around to the past.
fn check_times(parts: &Parts, envelope: &Envelope<'_>, now: u64) -> Result<(), Denial> {
    let (issued_at, expires_at) = (envelope.issued_at(), envelope.expires_at());
    if issued_at > now.saturating_add(parts.limits.clock_skew) {
        return Err(stale("the token is issued in the future"));
    }
    check_not_expired(parts, expires_at, now)?;
    let Some(life) = expires_at.checked_sub(issued_at) else {
        let code = Code::MalformedToken;
        return Err(Denial::new(code, FailedCheck::TemporalValidation, "the token ends before it is issued"));
    };
    if life > parts.limits.max_ttl {
        return Err(stale("the token lives longer than this server allows"));
    }
    Ok(())
}

pub(crate) fn check_not_expired(parts: &Parts, expires_at: u64, now: u64) -> Result<(), Denial> {
    if now > expires_at.saturating_add(parts.limits.clock_skew) {
        return Err(stale("the token has expired"));
    }
    Ok(())
}

pub(crate) fn check_fence(parts: &Parts, issued_at: u64) -> Result<(), Denial> {
    if parts.spent.fence().is_some_and(|fence| issued_at <= fence) {
        return Err(stale("the token is older than the spent set's memory"));
    }
    Ok(())
}

fn check_audience(parts: &Parts, session: &Session, envelope: &Envelope<'_>) -> Result<(), Denial> {
    let ours = &parts.audience_hash;
    // Keys that were made for another server do not become ours by ending up in our table.
    if envelope.audience_hash() != *ours || session.audience_hash() != ours {
        let code = Code::AudMismatch;
        return Err(Denial::new(code, FailedCheck::AudienceValidation, "the token is for another audience"));
    }
    Ok(())
}

pub(crate) fn check_window(parts: &Parts, session: &Session, issued_at: u64, now: u64) -> Result<(), Denial> {
    let Some(window) = session.window() else { return Ok(()) };
    let expired = |detail| Err(Denial::new(Code::SessionExpired, FailedCheck::SessionValidity, detail));
    if now > window.end {
        return expired("the session is over");
    }
    if issued_at.saturating_add(parts.limits.clock_skew) < window.start {
        return expired("the token was issued before its session began");
    }
    if issued_at > window.end {
        return expired("the token was issued after its session ended");
    }
    Ok(())
}

/// The signature first, where the suite has one, then decryption: [`obol_token`] knows no other order.
fn open_body(session: &Session, envelope: &Envelope<'_>) -> Result<Body, Denial> {
    session.material().open(envelope).map_err(|error| {
        let (code, failed_check) = match error {
            BodyOpenError::Suite | BodyOpenError::Body => (Code::MalformedToken, FailedCheck::FramingCheck),
            BodyOpenError::Signature => (Code::InvalidSignature, FailedCheck::SchnorrVerification),
            BodyOpenError::Decryption => (Code::DecryptionFailed, FailedCheck::AeadDecryption),
        };
        Denial::new(code, failed_check, error.as_str())
    })
}

fn check_mutual_auth(session: &Session, body: &Body) -> Result<(), Denial> {
    if body.mutual_auth_matches(session.material()) {
        return Ok(());
    }
    let code = Code::MutualAuthMismatch;
    Err(Denial::new(code, FailedCheck::MutualAuthCheck, "mutual_auth is not the session's"))
}

fn check_verifier_secret(session: &Session, body: &Body) -> Result<(), Denial> {
    if body.verifier_secret_matches(session.material()) {
        return Ok(());
    }
    let code = Code::VerifierSecretMismatch;
    Err(Denial::new(code, FailedCheck::VerifierSecretCheck, "verifier_secret is not the session's"))
}

fn scope_denial(error: &ScopeError) -> Denial {
    let (code, failed_check) = match error {
        ScopeError::Malformed(_) | ScopeError::TooLong => (Code::MalformedToken, FailedCheck::FramingCheck),
        ScopeError::Field(_) => (Code::ScopeFieldMissing, FailedCheck::TbacScopeEvaluation),
        ScopeError::IntentTooLarge => (Code::IntentPayloadTooLarge, FailedCheck::IntentValidation),
    };
    Denial::new(code, failed_check, error.to_string())
}

/// A look, not a spend: an attacker who lacks, say, the proof of possession must not burn somebody's token.
fn check_not_spent(parts: &Parts, mark: &Mark) -> Result<(), Denial> {
    match parts.spent.is_spent(mark) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Denial::from(&SpendError::AlreadySpent)),
        Err(error) => Err(Denial::from(&error)),
    }
}

pub(crate) fn check_policy_epoch(parts: &Parts, session: &Session, policy_epoch: u64) -> Result<(), Denial> {
    if policy_epoch >= parts.policy_epoch_for(session) {
        return Ok(());
    }
    let code = Code::EpochExpired;
    Err(Denial::new(code, FailedCheck::PolicyEpochValidation, "the token was minted under an older policy"))
}

fn check_privilege_signature(scope: &KnownScope, body: &Body) -> Result<(), Denial> {
    if scope.is_signed_in(body) {
        return Ok(());
    }
    let code = Code::PrivilegeSigInvalid;
    Err(Denial::new(code, FailedCheck::PrivilegeSignature, "priv_sig does not cover the scope"))
}

/// Opens encrypted arguments, now that the token is known to be genuine and before its limits are applied to them
/// (section 10.3).
fn open_arguments(
    request: &Request<'_>,
    session: &Session,
    jti: &Jti,
    body: &Body,
) -> Result<Option<ReadArguments>, Denial> {
    let Arguments::Sealed { algorithm, iv, ciphertext } = request.arguments else { return Ok(None) };
    let keys = session.material().channel_keys(jti, &body.response_key());
    if algorithm.is_some_and(|algorithm| algorithm != keys.algorithm()) {
        return Err(Denial::malformed_request("the arguments are not sealed by the session's algorithm"));
    }
    let plaintext = keys
        .open_request(iv, ciphertext)
        .map_err(|_| Denial::malformed_request("the arguments are not sealed for this token"))?;
    obol_secret::json::parse_within(&plaintext, Bounds::REQUEST)
        .map(Some)
        .map_err(|_| Denial::malformed_request("the sealed arguments are no JSON object"))
}
