//! Calls that wait for a human's yes: what whoever decides must see of each, and their word.
//!
//! A request is shown to whom policy lets say yes to it, to whoever answers for the agent, and to those who may look at the console.
//! The first two decide: a stranger who logged in can neither allow nor stop anything.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::Request;
use http::StatusCode;
use obol_secret::text::plain;
use obol_token::Constraints;

use super::answer::{Refusal, message, page, see_other};
use super::browser::Browser;
use super::guard::Form;
use super::{Pages, Served};
use crate::authority::{AskedApproval, Authority, Now};
use crate::directory::{AskedCall, CallPlace, CallStanding, CallState, Human, MAX_PAGE};
use crate::http::now;
use crate::id::ApprovalId;
use crate::refused::Refused;

/// What policies call looking at the console.
const VIEW: &str = "console.view";
/// The most in one page of the list.
const PAGE: usize = 100;
/// The longest arguments that a page shows, in characters: more are never taken.
const MAX_ARGUMENTS_CHARS: usize = 8_192;

/// A request in a list.
pub(super) struct Line {
    pub(super) id: String,
    pub(super) agent: String,
    pub(super) owner: String,
    pub(super) calls: String,
    pub(super) asked: String,
    pub(super) left: String,
    pub(super) may_decide: bool,
}

#[derive(Template)]
#[template(path = "approvals.html")]
struct ListPage<'a> {
    browser: &'a Browser,
    lines: Vec<Line>,
    begins_behind: bool,
    /// Behind which the next page begins.
    next: Option<String>,
}

/// One call, as the human must see it: what a resource server will hold the token to.
struct Call {
    tool: String,
    audience: String,
    actions: String,
    resource: String,
    limits: Vec<String>,
    arguments: Option<String>,
    times: usize,
}

#[derive(Template)]
#[template(path = "approval.html")]
struct ApprovalPage<'a> {
    browser: &'a Browser,
    id: String,
    agent: String,
    agent_id: String,
    owner: String,
    purpose: Option<String>,
    calls: Vec<Call>,
    asked: String,
    left: String,
    /// For how long after a yes, in words.
    lasts: String,
    waits: bool,
    may_approve: bool,
    may_deny: bool,
    /// What became of it.
    became: String,
}

fn shown(text: &str) -> String {
    plain(text).into_owned()
}

/// How the one who looks stands to a request.
#[derive(Clone, Copy)]
struct Right {
    sees: bool,
    denies: bool,
}

impl Right {
    fn of(asked: &AskedApproval, by: &Human, views: bool) -> Self {
        let denies = asked.allowed || asked.agent.owner == *by;
        Self { sees: denies || views, denies }
    }
}

fn views(authority: &Authority, by: &Human) -> Result<bool, Refused> {
    authority.may_operate(by, VIEW).map(|verdict| verdict.allowed)
}

/// One request that this human may see. Any other is as good as none: its name tells nothing.
fn find(
    authority: &Authority,
    id: &ApprovalId,
    by: &Human,
    now: Now,
) -> Result<(AskedApproval, Right), Refused> {
    let asked = authority.asked_approval(id, by, now)?;
    let right = Right::of(&asked, by, views(authority, by)?);
    if right.sees { Ok((asked, right)) } else { Err(Refused::NoSuchApproval) }
}

pub(super) fn limits(constraints: &Constraints) -> Vec<String> {
    let Constraints {
        max_rows,
        max_calls,
        time_window_sec,
        require_channel_encryption,
        data_classification,
        allowed_parameters,
    } = constraints;
    let mut limits = Vec::new();
    limits.extend(max_rows.map(|rows| format!("at most {rows} rows")));
    limits.extend(max_calls.map(|calls| format!("at most {calls} calls with one token")));
    limits.extend(time_window_sec.map(|secs| format!("looks back at most {secs} seconds")));
    if *require_channel_encryption == Some(true) {
        limits.push("only over an encrypted channel".to_owned());
    }
    limits.extend(data_classification.iter().map(|class| format!("data up to the class {}", shown(class))));
    for (name, pattern) in allowed_parameters.iter().flatten() {
        limits.push(format!("argument {} as {}", shown(name), shown(pattern)));
    }
    if allowed_parameters.as_ref().is_some_and(BTreeMap::is_empty) {
        limits.push("no arguments".to_owned());
    }
    limits
}

