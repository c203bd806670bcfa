//! Alarms that agents raise. They may be lies, so each agent raises only so many, and nothing is done about one but to say it.

use core::sync::atomic::{AtomicBool, Ordering};

use obol_probe::metrics::Counter;
use obol_probe::rate::{Limiter, Rate, Start};
use obol_session::SessionId;

use super::{Authority, Now};
use crate::directory::Answer;
use crate::id::AgentId;
use crate::notices::Topic;

/// How often an agent is heard at once; then once a second.
const BURST: u32 = 10;
/// The longest name that is written, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// What an agent said of a token that somebody else spent.
#[derive(Debug)]
pub(super) struct Stolen {
    /// The session, where it is the agent's.
    pub(super) session: Option<SessionId>,
    pub(super) audience: String,
    pub(super) tool: String,
    /// How often it was said, this time included.
    pub(super) times: u64,
}

/// How often alarms were raised, and by whom.
#[derive(Debug)]
pub(super) struct Alarms {
    stolen_tokens: Counter,
    agents: Limiter<AgentId>,
    start: Start,
    /// Whether it was said that a follower knows more than the directory.
    rolled_back: AtomicBool,
}

impl Default for Alarms {
    fn default() -> Self {
        let rate = Rate::new(1).map(|rate| rate.with_burst(BURST));
        Self {
            stolen_tokens: Counter::default(),
            agents: Limiter::new(rate),
            start: Start::now(),
            rolled_back: AtomicBool::new(false),
        }
    }
}

impl Authority {
    /// How often agents reported that someone else spent one of their tokens.
    pub(crate) fn stolen_tokens(&self) -> u64 {
        self.alarms.stolen_tokens.get()
    }

    /// Takes an agent's word that someone else spent one of its tokens. Whether it has a line of its own: there may be too many.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub(super) fn token_stolen(&self, agent: &AgentId, said: &Stolen, now: Now) -> Answer<bool> {
        let session = self.session_of(agent, said.session)?;
        self.alarms.stolen_tokens.add(said.times);
        if self.alarms.agents.take(agent.clone(), self.alarms.start.nanoseconds()).is_err() {
            return Ok(false);
        }
        let (audience, tool) = (short(&said.audience), short(&said.tool));
        let text = format!(
            "agent {agent} reports that someone else spent one of its tokens for {tool} at {audience}"
        );
        self.notices.say(Topic::Alarms, "token_stolen", text, now.secs());
        self.auditor.token_stolen(agent, &Stolen { session, audience, tool, ..*said });
        Ok(true)
    }

    /// A follower has heard of what the directory does not know: directory and witness were put back together, or the follower lies.
    /// It is told everything anew, and a human is told once.
    pub(super) fn knows_less_than(&self, follower: &str, now: Now) {
        if self.alarms.rolled_back.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!(
            follower,
            "it has heard of events that the directory does not know: the directory was put back from a copy, or it lies. If it was \
             put back, stop the service, take the witness away and start once with --accept-rollback"
        );
        let text = format!("{follower} has heard of events that the directory does not know");
        self.notices.say(Topic::Alarms, "directory_put_back", text, now.secs());
    }

    /// The session that an agent names, if it is its own.
    pub(super) fn session_of(&self, agent: &AgentId, said: Option<SessionId>) -> Answer<Option<SessionId>> {
        let Some(id) = said else { return Ok(None) };
        Ok(self.directory.session(id)?.filter(|row| row.agent == *agent).map(|_| id))
    }
}

/// As it may be written.
fn short(name: &str) -> String {
    obol_secret::text::plain(name).chars().take(MAX_NAME_BYTES / 4).collect()
}
