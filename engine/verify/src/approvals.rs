//! What humans said yes to, as the Authentication Service told it: without it no token of trust level 3 is accepted, whatever
//! the token says of itself. Whoever holds a session's keys can write any approval into a token, and none into this table.
//!
//! It is in memory. After a restart what was said before is refused: an agent asks again. That an approval was used is in the
//! spent set, beside the token, and outlasts all of this.

use core::fmt;
use std::collections::HashMap;

use parking_lot::RwLock;

/// The most uses of approved calls that are known at a time. What comes beyond is not taken, so it is refused.
const MAX_APPROVALS: usize = 65_536;

/// One use of a call that a human said yes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownApproval {
    /// What was approved (TBAC r41, section 3.2).
    pub digest: [u8; 32],
    /// SHA-256 of the canonical arguments, where the human saw them.
    pub arguments: Option<[u8; 32]>,
    /// When the human said yes, in Unix seconds.
    pub confirmed_at: u64,
    /// Until when it may be used, in Unix seconds.
    pub expires_at: u64,
}

/// The table, by transaction. Shared by the verifier and by whoever follows the service.
#[derive(Default)]
pub struct Approvals {
    table: RwLock<HashMap<[u8; 16], KnownApproval>>,
}

impl Approvals {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what the service says, and forgets what is over at `now`, in Unix seconds. What is known already stays as it is.
    pub fn allow(&self, uses: impl IntoIterator<Item = ([u8; 16], KnownApproval)>, now: u64) {
        let mut table = self.table.write();
        // The clocks of service and server may differ, so none goes to the second.
        table.retain(|_, known| now <= known.expires_at.saturating_add(60));
        for (transaction, approval) in uses {
            if table.len() >= MAX_APPROVALS && !table.contains_key(&transaction) {
                continue;
            }
            table.entry(transaction).or_insert(approval);
        }
    }

    /// They may not be used any more.
    pub fn end(&self, transactions: impl IntoIterator<Item = [u8; 16]>) {
        let mut table = self.table.write();
        for transaction in transactions {
            table.remove(&transaction);
        }
    }

    /// What was approved for a transaction.
    pub(crate) fn find(&self, transaction: &[u8; 16]) -> Option<KnownApproval> {
        self.table.read().get(transaction).copied()
    }

    /// How many uses are known.
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").field("known", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(expires_at: u64) -> KnownApproval {
        KnownApproval { digest: [1; 32], arguments: None, confirmed_at: 1_000, expires_at }
    }

    fn number(number: usize) -> [u8; 16] {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn what_is_over_makes_room_and_what_goes_beyond_is_not_taken() {
        let table = Approvals::new();
        table.allow((0..MAX_APPROVALS).map(|at| (number(at), approval(1_100))), 1_000);
        table.allow([(number(MAX_APPROVALS), approval(1_100))], 1_000);
        assert_eq!(table.len(), MAX_APPROVALS);
        assert_eq!(table.find(&number(MAX_APPROVALS)), None);
        table.allow([(number(MAX_APPROVALS), approval(1_300))], 1_161);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_is_said_again_changes_nothing_and_what_is_ended_is_gone() {
        let table = Approvals::new();
        table.allow([(number(1), approval(1_100))], 1_000);
        table.allow([(number(1), KnownApproval { digest: [2; 32], ..approval(9_000) })], 1_000);
        assert_eq!(table.find(&number(1)), Some(approval(1_100)));
        table.end([number(1), number(2)]);
        assert!(table.is_empty());
    }
}
