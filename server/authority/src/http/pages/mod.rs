//! The pages where humans decide, for a browser: no script, one stylesheet, forms.
//!
//! | part | what it is |
//! |---|---|
//! | `login` | to the identity provider and back |
//! | `activate` | an agent that asks to be approved |
//! | `calls` | a call that waits for a human's yes |
//! | `operate` | an operator of another machine who asks to be let in |
//! | `console` | what there is and what needs somebody: agents, sessions, resource servers |
//! | `grants` | a grant as people read it |
//! | `browser` | who is logged in with which browser |
//! | `guard` | what a request must show before it changes anything |
//! | `answer` | the headers of every page, and its text |
//!
//! What they promise: nothing is changed but by a form of ours, sent by the browser of whoever it was shown to, who logged in
//! within the last five minutes; nothing that an agent says of itself can be more than text; no other site can frame a page or learn of
//! one.

mod activate;
mod answer;
mod browser;
mod calls;
mod console;
mod grants;
mod guard;
mod login;
mod operate;
mod words;

use core::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use obol_handshake::{Random as _, SystemRandom};
use obol_probe::rate::{Limiter, Rate, Start};
use zeroize::Zeroizing;

use self::answer::Refusal;
use self::browser::{Browser, Browsers};
use super::load::{Turnstile, source_of};
use super::now;
use super::routes::Peer;
use crate::authority::Authority;
use crate::identity::Providers;
use crate::policy::Policies;
use crate::ssf::Events;

/// How old a login may be by which something is decided, in seconds.
const FRESH_LOGIN_SECS: u64 = 300;

/// What the pages share.
#[derive(Debug)]
pub(super) struct Pages {
    authority: Arc<Authority>,
    providers: Arc<Providers>,
    kept: Kept,
    browsers: Browsers,
    /// What a login's beginning is sealed under while the browser keeps it. It ends with the process.
    login_key: Zeroizing<[u8; 32]>,
    work: Turnstile,
    sources: Limiter<IpAddr>,
    guesses: activate::Guesses,
    /// One at a time checks the audit log.
    checking: tokio::sync::Semaphore,
    start: Start,
}

/// What a service keeps beside its directory, where it does.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) policies: Option<Arc<Policies>>,
    pub(super) events: Option<Arc<Events>>,
}

type Served = Result<Response, Refusal>;

impl Pages {
    pub(super) fn new(
        authority: Arc<Authority>,
        providers: Arc<Providers>,
        kept: Kept,
        rate: Option<Rate>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
        let mut login_key = Zeroizing::new([0; 32]);
        SystemRandom.fill(&mut *login_key);
        Self {
            authority,
            providers,
            kept,
            browsers: Browsers::default(),
            login_key,
            work: Turnstile::new(2 * cores),
            sources: Limiter::new(rate),
            guesses: activate::Guesses::default(),
            checking: tokio::sync::Semaphore::new(1),
            start: Start::now(),
        }
    }

    fn origin(&self) -> &str {
        self.authority.settings().origin()
    }

    /// Whether this source may ask for one more page.
    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
        let source = source_of(peer.ok_or_else(Refusal::overloaded)?);
        self.sources.take(source, self.start.nanoseconds()).map_err(|_| Refusal::too_many())
    }

    /// Does what computes or waits for a disk.
    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Authority) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let authority = Arc::clone(&self.authority);
        self.work.run(move || act(&authority)).await.map_err(|_| Refusal::overloaded())
    }

    /// Who is logged in with this browser, or where they log in to come back to `to`.
    fn browser(&self, headers: &HeaderMap, to: &str) -> Result<Browser, Refusal> {
        self.browsers.find(headers, now().secs()).ok_or_else(|| Refusal::login(to))
    }

    /// As [`browser`](Self::browser), of somebody who logged in a moment ago.
    fn fresh_browser(&self, headers: &HeaderMap, to: &str) -> Result<Browser, Refusal> {
        let browser = self.browser(headers, to)?;
        let age = now().secs().saturating_sub(browser.login_at);
        if age <= FRESH_LOGIN_SECS { Ok(browser) } else { Err(Refusal::login(to)) }
    }
}

/// One page's handler: admitted, and its refusal made a page too.
macro_rules! page {
    ($method:ident, $act:path) => {
        $method(async |State(pages): State<Arc<Pages>>, request: Request| {
            let served = match pages.admit(&request) {
                Ok(()) => $act(&pages, request).await,
                Err(refusal) => Err(refusal),
            };
            served.unwrap_or_else(Refusal::into_page)
        })
    };
    ($method:ident, $act:path, named) => {
        $method(async |State(pages): State<Arc<Pages>>, Path(name): Path<String>, request: Request| {
            let served = match pages.admit(&request) {
                Ok(()) => $act(&pages, &name, request).await,
                Err(refusal) => Err(refusal),
            };
            served.unwrap_or_else(Refusal::into_page)
        })
    };
}

pub(super) fn router(pages: Arc<Pages>) -> axum::Router {
    axum::Router::new()
        .route("/", get(async || answer::see_other("/console")))
        .route("/style.css", get(style))
        .route("/login", page!(get, login::begin))
        .route("/callback", page!(get, login::finish))
        .route("/callback/{name}", page!(get, login::finish_named, named))
        .route("/logout", page!(post, login::end))
        .route("/activate", page!(get, activate::ask_for_code).merge(page!(post, activate::take_code)))
        .route(
            "/activate/{id}",
            page!(get, activate::show, named).merge(page!(post, activate::decide, named)),
        )
        .route("/operate", page!(get, operate::ask_for_code).merge(page!(post, operate::take_code)))
        .route("/operate/{id}", page!(get, operate::show, named).merge(page!(post, operate::decide, named)))
        .route("/console", page!(get, console::overview))
        .route("/console/agents", page!(get, console::agents))
        .route(
            "/console/agents/{id}",
            page!(get, console::agent, named).merge(page!(post, console::decide_agent, named)),
        )
        .route("/console/sessions", page!(get, console::sessions))
        .route(
            "/console/sessions/{id}",
            page!(get, console::session, named).merge(page!(post, console::end_session, named)),
        )
        .route("/console/audit", page!(get, console::audit).merge(page!(post, console::check_audit)))
        .route("/console/keys", page!(get, console::keys))
        .route("/console/policies", page!(get, console::policies))
        .route("/console/policies/diff", page!(get, console::compare_policies))
        .route(
            "/console/policies/{digest}",
            page!(get, console::policy, named).merge(page!(post, console::decide_policy, named)),
        )
        .route("/console/servers", page!(get, console::servers))
        .route(
            "/console/servers/{id}",
            page!(get, console::copy, named).merge(page!(post, console::decide_copy, named)),
        )
        .route("/console/approvals", page!(get, calls::list))
        .route(
            "/console/approvals/{id}",
            page!(get, calls::show, named).merge(page!(post, calls::decide, named)),
        )
        .with_state(pages)
}

async fn style() -> Response {
    let mut response = Response::new(include_str!("../../../templates/style.css").into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}
