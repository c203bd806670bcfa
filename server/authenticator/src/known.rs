//! What is known at a moment, for those who ask: the keeper alone writes it, and nobody who reads it waits for the network.

use std::collections::BTreeMap;
use std::sync::Arc;

use obol_ipc::auth::{
    AuthState, AuthStatusResult, OpenSession, Problem, RegistrationResult, RegistrationState, Route,
};
use obol_ipc::control::{HoldStatus, StatusParams};
use obol_ipc::frame::MAX_BODY_BYTES;
use obol_ipc::names::{Audience, ToolName};
use obol_ipc::time::UtcTime;
use obol_probe::metrics::Counter;
use obol_uplink::Outbox;
use parking_lot::Mutex;

use crate::audit::Auditor;
use crate::stolen::Stolen;

/// Requests that are calls of a tool: all but the tool.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) audience: Audience,
    pub(crate) url: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) sealed: bool,
}

impl Place {
    /// What it takes in an answer, beside what is around each text.
    fn bytes(&self) -> usize {
        let texts = [&self.url, &self.method, &self.path, &self.via].into_iter().flatten();
        self.audience.as_str().len() + texts.map(|text| text.len() + ITEM_BYTES).sum::<usize>()
    }

    fn with(&self, tools: Vec<ToolName>) -> Route {
        let Self { audience, url, method, path, via, sealed } = self.clone();
        Route { audience, tools, url, method, path, via, sealed }
    }
}

/// Space for routes in one answer: half a frame. The other half is for the rest, and for characters that JSON writes as two.
const PAGE_BYTES: usize = MAX_BODY_BYTES / 2;
/// What a name takes besides its own bytes.
const ITEM_BYTES: usize = 48;

/// What is known.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) registration: RegistrationResult,
    pub(crate) session: Option<OpenSession>,
    /// Where tokens can go, each with one tool, in order: a route for each place, cut where an answer is full. Not known of a session
    /// that was there before this process.
    pub(crate) routes: Vec<(Place, ToolName)>,
    pub(crate) renew_at: Option<UtcTime>,
    pub(crate) skew: Option<i64>,
    pub(crate) problem: Option<Problem>,
    pub(crate) hold: Option<HoldStatus>,
    /// Whether the service ended the agent.
    pub(crate) is_stopped: bool,
    /// Whether the sidecar can be reached.
    pub(crate) sees_sidecar: bool,
}

impl Known {
    pub(crate) fn state(&self) -> AuthState {
        match self.registration.state {
            // A flush is told to the service, which then stops the agent as well: the operator here comes first.
            _ if self.is_stopped && self.hold.is_none() => AuthState::Stopped,
            RegistrationState::Waiting if self.session.is_none() => AuthState::Waiting,
            RegistrationState::None | RegistrationState::Denied | RegistrationState::Expired => {
                AuthState::Unregistered
            }
            _ if self.hold.is_some() => AuthState::Held,
            _ if self.session.is_some() => AuthState::Authenticated,
            _ => AuthState::Registered,
        }
    }

    /// Why there is no session to draw from, if there is none: for programs, one of [`NOT_READY`], and for people.
    pub(crate) fn not_ready(&self) -> Option<(&'static str, String)> {
        let why =
            || self.problem.as_ref().map_or_else(String::new, |problem| format!(": {}", problem.message));
        let not = |name, what: &str| Some((name, format!("{what}{}", why())));
        match self.state() {
            AuthState::Authenticated if self.sees_sidecar => None,
            AuthState::Authenticated => not("sidecar", "the sidecar cannot be reached"),
            AuthState::Unregistered => not("unregistered", "the agent is not registered"),
            AuthState::Waiting => not("waiting", "a human has yet to approve the agent"),
            AuthState::Held => {
                not("held", "an operator flushed the sidecar; `obol resume` lets sessions be opened again")
            }
            AuthState::Stopped => not("stopped", "the service ended the agent"),
            _ => not("no_session", "there is no session"),
        }
    }

    /// The routes from this place on that fit into one answer, and where the next page begins.
    fn page(&self, from: u64) -> (Vec<Route>, Option<u64>) {
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let (mut routes, mut bytes) = (BTreeMap::<&Place, Vec<ToolName>>::new(), 0);
        for (number, (place, tool)) in self.routes.iter().enumerate().skip(skip) {
            bytes += tool.as_str().len() + ITEM_BYTES;
            if !routes.contains_key(place) {
                bytes += place.bytes() + ITEM_BYTES;
            }
            if bytes > PAGE_BYTES && number > skip {
                return (listed(routes), u64::try_from(number).ok());
            }
            routes.entry(place).or_default().push(tool.clone());
        }
        (listed(routes), None)
    }
}

