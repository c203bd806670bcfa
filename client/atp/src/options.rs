//! How to be an agent.

use core::str::FromStr;
use std::collections::HashMap;
use std::path::PathBuf;

use obol_atp::{AtpEndpoint, Host};

use crate::connect::Connector;
use crate::error::AtpError;
use crate::keychain::KeychainChoice;

/// How this agent is called.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum AgentIdMode {
    /// By host, user and machine: one name everywhere, as the protocol documents it.
    #[default]
    Machine,
    /// By the machine id as a key: another name for each provider.
    Keyed,
}

impl FromStr for AgentIdMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "machine" => Ok(Self::Machine),
            "keyed" => Ok(Self::Keyed),
            _ => Err("agent_id_mode is machine or keyed"),
        }
    }
}

/// How to be an agent. Each setting has a default but the folder.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) endpoints: Vec<AtpEndpoint>,
    pub(crate) allow_private: Vec<Host>,
    pub(crate) masters: HashMap<Host, PathBuf>,
    pub(crate) agent_id_mode: AgentIdMode,
    pub(crate) keychain: KeychainChoice,
}

impl Options {
    /// With its state in this folder, which is made, closed to others, where it is not there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), ..Self::default() }
    }

    /// Tells what is wrong with the certificate authorities that are named, without opening anything else.
    ///
    /// # Errors
    /// [`AtpError`], as [`Client::open`](crate::Client::open) would give it.
    pub fn check(&self) -> Result<(), AtpError> {
        Connector::new(self.ca_file.as_deref()).map(drop)
    }

    /// The secret is this file's text; else it comes from the environment.
    #[must_use]
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret_file = Some(path.into());
        self
    }

    /// The master credential for a host that offers no signed requests is this file's text. It is sent to that host alone.
    #[must_use]
    pub fn master(mut self, host: Host, path: impl Into<PathBuf>) -> Self {
        self.masters.insert(host, path.into());
        self
    }

    /// How this agent is called.
    #[must_use]
    pub fn agent_id_mode(mut self, mode: AgentIdMode) -> Self {
        self.agent_id_mode = mode;
        self
    }

    /// Where tokens are kept.
    #[must_use]
    pub fn keychain(mut self, choice: KeychainChoice) -> Self {
        self.keychain = choice;
        self
    }

    /// Trusts the certificate authorities of this PEM file, and no others.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Further hosts for which the secret from the environment may be used.
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.hosts = hosts.into_iter().collect();
        self
    }

    /// Endpoints to use even though they are not at the host whose document names them.
    #[must_use]
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = AtpEndpoint>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Hosts that may have addresses that are not public.
    #[must_use]
    pub fn allow_private(mut self, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.allow_private = hosts.into_iter().collect();
        self
    }
}
