//! One error for each thing a caller can do.

use core::fmt;
use core::time::Duration;
use std::path::PathBuf;

use obol_secret::file::PrivateFileError;

use crate::store::Hold;

/// Why the queue cannot do its work any more. The text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unavailable(pub(crate) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token store failed and nothing will be handed out until a restart: {}", self.0)
    }
}

impl core::error::Error for Unavailable {}

/// Why a queue could not be opened. Nothing on disk was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreOpenError {
    /// A file or its folder could not be read, written or created.
    Io(PathBuf, std::io::Error),
    /// A file is not one of ours alone, or could not be opened or created.
    File(PrivateFileError),
    /// Another process has the store open.
    InUse(PathBuf),
    /// The file is something else than a token store.
    NotAStore(PathBuf),
    /// The store was written by another version of the format.
    Version {
        /// The file.
        path: PathBuf,
        /// The version it was written by.
        found: u32,
        /// The version this build reads.
        supported: u32,
    },
    /// The store is sealed under another master key.
    WrongMasterKey(PathBuf),
    /// The database and its key file do not belong together.
    Mismatch(PathBuf),
    /// Of the two files that are one store, one is missing or empty and the other is in use.
    HalfGone {
        /// The one that is missing or empty.
        gone: PathBuf,
        /// The one that is in use.
        left: PathBuf,
    },
    /// The store is damaged.
    Corrupted(PathBuf, String),
    /// The system's random number generator failed.
    Randomness,
}

/// What a new store in the place of an old one has forgotten, and what to do about it.
const FORGOTTEN: &str = "a new store knows neither what was flushed nor what is denied, so give it a session that is newer \
                         than any flush, and the policy again";

impl fmt::Display for StoreOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot use {}: {error}", path.display()),
            Self::File(error) => error.fmt(f),
            Self::InUse(path) => write!(
                f,
                "{} is open in another process; stop that one, or give this one a store of its own",
                path.display()
            ),
            Self::NotAStore(path) => write!(
                f,
                "{} is not a token store; name another path, or move the file away to start afresh",
                path.display()
            ),
            Self::Version { path, found, supported } => write!(
                f,
                "{} has format {found}, this build reads format {supported}; use the matching build, or move the \
                 database and its .keys file away to start afresh: {FORGOTTEN}",
                path.display()
            ),
            Self::WrongMasterKey(path) => write!(
                f,
                "{} is sealed under another master key; name the key file it was created with, or move the store \
                 away to start afresh: {FORGOTTEN}",
                path.display()
            ),
            Self::Mismatch(path) => write!(
                f,
                "{} and its .keys file do not belong together; put back the pair, or move both away to start afresh",
                path.display()
            ),
            Self::HalfGone { gone, left } => write!(
                f,
                "{} is missing or empty, but {} is in use, and the two are one store; put back the missing one, or \
                 move the other away too to start afresh: {FORGOTTEN}",
                gone.display(),
                left.display()
            ),
            Self::Corrupted(path, what) => write!(
                f,
                "{} is damaged ({what}); move it and its .keys file away to start afresh: {FORGOTTEN}",
                path.display()
            ),
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl core::error::Error for StoreOpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::File(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a session was not taken. The queue is as it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A session with this number is there already, or was flushed.
    Exists(obol_token::SessionId),
    /// The session's time is over, or so near its end that no token could be handed out.
    Expired,
    /// An operator flushed a session and has not let new ones in since.
    Held(Hold),
    /// A flush came in between; the session was taken and ended at once.
    Flushed(obol_token::SessionId),
    /// The queue holds as many sessions as it may.
    TooMany(usize),
    /// The store failed.
    Unavailable(Unavailable),
}

impl fmt::Display for ProvisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(id) => write!(
                f,
                "session {id} was provisioned before; a session number is used once, establish a new session"
            ),
            Self::Expired => f.write_str(
                "the session's expires_at is past, or too near for one token; establish a new session",
            ),
            Self::Held(hold) => write!(
                f,
                "no new session is taken since the flush of {} ({}); let sessions in again with `obol resume`",
                hold.scope, hold.reason
            ),
            Self::Flushed(id) => {
                write!(f, "a flush came in between and ended session {id}; establish a new session")
            }
            Self::TooMany(limit) => write!(f, "the queue already holds {limit} sessions; flush some first"),
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ProvisionError {}

