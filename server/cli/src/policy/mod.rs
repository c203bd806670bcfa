//! `obol policy` on folders: what can be known of a version before an Authentication Service has it.
//!
//! A folder holds `catalogue.toml`, policies in `*.cedar`, and cases for them in `cases.toml`.

mod diff;
pub(crate) mod folder;
mod init;

use obol_policy::cases::{CasesReport, USUAL_NOW, USUAL_SUITE};
use obol_policy::{AgentDecision, Occasion, OfferDecision, PolicyVersion, ToolDecision, Verdict};
use serde_json::{Value, json};

use crate::exit::{Failure, Outcome};
use crate::output::{self, Table};
use crate::settings::args::policy::{CheckArgs, ExplainArgs, FolderCommand, TestArgs};

/// The moment that agents are looked at in, where no case says another one.
const USUAL: Occasion = Occasion { now: USUAL_NOW, suite: USUAL_SUITE, owner_auth_age_secs: 0 };

/// Runs one of them.
pub(crate) fn run(command: &FolderCommand) -> Outcome {
    match command {
        FolderCommand::Check(args) => check(args),
        FolderCommand::Test(args) => test(args),
        FolderCommand::Explain(args) => explain(args),
        FolderCommand::Diff(args) => diff::run(args),
        FolderCommand::Init(args) => init::run(args),
    }
}

/// `obol policy check`.
fn check(args: &CheckArgs) -> Outcome {
    let version = folder::version(&args.folder)?;
    let findings = version.findings();
    let (tools, policies) = (version.catalogue().tools(), version.policy_ids().count());
    let offers: usize = tools.iter().map(|tool| tool.offers.len()).sum();
    if args.output.json {
        let findings =
            findings.iter().map(|it| json!({"file": it.file, "line": it.line, "message": it.message}));
        output::json(&json!({
            "version": version.digest(), "tools": tools.len(), "offers": offers, "policies": policies,
            "warnings": findings.collect::<Vec<_>>(),
        }));
    } else {
        findings.iter().for_each(|finding| output::line(&format!("warning: {finding}")));
        output::line(&format!("version {}", version.digest()));
        output::line(&format!("{} tools, {offers} offers, {policies} policies: valid", tools.len()));
    }
    if args.strict && !findings.is_empty() {
        return Err(Failure::other(format_args!("{} warnings, and none are allowed", findings.len())));
    }
    Ok(())
}

/// `obol policy test`.
fn test(args: &TestArgs) -> Outcome {
    let version = folder::version(&args.folder)?;
    let report = folder::cases(&args.cases, &args.folder)?.run(&version);
    if args.output.json {
        output::json(&report_json(&version, &report));
    } else {
        for case in &report.cases {
            let word = if case.passed() { "ok    " } else { "FAILED" };
            output::line(&format!("{word}  {}", case.name));
            case.problems.iter().for_each(|problem| output::line(&format!("        {problem}")));
        }
        for id in &report.untouched {
            output::line(&format!("warning: policy {id} decides no case"));
        }
        output::line(&format!("{} cases, {} failed", report.cases.len(), report.failed()));
    }
    if report.failed() > 0 {
        return Err(Failure::other(format_args!(
            "{} of {} cases failed",
            report.failed(),
            report.cases.len()
        )));
    }
    if args.strict && !report.untouched.is_empty() {
        return Err(Failure::other(format_args!("{} policies decide no case", report.untouched.len())));
    }
    if report.cases.is_empty() {
        return Err(Failure::usage("there are no cases; write some, as docs/policy.md shows"));
    }
    Ok(())
}

fn report_json(version: &PolicyVersion, report: &CasesReport) -> Value {
    let case = |case: &obol_policy::cases::CaseReport| {
        json!({
            "name": case.name, "passed": case.passed(), "answer": case.answer, "policies": case.decided_by,
            "problems": case.problems,
        })
    };
    json!({
        "version": version.digest(), "failed": report.failed(), "cases": report.cases.iter().map(case).collect::<Vec<_>>(),
        "untouched": report.untouched,
    })
}

/// `obol policy explain`.
fn explain(args: &ExplainArgs) -> Outcome {
    let version = folder::version(&args.folder)?;
    let cases = folder::cases(&args.cases, &args.folder)?;
    let agent = cases.agents.get(&args.agent).ok_or_else(|| {
        let known: Vec<_> = cases.agents.keys().map(String::as_str).collect();
        Failure::usage(format_args!(
            "the cases have no agent {:?}; they have: {}",
            args.agent,
            known.join(", ")
        ))
    })?;
    let tools =
        version.explain(agent, &USUAL, &args.tool, args.audience.as_deref()).map_err(Failure::usage)?;
    if args.output.json {
        output::json(
            &json!({"version": version.digest(), "agent": args.agent, "tools": tools.iter().map(tool_json).collect::<Vec<_>>()}),
        );
        return Ok(());
    }
    for tool in &tools {
        output::line(&format!("{} at {}: {}", tool.tool, tool.audience, summary(tool)));
        let mut table = Table::new(&["offer", "use", "unattended"]);
        for offer in &tool.offers {
            let unattended = offer.unattended.as_ref().map_or_else(|| "not asked".to_owned(), in_words);
            table.row([offer.offer.to_string(), in_words(&offer.attended), unattended]);
        }
        table.print();
    }
    Ok(())
}

/// What an agent gets of a tool, in a line.
fn summary(tool: &ToolDecision) -> String {
    let per_call: Vec<_> = tool.per_call.iter().map(|chosen| &*chosen.offer).collect();
    let per_call = format!("{} with a human's approval of each call", per_call.join(", "));
    match (&tool.ahead, tool.per_call.is_empty()) {
        (Some(chosen), true) => chosen.offer.to_string(),
        (Some(chosen), false) => format!("{}; and {per_call}", chosen.offer),
        (None, false) => per_call,
        (None, true) => "nothing".to_owned(),
    }
}

fn in_words(verdict: &Verdict) -> String {
    let failed: Vec<_> =
        verdict.errors.iter().map(|error| format!("{} failed: {}", error.policy, error.message)).collect();
    if !failed.is_empty() {
        return format!("deny: {}", failed.join("; "));
    }
    let word = if verdict.allowed { "allow" } else { "deny" };
    let ids: Vec<_> = verdict.decided_by.iter().map(ToString::to_string).collect();
    if ids.is_empty() { format!("{word}: nothing permits it") } else { format!("{word}: {}", ids.join(", ")) }
}

fn tool_json(tool: &ToolDecision) -> Value {
    let offer = |offer: &OfferDecision| {
        json!({
            "offer": offer.offer, "use": verdict_json(&offer.attended),
            "unattended": offer.unattended.as_ref().map(verdict_json),
        })
    };
    json!({
        "tool": tool.tool, "audience": tool.audience,
        "grant": tool.ahead.as_ref().map(|chosen| &chosen.offer),
        "perCall": tool.per_call.iter().map(|chosen| &chosen.offer).collect::<Vec<_>>(),
        "offers": tool.offers.iter().map(offer).collect::<Vec<_>>(),
    })
}

fn verdict_json(verdict: &Verdict) -> Value {
    json!({"allowed": verdict.allowed, "policies": verdict.decided_by, "errors": verdict.errors})
}

/// What a version gives an agent of the cases.
fn decided(version: &PolicyVersion, agent: &obol_policy::AgentFacts) -> Outcome<AgentDecision> {
    version.decide(agent, &USUAL).map_err(Failure::usage)
}
