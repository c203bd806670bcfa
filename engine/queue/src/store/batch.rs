//! A batch on its way: `Grant → MintedBatch → StoredBatch → ClaimedBatch → Token`.
//!
//! Each state can be made only from the one before it, and `StoredBatch` and `ClaimedBatch` only with the proof
//! of a durable commit ([`Committed`]). So the compiler keeps the order that matters: nothing is
//! handed out before its removal from the store is on the disk.

use core::fmt;
use core::ops::Deref;

use bytes::{Buf, BytesMut};
use obol_secret::wipe::wipe;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Committed;
use crate::keys::{KeyId, NoRandomness, OVERHEAD_BYTES, SealingKey};

/// Where a batch lies in the store. Rows of a partition sort by expiry, so the oldest is claimed first and the
/// expired ones are a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BatchKey {
    pub(crate) partition: u64,
    /// When the tokens end, in Unix seconds.
    pub(crate) expires_at: u64,
    /// Unique in the store for ever.
    pub(crate) sequence: u64,
}

/// What stands in a row before the sealed tokens, in the clear: enough to tell, unopened, that they are dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) count: u16,
    /// The key that the batch is sealed under.
    pub(crate) key_id: KeyId,
    /// The policy epoch in its tokens.
    pub(crate) policy_epoch: u64,
}

/// Bytes of a [`BatchHeader`].
const HEADER_BYTES: usize = 2 + 8 + 8;
/// Bytes of the plaintext before the first token: the issue time.
const PREAMBLE_BYTES: usize = 8;

impl BatchHeader {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let parts =
            self.count.to_be_bytes().into_iter().chain(self.key_id).chain(self.policy_epoch.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
        bytes
    }

    /// Splits a row's value. A row is never shorter than its header; if the file is damaged, it counts
    /// nothing and opens nothing.
    pub(crate) fn split(value: &[u8]) -> (Self, &[u8]) {
        let damaged = (Self { count: 0, key_id: KeyId::default(), policy_epoch: 0 }, [].as_slice());
        let Some((count, rest)) = value.split_first_chunk::<2>() else { return damaged };
        let Some((key_id, rest)) = rest.split_first_chunk::<8>() else { return damaged };
        let Some((epoch, sealed)) = rest.split_first_chunk::<8>() else { return damaged };
        let (count, policy_epoch) = (u16::from_be_bytes(*count), u64::from_be_bytes(*epoch));
        (Self { count, key_id: *key_id, policy_epoch }, sealed)
    }
}

/// What the sealed bytes are bound to: a row moved elsewhere, or with another header, does not open.
fn context(key: BatchKey, header: BatchHeader) -> [u8; 24 + HEADER_BYTES] {
    let mut context = [0; 24 + HEADER_BYTES];
    let place = [key.partition, key.expires_at, key.sequence].map(u64::to_be_bytes);
    let parts = place.as_flattened().iter().copied().chain(header.to_bytes());
    context.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
    context
}

/// Why a batch could not be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BatchError {
    /// The source of tokens failed, and says why.
    Source(String),
    Randomness,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(why) => f.write_str(why),
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl From<NoRandomness> for BatchError {
    fn from(NoRandomness: NoRandomness) -> Self {
        Self::Randomness
    }
}

/// A batch that is being filled: plaintext that becomes the row's value in place, so that no copy of it stays behind.
pub(crate) struct Draft {
    key: BatchKey,
    header: BatchHeader,
    /// header ‖ room for the nonce ‖ issue time ‖ (length ‖ token)…, integers big-endian.
    value: Zeroizing<Vec<u8>>,
    filled: u16,
}

impl Draft {
    /// Room for `header.count` tokens of about `token_bytes`; more room is made where it does not do.
    pub(crate) fn new(key: BatchKey, header: BatchHeader, issued_at: u64, token_bytes: usize) -> Self {
        let tokens = usize::from(header.count) * (2 + token_bytes);
        let size = HEADER_BYTES + OVERHEAD_BYTES + PREAMBLE_BYTES + tokens;
        let mut value = Zeroizing::new(Vec::with_capacity(size));
        value.extend_from_slice(&header.to_bytes());
        value.resize(HEADER_BYTES + OVERHEAD_BYTES - 16, 0);
        value.extend_from_slice(&issued_at.to_be_bytes());
        Self { key, header, value, filled: 0 }
    }

    /// Adds a token. Tells whether it fits: no longer than 65,535 bytes, and no more of them than the batch has.
    pub(crate) fn push(&mut self, token: &[u8]) -> bool {
        let Ok(length) = u16::try_from(token.len()) else { return false };
        if self.filled == self.header.count {
            return false;
        }
        let needed = self.value.len() + 2 + token.len() + 16;
        if needed > self.value.capacity() {
            self.grow(needed);
        }
        self.value.extend_from_slice(&length.to_be_bytes());
        self.value.extend_from_slice(token);
        self.filled += 1;
        true
    }

    /// Growing in place would leave a copy behind.
    fn grow(&mut self, needed: usize) {
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * needed));
        larger.extend_from_slice(&self.value);
        wipe(&mut self.value);
        self.value = larger;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.header.count
    }

    /// How many tokens were added.
    pub(crate) fn filled(&self) -> u16 {
        self.filled
    }

    /// Seals a batch that is full.
    pub(crate) fn seal(mut self, key: &SealingKey) -> Result<MintedBatch, BatchError> {
        let mut value = core::mem::take(&mut *self.value);
        key.seal_in_place(&context(self.key, self.header), &mut value, HEADER_BYTES)?;
        Ok(MintedBatch { key: self.key, count: self.header.count, value })
    }
}

/// Freshly minted and sealed, not stored yet.
pub(crate) struct MintedBatch {
    pub(crate) key: BatchKey,
    pub(crate) count: u16,
    /// The row's value.
    pub(crate) value: Vec<u8>,
}

