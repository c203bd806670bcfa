//! The queue itself: what its callers and its threads share, and how it comes to its end.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::Unavailable;
use crate::jobs::{Job, Reply};
use crate::shared::Shared;

/// A durable queue of single-use tokens. Share it by reference or in an `Arc`; every method takes `&self`.
///
/// Dropping it waits for what is being written and gives up the tokens that were claimed and not handed out.
#[derive(Debug)]
pub struct Queue {
    pub(crate) shared: Arc<Shared>,
    pub(crate) refiller: Option<JoinHandle<()>>,
    pub(crate) writer: Option<JoinHandle<()>>,
    pub(crate) opener: Option<JoinHandle<()>>,
}

impl Queue {
    /// Whether the queue can do its work; the reason where it cannot.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], with the reason.
    pub fn health(&self) -> Result<(), Unavailable> {
        self.shared.check()
    }

    /// Waits until everything asked for so far is durable.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where something could not be written.
    pub fn sync(&self) -> Result<(), Unavailable> {
        self.write(|reply| Job::Barrier { reply })
    }

    /// Sends a job to the writer and waits for its answer.
    pub(crate) fn write(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), Unavailable> {
        let (reply, answer) = crossbeam::channel::bounded(1);
        let gone = || Unavailable("the writer has stopped".to_owned());
        self.shared.work.jobs.send(job(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(refiller) = self.refiller.take() {
            let _panicked = refiller.join();
        }
        let _gone = self.shared.work.jobs.send(Job::Stop);
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
        // The writer has let go of the claims, or never began; either way nothing more comes.
        if let Some(opener) = self.opener.take() {
            let _panicked = opener.join();
        }
    }
}
