//! One connection: hello, then requests and answers until either side has had enough.
//!
//! A request that can be answered at once is answered in place. One that has to wait goes on its own; its answer comes
//! when it comes, tied to its request by the id. While an answer is being written nothing is read, so a peer that does
//! not read its answers slows down itself alone.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use obol_ipc::Protocol;
use obol_ipc::codec::{Codec, RejectedRequest, Request, RequestId};
use obol_ipc::frame::{EncodedFrame, FrameDecoder};
use obol_ipc::hello::{ClientHello, HelloRefusal, HelloRefusalCode, PeerName, ServerHello};
use obol_ipc::refusal::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

/// How long a peer may take over its hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer may take to read an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// The most requests of one connection that may wait at a time.
const MAX_WAITING: usize = 128;
/// When a peer that has too many requests waiting should ask again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Answers are collected up to this many bytes before they are written.
const WRITE_CHUNK: usize = 64 << 10;

/// What answers requests of one protocol.
pub(crate) trait Answerer<P: Protocol>: Send + Sync + 'static {
    /// Answers at once, or gives back a future that will.
    fn answer(self: &Arc<Self>, call: P::Request) -> Answer<P>;
}

/// An answer, now or later.
pub(crate) enum Answer<P: Protocol> {
    Now(Result<P::Reply, Refusal>),
    Later(std::pin::Pin<Box<dyn Future<Output = Result<P::Reply, Refusal>> + Send>>),
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
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut input = Input { reader, decoder: FrameDecoder::new() };
    let mut output = Output { writer, pending: Zeroizing::new(Vec::new()) };
    let greeted = timeout(HELLO_PATIENCE, greet(&mut input, &mut output, server)).await;
    let Ok(Some(codec)) = greeted? else { return Ok(()) };

    let (waiting, mut answers) = mpsc::channel(MAX_WAITING);
    let requests = Requests { codec, answerer, waiting };
    loop {
        // Also before anything more is read: requests may have come along with the hello.
        let readable = requests.answer_all(&mut input, &mut output).await?;
        output.flush().await?;
        if !readable {
            return Ok(());
        }
        tokio::select! {
            more = input.fill() => if !more? {
                return Ok(());
            },
            Some(frame) = answers.recv() => output.put(&frame).await?,
            () = stopped(&mut stopping) => return requests.finish(answers, output).await,
        }
    }
}

/// Waits until the daemon stops.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _stopped_or_gone = stopping.wait_for(|stopping| *stopping).await;
}

/// The hello, both ways. `None` where there is no connection after it.
async fn greet(input: &mut Input, output: &mut Output, server: PeerName) -> io::Result<Option<Codec>> {
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
    let (frame, codec) = match hello {
        Ok(hello) => (ServerHello { codec: hello.codec, server }.encode(), Some(hello.codec)),
        Err(refusal) => (refusal.encode(), None),
    };
    output.put(&frame.map_err(io::Error::other)?).await?;
    output.flush().await?;
    Ok(codec)
}

struct Input {
    reader: OwnedReadHalf,
    decoder: FrameDecoder,
}

impl Input {
    /// Reads what has come; false at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        let read = self.reader.read(self.decoder.spare()).await?;
        self.decoder.filled(read);
        Ok(read > 0)
    }
}

struct Output {
    writer: OwnedWriteHalf,
    pending: Zeroizing<Vec<u8>>,
}

impl Output {
    async fn put(&mut self, frame: &EncodedFrame) -> io::Result<()> {
        // Never grown past its capacity: a reallocation would leave a copy of a token behind.
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(WRITE_CHUNK);
        }
        if self.pending.len() + frame.as_bytes().len() > self.pending.capacity() {
            self.flush().await?;
        }
        if frame.as_bytes().len() > self.pending.capacity() {
            return self.write(frame.as_bytes()).await;
        }
        self.pending.extend_from_slice(frame.as_bytes());
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending).await;
        pending.as_mut_slice().zeroize();
        pending.clear();
        self.pending = pending;
        written
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(WRITE_PATIENCE, self.writer.write_all(bytes))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answers"))?
    }
}

struct Requests<A> {
    codec: Codec,
    answerer: Arc<A>,
    waiting: mpsc::Sender<EncodedFrame>,
}

impl<A> Requests<A> {
    /// Answers all requests that have come as a whole; false where the stream cannot be read any further.
    async fn answer_all<P: Protocol>(&self, input: &mut Input, output: &mut Output) -> io::Result<bool>
    where
        A: Answerer<P>,
    {
        loop {
            let request = match input.decoder.pop() {
                Ok(Some(body)) => self.codec.decode_request::<P>(&body),
                Ok(None) => return Ok(true),
                Err(error) => {
                    let refusal = Refusal::invalid_argument(error);
                    output.put(&encode::<P>(self.codec, None, &Err(refusal))?).await?;
                    return Ok(false);
                }
            };
            if let Some(frame) = self.answer_one(request)? {
                output.put(&frame).await?;
            }
        }
    }

    fn answer_one<P: Protocol>(
        &self,
        request: Result<Request<P>, RejectedRequest>,
    ) -> io::Result<Option<EncodedFrame>>
    where
        A: Answerer<P>,
    {
        let Request { id, call } = match request {
            Ok(request) => request,
            Err(RejectedRequest { id, refusal }) => {
                return encode::<P>(self.codec, id.as_ref(), &Err(refusal)).map(Some);
            }
        };
        let answer = match self.answerer.answer(call) {
            Answer::Now(outcome) => return encode::<P>(self.codec, Some(&id), &outcome).map(Some),
            Answer::Later(answer) => answer,
        };
        // A place for the answer is kept from the start: this is what bounds the requests that wait.
        let Ok(place) = self.waiting.clone().try_reserve_owned() else {
            return encode::<P>(self.codec, Some(&id), &Err(Refusal::overloaded(RETRY_AFTER))).map(Some);
        };
        let (codec, connection) = (self.codec, self.waiting.clone());
        tokio::spawn(async move {
            tokio::select! {
                // A peer that has gone away waits for nothing; drawing a token for it would waste the token.
                biased;
                () = connection.closed() => {}
                outcome = answer => if let Ok(frame) = encode::<P>(codec, Some(&id), &outcome) {
                    place.send(frame);
                },
            }
        });
        Ok(None)
    }

    /// Sends the answers that are still to come, and takes no more requests.
    async fn finish(self, mut answers: mpsc::Receiver<EncodedFrame>, mut output: Output) -> io::Result<()> {
        drop(self.waiting);
        while let Some(frame) = answers.recv().await {
            output.put(&frame).await?;
        }
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
