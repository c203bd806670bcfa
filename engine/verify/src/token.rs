//! A token's way: `Unverified → Opened → Verified → Spent`.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use obol_token::text::from_base64url;
use obol_token::{Body, ChannelKeys, Envelope, FramingError, Jti, Scope, SessionId};
use serde_json::{Map, Value};

use crate::cascade;
use crate::cascade::approval::StandsOn;
use crate::denial::{Code, Denial, FailedCheck};
use crate::parts::Parts;
use crate::request::Request;
use crate::session::Session;
use crate::session::known_scope::KnownScope;
use crate::spent::{Mark, SpendTicket};
use crate::verifier::Verifier;

/// Bytes whose framing is a token's (cascade step 1). Nothing in them is authenticated.
pub struct Unverified {
    bytes: Vec<u8>,
    session_id: SessionId,
    jti: Jti,
}

impl Unverified {
    /// Reads a token as it travels: base64url without padding.
    ///
    /// # Errors
    ///
    /// The [`Denial`] of step 1.
    pub fn from_text(text: &[u8]) -> Result<Self, Denial> {
        let bytes = from_base64url(text).map_err(|error| {
            Denial::new(Code::MalformedToken, FailedCheck::FramingCheck, error.to_string())
        })?;
        Self::from_bytes(bytes)
    }

    /// Checks the framing of a token's bytes.
    ///
    /// # Errors
    ///
    /// The [`Denial`] of step 1.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Denial> {
        let envelope = Envelope::parse(&bytes).map_err(framing_denial)?;
        let (session_id, jti) = (envelope.session_id(), envelope.jti());
        Ok(Self { bytes, session_id, jti })
    }

    /// The session that the token claims, for logs.
    pub fn claimed_session_id(&self) -> SessionId {
        self.session_id
    }

    /// The name that the token claims, for logs.
    pub fn claimed_jti(&self) -> Jti {
        self.jti
    }

    /// Looks at the token alone (cascade steps 2 to 12), before anybody knows what it is presented for.
    ///
    /// # Errors
    ///
    /// The [`Denial`] of the step that failed.
    pub fn open(self, verifier: &Verifier) -> Result<Opened, Denial> {
        cascade::open(&self, &verifier.parts)
    }

    /// Runs the cascade up to, and without, spending. A refusal leaves the token as it was.
    ///
    /// # Errors
    ///
    /// The [`Denial`] of the step that failed.
    pub fn verify(self, verifier: &Verifier, request: &Request<'_>) -> Result<Verified, Denial> {
        self.open(verifier)?.verify(request)
    }

    pub(crate) fn envelope(&self) -> Result<Envelope<'_>, Denial> {
        Envelope::parse(&self.bytes).map_err(framing_denial)
    }
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

fn framing_denial(error: FramingError) -> Denial {
    let (code, failed_check) = match error {
        FramingError::Enveloped => (Code::NonJsonPopNotSupported, FailedCheck::ConformanceScope),
        _ => (Code::MalformedToken, FailedCheck::FramingCheck),
    };
    Denial::new(code, failed_check, error.to_string())
}

/// A genuine token: its session's, of its time and audience, not spent so far. What it is presented for has not been
/// looked at, so it allows nothing. A server that has this may do for whoever presents it what costs more than a look.
pub struct Opened {
    pub(crate) parts: Arc<Parts>,
    pub(crate) mark: Mark,
    pub(crate) issued_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) facts: Box<Facts>,
}

/// What the cascade found out, in one place that moves from state to state without being copied.
pub(crate) struct Facts {
    pub(crate) session: Arc<Session>,
    pub(crate) body: Body,
    pub(crate) scope: Arc<KnownScope>,
    pub(crate) jti: Jti,
    /// The arguments, where they came sealed and were opened.
    pub(crate) opened: Option<Map<String, Value>>,
}

impl Opened {
    /// Looks at what the token is presented for (cascade steps 13 and 14). A refusal leaves the token as it was.
    ///
    /// # Errors
    ///
    /// The [`Denial`] of the step that failed.
    pub fn verify(self, request: &Request<'_>) -> Result<Verified, Denial> {
        cascade::evaluate(self, request)
    }

    /// The token's session.
    pub fn session_id(&self) -> SessionId {
        self.facts.session.session_id()
    }

    /// The token's name inside its session.
    pub fn jti(&self) -> Jti {
        self.facts.jti
    }

    /// Time may have passed since the token was opened: a body was read, or a policy came into force.
    fn still_valid(&self) -> Result<(), Denial> {
        let (parts, session, now) = (&self.parts, &self.facts.session, self.parts.clock.now());
        session.check_active()?;
        cascade::check_not_expired(parts, self.mark.expires_at(), now)?;
        cascade::check_window(parts, session, self.issued_at, now)?;
        cascade::check_policy_epoch(parts, session, self.policy_epoch)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("session_id", &self.session_id()).finish_non_exhaustive()
    }
}

