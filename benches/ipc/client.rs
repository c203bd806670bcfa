//! One client for both: so many connections on one thread, so many requests under way on each.

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use obol_ipc::codec::{Codec, RequestId};
use obol_ipc::frame::{self, FrameDecoder, Frames};
use obol_ipc::hello::ClientHello;
use obol_ipc::message::{
    AgentMethod, AgentProtocol, AgentReply, AgentRequest, DequeueTokenParams, DequeueTokenResult,
};
use obol_ipc::names::{PeerName, ToolName};
use obol_ipc::numbers::WaitMs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What is said on a connection.
pub(crate) trait Peer: Sized {
    /// Greets.
    async fn connect(stream: &mut UnixStream) -> Self;
    /// Adds one request to those that go out next.
    fn ask(&mut self);
    /// What goes out next.
    fn requests(&self) -> &[u8];
    /// Notes that it went out.
    fn sent(&mut self);
    /// Where what comes is put.
    fn spare(&mut self) -> &mut [u8];
    /// Reads what has come; how many answers were in it.
    fn filled(&mut self, count: usize) -> usize;
}

/// Draws `draws` in all; the time from the first request to the last answer.
pub(crate) fn drive<P: Peer + 'static>(
    runtime: &tokio::runtime::Runtime,
    socket: &Path,
    connections: usize,
    depth: usize,
    draws: usize,
) -> Duration {
    runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut stream = UnixStream::connect(socket).await.expect("a connection");
            let peer = P::connect(&mut stream).await;
            open.push((stream, peer));
        }
        let start = Instant::now();
        let all = open.into_iter().map(|(stream, peer)| one(stream, peer, depth, draws / connections));
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let tasks: Vec<_> = all.map(tokio::task::spawn_local).collect();
                for task in tasks {
                    task.await.expect("drawn");
                }
            })
            .await;
        start.elapsed()
    })
}

async fn one<P: Peer>(mut stream: UnixStream, mut peer: P, depth: usize, draws: usize) {
    let (mut asked, mut answered) = (0, 0);
    while answered < draws {
        while asked < draws && asked - answered < depth {
            peer.ask();
            asked += 1;
        }
        if !peer.requests().is_empty() {
            stream.write_all(peer.requests()).await.expect("written");
            peer.sent();
        }
        let read = stream.read(peer.spare()).await.expect("read");
        assert!(read > 0, "the server ended the connection");
        answered += peer.filled(read);
    }
}

/// Our protocol, in its binary form, encoded and decoded as our client does.
pub(crate) struct ObolPeer {
    decoder: FrameDecoder,
    request: AgentRequest,
    out: Frames,
    next: u64,
}

impl ObolPeer {
    pub(crate) fn new(tool: &str) -> Self {
        let tool = ToolName::new(tool).expect("a name");
        let params = DequeueTokenParams {
            tool,
            wait_ms: WaitMs::default(),
            audience: None,
            pop_for: None,
            approval_id: None,
        };
        let request = AgentRequest::DequeueToken(params);
        Self { decoder: FrameDecoder::new(), request, out: Frames::new(), next: 0 }
    }

    /// Bytes of a request's frame and of its answer's.
    pub(crate) fn sizes<E: core::fmt::Debug>(
        mut self,
        drawn: Result<DequeueTokenResult, E>,
    ) -> (usize, usize) {
        self.ask();
        let reply = AgentReply::DequeueToken(drawn.expect("a token"));
        let answer = Codec::Bincode.encode_response::<AgentProtocol>(Some(&RequestId::Number(1)), Ok(&reply));
        (self.out.as_bytes().len(), answer.expect("encoded").as_bytes().len())
    }
}

impl Peer for ObolPeer {
    async fn connect(stream: &mut UnixStream) -> Self {
        let client = PeerName::new("obol-benches/1").expect("a name");
        let hello = ClientHello { codec: Codec::Bincode, client };
        stream.write_all(hello.encode().expect("encoded").as_bytes()).await.expect("greeted");
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.expect("an answer");
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
        assert!(body.len() <= frame::MAX_BODY_BYTES, "a length");
        stream.read_exact(&mut body).await.expect("an answer");
        hello.answered(&body).expect("welcome");
        Self::new("search")
    }

    fn ask(&mut self) {
        self.next += 1;
        let id = RequestId::Number(self.next);
        let put = Codec::Bincode.put_request::<AgentProtocol>(&mut self.out, &id, &self.request);
        put.expect("encoded");
    }

    fn requests(&self) -> &[u8] {
        self.out.as_bytes()
    }

    fn sent(&mut self) {
        self.out.clear();
    }

    fn spare(&mut self) -> &mut [u8] {
        self.decoder.spare()
    }

    fn filled(&mut self, count: usize) -> usize {
        self.decoder.filled(count);
        let mut answers = 0;
        while let Some(body) = self.decoder.pop().expect("frames") {
            let response = Codec::Bincode.decode_response(&body).expect("an answer");
            let reply = response.outcome::<AgentProtocol>(AgentMethod::DequeueToken).expect("an answer");
            assert!(matches!(reply.expect("a token"), AgentReply::DequeueToken(_)), "a token");
            answers += 1;
        }
        answers
    }
}

/// `LPOP q`.
pub(crate) struct RedisPeer {
    out: Vec<u8>,
    buffer: Vec<u8>,
    end: usize,
}

impl Peer for RedisPeer {
    async fn connect(_stream: &mut UnixStream) -> Self {
        Self { out: Vec::new(), buffer: vec![0; 64 << 10], end: 0 }
    }

    fn ask(&mut self) {
        self.out.extend_from_slice(b"*2\r\n$4\r\nLPOP\r\n$1\r\nq\r\n");
    }

    fn requests(&self) -> &[u8] {
        &self.out
    }

    fn sent(&mut self) {
        self.out.clear();
    }

    fn spare(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    fn filled(&mut self, count: usize) -> usize {
        self.end += count;
        let (mut answers, mut rest) = (0, self.buffer.get(..self.end).unwrap_or_default());
        while let Some((element, after)) = element(rest) {
            // The caller's own copy, as a token is.
            core::hint::black_box(element.to_vec());
            answers += 1;
            rest = after;
        }
        let left = rest.len();
        self.buffer.copy_within(self.end - left..self.end, 0);
        self.end = left;
        answers
    }
}

/// One bulk string, and what follows it.
fn element(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = input.iter().position(|byte| *byte == b'\n')?;
    let length = input.get(1..head.checked_sub(1)?)?;
    let length: usize = core::str::from_utf8(length).expect("digits").parse().expect("the list is not empty");
    let start = head + 1;
    Some((input.get(start..start + length)?, input.get(start + length + 2..)?))
}
