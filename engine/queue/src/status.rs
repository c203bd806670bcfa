//! What a queue tells of itself: what waits, which sessions there are, numbers about every tool.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use obol_token::{SessionId, Suite};

use crate::error::DequeueError;
use crate::grant::Grant;
use crate::partition::Partition;
use crate::queue::Queue;
use crate::session::{Session, SessionState};

/// What waits for a tool, or for all tools of the current session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Tokens waiting, in memory and on disk.
    pub queue_depth: u64,
    /// Seconds left of the next token; 0 if none is ready. Exact to within one batch.
    pub ttl: u64,
    /// Whether the current session is active.
    pub session_active: bool,
    /// Whether tokens are being minted or fetched from disk, or will be once minting is tried again after a failure.
    pub renewal_pending: bool,
    /// Where a renewal is pending: when it makes sense to ask again. Long, up to 45 s, where minting fails; the longest of
    /// all tools where none was named.
    pub retry_after: Option<Duration>,
    /// Whether tokens of one tool that was named ask for calls and answers to be sealed; of several resource servers, at one of them.
    pub sealed: bool,
}

/// What identifies a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its number.
    pub session_id: SessionId,
    /// The agent it was established for; empty once flushed.
    pub agent_instance_id: String,
    /// When it was established, in Unix seconds.
    pub established_at: u64,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// The negotiated suite.
    pub suite: Suite,
    /// What can be had from it.
    pub state: SessionState,
    /// When its lease ends unless the service that opened it is heard, in Unix seconds; `None` where it has none, or nothing was
    /// heard since the start.
    pub lease_ends_at: Option<u64>,
}

/// Numbers about one tool in one session, for one audience.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolStatus {
    /// The session.
    pub session_id: SessionId,
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub audience: String,
    /// Tokens in memory, ready to be handed out.
    pub ready: u64,
    /// Tokens on disk.
    pub stored: u64,
    /// Tokens minted since the queue was opened.
    pub minted: u64,
    /// Attempts to mint that failed, since the queue was opened.
    pub mint_failures: u64,
    /// Tokens handed out since the queue was opened.
    pub handed_out: u64,
    /// Tokens that became too old while they waited, since the queue was opened.
    pub expired: u64,
    /// Tokens given up for other reasons, such as a flush, since the queue was opened.
    pub discarded: u64,
    /// Whether tokens are being minted or fetched from disk, or will be once minting is tried again after a failure.
    pub renewal_pending: bool,
    /// Where a renewal is pending: when it makes sense to ask again.
    pub retry_after: Option<Duration>,
    /// Whether policy denies the tool.
    pub denied: bool,
    /// Seconds left of the next token; 0 if none is ready. Exact to within one batch.
    pub ttl: u64,
}

impl Queue {
    /// What waits for one tool of the current session, or for all of them.
    ///
    /// # Errors
    ///
    /// [`DequeueError::PolicyDenied`] for a tool that is not granted; [`DequeueError::Unavailable`] where the store failed.
    pub fn status(&self, tool: Option<&str>) -> Result<Status, DequeueError> {
        self.status_at(tool, None)
    }

    /// The same, at one resource server alone where one is named.
    ///
    /// # Errors
    ///
    /// As for [`status`](Self::status).
    pub fn status_at(&self, tool: Option<&str>, audience: Option<&str>) -> Result<Status, DequeueError> {
        self.shared.check()?;
        self.shared.elect_if_over();
        let Some(session) = self.shared.sessions.current.load_full() else {
            return Ok(Status {
                queue_depth: 0,
                ttl: 0,
                session_active: false,
                renewal_pending: false,
                retry_after: None,
                sealed: false,
            });
        };
        let now = self.shared.timeline.look().now;
        let mut partitions = session
            .partitions
            .iter()
            .filter(|partition| tool.is_none_or(|tool| partition.tool() == tool))
            .filter(|partition| audience.is_none_or(|audience| partition.audience() == audience))
            .peekable();
        let per_call: Vec<_> = tool.into_iter().flat_map(|tool| session.per_call(tool, audience)).collect();
        let is_live = self.shared.why_ended(&session).is_none();
        if tool.is_some() && is_live && partitions.peek().is_none() && per_call.is_empty() {
            return Err(DequeueError::PolicyDenied);
        }
        let none = Status {
            queue_depth: 0,
            ttl: 0,
            session_active: is_live,
            renewal_pending: false,
            retry_after: None,
            sealed: per_call.iter().any(Grant::asks_for_channel),
        };
        Ok(partitions.fold(none, |sum, partition| {
            let renewal = partition.renewal();
            Status {
                queue_depth: sum.queue_depth + partition.depth(),
                ttl: sum.ttl.max(partition.life_left(now)),
                renewal_pending: sum.renewal_pending || renewal.is_some(),
                retry_after: sum.retry_after.max(renewal),
                sealed: sum.sealed || (tool.is_some() && partition.grant.asks_for_channel()),
                ..sum
            }
        }))
    }

