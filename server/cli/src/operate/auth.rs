//! What an agent, or its human, asks of the authenticator: register, authenticate, status.

use core::time::Duration;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Instant;

use obol_client::{AuthClient, AuthControlClient};
use obol_ipc::auth::{
    AuthState, AuthStatusResult, OpenSession, RegisterParams, RegistrationFlow, RegistrationResult,
    RegistrationState, Route,
};
use obol_ipc::names::{ToolName, WishedName};
use obol_ipc::secret::{AssertionText, MAX_ASSERTION_BYTES, TicketText};
use obol_ipc::{AUTH_CONTROL_SOCKET_VARIABLE, AUTH_SOCKET_VARIABLE, Endpoint};
use obol_secret::file::{PrivateFile, read_public};

use crate::exit::{Exit, Failure, Outcome};
use crate::operate::connect::CONNECT_PAUSE;
use crate::operate::other_user::unconnected;
use crate::output::{self, Table, text};
use crate::peer::options;
use crate::places::environment;
use crate::settings::args::authenticator::{
    AuthArgs, AuthCommand, AuthOperatorArgs, AuthSocket, AuthenticateArgs, RegisterArgs,
};

/// The longest file with a ticket, in bytes.
const MAX_TICKET_BYTES: usize = 1 << 10;
/// How long who registers or authenticates waits for an authenticator that is starting.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two questions whether the human has decided.
const POLL_PAUSE: Duration = Duration::from_secs(2);

impl AuthSocket {
    /// A running authenticator.
    fn connect(&self) -> Outcome<AuthClient> {
        self.connect_until(Instant::now())
    }

    /// One that may still be starting.
    fn connect_soon(&self) -> Outcome<AuthClient> {
        self.connect_until(Instant::now() + START_PATIENCE)
    }

    fn connect_until(&self, deadline: Instant) -> Outcome<AuthClient> {
        loop {
            let agent =
                Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(Failure::usage)?;
            let endpoint =
                Endpoint::auth(self.auth_socket.as_deref(), &agent, environment).map_err(Failure::usage)?;
            match AuthClient::connect(endpoint, options()?) {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    std::thread::sleep(CONNECT_PAUSE);
                }
                connected => return connected.map_err(|error| unconnected(error, AUTH_SOCKET_VARIABLE)),
            }
        }
    }
}

impl AuthOperatorArgs {
    /// The operator's socket of a running authenticator.
    fn connect(&self) -> Outcome<AuthControlClient> {
        let agent =
            Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(Failure::usage)?;
        let endpoint = Endpoint::auth_control(self.auth_control_socket.as_deref(), &agent, environment)
            .map_err(Failure::usage)?;
        AuthControlClient::connect(endpoint, options()?)
            .map_err(|error| unconnected(error, AUTH_CONTROL_SOCKET_VARIABLE))
    }
}

/// `obol register`.
pub(crate) fn register(args: &RegisterArgs) -> Outcome {
    let params = wished(args)?;
    let mut client = args.socket.connect_soon()?;
    if let Some(typed) = &args.return_code {
        return tell(&complete(&mut client, typed)?, args);
    }
    let mut seen = client.register(params)?;
    if seen.state != RegistrationState::Waiting || !args.wait {
        return tell(&seen, args);
    }
    // Now, and not only at the end: a human has to act on it.
    if args.output.json {
        output::json(&serde_json::to_value(&seen).map_err(Failure::other)?);
    } else {
        tell_how(&seen);
        output::line("\nWaiting for the human …");
    }
    if seen.return_code && std::io::stdin().is_terminal() {
        seen = return_code(&mut client)?;
    }
    while seen.state == RegistrationState::Waiting {
        std::thread::sleep(POLL_PAUSE);
        seen = client.registration_status()?;
    }
    tell(&seen, args)
}

/// Asks for the words that the page shows after a yes, until they are right or there is nothing to complete any more.
fn return_code(client: &mut AuthClient) -> Outcome<RegistrationResult> {
    loop {
        let mut prompt = std::io::stderr();
        prompt.write_all(b"Return code (three words, from the page): ").and_then(|()| prompt.flush())?;
        let mut typed = String::new();
        if std::io::stdin().lock().read_line(&mut typed)? == 0 {
            return Ok(client.registration_status()?);
        }
        match complete(client, &typed) {
            Ok(seen) => return Ok(seen),
            Err(failure) => output::line(&failure.to_string()),
        }
        let seen = client.registration_status()?;
        if seen.state != RegistrationState::Waiting {
            return Ok(seen);
        }
    }
}

