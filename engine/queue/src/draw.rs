//! Drawing: everything that hands out a token, or belongs to one that was drawn.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use event_listener::{Event, EventListener, Listener};
use obol_token::{ChannelKeys, SessionId};

use crate::error::DequeueError;
use crate::partition::Partition;
use crate::queue::Queue;
use crate::session::{Route, Session};
use crate::token::Token;

/// Which token to draw. A tool's name alone is enough where one session is in use and grants it for one audience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw<'a> {
    /// The tool.
    pub tool: &'a str,
    /// The resource server; needed only where the tool is granted for several.
    pub audience: Option<&'a str>,
    /// The session; the one provisioned last if not said.
    pub session: Option<SessionId>,
}

impl<'a> From<&'a str> for Draw<'a> {
    fn from(tool: &'a str) -> Self {
        Self { tool, audience: None, session: None }
    }
}

impl Queue {
    /// Hands out one token, once and for ever, without waiting for the disk.
    ///
    /// # Errors
    ///
    /// [`DequeueError`]; no token was used up.
    pub fn dequeue<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<Token, DequeueError> {
        self.find(&draw.into(), |session, partition| self.take(session, partition))
    }

    /// As [`Self::dequeue`], with a proof of possession where the tool's tokens ask for one and this queue makes it: an
    /// Ed25519 signature over the token and `arguments_hash`, the SHA-256 of the call's arguments in canonical form (RFC
    /// 8785). No proof comes where the session has no key for proofs: somebody else has it.
    ///
    /// # Errors
    ///
    /// As for [`dequeue`](Self::dequeue), and [`DequeueError::ProofNeeded`] where the hash is missing: without its proof
    /// the token would be lost.
    pub fn dequeue_proven<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        arguments_hash: Option<&[u8; 32]>,
    ) -> Result<(Token, Option<[u8; 64]>), DequeueError> {
        self.find(&draw.into(), |session, partition| {
            if arguments_hash.is_none() && partition.grant.pop_key.is_some() {
                return Err(DequeueError::ProofNeeded);
            }
            let token = self.take(session, partition)?;
            let proof = arguments_hash.and_then(|hash| token.prove(&partition.grant, hash));
            Ok((token, proof))
        })
    }

    /// Takes from where a draw leads.
    fn find<R>(
        &self,
        draw: &Draw<'_>,
        take: impl Fn(&Arc<Session>, &Arc<Partition>) -> Result<R, DequeueError>,
    ) -> Result<R, DequeueError> {
        self.shared.check()?;
        match self.with_partition(draw, &take) {
            // That a session has ended is found out by the first draw that gets nothing.
            Err(_) if draw.session.is_none() && self.shared.elect_if_over() => {
                self.with_partition(draw, &take)
            }
            taken => taken,
        }
    }

    /// As [`Self::dequeue`], but waits at most `patience` for a token to become ready.
    ///
    /// # Errors
    ///
    /// As for [`dequeue`](Self::dequeue): [`DequeueError::Empty`] where the time is over.
    pub fn dequeue_within<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        patience: Duration,
    ) -> Result<Token, DequeueError> {
        let draw = draw.into();
        wait_for_token(patience, || self.dequeue(draw), || self.watch(draw))
    }

    /// Something to wait on until tokens for this draw may have become ready: a future, and a blocking wait. It may
    /// also end for other reasons, such as a flush; draw again and see.
    ///
    /// # Errors
    ///
    /// As for [`dequeue`](Self::dequeue), but for an empty queue.
    pub fn watch<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<Ready, DequeueError> {
        self.with_partition(&draw.into(), |_, partition| Ok(Ready::new(&partition.available)))
    }

    /// Looks a tool up once, for many draws from it: what a draw costs then is little more than taking the token.
    ///
    /// # Errors
    ///
    /// As for [`dequeue`](Self::dequeue), but for an empty queue.
    pub fn tool<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<ToolHandle<'_>, DequeueError> {
        self.with_partition(&draw.into(), |session, partition| Ok(ToolHandle::new(self, session, partition)))
    }

    /// The keys to seal the request of a token that this draw gave, and to open its response; `None` for a token that does
    /// not ask for channel encryption, and for one of another format.
    ///
    /// # Errors
    ///
    /// [`DequeueError::SessionFlushed`] or [`DequeueError::NoSession`] where the session ended since the draw. The token
    /// must then not be used either.
    pub fn channel_keys<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        token: &Token,
    ) -> Result<Option<ChannelKeys>, DequeueError> {
        if !token.asks_for_channel() {
            return Ok(None);
        }
        let draw = draw.into();
        let current = self.shared.sessions.current.load();
        if let Some(session) = current.as_ref().filter(|session| session.id == token.session_id()) {
            return self.on_route(session, &draw, |_, partition| Ok(token.channel_keys(&partition.grant)));
        }
        // Another session was provisioned since.
        let draw = Draw { session: Some(token.session_id()), ..draw };
        self.with_partition(&draw, |_, partition| Ok(token.channel_keys(&partition.grant)))
    }

    /// The proof of [`dequeue_proven`](Self::dequeue_proven) for a token that this draw gave before. `None` where the tool's
    /// tokens ask for none, or the session has no key for proofs.
    ///
    /// # Errors
    ///
    /// [`DequeueError::SessionFlushed`] or [`DequeueError::NoSession`] where the session ended since the draw. The token
    /// must then not be used either.
    pub fn prove<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        token: &Token,
        arguments_hash: &[u8; 32],
    ) -> Result<Option<[u8; 64]>, DequeueError> {
        let draw = Draw { session: Some(token.session_id()), ..draw.into() };
        self.with_partition(&draw, |_, partition| Ok(token.prove(&partition.grant, arguments_hash)))
    }

    fn take(&self, session: &Session, partition: &Arc<Partition>) -> Result<Token, DequeueError> {
        if partition.is_denied() {
            return Err(DequeueError::PolicyDenied);
        }
        let Some((token, expires_at)) = partition.take(&self.shared.timeline) else {
            return Err(self.why_empty(session, partition));
        };
        if partition.wants_refill() {
            self.shared.work.refills.ask(partition);
        }
        Ok(Token::new(token, session.id, expires_at, partition.grant.asks_for_channel()))
    }

    #[cold]
    fn why_empty(&self, session: &Session, partition: &Arc<Partition>) -> DequeueError {
        if let Err(failed) = self.shared.check() {
            return failed.into();
        }
        if let Some(ended) = self.shared.why_ended(session) {
            return ended;
        }
        if !partition.can_mint(self.shared.timeline.look().now) {
            return DequeueError::SessionEnded(session.expires_at);
        }
        if partition.ask_refill() {
            self.shared.work.refills.ask(partition);
        }
        DequeueError::Empty { retry_after: partition.retry_after() }
    }

    fn with_partition<R>(
        &self,
        draw: &Draw<'_>,
        act: impl FnOnce(&Arc<Session>, &Arc<Partition>) -> Result<R, DequeueError>,
    ) -> Result<R, DequeueError> {
        match draw.session {
            None => {
                let current = self.shared.sessions.current.load();
                let session = current.as_ref().ok_or_else(|| self.shared.why_no_session())?;
                self.on_route(session, draw, act)
            }
            Some(id) => {
                let session =
                    self.shared.sessions.all.read().get(&id).cloned().ok_or(DequeueError::NoSession)?;
                self.on_route(&session, draw, act)
            }
        }
    }

    fn on_route<R>(
        &self,
        session: &Arc<Session>,
        draw: &Draw<'_>,
        act: impl FnOnce(&Arc<Session>, &Arc<Partition>) -> Result<R, DequeueError>,
    ) -> Result<R, DequeueError> {
        if session.is_active() {
            if let Some(lapsed) = self.shared.lapsed(session) {
                return Err(self.shared.why_ended(session).unwrap_or(lapsed));
            }
            match session.route(draw.tool, draw.audience) {
                Route::One(partition) => return act(session, partition),
                Route::Ambiguous(audiences) => return Err(DequeueError::AudienceNeeded(audiences)),
                Route::PerCall => return Err(DequeueError::ApprovalRequired),
                Route::NotGranted => {}
            }
        }
        // What was not granted is not said of a session that is gone.
        Err(self.shared.why_ended(session).unwrap_or(DequeueError::PolicyDenied))
    }
}

