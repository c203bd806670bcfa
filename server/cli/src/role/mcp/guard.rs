//! `obol mcp guard`: in front of a server that knows nothing of tokens. What decides is what `obol rs` decides with.
//!
//! The server is started first, by an ordinary process. Then this one is closed to others and enters the sandbox, before a key
//! is loaded: what the server may do is not this process's business, and what this one knows is not the server's.

use core::net::SocketAddr;
use std::io::{self, Read, Stdout};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::Arc;

use obol_mcp::front::{FromClient, FromServer, Front};
use obol_mcp::{Rules, ToolGuard};
use obol_probe::stop::Stop;
use obol_resource::Gate;
use obol_sandbox::{Measure, Sandbox};
use obol_secret::file;
use obol_token::text::to_hex;
use obol_verify::{Clock as _, SessionStore, SystemClock};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::lines::{Found, Lines, MAX_CLIENT_BYTES, MAX_SERVER_BYTES, Sink, inside};
use super::server::Server;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::place;
use crate::role::operator_door::OperatorDoor;
use crate::role::rs::{Opened, Prepared};
use crate::role::sandbox;
use crate::role::strangers::named_operator_door;
use crate::settings::args::RsArgs;
use crate::settings::args::mcp::McpGuardArgs;
use crate::settings::config::Config;

/// What it calls itself to its operator.
pub(super) const NAME: &str = concat!("obol-mcp-guard/", env!("CARGO_PKG_VERSION"));
/// The longest file of rules, in bytes.
const MAX_RULES_BYTES: usize = 1 << 20;

/// What the arguments say is to be guarded, and how.
pub(super) fn rules_of(args: &McpGuardArgs) -> Outcome<Rules> {
    if args.server.spend_socket.is_some() {
        return Err(Failure::usage("--spend-socket: only `obol rs` has that socket, not a guard"));
    }
    Ok(args.rules.as_deref().map(read_rules).transpose()?.unwrap_or_default())
}

/// Runs until the server ends.
pub(super) fn run(args: &McpGuardArgs, rules: Rules, config: &Config) -> Outcome {
    let mut own = args.server.clone();
    if own.listen.is_some() || own.allow_remote {
        return Err(Failure::usage(
            "--listen and --allow-remote need --url: with a command, the guard uses standard input and output",
        ));
    }
    // That they need --url says nothing to the command line where a command is in its place.
    if args.plain || args.http.is_some() || args.tls_cert.is_some() || args.tls_key.is_some() {
        return Err(Failure::usage(
            "--plain, --http, --tls-cert and --tls-key need --url: with a command, the guard uses standard input and output",
        ));
    }
    let (server, output) = Server::start(&args.command)?;
    let hardening = obol_sandbox::harden_process();
    let (opened, operator) = enter(hardening, &mut own, config, None, Sandbox::signal)?;

    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    server.end_on_signal(&runtime)?;
    let stop = Stop::new();
    let ended = serve(rules, opened, operator, &runtime, &stop, &server, output);
    stop.say();
    // A thread may still wait for the client; it ends with the process.
    runtime.shutdown_background();
    ended.and(server.end())
}

/// Reads what is to be read, enters the sandbox with what `more` leaves, and opens what decides.
pub(super) fn enter(
    mut hardening: Vec<Measure>,
    own: &mut RsArgs,
    config: &Config,
    listen: Option<SocketAddr>,
    more: impl FnOnce(Sandbox) -> Sandbox,
) -> Outcome<(Opened, Option<OperatorDoor>)> {
    let prepared = Prepared::read(own, config)?;
    if own.spent.is_none() && config.rs.spent.is_none() {
        // Guards of other servers run beside this one, and each file has one owner.
        let hash = prepared.audience().hash();
        let own_part = to_hex(hash.first_chunk::<8>().map(|part| &part[..]).unwrap_or_default());
        own.spent = Some(place(None, &format!("mcp-spent-{own_part}.redb"))?);
    }
    let operator = named_operator_door(own)?;
    let sandbox = match config.rs.sandbox {
        Some(false) => None,
        _ => Some(more(prepared.reach(own, config, listen, operator.as_ref())?)),
    };
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    Ok((prepared.open(own, config)?, operator))
}

