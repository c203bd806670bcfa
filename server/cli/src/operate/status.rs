//! `obol status`: what waits in the queue, whose sessions there are, and what is denied.

use obol_ipc::control::{SessionState, StatusResult};
use obol_ipc::names::ToolName;
use obol_ipc::user::name_of;
use obol_session::clock::{Clock as _, SystemClock};

use crate::exit::{Failure, Outcome};
use crate::operate::watch;
use crate::output::{self, Table, backs_off, duration, text};
use crate::settings::args::{Output, Sockets, StatusArgs};

/// `obol status`.
pub(crate) fn run(args: &StatusArgs) -> Outcome {
    if args.watch {
        return watch::run(args);
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
            "no new session is taken since the flush of {} at {} ({}); run `obol resume` to take them again",
            hold.scope, hold.since, hold.reason
        ));
    }
    if status.sessions.iter().any(|session| session.state == SessionState::Lapsed) {
        output::line(
            "the Authentication Service does not answer and the lease is over: none of its sessions hands out tokens until it answers; see `obol auth status`",
        );
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
        [] => format!("agents and sidecar run as one user, {own}: an agent that runs code can read the keys"),
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
    let now = SystemClock::new().now();
    let mut table = Table::new(&["session", "agent", "suite", "state", "expires", "ends in"]);
    for session in &status.sessions {
        let seconds = session.expires_at.unix_seconds().saturating_sub(now);
        let is_open =
            matches!(session.state, SessionState::Active | SessionState::Held | SessionState::Lapsed);
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

fn renewal(pending: bool, retry_after_ms: Option<u64>) -> String {
    match backs_off(pending, retry_after_ms) {
        Some(seconds) => format!("again in {seconds} s"),
        None => yes_no(pending, "pending", "-"),
    }
}

fn yes_no(condition: bool, yes: &str, no: &str) -> String {
    if condition { yes } else { no }.to_owned()
}
