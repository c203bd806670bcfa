//! The audit log: some of its lines, and whether they are as they were written.

use core::time::Duration;
use std::time::UNIX_EPOCH;

use askama::Template;
use axum::extract::Request;
use http::StatusCode;
use obol_audit::{AuditLog, Line as Written, LogPage as Read, Place};

use super::super::answer::{Refusal, page};
use super::super::guard::Form;
use super::super::{Pages, Served};
use super::{Browser, PAGE, Visit, may_of_service, shown};
use crate::authority::Authority;
use crate::directory::Agent;
use crate::refused::Refused;

/// How much of the log is checked at once, in bytes: the newest files.
const MAX_CHECKED_BYTES: u64 = 256 << 20;
/// Problems that a check names.
const MAX_PROBLEMS: usize = 20;
/// How long an alarm is one that somebody should look at, in seconds: a week.
const ALARM_SECS: u64 = 7 * 86_400;
/// The longest name that is looked for, in characters.
const MAX_NAME_CHARS: usize = 256;

/// What can be looked for: as the address says it, as the page does, and the events.
pub(super) const TOPICS: [(&str, &str, &[&str]); 9] = [
    ("alarms", "Alarms", &["clone_suspected", "token_stolen", "suspended", "dropped"]),
    ("agents", "Registrations and approvals", &["register", "approve", "invite", "key_rotate"]),
    ("calls", "Calls that took a yes", &["approval_asked", "approval_given"]),
    ("sessions", "Sessions", &["session_open", "session_end"]),
    ("ends", "Ended and let in again", &["disable", "enable"]),
    ("events", "Security events", &["security_event"]),
    ("policy", "Policies", &["policy", "observed"]),
    ("refusals", "Refusals", &["denial", "denials"]),
    ("log", "Servers and the log itself", &["join", "genesis", "rotate", "start", "stop"]),
];

/// A line as it is shown.
pub(super) struct Line {
    pub(super) n: u64,
    pub(super) time: String,
    pub(super) event: String,
    pub(super) is_denied: bool,
    pub(super) by: String,
    pub(super) agent: String,
    pub(super) what: Vec<String>,
}

impl Line {
    pub(super) fn of(line: &Written) -> Self {
        let mut what = Vec::new();
        let mut tell = |before: &str, said: &Option<String>| {
            what.extend(said.as_ref().map(|said| format!("{before}{}", shown(said))));
        };
        tell("", &line.scope);
        tell("tool ", &line.tool);
        tell("at ", &line.audience);
        tell("session ", &line.session);
        tell("", &line.reason);
        tell("code ", &line.code);
        tell("check ", &line.check);
        let mut count =
            |said: Option<u64>, name: &str| what.extend(said.map(|said| format!("{name} {said}")));
        count(line.sessions_ended, "sessions ended:");
        count(line.epoch, "epoch");
        count(line.count, "times:");
        Self {
            n: line.n,
            // To the second: what stands behind it is in the log.
            time: line.time.get(..19).unwrap_or(&line.time).replace('T', " "),
            event: line.event.replace('_', " "),
            is_denied: line.decision.as_deref() == Some("deny") && !line.event.starts_with("denial"),
            by: line.client.as_deref().map(shown).unwrap_or_default(),
            agent: line.agent.as_deref().map(shown).unwrap_or_default(),
            what,
        }
    }
}

/// Whether a line is an alarm.
pub(super) fn is_alarm(line: &Written) -> bool {
    let is_refused_event = line.event == "security_event" && line.decision.as_deref() == Some("deny");
    let is_flush =
        line.event == "disable" && line.client.as_deref().is_some_and(|by| by.starts_with("agent:"));
    is_of(line, "alarms") || is_refused_event || is_flush
}

fn is_of(line: &Written, topic: &str) -> bool {
    let found = TOPICS.iter().find(|(name, ..)| *name == topic);
    found.is_some_and(|(.., events)| events.contains(&line.event.as_str()))
}

/// Whether a line is about an agent: by its id, or while it had none by its key.
pub(super) fn is_about(line: &Written, id: &str, subject: &str) -> bool {
    let named = |text: &Option<String>| {
        let words = text.as_deref().unwrap_or_default().split([' ', ',']);
        words.into_iter().any(|word| word == id || (!subject.is_empty() && word == subject))
    };
    line.agent.as_deref() == Some(id)
        || named(&line.scope)
        || line.client.as_deref().and_then(|by| by.strip_prefix("agent:")) == Some(id)
}

