//! All that is kept, as it is in memory.

use super::owners::Owners;
use super::rows::Row;
use super::tokens::Tokens;
use crate::keys::KeyRing;

/// Keys, tokens, revocations, and what is remembered of secrets.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) keys: KeyRing,
    pub(crate) tokens: Tokens,
    pub(crate) owners: Owners,
}

/// A row holds something that this build did not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

impl Kept {
    /// Takes in what a row says. Rows come in the order in which they were written, or, from a file, in any order.
    pub(crate) fn apply(&mut self, row: &Row) -> Result<(), Malformed> {
        match row {
            Row::Key { kid, algorithm, hex, created } => {
                self.keys.put(kid, *algorithm, &hex.0, *created).ok_or(Malformed)?;
            }
            Row::Token(record) => self.tokens.put(record.clone()),
            Row::Revoked { id, until } => self.tokens.revoke(id, *until),
            Row::Owner(owner) => self.owners.put(owner.clone()),
        }
        Ok(())
    }

    /// Whether something has ended before this time (Unix seconds).
    #[cfg(feature = "redis")]
    pub(crate) fn has_ended(&self, before: u64) -> bool {
        self.tokens.has_ended(before)
    }

    /// Forgets what has ended by `now` (Unix seconds); gives back the names of its rows.
    pub(crate) fn take_ended(&mut self, now: u64) -> Vec<String> {
        let keys = self.keys.take_ended(now).into_iter().map(|kid| format!("k/{kid}"));
        let tokens = self.tokens.take_ended(now);
        keys.chain(tokens.iter().flat_map(|id| ["t/", "r/"].map(|kind| format!("{kind}{id}")))).collect()
    }
}
