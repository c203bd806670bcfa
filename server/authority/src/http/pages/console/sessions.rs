//! Sessions of all agents, and one of them: what it may, and its end.

use askama::Template;
use axum::extract::Request;
use http::StatusCode;
use obol_session::{Grant, SessionId};

use super::super::answer::{Refusal, page, see_other};
use super::super::grants::Granted;
use super::super::{Pages, Served};
use super::{Browser, Deed, Heard, PAGE, Visit, ago, ahead, all, is_allowed, may, shown, some};
use crate::authority::Authority;
use crate::directory::{Agent, EndScope, Human, SessionRow};
use crate::id::AgentId;
use crate::refused::Refused;

/// What policies call ending one: as over the operator's socket.
const END: &str = "agent.disable";

/// A session in a line.
pub(super) struct Line {
    pub(super) id: String,
    pub(super) agent: String,
    pub(super) agent_id: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) suite: u8,
    pub(super) tools: String,
    pub(super) audiences: String,
}

impl Line {
    pub(super) fn of(row: &SessionRow, agent: &Agent, now: u64) -> Self {
        Self {
            id: row.id.to_string(),
            agent: shown(&agent.wanted.name),
            agent_id: row.agent.to_string(),
            since: ago(row.established_at, now),
            until: ahead(row.closes_at.unwrap_or(row.expires_at).min(row.expires_at), now),
            suite: row.suite,
            tools: some(&row.tools),
            audiences: some(&row.audiences),
        }
    }
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct ListPage<'a> {
    browser: &'a Browser,
    sessions: Vec<Line>,
    begins_behind: bool,
    next: Option<String>,
}

/// Where a page of the list begins: behind this session of this agent.
fn place(said: &str) -> Option<(AgentId, SessionId)> {
    let (agent, session) = said.split_once('.')?;
    Some((AgentId::parse(agent)?, SessionId::parse(session)?))
}

/// The session of this name and its agent, if whoever looks reaches it.
fn reached(authority: &Authority, id: SessionId, by: &Human) -> Result<Option<(SessionRow, Agent)>, Refused> {
    let Some(row) = authority.directory().session(id)? else { return Ok(None) };
    let agent = authority.reached_agent(row.agent.as_str(), by)?;
    Ok(agent.map(|agent| (row, agent)))
}

/// The sessions that live, those of one agent beside each other.
pub(in super::super) async fn list(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/sessions")?;
    let (after, now) = (visit.asked("after").and_then(place), visit.now.secs());
    let (begins_behind, by) = (after.is_some(), visit.browser.human.clone());
    let found = visit.look(pages, move |authority| {
        let (rows, next) = authority.reached_sessions(after, PAGE, &by)?;
        let lines: Vec<Line> = rows.iter().map(|(row, agent)| Line::of(row, agent, now)).collect();
        Ok((lines, next.map(|(agent, session)| format!("{agent}.{session}"))))
    });
    let (sessions, next) = found.await?;
    let shown = ListPage { browser: &visit.browser, sessions, begins_behind, next };
    Ok(page(StatusCode::OK, &shown, ""))
}

#[derive(Template)]
#[template(path = "session.html")]
struct SessionPage<'a> {
    browser: &'a Browser,
    session: Line,
    tools: String,
    audiences: String,
    policy_epoch: u64,
    /// Another took its place, so that it is closed before its time.
    is_closing: bool,
    /// When and why it was ended.
    ended: Option<(String, String)>,
    is_live: bool,
    may_end: bool,
    grants: Vec<Granted>,
    heard: Option<Heard>,
}

/// What is granted in a session that lives: what its resource servers hold its tokens to.
fn grants(authority: &Authority, row: &SessionRow) -> Result<Vec<Grant>, Refused> {
    let mut grants = Vec::new();
    for audience in &row.audiences {
        let half = authority.directory().half(row.id, audience)?;
        grants.extend(half.and_then(|half| half.grants).into_iter().flatten());
    }
    Ok(grants)
}

/// One session.
pub(in super::super) async fn show(pages: &Pages, name: &str, request: Request) -> Served {
    let path = format!("/console/sessions/{name}");
    let visit = Visit::begin(pages, &request, &path)?;
    let id = SessionId::parse(name).ok_or(Refused::Unknown("session"))?;
    let (since, now, by) = (visit.since(), visit.now.secs(), visit.browser.human.clone());
    let found = visit.look(pages, move |authority| {
        let (row, agent) = reached(authority, id, &by)?.ok_or(Refused::Unknown("session"))?;
        let heard =
            |event| Heard::of(authority, event, &row.audiences, Some(row.agent.to_string()), &path, now);
        let heard = since.map(heard).transpose()?;
        let grants = grants(authority, &row)?;
        Ok((agent, grants, heard, is_allowed(authority, &by, END), row))
    });
    let (agent, grants, heard, may_end, row) = found.await?;
    let ended = row.ended.as_ref().map(|end| (ago(end.at, now), shown(&end.reason)));
    let shown = SessionPage {
        browser: &visit.browser,
        session: Line::of(&row, &agent, now),
        tools: all(&row.tools),
        audiences: all(&row.audiences),
        policy_epoch: row.policy_epoch,
        is_closing: row.closes_at.is_some(),
        is_live: ended.is_none() && row.expires_at > now,
        ended,
        may_end,
        grants: Granted::all(&grants, &[]),
        heard,
    };
    Ok(page(StatusCode::OK, &shown, ""))
}

/// Ends one.
pub(in super::super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let to = format!("/console/sessions/{name}");
    let deed = Deed::begin(pages, request, &to).await?;
    let id = SessionId::parse(name).ok_or(Refused::Unknown("session"))?;
    if deed.word() != "end" {
        return Err(Refusal::not_ours());
    }
    let reason = deed.reason("ended in the console");
    let Deed { by, now, .. } = deed;
    let ended = pages.run(move |authority| {
        may(authority, &by, END)?;
        Ok::<_, Refusal>(authority.end(&EndScope::Session(id), &reason, &by, now)?)
    });
    let event = ended.await??.ended.event;
    Ok(see_other(&format!("{to}?since={event}")))
}
