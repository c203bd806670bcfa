//! The commands that cut off, and let in again: flush, resume, deny, allow.
//!
//! What matches nothing is an error, which says what there is: a misspelt name must not look like success.

use obol_client::ControlClient;
use obol_ipc::control::{FlushResult, FlushScope, SessionState, StatusResult};
use obol_ipc::names::{AgentInstanceId, Reason, SessionId, ToolName};
use serde_json::{Value, json};

use crate::exit::{Failure, Outcome};
use crate::operate::status::{denied_table, sessions_table, tools_table};
use crate::output::{self, Table, quote};
use crate::settings::args::{FlushArgs, FlushScopeArgs, OperatorArgs, PolicyToolArgs};

/// The most rows of what there is that an error shows.
const MAX_ROWS: usize = 20;
/// What shows all of it.
const STATUS: &str = "obol status";

/// `obol flush`.
pub(crate) fn flush(args: &FlushArgs) -> Outcome {
    let scope = flush_scope(&args.scope)?;
    let reason = Reason::new(args.reason.as_str()).map_err(Failure::usage)?;
    let mut control = args.sockets.control()?;
    let done = control.flush(scope.clone(), reason)?;
    if done.sessions_ended == 0 && done.partitions == 0 {
        return Err(nothing_flushed(&mut control, &scope)?);
    }
    let next = next_commands(&scope, &done);
    if args.output.json {
        let mut told = serde_json::to_value(&done).map_err(Failure::other)?;
        if let Value::Object(told) = &mut told {
            told.insert("next".to_owned(), json!(next));
        }
        output::json(&told);
        return Ok(());
    }
    output::line(&format!(
        "{} tokens destroyed in {} partitions, {} sessions ended",
        done.tokens_discarded, done.partitions, done.sessions_ended
    ));
    if done.sessions_ended > 0 {
        output::line("No new session is taken until `obol resume`.");
        output::line(
            "Tokens already handed out, and keys that were copied, must be ended where they are accepted.",
        );
        output::line("On each resource server:");
    } else {
        output::line("The sessions go on, and new tokens are minted. To hand out none for this tool:");
    }
    next.iter().for_each(|command| output::line(&format!("  {command}")));
    Ok(())
}

/// What is left to do after a flush, ready to be pasted.
fn next_commands(scope: &FlushScope, done: &FlushResult) -> Vec<String> {
    match scope {
        FlushScope::Tool(tool) => vec![format!("obol policy deny {}", argument(tool.as_str()))],
        _ if done.sessions.is_empty() => Vec::new(),
        _ => revoke_commands(&done.sessions),
    }
}

/// The commands that end sessions at a resource server.
pub(crate) fn revoke_commands(sessions: &[SessionId]) -> Vec<String> {
    let command = |sessions: &[SessionId]| {
        let ids: Vec<_> = sessions.iter().map(ToString::to_string).collect();
        format!("obol rs revoke {}", ids.join(" "))
    };
    sessions.chunks(MAX_ROWS).map(command).collect()
}

/// A name as an argument in a shell. Names are visible ASCII.
pub(crate) fn argument(name: &str) -> String {
    let dashes = if name.starts_with('-') { "-- " } else { "" };
    format!("{dashes}{}", quote(name))
}

fn flush_scope(args: &FlushScopeArgs) -> Outcome<FlushScope> {
    Ok(match (&args.tool, &args.session, &args.agent) {
        (Some(tool), ..) => FlushScope::Tool(ToolName::new(tool.as_str()).map_err(Failure::usage)?),
        (_, Some(session), _) => FlushScope::Session(session.parse::<SessionId>().map_err(Failure::usage)?),
        (.., Some(agent)) => FlushScope::Agent(AgentInstanceId::new(agent.as_str()).map_err(Failure::usage)?),
        (None, None, None) => FlushScope::All,
    })
}

