//! Listens to what the service says of this agent, so that an end is known at once and not with the next session; and tells it
//! that an operator flushed the sidecar, or that an agent says that a token of its was stolen.
//!
//! What is heard goes to the keeper, which does what follows from it. Only when that is done is it confirmed; until then it is
//! told again after every new beginning.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use obol_handshake::{IdentityKey, Random as _, SystemRandom};
use obol_probe::stop::Stop;
use obol_session::clock::Clock;
use obol_session::{Cursor, SessionId};
use obol_stream::{Item, Mode, Standing, What, Word};
use obol_uplink::{AuthError, Outbox, Stream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::authenticator::Listening;

/// Pauses between two attempts grow from the one to the other, by chance shorter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A stream that lasted so long was a good one: the next attempt comes soon.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Something that the service says of this agent.
#[derive(Debug)]
pub(crate) enum News {
    /// It is heard now.
    Began {
        standing: Option<Standing>,
        /// The agent's live sessions, where the service named them all.
        live: Option<BTreeSet<SessionId>>,
    },
    /// A session was ended.
    SessionEnd { session: SessionId, reason: String },
    /// The agent was ended.
    AgentEnd { revoked: bool, reason: String },
    /// The agent may open sessions again.
    AgentEnabled,
    /// Nothing more was said up to here, when it was so late at the service, in Unix seconds.
    Nothing { service_now: u64 },
}

/// News, and how far whoever knows it has come.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) news: News,
    pub(crate) cursor: Cursor,
    /// In which attempt to listen.
    pub(crate) attempt: u64,
}

/// What keeper and listener share.
#[derive(Debug)]
pub(crate) struct Between {
    /// How far the keeper has come with what it heard.
    pub(crate) done: watch::Sender<Option<Cursor>>,
    /// What the service has yet to hear.
    pub(crate) word: watch::Sender<Option<Word>>,
    /// As whom it is listened; as nobody for now, where that has to be found out first.
    pub(crate) key: watch::Sender<Option<IdentityKey>>,
    /// What it is told once each.
    pub(crate) outbox: Arc<Outbox>,
    /// How often the service was asked. A session that was opened before an attempt is known to it.
    pub(crate) attempts: AtomicU64,
    /// Something changed that makes another attempt worth while.
    pub(crate) again: Notify,
    /// Something became of a request for a human's yes.
    pub(crate) decided: Notify,
}

impl Between {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            done: watch::Sender::new(None),
            word: watch::Sender::new(None),
            key: watch::Sender::new(None),
            outbox: Arc::default(),
            attempts: AtomicU64::new(0),
            again: Notify::new(),
            decided: Notify::new(),
        })
    }
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Listener {
    listening: Listening,
    clock: Arc<dyn Clock>,
    between: Arc<Between>,
    heard: mpsc::Sender<Heard>,
}

impl Listener {
    pub(crate) fn new(
        listening: Listening,
        clock: Arc<dyn Clock>,
        between: Arc<Between>,
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        Self { listening, clock, between, heard }
    }

    /// Listens until the word to stop is said.
    pub(crate) async fn run(mut self, stop: &Stop) {
        let mut failures: u32 = 0;
        let mut keys = self.between.key.subscribe();
        loop {
            let began = tokio::time::Instant::now();
            let key = tokio::select! {
                () = stop.said() => return,
                key = next_key(&mut keys) => key,
            };
            self.listening.set_key(key);
            let ended = tokio::select! {
                () = stop.said() => return,
                ended = self.listen() => ended,
                // It is another's line from here on.
                () = another_key(&mut keys) => continue,
            };
            failures = if began.elapsed() >= GOOD_AFTER { 0 } else { failures.saturating_add(1) };
            let pause = pause(failures);
            tracing::debug!(error = %ended, retry_in_ms = pause.as_millis(), "the service is not heard");
            tokio::select! {
                () = stop.said() => return,
                () = sleep(pause) => {}
                () = self.between.again.notified() => {}
            }
        }
    }

