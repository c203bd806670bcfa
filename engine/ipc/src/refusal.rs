//! The errors a request can be answered with: a stable code, and a message that says what to do about it.

use core::fmt;
use core::time::Duration;

use obol_secret::text::is_plain;

use crate::binary::{Binary, BinaryError, Input, Output, unknown_variant};
use crate::frame::EncodeError;

/// Longest message of a refusal, in bytes. It may quote the request, which must not let a request choose the size of
/// its answer.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// Why a request was refused.
///
/// | code | JSON-RPC number |
/// |---|---|
/// | not JSON, or not the codec agreed on | -32700 |
/// | not a request | -32600 |
/// | `METHOD_NOT_ALLOWED` | -32601 |
/// | `INVALID_ARGUMENT` | -32602 |
/// | `QUEUE_EMPTY` | -32001 |
/// | `POLICY_DENY` | -32002 |
/// | `NO_SESSION` | -32003 |
/// | `SESSION_FLUSHED` | -32004 |
/// | `OVERLOADED` | -32005 |
/// | `UNAVAILABLE` | -32006 |
/// | `NOT_REGISTERED` | -32007 |
/// | `APPROVAL_PENDING` | -32008 |
/// | `APPROVAL_DENIED` | -32009 |
/// | `APPROVAL_EXPIRED` | -32010 |
/// | `SUSPENDED` | -32011 |
/// | `REVOKED` | -32012 |
/// | `AUTHORITY_UNREACHABLE` | -32013 |
/// | `AUTHORITY_REFUSED` | -32014 |
/// | `CLOCK_SKEW` | -32015 |
/// | `APPROVAL_REQUIRED` | -32016 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The body is not a message of the codec. Its `data.code` is `INVALID_ARGUMENT`.
    ParseError,
    /// The body is a message of the codec, but no request. Its `data.code` is `INVALID_ARGUMENT`.
    InvalidRequest,
    /// This socket does not know the method.
    MethodNotAllowed,
    /// A parameter is missing, unknown or out of range.
    InvalidArgument,
    /// No token is ready.
    QueueEmpty {
        /// Whether tokens are being minted or granted right now.
        renewal_pending: bool,
        /// When asking again makes sense, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// Policy denies the tool.
    PolicyDeny,
    /// There is no session that grants the tool.
    NoSession,
    /// The session was flushed; what it had minted is destroyed.
    SessionFlushed,
    /// The daemon has too much to do.
    Overloaded {
        /// When asking again makes sense, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The store failed, or the daemon is stopping: nothing will be handed out.
    Unavailable,
    /// The agent is not registered at the Authentication Service.
    NotRegistered,
    /// A human has yet to approve the agent.
    ApprovalPending,
    /// A human said no to the agent, or nobody decided in time.
    ApprovalDenied,
    /// The human's approval is over.
    ApprovalExpired,
    /// The Authentication Service suspended the agent.
    Suspended,
    /// The Authentication Service revoked the agent's key, for good.
    Revoked,
    /// The Authentication Service cannot be reached.
    AuthorityUnreachable {
        /// When asking again makes sense, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The Authentication Service refused for a reason that has no code here; the message begins with its own.
    AuthorityRefused,
    /// The clocks of this machine and of the Authentication Service are too far apart.
    ClockSkew,
    /// A human says yes to each call of the tool, and no such yes waits for its token.
    ApprovalRequired,
}

impl ErrorCode {
    /// Every code, with nothing in it.
    pub const ALL: [Self; 20] = [
        Self::ParseError,
        Self::InvalidRequest,
        Self::MethodNotAllowed,
        Self::InvalidArgument,
        Self::QueueEmpty { renewal_pending: false, retry_after_ms: 0 },
        Self::PolicyDeny,
        Self::NoSession,
        Self::SessionFlushed,
        Self::Overloaded { retry_after_ms: 0 },
        Self::Unavailable,
        Self::NotRegistered,
        Self::ApprovalPending,
        Self::ApprovalDenied,
        Self::ApprovalExpired,
        Self::Suspended,
        Self::Revoked,
        Self::AuthorityUnreachable { retry_after_ms: 0 },
        Self::AuthorityRefused,
        Self::ClockSkew,
        Self::ApprovalRequired,
    ];

    /// The stable name, as `data.code` carries it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ParseError | Self::InvalidRequest | Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::QueueEmpty { .. } => "QUEUE_EMPTY",
            Self::PolicyDeny => "POLICY_DENY",
            Self::NoSession => "NO_SESSION",
            Self::SessionFlushed => "SESSION_FLUSHED",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::Unavailable => "UNAVAILABLE",
            Self::NotRegistered => "NOT_REGISTERED",
            Self::ApprovalPending => "APPROVAL_PENDING",
            Self::ApprovalDenied => "APPROVAL_DENIED",
            Self::ApprovalExpired => "APPROVAL_EXPIRED",
            Self::Suspended => "SUSPENDED",
            Self::Revoked => "REVOKED",
            Self::AuthorityUnreachable { .. } => "AUTHORITY_UNREACHABLE",
            Self::AuthorityRefused => "AUTHORITY_REFUSED",
            Self::ClockSkew => "CLOCK_SKEW",
            Self::ApprovalRequired => "APPROVAL_REQUIRED",
        }
    }

    /// The JSON-RPC error number.
    pub const fn number(self) -> i32 {
        match self {
            Self::ParseError => -32_700,
            Self::InvalidRequest => -32_600,
            Self::MethodNotAllowed => -32_601,
            Self::InvalidArgument => -32_602,
            Self::QueueEmpty { .. } => -32_001,
            Self::PolicyDeny => -32_002,
            Self::NoSession => -32_003,
            Self::SessionFlushed => -32_004,
            Self::Overloaded { .. } => -32_005,
            Self::Unavailable => -32_006,
            Self::NotRegistered => -32_007,
            Self::ApprovalPending => -32_008,
            Self::ApprovalDenied => -32_009,
            Self::ApprovalExpired => -32_010,
            Self::Suspended => -32_011,
            Self::Revoked => -32_012,
            Self::AuthorityUnreachable { .. } => -32_013,
            Self::AuthorityRefused => -32_014,
            Self::ClockSkew => -32_015,
            Self::ApprovalRequired => -32_016,
        }
    }

    /// When asking again makes sense, for the codes that say so.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::QueueEmpty { retry_after_ms, .. }
            | Self::Overloaded { retry_after_ms }
            | Self::AuthorityUnreachable { retry_after_ms } => Some(Duration::from_millis(retry_after_ms)),
            _ => None,
        }
    }

    /// The code with this name; `number` tells apart those that share one. `None` for a code this version does not
    /// know. What the sender left out counts as `false` and 0.
    pub(crate) fn from_parts(
        name: Option<&str>,
        number: i64,
        renewal_pending: Option<bool>,
        retry_after_ms: Option<u64>,
    ) -> Option<Self> {
        let retry_after_ms = retry_after_ms.unwrap_or(0);
        match (name, number) {
            (None | Some("INVALID_ARGUMENT"), -32_700) => Some(Self::ParseError),
            (None | Some("INVALID_ARGUMENT"), -32_600) => Some(Self::InvalidRequest),
            (Some("INVALID_ARGUMENT"), _) | (None, -32_602) => Some(Self::InvalidArgument),
            (Some("METHOD_NOT_ALLOWED"), _) | (None, -32_601) => Some(Self::MethodNotAllowed),
            (Some("QUEUE_EMPTY"), _) => {
                Some(Self::QueueEmpty { renewal_pending: renewal_pending.unwrap_or(false), retry_after_ms })
            }
            (Some("POLICY_DENY"), _) => Some(Self::PolicyDeny),
            (Some("NO_SESSION"), _) => Some(Self::NoSession),
            (Some("SESSION_FLUSHED"), _) => Some(Self::SessionFlushed),
            (Some("OVERLOADED"), _) => Some(Self::Overloaded { retry_after_ms }),
            (Some("UNAVAILABLE"), _) => Some(Self::Unavailable),
            (Some("NOT_REGISTERED"), _) => Some(Self::NotRegistered),
            (Some("APPROVAL_PENDING"), _) => Some(Self::ApprovalPending),
            (Some("APPROVAL_DENIED"), _) => Some(Self::ApprovalDenied),
            (Some("APPROVAL_EXPIRED"), _) => Some(Self::ApprovalExpired),
            (Some("SUSPENDED"), _) => Some(Self::Suspended),
            (Some("REVOKED"), _) => Some(Self::Revoked),
            (Some("AUTHORITY_UNREACHABLE"), _) => Some(Self::AuthorityUnreachable { retry_after_ms }),
            (Some("AUTHORITY_REFUSED"), _) => Some(Self::AuthorityRefused),
            (Some("CLOCK_SKEW"), _) => Some(Self::ClockSkew),
            (Some("APPROVAL_REQUIRED"), _) => Some(Self::ApprovalRequired),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refused request: the code, and one line that says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    /// A refusal with a message of one's own. Control characters become spaces, and what goes beyond
    /// [`MAX_MESSAGE_BYTES`] is cut off.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: one_line(message.into()) }
    }

    /// `QUEUE_EMPTY`: nothing is ready for the tool.
    pub fn queue_empty(renewal_pending: bool, retry_after: Duration) -> Self {
        let retry_after_ms = retry_after_ms(retry_after);
        let cause = if renewal_pending { "more are being made" } else { "none are being made" };
        Self::new(
            ErrorCode::QueueEmpty { renewal_pending, retry_after_ms },
            format!("no token is ready and {cause}; ask again in {retry_after_ms} ms, or wait with waitMs"),
        )
    }

    /// `NO_SESSION`: there is none.
    pub fn no_session() -> Self {
        Self::new(ErrorCode::NoSession, "there is no session; authenticate the agent, then ask again")
    }

    /// `SESSION_FLUSHED`: the session and all it had minted were destroyed.
    pub fn session_flushed() -> Self {
        Self::new(
            ErrorCode::SessionFlushed,
            "the session was flushed and its tokens are destroyed; authenticate the agent again",
        )
    }

    /// `INVALID_ARGUMENT`: `problem` names the parameter and says what it must be.
    pub fn invalid_argument(problem: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidArgument, problem.to_string())
    }

    /// `OVERLOADED`: too much to do.
    pub fn overloaded(retry_after: Duration) -> Self {
        let retry_after_ms = retry_after_ms(retry_after);
        Self::new(
            ErrorCode::Overloaded { retry_after_ms },
            format!("too many requests at once; ask again in {retry_after_ms} ms"),
        )
    }

    /// `UNAVAILABLE`: nothing will be handed out until the operator has looked at `cause`.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Unavailable, format!("{cause}; nothing is handed out, see the daemon's log"))
    }

    /// `UNAVAILABLE`: the reply does not fit a frame. For the server to answer with when encoding a reply fails.
    pub fn reply_too_long() -> Self {
        Self::new(
            ErrorCode::Unavailable,
            "the answer is longer than the 65536 bytes a frame can hold; ask about one tool at a time",
        )
    }

    /// Why.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// What is wrong and what to do, in one line of at most [`MAX_MESSAGE_BYTES`].
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl core::error::Error for Refusal {}

