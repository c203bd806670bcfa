//! One connection with many requests under way.
//!
//! A request is written by the task that makes it, without handing it over, as long as the socket takes it whole. What
//! it does not take waits in a backlog for the driver, the one task that reads answers and gives them to whom they
//! belong to.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use obol_ipc::Protocol;
use obol_ipc::codec::{Codec, IncomingResponse, RequestId, ResponseError};
use obol_ipc::frame::{EncodeError, EncodedFrame, FrameDecoder};
use obol_ipc::refusal::Refusal;
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::task::AbortHandle;

use crate::connect::{Link, Lost};

/// How a request on this connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Not one byte of it was written.
    NotSent(Arc<io::Error>),
    /// It was written, at least in part.
    Lost(Lost),
}

pub(super) type Outcome<P> = Result<Result<<P as Protocol>::Reply, Refusal>, Failure>;

/// A request that waits for its answer.
struct Pending<P: Protocol> {
    method: P::Method,
    asker: oneshot::Sender<Outcome<P>>,
    /// Whether any byte of it was written.
    touched: bool,
    /// Its place among the requests in flight, given back when this is dropped.
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<P: Protocol> Pending<P> {
    fn fail(self, cause: &Lost) {
        let failure = if self.touched {
            Failure::Lost(cause.clone())
        } else {
            Failure::NotSent(Arc::new(io::Error::other(cause.clone())))
        };
        let _ = self.asker.send(Err(failure));
    }
}

/// A frame that the socket has not taken, or not whole.
struct Waiting {
    id: u64,
    frame: EncodedFrame,
    written: usize,
}

struct State<P: Protocol> {
    last_id: u64,
    pending: HashMap<u64, Pending<P>>,
    /// Oldest first; only the first may be written in part.
    backlog: VecDeque<Waiting>,
    /// Set once: from then on nothing is sent. Answers may still come.
    closed: bool,
}

struct Core<P: Protocol> {
    stream: UnixStream,
    codec: Codec,
    state: Mutex<State<P>>,
    /// Wakes the driver when there is a backlog.
    backlogged: Notify,
}

/// An open connection and its driver, which ends with it.
pub(super) struct Pipeline<P: Protocol> {
    core: Arc<Core<P>>,
    driver: AbortHandle,
}

impl<P: Protocol> Drop for Pipeline<P> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<P: Protocol> Pipeline<P> {
    /// Takes over a connection that has been greeted.
    pub(super) fn start(link: Link) -> io::Result<Arc<Self>> {
        let (stream, decoder, codec) = link.into_parts();
        stream.set_nonblocking(true)?;
        let state = State { last_id: 0, pending: HashMap::new(), backlog: VecDeque::new(), closed: false };
        let core = Arc::new(Core {
            stream: UnixStream::from_std(stream)?,
            codec,
            state: Mutex::new(state),
            backlogged: Notify::new(),
        });
        let driver = tokio::spawn(drive(Arc::clone(&core), decoder)).abort_handle();
        Ok(Arc::new(Self { core, driver }))
    }

    pub(super) fn is_open(&self) -> bool {
        !self.core.lock().closed
    }

    /// Sends `request`, or queues it to be sent. What becomes of it comes through the receiver.
    pub(super) fn send(
        &self,
        request: &P::Request,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Outcome<P>>, EncodeError> {
        let (asker, answer) = oneshot::channel();
        let pending = Pending { method: P::method_of(request), asker, touched: false, _permit: permit };
        let mut state = self.core.lock();
        let id = state.last_id.wrapping_add(1);
        let frame = self.core.codec.encode_request::<P>(&RequestId::Number(id), request)?;
        if state.closed {
            pending.fail(&Lost::Closed);
            return Ok(answer);
        }
        state.last_id = id;
        state.pending.insert(id, pending);
        state.backlog.push_back(Waiting { id, frame, written: 0 });
        // Behind others it waits its turn; alone it goes out at once.
        if state.backlog.len() == 1 {
            self.core.write_backlog(&mut state);
        }
        if !state.backlog.is_empty() {
            self.core.backlogged.notify_one();
        }
        Ok(answer)
    }
}

impl<P: Protocol> Core<P> {
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what the socket takes.
    fn write_backlog(&self, state: &mut State<P>) {
        while let Some(frame) = state.next_to_write() {
            match self.stream.try_write(frame) {
                Ok(0) => return state.stop_sending(&Lost::Closed),
                Ok(count) => state.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return state.stop_sending(&Lost::from_io(error)),
            }
        }
    }

    fn has_backlog(&self) -> bool {
        !self.lock().backlog.is_empty()
    }

