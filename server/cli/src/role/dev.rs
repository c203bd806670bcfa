//! `obol dev`: the roles that exist, on loopback, with a session made for them, until Ctrl-C.
//!
//! Each role is a process of its own, as it would be elsewhere, and ends with this one, however that ends.

use core::fmt::Write as _;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::PeerName;
use obol_sandbox::Measure;
use obol_session::ResourceHalf;
use obol_token::Suite;

use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::output;
use crate::output::quote;
use crate::role::sandbox;
use crate::sessions::create::{self, Plan};
use crate::settings::args::DevArgs;
use crate::signals::shutdown_signal;

const DEFAULT_PORT: u16 = 8700;
/// How long a role may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a role may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// How often the roles are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Life of a token, in seconds.
const TTL_SECS: u64 = 60;

/// `obol dev`.
pub(crate) fn run(args: &DevArgs) -> Outcome {
    let hardening = obol_sandbox::harden_process();
    let address = address(args.listen)?;
    let place = DevFolder::open(args.dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut shutdown = core::pin::pin!(shutdown_signal()?);
        let mut roles = start(args, &place, address, hardening)?;
        let mut told = false;
        let started = Instant::now();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            roles.check()?;
            if !told && roles.answer(&place, address) {
                told = true;
                tell(&place, address, args)?;
            } else if !told && started.elapsed() > START_PATIENCE {
                return Err(Failure::unavailable("the roles do not answer"));
            }
        }
        roles.stop();
        Ok(())
    })
}

/// Where the resource server will listen.
fn address(named: Option<SocketAddr>) -> Outcome<SocketAddr> {
    if let Some(named) = named {
        if !named.ip().is_loopback() {
            return Err(Failure::usage(format_args!(
                "{named} is not a loopback address; `obol dev` listens on nothing else. Use `obol rs` for that"
            )));
        }
        if named.port() != 0 {
            return Ok(named);
        }
        return free(named);
    }
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));
    free(usual).or_else(|_taken| free(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
}

/// A port that nobody listens on at this moment.
fn free(address: SocketAddr) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::unavailable(format_args!("cannot listen on {address}: {error}")))?;
    Ok(listener.local_addr()?)
}

/// The folder everything is in.
struct DevFolder {
    folder: PathBuf,
    /// Removes the folder at the end.
    temporary: Option<tempfile::TempDir>,
}

impl DevFolder {
    fn open(named: Option<&Path>) -> Outcome<Self> {
        let Some(named) = named else {
            let closed = fs::Permissions::from_mode(0o700);
            let folder = tempfile::Builder::new().prefix("obol-dev-").permissions(closed).tempdir()?;
            return Ok(Self { folder: folder.path().to_owned(), temporary: Some(folder) });
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(named)
            .and_then(|()| fs::canonicalize(named))
            .map(|folder| Self { folder, temporary: None })
            .map_err(|error| {
                Failure::usage(format_args!("cannot use the folder {}: {error}", named.display()))
            })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A session made afresh, in place of one of an earlier time.
    fn new_session(&self, args: &DevArgs, audience: &str) -> Outcome {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let grants = args.tool.iter().map(|tool| (tool.as_str(), "call", "**", TTL_SECS)).collect();
        let plan = Plan {
            suite: Suite::Tbac,
            audience,
            agent: "dev-agent",
            now,
            lifetime: args.lifetime,
            grants,
            require_pop: false,
        };
        let halves = create::halves(&plan)?;
        let servers = ResourceHalf::list_to_json_lines(&halves.servers);
        for (name, text) in [("agent-session.json", &halves.agent), ("rs-sessions.json", &servers)] {
            let _not_there = fs::remove_file(self.file(name));
            create::write_new(&self.file(name), text)?;
        }
        Ok(())
    }
}

/// A role's process.
struct Role {
    name: &'static str,
    child: Child,
}

struct Roles(Vec<Role>);

fn start(
    args: &DevArgs,
    place: &DevFolder,
    address: SocketAddr,
    mut hardening: Vec<Measure>,
) -> Outcome<Roles> {
    let audience = format!("http://{address}");
    place.new_session(args, &audience)?;
    let mut tqs = role("tqs", place)?;
    tqs.arg("--socket").arg(place.file("agent.sock")).arg("--control-socket").arg(place.file("control.sock"));
    tqs.arg("--store").arg(place.file("tokens.redb")).arg("--master-key").arg(place.file("master.key"));
    tqs.arg("--session").arg(place.file("agent-session.json")).arg("--audit").arg(place.file("audit.jsonl"));
    let mut rs = role("rs", place)?;
    rs.arg("--listen").arg(address.to_string()).arg("--audience").arg(&audience);
    rs.arg("--sessions").arg(place.file("rs-sessions.json")).arg("--spent").arg(place.file("spent.redb"));
    rs.arg("--rs-control-socket").arg(place.file("rs-control.sock"));
    if !place.file("spent.redb").exists() {
        rs.arg("--first-start");
    }
    let mut roles = Roles(Vec::new());
    for (name, command) in [("tqs", &mut tqs), ("rs", &mut rs)] {
        roles.0.push(Role { name, child: command.spawn()? });
    }
    // Everything that runs was started, and there is one thread; the next would be outside.
    let sandbox = sandbox::of_dev(address, place.temporary.as_ref().map(tempfile::TempDir::path));
    hardening.extend(sandbox::enter(Some(&sandbox)));
    obol_sandbox::report(&hardening, None);
    log_lines::begin()?;
    for role in &mut roles.0 {
        pass_on(role.name, &mut role.child);
    }
    Ok(roles)
}

/// A command that sees none of this machine's own settings and ends with us.
fn role(name: &str, place: &DevFolder) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--end-with-parent", name]);
    command.env_clear().env("HOME", &place.folder).current_dir(&place.folder);
    // A process group of its own: Ctrl-C comes to us, and we end the roles in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// Writes a role's log on our standard error, each line marked whose it is.
fn pass_on(name: &'static str, child: &mut Child) {
    let Some(log) = child.stderr.take() else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            log_lines::line(&format!("{name} | {line}"));
        }
    });
}