    async fn listen(&mut self) -> AuthError {
        let attempt = self.between.attempts.fetch_add(1, Ordering::SeqCst) + 1;
        let after = *self.between.done.borrow();
        let mut stream = match self.listening.follow(after, self.clock.now()).await {
            Ok(stream) => stream,
            Err(AuthError::Refused { code, detail }) if code == "REVOKED" => {
                // There is no stream on which it could be said.
                let cursor = after.unwrap_or(Cursor { incarnation: [0; 16], seq: 0 });
                let news = News::AgentEnd { revoked: true, reason: detail.clone() };
                let _gone = self.heard.send(Heard { news, cursor, attempt }).await;
                return AuthError::Refused { code, detail };
            }
            Err(error) => return error,
        };
        tracing::info!(mode = ?stream.hello().mode, "listening to the service");
        let mut speaking = JoinSet::new();
        if let Some(voice) = stream.voice() {
            let Between { done, word, outbox, .. } = &*self.between;
            speaking.spawn(voice.speak(done.subscribe(), word.subscribe(), Arc::clone(outbox)));
        }
        self.read(&mut stream, after, attempt).await.err().unwrap_or(AuthError::NotAsked)
    }

    async fn read(&self, stream: &mut Stream, after: Option<Cursor>, attempt: u64) -> Result<(), AuthError> {
        let hello = stream.hello();
        let (incarnation, standing) = (hello.incarnation, hello.standing);
        let mut live = (hello.mode == Mode::Snapshot).then(BTreeSet::new);
        let mut seq = after.filter(|_| live.is_none()).map_or(0, |after| after.seq);
        let tell = |news, seq| async move {
            let cursor = Cursor { incarnation, seq };
            self.heard.send(Heard { news, cursor, attempt }).await.map_err(|_| AuthError::NotAsked)
        };
        if live.is_none() {
            tell(News::Began { standing, live: None }, seq).await?;
        }
        loop {
            match stream.next().await? {
                Item::Live { session, .. } => drop(live.as_mut().ok_or_else(gap)?.insert(session)),
                Item::Listed { seq: head } => {
                    let live = Some(live.take().ok_or_else(gap)?);
                    seq = head;
                    tell(News::Began { standing, live }, seq).await?;
                }
                Item::Happened { seq: number, prev, what }
                    if live.is_none() && prev == seq && number > prev =>
                {
                    seq = number;
                    if let What::CallsDecided { .. } = what {
                        self.between.decided.notify_waiters();
                    }
                    if let Some(news) = news(what) {
                        tell(news, seq).await?;
                    }
                }
                Item::Heartbeat { head, now } if live.is_none() && head >= seq => {
                    seq = head;
                    tell(News::Nothing { service_now: now }, seq).await?;
                }
                _ => {
                    // From the beginning, then.
                    self.between.done.send_replace(None);
                    return Err(gap());
                }
            }
        }
    }
}

/// As whom to listen, once that is known.
async fn next_key(keys: &mut watch::Receiver<Option<IdentityKey>>) -> IdentityKey {
    loop {
        if let Some(key) = keys.borrow_and_update().as_ref() {
            return IdentityKey::from_bytes(key.expose());
        }
        changed(keys).await;
    }
}

/// Until there is another key to listen with.
async fn another_key(keys: &mut watch::Receiver<Option<IdentityKey>>) {
    loop {
        changed(keys).await;
        if keys.borrow_and_update().is_some() {
            return;
        }
    }
}

async fn changed(keys: &mut watch::Receiver<Option<IdentityKey>>) {
    if keys.changed().await.is_err() {
        core::future::pending::<()>().await;
    }
}

fn news(what: What) -> Option<News> {
    match what {
        What::SessionEnd { session, reason } => Some(News::SessionEnd { session, reason }),
        What::AgentEnd { revoked, reason } => Some(News::AgentEnd { revoked, reason }),
        What::AgentEnabled => Some(News::AgentEnabled),
        What::SessionOpen { .. }
        | What::Approval { .. }
        | What::ApprovalEnd { .. }
        | What::CallsDecided { .. } => None,
    }
}

fn gap() -> AuthError {
    AuthError::Answer("the stream has a gap; everything is asked for anew".to_owned())
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let (least, most) = PAUSES;
    let longest = least.saturating_mul(1_u32.checked_shl(failures.min(10)).unwrap_or(u32::MAX)).min(most);
    let mut bytes = [0; 4];
    SystemRandom.fill(&mut bytes);
    least / 2 + longest.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
}