fn complete(client: &mut AuthClient, typed: &str) -> Outcome<RegistrationResult> {
    let words: Vec<String> =
        typed.split([' ', '-', '\t', '\n']).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    let code = WishedName::new(words.join("-")).map_err(|_| {
        Failure::usage(
            "a return code is three words of five letters, as the page shows them after the approval",
        )
    })?;
    Ok(client.complete_registration(code)?)
}

fn wished(args: &RegisterArgs) -> Outcome<RegisterParams> {
    let one =
        |name: &Option<String>| name.as_deref().map(WishedName::new).transpose().map_err(Failure::usage);
    Ok(RegisterParams {
        name: one(&args.name)?,
        class: one(&args.class)?,
        roles: args.role.iter().map(WishedName::new).collect::<Result<_, _>>().map_err(Failure::usage)?,
        tools: args.tool.iter().map(ToolName::new).collect::<Result<_, _>>().map_err(Failure::usage)?,
        ticket: args.ticket_file.as_deref().map(ticket).transpose()?,
        flow: args.remote.then_some(RegistrationFlow::Code),
        assertion: args.assertion_file.as_deref().map(assertion).transpose()?,
    })
}

/// Platforms put their tokens where they like, by links and for all of a machine to read: who may is theirs to say.
fn assertion(file: &Path) -> Outcome<AssertionText> {
    let bytes = read_public(file, MAX_ASSERTION_BYTES + 1)?;
    let text = core::str::from_utf8(&bytes).map_err(Failure::usage)?;
    AssertionText::new(text.trim_ascii())
        .map_err(|error| Failure::usage(format_args!("the assertion in {}: {error}", file.display())))
}

fn ticket(file: &Path) -> Outcome<TicketText> {
    let bytes = PrivateFile::read(file, MAX_TICKET_BYTES)?;
    let text = core::str::from_utf8(&bytes).map_err(Failure::usage)?;
    TicketText::new(text.trim_ascii())
        .map_err(|error| Failure::usage(format_args!("the ticket in {}: {error}", file.display())))
}

/// How it stands. Who waits for a human has not failed, but is not there yet.
fn tell(seen: &RegistrationResult, args: &RegisterArgs) -> Outcome {
    if args.output.json {
        output::json(&serde_json::to_value(seen).map_err(Failure::other)?);
    }
    match seen.state {
        RegistrationState::Active => {
            if !args.output.json {
                let id = seen.agent_id.as_ref().map_or("-", AsRef::as_ref);
                let until = seen.approval_expires_at.map(|end| format!(", until {end}")).unwrap_or_default();
                output::line(&format!("The agent is registered: {id}{until}"));
            }
            Ok(())
        }
        RegistrationState::Waiting => {
            if !args.output.json {
                tell_how(seen);
            }
            Ok(())
        }
        RegistrationState::Denied => Err(Failure::new(Exit::Denied, "a human denied the agent")),
        RegistrationState::Expired => Err(Failure::new(
            Exit::Login,
            "nobody decided about the agent in time; run `obol register` again",
        )),
        _ => Err(Failure::new(Exit::Login, "the agent is not registered; run `obol register`")),
    }
}

fn tell_how(seen: &RegistrationResult) {
    let code = seen.code.as_deref().unwrap_or("-");
    let until = seen.expires_at.map(|end| format!(" until {end}")).unwrap_or_default();
    match &seen.page {
        None => {
            output::line(&format!("A human must approve this agent{until}. Where the service runs:\n"));
            output::line(&format!("  obol approve {code}\n"));
        }
        Some(page) if seen.return_code => {
            output::line(&format!("A human must approve this agent{until}. In a browser on any machine:\n"));
            output::line(&format!("  {page}\n\nwith the code\n\n  {code}\n"));
            output::line("After the approval the page shows a return code of three words. Type it here:\n");
            output::line("  obol register --return-code \"WORD WORD WORD\"\n");
        }
        Some(page) => {
            output::line(&format!("A human must approve this agent{until}. In a browser on this machine:\n"));
            output::line(&format!("  {page}\n"));
            output::line("Without a browser here, for example over SSH, use `obol register --remote`.\n");
        }
    }
    output::line("They see the agent's key in words, which must be these:\n");
    output::line(&format!("  {}", seen.words));
}

