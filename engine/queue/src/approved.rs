//! Calls that a human said yes to: one token each, minted when it is drawn and held nowhere.

use std::sync::Arc;

use obol_session::{Call, approved_scope};
use obol_token::{ChannelKeys, Scope, Validity};

use crate::approvals::{ConfirmedCall, MAX_APPROVED};
use crate::draw::Draw;
use crate::error::{ApproveError, DequeueError};
use crate::grant::Grant;
use crate::queue::Queue;
use crate::session::Session;
use crate::shared::Shared;
use crate::source::{TokenNumber, mint_one};
use crate::store::TokenBytes;
use crate::token::Token;

/// A token of a call that was approved, and what belongs to it.
pub type DrawnCall = (Token, Option<ChannelKeys>, Option<[u8; 64]>);

impl Queue {
    /// Notes that a human said yes to a call. The same transaction is noted once.
    ///
    /// # Errors
    ///
    /// [`ApproveError`].
    pub fn approve(&self, call: ConfirmedCall) -> Result<(), ApproveError> {
        let now = self.shared.timeline.look().now;
        if now >= call.expires_at {
            return Err(ApproveError::Expired);
        }
        if !self.takes_approvals(&call.call) {
            return Err(ApproveError::NotGranted);
        }
        let mut calls = self.shared.sessions.approved.lock();
        calls.retain(|known| now < known.expires_at);
        if calls.iter().any(|known| known.txn_id == call.txn_id) {
            return Ok(());
        }
        if calls.len() >= MAX_APPROVED {
            return Err(ApproveError::TooMany);
        }
        tracing::info!(approval = call.id, tool = call.call.tool, "a human said yes to a call");
        calls.push_back(call);
        Ok(())
    }

    fn takes_approvals(&self, call: &Call) -> bool {
        let current = self.shared.sessions.current.load();
        current.as_ref().is_some_and(|session| session.per_call(&call.tool, Some(&call.aud)).next().is_some())
    }

    /// Mints the token of a call that a human said yes to, and hands it out. It is not drawn again.
    ///
    /// # Errors
    ///
    /// [`DequeueError`]; no token was made. [`DequeueError::NotApproved`] where there is no such yes, or it is over.
    pub fn dequeue_approved<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        id: &str,
        arguments_hash: Option<&[u8; 32]>,
    ) -> Result<DrawnCall, DequeueError> {
        let draw = draw.into();
        self.shared.check()?;
        self.shared.elect_if_over();
        self.shared.settle_era();
        let current = self.shared.sessions.current.load_full();
        let session = current.ok_or_else(|| self.shared.why_no_session())?;
        // Until the token is made: a flush that comes now has it made before, or finds the session ended.
        let mut calls = self.shared.sessions.approved.lock();
        if let Some(ended) = self.shared.why_ended(&session) {
            return Err(ended);
        }
        if self.shared.policy.kept.lock().denies(draw.tool) {
            return Err(DequeueError::PolicyDenied);
        }
        let now = self.shared.timeline.look().now;
        let is_it = |call: &ConfirmedCall| {
            call.id == id
                && now < call.expires_at
                && call.call.tool == draw.tool
                && draw.audience.is_none_or(|audience| call.call.aud == audience)
        };
        let place = calls.iter().position(is_it).ok_or(DequeueError::NotApproved)?;
        let grant =
            calls.get(place).and_then(|call| granted(&session, call)).ok_or(DequeueError::PolicyDenied)?;
        if arguments_hash.is_none() && grant.pop_key.is_some() {
            return Err(DequeueError::ProofNeeded);
        }
        let call = calls.remove(place).ok_or(DequeueError::NotApproved)?;
        mint(&self.shared, &session, &grant, &call, now).map(|token| {
            let proof = arguments_hash.and_then(|hash| token.prove(&grant, hash));
            let channel = token.asks_for_channel().then(|| token.channel_keys(&grant)).flatten();
            (token, channel, proof)
        })
    }
}

/// The grant of the session that the call is within, narrowed to it; `None` where there is none, or another call was approved.
fn granted(session: &Session, approved_call: &ConfirmedCall) -> Option<Grant> {
    let ConfirmedCall { call, txn_id, digest, confirmed_at, .. } = approved_call;
    let scope_under = |grant: &Grant| -> Option<Scope> {
        let scope = approved_scope(call.scope_within(&grant.scope, *txn_id).ok()?, *confirmed_at).ok()?;
        (scope.approval_digest == Some(*digest)).then_some(scope)
    };
    session
        .per_call(&call.tool, Some(&call.aud))
        .find_map(|grant| scope_under(&grant).map(|scope| Grant { scope, ..grant }))
}

fn mint(
    shared: &Shared,
    session: &Arc<Session>,
    grant: &Grant,
    call: &ConfirmedCall,
    now: u64,
) -> Result<Token, DequeueError> {
    use core::sync::atomic::Ordering::SeqCst;

    let expires_at = now.saturating_add(grant.ttl).min(session.expires_at).min(call.expires_at);
    let policy_epoch = shared.policy.min_epoch.load(SeqCst).max(session.policy_epoch);
    let [a, b, c, d, ..] = shared.keys.store_id;
    let number = TokenNumber { instance: [a, b, c, d], number: shared.next.token.fetch_add(1, SeqCst) };
    let validity = Validity { issued_at: now, expires_at };
    let bytes = mint_one(grant, policy_epoch, validity, number)
        .map_err(|error| DequeueError::Unavailable(crate::error::Unavailable(error.to_string())))?;
    Ok(Token::new(TokenBytes::from(&bytes[..]), session.id, expires_at, grant.asks_for_channel()))
}
