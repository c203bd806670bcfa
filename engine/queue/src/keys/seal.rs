//! Sealing at rest: AES-256-GCM under keys derived from the master key and the key slots.
//!
//! What each thing is sealed under decides what destroys it:
//!
//! | thing | key derived from | destroyed by |
//! |---|---|---|
//! | a key slot | master key | overwriting the slot |
//! | a single value: policy, counters, the embedder's note | master key | nothing; no flush is about it |
//! | a session's document | master key, root slot, session slot | flush of all, of the session |
//! | a batch of tokens | root slot, session slot, partition slot | the same, and flush of the tool |
//!
//! What stands in the clear, and nothing else does:
//!
//! | in the clear | where | why it may be |
//! |---|---|---|
//! | format, store id | database, key file | they are needed to find the keys; random, or the same for all |
//! | session number, order, end, slot, whether it was flushed | a session's row | to know, without keys, what was flushed. While the session lives they are bound to what is sealed |
//! | partition number, expiry, sequence, count, key's name, policy epoch | a batch's row | to remove it unopened once it is dead. Bound to what is sealed |

use core::ops::Range;

use hkdf::Hkdf;
use obol_secret::seal;
pub(crate) use obol_secret::seal::{NoRandomness, OVERHEAD_BYTES};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::MasterKey;

/// Identity of one store; part of every key and of all additional data, so nothing moves between stores.
pub(crate) type StoreId = [u8; 16];

const LABEL_SLOTS: &[u8] = b"obol-slots-v1";
const LABEL_VALUES: &[u8] = b"obol-values-v1";
const LABEL_SESSION: &[u8] = b"obol-session-v1";
const LABEL_BATCH: &[u8] = b"obol-batch-v1";
const LABEL_KEY_ID: &[u8] = b"obol-key-id-v1";

/// Names a key without telling anything of it.
pub(crate) type KeyId = [u8; 8];

/// 32 random bytes from a key slot.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SlotSecret(pub(crate) [u8; 32]);

impl SlotSecret {
    pub(crate) fn generate() -> Result<Self, NoRandomness> {
        let mut secret = Self([0; 32]);
        getrandom::fill(&mut secret.0).map_err(|_| NoRandomness)?;
        Ok(secret)
    }
}

/// A key that seals one kind of thing, and what names it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SealingKey([u8; 32], KeyId);

impl SealingKey {
    /// For key slots.
    pub(crate) fn for_slots(master: &MasterKey, store: &StoreId) -> Self {
        Self::derive(store, &[master.expose()], LABEL_SLOTS, &[])
    }

    /// For the store's single values.
    pub(crate) fn for_values(master: &MasterKey, store: &StoreId) -> Self {
        Self::derive(store, &[master.expose()], LABEL_VALUES, &[])
    }

    /// For one session's document.
    pub(crate) fn for_session(
        master: &MasterKey,
        store: &StoreId,
        root: &SlotSecret,
        session: &SlotSecret,
        session_id: u64,
    ) -> Self {
        Self::derive(store, &[master.expose(), &root.0, &session.0], LABEL_SESSION, &session_id.to_be_bytes())
    }

    /// For the batches of one partition.
    pub(crate) fn for_batches(
        store: &StoreId,
        root: &SlotSecret,
        session: &SlotSecret,
        partition: &SlotSecret,
        partition_id: u64,
    ) -> Self {
        Self::derive(store, &[&root.0, &session.0, &partition.0], LABEL_BATCH, &partition_id.to_be_bytes())
    }

    fn derive(store: &StoreId, secrets: &[&[u8; 32]], label: &[u8], context: &[u8]) -> Self {
        // All secrets have one length, so their concatenation is unambiguous.
        let mut material = Zeroizing::new(Vec::with_capacity(32 * secrets.len()));
        for secret in secrets {
            material.extend_from_slice(*secret);
        }
        let mut key = Self([0; 32], KeyId::default());
        let derivation = Hkdf::<Sha256>::new(Some(store), &material);
        let done = derivation.expand_multi_info(&[label, context], &mut key.0);
        let named = derivation.expand_multi_info(&[LABEL_KEY_ID, label, context], &mut key.1);
        debug_assert!(done.is_ok() && named.is_ok(), "HKDF output over 8,160 bytes");
        key
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a batch sealed under this key bears, so that it is known for dead, unopened, once the key has changed.
    pub(crate) fn id(&self) -> KeyId {
        self.1
    }

    /// Seals under a fresh random nonce: nonce ‖ ciphertext ‖ tag.
    pub(crate) fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        seal::seal(&self.0, context, plaintext)
    }

    /// Seals what stands in `buffer` from `start` on, which begins with room for a nonce, and appends the tag.
    pub(crate) fn seal_in_place(
        &self,
        context: &[u8],
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), NoRandomness> {
        seal::seal_in_place(&self.0, context, buffer, start)
    }

    /// Opens what [`Self::seal`] made in the same context; `None` where anything differs.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        seal::open(&self.0, context, sealed)
    }

    /// As [`Self::open`], where it stands; gives back where in it the plaintext is.
    pub(crate) fn open_in_place(&self, context: &[u8], sealed: &mut [u8]) -> Option<Range<usize>> {
        seal::open_in_place(&self.0, context, sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: u8) -> SealingKey {
        let secret = |byte| SlotSecret([byte; 32]);
        SealingKey::for_batches(&[0; 16], &secret(1), &secret(2), &secret(partition), 7)
    }

    #[test]
    fn only_the_same_key_context_and_bytes_open() {
        let sealed = key(3).seal(b"row", b"tokens").unwrap();
        assert_eq!(key(3).open(b"row", &sealed).unwrap().as_slice(), b"tokens");
        assert!(key(4).open(b"row", &sealed).is_none());
        assert!(key(3).open(b"other row", &sealed).is_none());
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            assert!(key(3).open(b"row", &damaged).is_none(), "bit flip at {position}");
            assert!(key(3).open(b"row", &sealed[..position]).is_none(), "cut at {position}");
        }
    }
}