fn read_rules(path: &Path) -> Outcome<Rules> {
    let wrong =
        |why: &dyn core::fmt::Display| Failure::usage(format_args!("the rules in {}: {why}", path.display()));
    let text = file::read_rules(path, MAX_RULES_BYTES).map_err(Failure::usage)?;
    let text = str::from_utf8(&text).map_err(|_| wrong(&"not UTF-8"))?;
    let rules: Rules = toml::from_str(text).map_err(|error| wrong(&error))?;
    rules.check().map_err(|why| wrong(&why))?;
    Ok(rules)
}

/// Both sides, and what is between them.
struct Between {
    front: Front,
    runtime: Handle,
    client: Sink<Stdout>,
    server: Arc<Sink<ChildStdin>>,
}

fn serve(
    rules: Rules,
    opened: Opened,
    operator: Option<OperatorDoor>,
    runtime: &Runtime,
    stop: &Stop,
    server: &Server,
    output: ChildStdout,
) -> Outcome {
    let Opened { gate, control, follower, reloader } = opened;
    let front = front(gate, rules, Arc::clone(&control.sessions));
    {
        let _inside = runtime.enter();
        runtime.spawn(reloader.read_on(signal(SignalKind::hangup())?));
        if let Some(follower) = follower {
            runtime.spawn(follower.run(stop.clone()));
        }
    }
    if let Some(door) = operator {
        let _ends_with_the_process = door.serve(control, NAME, stop.clone())?;
    }
    let between = Arc::new(Between {
        front,
        runtime: runtime.handle().clone(),
        client: Sink::new(io::stdout()),
        server: Arc::clone(&server.input),
    });
    let client = Arc::clone(&between);
    std::thread::Builder::new().name("obol-client".to_owned()).spawn(move || {
        let _server_gone = client.read_client(io::stdin().lock());
        client.server.close();
    })?;
    between.read_server(output)
}

/// What looks at each message.
pub(super) fn front(gate: Gate, rules: Rules, sessions: Arc<dyn SessionStore>) -> Front {
    say_what_passes(&rules);
    let clock = SystemClock::new();
    let granted = move |tool: &str| is_granted(&*sessions, tool, clock.now());
    Front::new(ToolGuard::new(gate), rules, Box::new(granted))
}

/// So that nobody takes for guarded what is not.
fn say_what_passes(rules: &Rules) {
    let methods = rules.passing().collect::<Vec<_>>().join(", ");
    let tools = rules.open_tools().collect::<Vec<_>>().join(", ");
    tracing::info!(methods, tools, "these pass without a token");
}

/// Whether some session that lives may use a tool.
fn is_granted(sessions: &dyn SessionStore, tool: &str, now: u64) -> bool {
    let lives = |end: Option<u64>| end.is_none_or(|end| now <= end);
    sessions.list().iter().any(|session| {
        session.is_active() && lives(session.window().map(|window| window.end)) && session.may_use(tool)
    })
}

impl Between {
    /// Client to server, line by line. An error is the server's end.
    fn read_client(&self, from: impl Read) -> io::Result<()> {
        let mut lines = Lines::new(from, MAX_CLIENT_BYTES);
        loop {
            match lines.next()? {
                Found::Line => {
                    let seen = self.runtime.block_on(self.front.from_client(inside(lines.line())));
                    match seen {
                        FromClient::Send(line) => self.server.write_line(line)?,
                        FromClient::Answer(line) => self.tell(line),
                        FromClient::Drop => {}
                    }
                }
                Found::TooLong => self.tell(obol_mcp::front::too_long(MAX_CLIENT_BYTES)),
                // What has no end is no message.
                Found::End => return Ok(()),
            }
        }
    }

    /// An answer that the server did not give. Who does not hear it is gone, and the other direction finds that out.
    fn tell(&self, line: String) {
        let _client_gone = self.client.write_line(line);
    }

    /// Server to client, until the server ends or nobody hears it any more.
    fn read_server(&self, from: impl Read) -> Outcome {
        let mut lines = Lines::new(from, MAX_SERVER_BYTES);
        loop {
            match lines.next()? {
                Found::Line => {}
                Found::End => return Ok(()),
                Found::TooLong => {
                    return Err(Failure::other(format_args!(
                        "a line from the server is longer than {MAX_SERVER_BYTES} bytes and was dropped"
                    )));
                }
            }
            let told = match self.front.from_server(inside(lines.line())) {
                FromServer::Pass => self.client.write(lines.line()),
                FromServer::Tell(line) => self.client.write_line(line),
                FromServer::Drop => {
                    tracing::error!(
                        "a line from the server cannot be read and is dropped: a result waits to be sealed"
                    );
                    Ok(())
                }
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }
}
