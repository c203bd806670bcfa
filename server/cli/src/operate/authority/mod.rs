//! The commands of the Authentication Service's operator.

mod agents;
mod calls;
mod confirmed;
mod events;
mod logins;
mod policies;
mod registrations;
mod servers;
mod tickets;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use obol_client::{AsControlClient, ConnectError};
use obol_ipc::names::Label;
use obol_ipc::{AS_CONTROL_SOCKET_VARIABLE, Endpoint};
use serde::Serialize;

pub(crate) use self::agents::agent;
pub(crate) use self::calls::approvals;
pub(crate) use self::events::events;
pub(crate) use self::logins::logins;
pub(crate) use self::policies::{activate, history};
pub(crate) use self::registrations::{approve, deny, registrations};
pub(crate) use self::servers::{remove_copy, servers};
pub(crate) use self::tickets::invite_server;
use crate::exit::{Exit, Failure, Outcome};
use crate::log_lines;
use crate::operate::afar::{self, Kept};
use crate::operate::other_user::unconnected;
use crate::output;
use crate::peer::options;
use crate::places::environment;
use crate::settings::args::authority::AsOperatorArgs;

const DAY_SECS: u64 = 86_400;

/// The service that is meant: the one that is named; else that of this machine; else, where there is none, the one that somebody
/// is logged in at, which is said.
fn connect(args: &AsOperatorArgs) -> Outcome<AsControlClient> {
    if let Some(service) = &args.service {
        let kept = Kept::find(Some(service))?.ok_or_else(|| {
            let login = format_args!("you are not logged in at {service}; run `obol login --as '{service}'`");
            Failure::new(Exit::Login, login)
        })?;
        return afar::client(kept);
    }
    let named = args.socket.as_control_socket.as_deref();
    let is_named = named.is_some() || environment(AS_CONTROL_SOCKET_VARIABLE).is_some();
    let endpoint = Endpoint::as_control_to_connect(named, environment).map_err(Failure::usage)?;
    match AsControlClient::connect(endpoint, options()?) {
        Err(ConnectError::NoSocket { path }) if !is_named => match Kept::find(None)? {
            Some(kept) => {
                log_lines::line(&format!("at {}", kept.origin()));
                afar::client(kept)
            }
            None => Err(ConnectError::NoSocket { path }.into()),
        },
        connected => connected.map_err(|error| unconnected(error, AS_CONTROL_SOCKET_VARIABLE)),
    }
}

fn label(text: &str) -> Outcome<Label> {
    Label::new(text).map_err(Failure::usage)
}

fn labels(texts: &[String]) -> Outcome<Vec<Label>> {
    texts.iter().map(|text| label(text)).collect()
}

fn json(value: &impl Serialize) -> Outcome {
    output::json(&serde_json::to_value(value).map_err(Failure::other)?);
    Ok(())
}

/// Asks on the terminal.
fn agrees() -> Outcome<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask in; run this in a terminal, or add --yes"));
    }
    let mut prompt = std::io::stderr();
    prompt.write_all(b"Approve? [y/N] ").and_then(|()| prompt.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// `obol as status`.
pub(crate) fn status(args: &AsOperatorArgs) -> Outcome {
    let mut client = connect(args)?;
    let (status, health) = (client.status()?, client.health()?);
    if args.output.json {
        return json(&status);
    }
    let ready = health.reason.unwrap_or_else(|| "ready".to_owned());
    output::line(&format!("obol as {}, process {}: {ready}", status.version, status.pid));
    output::line("");
    let mut table = output::Table::new(&["key", &status.words]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("pin", status.pin);
    let policy = status.policy.unwrap_or_else(|| "none: no agent is granted anything".to_owned());
    row("policy", format!("{policy}, epoch {}", status.policy_epoch));
    row("observed", status.observed_policy.unwrap_or_else(|| "none".to_owned()));
    row("waiting", format!("{} registrations", status.waiting));
    row("denied tools", or_none(&status.denied_tools));
    row("resource servers", or_none(&status.resource_servers));
    table.print();
    Ok(())
}
