//! `obol dev`: all roles on loopback until Ctrl-C, with an agent that is registered, approved and has a session.
//!
//! Who starts it is the human who says yes: to an agent of its own, on its own machine. The rest is as elsewhere: the
//! handshake, the policy, the stream, and each role a process of its own.

mod folder;
mod roles;

use core::fmt::Write as _;
use core::net::SocketAddr;
use core::time::Duration;
use std::net::TcpStream;
use std::time::Instant;

use obol_client::{AuthClient, Client};
use obol_ipc::auth::{AuthState, RegisterParams};
use obol_ipc::names::WishedName;
use obol_ipc::numbers::AlgorithmSuite;
use obol_sandbox::Measure;

use self::folder::{Addresses, DevFolder};
use self::roles::{Roles, obol, say};
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::output;
use crate::output::quote;
use crate::peer::options;
use crate::role::operator::Operator;
use crate::role::sandbox;
use crate::settings::args::DevArgs;
use crate::signals::shutdown_signal;

/// The agent's name, and the role it has.
const AGENT: &str = "dev-agent";
const ROLE: &str = "developer";
/// How long the roles may take until they answer, and until there is a session.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How often the roles are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// `obol dev`.
pub(crate) fn run(args: &DevArgs) -> Outcome {
    let hardening = obol_sandbox::harden_process();
    let place = DevFolder::open(args.dir.as_deref())?;
    let addresses = place.addresses(args.listen)?;
    let tool = place.policy(&args.tool, &addresses.audience)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut shutdown = core::pin::pin!(shutdown_signal()?);
        let mut dev = Dev::start(place, addresses, hardening)?;
        let mut told = false;
        let started = Instant::now();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            dev.roles.check()?;
            if told {
                continue;
            }
            if let Some(agent) = dev.advance()? {
                told = true;
                dev.tell(&agent, &tool);
            } else if started.elapsed() > START_PATIENCE {
                return Err(Failure::unavailable("the roles do not answer, or there is no session"));
            }
        }
        dev.roles.stop();
        Ok(())
    })
}

/// How the agent stands.
enum Agent {
    /// It has a session, of this suite.
    Ready(AlgorithmSuite),
    /// It gets none before somebody says so; why.
    Ended(String),
}

/// All that runs.
struct Dev {
    place: DevFolder,
    addresses: Addresses,
    roles: Roles,
    operator: Operator,
    /// The code that was said yes to; the agent hears of it in its own time.
    approved: Option<String>,
}

impl Dev {
    /// Starts the service, then those who need to know its key.
    fn start(place: DevFolder, addresses: Addresses, mut hardening: Vec<Measure>) -> Outcome<Self> {
        let operator = Operator::at(place.socket("as-control.sock")?);
        let mut dev = Self { place, addresses, roles: Roles::new(), operator, approved: None };
        dev.start_authority()?;
        let pin = dev.operator.status()?.pin;
        dev.join(&pin)?;
        dev.start_resource_server(&pin)?;
        dev.start_sidecar(&pin)?;
        // Everything that runs was started, and there is one thread; the next would be outside.
        let sandbox = sandbox::of_dev(dev.addresses.listen, dev.place.temporary());
        hardening.extend(sandbox::enter(Some(&sandbox)));
        obol_sandbox::report(&hardening, None);
        log_lines::begin()?;
        dev.roles.pass_on_logs();
        Ok(dev)
    }

