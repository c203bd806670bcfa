//! The wrapper between a client that speaks line by line, and a server over HTTP.
//!
//! Each request goes in a task of its own, so that none waits for another's answer; what is no request goes in the order it was said in.
//! A request is sent once. Where its answer's stream breaks off, the stream is taken up again, which asks for nothing a second time.

mod exchange;
mod spoken;

use core::future::Future;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use obol_mcp::routing::Outline;
use obol_mcp::wrap::{Call, Drawn, FromClient, FromServer, Sent, Wrap};
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use self::spoken::Spoken;
use crate::remote::Remote;

/// The most requests under way at a time.
const MAX_UNDER_WAY: usize = 256;
/// How long requests may take that are under way when the client has nothing more to say, and a session's end.
const LAST_WAIT: Duration = Duration::from_secs(5);
const INITIALIZED: &str = "notifications/initialized";
const INITIALIZE: &str = "initialize";

/// Where tokens come from.
pub trait Draw: Send + Sync + 'static {
    /// A token for a call; or why there is none, for whoever called.
    fn draw(&self, call: &Call) -> impl Future<Output = Result<Drawn, String>> + Send;

    /// Tells the operator that somebody else spent a token for this tool.
    fn tell_stolen(&self, tool: &str) -> impl Future<Output = ()> + Send;
}

/// Why a bridge ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The client said nothing more, or hears nothing more, or it was told to end.
    Client,
    /// The server has ended the session, and only the client could begin another.
    Session,
}

/// Between one client and one server.
#[derive(Debug)]
pub struct Bridge<D>(Arc<Inner<D>>);

struct Inner<D> {
    wrap: Mutex<Wrap>,
    drawer: D,
    remote: Remote,
    client: Sender<Vec<u8>>,
    spoken: Mutex<Spoken>,
    /// Requests under way by the client's own number, and whether closing the connection cancels them.
    flights: Mutex<HashMap<String, (AbortHandle, bool)>>,
    places: Arc<Semaphore>,
    session_over: Notify,
}

impl<D> core::fmt::Debug for Inner<D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Inner").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// A request on its way.
enum Work {
    Line(String),
    Draw(Call),
}

impl<D: Draw> Bridge<D> {
    /// To this server. `client` gets what it says, lines with their ends. `random` is as for [`Wrap::new`].
    pub fn new(random: [u8; 8], drawer: D, remote: Remote, client: Sender<Vec<u8>>) -> Self {
        Self(Arc::new(Inner {
            wrap: Mutex::new(Wrap::new(random)),
            drawer,
            remote,
            client,
            spoken: Mutex::default(),
            flights: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            session_over: Notify::new(),
        }))
    }

    /// Carries what the client says, lines without their ends, until it says no more, `shutdown` resolves, or the session is over.
    pub async fn run(self, mut lines: Receiver<Vec<u8>>, shutdown: impl Future<Output = ()>) -> Ended {
        let inner = self.0;
        let mut tasks = JoinSet::new();
        let reading = async {
            while let Some(line) = lines.recv().await {
                while tasks.try_join_next().is_some() {}
                inner.line(&line, &mut tasks).await;
            }
        };
        let mut ended = Ended::Client;
        let mut is_finishing = false;
        tokio::select! {
            () = reading => is_finishing = true,
            () = shutdown => {}
            () = inner.session_over.notified() => ended = Ended::Session,
            () = inner.client.closed() => {}
        }
        if is_finishing {
            // The streams that only listen are no reason to wait.
            let answered = async {
                while inner.is_busy() {
                    tasks.join_next().await;
                }
            };
            let _cut_off = timeout(LAST_WAIT, answered).await;
        }
        tasks.shutdown().await;
        if ended == Ended::Client {
            let _nothing_depends_on_it = timeout(LAST_WAIT, inner.end_session()).await;
        }
        ended
    }
}

impl<D: Draw> Inner<D> {
    fn is_busy(&self) -> bool {
        self.places.available_permits() < MAX_UNDER_WAY
    }

