//! Refusals: every one has a stable code and a stable name of the check that failed (TBAC r41, section 6).

use core::fmt;
use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::spent::SpendError;

macro_rules! stable_names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value, in a stable order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name. Programs may depend on it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    };
}

stable_names! {
    /// Why a request was refused. All names but the last are those of TBAC r41.
    Code {
        /// There is no token.
        TbacRequired => "TBAC_REQUIRED",
        /// The bytes are not a token, or its contents are not well-formed.
        MalformedToken => "MALFORMED_TOKEN",
        /// The request is enveloped in the token, which is outside base conformance.
        NonJsonPopNotSupported => "NON_JSON_POP_NOT_SUPPORTED",
        /// No session has this number.
        SessionNotFound => "SESSION_NOT_FOUND",
        /// The session is revoked, or the token lies outside its validity window.
        SessionExpired => "SESSION_EXPIRED",
        /// The token is over, not yet valid, too long-lived, or older than the spent set can answer for.
        StaleTimestamp => "STALE_TIMESTAMP",
        /// The token is for another resource server.
        AudMismatch => "AUD_MISMATCH",
        /// The signature does not hold.
        InvalidSignature => "INVALID_SIGNATURE",
        /// The body cannot be decrypted.
        DecryptionFailed => "DECRYPTION_FAILED",
        /// The body does not repeat the session's `mutual_auth`.
        MutualAuthMismatch => "MUTUAL_AUTH_MISMATCH",
        /// The body does not repeat the session's `verifier_secret`.
        VerifierSecretMismatch => "VERIFIER_SECRET_MISMATCH",
        /// The scope lacks a field, or a field breaks a rule of its own.
        ScopeFieldMissing => "SCOPE_FIELD_MISSING",
        /// The token was spent before.
        TokenReplayed => "TOKEN_REPLAYED",
        /// The token was minted under an older policy.
        EpochExpired => "EPOCH_EXPIRED",
        /// `priv_sig` does not cover the scope.
        PrivilegeSigInvalid => "PRIVILEGE_SIG_INVALID",
        /// The scope does not allow the request, or is wider than policy or its parent allow.
        InsufficientPrivilege => "INSUFFICIENT_PRIVILEGE",
        /// The scope belongs to another organisation than its session.
        OrgIdMismatch => "ORG_ID_MISMATCH",
        /// The scope asks for an encrypted request and this one came in the clear.
        ChannelEncryptionRequired => "CHANNEL_ENCRYPTION_REQUIRED",
        /// The request is not well-formed.
        MalformedRequest => "MALFORMED_REQUEST",
        /// What the human approved is not what the token allows.
        ApprovalDigestMismatch => "APPROVAL_DIGEST_MISMATCH",
        /// The human's approval is too old, or lies in the future.
        CibaApprovalExpired => "CIBA_APPROVAL_EXPIRED",
        /// `intent_hash` is not the hash of `user_raw_intent`.
        IntentIntegrityFailed => "INTENT_INTEGRITY_FAILED",
        /// `user_raw_intent` is longer than 4,096 bytes.
        IntentPayloadTooLarge => "INTENT_PAYLOAD_TOO_LARGE",
        /// The scope asks for proof of possession and there is none.
        PopRequired => "POP_REQUIRED",
        /// The proof of possession does not hold.
        PopFailed => "POP_FAILED",
        /// A cryptographic check failed; which one is not told (see [`Denial::folded`]).
        AuthorizationFailed => "AUTHORIZATION_FAILED",
        /// Not the token's fault: something the answer depends on cannot be reached or written.
        Unavailable => "UNAVAILABLE",
    }
}

