//! The identity key is replaced by a fresh one, by itself and when the operator says so; and the agent is ended for good when the
//! operator says so.

use core::time::Duration;

use obol_ipc::auth_control::{DeregisterResult, RotateResult};
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_uplink::AuthError;
use tokio::time::timeout;

use super::{Keeper, PATIENCE};
use crate::refusal;

/// Pause between two attempts to replace the key that nobody asked for, in seconds.
const ROTATE_PAUSE_SECS: u64 = 600;
const DAY_SECS: u64 = 86_400;

impl Keeper {
    /// Finds out which key the service takes, where an attempt to replace it was cut off. Nothing is done with either before.
    pub(super) async fn settle_key(&mut self) -> Result<(), AuthError> {
        if !self.authenticator.is_unsettled() {
            return Ok(());
        }
        let now = self.now().wall;
        let settled =
            timeout(PATIENCE, self.authenticator.settle(now)).await.unwrap_or_else(|_| Err(too_late()));
        if settled? {
            self.key_is_replaced();
        }
        self.tell_listener();
        Ok(())
    }

    /// Replaces the key where it is old enough.
    pub(super) async fn look_after_key(&mut self) {
        let now = self.now();
        if self.rotate_days == 0 || self.current.is_none() || self.authenticator.waiting().is_some() {
            return;
        }
        let Some(since) = self.authenticator.identity().key_since() else {
            if let Err(error) = self.authenticator.set_key_since(now.wall) {
                tracing::error!(%error, "since when the key is in use could not be kept");
            }
            return;
        };
        let is_old = now.wall.saturating_sub(since) >= self.rotate_days.saturating_mul(DAY_SECS);
        if is_old && self.rotated.is_none_or(|at| now.since(at) >= ROTATE_PAUSE_SECS) {
            self.rotated = Some(now);
            let _said_in_the_log = self.rotate().await;
        }
    }

    /// Replaces the identity key.
    pub(super) async fn rotate(&mut self) -> Result<RotateResult, Refusal> {
        let Some(agent_id) = self.agent() else { return Err(self.why_unregistered()) };
        self.auditor.health().map_err(|suspended| refusal::unaudited(&suspended))?;
        let now = self.now().wall;
        let rotated =
            timeout(PATIENCE, self.authenticator.rotate(now)).await.unwrap_or_else(|_| Err(too_late()));
        if let Err(error) = rotated {
            tracing::warn!(%error, "the identity key was not replaced");
            self.tell_listener();
            return Err(refusal::of_service(&error, Duration::from_secs(ROTATE_PAUSE_SECS)));
        }
        self.key_is_replaced();
        Ok(RotateResult { agent_id, words: self.authenticator.identity().public().words() })
    }

    fn key_is_replaced(&mut self) {
        let identity = self.authenticator.identity();
        tracing::info!(words = identity.public().words(), "the identity key was replaced");
        self.auditor.key_rotated(identity.agent_id(), &identity.public().subject());
        self.tell_listener();
    }

    /// As whom the service is listened to from the next beginning on; as nobody while that has to be found out.
    pub(super) fn tell_listener(&self) {
        let key = (!self.authenticator.is_unsettled()).then(|| self.authenticator.identity().identity_key());
        self.hearing.listen_as(key);
    }

    /// Ends the agent for good, and begins with another identity once the sidecar has destroyed what was minted ahead.
    pub(super) async fn deregister(&mut self) -> Result<DeregisterResult, Refusal> {
        let Some(agent_id) = self.agent() else { return Err(self.why_unregistered()) };
        let failed = |error: AuthError| refusal::of_service(&error, Duration::from_secs(1));
        self.settle_key().await.map_err(failed)?;
        let now = self.now().wall;
        let left =
            timeout(PATIENCE, self.authenticator.deregister(now)).await.unwrap_or_else(|_| Err(too_late()));
        match left {
            Ok(()) => {}
            // It was done before, and its answer lost; or somebody else did it.
            Err(AuthError::Refused { code, .. }) if code == "REVOKED" => {}
            Err(error) => return Err(failed(error)),
        }
        let why = "deregistered by its operator";
        if self.shared.known.lock().is_stopped {
            self.auditor.agent_ended(Some(agent_id.as_str()), "REVOKED", why);
        }
        self.end("REVOKED", why).await;
        self.tell_sidecar().await;
        if !self.hearing.owes_nothing() {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "the service ended the agent, but the sidecar was not told and may hand out tokens, which no resource server \
                 accepts; run this again once it answers",
            ));
        }
        self.authenticator.begin_anew().map_err(failed)?;
        tracing::warn!(
            agent = agent_id.as_str(),
            "the agent was deregistered; the next one here has another key"
        );
        (self.refused, self.ended, self.failure) = (None, None, None);
        (self.approval_expires_at, self.registered) = (None, None);
        self.hearing.begin_anew();
        let mut known = self.shared.known.lock();
        (known.is_stopped, known.problem) = (false, None);
        drop(known);
        self.tell_listener();
        Ok(DeregisterResult { agent_id, words: self.authenticator.identity().public().words() })
    }
}

fn too_late() -> AuthError {
    AuthError::Unreachable("no answer in time".to_owned())
}
