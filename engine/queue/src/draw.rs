//! One tool of one session, looked up once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use obol_token::SessionId;

use crate::batch::Token;
use crate::error::DequeueError;
use crate::partition::Partition;
use crate::queue::{Queue, Ready, wait_for_token};
use crate::shared::Session;

/// One tool of one session, to draw from again and again: [`Queue::tool`].
///
/// A draw through it is the same as one through the queue, with the same promises; it only skips finding the session
/// and the tool. It stays with the session it was made for: once that was flushed or its time is over every draw says
/// so, also where another session is the current one by then. Let go of it then: the keys of the session stay in memory
/// for as long as there are handles.
#[derive(Clone)]
pub struct Tool<'q> {
    queue: &'q Queue,
    session: Arc<Session>,
    partition: Arc<Partition>,
}

impl<'q> Tool<'q> {
    pub(crate) fn new(queue: &'q Queue, session: &Arc<Session>, partition: &Arc<Partition>) -> Self {
        Self { queue, session: Arc::clone(session), partition: Arc::clone(partition) }
    }

    /// As [`Queue::dequeue`].
    pub fn dequeue(&self) -> Result<Token, DequeueError> {
        self.queue.shared.check()?;
        if !self.session.is_active() {
            return Err(self.queue.shared.why_ended(&self.session).unwrap_or(DequeueError::SessionFlushed));
        }
        self.queue.take(&self.session, &self.partition)
    }

    /// As [`Queue::dequeue_within`].
    pub fn dequeue_within(&self, patience: Duration) -> Result<Token, DequeueError> {
        wait_for_token(patience, || self.dequeue(), || Ok(self.watch()))
    }

    /// As [`Queue::watch`].
    pub fn watch(&self) -> Ready {
        Ready::new(&self.partition.available)
    }

    /// The session it draws from.
    pub fn session_id(&self) -> SessionId {
        self.session.id
    }

    /// The tool's name.
    pub fn name(&self) -> &str {
        self.partition.tool()
    }

    /// The resource server the tokens are for.
    pub fn audience(&self) -> &str {
        self.partition.audience()
    }
}

impl fmt::Debug for Tool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool")
            .field("session_id", &self.session.id)
            .field("name", &self.name())
            .field("audience", &self.audience())
            .finish_non_exhaustive()
    }
}
