//! Opening a connection: who owns the socket, who is at the other end, and the hello.
//!
//! A client that talked to whoever put a socket at the right path would hand its requests, and its trust in the
//! answers, to them. So both the owner of the socket and the user of the process behind it must be one whom the client
//! has a reason to trust: its own user, root, the user named for the endpoint, or the owner of a folder that only root
//! can have put there. The second check is the one that decides: nobody can forge what the kernel says of a peer.

mod link;
mod peer;

use core::fmt;
use core::time::Duration;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use obol_ipc::DAEMON_USER_VARIABLE;
use obol_ipc::codec::{Codec, ResponseError};
use obol_ipc::frame::FrameError;
use obol_ipc::hello::HelloError;
use obol_ipc::names::PeerName;
use obol_ipc::user::name_of;

pub(crate) use self::link::{Link, Unwritten};

/// How long to wait for a connection, for the hello, and for an answer beyond the time the request itself may wait.
/// A daemon on the same machine that is silent for this long is stuck.
const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that was connected tries to reach its daemon again, unless its answer timeout is shorter. Enough for
/// a restart.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The pause after the first attempt; each one after is twice as long.
const FIRST_RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_millis(320);

/// Attempts to reach a daemon that may be restarting. Nothing has been sent while they go on.
#[derive(Debug)]
pub(crate) struct Reconnect {
    pause: Duration,
    deadline: Instant,
}

impl Reconnect {
    pub(crate) fn new(options: &ConnectOptions) -> Self {
        let patience = options.patience().min(RECONNECT_PATIENCE);
        Self { pause: FIRST_RECONNECT_PAUSE, deadline: Instant::now() + patience }
    }

    /// How long to wait before the next attempt; `None` if this failure is the last.
    pub(crate) fn pause_after(&mut self, error: &ConnectError) -> Option<Duration> {
        if !error.may_pass() || Instant::now() >= self.deadline {
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_RECONNECT_PAUSE);
        Some(pause)
    }
}

/// How a client introduces itself and how patient it is.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Who is calling, for the daemon's log: `name/version`.
    pub client: PeerName,
    /// The codec to ask for.
    pub codec: Codec,
    /// How long to wait for a connection, for the hello, and for an answer beyond the time the request itself may
    /// wait. Between 1 millisecond and 1 hour; what is shorter or longer counts as that.
    pub answer_timeout: Duration,
}

impl ConnectOptions {
    /// Options for this client: codec `json`, an answer within ten seconds.
    pub const fn new(client: PeerName) -> Self {
        Self { client, codec: Codec::Json, answer_timeout: DEFAULT_ANSWER_TIMEOUT }
    }

    pub(crate) fn patience(&self) -> Duration {
        // Zero would mean no limit to the operating system, and the largest durations reach beyond its clock.
        self.answer_timeout.clamp(Duration::from_millis(1), Duration::from_secs(3_600))
    }
}

/// Why there is no connection. No request has been sent, so trying again is safe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no socket at the path.
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// There is a socket, but no process listens on it.
    NotListening {
        /// The path.
        path: PathBuf,
    },
    /// What is at the path is not a socket.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket belongs to another user. It was not connected to.
    ForeignSocket {
        /// The path.
        path: PathBuf,
        /// The user it belongs to.
        uid: u32,
    },
    /// The process behind the socket runs as another user. Nothing was said to it.
    ForeignPeer {
        /// The path.
        path: PathBuf,
        /// The user it runs as.
        uid: u32,
    },
    /// The system lets this user not connect.
    NotAllowed {
        /// The path.
        path: PathBuf,
        /// The user whom the socket, or else its folder, belongs to, if that could be seen.
        uid: Option<u32>,
    },
    /// The daemon did not accept the connection in time.
    NotAccepted {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    System {
        /// The path.
        path: PathBuf,
        /// Why.
        cause: Arc<io::Error>,
    },
    /// The daemon's hello never came.
    NoHello(Lost),
    /// The daemon's hello is not one to go on with.
    Hello(HelloError),
    /// The connection ended before anything of the request could be written.
    Closed(Arc<io::Error>),
}

impl ConnectError {
    /// Whether the daemon may just be restarting: another attempt a moment later can succeed.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NoSocket { .. }
                | Self::NotListening { .. }
                | Self::NoHello(Lost::Closed | Lost::System(_))
                | Self::Closed(_)
        )
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocket { path } => write!(
                f,
                "there is no socket at {}; start the daemon (`obol tqs`), or say where it listens with \
                 OBOL_ENDPOINT_SOCKET (the control socket: OBOL_CONTROL_SOCKET)",
                path.display()
            ),
            Self::NotListening { path } => {
                write!(f, "nothing listens on {}; start the daemon (`obol tqs`)", path.display())
            }
            Self::NotASocket { path } => {
                write!(f, "{} is not a socket; check where the daemon listens", path.display())
            }
            Self::ForeignSocket { path, uid } => write!(
                f,
                "the socket {} belongs to {}, neither this user nor root; if that is the daemon's user, say so with \
                 {DAEMON_USER_VARIABLE}={uid}",
                path.display(),
                name_of(*uid)
            ),
            Self::ForeignPeer { path, uid } => write!(
                f,
                "the process behind {} runs as {}, neither this user nor root; if that is the daemon's user, say so with \
                 {DAEMON_USER_VARIABLE}={uid}",
                path.display(),
                name_of(*uid)
            ),
            Self::NotAllowed { path, uid: Some(uid) } => write!(
                f,
                "this user may not connect to {}; it is for {} and for root",
                path.display(),
                name_of(*uid)
            ),
            Self::NotAllowed { path, uid: None } => {
                write!(
                    f,
                    "this user may not connect to {}; it is for the daemon's user and for root",
                    path.display()
                )
            }
            Self::NotAccepted { path } => write!(
                f,
                "the daemon did not accept the connection on {} in time; it is overloaded or stuck",
                path.display()
            ),
            Self::System { path, cause } => {
                write!(f, "cannot connect to {}: {cause}; check the path", path.display())
            }
            Self::NoHello(lost) => write!(f, "the daemon did not answer the hello: {lost}; check its log"),
            Self::Hello(error) => error.fmt(f),
            Self::Closed(cause) => {
                write!(
                    f,
                    "the daemon closed the connection before the request was written ({cause}); try again"
                )
            }
        }
    }
}

impl core::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::System { cause, .. } | Self::Closed(cause) => Some(&**cause),
            Self::NoHello(lost) => Some(lost),
            Self::Hello(error) => Some(error),
            _ => None,
        }
    }
}

/// How an answer that was waited for failed to come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Lost {
    /// The daemon closed the connection.
    Closed,
    /// Time ran out.
    TimedOut,
    /// The operating system reported an error.
    System(Arc<io::Error>),
    /// What came is not a frame.
    Frame(FrameError),
    /// What came is not an answer to the request.
    Answer(ResponseError),
}

impl Lost {
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            // What a socket with a timeout reports when it passes.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                Self::Closed
            }
            _ => Self::System(Arc::new(error)),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the daemon closed the connection"),
            Self::TimedOut => f.write_str("no answer came in time"),
            Self::System(cause) => write!(f, "the connection failed ({cause})"),
            Self::Frame(error) => error.fmt(f),
            Self::Answer(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Lost {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::System(cause) => Some(&**cause),
            Self::Frame(error) => Some(error),
            Self::Answer(error) => Some(error),
            Self::Closed | Self::TimedOut => None,
        }
    }
}
