//! Running cases against a version.

use std::collections::BTreeSet;

use super::{Case, Cases, DENY, Question};
use crate::decision::{OfferDecision, PolicyId, ToolDecision, Verdict};
use crate::facts::{AgentFacts, FactsError, HumanFacts, Registration};
use crate::version::PolicyVersion;

/// What came of all cases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CasesReport {
    /// Case by case, in their order.
    pub cases: Vec<CaseReport>,
    /// Policies that decided no case.
    pub untouched: Vec<PolicyId>,
}

impl CasesReport {
    /// How many cases came out otherwise than expected.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.passed()).count()
    }
}

/// What came of one case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseReport {
    /// The case's name.
    pub name: String,
    /// The answer, in a case's words.
    pub answer: String,
    /// The policies that decided.
    pub decided_by: BTreeSet<PolicyId>,
    /// Where it is not as expected.
    pub problems: Vec<String>,
}

impl CaseReport {
    /// Whether it came out as expected.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Cases {
    /// Asks a version about all cases.
    pub fn run(&self, version: &PolicyVersion) -> CasesReport {
        let cases: Vec<_> = self.cases.iter().map(|case| self.run_one(version, case)).collect();
        let touched: BTreeSet<_> = cases.iter().flat_map(|case| &case.decided_by).collect();
        let untouched = version.policy_ids().filter(|id| !touched.contains(id)).cloned().collect();
        CasesReport { cases, untouched }
    }

    fn run_one(&self, version: &PolicyVersion, case: &Case) -> CaseReport {
        let answer = self.answer(version, &case.question);
        let mut report = CaseReport {
            name: case.name.clone(),
            answer: String::new(),
            decided_by: BTreeSet::new(),
            problems: Vec::new(),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                report.problems.push(error.to_string());
                return report;
            }
        };
        if answer.said != answer.expected {
            report.problems.push(format!("expected {}, and it is {}", answer.expected, answer.said));
        }
        report.problems.extend(answer.errors);
        if let Some(expected) = &case.policies {
            let decided: BTreeSet<_> = answer.decided_by.iter().map(ToString::to_string).collect();
            if *expected != decided {
                report.problems.push(format!(
                    "expected {} to decide, and it was {}",
                    listed(expected),
                    listed(&decided)
                ));
            }
        }
        report.answer = answer.said;
        report.decided_by = answer.decided_by;
        report
    }

    fn answer(&self, version: &PolicyVersion, question: &Question) -> Result<Answer, FactsError> {
        match question {
            Question::Tool { agent, tool, audience, moment, expect, per_call } => {
                let decisions =
                    version.explain(self.known_agent(agent)?, moment, tool, audience.as_deref())?;
                let [decision] = decisions.as_slice() else {
                    return Err(FactsError::SeveralAudiences(tool.clone()));
                };
                Ok(Answer::of_tool(decision, in_words(expect.as_deref(), per_call)))
            }
            Question::Register { human, class, flow, days, roles, expect } => {
                let asked = Registration { class, flow, days: *days, roles };
                Ok(Answer::of_verdict(&version.may_register(self.known_human(human)?, &asked)?, *expect))
            }
            Question::Approve { human, agent, tool, audience, offer, expect } => {
                let (human, agent) = (self.known_human(human)?, self.known_agent(agent)?);
                Ok(Answer::of_verdict(
                    &version.may_approve_call(human, agent, tool, audience, offer)?,
                    *expect,
                ))
            }
            Question::Reach { human, organisation, expect } => {
                let verdict = version.may_reach(self.known_human(human)?, organisation)?;
                Ok(Answer::of_verdict(&verdict, *expect))
            }
            Question::Operate { human, verb, expect } => {
                Ok(Answer::of_verdict(&version.may_operate(self.known_human(human)?, verb)?, *expect))
            }
        }
    }

    fn known_agent(&self, name: &str) -> Result<&AgentFacts, FactsError> {
        self.agents.get(name).ok_or_else(|| FactsError::Nobody(name.to_owned()))
    }

    fn known_human(&self, name: &str) -> Result<&HumanFacts, FactsError> {
        self.humans.get(name).ok_or_else(|| FactsError::Nobody(name.to_owned()))
    }
}

struct Answer {
    said: String,
    expected: String,
    decided_by: BTreeSet<PolicyId>,
    errors: Vec<String>,
}

impl Answer {
    /// The policies that decide are those of the grant and of each offer in front of it: they say why none of these is it.
    fn of_tool(decision: &ToolDecision, expected: String) -> Self {
        let ahead = decision.ahead.as_ref().map(|chosen| &*chosen.offer);
        let per_call: Vec<_> = decision.per_call.iter().map(|chosen| chosen.offer.to_string()).collect();
        let last = decision.offers.iter().position(|offer| Some(&*offer.offer) == ahead);
        let deciding = decision.offers.iter().take(last.map_or(decision.offers.len(), |last| last + 1));
        let verdicts: Vec<_> = deciding.flat_map(OfferDecision::verdicts).collect();
        Self {
            said: in_words(ahead, &per_call),
            expected,
            decided_by: verdicts.iter().flat_map(|verdict| &verdict.decided_by).cloned().collect(),
            errors: verdicts.into_iter().flat_map(failures).collect(),
        }
    }

    fn of_verdict(verdict: &Verdict, expected: bool) -> Self {
        let word = |allowed: bool| if allowed { super::ALLOW } else { DENY }.to_owned();
        Self {
            said: word(verdict.allowed),
            expected: word(expected),
            decided_by: verdict.decided_by.iter().cloned().collect(),
            errors: failures(verdict).collect(),
        }
    }
}

fn failures(verdict: &Verdict) -> impl Iterator<Item = String> {
    verdict.errors.iter().map(|error| format!("policy {} failed: {}", error.policy, error.message))
}

fn in_words(ahead: Option<&str>, per_call: &[String]) -> String {
    let ahead = ahead.unwrap_or(DENY);
    if per_call.is_empty() {
        ahead.to_owned()
    } else {
        format!("{ahead}, and per call {}", per_call.join(", "))
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "no policy".to_owned();
    }
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
