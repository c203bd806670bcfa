//! How the agent is registered: asked for once, then asked about until a human, an invitation or time has decided.

use core::net::Ipv4Addr;
use core::time::Duration;

use obol_ipc::auth::{RegisterParams, RegistrationFlow, RegistrationResult, RegistrationState};
use obol_ipc::names::AgentInstanceId;
use obol_ipc::refusal::Refusal;
use obol_ipc::time::UtcTime;
use obol_uplink::AuthError;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::landing::Landing;
use super::{Keeper, PATIENCE};
use crate::authenticator::{Registered, RegistrationState as Polled, Way};
use crate::identity::Flow;
use crate::leave::Leave;
use crate::refusal;
use crate::wishes::merged;

/// How often the service is asked what became of a registration, in seconds, and how soon again for somebody who asks.
pub(super) const POLL_SECS: u64 = 5;
pub(super) const POLL_SOONER_SECS: u64 = 2;
/// Pause between two registrations that the service is asked for, in seconds: a human has to read each.
const REGISTER_PAUSE_SECS: u64 = 10;
/// How long after its end the service is still asked about a registration, in seconds.
const ASKED_PATIENCE_SECS: u64 = 3_600;

impl Keeper {
    /// Asks to be registered, unless that is under way or done.
    pub(super) async fn register(&mut self, params: RegisterParams) -> Result<RegistrationResult, Refusal> {
        let now = self.now();
        if self.still_waits(params.flow, now.wall) {
            return Ok(self.registration());
        }
        let again =
            matches!(self.refused.as_deref(), Some("NOT_REGISTERED" | "APPROVAL_EXPIRED" | "REVOKED"));
        if self.authenticator.identity().agent_id().is_some() && !again {
            return Ok(self.registration());
        }
        let wishes = merged(&self.wishes, &params)?;
        let leave = match (&params.ticket, &params.assertion) {
            (None, None) => None,
            (Some(ticket), None) => Some(Leave::Ticket(ticket.expose())),
            (None, Some(word)) => Some(Leave::Assertion(word.expose())),
            (Some(_), Some(_)) => {
                return Err(Refusal::invalid_argument("say a ticket or an assertion, and not both"));
            }
        };
        if let Some(since) = self.registered
            && now.since(since) < REGISTER_PAUSE_SECS
        {
            return Err(refusal::too_soon(Duration::from_secs(REGISTER_PAUSE_SECS - now.since(since))));
        }
        let auditor = self.auditor.clone();
        let place = auditor.reserve().map_err(|suspended| refusal::unaudited(&suspended))?;
        // Whoever has leave already needs no human.
        let (way, bound) = if leave.is_some() { (None, None) } else { way(params.flow).await };
        let asking = self.authenticator.register_by(&wishes, leave, way, now.wall);
        let asked = timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(AuthError::Unreachable("no answer in time".to_owned())));
        self.shared.known.lock().skew = self.authenticator.skew();
        // One that did not reach the service costs nobody anything.
        if matches!(asked, Ok(_) | Err(AuthError::Refused { .. })) {
            self.registered = Some(now);
        }
        match asked {
            Ok(Registered::Waits { .. }) => {
                tracing::info!("a human has to approve the agent");
                self.landing = self.land(bound);
                place.registered(&wishes.name, &self.subject(), None);
            }
            Ok(Registered::Active { agent_id }) => {
                place.registered(&wishes.name, &self.subject(), Some(&agent_id));
                self.is_active(&agent_id, None);
            }
            Err(error) => {
                tracing::warn!(%error, "the agent was not registered");
                return Err(refusal::of_service(&error, Duration::from_secs(REGISTER_PAUSE_SECS)));
            }
        }
        (self.ended, self.polled) = (None, Some(now));
        Ok(self.registration())
    }

    /// Whether a registration waits that a human's word can come back to, in the way that is asked for.
    fn still_waits(&self, asked: Option<RegistrationFlow>, now: u64) -> bool {
        let Some(waiting) = self.authenticator.waiting().filter(|waiting| now < waiting.expires_at) else {
            return false;
        };
        match waiting.page.map(|page| page.flow) {
            None => true,
            Some(Flow::Code) => asked != Some(RegistrationFlow::Loopback),
            // Nobody listens any more where this process was started anew since.
            Some(Flow::Loopback) => {
                asked != Some(RegistrationFlow::Code) && self.landing.as_ref().is_some_and(Landing::is_open)
            }
        }
    }

    /// Waits for the browser, if the service has pages.
    fn land(&self, bound: Option<TcpListener>) -> Option<Landing> {
        let page = self.authenticator.waiting().and_then(|waiting| waiting.page);
        let is_awaited = page.is_some_and(|page| page.flow == Flow::Loopback);
        let registration = self.authenticator.registration_id()?;
        let orders = self.browsers.clone()?;
        bound.filter(|_| is_awaited).map(|bound| Landing::open(bound, registration, orders))
    }

    /// A human's yes came back.
    pub(super) async fn complete(&mut self, shown: &str) -> Result<RegistrationResult, Refusal> {
        let completing = timeout(PATIENCE, self.authenticator.complete(shown)).await;
        match completing.unwrap_or_else(|_| Err(AuthError::Unreachable("no answer in time".to_owned()))) {
            Ok((agent_id, expires_at)) => {
                self.auditor.approved(&agent_id, expires_at);
                self.is_active(&agent_id, Some(expires_at));
                self.landing = None;
                Ok(self.registration())
            }
            Err(error) => {
                tracing::warn!(%error, "what was shown as a human's yes was not taken");
                // It may have been the last try.
                self.ask_about_registration(0).await;
                Err(refusal::of_completion(&error))
            }
        }
    }

    fn subject(&self) -> String {
        self.authenticator.identity().public().subject()
    }

    fn is_not_approved(&mut self, how: RegistrationState, why: &str) {
        self.auditor.not_approved(&self.subject(), why);
        self.ended = Some(how);
    }

    fn is_active(&mut self, agent_id: &str, approval_expires_at: Option<u64>) {
        tracing::info!(agent = agent_id, "the agent is registered");
        self.hearing.listen_again();
        self.approval_expires_at = approval_expires_at.or(self.approval_expires_at);
        (self.refused, self.failure, self.ended) = (None, None, None);
        self.back_off.reset();
        self.shared.known.lock().problem = None;
    }

    /// Asks the service what became of the registration, if one waits and nobody asked a moment ago.
    /// Who asks for a session may know of a yes that is a moment old: the service is asked as soon as it may be again.
    pub(super) async fn ask_about_registration_soon(&mut self) {
        if let (Some(at), Some(_)) = (self.polled, self.authenticator.waiting()) {
            let left = POLL_SOONER_SECS.saturating_sub(self.now().since(at));
            tokio::time::sleep(Duration::from_secs(left)).await;
        }
        self.ask_about_registration(0).await;
    }

    pub(super) async fn ask_about_registration(&mut self, pause_secs: u64) {
        let now = self.now();
        let Some(waiting) = self.authenticator.waiting() else { return };
        if self.polled.is_some_and(|at| now.since(at) < pause_secs) {
            return;
        }
        self.polled = Some(now);
        let asked = timeout(PATIENCE, self.authenticator.registration())
            .await
            .unwrap_or_else(|_| Err(AuthError::Unreachable("no answer in time".to_owned())));
        match asked {
            Ok(Polled::Approved { agent_id, expires_at }) => {
                self.auditor.approved(&agent_id, expires_at);
                self.is_active(&agent_id, Some(expires_at));
            }
            Ok(Polled::Denied) => self.is_not_approved(RegistrationState::Denied, "a human said no"),
            Ok(Polled::Expired) => {
                self.is_not_approved(RegistrationState::Expired, "nobody decided in time");
            }
            Ok(Polled::Pending | Polled::Confirming) => {}
            // The service forgets it an hour after its end.
            Err(error) if now.wall > waiting.expires_at.saturating_add(ASKED_PATIENCE_SECS) => {
                tracing::warn!(%error, "nobody decided about the agent in time");
                self.is_not_approved(RegistrationState::Expired, "nobody decided in time");
                if let Err(error) = self.authenticator.forget_registration() {
                    tracing::error!(%error, "the registration could not be forgotten");
                }
            }
            Err(error) => tracing::debug!(%error, "the service did not say what became of the registration"),
        }
    }

    pub(super) fn registration(&self) -> RegistrationResult {
        let identity = self.authenticator.identity();
        let agent_id = identity.agent_id().and_then(|id| AgentInstanceId::new(id).ok());
        let waiting = self.authenticator.waiting();
        let state = match (&waiting, &agent_id) {
            (Some(_), _) => RegistrationState::Waiting,
            (None, _) if self.refused.as_deref() == Some("NOT_REGISTERED") => RegistrationState::None,
            (None, Some(_)) => RegistrationState::Active,
            (None, None) => self.ended.unwrap_or(RegistrationState::None),
        };
        let page = waiting.as_ref().and_then(|waiting| waiting.page.clone());
        let (code, expires_at) = waiting.map(|waiting| (waiting.code, waiting.expires_at)).unzip();
        RegistrationResult {
            state,
            code,
            words: identity.public().words(),
            expires_at: expires_at.map(UtcTime::from_unix_seconds),
            agent_id,
            approval_expires_at: self.approval_expires_at.map(UtcTime::from_unix_seconds),
            return_code: page.as_ref().is_some_and(|page| page.flow == Flow::Code),
            page: page.map(|page| page.url),
        }
    }

    pub(super) fn why_unregistered(&self) -> Refusal {
        match (self.authenticator.waiting(), self.ended) {
            (Some(waiting), _) => refusal::pending(&waiting.code),
            (None, Some(RegistrationState::Denied)) => refusal::denied("a human said no"),
            (None, Some(RegistrationState::Expired)) => refusal::denied("nobody decided in time"),
            (None, _) => refusal::not_registered(),
        }
    }
}

/// How a human's word in a browser could come back, and where it is listened for.
async fn way(asked: Option<RegistrationFlow>) -> (Option<Way>, Option<TcpListener>) {
    if asked == Some(RegistrationFlow::Code) {
        return (Some(Way::Code), None);
    }
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let bound = bound.and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    match bound {
        Ok((port, listener)) => (Some(Way::Loopback(port)), Some(listener)),
        Err(error) => {
            tracing::warn!(%error, "no browser can come back here; the human types codes instead");
            (Some(Way::Code), None)
        }
    }
}