impl Roles {
    /// An error if one has ended.
    fn check(&mut self) -> Outcome {
        for role in &mut self.0 {
            if let Some(status) = role.child.try_wait()? {
                return Err(Failure::unavailable(format_args!(
                    "obol {} ended ({status}); see its log above",
                    role.name
                )));
            }
        }
        Ok(())
    }

    /// Whether all of them answer.
    fn answer(&self, place: &DevFolder, address: SocketAddr) -> bool {
        let Ok(name) = PeerName::new("obol-dev/1") else { return false };
        let Ok(endpoint) = Endpoint::at(place.file("agent.sock")) else { return false };
        Client::connect(endpoint, ConnectOptions::new(name)).is_ok()
            && TcpStream::connect_timeout(&address, LOOK).is_ok()
    }

    /// Ends all of them in good order.
    fn stop(&mut self) {
        for role in &mut self.0 {
            let _ended = rustix::process::kill_process(
                rustix::process::Pid::from_child(&role.child),
                rustix::process::Signal::TERM,
            );
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        for role in &mut self.0 {
            while Instant::now() < deadline && matches!(role.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        for role in &mut self.0 {
            // Ours by its handle; ended already is fine.
            let _ended = role.child.kill();
            let _ended = role.child.wait();
        }
    }
}

fn tell(place: &DevFolder, address: SocketAddr, args: &DevArgs) -> Outcome {
    let tool = args.tool.first().map_or("search", String::as_str);
    let program = quote(&std::env::current_exe()?.display().to_string());
    let socket = |name: &str| quote(&format!("unix://{}", place.file(name).display()));
    let mut text = String::new();
    let ending = if place.temporary.is_some() { "gone at the end" } else { "kept" };
    let _always = writeln!(
        text,
        "The sidecar and a resource server are up, in {} ({ending}). Ctrl-C ends them.\n",
        place.folder.display()
    );
    let _always = writeln!(text, "In another shell:\n");
    let _always = writeln!(text, "  export OBOL_ENDPOINT_SOCKET={}", socket("agent.sock"));
    let _always = writeln!(text, "  export OBOL_CONTROL_SOCKET={}", socket("control.sock"));
    let _always = writeln!(text, "  export OBOL_RS_CONTROL_SOCKET={}\n", socket("rs-control.sock"));
    let _always = writeln!(text, "Draw a token and have it verified; twice the same token is refused:\n");
    let tool_in_shell = quote(tool);
    let body =
        format!("{{\\\"token\\\":\\\"$({program} dequeue {tool_in_shell})\\\",\\\"tool\\\":\\\"{tool}\\\"}}");
    let _always = writeln!(text, "  curl -s http://{address}/v1/verify -d \"{body}\"\n");
    let _always = writeln!(text, "Watch:\n\n  {program} status --watch");
    output::line(&text);
    Ok(())
}
