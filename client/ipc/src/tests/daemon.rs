//! A daemon that does what a test tells it.

use core::time::Duration;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use obol_ipc::Endpoint;
use obol_ipc::Protocol;
use obol_ipc::codec::{Codec, Request, RequestId};
use obol_ipc::control::ControlProtocol;
use obol_ipc::frame::FrameDecoder;
use obol_ipc::hello::{ClientHello, ServerHello};
use obol_ipc::message::{AgentProtocol, AgentReply, DequeueTokenResult};
use obol_ipc::names::{PeerName, ToolName};
use obol_ipc::refusal::Refusal;
use obol_ipc::secret::TokenText;
use tempfile::TempDir;

use crate::connect::ConnectOptions;

/// Long enough for any machine; only there so that a broken test ends.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn tool() -> ToolName {
    ToolName::new("mail.send").unwrap()
}

pub(crate) fn dequeued(token: &str) -> AgentReply {
    AgentReply::DequeueToken(DequeueTokenResult {
        token: TokenText::new(token).unwrap(),
        tool: tool(),
        expires_at: 1_776_763_800,
        channel: None,
        pop: None,
    })
}

pub(crate) fn options() -> ConnectOptions {
    ConnectOptions::new(PeerName::new("test/1").unwrap())
}

pub(crate) struct Daemon {
    directory: TempDir,
    listener: UnixListener,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("agent.sock")).unwrap();
        Self { directory, listener }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::at(self.directory.path().join("agent.sock")).unwrap()
    }

    /// Takes the next caller and exchanges hellos.
    pub(crate) fn accept(&self) -> Conversation<AgentProtocol> {
        Conversation::greeted(self)
    }

    pub(crate) fn accept_operator(&self) -> Conversation<ControlProtocol> {
        Conversation::greeted(self)
    }

    /// Whether someone has connected and was not accepted yet.
    pub(crate) fn has_caller(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        match self.listener.accept() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Stops listening and listens anew on a socket created afresh.
    pub(crate) fn restart(&mut self) {
        let path = self.directory.path().join("agent.sock");
        fs::remove_file(&path).unwrap();
        self.listener = UnixListener::bind(&path).unwrap();
    }

    /// Stops listening and leaves the socket behind, in the directory returned.
    pub(crate) fn stop(self) -> TempDir {
        drop(self.listener);
        self.directory
    }
}

/// The daemon's side of one connection.
pub(crate) struct Conversation<P> {
    pub(crate) stream: UnixStream,
    decoder: FrameDecoder,
    pub(crate) codec: Codec,
    protocol: core::marker::PhantomData<fn() -> P>,
}

impl<P: Protocol> Conversation<P> {
    pub(crate) fn ungreeted(daemon: &Daemon) -> Self {
        let (stream, _) = daemon.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: FrameDecoder::new(), codec: Codec::Json, protocol: core::marker::PhantomData }
    }

    fn greeted(daemon: &Daemon) -> Self {
        let mut conversation = Self::ungreeted(daemon);
        let hello = conversation.read(|body| ClientHello::decode(body).unwrap()).unwrap();
        conversation.codec = hello.codec;
        let answer = ServerHello { codec: hello.codec, server: PeerName::new("obol/0.1.0").unwrap() };
        conversation.stream.write_all(answer.encode().unwrap().as_bytes()).unwrap();
        conversation
    }

    /// The next frame, or `None` when the client has closed.
    pub(crate) fn read<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        loop {
            if let Some(body) = self.decoder.pop().unwrap() {
                return Some(take(&body));
            }
            match self.stream.read(self.decoder.spare()) {
                Ok(0) => return None,
                Ok(count) => self.decoder.filled(count),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next request, or `None` when the client has closed.
    pub(crate) fn request(&mut self) -> Option<Request<P>> {
        let codec = self.codec;
        self.read(|body| codec.decode_request(body).unwrap())
    }

    pub(crate) fn send(&mut self, id: &RequestId, outcome: &Result<P::Reply, Refusal>) -> io::Result<()> {
        let frame = self.codec.encode_response::<P>(Some(id), outcome.as_ref()).unwrap();
        self.stream.write_all(frame.as_bytes())
    }

    /// Answers the next request with `outcome` and returns what it asked for.
    pub(crate) fn answer(&mut self, outcome: &Result<P::Reply, Refusal>) -> P::Request {
        let request = self.request().unwrap();
        self.send(&request.id, outcome).unwrap();
        request.call
    }
}
