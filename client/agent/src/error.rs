//! Why a call has no result: a code that programs go by, and a line that says what to do.

use core::fmt;
use core::time::Duration;

use obol_client::{CallError, ConnectError, Lost};
use obol_ipc::hello::HelloError;
use obol_ipc::refusal::Refusal;

macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal; )+) => {
        /// What went wrong. The names are the same in every language.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Code { $( $(#[$doc])* $variant, )+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }
    };
}

codes! {
    /// No token was ready in time.
    QueueEmpty = "QUEUE_EMPTY";
    /// The session has no grant for the tool, or policy denies it.
    PolicyDeny = "POLICY_DENY";
    /// A human says yes to each call of the tool, and nobody was asked.
    ApprovalRequired = "APPROVAL_REQUIRED";
    /// There is no session.
    NoSession = "NO_SESSION";
    /// A flush ended the session.
    SessionFlushed = "SESSION_FLUSHED";
    /// Too much at once.
    Overloaded = "OVERLOADED";
    /// A daemon's store failed, or it is stopping.
    Unavailable = "UNAVAILABLE";
    /// The daemon does not know the method: it is older than this library.
    MethodNotAllowed = "METHOD_NOT_ALLOWED";
    /// The agent is not registered.
    NotRegistered = "NOT_REGISTERED";
    /// A human has yet to decide: about the agent, or about the call.
    ApprovalPending = "APPROVAL_PENDING";
    /// A human said no: to the agent, or to the call.
    ApprovalDenied = "APPROVAL_DENIED";
    /// The human's approval is over.
    ApprovalExpired = "APPROVAL_EXPIRED";
    /// The service ended the agent until somebody enables it.
    Suspended = "SUSPENDED";
    /// The service ended the agent's key for good.
    Revoked = "REVOKED";
    /// The Authentication Service does not answer.
    AuthorityUnreachable = "AUTHORITY_UNREACHABLE";
    /// The Authentication Service refused.
    AuthorityRefused = "AUTHORITY_REFUSED";
    /// The clocks of this machine and of the service are too far apart.
    ClockSkew = "CLOCK_SKEW";
    /// An argument is missing, unknown or out of range. Nothing was sent.
    InvalidArgument = "INVALID_ARGUMENT";
    /// The daemon does not serve this user.
    UserNotServed = "USER_NOT_SERVED";
    /// The daemon speaks another version.
    UnsupportedVersion = "UNSUPPORTED_VERSION";
    /// The daemon could not read the hello.
    MalformedHello = "MALFORMED_HELLO";
    /// The daemon does not speak JSON.
    UnknownCodec = "UNKNOWN_CODEC";
    /// The client's name is not one.
    InvalidClientName = "INVALID_CLIENT_NAME";
    /// The session names no such destination, or not for this tool. Nothing was drawn.
    UnknownDestination = "UNKNOWN_DESTINATION";
    /// Several tools are granted there. Nothing was drawn.
    ToolRequired = "TOOL_REQUIRED";
    /// The answer leads to where the token must not follow. What the request asked for may have been done.
    RedirectRefused = "REDIRECT_REFUSED";
    /// Sent, and no whole answer: it may have been carried out.
    OutcomeUnknown = "OUTCOME_UNKNOWN";
    /// The server could not be connected to. Nothing was sent.
    Unreachable = "UNREACHABLE";
    /// The time was over, and nothing was carried out that changes anything.
    Timeout = "TIMEOUT";
    /// Somebody else spent the token.
    TokenStolen = "TOKEN_STOLEN";
    /// The answer was not sealed, or does not open.
    ChannelFailed = "CHANNEL_FAILED";
    /// What seals bodies is not there. Never in Rust.
    ChannelUnsupported = "CHANNEL_UNSUPPORTED";
    /// Nobody decided in time: about the registration, or about the call.
    Expired = "EXPIRED";
    /// Nobody listens on the daemon's socket.
    DaemonUnreachable = "DAEMON_UNREACHABLE";
    /// The socket, or the process behind it, is another user's.
    UntrustedDaemon = "UNTRUSTED_DAEMON";
    /// The daemon's answer makes no sense.
    ProtocolError = "PROTOCOL_ERROR";
    /// The agent was closed. Never in Rust.
    Closed = "CLOSED";
}

impl Code {
    fn of(name: &str) -> Self {
        Self::ALL.iter().copied().find(|code| code.as_str() == name).unwrap_or(Self::ProtocolError)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call has no result. Nothing of a token is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    code: Code,
    message: String,
    retry_after: Option<Duration>,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// What went wrong.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What is wrong and what to do, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When asking again makes sense, where that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl core::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: Code::of(refusal.code().name()),
            message: refusal.message().to_owned(),
            retry_after: refusal.code().retry_after(),
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let code = match &error {
            ConnectError::ForeignSocket { .. }
            | ConnectError::ForeignPeer { .. }
            | ConnectError::NotASocket { .. }
            | ConnectError::NotAllowed { .. } => Code::UntrustedDaemon,
            ConnectError::Hello(HelloError::Refused { code, .. }) => Code::of(code),
            ConnectError::Hello(_) | ConnectError::NoHello(Lost::Frame(_) | Lost::Answer(_)) => {
                Code::ProtocolError
            }
            _ => Code::DaemonUnreachable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Refused(refusal) => return refusal.into(),
            CallError::NotSent(error) => return error.into(),
            CallError::MayHaveBeenHandedOut(Lost::Frame(_) | Lost::Answer(_))
            | CallError::Unanswered(Lost::Frame(_) | Lost::Answer(_)) => Code::ProtocolError,
            CallError::MayHaveBeenHandedOut(_) => Code::OutcomeUnknown,
            CallError::Argument(_) | CallError::Encode(_) => Code::InvalidArgument,
            CallError::TooManyInFlight => Code::Overloaded,
            // Whatever else was asked for can be asked for again.
            _ => Code::DaemonUnreachable,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_ipc::refusal::ErrorCode;

    #[test]
    fn every_code_of_the_sockets_has_its_own_here() {
        for code in ErrorCode::ALL {
            let error = Error::from(Refusal::new(code, "why"));
            assert_eq!((error.code().as_str(), error.message()), (code.name(), "why"));
        }
    }

    #[test]
    fn the_codes_are_those_of_every_language() {
        #[derive(serde::Deserialize)]
        struct Listed {
            code: String,
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/sdk/errors.json");
        let listed: Vec<Listed> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let listed: Vec<_> = listed.iter().map(|listed| listed.code.as_str()).collect();
        let own: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(own, listed);
    }
}
