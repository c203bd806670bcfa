//! The commands of a resource server's operator: revoke, status, reload.

use obol_client::RsControlClient;
use obol_ipc::names::{AgentInstanceId, Reason, SessionId};
use obol_ipc::rs_control::{Kept, RevokeScope, RsStatusResult};
use obol_ipc::{Endpoint, RS_CONTROL_SOCKET_VARIABLE};
use serde_json::Value;

use crate::exit::{Failure, Outcome};
use crate::operate::flush::listed;
use crate::operate::other_user::unconnected;
use crate::output::{self, Table, text};
use crate::peer::options;
use crate::places::environment;
use crate::settings::args::{RevokeArgs, RsOperatorArgs};

fn connect(args: &RsOperatorArgs) -> Outcome<RsControlClient> {
    let named = args.rs_control_socket.as_deref();
    let endpoint = Endpoint::rs_control_to_connect(named, environment).map_err(Failure::usage)?;
    RsControlClient::connect(endpoint, options()?)
        .map_err(|error| unconnected(error, RS_CONTROL_SOCKET_VARIABLE))
}

/// `obol rs revoke`.
pub(crate) fn revoke(args: &RevokeArgs) -> Outcome {
    let scopes = scopes(args)?;
    let reason = Reason::new(args.reason.as_str()).map_err(Failure::usage)?;
    let mut client = connect(&args.operator)?;
    let (mut done, mut unknown) = (Vec::new(), Vec::new());
    // One after the other, and all of them: what is unknown must not keep the others from being revoked.
    for scope in scopes {
        let result = client.revoke(scope.clone(), reason.clone())?;
        if result.revoked == 0 { unknown.push((scope, result.kept)) } else { done.push(result) }
    }
    if args.operator.output.json && unknown.is_empty() {
        for result in &done {
            output::json(&serde_json::to_value(result).map_err(Failure::other)?);
        }
    } else {
        for result in &done {
            let ids: Vec<_> = result.sessions.iter().map(ToString::to_string).collect();
            let more = result.revoked.saturating_sub(ids.len() as u64);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            output::line(&format!("revoked: {}{more}; {}", ids.join(" "), lasting(result.kept)));
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(nothing_revoked(&unknown, &client.status()?)?) }
}

fn scopes(args: &RevokeArgs) -> Outcome<Vec<RevokeScope>> {
    if let Some(agent) = &args.agent {
        return Ok(vec![RevokeScope::Agent(AgentInstanceId::new(agent.as_str()).map_err(Failure::usage)?)]);
    }
    if args.all {
        return Ok(vec![RevokeScope::All]);
    }
    let session = |id: &String| id.parse::<SessionId>().map(RevokeScope::Session).map_err(Failure::usage);
    args.sessions.iter().map(session).collect()
}

fn lasting(kept: Kept) -> &'static str {
    match kept {
        Kept::File => "this survives a restart",
        Kept::Shared => "this holds for all servers that share these sessions",
        // Also what a newer server may say: better too much care than too little.
        _ => {
            "this server keeps sessions in memory, and a restart forgets this: also remove the session from the session file"
        }
    }
}

fn nothing_revoked(unknown: &[(RevokeScope, Kept)], status: &RsStatusResult) -> Outcome<Failure> {
    let mut message = String::new();
    for (scope, kept) in unknown {
        message.push_str(&match scope {
            RevokeScope::All => "nothing was revoked: there is no session".to_owned(),
            RevokeScope::Agent(agent) => format!("nothing was revoked: no session of an agent {agent} is known"),
            RevokeScope::Session(id) if *kept == Kept::Memory => {
                format!("nothing was revoked: there is no session {id}")
            }
            RevokeScope::Session(id) => format!(
                "there is no session {id}: it was revoked before, or never known. It will not be accepted again"
            ),
        });
        message.push('\n');
    }
    message.push_str(&listed("sessions", &sessions_table(status)?, "obol rs status"));
    Ok(Failure::other(message))
}

fn sessions_table(status: &RsStatusResult) -> Outcome<Table> {
    let mut table = Table::new(&["session", "agent", "state", "expires"]);
    for session in &status.sessions {
        let agent = session.agent_instance_id.as_ref();
        table.row([
            session.session_id.to_string(),
            agent.map_or_else(|| "-".to_owned(), ToString::to_string),
            text(&session.state)?,
            session.expires_at.map_or_else(|| "-".to_owned(), |end| end.to_string()),
        ]);
    }
    Ok(table)
}

/// `obol rs status`.
pub(crate) fn status(args: &RsOperatorArgs) -> Outcome {
    let mut client = connect(args)?;
    let (status, health, authority) = (client.status()?, client.health()?, client.authority()?);
    if args.output.json {
        let mut shown = serde_json::to_value(&status).map_err(Failure::other)?;
        if let Value::Object(shown) = &mut shown {
            shown.insert("authority".to_owned(), serde_json::to_value(&authority).map_err(Failure::other)?);
        }
        output::json(&shown);
        return Ok(());
    }
    let ready = health.reason.unwrap_or_else(|| "ready".to_owned());
    output::line(&format!(
        "obol rs {}, process {}, for {}: {ready}",
        status.version, status.pid, status.audience
    ));
    if let Some(service) = &authority.service {
        let heard = if authority.follows { "heard" } else { "not heard" };
        let until =
            authority.lease_ends_at.map(|end| format!(", accepts tokens until {end}")).unwrap_or_default();
        let problem = authority.problem.map(|problem| format!(": {problem}")).unwrap_or_default();
        output::line(&format!("{service} is {heard}{until}{problem}"));
    }
    output::line("");
    sessions_table(&status)?.print();
    Ok(())
}

/// `obol rs reload`.
pub(crate) fn reload(args: &RsOperatorArgs) -> Outcome {
    let done = connect(args)?.reload()?;
    if args.output.json {
        output::json(&serde_json::to_value(done).map_err(Failure::other)?);
    } else {
        output::line(&format!("the session file was read again; it lists {}", done.sessions));
    }
    Ok(())
}