fn listed(routes: BTreeMap<&Place, Vec<ToolName>>) -> Vec<Route> {
    routes.into_iter().map(|(place, tools)| place.with(tools)).collect()
}

/// Every reason for which the authenticator is not ready.
pub(crate) const NOT_READY: [&str; 9] = [
    "stopping",
    "socket",
    "audit_log",
    "sidecar",
    "unregistered",
    "waiting",
    "held",
    "stopped",
    "no_session",
];

/// What does not change while the process runs, and what it counts.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) known: Mutex<Known>,
    pub(crate) authority: String,
    pub(crate) auditor: Auditor,
    pub(crate) started: std::time::Instant,
    pub(crate) opened: Counter,
    pub(crate) failed: Counter,
    pub(crate) stolen: Stolen,
}

impl Shared {
    pub(crate) fn new(known: Known, authority: String, auditor: Auditor, outbox: Arc<Outbox>) -> Self {
        Self {
            known: Mutex::new(known),
            authority,
            auditor,
            started: std::time::Instant::now(),
            opened: Counter::default(),
            failed: Counter::default(),
            stolen: Stolen::new(outbox),
        }
    }

    /// How it stands.
    pub(crate) fn status(&self, params: StatusParams) -> AuthStatusResult {
        let known = self.known.lock();
        let (routes, next) = known.page(params.from.unwrap_or(0));
        AuthStatusResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            uptime_seconds: self.started.elapsed().as_secs(),
            authority: self.authority.clone(),
            state: known.state(),
            registration: known.registration.clone(),
            session: known.session.clone(),
            renew_at: known.renew_at,
            skew_seconds: known.skew,
            problem: known.problem.clone(),
            hold: known.hold.clone(),
            routes,
            next,
        }
    }

    /// Notes the session there is.
    pub(crate) fn set_session(&self, session: Option<OpenSession>) {
        let mut known = self.known.lock();
        if session.is_none() {
            (known.routes, known.renew_at) = (Vec::new(), None);
        }
        known.session = session;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn known(state: RegistrationState) -> Known {
        let words = "babad".to_owned();
        Known {
            registration: RegistrationResult {
                state,
                code: None,
                words,
                expires_at: None,
                agent_id: None,
                approval_expires_at: None,
                page: None,
                return_code: false,
            },
            session: None,
            routes: Vec::new(),
            renew_at: None,
            skew: None,
            problem: None,
            hold: None,
            is_stopped: false,
            sees_sidecar: true,
        }
    }

    #[test]
    fn every_state_but_one_is_not_ready_and_names_a_reason_that_is_listed() {
        for state in [
            RegistrationState::None,
            RegistrationState::Waiting,
            RegistrationState::Denied,
            RegistrationState::Expired,
            RegistrationState::Active,
        ] {
            let (name, _) = known(state).not_ready().unwrap();
            assert!(NOT_READY.contains(&name), "{name}");
        }
        let mut stopped = known(RegistrationState::Active);
        stopped.is_stopped = true;
        assert_eq!(stopped.not_ready().unwrap().0, "stopped");
    }

    #[test]
    fn routes_come_in_pages_that_fit_a_frame_and_lose_none() {
        let mut known = known(RegistrationState::Active);
        for audience in 0..20 {
            for tool in 0..60 {
                let audience = Audience::new(format!("https://{audience:0200}")).unwrap();
                let path = Some(format!("/{:0100}", tool / 20));
                let place = Place { audience, url: None, method: None, path, via: None, sealed: false };
                known.routes.push((place, ToolName::new(format!("{tool:0100}")).unwrap()));
            }
        }
        let (mut from, mut seen, mut pages) = (0, 0, 0);
        loop {
            let (routes, next) = known.page(from);
            seen += routes.iter().map(|route| route.tools.len()).sum::<usize>();
            pages += 1;
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(seen, known.routes.len());
        assert!(pages > 3, "{pages}");
        assert_eq!(known.page(u64::MAX), (Vec::new(), None));
    }
}