    /// How many tokens wait for each tool of the current session; a tool with several audiences comes several times.
    pub fn depths(&self) -> Vec<(String, u64)> {
        let current = self.shared.sessions.current.load();
        let partitions = current.iter().flat_map(|session| &session.partitions);
        partitions.map(|partition| (partition.tool().to_owned(), partition.depth())).collect()
    }

    /// The session that draws without a session number use, and that gives tokens; or why there is none.
    ///
    /// # Errors
    ///
    /// [`DequeueError`], which says why there is none.
    pub fn session_info(&self) -> Result<SessionInfo, DequeueError> {
        self.shared.check()?;
        self.shared.elect_if_over();
        let current = self.shared.sessions.current.load();
        let session = current.as_deref().ok_or_else(|| self.shared.why_no_session())?;
        match self.shared.why_ended(session) {
            None => Ok(self.info(session, SessionState::Active)),
            Some(ended) => Err(ended),
        }
    }

    /// All sessions the queue knows, oldest first.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let (now, sessions) = (self.shared.timeline.look().now, self.shared.sessions.by_age());
        let states = self.shared.states(&sessions, now);
        sessions.iter().zip(states).map(|(session, state)| self.info(session, state)).collect()
    }

    /// When nothing can be handed out any more unless another session comes, in Unix seconds: the latest end of the
    /// sessions that can be drawn from or, where there are none, the end of the last. `None` if there never was any.
    pub fn last_end(&self) -> Option<u64> {
        let open = self
            .sessions()
            .into_iter()
            .filter(|session| matches!(session.state, SessionState::Active | SessionState::Lapsed));
        let ended = self.shared.sessions.last_end.load(Ordering::SeqCst);
        open.map(|session| session.expires_at).max().or_else(|| Some(ended).filter(|end| *end > 0))
    }

    /// Numbers about every tool of every session.
    pub fn tools(&self) -> Vec<ToolStatus> {
        let mut tools = Vec::new();
        let now = self.shared.timeline.look().now;
        self.shared.for_each_partition(|partition| tools.push(tool_status(partition, now)));
        tools.sort_by(|a, b| (a.session_id, &a.tool, &a.audience).cmp(&(b.session_id, &b.tool, &b.audience)));
        tools
    }

    fn info(&self, session: &Session, state: SessionState) -> SessionInfo {
        SessionInfo {
            session_id: session.id,
            agent_instance_id: session.agent_instance_id.clone(),
            established_at: session.established_at,
            expires_at: session.expires_at,
            suite: session.suite,
            state,
            lease_ends_at: self.shared.lease_ends_at(session),
        }
    }
}

fn tool_status(partition: &Partition, now: u64) -> ToolStatus {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (handed_out, expired, discarded) = partition.used();
    let renewal = partition.renewal();
    ToolStatus {
        session_id: partition.session_id,
        tool: partition.tool().to_owned(),
        audience: partition.audience().to_owned(),
        ready: partition.ready_len() as u64,
        stored: read(&partition.count.stored),
        minted: read(&partition.count.minted),
        mint_failures: read(&partition.count.mint_failures),
        handed_out,
        expired,
        discarded,
        renewal_pending: renewal.is_some(),
        retry_after: renewal,
        denied: partition.is_denied(),
        ttl: partition.life_left(now),
    }
}
