//! One connection: hello, then requests and answers until either side has had enough.
//!
//! A request that can be answered at once is answered in place. One that has to wait goes on its own; its answer comes
//! when it comes, tied to its request by the id. While an answer is being written nothing is read, so a peer that does
//! not read its answers slows down itself alone.
//!
//! Connections take turns: after [`TURN`] requests the others come first, however much has arrived. What a peer may
//! ask for in a second is in [`crate::limits`].
//!
//! **Ending.** When the daemon ends a connection on its own, it first stops receiving. From then on the peer's writes
//! fail, so it knows that they were not seen; whatever came before is answered. So no peer is left to guess.

mod side_events;
mod stream;

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use obol_audit::RequestTag;
use obol_ipc::Protocol;
use obol_ipc::codec::{Codec, RejectedRequest, Request, RequestId};
use obol_ipc::frame::{EncodedFrame, Frames};
use obol_ipc::hello::{ClientHello, HelloRefusal, HelloRefusalCode, ServerHello};
use obol_ipc::names::PeerName;
use obol_ipc::refusal::Refusal;
use obol_probe::stop::Stop;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::{Instrument, Span};

use self::side_events::{Event, SideEvents};
use self::stream::{Input, Output};
use crate::limits::{Account, Tick};
use crate::owner::Owner;

/// Connections that were greeted since the process began; each has the next number.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
/// How long a peer may take over its hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take to arrive once its first byte has.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);
/// The most requests of one connection that may wait at a time.
const MAX_WAITING: usize = 128;
/// When a peer that has too many requests waiting should ask again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Requests of one connection that are answered before others have their turn.
const TURN: usize = 32;

/// What answers requests of one protocol.
pub trait Answerer<P: Protocol>: Send + Sync + 'static {
    /// Answers at once, or gives back a future that will.
    fn answer(self: &Arc<Self>, call: P::Request, requester: &Requester) -> Answer<P>;

    /// What the log ties together what is done for one request with.
    fn span(&self, requester: &Requester) -> Span;
}

/// Who is asking, and the number of the request.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The request's name, in this process.
    pub tag: RequestTag,
    /// What the client calls itself.
    pub client: Arc<str>,
    /// Whose process it is.
    pub(crate) owner: Owner,
}

impl Requester {
    /// The user whose process it is.
    pub fn uid(&self) -> u32 {
        self.owner.uid()
    }

