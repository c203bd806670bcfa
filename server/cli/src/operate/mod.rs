//! The commands that talk to a running sidecar.

pub(crate) mod atp;
pub(crate) mod flush;
pub(crate) mod inspect;
mod other_user;
pub(crate) mod rs;
pub(crate) mod watch;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::control::{SessionState, StatusResult};
use obol_ipc::names::{Audience, PeerName, ToolName};
use obol_ipc::numbers::WaitMs;
use obol_ipc::proof::ArgumentsHash;
use obol_ipc::secret::SessionDocumentText;
use obol_ipc::user::name_of;
use obol_verify::ReadArguments;
use serde_json::json;

use crate::exit::{Failure, Outcome};
use crate::operate::other_user;
use crate::operate::watch::duration;
use crate::output::{self, Table};
use crate::sessions::files;
use crate::settings::args::{DequeueArgs, Output, Sockets, StatusArgs};

/// Pause between two attempts to reach a sidecar that is not there yet.
const CONNECT_PAUSE: Duration = Duration::from_millis(25);

impl Sockets {
    /// The agent's socket of a running sidecar.
    fn agent(&self) -> Outcome<Client> {
        self.agent_until(Instant::now())
    }

    /// The agent's socket of a sidecar that may still be starting.
    fn agent_until(&self, deadline: Instant) -> Outcome<Client> {
        loop {
            let endpoint =
                Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(Failure::usage)?;
            match Client::connect(endpoint, options()?) {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    std::thread::sleep(CONNECT_PAUSE);
                }
                connected => {
                    return connected.map_err(|error| other_user::unconnected(error, "OBOL_ENDPOINT_SOCKET"));
                }
            }
        }
    }

    /// The operator's socket of a running sidecar.
    pub(crate) fn control(&self) -> Outcome<ControlClient> {
        let agent =
            Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(Failure::usage)?;
        let endpoint =
            Endpoint::control(self.control_socket.as_deref(), &agent, environment).map_err(Failure::usage)?;
        ControlClient::connect(endpoint, options()?)
            .map_err(|error| other_user::unconnected(error, "OBOL_CONTROL_SOCKET"))
    }
}

pub(crate) fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

pub(crate) fn options() -> Outcome<ConnectOptions> {
    let name = PeerName::new(concat!("obol-cli/", env!("CARGO_PKG_VERSION"))).map_err(Failure::other)?;
    Ok(ConnectOptions::new(name))
}

/// `obol dequeue`. The wait is for the socket as well as for the token.
pub(crate) fn dequeue(args: &DequeueArgs) -> Outcome {
    let tool = ToolName::new(args.tool.as_str()).map_err(Failure::usage)?;
    let wait = WaitMs::new(args.wait).map_err(Failure::usage)?.as_duration();
    let audience = args.audience.as_deref().map(Audience::new).transpose().map_err(Failure::usage)?;
    let arguments = args.arguments.as_deref().map(hash_of).transpose()?;
    let deadline = Instant::now() + wait;
    output::must_be_open()?;
    let mut client = args.sockets.agent_until(deadline)?;
    let wait = deadline.saturating_duration_since(Instant::now());
    let drawn = match (&audience, arguments) {
        (audience, Some(arguments)) => {
            client.dequeue_token_with_proof(&tool, audience.as_ref(), arguments, wait)?
        }
        (None, None) => client.dequeue_token(&tool, wait)?,
        (Some(audience), None) => client.dequeue_token_for(&tool, audience, wait)?,
    };
    if args.output.json {
        let mut shown =
            json!({"token": drawn.token.expose(), "tool": drawn.tool, "expiresAt": drawn.expires_at});
        if let (Some(fields), Some(proof)) = (shown.as_object_mut(), &drawn.pop) {
            fields.insert("pop".to_owned(), json!(proof));
        }
        return output::token(&format!("{shown:#}"));
    }
    match &drawn.pop {
        Some(proof) => output::token(&format!("{}\n{}", drawn.token.expose(), proof.sig)),
        None => output::token(drawn.token.expose()),
    }
}

/// What a proof of possession is asked over: the arguments that a file holds.
fn hash_of(file: &Path) -> Outcome<ArgumentsHash> {
    const MAX_BYTES: u64 = 1 << 20;
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::usage(format_args!("the arguments in {}: {why}", file.display()))
    };
    let mut text = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut text),
        _ => File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text)),
    };
    read.map_err(|error| wrong(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(&format_args!("longer than {MAX_BYTES} bytes")));
    }
    let read: ReadArguments = obol_secret::json::parse(&text).map_err(|error| wrong(&error))?;
    let hash = obol_verify::arguments_hash(Some(&read.map)).filter(|_| !read.rounded);
    hash.map(ArgumentsHash::from_bytes).ok_or_else(|| {
        wrong(&"a number is beyond 2^53, or is rounded when it is read; no proof covers it, send it as text")
    })
}

/// `obol status`.
pub(crate) fn status(args: &StatusArgs) -> Outcome {
    if args.watch {
        return crate::operate::watch::run(args);
    }
    match &args.tool {
        Some(tool) => tool_status(args, tool),
        None => whole_status(&args.sockets, args.output),
    }
}

fn tool_status(args: &StatusArgs, tool: &str) -> Outcome {
    let tool = ToolName::new(tool).map_err(Failure::usage)?;
    let status = args.sockets.agent()?.token_status(Some(&tool))?;
    if args.output.json {
        output::json(&serde_json::to_value(&status).map_err(Failure::other)?);
        return Ok(());
    }
    let mut table = Table::new(&["tool", "depth", "ttl", "session", "renewal"]);
    table.row([
        tool.to_string(),
        status.queue_depth.to_string(),
        format!("{} s", status.ttl),
        yes_no(status.session_active, "active", "none"),
        renewal(status.renewal_pending, status.retry_after_ms),
    ]);
    table.print();
    Ok(())
}

