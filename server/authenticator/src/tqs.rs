//! The sidecar (TQS), as its operator: what it holds, keys for proofs, provisioning, and what it must be told.
//!
//! The client blocks, so each call runs on a thread that may wait. One connection is kept while it lasts.

use std::sync::Arc;

use obol_client::{CallError, ConnectError, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::approvals::MintApprovedParams;
use obol_ipc::control::{FlushResult, FlushScope, HoldStatus, ProvisionResult, SessionStatus};
use obol_ipc::names::{EventKind, PeerName, Reason};
use obol_ipc::proof::PopPublic;
use obol_secret::wipe::Wiped;
use obol_session::clock::Reading;

/// Pages of sessions that are looked at. The sidecar holds 10,000 of them at the most.
const MAX_PAGES: usize = 256;

/// What the sidecar has.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Why it takes no new session, while it takes none.
    pub(crate) hold: Option<HoldStatus>,
    pub(crate) sessions: Vec<SessionStatus>,
}

/// Why the sidecar did not do what it was asked.
#[derive(Debug)]
pub(crate) enum TqsError {
    /// It cannot be reached, or what became of the call is not known.
    Unreachable(String),
    /// It refused.
    Refused(obol_ipc::refusal::Refusal),
}

impl core::fmt::Display for TqsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the sidecar (`obol tqs`) cannot be told anything: {why}"),
            Self::Refused(refusal) => write!(f, "the sidecar (`obol tqs`) refused: {refusal}"),
        }
    }
}

impl From<CallError> for TqsError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<ConnectError> for TqsError {
    fn from(error: ConnectError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// The way to the sidecar.
#[derive(Debug)]
pub(crate) struct Tqs {
    endpoint: Endpoint,
    options: Arc<ConnectOptions>,
    client: Option<ControlClient>,
    /// When the service was heard, as whoever is at the other end of this connection knows it.
    told: Option<Reading>,
}

impl Tqs {
    pub(crate) fn new(endpoint: Endpoint, name: PeerName) -> Self {
        Self { endpoint, options: Arc::new(ConnectOptions::new(name)), client: None, told: None }
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    async fn call<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut ControlClient) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, TqsError> {
        let (endpoint, options) = (self.endpoint.clone(), Arc::clone(&self.options));
        let kept = self.client.take();
        let called = tokio::task::spawn_blocking(move || {
            let mut client = match kept {
                Some(client) => client,
                None => ControlClient::connect(endpoint, (*options).clone())?,
            };
            let outcome = act(&mut client);
            // After a lost answer the next call begins on a connection of its own.
            let keeps = matches!(outcome, Ok(_) | Err(CallError::Refused(_)));
            Ok::<_, TqsError>((keeps.then_some(client), outcome))
        });
        let (client, outcome) =
            called.await.unwrap_or_else(|error| Err(TqsError::Unreachable(error.to_string())))?;
        self.client = client;
        if self.client.is_none() {
            // Whoever answers next may be another process.
            self.told = None;
        }
        Ok(outcome?)
    }

    /// What it has.
    pub(crate) async fn look(&mut self) -> Result<Seen, TqsError> {
        self.call(|client| {
            let (mut seen, mut from) = (Seen::default(), None);
            for _ in 0..MAX_PAGES {
                let page = client.status_page(from)?;
                seen.hold = seen.hold.or(page.hold);
                seen.sessions.extend(page.sessions);
                // Sessions come before queues.
                from = page.next.filter(|_| page.tools.is_empty());
                if from.is_none() {
                    break;
                }
            }
            Ok(seen)
        })
        .await
    }

    /// Tells it when the service was heard, and how many seconds ago that is, if it does not know: the leases of its sessions
    /// begin anew then.
    pub(crate) async fn heard(&mut self, at: Reading, secs_ago: u64) -> Result<(), TqsError> {
        if self.told != Some(at) {
            self.call(move |client| client.lease(secs_ago)).await?;
            self.told = Some(at);
        }
        Ok(())
    }

    /// It may be another process by now, which was told nothing.
    pub(crate) fn forget_what_it_was_told(&mut self) {
        self.told = None;
    }

    /// Has it make a key for proofs of possession; the public half.
    pub(crate) async fn pop_key(&mut self) -> Result<PopPublic, TqsError> {
        self.call(ControlClient::pop_key).await
    }

    /// Tells it of a call that a human said yes to.
    pub(crate) async fn mint_approved(&mut self, call: MintApprovedParams) -> Result<(), TqsError> {
        self.call(move |client| client.mint_approved(call)).await
    }

    /// Gives it a session.
    pub(crate) async fn provision(
        &mut self,
        document: Wiped,
        pop_pub: PopPublic,
    ) -> Result<ProvisionResult, TqsError> {
        self.call(move |client| {
            // It was written as JSON a moment ago.
            let text = core::str::from_utf8(&document).unwrap_or_default();
            client.provision_in_parts(text, Some(pop_pub))
        })
        .await
    }

    /// Tells it that the Authentication Service ended an agent: what was minted ahead is destroyed.
    pub(crate) async fn ended(
        &mut self,
        kind: EventKind,
        subject: FlushScope,
        reason: Reason,
    ) -> Result<FlushResult, TqsError> {
        self.call(move |client| client.security_event(kind, subject, reason)).await
    }
}
