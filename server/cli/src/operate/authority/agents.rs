//! `obol agent`: show agents, end them, let them in again.
//!
//! What matches nothing is an error, which says what there is: a misspelt name must not look like success.

use core::time::Duration;

use obol_client::AsControlClient;
use obol_ipc::as_control::{
    AgentSession, AgentStatus, ConfirmationsParams, ConfirmationsResult, DisableParams, DisableResult,
    DisableScope, EnableParams, EnableScope, HoldingServer,
};
use obol_ipc::names::{Audience, Reason, SessionId};
use serde_json::{Value, json as object};

use super::{confirmed, connect, json, label, or_none, tickets};
use crate::exit::{Failure, Outcome};
use crate::operate::flush::{argument, listed, revoke_commands};
use crate::output::{self, Table, text};
use crate::settings::args::authority::{
    AgentCommand, AsOperatorArgs, DisableArgs, EnableArgs, EndSessionArgs, EndingArgs, RemoveArgs,
};

/// What shows all agents.
const LIST: &str = "obol agent list";

/// `obol agent …`.
pub(crate) fn agent(command: &AgentCommand) -> Outcome {
    match command {
        AgentCommand::List(args) => list(args),
        AgentCommand::Show { agent, operator } => show(agent, operator),
        AgentCommand::Disable(args) => disable(args),
        AgentCommand::Enable(args) => enable(args),
        AgentCommand::Remove(args) => remove(args),
        AgentCommand::EndSession(args) => end_session(args),
        AgentCommand::Invite(args) => tickets::invite(args),
    }
}

fn list(args: &AsOperatorArgs) -> Outcome {
    let agents = connect(args)?.agents()?;
    if args.output.json {
        return json(&agents);
    }
    agents_table(&agents)?.print();
    Ok(())
}

fn agents_table(agents: &[AgentStatus]) -> Outcome<Table> {
    let mut table = Table::new(&["name", "id", "class", "roles", "state", "owner", "until"]);
    for agent in agents {
        let suspicion = if agent.clone_suspected { ", copied?" } else { "" };
        table.row([
            agent.wishes.name.clone(),
            agent.agent_id.clone(),
            agent.wishes.class.clone(),
            or_none(&agent.roles),
            format!("{}{suspicion}", text(&agent.state)?),
            agent.owner.clone(),
            agent.expires_at.to_string(),
        ]);
    }
    Ok(table)
}

fn show(name: &str, args: &AsOperatorArgs) -> Outcome {
    let mut client = connect(args)?;
    let found = client.agent(label(name)?)?;
    let Some(agent) = &found.agent else {
        return Err(nothing(&mut client, &format!("there is no agent {name}"))?);
    };
    if args.output.json {
        return json(&found);
    }
    agents_table(core::slice::from_ref(agent))?.print();
    output::line("");
    output::line(&format!("key: {}", agent.words));
    if let Some(last) = agent.last_session_at {
        output::line(&format!("last session: {last}"));
    }
    output::line("");
    if found.sessions.is_empty() {
        output::line("no session is open");
    } else {
        sessions_table(&found.sessions).print();
    }
    Ok(())
}

fn sessions_table(sessions: &[AgentSession]) -> Table {
    let mut table = Table::new(&["session", "suite", "until", "epoch", "tools", "at"]);
    for session in sessions {
        table.row([
            session.session_id.to_string(),
            session.suite.to_string(),
            session.expires_at.to_string(),
            session.policy_epoch.to_string(),
            session.tools.join(" "),
            session.audiences.join(" "),
        ]);
    }
    table
}

/// The error where nothing matched, with what there is.
fn nothing(client: &mut AsControlClient, why: &str) -> Outcome<Failure> {
    let there_is = listed("agents", &agents_table(&client.agents()?)?, LIST);
    Ok(Failure::other(why).with_details(there_is.lines()))
}

/// Ends something, and tells who holds it.
fn end(scope: DisableScope, args: &EndingArgs, told: &Told<'_>) -> Outcome {
    let reason = Reason::new(args.reason.as_str()).map_err(Failure::usage)?;
    let mut client = connect(&args.operator)?;
    let done = client.disable(DisableParams { scope, reason })?;
    if !done.matched {
        return Err(nothing(&mut client, &told.unmatched)?);
    }
    report(&mut client, &done, args.wait, &args.operator, told.done, told.back.as_deref())
}

