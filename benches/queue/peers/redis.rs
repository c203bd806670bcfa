//! Redis as a durable queue: `LPOP` with every command made durable before it is answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use obol_benches::rows;

use crate::store::{self, TOKEN_BYTES};

/// Tokens popped.
const POPS: u64 = 4_000;
/// Tokens pushed with one command.
const PUSHED_AT_ONCE: u64 = 100;

/// A server of our own, stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn start(folder: &Path) -> Option<Server> {
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--unixsocket",
    ]);
    command.arg(folder.join("redis.sock")).arg("--dir").arg(folder);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    rows::count_as_ours(child.id());
    Some(Server(child))
}

/// A client that knows as much of the protocol as is needed here.
struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, words: &[&[u8]]) {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&command).expect("sent");
    }

    /// The first line of an answer, and the bytes that follow it where it announces some.
    fn answer(&mut self) -> (String, Vec<u8>) {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        let mut bytes = Vec::new();
        if let Some(length) =
            line.strip_prefix('$').and_then(|length| length.trim_end().parse::<usize>().ok())
        {
            bytes.resize(length + 2, 0);
            self.0.read_exact(&mut bytes).expect("a whole answer");
            bytes.truncate(length);
        }
        (line, bytes)
    }
}

/// Pops a second by one client; `None`, and a word about it, where there is no Redis.
pub(crate) fn lpop_always() -> Option<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_server) = start(folder.path()) else {
        rows::skipped(
            "redis-server is missing, so Redis is not measured; install it (Debian: apt-get install redis-server)",
        );
        return None;
    };
    let socket = folder.path().join("redis.sock");
    store::wait_for("Redis listens", || UnixStream::connect(&socket).is_ok());
    let mut client = Client(BufReader::new(UnixStream::connect(&socket).expect("connected")));
    let token = [0x5A; TOKEN_BYTES];
    let mut push: Vec<&[u8]> = vec![b"RPUSH", b"tokens"];
    push.extend((0..PUSHED_AT_ONCE).map(|_| token.as_slice()));
    for _ in 0..POPS.div_ceil(PUSHED_AT_ONCE) {
        client.send(&push);
        assert!(client.answer().0.starts_with(':'), "Redis does not take tokens");
    }
    let start = Instant::now();
    for _ in 0..POPS {
        client.send(&[b"LPOP", b"tokens"]);
        assert_eq!(client.answer().1.len(), TOKEN_BYTES, "Redis gives no token");
    }
    Some(store::per_second(POPS, start.elapsed()))
}