fn whole_status(sockets: &Sockets, output: Output) -> Outcome {
    let status = sockets.control()?.status()?;
    if output.json {
        output::json(&serde_json::to_value(&status).map_err(Failure::other)?);
        return Ok(());
    }
    output::line(&format!("obol {}, process {}, up {} s", status.version, status.pid, status.uptime_seconds));
    output::line(&form(&status));
    if let Some(hold) = &status.hold {
        output::line(&format!(
            "no new session is taken since the flush of {} at {} ({}); `obol resume` takes them again",
            hold.scope, hold.since, hold.reason
        ));
    }
    output::line("");
    sessions_table(&status)?.print();
    output::line("");
    tools_table(&status).print();
    if !status.denied.is_empty() {
        output::line("");
        denied_table(&status).print();
    }
    Ok(())
}

/// Whether agents and sidecar are one user, and what follows from it.
fn form(status: &StatusResult) -> String {
    let own = name_of(status.uid);
    match status.agent_users.as_slice() {
        [] => format!("agents and sidecar are one user, {own}: an agent that runs code has the keys"),
        users => format!("sidecar: {own}; agents: {}", users.join(", ")),
    }
}

/// What is denied, granted or not, and on whose list.
pub(crate) fn denied_table(status: &StatusResult) -> Table {
    let mut table = Table::new(&["denied", "by"]);
    for denied in &status.denied {
        let by = match (denied.by_operator, denied.by_policy) {
            (true, true) => "operator, policy",
            (true, false) => "operator",
            _ => "policy",
        };
        table.row([denied.tool.to_string(), by.to_owned()]);
    }
    table
}

pub(crate) fn sessions_table(status: &StatusResult) -> Outcome<Table> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut table = Table::new(&["session", "agent", "suite", "state", "expires", "ends in"]);
    for session in &status.sessions {
        let seconds = session.expires_at.unix_seconds().saturating_sub(now);
        let is_open = matches!(session.state, SessionState::Active | SessionState::Held);
        table.row([
            session.session_id.to_string(),
            session.agent_instance_id.to_string(),
            session.algorithm_suite.to_string(),
            text(&session.state)?,
            text(&session.expires_at)?,
            if is_open { duration(seconds) } else { "-".to_owned() },
        ]);
    }
    Ok(table)
}

pub(crate) fn tools_table(status: &StatusResult) -> Table {
    let header = [
        "tool",
        "audience",
        "session",
        "ready",
        "stored",
        "minted",
        "handed out",
        "expired",
        "discarded",
        "denied",
        "renewal",
    ];
    let mut table = Table::new(&header);
    for tool in &status.tools {
        let numbers = [tool.ready, tool.stored, tool.minted, tool.handed_out, tool.expired, tool.discarded];
        table.row(
            [tool.tool.to_string(), tool.audience.to_string(), tool.session_id.to_string()]
                .into_iter()
                .chain(numbers.map(|number| number.to_string()))
                .chain([
                    yes_no(tool.denied, "denied", "-"),
                    renewal(tool.renewal_pending, tool.retry_after_ms),
                ]),
        );
    }
    table
}

/// `obol session`.
pub(crate) fn session(sockets: &Sockets, output: Output) -> Outcome {
    let session = sockets.agent()?.session_info()?;
    if output.json {
        output::json(&serde_json::to_value(&session).map_err(Failure::other)?);
        return Ok(());
    }
    let mut table = Table::new(&["session", "agent", "suite", "established", "expires"]);
    table.row([
        session.session_id.to_string(),
        session.agent_instance_id.to_string(),
        session.algorithm_suite.to_string(),
        text(&session.established_at)?,
        text(&session.expires_at)?,
    ]);
    table.print();
    Ok(())
}

/// `obol session provision`.
pub(crate) fn provision(sockets: &Sockets, output: Output, file: &Path, resume: bool) -> Outcome {
    let document = files::read_one(file)?;
    let text = std::str::from_utf8(&document)
        .map_err(|_| Failure::usage(format_args!("{} is not UTF-8", file.display())))?;
    let document = SessionDocumentText::new(text).map_err(Failure::usage)?;
    let mut control = sockets.control()?;
    let done = if resume { control.provision_and_resume(document)? } else { control.provision(document)? };
    if output.json {
        output::json(&serde_json::to_value(&done).map_err(Failure::other)?);
    } else {
        output::line(&format!("session {} provisioned with {} grants", done.session_id, done.grants));
    }
    Ok(())
}

/// A value as its JSON text has it, without quotes.
pub(crate) fn text(value: &impl serde::Serialize) -> Outcome<String> {
    let value = serde_json::to_value(value).map_err(Failure::other)?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// How long a renewal may take, in milliseconds, before it counts as one that failed and waits to be tried again.
const LONG_RENEWAL_MS: u64 = 1_000;

/// In how many seconds a renewal is tried again, where that is worth a word: minting backs off.
pub(crate) fn backs_off(pending: bool, retry_after_ms: Option<u64>) -> Option<u64> {
    retry_after_ms.filter(|wait| pending && *wait > LONG_RENEWAL_MS).map(|wait| wait.div_ceil(1_000))
}

fn renewal(pending: bool, retry_after_ms: Option<u64>) -> String {
    match backs_off(pending, retry_after_ms) {
        Some(seconds) => format!("again in {seconds} s"),
        None => yes_no(pending, "pending", "-"),
    }
}

fn yes_no(condition: bool, yes: &str, no: &str) -> String {
    if condition { yes } else { no }.to_owned()
}