    /// Whose process it is, to be fair to each.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

/// An answer, now or later.
pub enum Answer<P: Protocol> {
    /// Here it is.
    Now(Result<P::Reply, Refusal>),
    /// It comes when this future ends, which is dropped if the peer goes away.
    Later(Pin<Box<dyn Future<Output = Result<P::Reply, Refusal>> + Send>>),
}

impl<P: Protocol> fmt::Debug for Answer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

impl<P: Protocol> Answer<P> {
    /// An answer that has to be waited for.
    pub fn later(answer: impl Future<Output = Result<P::Reply, Refusal>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

/// Turns a connection away before its hello.
pub(crate) async fn turn_away(mut stream: UnixStream, code: HelloRefusalCode, message: &str) {
    if let Ok(frame) = HelloRefusal::new(code, message).encode() {
        let _gone = timeout(HELLO_PATIENCE, stream.write_all(frame.as_bytes())).await;
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<P: Protocol, A: Answerer<P>>(
    stream: UnixStream,
    answerer: Arc<A>,
    server: PeerName,
    account: Account,
    stop: Stop,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (mut input, mut output) = (Input::new(reader), Output::new(writer));
    let greeted = timeout(HELLO_PATIENCE, greet(&mut input, &mut output, server)).await;
    let Ok(Some((codec, client))) = greeted? else { return Ok(()) };
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let tag = RequestTag { connection, request: 0 };
    let requester = Requester { tag, client: client.as_ref().into(), owner: account.owner() };

    let (waiting, answers) = mpsc::channel(MAX_WAITING);
    let mut side_events = SideEvents::new(answers, either(stop, account.asked_to_leave()));
    let mut requests =
        Requests { codec, answerer, waiting, account, requester, left: TURN, unwritten: 0, began: None };
    let mut held: Option<Pin<Box<Sleep>>> = None;
    loop {
        if held.is_none() {
            // Also before anything more is read: requests may have come along with the hello.
            let progress = requests.answer_some::<P>(&mut input, &mut output).await?;
            output.flush().await?;
            requests.written();
            match progress {
                Progress::Drained => {}
                Progress::Broken => return Ok(()),
                Progress::Held(pause) => held = Some(Box::pin(sleep(pause))),
                Progress::More => {
                    yield_now().await;
                    requests.left = TURN;
                    continue;
                }
            }
        }
        match poll_fn(|context| next(context, &mut side_events, &mut input, &mut held)).await? {
            Next::Input(more) => {
                side_events.awake();
                if !more {
                    return Ok(());
                }
            }
            Next::Resume => held = None,
            Next::Side(Event::Answer(frame)) => {
                side_events.awake();
                requests.account.awake();
                deliver(frame, &mut side_events, &mut output).await?;
            }
            Next::Side(Event::Due) => {
                if input.is_overdue() {
                    return requests.give_up::<P>(&mut output).await;
                }
                if side_events.was_silent(input.holds_half()) {
                    input.release();
                    output.release();
                }
            }
            Next::Side(Event::End) => {
                return requests.finish::<P>(input, side_events.into_answers(), output).await;
            }
        }
    }
}

/// Ends when the server stops, or the connection is asked to leave.
async fn either(stop: Stop, asked_to_leave: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.said() => {}
        () = asked_to_leave => {}
    }
}

/// Writes an answer that had to wait, and others that came meanwhile.
async fn deliver<E: Future<Output = ()>>(
    first: EncodedFrame,
    side_events: &mut SideEvents<E>,
    output: &mut Output,
) -> io::Result<()> {
    output.put(&first).await?;
    for _ in 1..TURN {
        let Some(frame) = side_events.next_answer() else { break };
        output.put(&frame).await?;
    }
    output.flush().await
}

/// What happens next on a connection.
enum Next {
    /// Something was read, or the stream has ended: false.
    Input(bool),
    /// It may be read again.
    Resume,
    /// Anything else.
    Side(Event),
}

fn next<E: Future<Output = ()>>(
    context: &mut Context<'_>,
    side_events: &mut SideEvents<E>,
    input: &mut Input,
    held: &mut Option<Pin<Box<Sleep>>>,
) -> Poll<io::Result<Next>> {
    if let Poll::Ready(event) = side_events.poll(context) {
        return Poll::Ready(Ok(Next::Side(event)));
    }
    match held {
        Some(pause) => pause.as_mut().poll(context).map(|()| Ok(Next::Resume)),
        None => input.poll_fill(context).map_ok(Next::Input),
    }
}

/// The hello, both ways. `None` where there is no connection after it.
async fn greet(
    input: &mut Input,
    output: &mut Output,
    server: PeerName,
) -> io::Result<Option<(Codec, PeerName)>> {
    let hello = loop {
        let first = match input.decoder.pop() {
            Ok(body) => body.map(|body| ClientHello::decode(&body)),
            Err(error) => Some(Err(HelloRefusal::new(HelloRefusalCode::MalformedHello, error.to_string()))),
        };
        match first {
            Some(hello) => break hello,
            None if input.fill().await? => {}
            None => return Ok(None),
        }
    };
    let (frame, greeted) = match hello {
        Ok(hello) => (ServerHello { codec: hello.codec, server }.encode(), Some((hello.codec, hello.client))),
        Err(refusal) => (refusal.encode(), None),
    };
    output.put(&frame.map_err(io::Error::other)?).await?;
    output.flush().await?;
    Ok(greeted)
}

struct Requests<A> {
    codec: Codec,
    answerer: Arc<A>,
    waiting: mpsc::Sender<EncodedFrame>,
    account: Account,
    requester: Requester,
    /// Requests left of this turn.
    left: usize,
    /// Answers that have been made and not written, and when the first of their requests was there.
    unwritten: u64,
    began: Option<Tick>,
}

/// Why no more requests are answered for now.
enum Progress {
    /// There are no more.
    Drained,
    /// Others have their turn.
    More,
    /// The peer went too fast for too long; it is not read for this long.
    Held(Duration),
    /// The stream cannot be read any further.
    Broken,
}

impl<A> Requests<A> {
    /// Answers requests that have come as a whole, for one turn.
    async fn answer_some<P: Protocol>(
        &mut self,
        input: &mut Input,
        output: &mut Output,
    ) -> io::Result<Progress>
    where
        A: Answerer<P>,
    {
        let (now, mut popped) = (self.account.awake(), false);
        self.began.get_or_insert(now);
        loop {
            if self.left == 0 {
                return Ok(Progress::More);
            }
            let next = input.decoder.pop().map(|body| body.map(|body| self.codec.decode_request::<P>(&body)));
            let request = match next {
                Ok(Some(request)) => request,
                Ok(None) => {
                    input.drained(popped);
                    return Ok(Progress::Drained);
                }
                Err(error) => {
                    let refusal = Refusal::invalid_argument(error);
                    self.put::<P>(&mut output.pending, None, &Err(refusal))?;
                    return Ok(Progress::Broken);
                }
            };
            popped = true;
            self.left -= 1;
            let held = self.answer_one::<P>(request, now, &mut output.pending)?;
            output.flush_full().await?;
            if let Some(pause) = held {
                return Ok(Progress::Held(pause));
            }
        }
    }

    /// Notes that what was answered has been written.
    fn written(&mut self) {
        let (began, times) = (self.began.take(), core::mem::take(&mut self.unwritten));
        if let Some(began) = began.filter(|_| times > 0) {
            self.account.answered(began, times);
        }
    }

    /// Puts the answer behind the others, if it is there already; how long to read no more, if the peer goes too fast.
    fn answer_one<P: Protocol>(
        &mut self,
        request: Result<Request<P>, RejectedRequest>,
        now: Tick,
        answers: &mut Frames,
    ) -> io::Result<Option<Duration>>
    where
        A: Answerer<P>,
    {
        // Also for what is not a request: reading it costs as much.
        let admitted = self.account.admit(now);
        let (id, call) = match request {
            Ok(Request { id, call }) => (Some(id), Ok(call)),
            Err(RejectedRequest { id, refusal }) => (id, Err(refusal)),
        };
        if let Err(retry_after) = admitted {
            self.put::<P>(answers, id.as_ref(), &Err(Refusal::overloaded(retry_after)))?;
            return Ok(self.account.refuse(now));
        }
        let answer = match call {
            Err(refusal) => Answer::Now(Err(refusal)),
            Ok(call) => {
                self.requester.tag.request += 1;
                let span = self.answerer.span(&self.requester);
                match span.in_scope(|| self.answerer.answer(call, &self.requester)) {
                    Answer::Later(answer) if !span.is_none() => Answer::later(answer.instrument(span)),
                    answer => answer,
                }
            }
        };
        match answer {
            Answer::Now(outcome) => self.put::<P>(answers, id.as_ref(), &outcome)?,
            Answer::Later(answer) => self.wait_for::<P>(id, answer, answers)?,
        }
        Ok(None)
    }

    fn wait_for<P: Protocol>(
        &mut self,
        id: Option<RequestId>,
        answer: Pin<Box<dyn Future<Output = Result<P::Reply, Refusal>> + Send>>,
        answers: &mut Frames,
    ) -> io::Result<()> {
        // A place for the answer is kept from the start: this is what bounds the requests that wait.
        let place = self.waiting.clone().try_reserve_owned().ok();
        let Some((place, wait)) = place.zip(self.account.wait()) else {
            return self.put::<P>(answers, id.as_ref(), &Err(Refusal::overloaded(RETRY_AFTER)));
        };
        let (codec, connection, counters) = (self.codec, self.waiting.clone(), self.account.counters());
        let began = Instant::now();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                // A peer that has gone away waits for nothing; drawing a token for it would waste the token.
                biased;
                () = connection.closed() => return,
                outcome = answer => outcome,
                () = wait.asked_to_give_way() => Err(Refusal::overloaded(RETRY_AFTER)),
            };
            drop(wait);
            counters.waits.record(began.elapsed(), 1);
            counters.ended(&outcome);
            if let Ok(frame) = encode::<P>(codec, id.as_ref(), &outcome) {
                place.send(frame);
            }
        });
        Ok(())
    }

