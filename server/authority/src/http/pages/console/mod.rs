//! The console: what there is, what needs somebody, and what somebody may do about it. Policy says who may look and who may act.
//!
//! Nothing is decided here. A page reads what the service knows; a form of one calls what the operator's socket calls, in the name of
//! whoever sent it.

mod agents;
pub(super) mod audit;
mod diff;
mod keys;
mod overview;
mod policies;
mod servers;
mod sessions;

use core::time::Duration;

use axum::extract::Request;
use http::StatusCode;
use obol_secret::text::plain;

pub(super) use self::agents::{agent, decide as decide_agent, list as agents};
pub(super) use self::audit::{check as check_audit, show as audit};
pub(super) use self::keys::show as keys;
pub(super) use self::overview::overview;
pub(super) use self::policies::{
    compare as compare_policies, decide as decide_policy, list as policies, show as policy,
};
pub(super) use self::servers::{decide as decide_copy, list as servers, show as copy};
pub(super) use self::sessions::{decide as end_session, list as sessions, show as session};
use super::Pages;
use super::answer::Refusal;
use super::browser::Browser;
use super::guard::Form;
use super::words::{ago, ahead, shown, span};
use crate::authority::{Authority, Copy, Now};
use crate::directory::Human;
use crate::http::now;
use crate::refused::Refused;

/// What policies call looking.
pub(super) const VIEW: &str = "console.view";
/// Rows of one page.
pub(super) const PAGE: usize = 100;
/// How long a page about an end waits for the others' word on it. They say so within milliseconds.
const HEARD_PATIENCE: Duration = Duration::from_secs(1);
/// The longest reason for an end, in characters.
const MAX_REASON_CHARS: usize = 200;
/// Names that a line of a table shows of a list.
const MAX_NAMES: usize = 6;

/// Somebody's browser, and what they ask to see.
struct Visit {
    browser: Browser,
    query: Form,
    now: Now,
}

impl Visit {
    fn begin(pages: &Pages, request: &Request, path: &str) -> Result<Self, Refusal> {
        let browser = pages.browser(request.headers(), path)?;
        let query = Form::of(request.uri().query().unwrap_or_default().as_bytes());
        Ok(Self { browser, query: query.ok_or_else(Refusal::not_ours)?, now: now() })
    }

    fn asked(&self, name: &str) -> Option<&str> {
        self.query.one(name)
    }

    /// The number of an event, where the page is about what followed from it.
    fn since(&self) -> Option<u64> {
        self.asked("since").and_then(|event| event.parse().ok())
    }

    /// Which page of a list, from 0.
    fn page(&self) -> usize {
        self.asked("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1).saturating_sub(1)
    }

    /// Reads what a page shows of the service itself, if policy lets this human look, and it is of their organisation.
    async fn look_at_service<T: Send + 'static>(
        &self,
        pages: &Pages,
        read: impl FnOnce(&Authority) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let by = self.browser.human.clone();
        self.look(pages, move |authority| {
            reach_service(authority, &by)?;
            read(authority)
        })
        .await
    }

    /// Reads what a page shows, if policy lets this human look. It shows them nothing of an organisation that they do not reach.
    async fn look<T: Send + 'static>(
        &self,
        pages: &Pages,
        read: impl FnOnce(&Authority) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let by = self.browser.human.clone();
        pages
            .run(move |authority| {
                may(authority, &by, VIEW)?;
                read(authority)
            })
            .await?
    }
}

/// A form by which something is done: by a login that is a moment old.
struct Deed {
    form: Form,
    by: Human,
    now: Now,
}

impl Deed {
    async fn begin(pages: &Pages, request: Request, path: &str) -> Result<Self, Refusal> {
        let browser = pages.fresh_browser(request.headers(), path)?;
        let form = Form::read(request, pages.origin(), &browser).await?;
        Ok(Self { form, by: browser.human, now: now() })
    }

    fn word(&self) -> String {
        self.form.one("word").unwrap_or_default().to_owned()
    }

    /// What is written down and told; without what steers a terminal or hides.
    fn reason(&self, otherwise: &str) -> String {
        reason(self.form.one("reason"), otherwise)
    }
}

fn reason(said: Option<&str>, otherwise: &str) -> String {
    let said: String = plain(said.unwrap_or_default().trim()).chars().take(MAX_REASON_CHARS).collect();
    if said.is_empty() { otherwise.to_owned() } else { said }
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

/// The same of something that is the service's own, and so of its organisation.
fn may_of_service(authority: &Authority, by: &Human, verb: &str) -> Result<(), Refusal> {
    may(authority, by, verb)?;
    reach_service(authority, by)
}

fn reach_service(authority: &Authority, by: &Human) -> Result<(), Refusal> {
    match authority.reaches_service(by)? {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Not allowed",
            "This is of another organisation than yours. You see your own agents, their sessions, and calls that wait.",
        )),
    }
}