impl MintedBatch {
    /// The row has been written in the commit that the proof stands for.
    pub(crate) fn stored(self, _proof: &Committed) -> StoredBatch {
        StoredBatch { sequence: self.key.sequence, count: self.count }
    }
}

/// Durably in the store.
pub(crate) struct StoredBatch {
    pub(crate) sequence: u64,
    pub(crate) count: u16,
}

/// A row that was read: where it lies, and what it holds.
pub(crate) struct Row {
    pub(crate) key: BatchKey,
    pub(crate) header: BatchHeader,
    pub(crate) sealed: BytesMut,
}

/// Taken out of the store in a transaction that is not committed yet; opens nothing.
pub(crate) struct UnconfirmedClaim {
    row: Row,
}

impl UnconfirmedClaim {
    pub(crate) fn new(row: Row) -> Self {
        Self { row }
    }

    pub(crate) fn count(&self) -> u16 {
        self.row.header.count
    }

    /// The removal has been made durable by the commit that the proof stands for.
    pub(crate) fn confirm(self, _proof: &Committed) -> ClaimedBatch {
        ClaimedBatch { row: self.row }
    }
}

/// Durably out of the store: its tokens may be handed out, once each, by this process alone.
pub(crate) struct ClaimedBatch {
    row: Row,
}

impl ClaimedBatch {
    pub(crate) fn count(&self) -> u16 {
        self.row.header.count
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.row.key.sequence
    }

    /// Opens the batch; `None` where its keys were destroyed or the row is damaged, in which case it is burned.
    pub(crate) fn open(self, key: &SealingKey) -> Option<OpenBatch> {
        let Row { key: place, header, sealed } = self.row;
        // Wiped, as a token is, wherever this ends.
        let mut plaintext = TokenBytes(sealed);
        let body = key.open_in_place(&context(place, header), &mut plaintext.0)?;
        plaintext.0.truncate(body.end);
        plaintext.0.advance(body.start);
        unpack(plaintext, header, place.expires_at)
    }
}

/// The tokens of a claimed batch, oldest first.
pub(crate) struct OpenBatch {
    pub(crate) expires_at: u64,
    pub(crate) issued_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) tokens: Vec<TokenBytes>,
}

/// One token's bytes; wiped when dropped. The tokens of a batch share one piece of memory: to whoever draws them that is
/// cheaper than a piece for each, made by one thread and freed by another.
pub(crate) struct TokenBytes(BytesMut);

impl From<&[u8]> for TokenBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(BytesMut::from(bytes))
    }
}

impl Deref for TokenBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for TokenBytes {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl ZeroizeOnDrop for TokenBytes {}

fn unpack(mut plaintext: TokenBytes, header: BatchHeader, expires_at: u64) -> Option<OpenBatch> {
    let issued_at = plaintext.0.try_get_u64().ok()?;
    let mut tokens = Vec::with_capacity(usize::from(header.count));
    while !plaintext.0.is_empty() {
        let length = usize::from(plaintext.0.try_get_u16().ok()?);
        if length > plaintext.0.len() {
            return None;
        }
        tokens.push(TokenBytes(plaintext.0.split_to(length)));
    }
    let complete = tokens.len() == usize::from(header.count);
    complete.then_some(OpenBatch { expires_at, issued_at, policy_epoch: header.policy_epoch, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SlotSecret;

    const PLACE: BatchKey = BatchKey { partition: 7, expires_at: 100, sequence: 3 };

    fn key(partition: u8) -> SealingKey {
        let secret = |byte| SlotSecret([byte; 32]);
        SealingKey::for_batches(&[0; 16], &secret(1), &secret(2), &secret(partition), 7)
    }

    fn sealed(tokens: &[Vec<u8>], expected_bytes: usize) -> Vec<u8> {
        let key = key(3);
        let count = u16::try_from(tokens.len()).unwrap();
        let header = BatchHeader { count, key_id: key.id(), policy_epoch: 5 };
        let mut draft = Draft::new(PLACE, header, 40, expected_bytes);
        assert!(tokens.iter().all(|token| draft.push(token)));
        assert!(draft.is_full() && !draft.push(b"one too many"));
        draft.seal(&key).unwrap().value
    }

    fn open(value: &[u8], place: BatchKey) -> Option<OpenBatch> {
        let (header, sealed) = BatchHeader::split(value);
        ClaimedBatch { row: Row { key: place, header, sealed: sealed.into() } }.open(&key(3))
    }

    #[test]
    fn a_batch_opens_to_what_was_put_in_whatever_its_length() {
        let tokens: Vec<Vec<u8>> = (0..20).map(|number| vec![number; usize::from(number) * 30]).collect();
        for expected_bytes in [0, 1, 450] {
            let batch = open(&sealed(&tokens, expected_bytes), PLACE).unwrap();
            assert_eq!((batch.expires_at, batch.issued_at, batch.policy_epoch), (100, 40, 5));
            assert!(batch.tokens.iter().map(|token| &**token).eq(tokens.iter().map(Vec::as_slice)));
        }
    }

    #[test]
    fn a_batch_moved_damaged_or_cut_opens_nothing() {
        let value = sealed(&[vec![1; 40], vec![2; 40]], 40);
        assert!(open(&value, BatchKey { sequence: 4, ..PLACE }).is_none());
        assert!(open(&value, BatchKey { expires_at: 101, ..PLACE }).is_none());
        for place in 0..value.len() {
            let mut damaged = value.clone();
            damaged[place] ^= 1;
            assert!(open(&damaged, PLACE).is_none(), "bit flip at {place}");
            assert!(open(&value[..place], PLACE).is_none(), "cut at {place}");
        }
    }
}
