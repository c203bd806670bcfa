//! Resource servers and their copies: who is connected, how far behind each is, and until when it accepts anything without a word.

use core::time::Duration;

use askama::Template;
use axum::extract::Request;
use http::StatusCode;

use super::super::answer::{Refusal, page, see_other};
use super::super::{Pages, Served};
use super::{Browser, Deed, Slice, Visit, ago, ahead, audiences, is_allowed, may_of_service, shown};
use crate::authority::{Authority, Copy};
use crate::refused::Refused;

/// What policies call removing a copy: as over the operator's socket.
const REMOVE: &str = "server.remove";

/// A copy in a line.
pub(super) struct Line {
    pub(super) id: String,
    pub(super) audience: String,
    pub(super) follows: bool,
    /// How many events it has not applied.
    pub(super) behind: u64,
    pub(super) applied: u64,
    /// When it said so last.
    pub(super) acknowledged: String,
    pub(super) lease: String,
    pub(super) is_shut: bool,
    pub(super) joined: String,
}

impl Line {
    pub(super) fn of(copy: &Copy, head: u64, now: u64) -> Self {
        Self {
            id: copy.id.clone(),
            audience: shown(&copy.audience),
            follows: copy.follows,
            behind: head.saturating_sub(copy.applied),
            applied: copy.applied,
            acknowledged: copy.said_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
            lease: ahead(copy.lease_ends, now),
            is_shut: copy.lease_ends <= now,
            joined: ago(copy.joined_at, now),
        }
    }
}

/// A resource server that no copy has joined yet.
struct Empty {
    audience: String,
    added: String,
}

/// Every copy as it stands to the newest event, those first that need a look.
pub(super) fn copies(authority: &Authority) -> Result<(Vec<Copy>, u64), Refused> {
    let head = authority.directory().last_event()?;
    let (mut copies, _) = authority.confirmations(head, &audiences(authority)?, &[], Duration::ZERO)?;
    copies.sort_by(|one, other| {
        (one.follows, &one.audience, &one.id).cmp(&(other.follows, &other.audience, &other.id))
    });
    Ok((copies, head))
}

#[derive(Template)]
#[template(path = "copies.html")]
struct ListPage<'a> {
    browser: &'a Browser,
    copies: Vec<Line>,
    before: Option<usize>,
    after: Option<usize>,
    empty: Vec<Empty>,
    more_empty: usize,
    denied: Vec<(String, String)>,
    more_denied: usize,
    head: u64,
}

/// Resource servers, their copies, and the tools that nobody is granted.
pub(in super::super) async fn list(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/servers")?;
    let now = visit.now.secs();
    let found = visit.look_at_service(pages, |authority| {
        let directory = authority.directory();
        let (copies, head) = copies(authority)?;
        Ok((copies, head, directory.resource_servers()?, directory.denied_tools()?))
    });
    let (copies, head, servers, denied) = found.await?;
    let is_empty = |audience: &str| copies.iter().all(|copy| copy.audience != audience);
    let empty: Vec<Empty> = servers
        .iter()
        .filter(|server| is_empty(&server.audience))
        .map(|server| Empty { audience: shown(&server.audience), added: ago(server.added_at, now) })
        .collect();
    let lines = copies.iter().map(|copy| Line::of(copy, head, now)).collect();
    let lines = Slice::of(lines, visit.page());
    let shown_page = ListPage {
        browser: &visit.browser,
        copies: lines.rows,
        before: lines.before,
        after: lines.after,
        more_empty: empty.len().saturating_sub(super::PAGE),
        empty: empty.into_iter().take(super::PAGE).collect(),
        more_denied: denied.len().saturating_sub(super::PAGE),
        denied: denied
            .iter()
            .take(super::PAGE)
            .map(|denied| {
                let why = format!("{} by {}: {}", ago(denied.at, now), denied.by, denied.reason);
                (shown(&denied.tool), shown(&why))
            })
            .collect(),
        head,
    };
    Ok(page(StatusCode::OK, &shown_page, ""))
}

#[derive(Template)]
#[template(path = "copy.html")]
struct CopyPage<'a> {
    browser: &'a Browser,
    copy: Line,
    head: u64,
    may_remove: bool,
}

/// One copy.
pub(in super::super) async fn show(pages: &Pages, name: &str, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, &format!("/console/servers/{name}"))?;
    let (wanted, by) = (name.to_owned(), visit.browser.human.clone());
    let found = visit.look_at_service(pages, move |authority| {
        let (copies, head) = copies(authority)?;
        let copy = copies.into_iter().find(|copy| copy.id == wanted);
        let copy = copy.ok_or(Refused::Unknown("copy of a resource server"))?;
        Ok((copy, head, is_allowed(authority, &by, REMOVE)))
    });
    let (copy, head, may_remove) = found.await?;
    let copy = Line::of(&copy, head, visit.now.secs());
    Ok(page(StatusCode::OK, &CopyPage { browser: &visit.browser, copy, head, may_remove }, ""))
}

/// Forgets a copy for good.
pub(in super::super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let deed = Deed::begin(pages, request, &format!("/console/servers/{name}")).await?;
    if deed.word() != "remove" {
        return Err(Refusal::not_ours());
    }
    let (id, Deed { by, now, .. }) = (name.to_owned(), deed);
    let removed = pages.run(move |authority| {
        may_of_service(authority, &by, REMOVE)?;
        Ok::<_, Refusal>(authority.remove_replica(&id, &by, now)?)
    });
    removed.await??;
    Ok(see_other("/console/servers"))
}
