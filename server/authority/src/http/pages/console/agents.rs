//! Agents, and one of them: what it is, what it has, what it may, and its end.

use askama::Template;
use axum::extract::Request;
use http::StatusCode;

use super::super::answer::{Refusal, page, see_other};
use super::super::grants::Granted;
use super::super::{Pages, Served};
use super::sessions::Line as Session;
use super::{
    Browser, Deed, Heard, PAGE, Visit, ago, ahead, all, audiences, audit, is_allowed, may, shown, some,
};
use crate::directory::{Agent, AgentStatus, EndScope};
use crate::id::AgentId;
use crate::refused::Refused;

/// What policies call the deeds.
const DISABLE: &str = "agent.disable";
const ENABLE: &str = "agent.enable";
/// Lines of an agent's history on its page; the audit log's page has the rest.
const HISTORY: usize = 20;

/// An agent in a line.
struct Line {
    id: String,
    name: String,
    class: String,
    roles: String,
    owner: String,
    state: &'static str,
    until: String,
    last_session: String,
}

impl Line {
    fn of(agent: &Agent, now: u64) -> Self {
        Self {
            id: agent.id.to_string(),
            name: shown(&agent.wanted.name),
            class: shown(&agent.wanted.class),
            roles: some(&agent.roles),
            owner: shown(&agent.owner.to_string()),
            state: state(agent, now),
            until: ahead(agent.expires_at, now),
            last_session: agent.last_session_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
        }
    }
}

fn state(agent: &Agent, now: u64) -> &'static str {
    match agent.status {
        AgentStatus::Active if agent.is_expired(now) => "expired",
        AgentStatus::Active if agent.clone_suspected => "active, a copy of its key is suspected",
        AgentStatus::Active => "active",
        AgentStatus::Suspended => "disabled",
        AgentStatus::Revoked => "ended for good",
    }
}

#[derive(Template)]
#[template(path = "agents.html")]
struct ListPage<'a> {
    browser: &'a Browser,
    agents: Vec<Line>,
    /// A name that was looked for, and nobody has.
    missed: Option<String>,
    begins_behind: bool,
    next: Option<String>,
}

/// The agents, or the one with a name.
pub(in super::super) async fn list(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/agents")?;
    let after = visit.asked("after").and_then(AgentId::parse);
    let begins_behind = after.is_some();
    let name = visit.asked("name").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
    let (wanted, by) = (name.clone(), visit.browser.human.clone());
    let (agents, next, found) = visit
        .look(pages, move |authority| {
            let found = wanted.map(|name| authority.reached_agent(&name, &by)).transpose()?.flatten();
            let (agents, next) = authority.reached_agents(after.as_ref(), PAGE, &by)?;
            Ok((agents, next, found))
        })
        .await?;
    if let Some(found) = found {
        return Ok(see_other(&format!("/console/agents/{}", found.id)));
    }
    let shown = ListPage {
        browser: &visit.browser,
        agents: agents.iter().map(|agent| Line::of(agent, visit.now.secs())).collect(),
        missed: name.map(|name| shown(&name).chars().take(super::MAX_REASON_CHARS).collect()),
        begins_behind,
        next: next.map(|id| id.to_string()),
    };
    Ok(page(StatusCode::OK, &shown, ""))
}

#[derive(Template)]
#[template(path = "agent.html")]
struct AgentPage<'a> {
    browser: &'a Browser,
    agent: Line,
    roles: String,
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
    grants: Vec<Granted>,
    /// Why it gets nothing, where it gets nothing.
    no_grants: String,
    /// Its last lines in the audit log, where there is one.
    history: Option<Vec<audit::Line>>,
    /// After an end: who has heard of it.
    heard: Option<Heard>,
}

/// What somebody who looks at an agent is shown.
struct Found {
    agent: Agent,
    sessions: Vec<Session>,
    grants: Result<Vec<Granted>, String>,
    history: Option<Vec<audit::Line>>,
    heard: Option<Heard>,
    allowed: [bool; 2],
}

/// One agent: what it has, and what can be done. After an end it also says who has heard of it.
pub(in super::super) async fn agent(pages: &Pages, name: &str, request: Request) -> Served {
    let path = format!("/console/agents/{name}");
    let visit = Visit::begin(pages, &request, &path)?;
    let id = AgentId::parse(name).ok_or(Refused::Unknown("agent"))?;
    let (since, now, by) = (visit.since(), visit.now, visit.browser.human.clone());
    let found = visit.look(pages, move |authority| {
        let directory = authority.directory();
        let agent = authority.reached_agent(id.as_str(), &by)?.ok_or(Refused::Unknown("agent"))?;
        let heard = |event| {
            let own = core::slice::from_ref(&agent.id);
            let audiences = authority.reached_audiences(audiences(authority)?, own, event, &by)?;
            let id = Some(agent.id.to_string());
            Heard::of(authority, event, &audiences, id, &path, now.secs())
        };
        let grants = match agent.status {
            AgentStatus::Active if !agent.is_expired(now.secs()) => authority
                .would_get(&agent, now)
                .map(|decided| Granted::all(&decided.grants, &decided.per_call))
                .map_err(|refused| refused.to_string()),
            _ => Err("it may open no session".to_owned()),
        };
        let sessions = directory.sessions(&agent.id)?;
        Ok(Found {
            sessions: sessions.iter().map(|row| Session::of(row, &agent, now.secs())).collect(),
            heard: since.map(heard).transpose()?,
            allowed: [DISABLE, ENABLE].map(|verb| is_allowed(authority, &by, verb)),
            history: audit::history(authority, &agent, HISTORY),
            grants,
            agent,
        })
    });
    let Found { agent, sessions, grants, history, heard, allowed: [may_disable, may_enable] } = found.await?;
    let (grants, no_grants) = match grants {
        Ok(grants) => (grants, "policy grants it nothing".to_owned()),
        Err(why) => (Vec::new(), why),
    };
    let now = now.secs();
    let shown = AgentPage {
        browser: &visit.browser,
        roles: all(&agent.roles),
        words: agent.identity.words(),
        flow: agent.flow.clone(),
        host: shown(&agent.wanted.host),
        user: shown(&agent.wanted.user),
        software: shown(&agent.wanted.software),
        approved: shown(&format!("{} by {}", ago(agent.approved_at, now), agent.approved_by)),
        is_suspected: agent.clone_suspected,
        is_active: agent.status == AgentStatus::Active,
        is_suspended: agent.status == AgentStatus::Suspended,
        may_disable,
        may_enable,
        sessions,
        grants,
        no_grants,
        history,
        heard,
        agent: Line::of(&agent, now),
    };
    Ok(page(StatusCode::OK, &shown, ""))
}

/// Ends an agent, or lets it in again.
pub(in super::super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let to = format!("/console/agents/{name}");
    let deed = Deed::begin(pages, request, &to).await?;
    let id = AgentId::parse(name).ok_or(Refused::Unknown("agent"))?;
    let (word, reason) = (deed.word(), deed.reason("disabled in the console"));
    let Deed { by, now, .. } = deed;
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
