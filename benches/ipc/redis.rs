//! Redis on a Unix socket, without a log of what it does.

use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::text;

/// A token's text of ordinary size.
const ELEMENT_BYTES: usize = 600;
/// Elements pushed with one command.
const PUSHED_AT_ONCE: usize = 500;

pub(crate) struct Redis {
    child: Child,
    folder: tempfile::TempDir,
}

impl Redis {
    /// `None` where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = text(folder.path(), "redis.sock");
        let settings =
            ["--port", "0", "--appendonly", "no", "--save", "", "--daemonize", "no", "--unixsocket", &socket];
        let started =
            Command::new("redis-server").args(settings).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let Ok(child) = started else {
            eprintln!(
                "SKIPPED: there is no redis-server to measure beside; install Debian's package redis-server"
            );
            return None;
        };
        obol_benches::rows::count_as_ours(child.id());
        let redis = Self { child, folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(redis.socket()).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(redis)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Puts so many elements into the list.
    pub(crate) fn fill(&mut self, count: usize) {
        let mut stream = UnixStream::connect(self.socket()).expect("a connection");
        let element = "x".repeat(ELEMENT_BYTES);
        let mut left = count;
        while left > 0 {
            let now = left.min(PUSHED_AT_ONCE);
            let mut command = format!("*{}\r\n$5\r\nRPUSH\r\n$1\r\nq\r\n", now + 2);
            for _ in 0..now {
                command.push_str(&format!("${ELEMENT_BYTES}\r\n{element}\r\n"));
            }
            stream.write_all(command.as_bytes()).expect("written");
            let mut answer = [0; 64];
            let read = stream.read(&mut answer).expect("answered");
            assert!(answer.starts_with(b":") && read > 1, "redis-server refused");
            left -= now;
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
