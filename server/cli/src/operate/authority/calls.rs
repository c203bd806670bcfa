//! `obol approvals`, and `obol approve` and `obol deny` with the id of one: a human's word on calls.

use obol_ipc::approvals::{AskedApproval, AskedCall, DecideApprovalParams};

use super::{agrees, connect, json, label};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Table};
use crate::settings::args::authority::AsOperatorArgs;

/// How the id of a request begins.
pub(super) const ID_PREFIX: &str = "apr_";

/// `obol approvals`.
pub(crate) fn approvals(args: &AsOperatorArgs) -> Outcome {
    let found = connect(args)?.approvals()?;
    if args.output.json {
        return json(&found);
    }
    if found.approvals.is_empty() {
        output::line("no call is waiting for approval");
        return Ok(());
    }
    let mut table = Table::new(&["id", "agent", "calls", "until", "you may"]);
    for asked in &found.approvals {
        let calls: Vec<String> = asked.calls.iter().map(in_short).collect();
        table.row([
            asked.approval_id.clone(),
            asked.agent.clone(),
            calls.join(", "),
            asked.expires_at.to_string(),
            if asked.allowed { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.print();
    if found.more > 0 {
        output::line(&format!("and {} more", found.more));
    }
    output::line("`obol approve ID` shows one in full and asks for your decision.");
    Ok(())
}

fn in_short(call: &AskedCall) -> String {
    match call.count {
        1 => call.tool.clone(),
        count => format!("{count}x {}", call.tool),
    }
}

/// Says yes to a request, once it was looked at.
pub(super) fn approve(id: &str, yes: bool, args: &AsOperatorArgs) -> Outcome {
    let mut client = connect(args)?;
    let approval_id = label(id)?;
    let asked = client.approval(approval_id.clone())?;
    if !yes {
        show(&asked);
        if !asked.allowed {
            return Err(Failure::new(
                Exit::Denied,
                "you cannot approve this: it was already decided, its time is over, or policy does not let you",
            ));
        }
        if !agrees()? {
            return Err(Failure::new(
                Exit::Denied,
                "nothing was approved; the request waits until its time is over or `obol deny` ends it",
            ));
        }
    }
    let approved = client.decide_approval(DecideApprovalParams { approval_id, approve: true })?;
    if args.output.json {
        return json(&approved);
    }
    let lasts = output::duration(approved.lifetime_seconds);
    output::line(&format!(
        "approved: {} may make these calls, each once as counted, for {lasts}",
        approved.agent
    ));
    Ok(())
}

/// Says no to a request.
pub(super) fn deny(id: &str, args: &AsOperatorArgs) -> Outcome {
    let params = DecideApprovalParams { approval_id: label(id)?, approve: false };
    let denied = connect(args)?.decide_approval(params)?;
    if args.output.json {
        return json(&denied);
    }
    output::line(&format!("denied: {} may not make these calls", denied.agent));
    Ok(())
}

/// What a human has to see before deciding: all of it, and what of it is only the agent's word.
fn show(asked: &AskedApproval) {
    output::line(&format!("The agent {} ({}) asks for approval of:", asked.agent, asked.agent_id));
    for (number, call) in asked.calls.iter().enumerate() {
        output::line("");
        let mut table = Table::new(&["call", &(number + 1).to_string()]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("tool", call.tool.clone());
        row("at", call.audience.clone());
        row("does", call.actions.join(" "));
        row("with", call.resource.clone());
        row("limits", call.constraints.clone().unwrap_or_else(|| "none".to_owned()));
        row("how often", call.count.to_string());
        row("offer", call.offer.clone());
        let arguments = call.arguments.clone().unwrap_or_else(|| "any that the limits allow".to_owned());
        row("arguments, as the agent states them", arguments);
        table.print();
    }
    output::line("");
    let purpose = asked.purpose.as_deref().unwrap_or("nothing");
    output::line(&format!("Why, in the agent's words: {purpose}"));
    output::line(&format!("Owner of the agent: {}", asked.owner));
    let lasts = output::duration(asked.lifetime_seconds);
    output::line(&format!(
        "Once approved, the calls can be made for {lasts}; a call with other arguments is refused."
    ));
}
