//! What needs somebody, before anything else.

use askama::Template;
use axum::extract::Request;
use http::StatusCode;

use super::super::answer::page;
use super::super::{Pages, Served, calls};
use super::{Browser, Visit, ago, audit, servers, shown};
use crate::authority::Copy;
use crate::directory::Registration;

/// Registrations, calls and copies that are named here; the pages behind it name all.
const NAMED: usize = 20;

/// Somebody who asks to be an agent.
struct Waiting {
    name: String,
    class: String,
    source: String,
    words: String,
    since: String,
}

impl Waiting {
    fn of(waiting: &Registration, now: u64) -> Self {
        Self {
            name: shown(&waiting.wanted.name),
            class: shown(&waiting.wanted.class),
            source: shown(&waiting.source),
            words: waiting.identity.words(),
            since: ago(waiting.created_at, now),
        }
    }
}

#[derive(Template)]
#[template(path = "console.html")]
struct ConsolePage<'a> {
    browser: &'a Browser,
    /// Registrations, and how many more.
    waiting: Vec<Waiting>,
    more_waiting: usize,
    /// Calls that this human may decide about, and how many more.
    calls: Vec<calls::Line>,
    more_calls: usize,
    /// Copies of resource servers that do not follow, and how many more.
    lost: Vec<servers::Line>,
    more_lost: usize,
    /// Alarms of the last week, and whether there is an audit log to find them in.
    alarms: Vec<audit::Line>,
    is_audited: bool,
    /// Whether the service is of this human's organisation.
    is_own: bool,
    servers: usize,
    denied_tools: usize,
}

/// What there is that is of no agent.
#[derive(Default)]
struct Service {
    copies: (Vec<Copy>, u64),
    denied_tools: usize,
    alarms: Option<Vec<audit::Line>>,
    waiting: Vec<Registration>,
}

/// The first that are named, and how many are left.
fn named<T, U>(all: Vec<T>, line: impl FnMut(T) -> U) -> (Vec<U>, usize) {
    let more = all.len().saturating_sub(NAMED);
    (all.into_iter().take(NAMED).map(line).collect(), more)
}

/// What needs somebody, and what there is.
pub(in super::super) async fn overview(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console")?;
    let (by, now) = (visit.browser.human.clone(), visit.now);
    let found = visit.look(pages, move |authority| {
        let directory = authority.directory();
        // Who asks to be an agent is nobody's yet, and copies and alarms are of everybody: they are shown to the service's own people.
        let is_own = authority.reaches_service(&by)?;
        let calls = calls::to_decide(authority, &by, now)?;
        let service = match is_own {
            true => Some(Service {
                copies: servers::copies(authority)?,
                denied_tools: directory.denied_tools()?.len(),
                alarms: audit::alarms(authority, NAMED, now.secs()),
                waiting: authority.waiting_registrations(&by, now)?,
            }),
            false => None,
        };
        Ok((calls, service))
    });
    let (calls, service) = found.await?;
    let is_own = service.is_some();
    let Service { copies: (copies, head), denied_tools, alarms, waiting } = service.unwrap_or_default();
    let servers = copies.len();
    let lost: Vec<_> = copies.into_iter().filter(|copy| !copy.follows).collect();
    let now = now.secs();
    let (waiting, more_waiting) = named(waiting, |waiting| Waiting::of(&waiting, now));
    let (calls, more_calls) = named(calls, |line| line);
    let (lost, more_lost) = named(lost, |copy| servers::Line::of(&copy, head, now));
    let shown = ConsolePage {
        browser: &visit.browser,
        waiting,
        more_waiting,
        calls,
        more_calls,
        lost,
        more_lost,
        is_own,
        is_audited: alarms.is_some() || !is_own,
        alarms: alarms.unwrap_or_default(),
        servers,
        denied_tools,
    };
    Ok(page(StatusCode::OK, &shown, ""))
}
