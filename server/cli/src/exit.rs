//! How a command ends: the exit code that scripts go by, and the line that people read.

use core::fmt;
use core::time::Duration;
use std::process::ExitCode;

use obol_client::{CallError, ConnectError};
use obol_ipc::refusal::{ErrorCode, retry_after_ms};
use obol_secret::file::PrivateFileError;
use serde::Serialize;
use serde_json::json;

/// What an exit code means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Anything else went wrong.
    Other = 1,
    /// The command, its arguments, a file or the configuration is wrong.
    Usage = 2,
    /// Policy or the resource server said no.
    Denied = 3,
    /// Nothing answers, nothing is ready, or the store failed.
    Unavailable = 4,
    /// A login or an approval is needed: there is no session, or it was flushed.
    Login = 5,
}

impl Exit {
    /// Every one but success.
    pub(crate) const ALL: [Self; 5] =
        [Self::Other, Self::Usage, Self::Denied, Self::Unavailable, Self::Login];

    /// The code of a failure that has no other.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Other => "FAILED",
            Self::Usage => "USAGE",
            Self::Denied => "DENIED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Login => "LOGIN_NEEDED",
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// The daemon's own word for it, where it has one.
    refused: Option<ErrorCode>,
    /// Another word for it, and when to ask again.
    named: Option<(&'static str, Option<Duration>)>,
    message: String,
    /// What is wrong one by one, each on a line of its own.
    details: Vec<String>,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, refused: None, named: None, message: message.to_string(), details: Vec::new() }
    }

    /// The same, with what is wrong one by one.
    #[cfg(feature = "authority")]
    pub(crate) fn with_details(self, details: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        Self { details: details.into_iter().map(|detail| detail.to_string()).collect(), ..self }
    }

    /// The same, about something that is named in front.
    pub(crate) fn about(&self, what: &str) -> Self {
        let Self { exit, refused, named, message, details } = self;
        Self {
            exit: *exit,
            refused: *refused,
            named: *named,
            message: format!("{what}: {message}"),
            details: details.clone(),
        }
    }

    /// The same, with a code of its own.
    pub(crate) fn named(self, code: &'static str, retry_after: Option<Duration>) -> Self {
        Self { named: Some((code, retry_after)), ..self }
    }

    /// What is wrong one by one, where that is more than the message.
    pub(crate) fn details(&self) -> &[String] {
        &self.details
    }

    /// For errors of what the user gave us.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// For everything that has no code of its own.
    pub(crate) fn other(message: impl fmt::Display) -> Self {
        Self::new(Exit::Other, message)
    }

    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// The failure for programs, in one line.
    pub(crate) fn to_json(&self) -> String {
        let (named, retry_after) = self.named.map_or((None, None), |(code, retry)| (Some(code), retry));
        let told = Told {
            code: self.refused.map(ErrorCode::name).or(named).unwrap_or(self.exit.name()),
            message: &self.message,
            details: &self.details,
            exit: self.exit as u8,
            retry_after_ms: self.refused.and_then(ErrorCode::retry_after).or(retry_after).map(retry_after_ms),
            renewal_pending: match self.refused {
                Some(ErrorCode::QueueEmpty { renewal_pending, .. }) => Some(renewal_pending),
                _ => None,
            },
        };
        json!({ "error": told }).to_string()
    }
}

/// A failure as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    details: &'a [String],
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewal_pending: Option<bool>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<PrivateFileError> for Failure {
    fn from(error: PrivateFileError) -> Self {
        Self::usage(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::unavailable(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let exit = match &error {
            CallError::Argument(_) | CallError::Encode(_) => Exit::Usage,
            CallError::Refused(refusal) => exit_of(refusal.code()),
            CallError::NotSent(_) | CallError::TooManyInFlight => Exit::Unavailable,
            _ => Exit::Other,
        };
        let refused = match &error {
            CallError::Refused(refusal) => Some(refusal.code()),
            _ => None,
        };
        Self { refused, ..Self::new(exit, error) }
    }
}

/// How a command ends that a daemon refused so.
pub(crate) fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::PolicyDeny
        | ErrorCode::ApprovalRequired
        | ErrorCode::ApprovalDenied
        | ErrorCode::Suspended
        | ErrorCode::Revoked
        | ErrorCode::AuthorityRefused => Exit::Denied,
        ErrorCode::NoSession
        | ErrorCode::SessionFlushed
        | ErrorCode::NotRegistered
        | ErrorCode::ApprovalPending
        | ErrorCode::ApprovalExpired => Exit::Login,
        ErrorCode::InvalidArgument | ErrorCode::InvalidRequest | ErrorCode::MethodNotAllowed => Exit::Usage,
        ErrorCode::QueueEmpty { .. }
        | ErrorCode::Overloaded { .. }
        | ErrorCode::AuthorityUnreachable { .. }
        | ErrorCode::Unavailable => Exit::Unavailable,
        _ => Exit::Other,
    }
}
