//! The authenticator beside the agent, and how long to wait for what is away for a moment.
//!
//! Whoever needs a session at the same time gets the same one: one asks, the others wait for what that comes to.

use core::time::Duration;

use obol_client::{AuthClient, CallError, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::auth::{AuthStatusResult, OpenSession};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::error::{Code, Error};

/// Asks the authenticator, which may be asking the Authentication Service.
#[derive(Debug)]
pub(crate) struct Authenticator {
    endpoint: Endpoint,
    options: ConnectOptions,
    fresh: Flight<OpenSession>,
    session: Flight<OpenSession>,
    status: Flight<AuthStatusResult>,
}

impl Authenticator {
    pub(crate) fn new(endpoint: Endpoint, options: ConnectOptions) -> Self {
        let (fresh, session, status) = (Flight::default(), Flight::default(), Flight::default());
        Self { endpoint, options, fresh, session, status }
    }

    /// Does something with a connection of its own, off the runtime's threads.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        deadline: Instant,
        what: impl FnOnce(&mut AuthClient) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, Error> {
        let (endpoint, options) = (self.endpoint.clone(), self.options.clone());
        let asked = spawn_blocking(move || {
            let mut client = AuthClient::connect(endpoint, options)?;
            what(&mut client).map_err(Error::from)
        });
        match timeout_at(deadline, asked).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::new(Code::DaemonUnreachable, "the runtime is shutting down")),
            Err(_) => Err(time_over("the authenticator")),
        }
    }

    /// A new session, for somebody who asked at that moment.
    pub(crate) async fn fresh(&self, asked: Instant, deadline: Instant) -> Result<OpenSession, Error> {
        self.fresh.join(asked, deadline, || self.ask(deadline, AuthClient::authenticate)).await
    }

    /// A session, for somebody who noticed at that moment that there is none.
    pub(crate) async fn session(&self, noticed: Instant, deadline: Instant) -> Result<OpenSession, Error> {
        self.session.join(noticed, deadline, || self.ask(deadline, AuthClient::ensure_authenticated)).await
    }

    /// How it stands, with all routes, as it was at that moment or later.
    pub(crate) async fn status(
        &self,
        noticed: Instant,
        deadline: Instant,
    ) -> Result<AuthStatusResult, Error> {
        self.status.join(noticed, deadline, || self.ask(deadline, AuthClient::auth_status)).await
    }
}

/// Something that many need at once and one asks for.
#[derive(Debug)]
struct Flight<T>(Mutex<Option<Landed<T>>>);

#[derive(Debug)]
struct Landed<T> {
    at: Instant,
    outcome: Result<T, Error>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Flight<T> {
    /// What somebody was answered after `noticed`.
    async fn join<F>(&self, noticed: Instant, deadline: Instant, ask: impl FnOnce() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Ok(mut last) = timeout_at(deadline, self.0.lock()).await else {
            return Err(time_over("the authenticator"));
        };
        if let Some(landed) = last.as_ref().filter(|landed| landed.at >= noticed) {
            return landed.outcome.clone();
        }
        let outcome = ask().await;
        // Of one whose own time was over the others learn nothing.
        if !matches!(&outcome, Err(error) if error.code() == Code::Timeout) {
            *last = Some(Landed { at: Instant::now(), outcome: outcome.clone() });
        }
        outcome
    }
}

pub(crate) fn time_over(whom: &str) -> Error {
    let message = format!("{whom} did not answer in time; nothing was sent. Allow more time, or see its log");
    Error::new(Code::Timeout, message)
}

/// Pauses that grow, for what may be over in a moment, and what that was last.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
    refusal: Option<Error>,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(crate) const fn new() -> Self {
        Self { next: Self::FIRST, refusal: None }
    }

    /// Waits after a refusal, as long as it asks for or a little longer each time; gives it back where the time would be over.
    pub(crate) async fn after(&mut self, refusal: Error, deadline: Instant) -> Result<(), Error> {
        let pause = refusal.retry_after().map_or(self.next, |asked| asked.max(Duration::from_millis(1)));
        self.next = (self.next * 2).min(Self::LONGEST);
        if !sleep_within(jittered(pause), deadline).await {
            return Err(refusal);
        }
        self.refusal = Some(refusal);
        Ok(())
    }

    /// What to tell of an error that ends the asking: where the time was over while asking once more, why there was no answer
    /// until then.
    pub(crate) fn ended_by(self, error: Error) -> Error {
        match self.refusal {
            Some(refusal) if error.code() == Code::Timeout => refusal,
            _ => error,
        }
    }
}

/// Waits, if the time allows.
pub(crate) async fn sleep_within(pause: Duration, deadline: Instant) -> bool {
    let Some(until) = Instant::now().checked_add(pause).filter(|until| *until < deadline) else {
        return false;
    };
    tokio::time::sleep_until(until).await;
    true
}

/// Up to a quarter longer, by chance, so that those who wait together do not come together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    let _without = getrandom::fill(&mut byte);
    pause + pause.mul_f64(f64::from(byte[0]) / 1_024.0)
}
