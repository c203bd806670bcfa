//! What the cascade needs to know, as one thing that every token on its way holds.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use obol_session::clock::Clock;
use obol_token::{Audience, SessionId, Suite};

use crate::approvals::Approvals;
use crate::cascade::parents::ConsumedParents;
use crate::cascade::template::Templates;
use crate::denial::{Code, Denial, FailedCheck};
use crate::limits::CascadeLimits;
use crate::session::Session;
use crate::session::table::SessionTable;
use crate::spent::SpentSet;

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) audience: Audience,
    /// What tokens name it by.
    pub(crate) audience_hash: [u8; 32],
    pub(crate) sessions: Arc<dyn SessionTable>,
    pub(crate) spent: Arc<dyn SpentSet>,
    pub(crate) templates: Arc<dyn Templates>,
    pub(crate) parents: Arc<ConsumedParents>,
    /// What humans said yes to, where a service tells of that.
    pub(crate) approvals: Option<Arc<Approvals>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: CascadeLimits,
    pub(crate) policy_epoch: AtomicU64,
}

impl Parts {
    /// The oldest policy epoch that is accepted from this session.
    pub(crate) fn policy_epoch_for(&self, session: &Session) -> u64 {
        self.policy_epoch.load(Ordering::SeqCst).max(session.policy_epoch())
    }

    /// Cascade step 2. A token of another suite than its session's is none of that session's tokens: it is answered
    /// as TBAC r41 answers an `alg_id` that it does not know, before anything is computed for it.
    pub(crate) fn active_session(&self, id: SessionId, suite: Suite) -> Result<Arc<Session>, Denial> {
        let session = self
            .sessions
            .look_up(id)
            .map_err(|error| Denial::new(Code::Unavailable, FailedCheck::SessionTable, error.to_string()))?
            .ok_or_else(|| {
                Denial::new(Code::SessionNotFound, FailedCheck::SessionLookup, "no such session")
            })?;
        if session.material().suite() != suite {
            let detail = "the token's alg_id is not the suite that its session negotiated";
            return Err(Denial::new(Code::MalformedToken, FailedCheck::FramingCheck, detail));
        }
        session.check_active()?;
        Ok(session)
    }
}
