//! The bytes of a connection, both ways.
//!
//! They are received and sent by the system calls themselves: those of the C library, which tokio's streams end in, prepare
//! for a thread that is cancelled in the middle.
//!
//! The system is asked to say when there is something to read, and not when there is room to write: otherwise each answer
//! that a peer takes out of its socket would wake the daemon once more. An answer nearly always fits; the rest of one that
//! did not is tried again after a pause.

use core::future::poll_fn;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;

use obol_ipc::frame::{EncodedFrame, FrameDecoder, Frames};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::FRAME_PATIENCE;

/// How long a peer may take to read an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before the rest of an answer is tried again; while the peer reads nothing, each is twice as long as the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Answers are written once this many bytes of them have been collected, or there is nothing more to answer. A dozen or so:
/// while the peer reads the first of many, the others are made.
const WRITE_CHUNK: usize = 10 << 10;

/// Both ways of a connection.
pub(super) fn split(stream: UnixStream) -> io::Result<(Input, Output)> {
    let socket = Arc::new(stream.into_std()?);
    let output = Output { socket: Arc::clone(&socket), pending: Frames::new() };
    #[expect(
        deprecated,
        reason = "sound for a type that always names the same descriptor; its successor is `unsafe` for all"
    )]
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    Ok((Input::new(socket), output))
}

/// What comes in.
pub(super) struct Input {
    socket: AsyncFd<Arc<Socket>>,
    pub(super) decoder: FrameDecoder,
    /// Since when there has been a part of a frame and no more.
    begun: Option<Instant>,
}

impl Input {
    fn new(socket: AsyncFd<Arc<Socket>>) -> Self {
        Self { socket, decoder: FrameDecoder::new(), begun: None }
    }

    /// Reads what has come; false at the end of the stream. No buffer is held while there is nothing to read.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    /// As [`fill`](Self::fill).
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(context))?;
            let spare = self.decoder.spare();
            let room = spare.len();
            match rustix::net::recv(self.socket.get_ref(), spare, RecvFlags::empty()) {
                Ok((_, count)) => {
                    // A read that leaves room has emptied the socket. Said in this way, it saves the next look.
                    if count > 0 && count < room {
                        ready.clear_ready();
                    }
                    self.decoder.filled(count);
                    return Poll::Ready(Ok(count > 0));
                }
                // Somebody said that there was something to read, and there was not.
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Notes whether a frame has begun that is not complete. Bytes that trickle in do not buy it more time.
    pub(super) fn drained(&mut self, popped: bool) {
        self.begun = match self.begun {
            _ if self.decoder.is_between_frames() => None,
            Some(begun) if !popped => Some(begun),
            _ => Some(Instant::now()),
        };
    }

    /// Whether a frame has begun that is not complete.
    pub(super) fn holds_half(&self) -> bool {
        self.begun.is_some()
    }

    /// Receives no more; what has come can still be read.
    pub(super) fn shut(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.socket.get_ref(), Shutdown::Read)?)
    }

    /// Whether it has taken too long.
    pub(super) fn is_overdue(&self) -> bool {
        self.begun.is_some_and(|begun| begun.elapsed() >= FRAME_PATIENCE)
    }

    /// Gives the buffer back if there is nothing in it.
    pub(super) fn release(&mut self) {
        if self.decoder.is_between_frames() {
            self.decoder = FrameDecoder::new();
        }
    }
}

/// What goes out.
pub(super) struct Output {
    socket: Arc<Socket>,
    /// No more than [`WRITE_CHUNK`] and one frame.
    pub(super) pending: Frames,
}

impl Output {
    /// Adds an answer.
    pub(super) async fn put(&mut self, frame: &EncodedFrame) -> io::Result<()> {
        self.pending.push(frame);
        self.flush_full().await
    }

    /// Writes what was collected if that is enough.
    pub(super) async fn flush_full(&mut self) -> io::Result<()> {
        if self.pending.as_bytes().len() < WRITE_CHUNK { Ok(()) } else { self.flush().await }
    }

    /// Writes what was collected, and wipes it.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.pending.as_bytes().is_empty() {
            return Ok(());
        }
        let written = write(&self.socket, self.pending.as_bytes()).await;
        self.pending.clear();
        written
    }

    /// Gives the buffer back.
    pub(super) fn release(&mut self) {
        if self.pending.as_bytes().is_empty() {
            self.pending = Frames::new();
        }
    }
}

async fn write(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    // Nearly always the socket takes all of it at once, and nobody need watch the time.
    let written = write_some(socket, bytes)?;
    let rest = bytes.get(written..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    timeout(WRITE_PATIENCE, write_rest(socket, rest))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answers"))?
}

async fn write_rest(socket: &Socket, mut rest: &[u8]) -> io::Result<()> {
    let mut pause = FIRST_PAUSE;
    while !rest.is_empty() {
        sleep(pause).await;
        let written = write_some(socket, rest)?;
        pause = if written == 0 { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// As much as there is room for. Written and not sent: the sandbox looks at the arguments of each `sendto`. The signal for a
/// peer that is gone, which `send` could leave out, is ignored in every Rust program.
fn write_some(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match rustix::io::write(socket, bytes) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use obol_ipc::frame;

    use super::*;

    #[tokio::test]
    async fn what_the_socket_has_no_room_for_follows_as_the_peer_reads() {
        let (ours, theirs) = Socket::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (_input, mut output) = split(UnixStream::from_std(ours).unwrap()).unwrap();
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            let mut all = Vec::new();
            (&theirs).read_to_end(&mut all).unwrap();
            all
        });
        let (frame, mut sent) = (frame::encode(&[7; 9_000]).unwrap(), Vec::new());
        for _ in 0..200 {
            output.put(&frame).await.unwrap();
            sent.extend_from_slice(frame.as_bytes());
        }
        output.flush().await.unwrap();
        drop((output, _input));
        assert!(reading.join().unwrap() == sent, "all of it, in order");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up_in_the_end() {
        let (ours, _theirs) = Socket::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (_input, mut output) = split(UnixStream::from_std(ours).unwrap()).unwrap();
        let (frame, begun) = (frame::encode(&[7; 9_000]).unwrap(), Instant::now());
        let error = loop {
            if let Err(error) = output.put(&frame).await {
                break error;
            }
        };
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, WRITE_PATIENCE));
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_noticed_at_the_next_answer() {
        let (ours, theirs) = Socket::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut input, mut output) = split(UnixStream::from_std(ours).unwrap()).unwrap();
        drop(theirs);
        assert!(!input.fill().await.unwrap());
        output.put(&frame::encode(b"late").unwrap()).await.unwrap();
        assert_eq!(output.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
