//! `obol registrations`, `obol approve`, `obol deny`: a human's word on an agent.

use obol_ipc::as_control::{
    AgentStatus, AgentWishes, ApproveParams, DenyParams, DenyTarget, RegistrationParams, RegistrationResult,
};

use super::{DAY_SECS, agrees, calls, connect, json, label, labels, or_none};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Table};
use crate::settings::args::authority::{ApproveArgs, AsOperatorArgs, DenyArgs};

/// How the id of a registration begins.
const ID_PREFIX: &str = "reg_";

/// `obol registrations`.
pub(crate) fn registrations(args: &AsOperatorArgs) -> Outcome {
    let found = connect(args)?.registrations()?;
    if args.output.json {
        return json(&found);
    }
    if found.registrations.is_empty() {
        output::line("nobody waits");
        return Ok(());
    }
    let mut table = Table::new(&["id", "name", "class", "key", "from", "until"]);
    for waiting in &found.registrations {
        table.row([
            waiting.registration_id.clone(),
            waiting.wishes.name.clone(),
            waiting.wishes.class.clone(),
            waiting.words.clone(),
            waiting.source.clone(),
            waiting.expires_at.to_string(),
        ]);
    }
    table.print();
    if found.more > 0 {
        output::line(&format!("and {} more", found.more));
    }
    output::line("The code that approves one is shown only in the agent's own terminal.");
    Ok(())
}

/// A code as people type it. Spaces stand in none.
fn code(typed: &str) -> Outcome<obol_ipc::names::Label> {
    label(&typed.split_whitespace().collect::<String>())
}

/// `obol approve`.
pub(crate) fn approve(args: &ApproveArgs) -> Outcome {
    let as_json = args.operator.output.json;
    if as_json && !args.yes {
        return Err(Failure::usage("--json does not ask; compare the key's words, then add --yes"));
    }
    if args.code.trim().starts_with(calls::ID_PREFIX) {
        if !args.role.is_empty() || args.days.is_some() {
            return Err(Failure::usage("--role and --days are only for registrations"));
        }
        return calls::approve(args.code.trim(), args.yes, &args.operator);
    }
    let mut client = connect(&args.operator)?;
    let code = code(&args.code)?;
    let lifetime_seconds = args.days.map(|days| days.saturating_mul(DAY_SECS));
    let roles = (!args.role.is_empty()).then(|| labels(&args.role)).transpose()?;
    let found = client.registration(RegistrationParams { code: code.clone(), roles, lifetime_seconds })?;
    if !args.yes {
        show(&found);
        if !found.allowed {
            return Err(Failure::new(
                Exit::Denied,
                "policy does not let you approve this; try fewer roles (--role) or days (--days), or change the policy",
            ));
        }
        if !agrees()? {
            return Err(Failure::new(
                Exit::Denied,
                "nothing was approved; the registration waits until its time is over or `obol deny` ends it",
            ));
        }
    }
    let approved = client.approve(ApproveParams {
        code,
        registration_id: label(&found.registration.registration_id)?,
        roles: labels(&found.roles)?,
        lifetime_seconds,
    })?;
    if as_json {
        return json(&approved);
    }
    output::line(&format!(
        "approved: {} is {}, until {}",
        approved.wishes.name, approved.agent_id, approved.expires_at
    ));
    if found.grants.is_empty() {
        output::line("Policy grants it nothing yet, so it cannot open a session.");
    }
    Ok(())
}

/// What a human has to see before deciding.
fn show(found: &RegistrationResult) {
    let renewed = match &found.renews {
        Some(before) => format!("again; it was approved until {}", before.expires_at),
        None => "for the first time".to_owned(),
    };
    let waiting = &found.registration;
    output::line(&format!("An agent asks to be approved, {renewed}."));
    output::line("");
    let mut table = Table::new(&["key", &waiting.words]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("from", waiting.source.clone());
    for (name, now, before) in told(&waiting.wishes, found.renews.as_ref()) {
        let changed = before.filter(|before| *before != now);
        row(name, changed.map_or_else(|| now.clone(), |before| format!("{now}   (was: {before})")));
    }
    row("gets the roles", or_none(&found.roles));
    row("for", output::duration(found.lifetime_seconds));
    table.print();
    output::line("");
    show_grants(found);
    output::line("");
    output::line("Everything except the key and the address is what the agent says about itself.");
    output::line("Approve it only if the agent's own terminal shows the same words.");
}

fn show_grants(found: &RegistrationResult) {
    if found.grants.is_empty() {
        return output::line("Policy would grant it nothing now.");
    }
    output::line("Policy would grant it now:");
    let mut table = Table::new(&["tool", "at", "may", "with"]);
    for grant in &found.grants {
        table.row([
            grant.tool.clone(),
            grant.audience.clone(),
            grant.actions.join(" "),
            grant.resource.clone(),
        ]);
    }
    table.print();
    if found.more_grants > 0 {
        output::line(&format!("and {} more", found.more_grants));
    }
}

/// Each field, as it is now and as it was when it was approved before.
fn told(wishes: &AgentWishes, before: Option<&AgentStatus>) -> Vec<(&'static str, String, Option<String>)> {
    let fields = |wishes: &AgentWishes| {
        [
            ("name", wishes.name.clone()),
            ("class", wishes.class.clone()),
            ("host", wishes.host.clone()),
            ("user", wishes.user.clone()),
            ("software", wishes.software.clone()),
            ("wants the roles", or_none(&wishes.roles)),
            ("wants the tools", or_none(&wishes.tools)),
        ]
    };
    let old = before.map(|before| fields(&before.wishes));
    let old = |place: usize| old.as_ref().and_then(|old| old.get(place)).map(|(_, value)| value.clone());
    fields(wishes).into_iter().enumerate().map(|(place, (name, now))| (name, now, old(place))).collect()
}

/// `obol deny`.
pub(crate) fn deny(args: &DenyArgs) -> Outcome {
    let named = args.registration.trim();
    if named.starts_with(calls::ID_PREFIX) {
        if args.block {
            return Err(Failure::usage("--block is for registrations; `obol agent disable` ends an agent"));
        }
        return calls::deny(named, &args.operator);
    }
    let target = match named.starts_with(ID_PREFIX) {
        true => DenyTarget::Registration(label(named)?),
        false => DenyTarget::Code(code(named)?),
    };
    let denied = connect(&args.operator)?.deny(DenyParams { target, block: args.block })?;
    if args.operator.output.json {
        return json(&denied);
    }
    let blocked = match args.block {
        true => format!("; no more registrations are taken from {} for an hour", denied.source),
        false => String::new(),
    };
    output::line(&format!("denied: {}{blocked}", denied.wishes.name));
    Ok(())
}
