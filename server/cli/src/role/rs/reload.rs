//! What is read again on SIGHUP and when the operator asks for it: the files of sessions, and the templates.

use std::path::PathBuf;
use std::sync::Arc;

use obol_verify::{Clock as _, SessionStore, SystemClock};
use parking_lot::Mutex;
use tokio::signal::unix::Signal;

use crate::exit::{Failure, Outcome};
use crate::role::stores;
use crate::role::templates::ServerTemplates;
use crate::sessions::files;

/// Where sessions and templates come from, and who takes them.
pub(crate) struct Reloader {
    pub(super) files: Vec<PathBuf>,
    pub(super) sessions: Arc<dyn SessionStore>,
    pub(super) templates: Arc<ServerTemplates>,
    pub(super) clock: Arc<SystemClock>,
    /// One reading at a time: an earlier one that comes last would bring an older list.
    pub(super) reading: Mutex<()>,
}

impl Reloader {
    /// Reads all files; how many sessions they list. One that is wrong changes nothing. Waits for the disk, and for the
    /// network where sessions are shared.
    pub(super) fn read_again(&self) -> Outcome<usize> {
        if self.files.is_empty() && !self.templates.are_in_a_file() {
            return Err(Failure::usage("there is no session file to read again"));
        }
        let _one_at_a_time = self.reading.lock();
        let halves = files::resource_halves(&self.files)?;
        let templates = self.templates.read()?;
        // Without files sessions come from elsewhere, and a list of none would end them.
        if !self.files.is_empty() {
            stores::import(&*self.sessions, &halves, self.clock.now())?;
        }
        self.templates.put(templates);
        let sessions = halves.len();
        tracing::info!(sessions, "sessions read again");
        Ok(sessions)
    }

    /// Reads them whenever asked to.
    pub(crate) async fn read_on(self: Arc<Self>, mut asked: Signal) {
        while asked.recv().await.is_some() {
            if let Err(failure) = tokio::task::block_in_place(|| self.read_again()) {
                tracing::error!(%failure, "the sessions and templates stay as they were");
            }
        }
    }
}
