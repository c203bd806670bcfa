//! Words that every server uses of itself.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::path::PathBuf;

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// An address and a port, as the system gave it.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Address and port, if it has one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// How a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "what was cut off did not get its answer"]
pub struct Ended {
    /// Connections that were still open when their time was over. The log has them too.
    pub cut_off: usize,
}

/// Why a server was not set up: one of its addresses is not to be had. Nothing that was there before was touched.
#[derive(Debug)]
pub struct BindError {
    address: Address,
    cause: BindCause,
}

/// What is wrong with an address.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindCause {
    /// Other machines can reach it, and nobody said that this is wanted. What follows from that, and what to do.
    Remote(&'static str),
    /// The system does not give it.
    Io(io::Error),
    /// Another process serves this socket.
    InUse,
    /// Something else than a socket stands in its place.
    NotASocket,
    /// The file beside the socket that keeps other servers away cannot be locked.
    Lock(Box<dyn Error + Send + Sync>),
    /// The socket's folder keeps out whom the socket is for, or is open to others, or belongs to somebody else.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Whether it is for others as well as for its owner.
        is_shared: bool,
        /// What puts it right.
        command: String,
    },
}

impl BindError {
    /// This address, for this reason.
    pub fn new(address: Address, cause: BindCause) -> Self {
        Self { address, cause }
    }

    /// This address, which other machines can reach. What follows from that, and what to do.
    pub fn remote(address: SocketAddr, advice: &'static str) -> Self {
        Self::new(Address::Tcp(address), BindCause::Remote(advice))
    }

    /// This address, which the system does not give.
    pub fn io(address: Address, error: io::Error) -> Self {
        Self::new(address, BindCause::Io(error))
    }

    /// The address that is not to be had.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What is wrong with it.
    pub fn cause(&self) -> &BindCause {
        &self.cause
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at: &dyn fmt::Display = match &self.address {
            Address::Tcp(address) => address,
            Address::Unix(path) => &path.display(),
        };
        match &self.cause {
            BindCause::Remote(advice) => write!(f, "{at} is not a loopback address: {advice}"),
            BindCause::Io(error) => write!(f, "cannot listen on {at}: {error}"),
            BindCause::InUse => {
                write!(f, "{at} is served by another process; stop that one, or name another socket")
            }
            BindCause::NotASocket => write!(f, "{at} is not a socket; move it away, or name another path"),
            BindCause::Lock(error) => write!(f, "cannot lock the socket {at}: {error}"),
            BindCause::Folder { folder, is_shared, command } => {
                let wanted = match is_shared {
                    true => "let the users through whom the socket is for, and nobody look in",
                    false => "be closed to others",
                };
                let and = if *is_shared { "," } else { " and" };
                let folder = folder.display();
                write!(
                    f,
                    "the folder {folder} must belong to you{and} {wanted}; run `{command}`, or name another"
                )
            }
        }
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            BindCause::Io(error) => Some(error),
            BindCause::Lock(error) => Some(&**error),
            _ => None,
        }
    }
}
