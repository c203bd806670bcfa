//! The queue as its users see it.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener, Listener};
use obol_session::clock::{Clock, SystemClock};
use obol_token::{SessionId, Suite};
use redb::StorageBackend;

use crate::batch::Token;

use crate::demand::Limits;
use crate::error::{DequeueError, OpenError, Unavailable};
use crate::handle::Tool;
use crate::master_key::MasterKey;
use crate::partition::Partition;
use crate::recover::{self, Files};
use crate::refiller::Refiller;
use crate::shared::{Route, Session, SessionState, Settings, Shared};
use crate::source::{Tbac, TokenSource};
use crate::writer::Job;

/// A durable queue of single-use tokens. Share it by reference or in an `Arc`; every method takes `&self`.
///
/// Dropping it waits for what is being written and gives up the tokens that were claimed and not handed out.
#[derive(Debug)]
pub struct Queue {
    pub(crate) shared: Arc<Shared>,
    refiller: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    opener: Option<JoinHandle<()>>,
}

/// How a queue is opened.
#[derive(Debug)]
pub struct QueueBuilder {
    settings: Settings,
    clock: Box<dyn Clock>,
    source: Box<dyn TokenSource>,
}

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

/// What waits for a tool, or for all tools of the current session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Tokens waiting, in memory and on disk.
    pub queue_depth: u64,
    /// Seconds left of the next token; 0 if none is ready. Exact to within one batch.
    pub ttl: u64,
    /// Whether the current session is active.
    pub session_active: bool,
    /// Whether tokens are being minted or fetched from disk, or will be once minting is tried again after a failure.
    pub renewal_pending: bool,
    /// Where a renewal is pending: when it makes sense to ask again. Long, up to 45 s, where minting fails; the longest of
    /// all tools where none was named.
    pub retry_after: Option<Duration>,
}

/// What identifies a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its number.
    pub session_id: SessionId,
    /// The agent it was established for; empty once flushed.
    pub agent_instance_id: String,
    /// When it was established, in Unix seconds.
    pub established_at: u64,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// The negotiated suite.
    pub suite: Suite,
    /// What can be had from it.
    pub state: SessionState,
}

/// Numbers about one tool in one session, for one audience.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolStatus {
    /// The session.
    pub session_id: SessionId,
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub audience: String,
    /// Tokens in memory, ready to be handed out.
    pub ready: u64,
    /// Tokens on disk.
    pub stored: u64,
    /// Tokens minted since the queue was opened.
    pub minted: u64,
    /// Tokens handed out since the queue was opened.
    pub handed_out: u64,
    /// Tokens that became too old while they waited, since the queue was opened.
    pub expired: u64,
    /// Tokens given up for other reasons, such as a flush, since the queue was opened.
    pub discarded: u64,
    /// Whether tokens are being minted or fetched from disk, or will be once minting is tried again after a failure.
    pub renewal_pending: bool,
    /// Where a renewal is pending: when it makes sense to ask again.
    pub retry_after: Option<Duration>,
    /// Whether policy denies the tool.
    pub denied: bool,
    /// Seconds left of the next token; 0 if none is ready. Exact to within one batch.
    pub ttl: u64,
}

impl Queue {
    /// Opens a store with default settings, or creates it: the database at `path` and its key file at `path.keys`.
    pub fn open(path: impl Into<PathBuf>, master_key: MasterKey) -> Result<Self, OpenError> {
        Self::builder().open(path, master_key)
    }

    /// Settings to open a store with.
    pub fn builder() -> QueueBuilder {
        QueueBuilder::default()
    }

    /// Hands out one token, once and for ever, without waiting for the disk.
    pub fn dequeue<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<Token, DequeueError> {
        let draw = draw.into();
        self.shared.check()?;
        let take = || self.with_partition(&draw, |session, partition| self.take(session, partition));
        match take() {
            // That a session has ended is found out by the first draw that gets nothing.
            Err(_) if draw.session.is_none() && self.shared.elect_if_over() => take(),
            drawn => drawn,
        }
    }