/// Waits a while for those who follow, and tells what was ended and who has confirmed it.
pub(super) fn report(
    client: &mut AsControlClient,
    done: &DisableResult,
    wait_secs: f64,
    operator: &AsOperatorArgs,
    said: &str,
    back: Option<&str>,
) -> Outcome {
    let confirmed = confirmations(client, done, wait_secs)?;
    let next = revoke_commands(&done.sessions);
    if operator.output.json {
        let mut result = serde_json::to_value(done).map_err(Failure::other)?;
        if let Value::Object(result) = &mut result {
            result.insert("next".to_owned(), object!(next));
            for (name, list) in
                [("copies", object!(confirmed.copies)), ("sidecars", object!(confirmed.sidecars))]
            {
                result.insert(name.to_owned(), list);
            }
        }
        output::json(&result);
        return Ok(());
    }
    let sessions = if done.sessions_ended == 1 { "session" } else { "sessions" };
    output::line(&format!("{said}; {} {sessions} ended", done.sessions_ended));
    confirmed::tell(done, &confirmed, &next);
    if let Some(back) = back {
        output::line(&format!("To let it in again: {back}"));
    }
    Ok(())
}

/// Waits a while for those who follow, and tells who has confirmed.
fn confirmations(
    client: &mut AsControlClient,
    done: &DisableResult,
    wait_secs: f64,
) -> Outcome<ConfirmationsResult> {
    let audience = |server: &HoldingServer| Audience::new(server.audience.as_str()).map_err(Failure::other);
    let wait = Duration::try_from_secs_f64(wait_secs).map_err(Failure::usage)?;
    Ok(client.confirmations(ConfirmationsParams {
        event: done.event,
        audiences: done.servers.iter().map(audience).collect::<Outcome<_>>()?,
        agents: done.agents.iter().map(|agent| label(agent)).collect::<Outcome<_>>()?,
        sessions: done.sessions.clone(),
        wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
    })?)
}

/// What is said of an end.
struct Told<'a> {
    done: &'a str,
    unmatched: String,
    /// The command that undoes it.
    back: Option<String>,
}

fn disable(args: &DisableArgs) -> Outcome {
    match (&args.agent, &args.tool) {
        (Some(agent), _) => end(
            DisableScope::Agent(label(agent)?),
            &args.ending,
            &Told {
                done: &format!("disabled: {agent} can open no session"),
                unmatched: format!("nothing was disabled: there is no agent {agent}"),
                back: Some(format!("obol agent enable {}", argument(agent))),
            },
        ),
        (None, Some(tool)) => end(
            DisableScope::Tool(label(tool)?),
            &args.ending,
            &Told {
                done: &format!("disabled: no agent is granted {tool}"),
                unmatched: format!(
                    "no policy offers a tool {tool} and no session grants it, so the name may be wrong. It is denied anyway, until `obol agent enable --tool {}`",
                    argument(tool)
                ),
                back: Some(format!("obol agent enable --tool {}", argument(tool))),
            },
        ),
        (None, None) => Err(Failure::usage("name an agent, or a tool with --tool")),
    }
}

fn remove(args: &RemoveArgs) -> Outcome {
    let agent = &args.agent;
    end(
        DisableScope::AgentForGood(label(agent)?),
        &args.ending,
        &Told {
            done: &format!("removed: {agent} and its key can never return; the name is free"),
            unmatched: format!("nothing was removed: there is no agent {agent}"),
            back: None,
        },
    )
}

fn end_session(args: &EndSessionArgs) -> Outcome {
    let session: SessionId = args.session.parse().map_err(Failure::usage)?;
    end(
        DisableScope::Session(session),
        &args.ending,
        &Told {
            done: &format!("ended: session {session}; its agent can open another"),
            unmatched: format!(
                "nothing was ended: there is no live session {session}; `obol agent show NAME` lists an agent's sessions"
            ),
            back: None,
        },
    )
}

fn enable(args: &EnableArgs) -> Outcome {
    let (scope, name, what) = match (&args.agent, &args.tool) {
        (Some(agent), _) => (EnableScope::Agent(label(agent)?), agent, "agent"),
        (None, Some(tool)) => (EnableScope::Tool(label(tool)?), tool, "tool"),
        (None, None) => return Err(Failure::usage("name an agent, or a tool with --tool")),
    };
    let mut client = connect(&args.operator)?;
    let done = client.enable(EnableParams { scope: scope.clone() })?;
    match (done.matched, scope) {
        (false, EnableScope::Agent(_)) => {
            return Err(nothing(&mut client, &format!("nothing was enabled: there is no agent {name}"))?);
        }
        (false, EnableScope::Tool(_)) => {
            let denied = or_none(&client.status()?.denied_tools);
            return Err(Failure::other(format_args!(
                "nothing was enabled: the tool {name} is not denied; denied tools: {denied}"
            )));
        }
        (true, _) => {}
    }
    if args.operator.output.json {
        return json(&done);
    }
    output::line(&format!("enabled: the {what} {name}; ended sessions stay ended"));
    Ok(())
}
