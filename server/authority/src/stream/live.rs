//! One stream that is open.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use obol_handshake::Opener;
use obol_stream::{StreamId, Word};
use parking_lot::Mutex;

use crate::directory::{Follower, Happening};
use crate::id::{AgentId, ReplicaId};

/// Who follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// A copy of a resource server.
    Replica { id: ReplicaId, audience: String },
    /// An agent.
    Agent(AgentId),
}

impl Who {
    pub(crate) fn of(follower: &Follower) -> Self {
        match follower {
            Follower::Replica(replica) => {
                Self::Replica { id: replica.id.clone(), audience: replica.audience.clone() }
            }
            Follower::Agent(agent) => Self::Agent(agent.id.clone()),
        }
    }

    /// Its id, which no other follower has.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Replica { id, .. } => id.as_str(),
            Self::Agent(id) => id.as_str(),
        }
    }

    /// Whether it hears of this.
    pub(crate) fn hears_of(&self, what: &Happening) -> bool {
        match self {
            Self::Replica { audience, .. } => match what {
                Happening::SessionOpen { audiences, .. }
                | Happening::SessionEnd { audiences, .. }
                | Happening::CallsDecided { audiences, .. } => audiences.contains(audience),
                _ => false,
            },
            Self::Agent(id) => match what {
                Happening::SessionEnd { agent, .. }
                | Happening::AgentEnd { agent, .. }
                | Happening::CallsDecided { agent, .. }
                | Happening::AgentEnabled { agent } => agent == id,
                _ => false,
            },
        }
    }
}

/// A stream that is open.
pub(crate) struct Live {
    pub(crate) id: StreamId,
    pub(crate) who: Who,
    /// For how long its follower goes on without hearing anything, in seconds.
    pub(crate) lease_secs: u64,
    opener: Mutex<Opener>,
    /// What its follower has been sent, and says it has applied: numbers of events.
    written: AtomicU64,
    applied: AtomicU64,
    /// When the last heartbeat was sent, in Unix seconds.
    heard_at: AtomicU64,
    /// When its follower last said how far it has come, in Unix seconds.
    said_at: AtomicU64,
}

impl Live {
    pub(super) fn new(id: StreamId, who: Who, lease_secs: u64, opener: Opener) -> Self {
        Self {
            id,
            who,
            lease_secs,
            opener: Mutex::new(opener),
            written: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            said_at: AtomicU64::new(0),
        }
    }

    /// Opens a word of its follower.
    pub(crate) fn open(&self, number: u64, sealed: &[u8]) -> Option<Word> {
        let plain = self.opener.lock().open_numbered(number, sealed).ok()?;
        Word::read(&plain).ok()
    }

    /// Numbers of events that its follower was sent and has applied.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    pub(super) fn note_written(&self, seq: u64) {
        self.written.fetch_max(seq, Ordering::SeqCst);
    }

    pub(super) fn note_applied(&self, seq: u64) {
        self.applied.fetch_max(seq, Ordering::SeqCst);
    }

    /// Its follower says how far it has come.
    pub(crate) fn note_said(&self, now: u64) {
        self.said_at.fetch_max(now, Ordering::SeqCst);
    }

    /// When it said so last, in Unix seconds; 0 if it never did.
    pub(crate) fn said_at(&self) -> u64 {
        self.said_at.load(Ordering::SeqCst)
    }

    /// A heartbeat is about to be sent: the lease of whoever gets it begins anew.
    pub(crate) fn note_heartbeat(&self, now: u64) {
        self.heard_at.fetch_max(now, Ordering::SeqCst);
    }

    /// When its follower had its last heartbeat, at the latest, in Unix seconds.
    pub(crate) fn heard_at(&self) -> u64 {
        self.heard_at.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("id", &self.id).field("who", &self.who).finish_non_exhaustive()
    }
}