impl Call {
    fn of(call: &AskedCall) -> Self {
        let scope = &call.scope;
        let arguments = call.arguments.as_deref();
        Self {
            tool: shown(&scope.tool),
            audience: shown(&scope.aud),
            actions: shown(&scope.action.join(", ")),
            resource: shown(&scope.resource),
            limits: scope.constraints.as_ref().map(limits).unwrap_or_default(),
            arguments: arguments.map(|text| shown(text).chars().take(MAX_ARGUMENTS_CHARS).collect()),
            times: call.uses.len(),
        }
    }
}

fn became(asked: &AskedApproval, now: u64) -> String {
    match (&asked.approval.state, asked.approval.standing(now)) {
        (_, CallStanding::Waiting) => String::new(),
        (CallState::Approved { by, .. }, CallStanding::Approved { expires_at, .. }) => {
            format!("Approved by {by}. The calls may be made for {} s more.", expires_at.saturating_sub(now))
        }
        (CallState::Approved { by, .. }, _) => format!("Approved by {by}; the time for the calls is over."),
        (CallState::Denied { by }, _) => format!("Denied by {by}."),
        (CallState::Ended, _) => "The agent was ended before anybody decided.".to_owned(),
        (CallState::Waiting, _) => "Nobody decided in time.".to_owned(),
    }
}

fn line(asked: &AskedApproval, right: Right, now: u64) -> Line {
    let call = |call: &AskedCall| format!("{} on {}", shown(&call.scope.tool), shown(&call.scope.resource));
    let calls = &asked.approval.calls;
    let first = calls.first().map(call).unwrap_or_default();
    Line {
        id: asked.approval.id.to_string(),
        agent: shown(&asked.agent.wanted.name),
        owner: shown(&asked.agent.owner.to_string()),
        calls: match calls.len() {
            0 | 1 => first,
            more => format!("{first} and {} more", more - 1),
        },
        asked: super::words::ago(asked.approval.created_at, now),
        left: super::words::ahead(asked.approval.expires_at, now),
        may_decide: right.denies,
    }
}

/// Where a page of the list begins: behind this request, which waits until then.
fn place(said: &str) -> Option<CallPlace> {
    let (expires_at, id) = said.split_once('.')?;
    Some((expires_at.parse().ok()?, ApprovalId::parse(id)?))
}

/// A page of what waits, of those that this human may see, and where the next begins.
fn listed(
    authority: &Authority,
    behind: Option<CallPlace>,
    by: &Human,
    now: Now,
) -> Result<(Vec<Line>, Option<CallPlace>), Refused> {
    let views = views(authority, by)?;
    let sees = |asked: &AskedApproval| Right::of(asked, by, views).sees;
    let (asked, next) = authority.reached_approvals((behind, PAGE), by, now, sees)?;
    let line = |asked: &AskedApproval| line(asked, Right::of(asked, by, views), now.secs());
    Ok((asked.iter().map(line).collect(), next))
}

/// Requests that wait, of those that this human may decide about.
pub(super) fn to_decide(authority: &Authority, by: &Human, now: Now) -> Result<Vec<Line>, Refused> {
    let denies = |asked: &AskedApproval| Right::of(asked, by, false).denies;
    let (asked, _) = authority.reached_approvals((None, MAX_PAGE), by, now, denies)?;
    Ok(asked.iter().map(|asked| line(asked, Right::of(asked, by, false), now.secs())).collect())
}