    fn start_authority(&mut self) -> Outcome {
        let place = &self.place;
        let mut command = obol(place.path())?;
        command.args(["as", "--http", "off", "--org", "dev", "--listen", &self.addresses.service]);
        command.arg("--policy").arg(place.file("policy")).arg("--directory").arg(place.file("as.redb"));
        command.arg("--master-key").arg(place.file("as-master.key"));
        command.arg("--identity-key").arg(place.file("as-identity.key"));
        command.arg("--as-control-socket").arg(place.file("as-control.sock"));
        self.roles.start("as", command)?;
        let deadline = Instant::now() + START_PATIENCE;
        while !self.operator.is_heard() {
            self.roles.check()?;
            if Instant::now() > deadline {
                return Err(Failure::unavailable("obol as does not answer"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Makes the resource server known, unless an earlier start did.
    fn join(&self, pin: &str) -> Outcome {
        let (audience, key) = (&self.addresses.audience, self.place.file("rs-identity.key"));
        if key.exists() && self.operator.has_copy(audience)? {
            return Ok(());
        }
        let code = self.operator.invite_server(audience)?;
        let mut command = obol(self.place.path())?;
        command
            .args(["rs", "join", "--code-file", "-", "--authority", pin])
            .arg("--rs-identity-key")
            .arg(key);
        say(command, &code)
    }

    fn start_resource_server(&mut self, pin: &str) -> Outcome {
        let place = &self.place;
        let mut command = obol(place.path())?;
        command.args(["rs", "--authority", pin, "--audience", &self.addresses.audience]);
        command.arg("--listen").arg(self.addresses.listen.to_string());
        command.arg("--rs-identity-key").arg(place.file("rs-identity.key"));
        command.arg("--spent").arg(place.file("spent.redb"));
        command.arg("--rs-control-socket").arg(place.file("rs-control.sock"));
        if !place.file("spent.redb").exists() {
            command.arg("--first-start");
        }
        self.roles.start("rs", command)
    }

    fn start_sidecar(&mut self, pin: &str) -> Outcome {
        let place = &self.place;
        let mut tqs = obol(place.path())?;
        tqs.arg("tqs").arg("--store").arg(place.file("tokens.redb"));
        tqs.arg("--master-key")
            .arg(place.file("master.key"))
            .arg("--audit-log")
            .arg(place.file("audit.jsonl"));
        let mut authenticator = obol(place.path())?;
        authenticator.args(["authenticator", "--http", "off", "--url", pin]);
        authenticator.arg("--auth-socket").arg(place.file("auth.sock"));
        authenticator.arg("--auth-control-socket").arg(place.file("auth-control.sock"));
        authenticator.arg("--identity").arg(place.file("identity"));
        authenticator.arg("--identity-key").arg(place.file("identity.key"));
        for command in [&mut tqs, &mut authenticator] {
            command.arg("--socket").arg(place.file("agent.sock"));
            command.arg("--control-socket").arg(place.file("control.sock"));
        }
        self.roles.start("tqs", tqs)?;
        self.roles.start("authenticator", authenticator)
    }

    /// Takes the agent a step further; tells how it stands, once there is nothing left to wait for.
    fn advance(&mut self) -> Outcome<Option<Agent>> {
        let Ok(mut client) = AuthClient::connect(self.place.socket("auth.sock")?, options()?) else {
            return Ok(None);
        };
        let status = client.auth_status()?;
        match status.state {
            AuthState::Unregistered => {
                let wish = |text: &str| WishedName::new(text).map_err(Failure::other);
                let (name, roles) = (Some(wish(AGENT)?), vec![wish(ROLE)?]);
                client.register(RegisterParams { name, roles, ..RegisterParams::default() })?;
                Ok(None)
            }
            AuthState::Waiting => {
                let code = status.registration.code.unwrap_or_default();
                if self.approved.as_ref() == Some(&code) {
                    return Ok(None);
                }
                let seen = self.operator.review(&code)?;
                if seen.registration.words != status.registration.words {
                    return Err(Failure::other(
                        "the words of the agent's key are not the same at the service",
                    ));
                }
                self.operator.approve(&code, &seen)?;
                self.approved = Some(code);
                Ok(None)
            }
            AuthState::Authenticated => {
                let sidecar = Client::connect(self.place.socket("agent.sock")?, options()?);
                let drawable = sidecar.is_ok_and(|mut sidecar| sidecar.session_info().is_ok());
                let session = status.session.filter(|_| drawable && self.server_listens());
                Ok(session.map(|session| Agent::Ready(session.algorithm_suite)))
            }
            AuthState::Stopped | AuthState::Held => {
                let why =
                    status.problem.map_or_else(|| "the agent is held".to_owned(), |problem| problem.message);
                Ok(Some(Agent::Ended(why)))
            }
            _ => Ok(None),
        }
    }

    fn server_listens(&self) -> bool {
        TcpStream::connect_timeout(&self.addresses.listen, LOOK).is_ok()
    }

    fn tell(&self, agent: &Agent, tool: &str) {
        output::line(&told(&self.place, self.addresses.listen, agent, tool));
    }
}

/// What there is, and what to paste.
fn told(place: &DevFolder, address: SocketAddr, agent: &Agent, tool: &str) -> String {
    let program = std::env::current_exe().map_or_else(|_| "obol".to_owned(), |at| at.display().to_string());
    let program = quote(&program);
    let socket = |name: &str| quote(&format!("unix://{}", place.file(name).display()));
    let ending = if place.temporary().is_some() { "gone at the end" } else { "kept" };
    let mut text = format!(
        "An Authentication Service, a sidecar and a resource server are up, in {} ({ending}). Ctrl-C ends them.\n",
        place.path().display()
    );
    let mut line = |line: &str| {
        let _always = writeln!(text, "{line}");
    };
    match agent {
        Agent::Ready(suite) => line(&format!(
            "The agent {AGENT} is registered; starting this counted as your approval. Its session uses suite {suite}.\n"
        )),
        Agent::Ended(why) => line(&format!("The agent {AGENT} gets no session: {why}\n")),
    }
    line("In another shell:\n");
    for (name, at) in [
        ("OBOL_ENDPOINT_SOCKET", "agent.sock"),
        ("OBOL_CONTROL_SOCKET", "control.sock"),
        ("OBOL_RS_CONTROL_SOCKET", "rs-control.sock"),
        ("OBOL_AS_CONTROL_SOCKET", "as-control.sock"),
    ] {
        line(&format!("  export {name}={}", socket(at)));
    }
    line("\nDraw a token and have it verified; a second use of the same token is refused:\n");
    let tool_in_shell = quote(tool);
    let body =
        format!("{{\\\"token\\\":\\\"$({program} dequeue {tool_in_shell})\\\",\\\"tool\\\":\\\"{tool}\\\"}}");
    line(&format!("  curl -s http://{address}/v1/verify -d \"{body}\"\n"));
    line("End the agent everywhere, and let it in again:\n");
    line(&format!("  {program} agent disable {AGENT} --reason 'hijacked'"));
    line(&format!("  {program} agent enable {AGENT}\n"));
    line(&format!("Watch:\n\n  {program} status --watch"));
    text
}
