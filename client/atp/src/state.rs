//! The agent's folder: its name, locks between processes, which host the plain secret belongs to, and what is to be kept fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use obol_atp::{AgentId, Host};
use obol_secret::file::{PrivateFile, create_folder};
use obol_secret::text::to_base64url;
use serde::{Deserialize, Serialize};

use crate::error::AtpError;
use crate::machine;

const AGENT_ID: &str = "agent-id";
const PLAIN_SECRET_HOST: &str = "plain-secret-host";
const HOSTS: &str = "hosts.json";
/// The longest of these files but the list of hosts, in bytes.
const MAX_FILE_BYTES: usize = 512;
const MAX_HOSTS_BYTES: usize = 1 << 20;
/// The most hosts that are kept fresh.
const MAX_HOSTS: usize = 1_000;

/// What is asked for again and again, at one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watched {
    pub(crate) scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) purpose: Option<String>,
}

/// What outlives the process.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hosts {
    /// Whose tokens are kept fresh.
    #[serde(default)]
    pub(crate) fresh: BTreeMap<String, Watched>,
    /// Where revocations did not get through yet.
    #[serde(default)]
    pub(crate) revocations: BTreeSet<String>,
}

impl Hosts {
    /// Whether there is anything to do at this host.
    pub(crate) fn has(&self, host: &str) -> bool {
        self.fresh.contains_key(host) || self.revocations.contains(host)
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct State(PathBuf);

impl State {
    /// Makes the folder, closed to others, where it is not there.
    pub(crate) fn open(folder: &Path) -> Result<Self, AtpError> {
        create_folder(folder)?;
        Ok(Self(folder.to_owned()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Computed once and kept, whatever the host is called later.
    pub(crate) fn agent_id(&self) -> Result<AgentId, AtpError> {
        self.kept_id(AGENT_ID, machine::generate_agent_id)
    }

    /// The name for one provider alone, computed once and kept.
    pub(crate) fn keyed_agent_id(&self, host: &Host) -> Result<AgentId, AtpError> {
        let name = format!("{AGENT_ID}-{}", to_base64url(host.to_string().as_bytes()));
        self.kept_id(&name, || machine::generate_keyed_agent_id(host))
    }

    fn kept_id(
        &self,
        name: &str,
        compute: impl FnOnce() -> Result<AgentId, AtpError>,
    ) -> Result<AgentId, AtpError> {
        let text = self.keep_first(name, || compute().map(|id| id.to_string()))?;
        AgentId::parse(&text).ok_or_else(|| {
            AtpError::System(format!("{} does not hold an agent id", self.path(name).display()))
        })
    }

    /// What is to be kept fresh, and what is still to be revoked.
    pub(crate) fn hosts(&self) -> Result<Hosts, AtpError> {
        let path = self.path(HOSTS);
        match PrivateFile::read(&path, MAX_HOSTS_BYTES) {
            Err(error) if error.is_missing() => Ok(Hosts::default()),
            read => obol_secret::json::parse(&read?)
                .map_err(|error| AtpError::System(format!("{}: {error}", path.display()))),
        }
    }

    /// Changes that list; of several processes one at a time.
    pub(crate) fn change_hosts(&self, change: impl Fn(&mut Hosts)) -> Result<(), AtpError> {
        let changed = || {
            let before = self.hosts()?;
            let mut after = before.clone();
            change(&mut after);
            Ok::<_, AtpError>((after != before).then_some(after))
        };
        // Nearly always there is nothing to change.
        if changed()?.is_none() {
            return Ok(());
        }
        let _between_processes = self.lock(HOSTS)?;
        let Some(after) = changed()? else { return Ok(()) };
        if after.fresh.len() > MAX_HOSTS {
            return Err(AtpError::Argument("tokens of 1,000 hosts are kept fresh already; revoke one first"));
        }
        let text = serde_json::to_vec(&after).map_err(|error| AtpError::System(error.to_string()))?;
        self.replace(HOSTS, &text)
    }

    /// A small file's text without white space around it; `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, AtpError> {
        match PrivateFile::read(self.path(name), MAX_FILE_BYTES) {
            Err(error) if error.is_missing() => Ok(None),
            read => Ok(Some(String::from_utf8_lossy(&read?).trim().to_owned())),
        }
    }

    /// The host that the plain secret belongs to: the first that it is used for.
    pub(crate) fn plain_secret_host(&self, host: &Host) -> Result<String, AtpError> {
        self.keep_first(PLAIN_SECRET_HOST, || Ok(host.to_string()))
    }

    /// What a file holds, or what it is given where it is not there. Of two processes that make it one wins.
    fn keep_first(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, AtpError>,
    ) -> Result<String, AtpError> {
        if let Some(found) = self.read(name)? {
            return Ok(found);
        }
        let _between_processes = self.lock(name)?;
        if let Some(found) = self.read(name)? {
            return Ok(found);
        }
        let text = make()?;
        self.replace(name, format!("{text}\n").as_bytes())?;
        Ok(text)
    }

    /// Puts a file in another's place, whole or not at all.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), AtpError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| AtpError::System(error.to_string()))?;
        let next = self.path(&format!("{name}.{}", obol_secret::text::to_hex(&random)));
        let mut file = PrivateFile::create(&next)?.into_file();
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&next, self.path(name))?;
        Ok(())
    }

    /// Waits until no other process holds this lock. It ends when what is returned is dropped, or the process ends.
    pub(crate) fn lock(&self, name: &str) -> Result<File, AtpError> {
        let file = PrivateFile::open(self.path(&format!("{name}.lock")))?.into_file();
        file.lock()?;
        Ok(file)
    }
}
