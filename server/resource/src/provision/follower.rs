//! Follows the service, and carries out what it says.
//!
//! What is heard is carried out in batches, as much as has come at a time: ends of sessions in memory first, then all of it in
//! the table, with the cursor. Only then is it confirmed.

use core::fmt;
use core::time::Duration;
use std::collections::HashSet;
use std::sync::Arc;

use obol_handshake::{IdentityKey, Purpose, Random as _, SystemRandom};
use obol_probe::stop::Stop;
use obol_session::clock::Clock;
use obol_session::{Cursor, ResourceHalf, SessionId};
use obol_stream::{ApprovedUse, Item, Mode, Subscribe, Transaction, What, Word};
use obol_token::Audience;
use obol_uplink::{AuthError, Caller, Greeted, Stream, Uplink};
use obol_verify::{Approvals, KnownApproval, SessionChange, SessionStore};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::lease::{Lease, LeaseState};

/// The most items that are carried out together.
const MAX_BATCH: usize = 512;
/// Pauses between two attempts grow from the one to the other, by chance shorter, in milliseconds.
const PAUSES_MS: (u64, u64) = (250, 15_000);
/// A stream that lasted so long was a good one: the next attempt comes soon.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// How long after its end a session is forgotten, in seconds: by then no clock that is let in takes it for live.
const FORGET_AFTER_SECS: u64 = 600;
/// How often that is looked for, in heartbeats.
const FORGET_EVERY: u32 = 12;
const CLIENT: &str = concat!("obol-resource/", env!("CARGO_PKG_VERSION"));

/// Follows a service for one copy of a resource server.
pub struct Follower {
    uplink: Uplink,
    key: IdentityKey,
    audience: Audience,
    sessions: Arc<dyn SessionStore>,
    lease: Arc<Lease>,
    clock: Arc<dyn Clock>,
    approvals: Arc<Approvals>,
    cursor: watch::Sender<Option<Cursor>>,
    /// It has nothing else to say.
    silence: watch::Sender<Option<Word>>,
    beats: u32,
}

/// Looks at a follower while it runs.
#[derive(Clone, Debug)]
pub struct Following {
    lease: Arc<Lease>,
    cursor: watch::Receiver<Option<Cursor>>,
    service: String,
}

impl Following {
    /// How it stands with its service.
    pub fn standing(&self) -> LeaseState {
        self.lease.standing()
    }

    /// How far it has come.
    pub fn cursor(&self) -> Option<Cursor> {
        *self.cursor.borrow()
    }

    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }
}

struct Subscribing<'a> {
    key: &'a IdentityKey,
    subscribe: Subscribe,
}

impl Caller for Subscribing<'_> {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        serde_json::to_value(&self.subscribe).map_err(|error| AuthError::System(error.to_string()))
    }
}

/// What one batch comes to.
#[derive(Default)]
struct Batch {
    changes: Vec<SessionChange>,
    /// How far the follower has come once they are carried out.
    cursor: Option<Cursor>,
    /// The service's time in the last heartbeat.
    heard: Option<u64>,
}

/// A stream that is being read.
struct Reading {
    /// What the list of everything has named so far, while it is being read.
    listed: Option<HashSet<SessionId>>,
    incarnation: [u8; 16],
    seq: u64,
}

impl Follower {
    /// Follows for `audience` under this key, and carries out in `sessions` what it hears. What the table says about how far
    /// it has come is gone on with.
    pub fn new(
        uplink: Uplink,
        key: IdentityKey,
        audience: Audience,
        sessions: Arc<dyn SessionStore>,
        lease: Arc<Lease>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let cursor = watch::Sender::new(sessions.cursor());
        let silence = watch::Sender::new(None);
        let approvals = Arc::default();
        Self { uplink, key, audience, sessions, lease, clock, approvals, cursor, silence, beats: 0 }
    }

    /// What humans said yes to, as far as it was heard: for the verifier
    /// ([`VerifierBuilder::approvals`](obol_verify::VerifierBuilder::approvals)), which refuses tokens that stand on a human's yes
    /// without it.
    pub fn approvals(&self) -> Arc<Approvals> {
        Arc::clone(&self.approvals)
    }

    /// To look at it while it runs.
    pub fn following(&self) -> Following {
        Following {
            lease: Arc::clone(&self.lease),
            cursor: self.cursor.subscribe(),
            service: self.uplink.service().origin().to_owned(),
        }
    }

