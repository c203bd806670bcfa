//! `{"op":"mint"}`

use obol_token::delegation::{SCOPE_CEILING_EXCEEDED, check_attenuation, hash_of};
use obol_token::text::{from_hex, hex_array, hex_option, to_base64url};
use obol_token::{Jti, MintError, Minter, ResponseKey, Scope, ScopeError, TokenSeed, Validity};
use obol_verify::{Clock as _, Code, DEFAULT_MAX_TTL_SECS, FailedCheck, SystemClock};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::{Answer, Invalid, SessionFields};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MintLine {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    session: SessionFields,
    scope: Scope,
    /// Absent: now.
    #[serde(default)]
    iat: Option<u64>,
    /// Absent: 60 s after `iat`.
    #[serde(default)]
    exp: Option<u64>,
    #[serde(default)]
    policy_epoch: u64,
    /// 22 characters of base64url.
    #[serde(default)]
    jti: Option<String>,
    #[serde(default, with = "hex_option")]
    iv: Option<[u8; 12]>,
    #[serde(default)]
    response_key: Option<Key>,
    /// What the Schnorr nonce is reduced from: 64 bytes as hex, or 32 that are repeated. Absent: the deterministic
    /// nonce.
    #[serde(default)]
    r_tok_seed: Option<String>,
    /// The scope that this one is delegated from. It fills in `parent_token_hash` where that is absent.
    #[serde(default)]
    parent: Option<Scope>,
    /// Scopes that this one may be delegated from; `parent_token_hash` tells which. A single one need not be named.
    #[serde(default)]
    parents: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Key(#[serde(with = "hex_array")] [u8; 32]);

pub(super) fn answer(mut line: MintLine) -> Result<Answer, Invalid> {
    if let Some(refusal) = delegate(&mut line)? {
        return Ok(refusal);
    }
    let jti = match &line.jti {
        Some(text) => Jti::parse(text.as_bytes()).ok_or("jti: expected 22 characters of base64url")?,
        None => Jti::from_random(random()?),
    };
    let response_key = match line.response_key {
        Some(Key(bytes)) => bytes,
        None => random()?,
    };
    let seed = TokenSeed {
        jti,
        iv: line.iv.map_or_else(random, Ok)?,
        response_key: ResponseKey::from_bytes(response_key),
        nonce: line.r_tok_seed.as_deref().map(nonce).transpose()?,
    };
    let issued_at = line.iat.unwrap_or_else(|| SystemClock::new().now());
    let expires_at = line.exp.unwrap_or(issued_at.saturating_add(DEFAULT_MAX_TTL_SECS));
    let (material, _rules) = line.session.split()?;
    let minted = Minter::new(&material, &line.scope, line.policy_epoch)
        .and_then(|minter| minter.mint(Validity { issued_at, expires_at }, &[seed]));
    Ok(match minted.as_deref() {
        Ok([token]) => Answer::Minted { ok: true, token_b64url: to_base64url(token) },
        Ok(_) => return Err("nothing was minted".to_owned()),
        Err(error) => refused(error),
    })
}

/// Ties the scope to its parent. `Some` is the refusal of a scope that widens.
fn delegate(line: &mut MintLine) -> Result<Option<Answer>, Invalid> {
    let parents = line.parents.iter().chain(&line.parent);
    let mut by_hash = Vec::new();
    for parent in parents {
        by_hash.push((hash_of(parent).map_err(|error| format!("parent: {error}"))?, parent));
    }
    let (hash, parent) = match (line.scope.parent_token_hash, by_hash.as_slice()) {
        (_, []) => return Ok(None),
        (None, [only]) => *only,
        (None, _) => return Err("scope.parent_token_hash: needed to tell the parents apart".to_owned()),
        (Some(named), all) => match all.iter().find(|(hash, _)| *hash == named) {
            Some(found) => *found,
            None => return Ok(Some(insufficient("ParentNotFound"))),
        },
    };
    if check_attenuation(&line.scope, parent).is_err() {
        return Ok(Some(insufficient(SCOPE_CEILING_EXCEEDED)));
    }
    line.scope.parent_token_hash = Some(hash);
    Ok(None)
}

fn insufficient(error: &str) -> Answer {
    failed(Code::InsufficientPrivilege, FailedCheck::TbacScopeEvaluation, error.to_owned())
}

fn failed(code: Code, failed_check: FailedCheck, error: String) -> Answer {
    Answer::Failed { ok: false, code: code.as_str(), failed_check: failed_check.as_str(), error }
}

/// Under the code that verification would give the same fault.
fn refused(error: &MintError) -> Answer {
    let (code, failed_check) = match error {
        MintError::Scope(ScopeError::Field(_)) => (Code::ScopeFieldMissing, FailedCheck::TbacScopeEvaluation),
        MintError::Scope(ScopeError::IntentTooLarge) => {
            (Code::IntentPayloadTooLarge, FailedCheck::IntentValidation)
        }
        MintError::MaxCalls | MintError::Widening(_) | MintError::Parent => {
            (Code::InsufficientPrivilege, FailedCheck::TbacScopeEvaluation)
        }
        MintError::ApprovalDigest => (Code::ApprovalDigestMismatch, FailedCheck::CibaDigestValidation),
        MintError::IntentHash => (Code::IntentIntegrityFailed, FailedCheck::IntentHashCheck),
        MintError::Validity => (Code::MalformedToken, FailedCheck::TemporalValidation),
        MintError::Scope(_) | MintError::Encryption => (Code::MalformedToken, FailedCheck::FramingCheck),
    };
    failed(code, failed_check, error.to_string())
}

fn nonce(hex: &str) -> Result<Zeroizing<[u8; 64]>, Invalid> {
    from_hex(hex)
        .or_else(|| from_hex::<32>(hex).and_then(|_| from_hex(&hex.repeat(2))))
        .map(Zeroizing::new)
        .ok_or_else(|| "r_tok_seed: expected 64 or 128 lower-case hex digits".to_owned())
}

fn random<const N: usize>() -> Result<[u8; N], Invalid> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes)
}
