//! The file of sessions: read again on SIGHUP and when the operator asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use obol_verify::{Clock as _, SessionStore, SystemClock, read_session_halves};
use parking_lot::Mutex;
use tokio::signal::unix::Signal;

use crate::exit::{Failure, Outcome};
use crate::stores;

/// The file, and the table that takes what it lists.
pub(super) struct SessionsFile {
    path: Option<PathBuf>,
    sessions: Arc<dyn SessionStore>,
    clock: Arc<SystemClock>,
    /// One reading at a time: an earlier one that comes last would bring an older list.
    reading: Mutex<()>,
}

impl SessionsFile {
    pub(super) fn new(
        path: Option<PathBuf>,
        sessions: Arc<dyn SessionStore>,
        clock: Arc<SystemClock>,
    ) -> Self {
        Self { path, sessions, clock, reading: Mutex::new(()) }
    }

    /// Reads the file; how many sessions it lists. One that is wrong changes nothing. Waits for the disk, and for the
    /// network where sessions are shared.
    pub(super) fn read_again(&self) -> Outcome<usize> {
        let Some(path) = &self.path else {
            return Err(Failure::usage("there is no file of sessions to read again"));
        };
        let _one_at_a_time = self.reading.lock();
        let halves = read_session_halves(path).map_err(Failure::usage)?;
        stores::import(&*self.sessions, &halves, self.clock.now())?;
        let sessions = halves.len();
        tracing::info!(sessions, "sessions read again");
        Ok(sessions)
    }

    /// Reads the file whenever asked to.
    pub(super) async fn read_on(self: Arc<Self>, mut asked: Signal) {
        while asked.recv().await.is_some() {
            if let Err(failure) = tokio::task::block_in_place(|| self.read_again()) {
                tracing::error!(%failure, "the sessions stay as they were");
            }
        }
    }
}