    /// As [`Self::dequeue`], but waits at most `patience` for a token to become ready.
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
    pub fn watch<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<Ready, DequeueError> {
        self.with_partition(&draw.into(), |_, partition| Ok(Ready::new(&partition.available)))
    }

    /// Looks a tool up once, for many draws from it: what a draw costs then is little more than taking the token.
    pub fn tool<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<Tool<'_>, DequeueError> {
        self.with_partition(&draw.into(), |session, partition| Ok(Tool::new(self, session, partition)))
    }

    pub(crate) fn take(&self, session: &Session, partition: &Arc<Partition>) -> Result<Token, DequeueError> {
        if partition.is_denied() {
            return Err(DequeueError::PolicyDenied);
        }
        let Some((token, expires_at)) = partition.take(&self.shared.timeline) else {
            return Err(self.why_empty(session, partition));
        };
        if partition.wants_refill() {
            self.shared.refills.ask(partition);
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
            self.shared.refills.ask(partition);
        }
        DequeueError::Empty {
            renewal_pending: partition.renewal().is_some(),
            retry_after: partition.retry_after(),
        }
    }

    pub(crate) fn with_partition<R>(
        &self,
        draw: &Draw<'_>,
        act: impl FnOnce(&Arc<Session>, &Arc<Partition>) -> Result<R, DequeueError>,
    ) -> Result<R, DequeueError> {
        match draw.session {
            None => {
                let current = self.shared.current.load();
                let session = current.as_ref().ok_or_else(|| self.shared.why_no_session())?;
                self.on_route(session, draw, act)
            }
            Some(id) => {
                let session = self.shared.sessions.read().get(&id).cloned().ok_or(DequeueError::NoSession)?;
                self.on_route(&session, draw, act)
            }
        }
    }

    pub(crate) fn on_route<R>(
        &self,
        session: &Arc<Session>,
        draw: &Draw<'_>,
        act: impl FnOnce(&Arc<Session>, &Arc<Partition>) -> Result<R, DequeueError>,
    ) -> Result<R, DequeueError> {
        if session.is_active() {
            match session.route(draw.tool, draw.audience) {
                Route::One(partition) => return act(session, partition),
                Route::Ambiguous(audiences) => return Err(DequeueError::AudienceNeeded(audiences)),
                Route::NotGranted => {}
            }
        }
        // What was not granted is not said of a session that is no more.
        Err(self.shared.why_ended(session).unwrap_or(DequeueError::PolicyDenied))
    }

    /// What waits for one tool of the current session, or for all of them.
    pub fn status(&self, tool: Option<&str>) -> Result<Status, DequeueError> {
        self.shared.check()?;
        self.shared.elect_if_over();
        let Some(session) = self.shared.current.load_full() else {
            return Ok(Status {
                queue_depth: 0,
                ttl: 0,
                session_active: false,
                renewal_pending: false,
                retry_after: None,
            });
        };
        let now = self.shared.timeline.look().now;
        let mut partitions = session
            .partitions
            .iter()
            .filter(|partition| tool.is_none_or(|tool| partition.tool() == tool))
            .peekable();
        if tool.is_some() && self.shared.why_ended(&session).is_none() && partitions.peek().is_none() {
            return Err(DequeueError::PolicyDenied);
        }
        let none = Status {
            queue_depth: 0,
            ttl: 0,
            session_active: self.shared.why_ended(&session).is_none(),
            renewal_pending: false,
            retry_after: None,
        };
        Ok(partitions.fold(none, |sum, partition| {
            let renewal = partition.renewal();
            Status {
                queue_depth: sum.queue_depth + partition.depth(),
                ttl: sum.ttl.max(partition.life_left(now)),
                renewal_pending: sum.renewal_pending || renewal.is_some(),
                retry_after: sum.retry_after.max(renewal),
                ..sum
            }
        }))
    }

    /// How many tokens wait for each tool of the current session; a tool with several audiences comes several times.
    pub fn depths(&self) -> Vec<(String, u64)> {
        let current = self.shared.current.load();
        let partitions = current.iter().flat_map(|session| &session.partitions);
        partitions.map(|partition| (partition.tool().to_owned(), partition.depth())).collect()
    }

    /// The session that draws without a session number use, and that gives tokens; or why there is none.
    pub fn session_info(&self) -> Result<SessionInfo, DequeueError> {
        self.shared.check()?;
        self.shared.elect_if_over();
        let current = self.shared.current.load();
        let session = current.as_deref().ok_or_else(|| self.shared.why_no_session())?;
        match self.shared.why_ended(session) {
            None => Ok(info(session, SessionState::Active)),
            Some(ended) => Err(ended),
        }
    }

    /// All sessions the queue knows, oldest first.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let (now, sessions) = (self.shared.timeline.look().now, self.shared.by_age());
        let states = self.shared.states(&sessions, now);
        sessions.iter().zip(states).map(|(session, state)| info(session, state)).collect()
    }

    /// When nothing can be handed out any more unless another session comes, in Unix seconds: the latest end of the
    /// sessions that can be drawn from or, where there are none, the end of the last. `None` if there never was any.
    pub fn last_end(&self) -> Option<u64> {
        let open = self.sessions().into_iter().filter(|session| session.state == SessionState::Active);
        let ended = self.shared.last_end.load(Ordering::SeqCst);
        open.map(|session| session.expires_at).max().or_else(|| Some(ended).filter(|end| *end > 0))
    }

    /// Numbers about every tool of every session.
    pub fn tools(&self) -> Vec<ToolStatus> {
        let mut tools = Vec::new();
        let now = self.shared.timeline.look().now;
        self.shared.for_each_partition(|partition| tools.push(tool_status(partition, now)));
        tools.sort_by(|a, b| (a.session_id, &a.tool, &a.audience).cmp(&(b.session_id, &b.tool, &b.audience)));
        tools
    }

    /// Whether the queue can do its work; the reason where it cannot.
    pub fn health(&self) -> Result<(), Unavailable> {
        self.shared.check()
    }

    /// Waits until everything asked for so far is durable.
    pub fn sync(&self) -> Result<(), Unavailable> {
        self.write(|reply| Job::Barrier { reply })
    }

    /// Sends a job to the writer and waits for its answer.
    pub(crate) fn write(&self, job: impl FnOnce(crate::writer::Reply) -> Job) -> Result<(), Unavailable> {
        let (reply, answer) = crossbeam::channel::bounded(1);
        let gone = || Unavailable("the writer has stopped".to_owned());
        self.shared.jobs.send(job(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

/// Draws until there is a token, or the time is over.
pub(crate) fn wait_for_token(
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

fn info(session: &Session, state: SessionState) -> SessionInfo {
    SessionInfo {
        session_id: session.id,
        agent_instance_id: session.agent_instance_id.clone(),
        established_at: session.established_at,
        expires_at: session.expires_at,
        suite: session.suite,
        state,
    }
}

fn tool_status(partition: &Partition, now: u64) -> ToolStatus {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (handed_out, expired, discarded) = partition.used();
    let renewal = partition.renewal();
    ToolStatus {
        session_id: partition.session_id,
        tool: partition.tool().to_owned(),
        audience: partition.audience().to_owned(),
        ready: partition.ready_len() as u64,
        stored: read(&partition.count.stored),
        minted: read(&partition.count.minted),
        handed_out,
        expired,
        discarded,
        renewal_pending: renewal.is_some(),
        retry_after: renewal,
        denied: partition.is_denied(),
        ttl: partition.life_left(now),
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(refiller) = self.refiller.take() {
            let _panicked = refiller.join();
        }
        let _gone = self.shared.jobs.send(Job::Stop);
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
        // The writer has let go of the claims, or never began; either way nothing more comes.
        if let Some(opener) = self.opener.take() {
            let _panicked = opener.join();
        }
    }
}

impl Default for QueueBuilder {
    fn default() -> Self {
        Self {
            settings: Settings {
                limits: Limits { batch: 10, max_batch: 64, max_ready: 256, max_depth: 10_000 },
                min_life: 5,
                max_sessions: 10_000,
            },
            clock: Box::new(SystemClock),
            source: Box::new(Tbac),
        }
    }
}

impl QueueBuilder {
    /// Tokens in a batch under little load; more load makes larger batches, and a tool that is seldom used gets smaller
    /// ones. 10 if not said, at least 1, and no more than half of [`Self::max_ready`].
    #[must_use]
    pub fn batch(mut self, tokens: u16) -> Self {
        self.settings.limits.batch = tokens.max(1);
        self.settings.limits.max_batch = self.settings.limits.max_batch.max(tokens);
        self
    }

    /// How many tokens are kept in memory for one tool at the most. 256 if not said. That is also what a crash can cost.
    #[must_use]
    pub fn max_ready(mut self, tokens: usize) -> Self {
        self.settings.limits.max_ready = tokens.max(1);
        self
    }

    /// The most tokens kept for one tool, in memory and on disk. 10,000 if not said.
    #[must_use]
    pub fn max_depth(mut self, tokens: usize) -> Self {
        self.settings.limits.max_depth = tokens.max(1);
        self
    }

    /// The least life a token has left when it is handed out. 5 s if not said, and never more than a quarter of the
    /// tool's ttl.
    #[must_use]
    pub fn min_life(mut self, life: Duration) -> Self {
        self.settings.min_life = life.as_secs();
        self
    }

    /// The most sessions, flushed ones whose time is not over included. 10,000 if not said.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.settings.max_sessions = sessions.max(1);
        self
    }

    /// Another maker of tokens than TBAC's, for tokens of another format. Sessions and their grants say for which tools,
    /// as before; what the document says about keys is then nobody's.
    #[must_use]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.source = Box::new(source);
        self
    }

    /// Another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Opens a store, or creates it: the database at `path` and its key file at `path.keys`, both with mode 0600, in
    /// a folder that exists.
    pub fn open(self, path: impl Into<PathBuf>, master_key: MasterKey) -> Result<Queue, OpenError> {
        let files = Files::open(&path.into())?;
        self.start(files, master_key)
    }

    /// As [`Self::open`], on storage of the caller's own, as tests that inject faults need it.
    pub fn open_with(
        self,
        database: impl StorageBackend,
        keys: impl StorageBackend,
        master_key: MasterKey,
    ) -> Result<Queue, OpenError> {
        let files =
            Files { path: PathBuf::from("(storage)"), database: Box::new(database), keys: Box::new(keys) };
        self.start(files, master_key)
    }

    fn start(self, files: Files, master_key: MasterKey) -> Result<Queue, OpenError> {
        let path = files.path.clone();
        let opened = recover::open(files, master_key, self.settings, self.clock, self.source)?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|error| OpenError::Io(path.clone(), error))
        };
        let (writer, opener) = (opened.writer, opened.opener);
        let refiller = Refiller::new(Arc::clone(&opened.shared));
        let mut queue = Queue { shared: opened.shared, refiller: None, writer: None, opener: None };
        queue.opener = Some(spawn("obol-opener", Box::new(move || opener.run()))?);
        queue.writer = Some(spawn("obol-writer", Box::new(move || writer.run()))?);
        queue.refiller = Some(spawn("obol-refiller", Box::new(move || refiller.run()))?);
        Ok(queue)
    }
}

/// See [`Queue::watch`].
pub struct Ready(EventListener);

impl Ready {
    pub(crate) fn new(available: &Event) -> Self {
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
