//! The console: agents with what they have, ending them, and who has heard of it. Policy says who may look and who may act.

use core::time::Duration;

use askama::Template;
use axum::extract::Request;
use http::StatusCode;

use super::answer::{Refusal, page, see_other};
use super::browser::Browser;
use super::guard::Form;
use super::{Pages, Served};
use crate::authority::{Authority, Copy};
use crate::directory::{Agent, AgentStatus, EndScope, Human};
use crate::http::now;
use crate::id::AgentId;
use crate::refused::Refused;

/// What policies call it: looking, and the deeds.
const VIEW: &str = "console.view";
const DISABLE: &str = "agent.disable";
const ENABLE: &str = "agent.enable";
/// Agents on one page.
const PAGE: usize = 100;
/// How long a page about an end waits for the resource servers' word on it. They say so within milliseconds.
const HEARD_PATIENCE: Duration = Duration::from_secs(1);
/// The longest reason for an end, in characters.
const MAX_REASON_CHARS: usize = 200;

/// An agent in a line.
struct Line {
    id: String,
    name: String,
    class: String,
    roles: String,
    owner: String,
    state: &'static str,
    until: String,
}

impl Line {
    fn of(agent: &Agent, now: u64) -> Self {
        Self {
            id: agent.id.to_string(),
            name: agent.wanted.name.clone(),
            class: agent.wanted.class.clone(),
            roles: list(&agent.roles),
            owner: agent.owner.to_string(),
            state: state(agent, now),
            until: ahead(agent.expires_at, now),
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn state(agent: &Agent, now: u64) -> &'static str {
    match agent.status {
        AgentStatus::Active if agent.is_expired(now) => "expired",
        AgentStatus::Active => "active",
        AgentStatus::Suspended => "disabled",
        AgentStatus::Revoked => "ended for good",
    }
}

/// A time as people read how far it is.
pub(super) fn ahead(at: u64, now: u64) -> String {
    match at.checked_sub(now) {
        None | Some(0) => "over".to_owned(),
        Some(secs) => format!("in {}", span(secs)),
    }
}

pub(super) fn ago(at: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(at)))
}

pub(super) fn span(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        7_200..=172_799 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

/// Somebody who asks to be an agent.
struct Waiting {
    name: String,
    class: String,
    source: String,
    words: String,
    since: String,
}

/// A copy of a resource server.
struct Server {
    audience: String,
    id: String,
    follows: bool,
    is_level: bool,
    lease: String,
}

impl Server {
    fn of(copy: Copy, now: u64) -> Self {
        Self {
            audience: copy.audience,
            id: copy.id,
            follows: copy.follows,
            is_level: copy.confirmed,
            lease: ahead(copy.lease_ends, now),
        }
    }
}

#[derive(Template)]
#[template(path = "console.html")]
struct ConsolePage<'a> {
    browser: &'a Browser,
    waiting: Vec<Waiting>,
    agents: Vec<Line>,
    next: Option<String>,
    denied_tools: Vec<String>,
    servers: Vec<Server>,
}

/// One session of an agent.
struct Session {
    id: String,
    since: String,
    until: String,
    suite: u8,
    tools: String,
    audiences: String,
}

#[derive(Template)]
#[template(path = "agent.html")]
struct AgentPage<'a> {
    browser: &'a Browser,
    agent: Line,
    words: String,
    flow: String,
    host: String,
    user: String,
    software: String,
    approved: String,
    is_suspected: bool,
    is_active: bool,
    is_suspended: bool,
    may_disable: bool,
    may_enable: bool,
    sessions: Vec<Session>,
    /// After an end: who has heard of it.
    heard: Option<Vec<Server>>,
    /// The number of that end.
    since: u64,
    is_settled: bool,
}

/// Whether policy lets somebody do this. Who may not is told by which rules.
fn may(authority: &Authority, by: &Human, verb: &str) -> Result<(), Refusal> {
    let verdict = authority.may_operate(by, verb)?;
    if verdict.allowed {
        return Ok(());
    }
    let why = match verdict.decided_by.as_slice() {
        [] => "No policy permits it.".to_owned(),
        ids => format!("Forbidden by: {}.", ids.join(", ")),
    };
    let text = format!("Policy does not let you do this ({verb}). {why}");
    Err(Refusal::new(StatusCode::FORBIDDEN, "Not allowed", &text))
}

/// Every copy of every resource server, and whether it has applied what happened up to `event`.
fn servers(authority: &Authority, event: u64, patience: Duration, now: u64) -> Result<Vec<Server>, Refused> {
    let servers = authority.directory().resource_servers()?;
    let audiences: Vec<String> = servers.into_iter().map(|server| server.audience).collect();
    let (copies, _) = authority.confirmations(event, &audiences, &[], patience)?;
    Ok(copies.into_iter().map(|copy| Server::of(copy, now)).collect())
}

