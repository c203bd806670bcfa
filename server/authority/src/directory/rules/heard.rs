//! What is remembered of signed words from outside, so that none has its effect twice: security events, and words that register
//! an agent. Whoever acts on one remembers it in the same transaction.

use sha2::{Digest as _, Sha256};

use super::at;
use crate::directory::tables::{Kept, Number, Table, Transaction, Unavailable};
use crate::directory::{Attested, MAX_SETS};

/// Where a word that registers an agent is remembered: nothing that it could be mixed up with has this in it.
fn place_of_word(transaction: &Transaction<'_>, word: &Attested) -> Vec<u8> {
    let digest: [u8; 32] =
        Sha256::new().chain_update(b"assertion\0").chain_update(word.jti.as_bytes()).finalize().into();
    transaction.under(&word.issuer, &digest)
}

/// Whether such a word has registered an agent before.
pub(super) fn is_spent(transaction: &Transaction<'_>, word: &Attested) -> Kept<bool> {
    Ok(transaction.get_bytes(Table::Set, &place_of_word(transaction, word))?.is_some())
}

/// Remembers such a word for as long as it could be said again.
pub(super) fn spend(transaction: &mut Transaction<'_>, word: &Attested, now: u64) -> Kept<()> {
    let place = place_of_word(transaction, word);
    let kept_until = word.replayable_until.max(now).saturating_add(1);
    remember(transaction, &place, word.replayable_until, kept_until, now)
}

/// Remembers something that was heard, until a time from which nobody needs to know of it.
pub(super) fn remember(
    transaction: &mut Transaction<'_>,
    place: &[u8],
    replayable_until: u64,
    kept_until: u64,
    now: u64,
) -> Kept<()> {
    let mut kept = transaction.number(Number::Sets)?;
    if kept >= MAX_SETS {
        // Its key begins with the time from which nobody could be told it again.
        let oldest = transaction.keys(Table::SetTime, &[], None, 1)?.into_iter().next().unwrap_or_default();
        let row: Option<u64> = transaction.get(Table::Set, oldest.get(8..).unwrap_or_default())?;
        if row.is_some_and(|until| now <= until) {
            return Err(Unavailable::new("too many words of others are remembered; send it again later"));
        }
        forget(transaction, &oldest);
        kept = kept.saturating_sub(1);
    }
    transaction.put(Table::Set, place, &replayable_until)?;
    transaction.mark(Table::SetTime, &at(kept_until, place));
    transaction.set_number(Number::Sets, kept + 1)
}

/// Forgets one by its key in the index by time.
pub(super) fn forget(transaction: &mut Transaction<'_>, key: &[u8]) {
    transaction.remove(Table::SetTime, key);
    transaction.remove(Table::Set, key.get(8..).unwrap_or_default());
}