/// A token that passed every check but the last. It allows nothing yet: another copy may be spent first.
pub struct Verified {
    pub(crate) token: Opened,
    /// The human's yes that is used up with it.
    pub(crate) stands_on: Option<StandsOn>,
}

impl Verified {
    /// What the token allows once it is spent.
    pub fn scope(&self) -> &Scope {
        &self.token.facts.scope.scope
    }

    /// The token's name inside its session.
    pub fn jti(&self) -> Jti {
        self.token.jti()
    }

    /// The token's session.
    pub fn session_id(&self) -> SessionId {
        self.token.session_id()
    }

    /// The arguments, where the request brought them as [`crate::Arguments::Sealed`].
    pub fn opened_arguments(&self) -> Option<&Map<String, Value>> {
        self.token.facts.opened.as_ref()
    }

    /// Spends the token (cascade step 15). The answer is in the [`Spending`]; from here on the token may be burned,
    /// also if nobody waits for the answer.
    pub fn spend(self) -> Spending {
        let with = self.stands_on.as_ref().map(StandsOn::mark);
        let ticket = self.still_valid().map(|()| self.token.parts.spent.spend_with(self.token.mark, with));
        Spending { ticket, verified: Some(self) }
    }

    fn still_valid(&self) -> Result<(), Denial> {
        self.token.still_valid()?;
        self.stands_on.map_or(Ok(()), |stands_on| stands_on.check_still_holds(&self.token.parts))
    }

    fn finish(self) -> Result<Spent, Denial> {
        let Opened { parts, issued_at, facts, .. } = self.token;
        // Revoked while the disk was written: the token is burned, as intended.
        facts.session.check_active()?;
        // A set that lost marks meanwhile took this one as its first, and has raised its fence before it said so.
        cascade::check_fence(&parts, issued_at)?;
        if let Some(stands_on) = &self.stands_on {
            stands_on.check_fence(&parts)?;
        }
        parts.parents.remember(&facts.scope.scope, facts.body.scope_tlv(), parts.clock.now());
        Ok(Spent { facts, channel_taken: false })
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("session_id", &self.session_id()).finish_non_exhaustive()
    }
}

/// A token being spent: a future for any runtime, and [`wait`](Self::wait) for plain threads.
#[derive(Debug)]
#[must_use = "the token counts only when this resolves to Spent"]
pub struct Spending {
    ticket: Result<SpendTicket, Denial>,
    verified: Option<Verified>,
}

impl Spending {
    /// Waits for the answer, blocking the thread.
    ///
    /// # Errors
    ///
    /// The [`Denial`] of step 15.
    pub fn wait(self) -> Result<Spent, Denial> {
        crate::spent::block_on(self)
    }
}

impl Future for Spending {
    type Output = Result<Spent, Denial>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { ticket, verified } = &mut *self;
        let answer = match ticket {
            Ok(ticket) => ready!(Pin::new(ticket).poll(context)).map_err(|error| Denial::from(&error)),
            Err(denial) => Err(denial.clone()),
        };
        let spent = answer.and_then(|()| verified.take().ok_or_else(polled_again)?.finish());
        Poll::Ready(spent)
    }
}

/// Futures may not be polled after they are done. Who does it anyway gets no second `Spent`.
fn polled_again() -> Denial {
    Denial::new(Code::TokenReplayed, FailedCheck::ReplayConsume, "the answer was taken already")
}

/// A token that was accepted, once and for good. Holding one is the permission to act.
pub struct Spent {
    facts: Box<Facts>,
    channel_taken: bool,
}

impl Spent {
    /// What the token allows. The tool must keep the limits that only it can keep: `max_rows`, `time_window_sec`
    /// and `data_classification`.
    pub fn scope(&self) -> &Scope {
        &self.facts.scope.scope
    }

    /// The token's name inside its session.
    pub fn jti(&self) -> Jti {
        self.facts.jti
    }

    /// The token's session.
    pub fn session_id(&self) -> SessionId {
        self.facts.session.session_id()
    }

    /// Takes the token's channel keys, once: the nonce of the response is fixed, so one token seals one response.
    pub fn take_channel_keys(&mut self) -> Option<ChannelKeys> {
        if core::mem::replace(&mut self.channel_taken, true) {
            return None;
        }
        let Facts { session, body, jti, .. } = &*self.facts;
        Some(session.material().channel_keys(jti, &body.response_key()))
    }

    /// Takes the arguments, where the request brought them as [`crate::Arguments::Sealed`].
    pub fn take_opened_arguments(&mut self) -> Option<Map<String, Value>> {
        self.facts.opened.take()
    }

    /// What the token allows, without the rest.
    pub fn into_scope(self) -> Scope {
        Arc::try_unwrap(self.facts.scope).map_or_else(|shared| shared.scope.clone(), |known| known.scope)
    }
}

impl fmt::Debug for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spent").field("session_id", &self.session_id()).finish_non_exhaustive()
    }
}