    /// Delivers an answer to the call that waits for it.
    fn deliver(&self, body: &[u8]) -> Result<(), ResponseError> {
        let response = self.codec.decode_response(body)?;
        let pending = match response.id() {
            Some(RequestId::Number(id)) => self.lock().pending.remove(id),
            _ => None,
        };
        let Some(pending) = pending else {
            return Err(answer_to_nothing::<P>(response));
        };
        let (outcome, result) = match response.outcome::<P>(pending.method) {
            Ok(outcome) => (Ok(outcome), Ok(())),
            Err(error) => (Err(Failure::Lost(Lost::Answer(error.clone()))), Err(error)),
        };
        // If nobody waits any more, the answer is dropped here, and a token in it wiped.
        let _ = pending.asker.send(outcome);
        result
    }
}

/// An answer that cannot be given to anyone. If the daemon could not read a request, its words say why.
fn answer_to_nothing<P: Protocol>(response: IncomingResponse<'_>) -> ResponseError {
    let complaint = match (response.id(), P::METHODS.first()) {
        (None, Some(any)) => response.outcome::<P>(*any).ok().and_then(Result::err),
        _ => None,
    };
    match complaint {
        Some(refusal) => ResponseError::new(format_args!("it could not read a request: {refusal}")),
        None => ResponseError::new("an answer to a request that was never made"),
    }
}

impl<P: Protocol> State<P> {
    /// The bytes to write next. Requests that nobody waits for any more and of which nothing is written are left out:
    /// a token they drew would be wasted.
    fn next_to_write(&mut self) -> Option<&[u8]> {
        while let Some(first) = self.backlog.front() {
            let given_up = self.pending.get(&first.id).is_none_or(|pending| pending.asker.is_closed());
            if first.written > 0 || !given_up {
                break;
            }
            self.pending.remove(&first.id);
            self.backlog.pop_front();
        }
        let first = self.backlog.front()?;
        first.frame.as_bytes().get(first.written..)
    }

    /// Notes that the socket took `count` bytes, at least one, of what was to be written next.
    fn wrote(&mut self, count: usize) {
        let Some(first) = self.backlog.front_mut() else { return };
        first.written += count;
        if let Some(pending) = self.pending.get_mut(&first.id) {
            pending.touched = true;
        }
        if first.written >= first.frame.as_bytes().len() {
            self.backlog.pop_front();
        }
    }

    /// Gives up on the frames not written whole. Answers to the others may have come already and are still read.
    fn stop_sending(&mut self, cause: &Lost) {
        self.closed = true;
        for waiting in core::mem::take(&mut self.backlog) {
            if let Some(pending) = self.pending.remove(&waiting.id) {
                pending.fail(cause);
            }
        }
    }

    /// Ends the connection: whoever still waits is told so.
    fn close(&mut self, cause: &Lost) {
        self.stop_sending(cause);
        for (_, pending) in self.pending.drain() {
            pending.fail(cause);
        }
    }
}

/// Closes the connection's state when the driver ends, by itself or because the runtime drops it.
struct CloseOnDrop<P: Protocol>(Arc<Core<P>>, Lost);

impl<P: Protocol> Drop for CloseOnDrop<P> {
    fn drop(&mut self) {
        self.0.lock().close(&self.1);
    }
}

async fn drive<P: Protocol>(core: Arc<Core<P>>, mut decoder: FrameDecoder) {
    let mut ending = CloseOnDrop(Arc::clone(&core), Lost::Closed);
    loop {
        let step = tokio::select! {
            ready = core.stream.readable() => {
                ready.map_err(Lost::from_io).and_then(|()| read(&core, &mut decoder))
            }
            ready = core.stream.writable(), if core.has_backlog() => {
                ready.map(|()| core.write_backlog(&mut core.lock())).map_err(Lost::from_io)
            }
            () = core.backlogged.notified() => Ok(()),
        };
        if let Err(lost) = step {
            ending.1 = lost;
            return;
        }
    }
}

/// Reads what is there, once, and delivers every answer that is complete.
fn read<P: Protocol>(core: &Core<P>, decoder: &mut FrameDecoder) -> Result<(), Lost> {
    match core.stream.try_read(decoder.spare()) {
        Ok(0) => return Err(Lost::Closed),
        Ok(count) => decoder.filled(count),
        // The readiness was stale; the next wait is a true one.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            return Ok(());
        }
        Err(error) => return Err(Lost::from_io(error)),
    }
    while let Some(body) = decoder.pop().map_err(Lost::Frame)? {
        core.deliver(&body).map_err(Lost::Answer)?;
    }
    Ok(())
}