/// A time to wait as the protocol says it, in milliseconds: rounded up, so that whoever waits that long comes in time.
pub fn retry_after_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Makes `text` safe for a log and short enough for an answer.
pub(crate) fn one_line(mut text: String) -> String {
    let end = (0..=MAX_MESSAGE_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    if !text.chars().all(is_plain) {
        text = text.replace(|character| !is_plain(character), " ");
    }
    text
}

impl Binary for ErrorCode {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        let number: u32 = match self {
            Self::ParseError => 0,
            Self::InvalidRequest => 1,
            Self::MethodNotAllowed => 2,
            Self::InvalidArgument => 3,
            Self::QueueEmpty { .. } => 4,
            Self::PolicyDeny => 5,
            Self::NoSession => 6,
            Self::SessionFlushed => 7,
            Self::Overloaded { .. } => 8,
            Self::Unavailable => 9,
            Self::NotRegistered => 10,
            Self::ApprovalPending => 11,
            Self::ApprovalDenied => 12,
            Self::ApprovalExpired => 13,
            Self::Suspended => 14,
            Self::Revoked => 15,
            Self::AuthorityUnreachable { .. } => 16,
            Self::AuthorityRefused => 17,
            Self::ClockSkew => 18,
            Self::ApprovalRequired => 19,
        };
        number.put(output)?;
        match self {
            Self::QueueEmpty { renewal_pending, retry_after_ms } => {
                renewal_pending.put(output)?;
                retry_after_ms.put(output)
            }
            Self::Overloaded { retry_after_ms } | Self::AuthorityUnreachable { retry_after_ms } => {
                retry_after_ms.put(output)
            }
            _ => Ok(()),
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(match u32::take(input)? {
            0 => Self::ParseError,
            1 => Self::InvalidRequest,
            2 => Self::MethodNotAllowed,
            3 => Self::InvalidArgument,
            4 => Self::QueueEmpty { renewal_pending: bool::take(input)?, retry_after_ms: u64::take(input)? },
            5 => Self::PolicyDeny,
            6 => Self::NoSession,
            7 => Self::SessionFlushed,
            8 => Self::Overloaded { retry_after_ms: u64::take(input)? },
            9 => Self::Unavailable,
            10 => Self::NotRegistered,
            11 => Self::ApprovalPending,
            12 => Self::ApprovalDenied,
            13 => Self::ApprovalExpired,
            14 => Self::Suspended,
            15 => Self::Revoked,
            16 => Self::AuthorityUnreachable { retry_after_ms: u64::take(input)? },
            17 => Self::AuthorityRefused,
            18 => Self::ClockSkew,
            19 => Self::ApprovalRequired,
            other => return unknown_variant("error code this version knows", other),
        })
    }
}

impl Binary for Refusal {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.code().put(output)?;
        output.plain(self.message())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(ErrorCode::take(input)?, String::take(input)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_bounded_line_whatever_it_quotes() {
        let refusal = Refusal::invalid_argument("caf\u{e9}\n\u{1b}[31m".repeat(1_000));
        assert!(refusal.message().len() <= MAX_MESSAGE_BYTES);
        assert!(!refusal.message().contains(char::is_control));
    }

    #[test]
    fn a_time_to_wait_is_never_named_too_short() {
        for (nanoseconds, named) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(retry_after_ms(Duration::from_nanos(nanoseconds)), named);
        }
        assert_eq!(retry_after_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn every_code_reads_back_from_its_name_and_number() {
        for code in [
            ErrorCode::ParseError,
            ErrorCode::InvalidRequest,
            ErrorCode::MethodNotAllowed,
            ErrorCode::InvalidArgument,
            ErrorCode::QueueEmpty { renewal_pending: true, retry_after_ms: 9 },
            ErrorCode::PolicyDeny,
            ErrorCode::NoSession,
            ErrorCode::SessionFlushed,
            ErrorCode::Overloaded { retry_after_ms: 9 },
            ErrorCode::AuthorityUnreachable { retry_after_ms: 9 },
            ErrorCode::Unavailable,
            ErrorCode::NotRegistered,
            ErrorCode::ApprovalPending,
            ErrorCode::ApprovalDenied,
            ErrorCode::ApprovalExpired,
            ErrorCode::Suspended,
            ErrorCode::Revoked,
            ErrorCode::AuthorityRefused,
            ErrorCode::ClockSkew,
            ErrorCode::ApprovalRequired,
        ] {
            let back = ErrorCode::from_parts(Some(code.name()), code.number().into(), Some(true), Some(9));
            assert_eq!(back, Some(code));
        }
        assert_eq!(ErrorCode::from_parts(Some("NEW_CODE"), -32_099, None, None), None);
    }
}
