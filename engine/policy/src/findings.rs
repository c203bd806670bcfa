//! What is valid in a version and may be a mistake all the same: policies that never apply, offers that nobody gets.

use std::collections::BTreeSet;

use cedar_policy::{Effect, EntityUid};

use crate::ask::Asked;
use crate::catalogue::{Catalogue, Tool};
use crate::diff::{Width, compare};
use crate::problem::Problem;
use crate::rules::{Rule, Rules};
use crate::source::CATALOGUE_FILE;
use crate::vocabulary::{Action, Kind};

/// Looks through a version.
pub(crate) fn of(catalogue: &Catalogue, asked: &[Asked], rules: &Rules) -> Vec<Problem> {
    let mut findings = rules.warnings.clone();
    let known = known(catalogue);
    for rule in rules.iter() {
        findings.extend(strangers(rule, &known));
    }
    if !permits(rules, Action::UseUnattended).any(|_| true) {
        let message =
            "no policy permits useUnattended, so nothing is minted ahead and every call takes a human's yes";
        findings.push(Problem { file: "policies".to_owned(), line: None, message: message.to_owned() });
    }
    for (tool, asked) in catalogue.tools().iter().zip(asked) {
        findings.extend(out_of_reach(tool, asked, rules));
        findings.extend(out_of_order(tool));
    }
    findings
}

/// The tools, sets and audiences that there are.
fn known(catalogue: &Catalogue) -> BTreeSet<EntityUid> {
    let named = |tool: &Tool| {
        let sets: Vec<_> = tool.sets.iter().map(|set| Kind::ToolSet.uid(set)).collect();
        sets.into_iter().chain([Kind::Tool.uid(&tool.name), Kind::Audience.uid(&tool.audience)])
    };
    catalogue.tools().iter().flat_map(named).collect()
}

/// Names in a policy that the catalogue does not know: perhaps of tools that are gone, perhaps mistyped.
fn strangers(rule: &Rule, known: &BTreeSet<EntityUid>) -> Vec<Problem> {
    let literals: BTreeSet<_> = rule.policy.entity_literals().into_iter().collect();
    let is_of_catalogue = |uid: &EntityUid| {
        matches!(Kind::of(uid.type_name()), Some(Kind::Tool | Kind::ToolSet | Kind::Audience))
    };
    let strangers = literals.into_iter().filter(|uid| is_of_catalogue(uid) && !known.contains(uid));
    let finding = |uid: EntityUid| Problem {
        file: rule.file.clone(),
        line: Some(rule.line),
        message: format!("policy {}: {uid} is not in the catalogue", rule.id),
    };
    strangers.map(finding).collect()
}

/// Policies that permit an action.
fn permits(rules: &Rules, action: Action) -> impl Iterator<Item = &Rule> {
    let action = action.uid();
    rules.iter().filter(move |rule| rule.policy.effect() == Effect::Permit && rule.applies_to(&action))
}

fn out_of_reach(tool: &Tool, asked: &Asked, rules: &Rules) -> Option<Problem> {
    let is_meant = |rule: &Rule| rule.resource.can_be(&asked.party);
    let unmeant = !permits(rules, Action::Use).any(is_meant);
    unmeant.then(|| about(tool, "no policy permits anybody to use it, so nobody gets any of its offers"))
}

/// An offer behind a weaker one, which would be the grant before it.
fn out_of_order(tool: &Tool) -> Vec<Problem> {
    let mut findings = Vec::new();
    for (place, later) in tool.offers.iter().enumerate() {
        let earlier = tool.offers.iter().take(place);
        let weaker = earlier
            .filter(|earlier| matches!(compare(&earlier.grant, &later.grant), Width::Same | Width::Wider(_)));
        for earlier in weaker {
            let message = format!(
                "offer {:?} allows all that offer {:?} does, and stands behind it",
                later.name, earlier.name
            );
            findings.push(about(tool, &format!("{message}; put the most powerful first")));
        }
    }
    findings
}

fn about(tool: &Tool, message: &str) -> Problem {
    let message = format!("tool {:?} at {:?}: {message}", tool.name, tool.audience);
    Problem { file: CATALOGUE_FILE.to_owned(), line: None, message }
}
