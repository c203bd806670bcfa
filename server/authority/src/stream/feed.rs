//! What one follower is told, in order and without a gap: first what it does not know yet, page by page, then what comes.

use std::sync::Arc;

use obol_session::SessionId;
use obol_stream::{ApprovedUse, Item, MAX_ITEM_BYTES, Transaction, What};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::live::Who;
use crate::directory::{Answer, CallState, Directory, Event, Happening, Unavailable};
use crate::id::ApprovalId;

/// An item as it is sealed.
pub(crate) type Plain = Zeroizing<Vec<u8>>;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Feed {
    directory: Arc<dyn Directory>,
    who: Who,
    /// The last event's number that the follower was told, or told that it has nothing to hear of.
    cursor: u64,
    behind: Behind,
}

/// What the follower has to be told before what comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    /// Everything: sessions behind this one. What happens meanwhile comes after it, and saying it twice does no harm.
    Sessions {
        after: Option<SessionId>,
        head: u64,
    },
    /// Events behind this one, up to another.
    Events {
        after: u64,
        head: u64,
    },
    Nothing,
}

impl Feed {
    /// For a follower that has come to `after`, and is told of what comes behind `head` from elsewhere; `None` where it has
    /// to be told everything.
    pub(crate) fn new(
        directory: Arc<dyn Directory>,
        who: Who,
        after: Option<u64>,
        head: u64,
    ) -> Answer<Self> {
        let after = match after.filter(|after| *after <= head) {
            Some(after) => directory.events(after)?.map(|_| after),
            None => None,
        };
        let (cursor, behind) = match after {
            Some(after) => (after, Behind::Events { after, head }),
            None => (0, Behind::Sessions { after: None, head }),
        };
        Ok(Self { directory, who, cursor, behind })
    }

    /// Whether it begins with everything there is.
    pub(crate) fn is_snapshot(&self) -> bool {
        matches!(self.behind, Behind::Sessions { .. })
    }

    /// The last event's number that the follower was told.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next page of what the follower does not know yet; `None` once it knows all.
    pub(crate) fn page(&mut self) -> Answer<Option<Vec<Plain>>> {
        match self.behind {
            Behind::Nothing => Ok(None),
            Behind::Events { after, head } => self.events(after, head).map(Some),
            Behind::Sessions { after, head } => self.sessions(after, head).map(Some),
        }
    }

    fn events(&mut self, after: u64, head: u64) -> Answer<Vec<Plain>> {
        let events = self.directory.events(after)?;
        // It began a moment ago with events that were there.
        let events = events.ok_or_else(|| Unavailable::new("events were forgotten while they were told"))?;
        let last = events.last().map_or(head, |event| event.seq);
        let mut items = Vec::new();
        for event in events.iter().take_while(|event| event.seq <= head) {
            items.extend(self.item(event)?);
        }
        self.behind = if last < head { Behind::Events { after: last, head } } else { Behind::Nothing };
        Ok(items)
    }

    fn sessions(&mut self, after: Option<SessionId>, head: u64) -> Answer<Vec<Plain>> {
        let (mut items, next) = match &self.who {
            Who::Replica { audience, .. } => {
                let page = self.directory.halves(audience, after)?;
                let items = page.halves.iter().map(|(session, half)| Item::live_with(*session, half));
                (items.filter(fits).collect::<Vec<_>>(), page.next)
            }
            Who::Agent(agent) => {
                let sessions = self.directory.sessions(agent)?;
                let live = sessions.into_iter().map(|session| Item::Live { session: session.id, half: None });
                (live.map(|item| item.to_bytes()).collect(), None)
            }
        };
        self.behind = match next {
            Some(next) => Behind::Sessions { after: Some(next), head },
            None => Behind::Nothing,
        };
        if self.behind == Behind::Nothing {
            self.cursor = head;
            items.push(Item::Listed { seq: head }.to_bytes());
        }
        Ok(items)
    }

    /// What the follower is told of an event, if it hears of it and has not heard of it yet. Reads the keys of a session.
    pub(crate) fn item(&mut self, event: &Event) -> Answer<Option<Plain>> {
        if event.seq <= self.cursor || !self.who.hears_of(&event.what) {
            return Ok(None);
        }
        let Some(what) = self.what(&event.what)? else { return Ok(None) };
        let item = Item::Happened { seq: event.seq, prev: self.cursor, what }.to_bytes();
        if !fits(&item) {
            return Ok(None);
        }
        self.cursor = event.seq;
        Ok(Some(item))
    }

    fn what(&self, happening: &Happening) -> Answer<Option<What>> {
        Ok(Some(match happening {
            Happening::SessionOpen { session, .. } => {
                let half = match &self.who {
                    Who::Replica { audience, .. } => self.directory.half(*session, audience)?.map(Box::new),
                    Who::Agent(_) => None,
                };
                What::SessionOpen { session: *session, half }
            }
            Happening::SessionEnd { session, reason, .. } => {
                What::SessionEnd { session: *session, reason: reason.clone() }
            }
            Happening::AgentEnd { revoked, reason, .. } => {
                What::AgentEnd { revoked: *revoked, reason: reason.clone() }
            }
            Happening::AgentEnabled { .. } => What::AgentEnabled,
            Happening::CallsDecided { approval, .. } => return self.calls(approval),
            _ => return Ok(None),
        }))
    }

    /// What became of a request for a human's yes. What is over by now is not told, so it is refused.
    fn calls(&self, id: &ApprovalId) -> Answer<Option<What>> {
        let audience = match &self.who {
            Who::Agent(_) => return Ok(Some(What::CallsDecided { approval: id.to_string() })),
            Who::Replica { audience, .. } => audience,
        };
        let Some(row) = self.directory.call_approval(id)? else { return Ok(None) };
        let own = row.calls.iter().filter(|call| call.scope.aud == *audience);
        let uses = own.flat_map(|call| {
            let arguments = call.arguments.as_ref().map(|text| Sha256::digest(text).into());
            call.uses.iter().map(move |one| ApprovedUse { txn_id: one.txn_id, digest: one.digest, arguments })
        });
        let uses: Vec<ApprovedUse> = uses.collect();
        Ok(Some(match row.state {
            CallState::Approved { at, .. } => {
                let expires_at = at.saturating_add(row.lifetime_secs);
                What::Approval { uses, confirmed_at: at, expires_at }
            }
            _ => What::ApprovalEnd { transactions: uses.iter().map(|one| Transaction(one.txn_id)).collect() },
        }))
    }

    /// Everything up to `head` was told.
    pub(crate) fn heartbeat(&mut self, head: u64, now: u64) -> Plain {
        self.cursor = self.cursor.max(head);
        Item::Heartbeat { head: self.cursor, now }.to_bytes()
    }
}

/// Whether a follower reads an item of this length. One that it does not is not told, so its tokens are refused.
fn fits(item: &Plain) -> bool {
    let fits = item.len() <= MAX_ITEM_BYTES;
    if !fits {
        tracing::error!(
            bytes = item.len(),
            "a session has more grants at one resource server than the stream carries"
        );
    }
    fits
}