    /// Follows until the word to stop is said. A line that ends is begun anew.
    pub async fn run(mut self, stop: Stop) {
        let mut failures = 0;
        loop {
            let began = tokio::time::Instant::now();
            let ended = tokio::select! {
                () = stop.said() => return,
                ended = self.follow() => ended,
            };
            failures = if began.elapsed() >= GOOD_AFTER { 0 } else { failures + 1 };
            let pause = pause(failures);
            tracing::warn!(error = %ended, retry_in_ms = pause.as_millis(), "the Authentication Service is not heard");
            self.lease.lose(ended.to_string());
            tokio::select! {
                () = stop.said() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Follows until something ends that.
    async fn follow(&mut self) -> AuthError {
        match self.begin().await {
            Ok((mut stream, reading)) => {
                let mut confirming = JoinSet::new();
                if let Some(voice) = stream.voice() {
                    confirming.spawn(voice.speak(
                        self.cursor.subscribe(),
                        self.silence.subscribe(),
                        Arc::default(),
                    ));
                }
                self.read(&mut stream, reading).await
            }
            Err(error) => error,
        }
    }

    async fn begin(&mut self) -> Result<(Stream, Reading), AuthError> {
        let now = self.clock.now();
        let after = *self.cursor.borrow();
        let subscribe =
            Subscribe { after, client: CLIENT.to_owned(), now, lease_secs: Some(self.lease.secs()) };
        let mut caller = Subscribing { key: &self.key, subscribe };
        let path = "/v1/resource-servers/stream";
        let stream = self.uplink.follow(Purpose::ResourceStream, path, now, &mut caller).await?;
        let hello = stream.hello();
        if hello.audience.as_deref() != Some(self.audience.as_str()) {
            let said = hello.audience.as_deref().unwrap_or("no resource server");
            return Err(AuthError::Answer(format!(
                "this copy has joined as one of {said}, and serves {}; join anew with a code for that",
                self.audience
            )));
        }
        let reading = match (hello.mode, after) {
            (Mode::Snapshot, _) => {
                Reading { listed: Some(HashSet::new()), incarnation: hello.incarnation, seq: 0 }
            }
            (Mode::Resume, Some(after)) if after.incarnation == hello.incarnation => {
                Reading { listed: None, incarnation: hello.incarnation, seq: after.seq }
            }
            (Mode::Resume, _) => {
                self.cursor.send_replace(None);
                return Err(gap());
            }
        };
        tracing::info!(
            service = self.uplink.service().origin(),
            copy = hello.follower,
            mode = ?hello.mode,
            "following the Authentication Service"
        );
        Ok((stream, reading))
    }

    async fn read(&mut self, stream: &mut Stream, mut reading: Reading) -> AuthError {
        loop {
            let mut next = stream.next().await;
            let (mut batch, mut read) = (Batch::default(), 0);
            let ended = loop {
                let taken = match next {
                    Ok(item) => self.take(&mut reading, &mut batch, item),
                    Err(error) => Err(error),
                };
                read += 1;
                match taken {
                    // What came before is carried out first.
                    Err(error) => break Some(error),
                    Ok(()) if read >= MAX_BATCH => break None,
                    Ok(()) => {}
                }
                // What has come already, without waiting for more.
                match timeout(Duration::ZERO, stream.next()).await {
                    Ok(more) => next = more,
                    Err(_) => break None,
                }
            };
            if let Some(error) = self.carry_out(batch).await.err().or(ended) {
                return error;
            }
        }
    }

    /// Takes an item into the batch.
    fn take(&self, reading: &mut Reading, batch: &mut Batch, item: Item) -> Result<(), AuthError> {
        match item {
            Item::Live { session, half } => {
                let listed = reading.listed.as_mut().ok_or_else(gap)?;
                listed.insert(session);
                batch.changes.extend(half.and_then(|half| self.accepted(half)).map(SessionChange::Open));
            }
            Item::Listed { seq } => {
                let listed = reading.listed.take().ok_or_else(gap)?;
                let gone = self.not_listed(&listed);
                batch.changes.extend(gone.into_iter().map(SessionChange::End));
                reading.seq = seq;
                batch.cursor = Some(reading.cursor());
            }
            Item::Happened { seq, prev, what } => {
                if reading.listed.is_some() || prev != reading.seq || seq <= prev {
                    self.cursor.send_replace(None);
                    return Err(gap());
                }
                batch.changes.extend(self.change(what));
                reading.seq = seq;
                batch.cursor = Some(reading.cursor());
            }
            Item::Heartbeat { head, now } => {
                if reading.listed.is_some() || head < reading.seq {
                    self.cursor.send_replace(None);
                    return Err(gap());
                }
                reading.seq = head;
                batch.cursor = Some(reading.cursor());
                batch.heard = Some(now);
            }
            Item::Hello(_) | Item::Refused { .. } => return Err(gap()),
        }
        Ok(())
    }

    fn change(&self, what: What) -> Option<SessionChange> {
        match what {
            What::SessionOpen { half, .. } => {
                half.and_then(|half| self.accepted(half)).map(SessionChange::Open)
            }
            What::SessionEnd { session, reason } => {
                tracing::info!(%session, reason, "the Authentication Service ended a session");
                Some(SessionChange::End(session))
            }
            What::Approval { uses, confirmed_at, expires_at } => {
                let told = |one: ApprovedUse| {
                    let ApprovedUse { txn_id, digest, arguments } = one;
                    (txn_id, KnownApproval { digest, arguments, confirmed_at, expires_at })
                };
                self.approvals.allow(uses.into_iter().map(told), self.clock.now());
                None
            }
            What::ApprovalEnd { transactions } => {
                self.approvals.end(transactions.into_iter().map(|Transaction(id)| id));
                None
            }
            // Its sessions are ended one by one, and what it may do still is ended with them.
            What::AgentEnd { .. } | What::AgentEnabled | What::CallsDecided { .. } => None,
        }
    }

    /// A half that is for this resource server, from this service, and says what was granted. Others are not taken: without
    /// grants whoever holds the session's keys could mint anything.
    fn accepted(&self, half: Box<ResourceHalf>) -> Option<Box<ResourceHalf>> {
        let is_from_here = |agent: &obol_session::AgentIdentity| agent.iss == self.uplink.service().origin();
        let is_whole = half.grants.is_some() && half.agent.as_ref().is_some_and(is_from_here);
        if is_whole && half.keys.aud == self.audience.as_str() {
            return Some(half);
        }
        tracing::error!(session = %half.session_id, "a session that is not for this server, or says no grants, is not taken");
        None
    }

    /// Sessions of this service that the table holds and the list of everything does not name.
    fn not_listed(&self, listed: &HashSet<SessionId>) -> Vec<SessionId> {
        let origin = self.uplink.service().origin();
        let known = self.sessions.list();
        let ours = known.iter().filter(|session| {
            session.is_active() && session.agent().is_some_and(|agent| agent.iss == origin)
        });
        ours.map(|session| session.session_id()).filter(|id| !listed.contains(id)).collect()
    }

    /// Carries out a batch, and only then counts it as heard.
    async fn carry_out(&mut self, batch: Batch) -> Result<(), AuthError> {
        let Batch { changes, cursor, heard } = batch;
        if !changes.is_empty() {
            let (sessions, now) = (Arc::clone(&self.sessions), self.clock.now());
            let done = tokio::task::spawn_blocking(move || sessions.follow(&changes, cursor, now)).await;
            let refused = done
                .map_err(|error| AuthError::System(error.to_string()))?
                .map_err(|error| AuthError::System(error.to_string()))?;
            for (session, error) in refused {
                tracing::error!(%session, %error, "a session is not taken; its tokens are refused");
            }
        }
        if cursor.is_some() {
            self.cursor.send_if_modified(|known| core::mem::replace(known, cursor) != cursor);
        }
        if let Some(now) = heard {
            self.lease.hear(now);
            self.beats += 1;
            if self.beats.is_multiple_of(FORGET_EVERY) {
                self.forget().await;
            }
        }
        Ok(())
    }

    /// Forgets sessions whose time is over.
    async fn forget(&self) {
        let sessions = Arc::clone(&self.sessions);
        let before = self.clock.now().saturating_sub(FORGET_AFTER_SECS);
        match tokio::task::spawn_blocking(move || sessions.forget_ended(before)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(forgotten)) => tracing::debug!(forgotten, "sessions whose time is over were forgotten"),
            Ok(Err(error)) => tracing::error!(%error, "sessions whose time is over could not be forgotten"),
        }
    }
}

impl Reading {
    fn cursor(&self) -> Cursor {
        Cursor { incarnation: self.incarnation, seq: self.seq }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Something was left out, said twice, or said in another order than the service does. Everything is asked for anew.
fn gap() -> AuthError {
    AuthError::Answer("the stream has a gap; everything is asked for anew".to_owned())
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let (least, most) = PAUSES_MS;
    let longest = least.saturating_mul(1_u64.checked_shl(failures.min(16)).unwrap_or(u64::MAX)).min(most);
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes);
    Duration::from_millis(least / 2 + u64::from_be_bytes(bytes) % longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        for failures in [0, 1, 5, 40, u32::MAX] {
            for _ in 0..50 {
                let pause = pause(failures).as_millis();
                assert!((125..=15_125).contains(&pause), "{pause}");
            }
        }
        assert!((0..50).all(|_| pause(0).as_millis() <= 375));
    }
}
