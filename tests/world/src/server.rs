//! A resource server in this process: one session, a clock that stands still, and marks in memory.

use std::sync::Arc;

use obol_clock::ManualClock;
use obol_session::clock::Clock;
use obol_token::{Audience, Suite};
use obol_verify::{
    Arguments, Denial, MemorySessionTable, MemorySpentSet, Request, Session, Spent, SpentSet, Template,
    Unverified, Verified, Verifier, VerifierBuilder, Window,
};

use crate::forge::Forge;
use crate::{AUDIENCE, KEYS, Keys, NOW, ORG, TOOL};

pub fn session() -> Session {
    session_of(Suite::Tbac)
}

/// The session of [`KEYS`], had it negotiated another suite.
pub fn session_of(suite: Suite) -> Session {
    session_with(&KEYS.in_suite(suite))
}

/// A session with other keys.
pub fn session_with(keys: &Keys) -> Session {
    let window = Window { start: NOW - 100, end: NOW + 100_000 };
    Session::new(keys.material(), Audience::new(AUDIENCE).expect("an audience"), ORG).with_window(window)
}

/// A resource server with one session, a clock that stands still, and marks in memory.
pub struct Server {
    pub clock: Arc<ManualClock>,
    pub sessions: Arc<MemorySessionTable>,
    pub spent: Arc<dyn SpentSet>,
    pub verifier: Verifier,
}

impl Server {
    pub fn new() -> Self {
        Self::configured(|builder| builder)
    }

    pub fn configured(configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder) -> Self {
        Self::with_session(session(), configure)
    }

    pub fn with_session(
        session: Session,
        configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let spent = MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<dyn Clock>, 60);
        Self::with_spent_set(session, clock, Arc::new(spent), configure)
    }

    pub fn with_spent_set(
        session: Session,
        clock: Arc<ManualClock>,
        spent: Arc<dyn SpentSet>,
        configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder,
    ) -> Self {
        let sessions = Arc::new(MemorySessionTable::new());
        sessions.add(session).unwrap();
        let builder = Verifier::builder(
            Audience::new(AUDIENCE).expect("an audience"),
            Arc::clone(&sessions) as Arc<_>,
            Arc::clone(&spent),
        )
        .templates(Arc::new(Template::Any))
        .clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let verifier = configure(builder).build().unwrap();
        Self { clock, sessions, spent, verifier }
    }

    pub fn verify(&self, token: &Forge, request: &Request<'_>) -> Result<Verified, Denial> {
        Unverified::from_bytes(token.token())?.verify(&self.verifier, request)
    }

    pub fn present(&self, token: &Forge, request: &Request<'_>) -> Result<Spent, Denial> {
        self.verify(token, request)?.spend().wait()
    }

    /// Presents a token for [`TOOL`], reading what is below `docs`, without arguments.
    ///
    /// # Errors
    ///
    /// The denial.
    pub fn accept(&self, token: &Forge) -> Result<Spent, Denial> {
        self.present(token, &reading())
    }
}

/// The request that the fixture's standard token allows.
pub fn reading() -> Request<'static> {
    Request {
        action: Some("read"),
        resource: Some("docs/a"),
        arguments: Arguments::Plain(None),
        ..Request::new(TOOL)
    }
}

/// Code and check of a refusal, as text.
pub fn names<T>(result: Result<T, Denial>) -> (&'static str, &'static str) {
    match result {
        Ok(_) => ("ok", "ok"),
        Err(denial) => (denial.code.as_str(), denial.failed_check.as_str()),
    }
}
