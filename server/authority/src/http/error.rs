//! Why the service was not set up.

use core::fmt;
use core::net::SocketAddr;
use std::io;

use obol_probe::health::LoopbackError;

/// Why the service was not set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// Without TLS only loopback is served.
    Remote(SocketAddr),
    /// The address for health and metrics cannot be taken.
    Loopback(LoopbackError),
    /// The address cannot be taken.
    Io(SocketAddr, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(address) => write!(
                f,
                "{address} can be reached by other machines, and without TLS it is not served; give a certificate and its key, \
                 or listen on 127.0.0.1"
            ),
            Self::Loopback(error) => error.fmt(f),
            Self::Io(address, error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl core::error::Error for BindError {}

impl From<LoopbackError> for BindError {
    fn from(error: LoopbackError) -> Self {
        Self::Loopback(error)
    }
}