fn is_allowed(authority: &Authority, by: &Human, verb: &str) -> bool {
    authority.may_operate(by, verb).is_ok_and(|verdict| verdict.allowed)
}

/// Names in a line, as many as there is room for.
fn some(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| shown(name)).collect();
    match (names.len(), names.len().saturating_sub(MAX_NAMES)) {
        (0, _) => "none".to_owned(),
        (_, 0) => shown.join(", "),
        (_, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// All names.
pub(super) fn all(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { shown(&names.join(", ")) }
}

/// One page of a list that is there as a whole: its rows, and the numbers of the pages beside it.
struct Slice<T> {
    rows: Vec<T>,
    before: Option<usize>,
    after: Option<usize>,
}

impl<T> Slice<T> {
    fn of(all: Vec<T>, page: usize) -> Self {
        let first = page.saturating_mul(PAGE);
        let is_more = all.len() > first.saturating_add(PAGE);
        Self {
            rows: all.into_iter().skip(first).take(PAGE).collect(),
            before: (page > 0).then_some(page),
            after: is_more.then(|| page.saturating_add(2)),
        }
    }
}

/// A copy of a resource server, as it stands to some event.
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
            audience: shown(&copy.audience),
            id: copy.id,
            follows: copy.follows,
            is_level: copy.confirmed,
            lease: ahead(copy.lease_ends, now),
        }
    }
}

/// Who has heard of an end.
struct Heard {
    servers: Vec<Server>,
    /// How many copies are not listed.
    more: usize,
    /// What the sidecar of the one agent that it is about says: whether it is connected, and whether it has heard.
    sidecar: Option<(bool, bool)>,
    is_settled: bool,
    /// Where to look again.
    again: String,
}

impl Heard {
    /// Of the event with this number, by the copies of these resource servers and the agent's sidecar.
    fn of(
        authority: &Authority,
        event: u64,
        audiences: &[String],
        agent: Option<String>,
        path: &str,
        now: u64,
    ) -> Result<Self, Refused> {
        let agents: Vec<String> = agent.into_iter().collect();
        let (mut copies, sidecars) = authority.confirmations(event, audiences, &agents, HEARD_PATIENCE)?;
        copies.sort_by_key(|copy| copy.confirmed);
        Ok(Self {
            is_settled: copies.iter().all(|copy| copy.confirmed),
            more: copies.len().saturating_sub(PAGE),
            servers: copies.into_iter().take(PAGE).map(|copy| Server::of(copy, now)).collect(),
            sidecar: sidecars.first().map(|sidecar| (sidecar.follows, sidecar.confirmed)),
            again: format!("{path}?since={event}"),
        })
    }
}

fn audiences(authority: &Authority) -> Result<Vec<String>, Refused> {
    let servers = authority.directory().resource_servers()?;
    Ok(servers.into_iter().map(|server| server.audience).collect())
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
        let of = |said| reason(said, "ended in the console");
        assert_eq!(of(None), "ended in the console");
        assert_eq!(of(Some("  left the team ")), "left the team");
        assert!(!of(Some("a\u{202e}b\u{1b}[2J")).contains(['\u{202e}', '\u{1b}']));
        assert_eq!(of(Some(&"x".repeat(1_000))).len(), MAX_REASON_CHARS);
    }

    #[test]
    fn a_list_is_shown_in_pages_and_a_line_names_a_few() {
        let numbers = |page| Slice::of((0..250).collect::<Vec<u32>>(), page);
        let (first, last, behind) = (numbers(0), numbers(2), numbers(usize::MAX));
        assert_eq!((first.rows.len(), first.before, first.after), (PAGE, None, Some(2)));
        assert_eq!((last.rows.as_slice().first(), last.rows.len()), (Some(&200), 50));
        assert_eq!((last.before, last.after, behind.rows.len()), (Some(2), None, 0));
        let names: Vec<String> = (0..9).map(|number| format!("t{number}")).collect();
        assert_eq!(some(&names), "t0, t1, t2, t3, t4, t5 and 3 more");
        assert_eq!((some(&[]).as_str(), some(&["a\u{202e}".to_owned()]).as_str()), ("none", "a\\u202e"));
    }
}