fn nothing_flushed(control: &mut ControlClient, scope: &FlushScope) -> Outcome<Failure> {
    let status = control.status()?;
    let what = match scope {
        FlushScope::All => {
            "there is no session to flush; no new session is taken until `obol resume`".to_owned()
        }
        FlushScope::Session(id) => {
            let was_flushed = |state| state == SessionState::Flushed;
            let known = status.sessions.iter().find(|session| session.session_id == *id);
            if known.is_some_and(|session| was_flushed(session.state)) {
                format!("session {id} was flushed before; nothing is left of it")
            } else {
                format!("nothing was flushed: there is no session {id}")
            }
        }
        FlushScope::Agent(agent) => format!("nothing was flushed: no session of an agent {agent} is left"),
        FlushScope::Tool(tool) => format!("nothing was flushed: no session grants a tool {tool}"),
    };
    let there_is = match scope {
        FlushScope::Tool(_) => tools(&status),
        _ => listed("sessions", &sessions_table(&status)?, STATUS),
    };
    Ok(Failure::other(format_args!("{what}\n{there_is}")))
}

fn tools(status: &StatusResult) -> String {
    listed("tools", &tools_table(status), STATUS)
}

/// What there is, for an error; `all` is the command that shows all of it.
pub(crate) fn listed(what: &str, table: &Table, all: &str) -> String {
    let rows = table.lines();
    if rows.len() <= 1 {
        return format!("there are no {what}");
    }
    let mut text = format!("these {what} exist:");
    for row in rows.iter().take(MAX_ROWS + 1) {
        text.push_str("\n  ");
        text.push_str(row);
    }
    if rows.len() > MAX_ROWS + 1 {
        text.push_str(&format!("\n  … more: `{all}`"));
    }
    text
}

/// `obol resume`.
pub(crate) fn resume(args: &OperatorArgs) -> Outcome {
    let done = args.sockets.control()?.resume()?;
    if args.output.json {
        output::json(&serde_json::to_value(&done).map_err(Failure::other)?);
        return Ok(());
    }
    match &done.hold {
        None => output::line("No flush was holding new sessions back."),
        Some(hold) => {
            output::line(&format!(
                "New sessions are taken again, after the flush of {} at {} ({}).",
                hold.scope, hold.since, hold.reason
            ));
            output::line("What was flushed stays flushed. The next session:");
            output::line("  obol session provision FILE");
        }
    }
    Ok(())
}

/// `obol policy deny`.
pub(crate) fn deny(args: &PolicyToolArgs) -> Outcome {
    let tool = ToolName::new(args.tool.as_str()).map_err(Failure::usage)?;
    let mut control = args.sockets.control()?;
    let done = control.deny(tool.clone())?;
    if !done.granted {
        return Err(Failure::other(format_args!(
            "{tool} is denied from now on, but no session grants it; if the name is wrong, take it back with \
             `obol policy allow {}`\n{}",
            argument(tool.as_str()),
            tools(&control.status()?)
        )));
    }
    if args.output.json {
        output::json(&serde_json::to_value(done).map_err(Failure::other)?);
    } else {
        output::line(&format!("{tool} is denied until `obol policy allow {}`", argument(tool.as_str())));
    }
    Ok(())
}

/// `obol policy allow`.
pub(crate) fn allow(args: &PolicyToolArgs) -> Outcome {
    let tool = ToolName::new(args.tool.as_str()).map_err(Failure::usage)?;
    let mut control = args.sockets.control()?;
    let done = control.allow(tool.clone())?;
    if !done.was_denied {
        let status = control.status()?;
        return Err(Failure::other(format_args!(
            "{tool} is not on the operator's list of denied tools\n{}",
            listed("denied tools", &denied_table(&status), STATUS)
        )));
    }
    if args.output.json {
        output::json(&serde_json::to_value(done).map_err(Failure::other)?);
    } else if done.denied_by_policy {
        output::line(&format!(
            "{tool} is no longer denied by the operator; the policy of the Authentication Service still denies it"
        ));
    } else {
        output::line(&format!("{tool} is no longer denied"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_command_survives_a_shell() {
        for (name, shown) in [("pay", "pay"), ("a'b$(x)", r"'a'\''b$(x)'"), ("-rf", "-- -rf")] {
            assert_eq!(argument(name), shown);
        }
        let ids = [SessionId::from_u64(1), SessionId::from_u64(0xff)];
        assert_eq!(revoke_commands(&ids), ["obol rs revoke 0000000000000001 00000000000000ff"]);
    }
}
