//! The least a daemon on this runtime and this kind of socket can do: read so many bytes, write so many.

use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::text;

/// An echo server: this very program as a process of its own.
pub(crate) struct Echo {
    child: Child,
    socket: PathBuf,
    request: usize,
    answer: usize,
}

impl Echo {
    pub(crate) fn start(folder: &Path, request: usize, answer: usize) -> Self {
        let own = std::env::current_exe().expect("our own path");
        let sizes = [request.to_string(), answer.to_string()];
        let arguments = ["--echo-server", &text(folder, "echo.sock")];
        let child = Command::new(own).args(arguments).args(sizes).stdin(Stdio::null()).spawn();
        let child = child.expect("the echo starts");
        obol_benches::rows::count_as_ours(child.id());
        Self { child, socket: folder.join("echo.sock"), request, answer }
    }

    pub(crate) fn client(&self) -> Echoing {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    return Echoing { stream, request: vec![1; self.request], answer: vec![0; self.answer] };
                }
                Err(error) => assert!(Instant::now() < deadline, "the echo does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// One connection to it.
pub(crate) struct Echoing {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Echoing {
    pub(crate) fn exchange(&mut self) {
        self.stream.write_all(&self.request).expect("written");
        self.stream.read_exact(&mut self.answer).expect("answered");
    }
}

/// The server's side.
pub(crate) fn serve(arguments: &[String]) {
    let [path, request, answer] = arguments else { return };
    let (request, answer): (usize, usize) =
        (request.parse().expect("a size"), answer.parse().expect("a size"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(path).expect("a socket");
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut input, output) = (vec![0; request], vec![2; answer]);
                while stream.read_exact(&mut input).await.is_ok() && stream.write_all(&output).await.is_ok() {
                }
            });
        }
    });
}
