//! Why a call has no result, and what of it may have happened.

use core::fmt;

use obol_ipc::codec::ResponseError;
use obol_ipc::frame::EncodeError;
use obol_ipc::names::ValueError;
use obol_ipc::refusal::Refusal;

use crate::connect::{ConnectError, Lost};

/// Why a call has no result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// An argument is out of range. Nothing was sent.
    Argument(ValueError),
    /// The request does not fit a frame. Nothing was sent.
    Encode(EncodeError),
    /// There was no connection to send the request on. Nothing was sent; calling again is safe.
    NotSent(ConnectError),
    /// Too many requests of this client are waiting for an answer. Nothing was sent; calling again is safe.
    TooManyInFlight,
    /// The daemon refused the request.
    Refused(Refusal),
    /// A `dequeueToken` went out, at least in part, and no answer came. The daemon may have handed out a token, which
    /// is then lost. This client will not ask again on its own: calling again draws another token.
    MayHaveBeenHandedOut(Lost),
    /// Any other request went out, at least in part, and no answer came. The daemon may have carried it out.
    Unanswered(Lost),
}

impl CallError {
    /// Gives a lost answer its meaning where a token was asked for.
    pub(crate) fn of_a_dequeue(self) -> Self {
        match self {
            Self::Unanswered(lost) => Self::MayHaveBeenHandedOut(lost),
            other => other,
        }
    }

    pub(crate) fn mismatched(method: &str) -> Self {
        Self::Unanswered(Lost::Answer(ResponseError::new(format_args!("not an answer to {method}"))))
    }

    /// The daemon's refusal, if that is what this is.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::NotSent(error) => error.fmt(f),
            Self::TooManyInFlight => {
                f.write_str("too many requests wait for an answer on this connection; ask again later")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::MayHaveBeenHandedOut(lost) => write!(
                f,
                "{lost} after the request for a token was sent; the token may have been handed out and is lost. \
                 Asking again draws another"
            ),
            Self::Unanswered(lost) => {
                write!(
                    f,
                    "{lost} after the request was sent; it may have been carried out. Check before repeating it"
                )
            }
        }
    }
}

impl core::error::Error for CallError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Argument(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::NotSent(error) => Some(error),
            Self::Refused(refusal) => Some(refusal),
            Self::MayHaveBeenHandedOut(lost) | Self::Unanswered(lost) => Some(lost),
            Self::TooManyInFlight => None,
        }
    }
}