/// What happened to an agent lately, the newest first.
pub(super) fn history(authority: &Authority, agent: &Agent, most: usize) -> Option<Vec<Line>> {
    let log = authority.audit_log()?;
    let (id, subject) = (agent.id.as_str(), agent.identity.subject());
    let read = log.page(None, most, |line| is_about(line, id, &subject)).ok()?;
    Some(read.lines.iter().map(Line::of).collect())
}

/// Alarms of the last week, the newest first, as far back as one page reads. `None` where there is no log.
pub(super) fn alarms(authority: &Authority, most: usize, now: u64) -> Option<Vec<Line>> {
    let log = authority.audit_log()?;
    let since = UNIX_EPOCH + Duration::from_secs(now.saturating_sub(ALARM_SECS));
    let since = obol_audit::iso(since);
    let read = log.page(None, most, |line| is_alarm(line) && line.time >= since).ok()?;
    Some(read.lines.iter().map(Line::of).collect())
}

/// What is looked for.
#[derive(Clone, Default)]
struct Sought {
    topic: String,
    agent: String,
    /// As the address says it.
    before: Option<Place>,
}

impl Sought {
    fn of(visit: &Visit) -> Result<Self, Refusal> {
        let said = |name: &str| -> String {
            visit.asked(name).unwrap_or_default().trim().chars().take(MAX_NAME_CHARS).collect()
        };
        let before = visit.asked("before").map(str::parse).transpose();
        let before = before.map_err(|_| Refused::Malformed("before is a place in the log".to_owned()))?;
        Ok(Self { topic: said("topic"), agent: said("agent"), before })
    }

    /// Reads one page. `None` where there is no log.
    fn read(&self, authority: &Authority) -> Result<Option<Read>, Refused> {
        let Some(log) = authority.audit_log() else { return Ok(None) };
        let found = match self.agent.as_str() {
            "" => None,
            name => authority.directory().agent(name)?,
        };
        // Whoever is no agent any more is looked for by what was typed.
        let (id, subject) = match &found {
            Some(agent) => (agent.id.to_string(), agent.identity.subject()),
            None => (self.agent.clone(), String::new()),
        };
        let wanted = |line: &Written| {
            let is_topic = match self.topic.as_str() {
                "" => true,
                "alarms" => is_alarm(line),
                topic => is_of(line, topic),
            };
            is_topic && (id.is_empty() || is_about(line, &id, &subject))
        };
        let read = log.page(self.before, PAGE, wanted);
        read.map(Some).map_err(|error| Refused::Malformed(format!("the audit log cannot be read: {error}")))
    }

    /// The address of the page behind this one.
    fn behind(&self, place: Place) -> String {
        let mut query = form_urlencoded::Serializer::new("/console/audit?".to_owned());
        let mut add = |name, value: &str| {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        };
        add("topic", &self.topic);
        add("agent", &self.agent);
        add("before", &place.to_string());
        query.finish()
    }
}

/// How it stands with the log as a whole.
struct Standing {
    chain: String,
    refused: u64,
    dropped: u64,
    failing: Option<String>,
}

impl Standing {
    fn of(log: &AuditLog) -> Self {
        let totals = log.totals();
        Self {
            chain: log.mark().chain().to_owned(),
            refused: totals.refused,
            dropped: totals.dropped,
            failing: log.health().err().map(|suspended| suspended.to_string()),
        }
    }
}

/// What a check of the whole found.
struct Checked {
    is_good: bool,
    text: String,
    problems: Vec<String>,
    more: u64,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage<'a> {
    browser: &'a Browser,
    topic: String,
    agent: String,
    lines: Vec<Line>,
    /// Of all lines that were read for the page.
    read: u64,
    numbers: Option<(u64, u64)>,
    problem: Option<String>,
    begins_behind: bool,
    older: Option<String>,
    standing: Option<Standing>,
    checked: Option<Checked>,
}

fn shown_page<'a>(
    browser: &'a Browser,
    sought: &Sought,
    found: Option<(Read, Standing)>,
    checked: Option<Checked>,
) -> AuditPage<'a> {
    let (read, standing) = found.map_or_else(Default::default, |(read, standing)| (read, Some(standing)));
    AuditPage {
        browser,
        topic: sought.topic.clone(),
        agent: shown(&sought.agent),
        lines: read.lines.iter().map(Line::of).collect(),
        read: read.read,
        numbers: read.numbers,
        problem: read.problem,
        begins_behind: sought.before.is_some(),
        older: read.next.map(|place| sought.behind(place)),
        standing,
        checked,
    }
}