    /// Puts an answer behind the others, and counts it.
    fn put<P: Protocol>(
        &mut self,
        answers: &mut Frames,
        id: Option<&RequestId>,
        outcome: &Result<P::Reply, Refusal>,
    ) -> io::Result<()> {
        self.account.ended(outcome);
        self.unwritten += 1;
        self.codec
            .put_response::<P>(answers, id, outcome.as_ref())
            .or_else(|_| self.codec.put_response::<P>(answers, id, Err(&Refusal::reply_too_long())))
            .map_err(io::Error::other)
    }

    /// Takes no more requests; answers those that are there, now or when their time comes.
    async fn finish<P: Protocol>(
        mut self,
        mut input: Input,
        mut answers: mpsc::Receiver<EncodedFrame>,
        mut output: Output,
    ) -> io::Result<()>
    where
        A: Answerer<P>,
    {
        input.shut()?;
        loop {
            self.left = TURN;
            let progress = self.answer_some::<P>(&mut input, &mut output).await?;
            output.flush().await?;
            match progress {
                Progress::More | Progress::Held(_) => yield_now().await,
                Progress::Drained if input.fill().await? => {}
                Progress::Drained | Progress::Broken => break,
            }
        }
        drop(self.waiting);
        while let Some(frame) = answers.recv().await {
            output.put(&frame).await?;
            output.flush().await?;
        }
        Ok(())
    }

    /// Ends a connection whose request has not arrived in time.
    async fn give_up<P: Protocol>(mut self, output: &mut Output) -> io::Result<()>
    where
        A: Answerer<P>,
    {
        let late = Refusal::invalid_argument(format_args!(
            "the rest of the request did not arrive within {FRAME_PATIENCE:?}"
        ));
        self.put::<P>(&mut output.pending, None, &Err(late))?;
        output.flush().await
    }
}

fn encode<P: Protocol>(
    codec: Codec,
    id: Option<&RequestId>,
    outcome: &Result<P::Reply, Refusal>,
) -> io::Result<EncodedFrame> {
    codec
        .encode_response::<P>(id, outcome.as_ref())
        .or_else(|_| codec.encode_response::<P>(id, Err(&Refusal::reply_too_long())))
        .map_err(io::Error::other)
}