/// `obol authenticate`.
pub(crate) fn authenticate(args: &AuthenticateArgs) -> Outcome {
    let mut client = args.socket.connect_soon()?;
    let session = if args.if_needed { client.ensure_authenticated()? } else { client.authenticate()? };
    if args.output.json {
        output::json(&serde_json::to_value(&session).map_err(Failure::other)?);
    } else {
        output::line(&format!("session {}", told(&session)));
    }
    Ok(())
}

fn told(session: &OpenSession) -> String {
    format!("{} of suite {}, until {}", session.session_id, session.algorithm_suite, session.expires_at)
}

/// `obol auth …`.
pub(crate) fn auth(args: &AuthArgs) -> Outcome {
    match &args.command {
        AuthCommand::Status { socket, output } => status(socket, output.json),
        AuthCommand::Rotate(args) => rotate(args),
        AuthCommand::Deregister { operator, .. } => deregister(operator),
    }
}

fn rotate(args: &AuthOperatorArgs) -> Outcome {
    let done = args.connect()?.rotate()?;
    if args.output.json {
        output::json(&serde_json::to_value(&done).map_err(Failure::other)?);
    } else {
        output::line(&format!(
            "The key of {} was replaced. The new one in words:\n\n  {}",
            done.agent_id, done.words
        ));
    }
    Ok(())
}

fn deregister(args: &AuthOperatorArgs) -> Outcome {
    let done = args.connect()?.deregister()?;
    if args.output.json {
        output::json(&serde_json::to_value(&done).map_err(Failure::other)?);
    } else {
        let id = &done.agent_id;
        output::line(&format!(
            "{id} has ended for good. The next agent here needs another key: `obol register`"
        ));
    }
    Ok(())
}

fn status(socket: &AuthSocket, json: bool) -> Outcome {
    let status = socket.connect()?.auth_status()?;
    if json {
        output::json(&serde_json::to_value(&status).map_err(Failure::other)?);
    } else {
        show(&status)?;
    }
    match status.state {
        AuthState::Authenticated => Ok(()),
        state => Err(Failure::new(Exit::Login, why(&status, &text(&state)?))),
    }
}

/// Why there is no session, in a line.
fn why(status: &AuthStatusResult, state: &str) -> String {
    match (&status.problem, &status.hold) {
        (_, Some(hold)) => {
            format!(
                "an operator flushed the sidecar ({}: {}); run `obol resume` first",
                hold.scope, hold.reason
            )
        }
        (Some(problem), _) => format!("no session ({state}): {}: {}", problem.code, problem.message),
        (None, None) => format!("no session: the agent is {state}"),
    }
}

fn show(status: &AuthStatusResult) -> Outcome {
    let mut table = Table::new(&["what", "how"]);
    let mut row = |what: &str, how: String| table.row([what.to_owned(), how]);
    let registration = &status.registration;
    row("state", text(&status.state)?);
    row("service", status.authority.clone());
    row("agent", registration.agent_id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string));
    row("registration", text(&registration.state)?);
    row("key in words", registration.words.clone());
    if let Some(code) = &registration.code {
        let how = registration.page.as_ref().map(|page| format!("{page} ({code})"));
        row("to approve", how.unwrap_or_else(|| format!("obol approve {code}")));
    }
    if let Some(end) = registration.approval_expires_at {
        row("approved until", end.to_string());
    }
    if let Some(session) = &status.session {
        row("session", told(session));
    }
    if let Some(at) = status.renew_at {
        row("next session", at.to_string());
    }
    if let Some(skew) = status.skew_seconds {
        let how = if skew < 0 { "behind" } else { "ahead of" };
        row("clock", format!("{} s {how} the service's", skew.unsigned_abs()));
    }
    if let Some(problem) = &status.problem {
        let again = problem.retry_at.map(|at| format!("; again at {at}")).unwrap_or_default();
        row("problem", format!("{} at {}: {}{again}", problem.code, problem.at, problem.message));
    }
    for route in &status.routes {
        let tools: Vec<_> = route.tools.iter().map(AsRef::as_ref).collect();
        row(route.audience.as_ref(), format!("{}{}", tools.join(", "), narrowed(route)));
    }
    table.print();
    Ok(())
}

/// Which requests to the resource server are calls of the tools, where not all are.
fn narrowed(route: &Route) -> String {
    let method = route.method.as_ref().map(|method| format!(" {method}"));
    let path = route.path.as_ref().map(|path| format!(" {path}"));
    let url = route.url.as_ref().map(|url| format!(" at {url}"));
    let via = route.via.as_ref().map(|via| format!(" via {via}"));
    [method, path, url, via].into_iter().flatten().collect()
}