fn found(authority: &Authority, sought: &Sought) -> Result<Option<(Read, Standing)>, Refused> {
    let standing = authority.audit_log().map(Standing::of);
    Ok(sought.read(authority)?.zip(standing))
}

/// Lines, the newest first.
pub(in super::super) async fn show(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/audit")?;
    let sought = Sought::of(&visit)?;
    let asked = sought.clone();
    let found = visit.look_at_service(pages, move |authority| Ok(found(authority, &asked)?)).await?;
    Ok(page(StatusCode::OK, &shown_page(&visit.browser, &sought, found, None), ""))
}

/// Checks the log, or as much of it as one page may cost.
pub(in super::super) async fn check(pages: &Pages, request: Request) -> Served {
    let browser = pages.browser(request.headers(), "/console/audit")?;
    let _form = Form::read(request, pages.origin(), &browser).await?;
    let Ok(_alone) = pages.checking.try_acquire() else {
        let text = "The log is already being checked for another user. Try again in a minute.";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "It is being checked", text));
    };
    let by = browser.human.clone();
    let done = pages.run(move |authority| {
        may_of_service(authority, &by, super::VIEW)?;
        let found = found(authority, &Sought::default())?;
        let log = authority.audit_log().ok_or(Refused::Unknown("audit log"))?;
        Ok::<_, Refusal>((found, checked(log)))
    });
    let (found, checked) = done.await??;
    let shown = shown_page(&browser, &Sought::default(), found, Some(checked));
    Ok(page(StatusCode::OK, &shown, ""))
}

fn checked(log: &AuditLog) -> Checked {
    let (report, is_whole) = match log.check(MAX_CHECKED_BYTES) {
        Ok(checked) => checked,
        Err(error) => {
            let text = format!("The log cannot be checked: {error}.");
            return Checked { is_good: false, text, problems: Vec::new(), more: 0 };
        }
    };
    let numbers = match (report.first, report.last) {
        (Some(first), Some(last)) => format!(", numbers {first} to {last}"),
        _ => String::new(),
    };
    let extent = match is_whole {
        true => "the whole log",
        false => "its newest files; `obol audit verify --as` checks all of it",
    };
    let text = format!(
        "{} lines in {} files{numbers}: {extent}. {} starts, {} of them after an unclean end.",
        report.lines,
        report.files.len(),
        report.starts,
        report.unclean_starts
    );
    let problems: Vec<String> = report
        .problems
        .iter()
        .take(MAX_PROBLEMS)
        .map(|problem| format!("line {}: {}: {}", problem.line, problem.kind, problem.message))
        .collect();
    let more = report.problem_count.saturating_sub(problems.len() as u64);
    Checked { is_good: report.is_good(), text, problems, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str) -> Written {
        serde_json::from_value(
            serde_json::json!({ "n": 1, "time": "2026-11-27T10:00:00.000Z", "event": event }),
        )
        .unwrap()
    }

    #[test]
    fn a_line_is_about_who_is_named_in_it_as_a_whole() {
        let about = |line: &Written| is_about(line, "agt_a", "k1");
        let with = |scope: &str| Written { scope: Some(scope.to_owned()), ..line("disable") };
        assert!(about(&Written { agent: Some("agt_a".to_owned()), ..line("session_open") }));
        assert!(about(&with("agent agt_a, for good")) && about(&with("builder k1")));
        assert!(!about(&with("agent agt_ab")) && !about(&line("policy")));
        assert!(!is_about(&with("x  y"), "agt_a", ""), "nobody without a key is everybody");
    }

    #[test]
    fn alarms_are_what_somebody_should_look_at() {
        let denied = Written { decision: Some("deny".to_owned()), ..line("security_event") };
        let flushed = Written { client: Some("agent:agt_a".to_owned()), ..line("disable") };
        let by_a_human = Written { client: Some("local:anna".to_owned()), ..line("disable") };
        assert!(is_alarm(&line("clone_suspected")) && is_alarm(&denied) && is_alarm(&flushed));
        assert!(!is_alarm(&by_a_human) && !is_alarm(&line("security_event")));
    }
}