impl From<Unavailable> for ProvisionError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

/// Why a human's yes was not noted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ApproveError {
    /// Its time is over.
    Expired,
    /// The current session does not grant the tool in that way.
    NotGranted,
    /// As many wait as may.
    TooMany,
}

impl fmt::Display for ApproveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("the approval is over; ask for another"),
            Self::NotGranted => f.write_str(
                "the current session does not grant this tool with a human's yes to each call; open a new one",
            ),
            Self::TooMany => f.write_str("too many approved calls wait for their tokens; draw those first"),
        }
    }
}

impl core::error::Error for ApproveError {}

/// Why no token was handed out. None was used up.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DequeueError {
    /// No token is ready at the moment. New ones were asked for, by this draw or by one before it.
    Empty {
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
    /// The session has no grant for the tool, or policy denies it.
    PolicyDenied,
    /// No session is provisioned.
    NoSession,
    /// The last session's time is over, or what is left of it is too short for a token; it ends at this time, in Unix
    /// seconds.
    SessionEnded(u64),
    /// The session's lease is over.
    Lapsed {
        /// For how many seconds the service that opened it was not heard; `None` where it was not since the start.
        unheard_secs: Option<u64>,
        /// The lease, in seconds.
        lease_secs: u64,
    },
    /// The session was ended by a flush.
    SessionFlushed,
    /// Sessions were ended by a flush, and new ones are not taken until an operator says so.
    Held,
    /// The tool is granted for several audiences and none was named.
    AudienceNeeded(Vec<String>),
    /// The tool is granted with a human's yes to each call: nothing is minted ahead for it.
    ApprovalRequired,
    /// No yes of this name waits for its token: it was used, or is over, or never came here.
    NotApproved,
    /// The tool's tokens are worth nothing without a proof of possession, and it was not said over which arguments.
    ProofNeeded,
    /// The store failed; nothing is handed out any more.
    Unavailable(Unavailable),
}

impl fmt::Display for DequeueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { retry_after } => {
                write!(f, "no token is ready; new ones are being minted, ask again in {retry_after:?}")
            }
            Self::PolicyDenied => f.write_str(
                "this session may not use the tool; check the tool's name, or have it granted and establish a new \
                 session",
            ),
            Self::ApprovalRequired => f.write_str(
                "a human says yes to each call of this tool; ask for an approval, and draw with its id",
            ),
            Self::NotApproved => f.write_str(
                "no approval of this id waits here: it was used, is over, or was flushed; ask for another",
            ),
            Self::ProofNeeded => f.write_str(
                "calls of this tool need a proof of possession; give the SHA-256 of their canonical arguments (RFC 8785)",
            ),
            Self::NoSession => f.write_str("no session is active; authenticate, or provision a session"),
            Self::SessionEnded(end) => write!(
                f,
                "the last session gives no more tokens: it ends at {end} (Unix seconds); authenticate \
                 again, or provision the next session"
            ),
            Self::Lapsed { unheard_secs: None, .. } => f.write_str(
                "the Authentication Service was not heard since the start, and nothing of its sessions is handed out \
                 before it is; see whether `obol authenticator` runs and reaches it",
            ),
            Self::Lapsed { unheard_secs: Some(unheard), lease_secs } => write!(
                f,
                "the Authentication Service was not heard for {unheard} s, and the session's lease is {lease_secs} s; \
                 nothing is handed out until it is heard again, see whether `obol authenticator` runs and reaches it"
            ),
            Self::SessionFlushed => {
                f.write_str("the session was ended by a flush; authenticate again to go on")
            }
            Self::Held => f.write_str(
                "an operator flushed the agent's sessions and takes no new ones; when they may come back, \
                 `obol resume` lets them in",
            ),
            Self::AudienceNeeded(audiences) => {
                write!(f, "the tool is granted for several audiences; name one of: {}", audiences.join(", "))
            }
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DequeueError {}

impl From<Unavailable> for DequeueError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}
