//! One open connection, after the hello.

use core::fmt;
use core::time::Duration;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use obol_ipc::Endpoint;
use obol_ipc::Protocol;
use obol_ipc::codec::{Codec, RequestId};
use obol_ipc::frame::{EncodeError, FrameDecoder, Frames};
use obol_ipc::hello::ClientHello;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::peer::{Trusted, from_system};
use super::{ConnectError, ConnectOptions, Lost};

/// How much longer than asked for a read may wait, so that the socket need not be told a new time for each.
const TIMEOUT_GRAIN: Duration = Duration::from_millis(1);

/// A connection that has been greeted: frames go out and come in, in the codec agreed on.
pub(crate) struct Link {
    stream: UnixStream,
    decoder: FrameDecoder,
    /// Empty between two requests; its memory is kept.
    request: Frames,
    codec: Codec,
    /// The stream's timeout for reading, if it has one.
    read_timeout: Option<Duration>,
}

/// A frame that could not be written whole.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// Not one byte went out: the daemon knows nothing of it.
    Untouched(io::Error),
    /// Some of it went out.
    Partly(io::Error),
}

impl Link {
    /// Connects, checks the other end, and exchanges hellos. Blocks for at most the answer timeout in each of these
    /// steps.
    pub(crate) fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let timeout = options.patience();
        let stream = open_stream(endpoint, timeout)?;
        let (decoder, request) = (FrameDecoder::new(), Frames::new());
        let mut link = Self { stream, decoder, request, codec: options.codec, read_timeout: None };
        link.codec = link.greet(options, Instant::now() + timeout)?;
        Ok(link)
    }

    fn greet(&mut self, options: &ConnectOptions, deadline: Instant) -> Result<Codec, ConnectError> {
        let hello = ClientHello { codec: options.codec, client: options.client.clone() };
        let frame =
            hello.encode().map_err(|error| ConnectError::NoHello(Lost::from_io(io::Error::other(error))))?;
        // A daemon that turns clients away may close without reading; its reason is then still there to be read.
        let unwritten = self.write(frame.as_bytes()).err();
        match self.read(deadline, |body| hello.answered(body)) {
            Ok(answer) => Ok(answer.map_err(ConnectError::Hello)?.codec),
            Err(lost) => Err(ConnectError::NoHello(match unwritten {
                Some(Unwritten::Untouched(error) | Unwritten::Partly(error)) => Lost::from_io(error),
                None => lost,
            })),
        }
    }

    pub(crate) const fn codec(&self) -> Codec {
        self.codec
    }

    /// Writes a request.
    pub(crate) fn send<P: Protocol>(
        &mut self,
        id: &RequestId,
        request: &P::Request,
    ) -> Result<Result<(), Unwritten>, EncodeError> {
        let mut frame = core::mem::take(&mut self.request);
        let encoded = self.codec.put_request::<P>(&mut frame, id, request);
        let written = encoded.map(|()| self.write(frame.as_bytes()));
        frame.clear();
        self.request = frame;
        written
    }

    fn write(&self, frame: &[u8]) -> Result<(), Unwritten> {
        let mut rest = frame;
        let mut touched = false;
        while !rest.is_empty() {
            let error = match (&self.stream).write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    touched = true;
                    rest = rest.get(count..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return Err(if touched { Unwritten::Partly(error) } else { Unwritten::Untouched(error) });
        }
        Ok(())
    }

    /// Reads one frame and gives its body to `take`.
    pub(crate) fn read<T>(&mut self, deadline: Instant, take: impl FnOnce(&[u8]) -> T) -> Result<T, Lost> {
        loop {
            if let Some(body) = self.decoder.pop().map_err(Lost::Frame)? {
                return Ok(take(&body));
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Err(Lost::TimedOut);
            }
            self.set_read_timeout(patience).map_err(Lost::from_io)?;
            match self.stream.read(self.decoder.spare()) {
                Ok(0) => return Err(Lost::Closed),
                Ok(count) => self.decoder.filled(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::from_io(error)),
            }
        }
    }

    fn set_read_timeout(&mut self, patience: Duration) -> io::Result<()> {
        let grains = patience.as_nanos().div_ceil(TIMEOUT_GRAIN.as_nanos());
        let timeout = TIMEOUT_GRAIN.saturating_mul(u32::try_from(grains).unwrap_or(u32::MAX));
        if self.read_timeout != Some(timeout) {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = Some(timeout);
        }
        Ok(())
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_parts(self) -> (UnixStream, FrameDecoder, Codec) {
        (self.stream, self.decoder, self.codec)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("codec", &self.codec).finish_non_exhaustive()
    }
}

/// Connects within `timeout`, which also becomes the stream's timeout for writing.
fn open_stream(endpoint: &Endpoint, timeout: Duration) -> Result<UnixStream, ConnectError> {
    let path = endpoint.path();
    let trusted = Trusted::at(endpoint);
    trusted.check_socket(path)?;
    let system = |error: rustix::io::Errno| from_system(path, error.into());
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(system)?;
    // On Linux this bounds connecting too, which otherwise blocks for as long as the daemon's backlog is full.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout)).map_err(system)?;
    let address = SocketAddrUnix::new(path).map_err(system)?;
    loop {
        match connect(&socket, &address) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(system)?,
        }
    }
    trusted.check_peer(&socket, path)?;
    Ok(UnixStream::from(socket))
}