/// What waits for the one who looks.
pub(super) async fn list(pages: &Pages, request: Request) -> Served {
    let browser = pages.browser(request.headers(), "/console/approvals")?;
    let (by, now) = (browser.human.clone(), now());
    let query =
        Form::of(request.uri().query().unwrap_or_default().as_bytes()).ok_or_else(Refusal::not_ours)?;
    let behind = query.one("after").and_then(place);
    let begins_behind = behind.is_some();
    let (lines, next) = pages.run(move |authority| listed(authority, behind, &by, now)).await??;
    let next = next.map(|(expires_at, id)| format!("{expires_at}.{id}"));
    Ok(page(StatusCode::OK, &ListPage { browser: &browser, lines, begins_behind, next }, ""))
}

/// One request.
pub(super) async fn show(pages: &Pages, name: &str, request: Request) -> Served {
    let browser = pages.browser(request.headers(), &format!("/console/approvals/{name}"))?;
    let id = ApprovalId::parse(name).ok_or(Refused::NoSuchApproval)?;
    let (by, now) = (browser.human.clone(), now());
    let (asked, right) = pages.run(move |authority| find(authority, &id, &by, now)).await??;
    let waits = asked.approval.standing(now.secs()) == CallStanding::Waiting;
    let shown = ApprovalPage {
        browser: &browser,
        id: asked.approval.id.to_string(),
        agent: shown(&asked.agent.wanted.name),
        agent_id: asked.agent.id.to_string(),
        owner: shown(&asked.agent.owner.to_string()),
        purpose: asked.approval.purpose.as_deref().map(shown),
        calls: asked.approval.calls.iter().map(Call::of).collect(),
        asked: super::words::ago(asked.approval.created_at, now.secs()),
        left: super::words::ahead(asked.approval.expires_at, now.secs()),
        lasts: super::words::span(asked.approval.lifetime_secs),
        waits,
        may_approve: asked.allowed,
        may_deny: waits && right.denies,
        became: shown(&became(&asked, now.secs())),
    };
    Ok(page(StatusCode::OK, &shown, ""))
}

/// A human's word. The login has to be a moment old.
pub(super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let to = format!("/console/approvals/{name}");
    let browser = pages.fresh_browser(request.headers(), &to)?;
    let form = Form::read(request, pages.origin(), &browser).await?;
    let id = ApprovalId::parse(name).ok_or(Refused::NoSuchApproval)?;
    let approve = match form.one("word") {
        Some("approve") => true,
        Some("deny") => false,
        _ => return Err(Refusal::not_ours()),
    };
    let (by, now) = (browser.human.clone(), now());
    let decided = pages.run(move |authority| {
        let (_, right) = find(authority, &id, &by, now)?;
        if !approve && !right.denies {
            return Err(Refused::CallDenied);
        }
        authority.decide_approval(&id, approve, &by, now)
    });
    match decided.await? {
        Ok(_) => Ok(see_other(&to)),
        Err(Refused::NoSuchApproval) => Err(Refusal::page(message(
            StatusCode::NOT_FOUND,
            "Nothing waits here",
            "No such request exists, or it was already decided, or it has expired.",
            Some(("/console/approvals", "What waits now")),
        ))),
        Err(refused) => Err(refused.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_told() {
        let all = Constraints {
            max_rows: Some(3),
            max_calls: Some(1),
            time_window_sec: Some(60),
            require_channel_encryption: Some(true),
            data_classification: Some("secret\u{202e}".to_owned()),
            allowed_parameters: Some([("to".to_owned(), "acme/**".to_owned())].into()),
        };
        let told = limits(&all).join("; ");
        for part in ["3 rows", "1 calls", "60 seconds", "encrypted", "class secret", "argument to as acme/**"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains('\u{202e}'), "{told}");
        let none = Constraints { allowed_parameters: Some([].into()), ..Constraints::default() };
        assert_eq!(limits(&none), ["no arguments"]);
    }
}
