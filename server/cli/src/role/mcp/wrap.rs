//! `obol mcp wrap`: in front of a client that knows nothing of tokens.

use std::io::{self, Read, Stdout};
use std::process::{ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use obol_mcp::wrap::{Call, FromClient, FromServer, Sent, Wrap};
use obol_token::Audience;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};

use super::agent::Drawer;
use super::lines::{Found, Lines, MAX_CLIENT_BYTES, MAX_SERVER_BYTES, Sink, inside};
use super::server::Server;
use super::wrap_http;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::settings::args::mcp::McpWrapArgs;

/// The most calls that wait to be made once more. What does not fit is answered with its refusal.
const MAX_AGAIN: usize = 64;

/// Both sides, and what is between them.
struct Between {
    wrap: Mutex<Wrap>,
    drawer: Drawer,
    runtime: Handle,
    client: Sink<Stdout>,
    server: Arc<Sink<ChildStdin>>,
}

/// Runs until the server ends, or, where it is reached over HTTP, until the client does.
pub(crate) fn run(args: &McpWrapArgs) -> Outcome {
    Audience::new(args.audience.as_str()).map_err(Failure::usage)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(Failure::other)?;
    if let Some(url) = &args.url {
        return wrap_http::run(args, url, random);
    }
    // That it needs --url says nothing to the command line where a command is in its place.
    if args.plain {
        return Err(Failure::usage(
            "--plain needs --url: with a command, the wrapper uses standard input and output",
        ));
    }
    let (server, output) = Server::start(&args.command)?;
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    server.end_on_signal(&runtime)?;
    let ended = relay(args, random, &runtime, &server, output);
    // A thread may still wait for the client; it ends with the process.
    runtime.shutdown_background();
    ended.and(server.end())
}

fn relay(
    args: &McpWrapArgs,
    random: [u8; 8],
    runtime: &Runtime,
    server: &Server,
    output: ChildStdout,
) -> Outcome {
    let between = Arc::new(Between {
        wrap: Mutex::new(Wrap::new(random)),
        drawer: Drawer::new(args),
        runtime: runtime.handle().clone(),
        client: Sink::new(io::stdout()),
        server: Arc::clone(&server.input),
    });
    let (again, calls) = sync_channel(MAX_AGAIN);
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let client = Arc::clone(&between);
    thread("obol-client").spawn(move || {
        let _server_gone = client.read_client(io::stdin().lock());
        client.server.close();
    })?;
    let later = Arc::clone(&between);
    thread("obol-again").spawn(move || later.call_again(&calls))?;
    between.read_server(output, &again)
}

impl Between {
    /// Client to server, line by line. An error is the server's end.
    fn read_client(&self, from: impl Read) -> io::Result<()> {
        let mut lines = Lines::new(from, MAX_CLIENT_BYTES);
        loop {
            match lines.next()? {
                Found::Line => self.pass_to_server(lines.line())?,
                Found::TooLong => {
                    tracing::warn!(
                        bytes = MAX_CLIENT_BYTES,
                        "a line from the client is too long and was dropped"
                    );
                }
                // What has no end is no message, but it is the client's word.
                Found::End => return self.server.write(lines.line()),
            }
        }
    }

    fn pass_to_server(&self, line: &[u8]) -> io::Result<()> {
        let Ok(text) = str::from_utf8(inside(line)) else { return self.server.write(line) };
        let seen = self.wrap.lock().from_client(text);
        match seen {
            FromClient::Pass => self.server.write(line),
            FromClient::Send(line) => self.server.write_line(line),
            FromClient::Draw(call) => self.call(call),
            FromClient::Answer(line) => self.tell(line),
        }
    }

    /// Draws for a call, and sends it.
    fn call(&self, call: Call) -> io::Result<()> {
        let drawn = self.runtime.block_on(self.drawer.draw(&call));
        let sent = self.wrap.lock().with_token(call, drawn);
        match sent {
            Sent::ToServer(line) => self.server.write_line(line),
            Sent::ToClient(line) => self.tell(line),
        }
    }

    fn call_again(&self, calls: &Receiver<Call>) {
        while let Ok(call) = calls.recv() {
            if self.call(call).is_err() {
                return;
            }
        }
    }

    /// An answer that the server did not give. Who does not hear it is gone, and the other direction finds that out.
    fn tell(&self, line: String) -> io::Result<()> {
        let _client_gone = self.client.write_line(line);
        Ok(())
    }

    /// Server to client, until the server ends or nobody hears it any more.
    fn read_server(&self, from: impl Read, again: &SyncSender<Call>) -> Outcome {
        let mut lines = Lines::new(from, MAX_SERVER_BYTES);
        loop {
            let told = match lines.next()? {
                Found::Line => self.pass_to_client(lines.line(), again),
                Found::End => self.client.write(lines.line()),
                Found::TooLong => {
                    return Err(Failure::other(format_args!(
                        "a line from the server is longer than {MAX_SERVER_BYTES} bytes and was dropped"
                    )));
                }
            };
            if told.is_err() || lines.line().last() != Some(&b'\n') {
                return Ok(());
            }
        }
    }

    fn pass_to_client(&self, line: &[u8], again: &SyncSender<Call>) -> io::Result<()> {
        let Ok(text) = str::from_utf8(inside(line)) else { return self.client.write(line) };
        let seen = self.wrap.lock().from_server(text);
        match seen {
            FromServer::Pass => self.client.write(line),
            FromServer::Tell(line) => self.client.write_line(line),
            FromServer::Again(call) => match again.try_send(call) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(call) | TrySendError::Disconnected(call)) => {
                    let sent = self
                        .wrap
                        .lock()
                        .with_token(call, Err("too many calls are waiting to be repeated".to_owned()));
                    match sent {
                        Sent::ToClient(line) | Sent::ToServer(line) => self.client.write_line(line),
                    }
                }
            },
            FromServer::Stolen { line, tool } => {
                self.client.write_line(line)?;
                self.runtime.block_on(self.drawer.tell_stolen(&tool));
                Ok(())
            }
            FromServer::Drop => Ok(()),
        }
    }
}
