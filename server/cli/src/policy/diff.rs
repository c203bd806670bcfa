//! `obol policy diff`: who gains and who loses what.

use obol_policy::{AgentDiff, Comparison, Held, Impact, ToolChange, diff};
use serde_json::{Value, json};

use super::{decided, folder};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::policy::DiffArgs;

/// `obol policy diff`.
pub(crate) fn run(args: &DiffArgs) -> Outcome {
    let (old, new) = (folder::version(&args.old)?, folder::version(&args.new)?);
    let cases = folder::cases(&args.cases, &args.new)?;
    if cases.agents.is_empty() {
        return Err(Failure::usage("the cases have no agents; write some, as docs/policy.md shows"));
    }
    let mut diffs = Vec::with_capacity(cases.agents.len());
    let mut impact = Impact::default();
    for (name, agent) in &cases.agents {
        let diff = diff(&decided(&old, agent)?, &decided(&new, agent)?);
        impact.add(&diff);
        diffs.push((name.as_str(), diff));
    }
    if args.output.json {
        output::json(&json!({
            "old": old.digest(), "new": new.digest(), "held": impact.held, "lost": impact.lost,
            "narrowed": impact.narrowed, "widened": impact.widened, "tooMuch": impact.is_too_much(),
            "agents": diffs.iter().map(|(name, diff)| agent_json(name, diff)).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    for (name, diff) in diffs.iter().filter(|(_, diff)| !diff.changes.is_empty()) {
        output::line(&format!("{name}:"));
        diff.changes.iter().for_each(|change| output::line(&format!("  {}", in_words(change))));
    }
    output::line(&format!(
        "{} agents: {} narrowed, {} widened; {} of {} grants lost",
        diffs.len(),
        impact.narrowed,
        impact.widened,
        impact.lost,
        impact.held
    ));
    if impact.is_too_much() {
        output::line("warning: this takes away more than a fifth of all grants");
    }
    Ok(())
}

fn agent_json(name: &str, diff: &AgentDiff) -> Value {
    let change = |change: &ToolChange| {
        json!({
            "tool": change.tool, "audience": change.audience, "standing": standing(change.standing), "field": change.field,
            "before": held_json(&change.before), "after": held_json(&change.after),
        })
    };
    json!({
        "agent": name, "standing": standing(diff.standing),
        "changes": diff.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn held_json(held: &Held) -> Value {
    json!({
        "offer": held.ahead.as_ref().map(|(name, _)| name), "grant": held.ahead.as_ref().map(|(_, grant)| grant),
        "perCall": held.per_call.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    })
}

const fn standing(standing: Comparison) -> &'static str {
    match standing {
        Comparison::Same => "same",
        Comparison::Widened => "widened",
        Comparison::Narrowed => "narrowed",
    }
}

fn in_words(change: &ToolChange) -> String {
    let tool = format!("{} at {}", change.tool, change.audience);
    let (before, after) = (held(&change.before), held(&change.after));
    match (before.as_str(), after.as_str(), change.field) {
        ("", after, _) => format!("gains {tool}: {after}"),
        (before, "", _) => format!("loses {tool}: {before}"),
        (before, after, Some(field)) => {
            let way = if change.standing == Comparison::Narrowed { "narrower" } else { "wider" };
            format!("{tool}: {before} → {after}, {way} in {field}")
        }
        (before, after, None) if before == after => format!("{tool}: {before}, written differently"),
        (before, after, None) => format!("{tool}: {before} → {after}"),
    }
}

/// What an agent holds of a tool; empty where that is nothing.
fn held(held: &Held) -> String {
    let ahead = held.ahead.iter().map(|(name, _)| name.to_string());
    let per_call = held.per_call.iter().map(|(name, _)| format!("{name} per call"));
    ahead.chain(per_call).collect::<Vec<_>>().join(", ")
}
