//! `obol mcp wrap --url`: a client that speaks over standard input and output, and a server over HTTP.

use core::time::Duration;
use std::io::{self, Read, Stdout};
use std::time::Instant;

use obol_mcp::wrap::{Call, Drawn};
use obol_mcp_http::{Bridge, Draw, Ended, Remote};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::agent::Drawer;
use super::lines::{Found, Lines, MAX_CLIENT_BYTES, Sink, inside};
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::settings::args::mcp::McpWrapArgs;
use crate::signals::{LAST_WAIT, shutdown_signal};

/// The most lines that wait in either direction.
const MAX_LINES: usize = 16;
/// How often it is looked whether all is written.
const LOOK: Duration = Duration::from_millis(5);

/// Runs until the client says nothing more, or the server ends the session.
pub(super) fn run(args: &McpWrapArgs, url: &str, random: [u8; 8]) -> Outcome {
    let remote = Remote::new(url, args.plain).map_err(Failure::usage)?;
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let (said, lines) = channel(MAX_LINES);
    thread("obol-client").spawn(move || read_client(io::stdin().lock(), &said))?;
    let (answers, told) = channel(MAX_LINES);
    let writing = thread("obol-answers").spawn(move || tell_client(told, &Sink::new(io::stdout())))?;
    let ended = runtime.block_on(async {
        let bridge = Bridge::new(random, Drawer::new(args), remote, answers);
        Ok::<_, Failure>(bridge.run(lines, shutdown_signal()?).await)
    });
    // A thread may still wait for the client; it ends with the process.
    runtime.shutdown_background();
    let ended = ended?;
    // What was answered is written, if somebody reads it.
    let deadline = Instant::now() + LAST_WAIT;
    while !writing.is_finished() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    match ended {
        Ended::Client => Ok(()),
        Ended::Session => Err(Failure::unavailable("the server has ended the session; restart the client")),
    }
}

fn read_client(from: impl Read, said: &Sender<Vec<u8>>) {
    let mut lines = Lines::new(from, MAX_CLIENT_BYTES);
    loop {
        match lines.next() {
            Ok(Found::Line) => {
                if said.blocking_send(inside(lines.line()).to_vec()).is_err() {
                    return;
                }
            }
            Ok(Found::TooLong) => {
                tracing::warn!(
                    bytes = MAX_CLIENT_BYTES,
                    "a line from the client is too long and was dropped"
                );
            }
            // What has no end is no message.
            Ok(Found::End) | Err(_) => return,
        }
    }
}

fn tell_client(mut told: Receiver<Vec<u8>>, client: &Sink<Stdout>) {
    while let Some(line) = told.blocking_recv() {
        if client.write(&line).is_err() {
            return;
        }
    }
}

impl Draw for Drawer {
    async fn draw(&self, call: &Call) -> Result<Drawn, String> {
        Self::draw(self, call).await
    }

    async fn tell_stolen(&self, tool: &str) {
        Self::tell_stolen(self, tool).await;
    }
}