/// Draws until there is a token, or the time is over.
fn wait_for_token(
    patience: Duration,
    draw: impl Fn() -> Result<Token, DequeueError>,
    watch: impl Fn() -> Result<Ready, DequeueError>,
) -> Result<Token, DequeueError> {
    let first = draw();
    if !matches!(first, Err(DequeueError::Empty { .. })) {
        return first;
    }
    let deadline = Instant::now() + patience;
    loop {
        let ready = watch()?;
        // Drawn again after the watch began: a token that came in between is not missed.
        match draw() {
            Err(DequeueError::Empty { .. }) if Instant::now() < deadline => ready.wait_until(deadline),
            answer => return answer,
        };
    }
}

/// One tool of one session, to draw from again and again: [`Queue::tool`].
///
/// A draw through it is the same as one through the queue, with the same promises; it only skips finding the session
/// and the tool. It stays with the session it was made for: once that was flushed or its time is over every draw says
/// so, also where another session is the current one by then. Let go of it then: the keys of the session stay in memory
/// for as long as there are handles.
#[derive(Clone)]
pub struct ToolHandle<'q> {
    queue: &'q Queue,
    session: Arc<Session>,
    partition: Arc<Partition>,
}

impl<'q> ToolHandle<'q> {
    fn new(queue: &'q Queue, session: &Arc<Session>, partition: &Arc<Partition>) -> Self {
        Self { queue, session: Arc::clone(session), partition: Arc::clone(partition) }
    }

    /// As [`Queue::dequeue`].
    ///
    /// # Errors
    ///
    /// [`DequeueError`]; no token was used up.
    pub fn dequeue(&self) -> Result<Token, DequeueError> {
        self.queue.shared.check()?;
        if !self.session.is_active() {
            return Err(self.queue.shared.why_ended(&self.session).unwrap_or(DequeueError::SessionFlushed));
        }
        if let Some(lapsed) = self.queue.shared.lapsed(&self.session) {
            return Err(lapsed);
        }
        self.queue.take(&self.session, &self.partition)
    }

    /// As [`Queue::dequeue_within`].
    ///
    /// # Errors
    ///
    /// As for [`dequeue`](Self::dequeue): [`DequeueError::Empty`] where the time is over.
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

impl fmt::Debug for ToolHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolHandle")
            .field("session_id", &self.session.id)
            .field("name", &self.name())
            .field("audience", &self.audience())
            .finish_non_exhaustive()
    }
}

/// See [`Queue::watch`].
pub struct Ready(EventListener);

impl Ready {
    fn new(available: &Event) -> Self {
        Self(available.listen())
    }

    /// Blocks until tokens may be ready, or until `deadline`. Tells which.
    pub fn wait_until(self, deadline: Instant) -> bool {
        self.0.wait_deadline(deadline).is_some()
    }
}

impl Future for Ready {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}
