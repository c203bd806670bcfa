//! Why the service was not set up.

use core::fmt;
use std::io;
use std::net::SocketAddr;

/// Why the service was not set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// Without TLS only loopback is served.
    Remote(SocketAddr),
    /// Probes are served on loopback alone.
    Probes(SocketAddr),
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
            Self::Probes(address) => {
                write!(
                    f,
                    "{address} can be reached by other machines; health and metrics are for loopback alone"
                )
            }
            Self::Io(address, error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl core::error::Error for BindError {}
