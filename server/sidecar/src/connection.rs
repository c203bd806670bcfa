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

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use obol_audit::RequestTag;
use obol_ipc::Protocol;
use obol_ipc::codec::{Codec, RejectedRequest, Request, RequestId};
use obol_ipc::frame::{EncodedFrame, FrameDecoder, Frames};
use obol_ipc::hello::{ClientHello, HelloRefusal, HelloRefusalCode, PeerName, ServerHello};
use obol_ipc::refusal::Refusal;
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::{Instrument, Span};

use crate::limits::{Account, Moment};

/// Connections that were greeted since the process began; each has the next number.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
/// How long a peer may take over its hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take to arrive once its first byte has.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take to read an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// The most requests of one connection that may wait at a time.
const MAX_WAITING: usize = 128;
/// When a peer that has too many requests waiting should ask again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Requests of one connection that are answered before others have their turn.
const TURN: usize = 32;
/// How often a connection in use is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// How often one that is silent is.
const LOOK_AFTER_SILENT: Duration = Duration::from_secs(3_600);
/// Answers are written once this many bytes of them have been collected, or there is nothing more to answer.
const WRITE_CHUNK: usize = 64 << 10;

/// What answers requests of one protocol.
pub(crate) trait Answerer<P: Protocol>: Send + Sync + 'static {
    /// Answers at once, or gives back a future that will.
    fn answer(self: &Arc<Self>, call: P::Request, asker: &Asker) -> Answer<P>;

    /// What the log ties together what is done for one request with.
    fn span(&self, asker: &Asker) -> Span;
}

/// Who asks, and for the how manieth time.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// The request's name, in this process.
    pub(crate) tag: RequestTag,
    /// What the client calls itself.
    pub(crate) client: Arc<str>,
}

/// An answer, now or later.
pub(crate) enum Answer<P: Protocol> {
    Now(Result<P::Reply, Refusal>),
    Later(Pin<Box<dyn Future<Output = Result<P::Reply, Refusal>> + Send>>),
}

impl<P: Protocol> Answer<P> {
    pub(crate) fn later(answer: impl Future<Output = Result<P::Reply, Refusal>> + Send + 'static) -> Self {
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
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut input = Input { reader, decoder: FrameDecoder::new(), begun: None };
    let mut output = Output { writer, pending: Frames::new() };
    let greeted = timeout(HELLO_PATIENCE, greet(&mut input, &mut output, server)).await;
    let Ok(Some((codec, client))) = greeted? else { return Ok(()) };
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let asker = Asker { tag: RequestTag { connection, request: 0 }, client: client.as_ref().into() };

    let (waiting, mut answers) = mpsc::channel(MAX_WAITING);
    let mut requests =
        Requests { codec, answerer, waiting, account, asker, left: TURN, unwritten: 0, began: None };
    let mut held: Option<Instant> = None;
    let mut care = Care::new();
    // Made once: the daemon looks whether they are there after every request.
    let mut stop = pin!(stopped(&mut stopping));
    let mut leave = pin!(requests.account.asked_to_leave());
    loop {
        if held.is_none() {
            // Also before anything more is read: requests may have come along with the hello.
            let progress = requests.answer_some::<P>(&mut input, &mut output).await?;
            output.flush().await?;
            requests.written();
            match progress {
                Progress::Drained => {}
                Progress::Broken => return Ok(()),
                Progress::Held(pause) => held = Some(Instant::now() + pause),
                Progress::More => {
                    yield_now().await;
                    requests.left = TURN;
                    continue;
                }
            }
        }
        tokio::select! {
            more = input.fill(), if held.is_none() => {
                care.awake();
                if !more? {
                    return Ok(());
                }
            }
            () = sleep_through(held), if held.is_some() => held = None,
            Some(frame) = answers.recv() => {
                care.awake();
                requests.account.awake();
                output.put(&frame).await?;
                for _ in 1..TURN {
                    let Ok(frame) = answers.try_recv() else { break };
                    output.put(&frame).await?;
                }
                output.flush().await?;
            }
            () = care.due() => {
                if input.is_overdue() {
                    return requests.give_up::<P>(&mut output).await;
                }
                if care.was_silent(input.begun.is_some()) {
                    input.release();
                    output.release();
                }
            }
            () = &mut stop => return requests.finish::<P>(input, answers, output).await,
            () = &mut leave => return requests.finish::<P>(input, answers, output).await,
        }
    }
}

/// Waits for that time; for ever where there is none.
async fn sleep_through(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

/// Waits until the daemon stops.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _stopped_or_gone = stopping.wait_for(|stopping| *stopping).await;
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

/// A timer for what has to be looked after now and then. It runs slowly while nothing happens, so that thousands of
/// silent connections cost nothing.
struct Care {
    timer: Pin<Box<Sleep>>,
    active: bool,
    slow: bool,
}

impl Care {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(LOOK_AFTER)), active: true, slow: false }
    }

    fn awake(&mut self) {
        self.active = true;
        if self.slow {
            self.slow = false;
            self.timer.as_mut().reset(Instant::now() + LOOK_AFTER);
        }
    }

    async fn due(&mut self) {
        self.timer.as_mut().await;
    }

    /// Whether nothing happened since the last time; sets the timer again, and not to slow while half a request waits
    /// for its end.
    fn was_silent(&mut self, half: bool) -> bool {
        let silent = !std::mem::take(&mut self.active);
        self.slow = silent && !half;
        let pause = if self.slow { LOOK_AFTER_SILENT } else { LOOK_AFTER };
        self.timer.as_mut().reset(Instant::now() + pause);
        silent
    }
}

