//! How to be an agent.

use obol_atp::{Endpoint, Host};
use std::path::PathBuf;

/// How to be an agent. Each setting has a default but the folder.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) allow_private: Vec<Host>,
}

impl Options {
    /// With its state in this folder, which is made, closed to others, where it is not there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), ..Self::default() }
    }

    /// The secret is this file's text; else it comes from the environment.
    #[must_use]
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret_file = Some(path.into());
        self
    }

    /// Trusts the certificate authorities of this PEM file, and no others.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Further hosts that the plain secret of the environment may be used for.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.hosts = hosts.into_iter().collect();
        self
    }

    /// Endpoints that are used though they are not at the host whose document names them.
    #[must_use]
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Hosts that may be at addresses that are not public.
    #[must_use]
    pub fn allow_private(mut self, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.allow_private = hosts.into_iter().collect();
        self
    }
}