stable_names! {
    /// The check that failed. All names but the last three are those of TBAC r41.
    FailedCheck {
        /// Is there a token?
        TokenAbsent => "TOKEN_ABSENT",
        /// Cascade step 1, and the form of the body and scope.
        FramingCheck => "FRAMING_CHECK",
        /// `request_format`.
        ConformanceScope => "CONFORMANCE_SCOPE",
        /// Cascade step 2.
        SessionLookup => "SESSION_LOOKUP",
        /// Cascade step 2 (status) and 4 (window).
        SessionValidity => "SESSION_VALIDITY",
        /// Cascade step 3, times.
        TemporalValidation => "TEMPORAL_VALIDATION",
        /// Cascade step 3, audience; again in step 13.
        AudienceValidation => "AUDIENCE_VALIDATION",
        /// Cascade step 6.
        SchnorrVerification => "SCHNORR_VERIFICATION",
        /// Cascade step 7.
        AeadDecryption => "AEAD_DECRYPTION",
        /// Cascade step 8.
        MutualAuthCheck => "MUTUAL_AUTH_CHECK",
        /// Cascade step 9.
        VerifierSecretCheck => "VERIFIER_SECRET_CHECK",
        /// Cascade step 13, and the required fields of the scope.
        TbacScopeEvaluation => "TBAC_SCOPE_EVALUATION",
        /// Cascade steps 10 and 15.
        ReplayConsume => "REPLAY_CONSUME",
        /// Cascade step 11.
        PolicyEpochValidation => "POLICY_EPOCH_VALIDATION",
        /// Cascade step 12.
        PrivilegeSignature => "PRIVILEGE_SIGNATURE",
        /// Cascade step 13, organisation.
        OrgIdValidation => "ORG_ID_VALIDATION",
        /// Cascade step 13, channel encryption.
        ChannelEncryptionMissing => "CHANNEL_ENCRYPTION_MISSING",
        /// The form of the request.
        RequestFraming => "REQUEST_FRAMING",
        /// Cascade step 13, what was approved.
        CibaDigestValidation => "CIBA_DIGEST_VALIDATION",
        /// Cascade step 13, when it was approved.
        CibaValidation => "CIBA_VALIDATION",
        /// Cascade step 13.7.
        IntentHashCheck => "INTENT_HASH_CHECK",
        /// The length of the intent.
        IntentValidation => "INTENT_VALIDATION",
        /// Cascade step 14: is there a proof?
        PopMissing => "POP_MISSING",
        /// Cascade step 14: does it hold?
        PopVerification => "POP_VERIFICATION",
        /// One of the cryptographic checks (see [`Denial::folded`]).
        CryptographicVerification => "CRYPTOGRAPHIC_VERIFICATION",
        /// The spent set answers for what was spent before.
        SpentSet => "SPENT_SET",
        /// The session table answers for which sessions there are.
        SessionTable => "SESSION_TABLE",
        /// What is decided can be written down.
        AuditLog => "AUDIT_LOG",
    }
}

/// A refusal.
///
/// `code` and `failed_check` may be told to anyone. `detail` is for the server's own log: it may repeat parts of
/// the request, though never a token or a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// Why.
    pub code: Code,
    /// Which check failed.
    pub failed_check: FailedCheck,
    /// What exactly, for the log.
    pub detail: Cow<'static, str>,
}

impl Denial {
    /// Puts a refusal together.
    pub fn new(code: Code, failed_check: FailedCheck, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, failed_check, detail: detail.into() }
    }

    /// The refusal of a request that carries no token.
    pub fn token_absent() -> Self {
        Self::new(Code::TbacRequired, FailedCheck::TokenAbsent, "the request carries no token")
    }

    /// The refusal of a request whose own form is wrong.
    pub fn malformed_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::MalformedRequest, FailedCheck::RequestFraming, detail)
    }

    /// The form to show to strangers: failures of cryptographic checks look alike, so that nobody learns how far a
    /// forgery got. The log keeps the refusal itself.
    #[must_use]
    pub fn folded(&self) -> Self {
        match self.code {
            Code::InvalidSignature
            | Code::DecryptionFailed
            | Code::MutualAuthMismatch
            | Code::VerifierSecretMismatch
            | Code::PrivilegeSigInvalid => Self::new(
                Code::AuthorizationFailed,
                FailedCheck::CryptographicVerification,
                "a cryptographic check failed",
            ),
            _ => self.clone(),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.failed_check, self.detail)
    }
}

impl core::error::Error for Denial {}

impl From<&SpendError> for Denial {
    fn from(error: &SpendError) -> Self {
        let (code, failed_check) = match error {
            SpendError::AlreadySpent => (Code::TokenReplayed, FailedCheck::ReplayConsume),
            SpendError::Forgotten => (Code::StaleTimestamp, FailedCheck::TemporalValidation),
            SpendError::Unavailable(_) => (Code::Unavailable, FailedCheck::SpentSet),
        };
        Self::new(code, failed_check, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_upper_case() {
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let checks: Vec<&str> = FailedCheck::ALL.iter().map(|check| check.as_str()).collect();
        for names in [codes, checks] {
            let distinct: std::collections::BTreeSet<&&str> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
            assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')));
        }
    }

    #[test]
    fn folding_hides_which_cryptographic_check_failed_and_nothing_else() {
        let folded = |code, check| Denial::new(code, check, "x").folded();
        let hidden = folded(Code::InvalidSignature, FailedCheck::SchnorrVerification);
        assert_eq!(
            (hidden.code, hidden.failed_check),
            (Code::AuthorizationFailed, FailedCheck::CryptographicVerification)
        );
        assert_eq!(hidden, folded(Code::PrivilegeSigInvalid, FailedCheck::PrivilegeSignature));
        let open = folded(Code::TokenReplayed, FailedCheck::ReplayConsume);
        assert_eq!(open.code, Code::TokenReplayed);
    }
}
