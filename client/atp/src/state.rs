//! The agent's folder: its name, locks between processes, and which host the plain secret belongs to.

use obol_atp::{AgentId, Host};
use obol_secret::file::PrivateFile;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::AtpError;
use crate::machine;

const AGENT_ID: &str = "agent-id";
const PLAIN_SECRET_HOST: &str = "plain-secret-host";
/// The longest of these files, in bytes.
const MAX_FILE_BYTES: usize = 512;

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct State(PathBuf);

impl State {
    /// Makes the folder, closed to others, where it is not there.
    pub(crate) fn open(folder: &Path) -> Result<Self, AtpError> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self(folder.to_owned()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Computed once and kept, whatever the host is called later.
    pub(crate) fn agent_id(&self) -> Result<AgentId, AtpError> {
        let text = self.keep_first(AGENT_ID, || machine::compute_agent_id().map(|id| id.to_string()))?;
        AgentId::parse(&text).ok_or_else(|| {
            AtpError::System(format!("{} does not hold an agent id", self.path(AGENT_ID).display()))
        })
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
        let path = self.path(name);
        let read = || {
            PrivateFile::read(&path, MAX_FILE_BYTES)
                .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        };
        match read() {
            Err(error) if error.is_missing() => {}
            found => return Ok(found?),
        }
        let _between_processes = self.lock(name)?;
        match read() {
            Err(error) if error.is_missing() => {}
            found => return Ok(found?),
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
