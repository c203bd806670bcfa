//! What agents are told when something failed: a code of the local sockets, and words that say what to do.
//!
//! Only what the service said inside a handshake ends anything: a refusal in clear may be anybody's on the way, and counts as
//! a service that cannot be reached.

use core::time::Duration;

use obol_audit::Suspended;
use obol_ipc::refusal::{ErrorCode, Refusal, retry_after_ms};
use obol_uplink::AuthError;

use crate::tqs::TqsError;

/// When what could not be done now may be tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a failure means for what happens next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Consequence {
    /// It may go well the next time.
    TryAgain,
    /// The service said no, and will for a while.
    Refused,
    /// The service ended the agent: what was minted ahead must go.
    Ended,
}

/// What a failure at the service means.
pub(crate) fn consequence(error: &AuthError) -> Consequence {
    match error {
        AuthError::Refused { code, .. } => match code.as_str() {
            "SUSPENDED" | "REVOKED" => Consequence::Ended,
            "CLOCK_SKEW" | "UNAVAILABLE" => Consequence::TryAgain,
            _ => Consequence::Refused,
        },
        _ => Consequence::TryAgain,
    }
}

/// The code and the words for a failure at the service, which is tried again after so long.
pub(crate) fn of_service(error: &AuthError, retry_after: Duration) -> Refusal {
    let unreachable = ErrorCode::AuthorityUnreachable { retry_after_ms: retry_after_ms(retry_after) };
    let code = match error {
        AuthError::Refused { code, .. } => match code.as_str() {
            "NOT_REGISTERED" => ErrorCode::NotRegistered,
            "PENDING_APPROVAL" => ErrorCode::ApprovalPending,
            "APPROVAL_EXPIRED" => ErrorCode::ApprovalExpired,
            "SUSPENDED" => ErrorCode::Suspended,
            "REVOKED" => ErrorCode::Revoked,
            "CLOCK_SKEW" => ErrorCode::ClockSkew,
            "UNAVAILABLE" => unreachable,
            _ => ErrorCode::AuthorityRefused,
        },
        AuthError::ClockSkew(_) => ErrorCode::ClockSkew,
        AuthError::Unreachable(_) | AuthError::Rejected { .. } => unreachable,
        AuthError::NotTheService(_)
        | AuthError::Downgrade { .. }
        | AuthError::NoSuite
        | AuthError::Answer(_) => ErrorCode::AuthorityRefused,
        AuthError::NotAsked => ErrorCode::NotRegistered,
        // Also what a later version may say.
        _ => ErrorCode::Unavailable,
    };
    let words = error.to_string();
    match code {
        // The service's own code comes first where the socket has none for it.
        ErrorCode::AuthorityRefused => Refusal::new(code, format!("{}: {words}", error.code())),
        _ => Refusal::new(code, words),
    }
}

/// The same for a human's yes that did not come back as it should. The service says this in clear, to whoever holds the poll token.
pub(crate) fn of_completion(error: &AuthError) -> Refusal {
    match error {
        AuthError::Rejected { code, detail } if code == "WRONG_CODE" || code == "MALFORMED" => {
            Refusal::invalid_argument(format_args!("{detail}"))
        }
        AuthError::Rejected { code, .. } if code == "PENDING_APPROVAL" => Refusal::new(
            ErrorCode::ApprovalPending,
            "no human has said yes on the page yet, or the registration is over; the return code comes after that",
        ),
        error => of_service(error, RETRY_AFTER),
    }
}

/// The same for a failure at the sidecar.
pub(crate) fn of_sidecar(error: &TqsError) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}

/// What cannot be written down is not done.
pub(crate) fn unaudited(suspended: &Suspended) -> Refusal {
    Refusal::new(
        ErrorCode::Unavailable,
        format!("{suspended}; nobody is registered and no session is opened"),
    )
}

pub(crate) fn not_registered() -> Refusal {
    Refusal::new(ErrorCode::NotRegistered, "the agent is not registered; register it (`obol register`)")
}

pub(crate) fn pending(code: &str) -> Refusal {
    Refusal::new(
        ErrorCode::ApprovalPending,
        format!("a human has not yet approved the agent: `obol approve {code}` where the service runs"),
    )
}

pub(crate) fn too_soon(wait: Duration) -> Refusal {
    let retry_after_ms = retry_after_ms(wait);
    Refusal::new(
        ErrorCode::Overloaded { retry_after_ms },
        format!(
            "the service was asked to register the agent a moment ago, and a human may have to read it; ask again in {retry_after_ms} ms"
        ),
    )
}

pub(crate) fn denied(why: &str) -> Refusal {
    Refusal::new(
        ErrorCode::ApprovalDenied,
        format!("{why}; register again (`obol register`) if that was a mistake"),
    )
}

pub(crate) fn held(scope: &str, reason: &str) -> Refusal {
    Refusal::new(
        ErrorCode::SessionFlushed,
        format!(
            "an operator flushed the sidecar ({scope}: {reason}) and no session is opened before `obol resume`; ask the \
             operator"
        ),
    )
}

pub(crate) fn stopping() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the authenticator is stopping; connect again once it is back")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> AuthError {
        AuthError::Refused { code: code.to_owned(), detail: "words".to_owned() }
    }

    fn in_clear(code: &str) -> AuthError {
        AuthError::Rejected { code: code.to_owned(), detail: "words".to_owned() }
    }

    #[test]
    fn only_what_the_service_itself_said_ends_an_agent() {
        for code in ["SUSPENDED", "REVOKED"] {
            assert_eq!(consequence(&refused(code)), Consequence::Ended);
            assert_eq!(
                consequence(&in_clear(code)),
                Consequence::TryAgain,
                "anybody on the way can say that"
            );
            let told = of_service(&in_clear(code), Duration::from_secs(1));
            assert_eq!(told.code().name(), "AUTHORITY_UNREACHABLE");
        }
        assert_eq!(consequence(&refused("NO_GRANTS")), Consequence::Refused);
        assert_eq!(consequence(&refused("UNAVAILABLE")), Consequence::TryAgain);
    }

    #[test]
    fn a_code_without_a_name_here_stands_before_the_words() {
        for (error, name, begins) in [
            (refused("NOT_REGISTERED"), "NOT_REGISTERED", ""),
            (refused("NO_GRANTS"), "AUTHORITY_REFUSED", "NO_GRANTS: "),
            (AuthError::NoSuite, "AUTHORITY_REFUSED", "NO_SUITE: "),
            (AuthError::ClockSkew(-31), "CLOCK_SKEW", "this machine's clock is 31 s behind"),
            (AuthError::Unreachable("x".into()), "AUTHORITY_UNREACHABLE", ""),
            (AuthError::System("x".into()), "UNAVAILABLE", ""),
        ] {
            let told = of_service(&error, Duration::from_secs(2));
            assert_eq!(told.code().name(), name, "{error}");
            assert!(told.message().starts_with(begins), "{told}");
        }
    }
}
