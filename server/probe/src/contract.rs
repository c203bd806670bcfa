//! Words that every server uses of itself.

use core::fmt;
use core::net::SocketAddr;
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