struct Input {
    reader: OwnedReadHalf,
    decoder: FrameDecoder,
    /// Since when there has been a part of a frame and no more.
    begun: Option<Instant>,
}

impl Input {
    /// Reads what has come; false at the end of the stream. No buffer is held while there is nothing to read.
    async fn fill(&mut self) -> io::Result<bool> {
        let read = poll_fn(|context| {
            ready!(self.reader.as_ref().poll_read_ready(context))?;
            // Unlike `try_read` this notes that a read which leaves room has emptied the socket, and so saves a look.
            let mut spare = ReadBuf::new(self.decoder.spare());
            ready!(Pin::new(&mut self.reader).poll_read(context, &mut spare))?;
            Poll::Ready(io::Result::Ok(spare.filled().len()))
        });
        let read = read.await?;
        self.decoder.filled(read);
        Ok(read > 0)
    }

    /// Notes whether a frame has begun that is not complete. Bytes that trickle in do not buy it more time.
    fn drained(&mut self, popped: bool) {
        self.begun = match self.begun {
            _ if self.decoder.is_between_frames() => None,
            Some(begun) if !popped => Some(begun),
            _ => Some(Instant::now()),
        };
    }

    fn is_overdue(&self) -> bool {
        self.begun.is_some_and(|begun| begun.elapsed() >= FRAME_PATIENCE)
    }

    /// Gives the buffer back if there is nothing in it.
    fn release(&mut self) {
        if self.decoder.is_between_frames() {
            self.decoder = FrameDecoder::new();
        }
    }
}

struct Output {
    writer: OwnedWriteHalf,
    /// No more than [`WRITE_CHUNK`] and one frame.
    pending: Frames,
}

impl Output {
    async fn put(&mut self, frame: &EncodedFrame) -> io::Result<()> {
        self.pending.push(frame);
        self.flush_full().await
    }

    /// Writes what was collected if that is enough.
    async fn flush_full(&mut self) -> io::Result<()> {
        if self.pending.as_bytes().len() < WRITE_CHUNK { Ok(()) } else { self.flush().await }
    }

    /// Writes what was collected, and wipes it.
    async fn flush(&mut self) -> io::Result<()> {
        if self.pending.as_bytes().is_empty() {
            return Ok(());
        }
        let written = write(&mut self.writer, self.pending.as_bytes()).await;
        self.pending.clear();
        written
    }

    /// Gives the buffer back.
    fn release(&mut self) {
        if self.pending.as_bytes().is_empty() {
            self.pending = Frames::new();
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    // Nearly always the socket takes all of it at once, and nobody need watch the time.
    let written = match writer.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        written => written?,
    };
    let rest = bytes.get(written..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    timeout(WRITE_PATIENCE, writer.write_all(rest))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answers"))?
}

struct Requests<A> {
    codec: Codec,
    answerer: Arc<A>,
    waiting: mpsc::Sender<EncodedFrame>,
    account: Account,
    asker: Asker,
    /// Requests left of this turn.
    left: usize,
    /// Answers that have been made and not written, and when the first of their requests was there.
    unwritten: u64,
    began: Option<Moment>,
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
        let (began, times) = (self.began.take(), std::mem::take(&mut self.unwritten));
        if let Some(began) = began.filter(|_| times > 0) {
            self.account.answered(began, times);
        }
    }

    /// Puts the answer behind the others, if it is there already; how long to read no more, if the peer goes too fast.
    fn answer_one<P: Protocol>(
        &mut self,
        request: Result<Request<P>, RejectedRequest>,
        now: Moment,
        answers: &mut Frames,
    ) -> io::Result<Option<Duration>>
    where
        A: Answerer<P>,
    {
        // Also for what is no request: reading it costs as much.
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
                self.asker.tag.request += 1;
                let span = self.answerer.span(&self.asker);
                match span.in_scope(|| self.answerer.answer(call, &self.asker)) {
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
        let Some((place, turn)) = place.zip(self.account.wait()) else {
            return self.put::<P>(answers, id.as_ref(), &Err(Refusal::overloaded(RETRY_AFTER)));
        };
        let (codec, connection, counters) = (self.codec, self.waiting.clone(), self.account.counters());
        let began = Instant::now();
        tokio::spawn(async move {
            tokio::select! {
                // A peer that has gone away waits for nothing; drawing a token for it would waste the token.
                biased;
                () = connection.closed() => {}
                outcome = answer => {
                    counters.waits.record(began.elapsed(), 1);
                    counters.ended(&outcome);
                    if let Ok(frame) = encode::<P>(codec, id.as_ref(), &outcome) {
                        place.send(frame);
                    }
                }
            }
            drop(turn);
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
        rustix::net::shutdown(input.reader.as_ref(), Shutdown::Read)?;
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
