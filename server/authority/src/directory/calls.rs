//! Calls that agents ask a human's yes for: what waits, what was decided, and what a yes allows.

use obol_secret::text::hex_array;
use obol_token::Scope;
use serde::{Deserialize, Serialize};

use super::rows::Human;
use crate::id::{AgentId, ApprovalId};

/// How long a request waits for a human if not said, and at most, in seconds.
pub(crate) const ASKED_SECS: u64 = 300;
/// How long after a yes the calls may be made at most, in seconds: a token is not minted on an older one (TBAC r41).
pub(crate) const MAX_APPROVED_SECS: u64 = 300;
/// The most requests that are kept, those of the last two hours that were decided included.
pub(crate) const MAX_CALL_APPROVALS: u64 = 10_000;
/// The most calls that one request names.
pub(crate) const MAX_CALLS: usize = 16;
/// The most uses of all of them together.
pub(crate) const MAX_USES: usize = 32;

/// One use of a call: what the human says yes to (TBAC r41, section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallUse {
    /// The transaction, which no other has.
    #[serde(with = "hex_array")]
    pub txn_id: [u8; 16],
    /// What was approved with it.
    #[serde(with = "hex_array")]
    pub digest: [u8; 32],
}

/// A call that a yes is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AskedCall {
    /// What policy knows this way of using the tool by.
    pub offer: String,
    /// What is asked for: an offer's scope, narrowed. Without a transaction.
    pub scope: Scope,
    /// The arguments in canonical form, where the agent says them: a call with others is refused.
    #[serde(default)]
    pub arguments: Option<String>,
    /// One for each time that it may be made.
    pub uses: Vec<CallUse>,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum CallState {
    /// Nothing yet.
    Waiting,
    /// A human said yes.
    Approved {
        /// Who.
        by: Human,
        /// When, in Unix seconds.
        at: u64,
        /// The number of its event.
        event: u64,
    },
    /// A human said no.
    Denied {
        /// Who.
        by: Human,
    },
    /// The agent was ended.
    Ended,
}

/// How a request stands at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallStanding {
    /// It waits for a human.
    Waiting,
    /// A human said yes, and the calls may be made.
    Approved {
        /// When the human said so, in Unix seconds.
        confirmed_at: u64,
        /// Until when, in Unix seconds.
        expires_at: u64,
    },
    /// A human said no.
    Denied,
    /// Nobody decided in time, or the time after the yes is over.
    Expired,
}

/// A request for a human's yes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallApproval {
    /// Its id.
    pub id: ApprovalId,
    /// Who asks.
    pub agent: AgentId,
    /// Why, as the agent says.
    #[serde(default)]
    pub purpose: Option<String>,
    /// The calls.
    pub calls: Vec<AskedCall>,
    /// For how many seconds after a yes they may be made.
    pub lifetime_secs: u64,
    /// When it was asked, in Unix seconds.
    pub created_at: u64,
    /// Until when somebody may decide, in Unix seconds.
    pub expires_at: u64,
    /// What was decided.
    pub state: CallState,
    #[serde(with = "hex_array")]
    pub(crate) poll_hash: [u8; 32],
}

impl CallApproval {
    /// How it stands at a time.
    pub fn standing(&self, now: u64) -> CallStanding {
        match &self.state {
            CallState::Waiting if now < self.expires_at => CallStanding::Waiting,
            CallState::Approved { at, .. } if now < at.saturating_add(self.lifetime_secs) => {
                let expires_at = at.saturating_add(self.lifetime_secs);
                CallStanding::Approved { confirmed_at: *at, expires_at }
            }
            CallState::Denied { .. } => CallStanding::Denied,
            CallState::Waiting | CallState::Approved { .. } | CallState::Ended => CallStanding::Expired,
        }
    }

    /// The resource servers that it is about.
    pub fn audiences(&self) -> Vec<String> {
        let mut audiences: Vec<String> = self.calls.iter().map(|call| call.scope.aud.clone()).collect();
        audiences.sort();
        audiences.dedup();
        audiences
    }
}

/// A request as it is decided that it may wait.
#[derive(Clone, Debug)]
pub struct NewCallApproval {
    /// What is asked. Its state is [`CallState::Waiting`].
    pub approval: CallApproval,
    /// The agent's version, and the policy epoch, that it was decided by.
    pub decided_by: (u64, u64),
    /// How many requests of one agent are taken within an hour.
    pub per_hour: usize,
}

/// Where one stands among those that wait: until when it waits, and its id.
pub type CallPlace = (u64, ApprovalId);

/// A human's word.
#[derive(Clone, Debug)]
pub struct CallDecision {
    /// To which request.
    pub id: ApprovalId,
    /// Whose.
    pub by: Human,
    /// Yes or no.
    pub approve: bool,
    /// The agent's version, and the policy epoch, that a yes was decided by.
    pub decided_by: (u64, u64),
}
