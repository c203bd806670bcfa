//! The bytes of a connection, both ways.
//!
//! They are received and sent by the system calls themselves: those of the C library, which tokio's streams end in, prepare
//! for a thread that is cancelled in the middle.

use core::future::poll_fn;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;

use obol_ipc::frame::{EncodedFrame, FrameDecoder, Frames};
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout};

use super::FRAME_PATIENCE;

/// How long a peer may take to read an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Answers are written once this many bytes of them have been collected, or there is nothing more to answer. A dozen or so:
/// while the peer reads the first of many, the others are made.
const WRITE_CHUNK: usize = 10 << 10;

/// What comes in.
pub(super) struct Input {
    reader: OwnedReadHalf,
    pub(super) decoder: FrameDecoder,
    /// Since when there has been a part of a frame and no more.
    begun: Option<Instant>,
}

impl Input {
    pub(super) fn new(reader: OwnedReadHalf) -> Self {
        Self { reader, decoder: FrameDecoder::new(), begun: None }
    }

    /// Reads what has come; false at the end of the stream. No buffer is held while there is nothing to read.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    /// As [`fill`](Self::fill).
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let socket = self.reader.as_ref();
        loop {
            ready!(socket.poll_read_ready(context))?;
            let (spare, mut read) = (self.decoder.spare(), None);
            let emptied = socket.try_io(Interest::READABLE, || {
                let count = rustix::net::recv(socket, &mut *spare, RecvFlags::empty())?.0;
                read = Some(count);
                // A read that leaves room has emptied the socket. Said in this way, it saves the next look.
                if count > 0 && count < spare.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, emptied) {
                (Some(count), _) => {
                    self.decoder.filled(count);
                    return Poll::Ready(Ok(count > 0));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                // Somebody said that there was something to read, and there was not.
                (None, _) => {}
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
        Ok(rustix::net::shutdown(self.reader.as_ref(), Shutdown::Read)?)
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
    writer: OwnedWriteHalf,
    /// No more than [`WRITE_CHUNK`] and one frame.
    pub(super) pending: Frames,
}

impl Output {
    pub(super) fn new(writer: OwnedWriteHalf) -> Self {
        Self { writer, pending: Frames::new() }
    }

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
        let written = write(&mut self.writer, self.pending.as_bytes()).await;
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

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    // Nearly always the socket takes all of it at once, and nobody need watch the time. Written and not sent: the sandbox
    // looks at the arguments of each `sendto`. The signal for a peer that is gone, which `send` could leave out, is ignored
    // in every Rust program.
    let socket = writer.as_ref();
    let sent = socket.try_io(Interest::WRITABLE, || Ok(rustix::io::write(socket, bytes)?));
    let written = match sent {
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream as Peer;

    use obol_ipc::frame;
    use tokio::net::UnixStream;

    use super::*;

    /// Both ways of a connection, and its other end.
    fn connection() -> (Input, Output, Peer) {
        let (ours, theirs) = Peer::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (reader, writer) = UnixStream::from_std(ours).unwrap().into_split();
        (Input::new(reader), Output::new(writer), theirs)
    }

    #[tokio::test]
    async fn what_the_socket_has_no_room_for_follows_as_the_peer_reads() {
        let (_input, mut output, theirs) = connection();
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
        let (_input, mut output, _theirs) = connection();
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
        let (mut input, mut output, theirs) = connection();
        drop(theirs);
        assert!(!input.fill().await.unwrap());
        output.put(&frame::encode(b"late").unwrap()).await.unwrap();
        assert_eq!(output.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