/// What needs somebody, and what there is.
pub(super) async fn overview(pages: &Pages, request: Request) -> Served {
    let browser = pages.browser(request.headers(), "/console")?;
    let query = Form::of(request.uri().query().unwrap_or_default().as_bytes());
    let after = query.as_ref().and_then(|query| query.one("after")).and_then(AgentId::parse);
    let (by, now) = (browser.human.clone(), now().secs());
    let found = pages.run(move |authority| {
        may(authority, &by, VIEW)?;
        let directory = authority.directory();
        let unavailable = |error| Refusal::from(Refused::from(error));
        let waiting = directory.waiting(now).map_err(unavailable)?;
        let agents = directory.agents(after.as_ref()).map_err(unavailable)?;
        let denied = directory.denied_tools().map_err(unavailable)?;
        let head = directory.last_event().map_err(unavailable)?;
        Ok::<_, Refusal>((waiting, agents, denied, servers(authority, head, Duration::ZERO, now)?))
    });
    let (waiting, agents, denied, servers) = found.await??;
    let next =
        agents.get(PAGE.saturating_sub(1)).filter(|_| agents.len() > PAGE).map(|agent| agent.id.to_string());
    let shown = ConsolePage {
        browser: &browser,
        waiting: waiting
            .iter()
            .take(PAGE)
            .map(|waiting| Waiting {
                name: waiting.wanted.name.clone(),
                class: waiting.wanted.class.clone(),
                source: waiting.source.clone(),
                words: waiting.identity.words(),
                since: ago(waiting.created_at, now),
            })
            .collect(),
        agents: agents.iter().take(PAGE).map(|agent| Line::of(agent, now)).collect(),
        next,
        denied_tools: denied.into_iter().map(|denied| denied.tool).collect(),
        servers,
    };
    Ok(page(StatusCode::OK, &shown, ""))
}

/// One agent: what it has, and what can be done. After an end it also says who has heard of it.
pub(super) async fn agent(pages: &Pages, name: &str, request: Request) -> Served {
    let browser = pages.browser(request.headers(), &format!("/console/agents/{name}"))?;
    let query = Form::of(request.uri().query().unwrap_or_default().as_bytes());
    let since: Option<u64> =
        query.as_ref().and_then(|query| query.one("since")).and_then(|event| event.parse().ok());
    let id = AgentId::parse(name).ok_or(Refused::Unknown("agent"))?;
    let (by, now) = (browser.human.clone(), now().secs());
    let found = pages.run(move |authority| {
        may(authority, &by, VIEW)?;
        let unavailable = |error| Refusal::from(Refused::from(error));
        let agent = authority.directory().agent(id.as_str()).map_err(unavailable)?;
        let agent = agent.ok_or_else(|| Refusal::from(Refused::Unknown("agent")))?;
        let sessions = authority.directory().sessions(&agent.id).map_err(unavailable)?;
        let heard = since.map(|event| servers(authority, event, HEARD_PATIENCE, now)).transpose()?;
        let allowed = |verb| authority.may_operate(&by, verb).is_ok_and(|verdict| verdict.allowed);
        Ok::<_, Refusal>((agent, sessions, heard, [allowed(DISABLE), allowed(ENABLE)]))
    });
    let (agent, sessions, heard, [may_disable, may_enable]) = found.await??;
    let shown = AgentPage {
        browser: &browser,
        words: agent.identity.words(),
        flow: agent.flow.clone(),
        host: agent.wanted.host.clone(),
        user: agent.wanted.user.clone(),
        software: agent.wanted.software.clone(),
        approved: format!("{} by {}", ago(agent.approved_at, now), agent.approved_by),
        is_suspected: agent.clone_suspected,
        is_active: agent.status == AgentStatus::Active,
        is_suspended: agent.status == AgentStatus::Suspended,
        may_disable,
        may_enable,
        sessions: sessions
            .iter()
            .map(|session| Session {
                id: session.id.to_string(),
                since: ago(session.established_at, now),
                until: ahead(session.expires_at, now),
                suite: session.suite,
                tools: list(&session.tools),
                audiences: list(&session.audiences),
            })
            .collect(),
        is_settled: heard.iter().flatten().all(|server| server.is_level),
        heard,
        since: since.unwrap_or_default(),
        agent: Line::of(&agent, now),
    };
    Ok(page(StatusCode::OK, &shown, ""))
}

/// Ends an agent, or lets it in again. The login has to be a moment old.
pub(super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let to = format!("/console/agents/{name}");
    let browser = pages.fresh_browser(request.headers(), &to)?;
    let form = Form::read(request, pages.origin(), &browser).await?;
    let id = AgentId::parse(name).ok_or(Refused::Unknown("agent"))?;
    let (by, now) = (browser.human.clone(), now());
    let reason = reason(form.one("reason"));
    let word = form.one("word").unwrap_or_default().to_owned();
    let done = pages.run(move |authority| match word.as_str() {
        "disable" => {
            may(authority, &by, DISABLE)?;
            let scope = EndScope::Agent(id.to_string());
            let report = authority.end(&scope, &reason, &by, now)?;
            Ok(Some(report.ended.event))
        }
        "enable" => {
            may(authority, &by, ENABLE)?;
            authority.enable_agent(id.as_str(), &by, now)?;
            Ok(None)
        }
        _ => Err(Refusal::not_ours()),
    });
    match done.await?? {
        Some(event) => Ok(see_other(&format!("{to}?since={event}"))),
        None => Ok(see_other(&to)),
    }
}

/// What is written down and told; without what steers a terminal or hides.
fn reason(said: Option<&str>) -> String {
    let said: String =
        obol_secret::text::plain(said.unwrap_or_default().trim()).chars().take(MAX_REASON_CHARS).collect();
    if said.is_empty() { "disabled in the console".to_owned() } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_read_them() {
        assert_eq!((ahead(10, 10).as_str(), ahead(100, 10).as_str()), ("over", "in 90 s"));
        assert_eq!((ago(0, 600).as_str(), ago(0, 9_000).as_str()), ("10 min ago", "2 h ago"));
        assert_eq!(span(30 * 86_400), "30 days");
    }

    #[test]
    fn a_reason_is_short_and_steers_nothing() {
        assert_eq!(reason(None), "disabled in the console");
        assert_eq!(reason(Some("  left the team ")), "left the team");
        assert!(!reason(Some("a\u{202e}b\u{1b}[2J")).contains(['\u{202e}', '\u{1b}']));
        assert_eq!(reason(Some(&"x".repeat(1_000))).len(), MAX_REASON_CHARS);
    }
}