    /// One line of the client.
    async fn line(self: &Arc<Self>, line: &[u8], tasks: &mut JoinSet<()>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Ok(text) = str::from_utf8(line) else {
            tracing::warn!("a line of the client is dropped: it is not UTF-8");
            return;
        };
        let outline = Outline::of(text).unwrap_or_default();
        let seen = self.wrap.lock().from_client(text);
        match seen {
            FromClient::Answer(line) => self.tell(line).await,
            FromClient::Draw(call) => self.begin(Work::Draw(call), &outline, tasks).await,
            FromClient::Pass => self.carry(text.to_owned(), &outline, tasks).await,
            FromClient::Send(line) => self.carry(line, &outline, tasks).await,
        }
    }

    async fn carry(self: &Arc<Self>, line: String, outline: &Outline, tasks: &mut JoinSet<()>) {
        if outline.request.is_some() {
            return self.begin(Work::Line(line), outline, tasks).await;
        }
        if outline.cancels.as_ref().is_some_and(|id| self.cut_off(id)) {
            return;
        }
        let was_heard = self.notify(&line).await;
        if was_heard && outline.method.as_deref() == Some(INITIALIZED) {
            tasks.spawn(Arc::clone(self).listen());
        }
    }

    /// From MCP 2026-07-28 on, a request is cancelled by closing its connection, and not by a message.
    fn cut_off(&self, id: &str) -> bool {
        let mut flights = self.flights.lock();
        if !flights.get(id).is_some_and(|(_, closes)| *closes) {
            return false;
        }
        if let Some((flight, _)) = flights.remove(id) {
            flight.abort();
        }
        true
    }

    async fn begin(self: &Arc<Self>, work: Work, outline: &Outline, tasks: &mut JoinSet<()>) {
        let id = outline.request.clone().unwrap_or_default();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let why = "Too many requests wait for an answer; this one was not made";
            return self.tell(spoken::failure(&id, why)).await;
        };
        if outline.method.as_deref() == Some(INITIALIZE) {
            // What follows is said in the session that this begins.
            self.spoken.lock().begin_anew();
            self.request(work).await;
            return;
        }
        let inner = Arc::clone(self);
        let (own, closes) = (id.clone(), outline.is_stateless());
        // Noted before it can end.
        let mut flights = self.flights.lock();
        let task = tasks.spawn(async move {
            inner.request(work).await;
            inner.flights.lock().remove(&own);
            drop(place);
        });
        flights.insert(id, (task, closes));
    }

    /// One request, and once more where its refusal says that a token mends it.
    async fn request(self: &Arc<Self>, mut work: Work) {
        loop {
            let line = match work {
                Work::Line(line) => line,
                Work::Draw(call) => {
                    let drawn = self.drawer.draw(&call).await;
                    let sent = self.wrap.lock().with_token(call, drawn);
                    match sent {
                        Sent::ToServer(line) => line,
                        Sent::ToClient(line) => return self.tell(line).await,
                    }
                }
            };
            match self.exchange(&line).await {
                Some(call) => work = Work::Draw(call),
                None => return,
            }
        }
    }

    /// One message of the server. A call that it gives is to be made once more.
    async fn hear(&self, text: &str) -> Option<Call> {
        let text = spoken::one_line(text);
        let seen = self.wrap.lock().from_server(&text);
        match seen {
            FromServer::Pass => self.tell(text.into_owned()).await,
            FromServer::Tell(line) => self.tell(spoken::one_line(&line).into_owned()).await,
            FromServer::Again(call) => return Some(call),
            FromServer::Stolen { line, tool } => {
                self.tell(spoken::one_line(&line).into_owned()).await;
                self.drawer.tell_stolen(&tool).await;
            }
            FromServer::Drop => {}
        }
        None
    }

    async fn tell(&self, line: String) {
        let mut line = line.into_bytes();
        line.push(b'\n');
        // Who does not hear it is gone, which ends everything.
        let _client_gone = self.client.send(line).await;
    }
}
