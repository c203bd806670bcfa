//! The key file: small secrets that are overwritten in place when something must be destroyed.
//!
//! A database that never overwrites, such as redb, cannot forget: a deleted row stays readable in the file until
//! its page is used again. So the secrets that everything is sealed under live beside it, in a file of fixed slots
//! of 64 bytes. Destroying a secret is one overwrite and one fsync, however much hangs on it.
//!
//! Layout: a header of 64 bytes, then slots.
//!
//! | offset | bytes | header | slot |
//! |---|---|---|---|
//! | 0 | 8 | `OBOLKEYS` | random part of the nonce |
//! | 8 | 4 | format version, little-endian | ciphertext of the secret (32 bytes to 40) |
//! | 12 | 16 | store id | |
//! | 40 | 16 | | tag |
//!
//! **Failure model.** A slot that is torn, damaged or holds another secret than its owner's is a destroyed secret:
//! what hangs on it does not open, is given up and never handed out. So a crash in the middle of a write is always
//! safe, and no journal is needed. A slot is written and synced before anything is sealed under it.
//!
//! **Creation.** The header comes first, then the database's first commit, then slots. So a header alone beside a blank
//! database is a creation that did not end, and is written afresh, with another id; slots beside a blank database mean
//! that the database is gone.

use core::fmt;
use std::collections::BTreeSet;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use redb::StorageBackend;

use super::seal::{NoRandomness, SealingKey, SlotSecret, StoreId};

const MAGIC: &[u8; 8] = b"OBOLKEYS";
/// Format of the key file and of the database beside it; they change together.
pub(crate) const FORMAT_VERSION: u32 = 2;
const SLOT_BYTES: u64 = 64;
const SLOT_USED: usize = 56;

/// Slot of the secret that everything hangs on.
pub(crate) const ROOT: u32 = 0;

/// What went wrong with the key file.
#[derive(Debug)]
pub(crate) enum SlotError {
    Io(std::io::Error),
    NotAKeyFile,
    /// Nothing is in the file, although its database is there.
    Empty,
    /// There are slots, although their database is new.
    WithoutDatabase,
    Version(u32),
    Randomness,
}

impl From<std::io::Error> for SlotError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<NoRandomness> for SlotError {
    fn from(NoRandomness: NoRandomness) -> Self {
        Self::Randomness
    }
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "key file: {error}"),
            Self::NotAKeyFile => f.write_str("key file: not a key file"),
            Self::Empty => f.write_str("key file: missing or empty"),
            Self::WithoutDatabase => f.write_str("key file: its database is missing or empty"),
            Self::Version(found) => write!(f, "key file: format {found}"),
            Self::Randomness => f.write_str("key file: the system's random number generator failed"),
        }
    }
}

/// The open key file.
#[derive(Debug)]
pub(crate) struct KeySlots {
    file: Box<dyn StorageBackend>,
    store_id: StoreId,
    /// Slots that hold nobody's secret.
    free: BTreeSet<u32>,
    /// Slots that may still hold a secret of an owner that is gone.
    dirty: BTreeSet<u32>,
    /// How many slots the file has room for.
    next: u32,
}

impl KeySlots {
    /// Reads the header of an old store, or writes that of a new one.
    pub(crate) fn open(file: Box<dyn StorageBackend>, store_is_new: bool) -> Result<Self, SlotError> {
        let length = file.len()?;
        if store_is_new {
            return match (begins_as_ours(file.as_ref(), length)?, length <= SLOT_BYTES) {
                (false, _) => Err(SlotError::NotAKeyFile),
                (true, false) => Err(SlotError::WithoutDatabase),
                (true, true) => Self::create(file),
            };
        }
        if length < SLOT_BYTES {
            return Err(if length == 0 { SlotError::Empty } else { SlotError::NotAKeyFile });
        }
        let mut header = [0; 28];
        file.read(0, &mut header)?;
        let (magic, rest) = header.split_first_chunk::<8>().ok_or(SlotError::NotAKeyFile)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(SlotError::NotAKeyFile)?;
        if magic != MAGIC {
            return Err(SlotError::NotAKeyFile);
        }
        match u32::from_le_bytes(*version) {
            FORMAT_VERSION => {}
            other => return Err(SlotError::Version(other)),
        }
        let store_id = rest.try_into().map_err(|_| SlotError::NotAKeyFile)?;
        let next = u32::try_from((length / SLOT_BYTES).saturating_sub(1)).unwrap_or(u32::MAX);
        let dirty = (0..next).collect();
        Ok(Self { file, store_id, free: BTreeSet::new(), dirty, next })
    }

    fn create(file: Box<dyn StorageBackend>) -> Result<Self, SlotError> {
        let mut store_id = [0; 16];
        getrandom::fill(&mut store_id).map_err(|_| SlotError::Randomness)?;
        let mut header = Vec::with_capacity(28);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&store_id);
        file.set_len(SLOT_BYTES)?;
        file.write(0, &header)?;
        file.sync_data()?;
        Ok(Self { file, store_id, free: BTreeSet::new(), dirty: BTreeSet::new(), next: 0 })
    }

    pub(crate) fn store_id(&self) -> &StoreId {
        &self.store_id
    }

    /// Reads the secret in a slot without claiming it; `None` where it was destroyed.
    pub(crate) fn peek(&self, key: &SealingKey, index: u32) -> Result<Option<SlotSecret>, SlotError> {
        self.read(key, index)
    }

    /// Reads the secret in a slot; `None` where it was destroyed. The slot counts as used from now on.
    pub(crate) fn load(&mut self, key: &SealingKey, index: u32) -> Result<Option<SlotSecret>, SlotError> {
        let secret = self.read(key, index)?;
        if secret.is_some() {
            self.claim(index);
        }
        Ok(secret)
    }

    /// Takes free slots and writes fresh secrets into them, durable on return.
    pub(crate) fn allocate(
        &mut self,
        key: &SealingKey,
        count: usize,
    ) -> Result<Vec<(u32, SlotSecret)>, SlotError> {
        let mut indices = Vec::with_capacity(count);
        while indices.len() < count {
            match self.free.pop_first() {
                Some(index) => indices.push(index),
                None => self.grow_to(self.next.max(ROOT + 1))?,
            }
        }
        self.write_fresh(key, &indices)
    }

    /// Overwrites slots with fresh secrets, durable on return. What hung on the old ones is destroyed.
    pub(crate) fn write_fresh(
        &mut self,
        key: &SealingKey,
        indices: &[u32],
    ) -> Result<Vec<(u32, SlotSecret)>, SlotError> {
        let mut fresh = Vec::with_capacity(indices.len());
        for &index in indices {
            let secret = SlotSecret::generate()?;
            self.write(key, index, &secret)?;
            self.claim(index);
            fresh.push((index, secret));
        }
        self.file.sync_data()?;
        Ok(fresh)
    }

    /// Overwrites slots with zeros, durable on return, and gives them back.
    pub(crate) fn destroy(&mut self, indices: &[u32]) -> Result<(), SlotError> {
        for &index in indices {
            self.file.write(offset(index), &[0; SLOT_USED])?;
        }
        self.file.sync_data()?;
        for index in indices {
            self.dirty.remove(index);
            // The root is never anybody else's.
            if *index != ROOT {
                self.free.insert(*index);
            }
        }
        Ok(())
    }

    /// Destroys every secret that nobody loaded since the file was opened.
    pub(crate) fn destroy_unclaimed(&mut self) -> Result<(), SlotError> {
        let orphans: Vec<u32> = self.dirty.iter().copied().collect();
        if orphans.is_empty() { Ok(()) } else { self.destroy(&orphans) }
    }

    /// Notes that a slot belongs to somebody.
    pub(crate) fn claim(&mut self, index: u32) {
        self.free.remove(&index);
        self.dirty.remove(&index);
    }

    fn read(&self, key: &SealingKey, index: u32) -> Result<Option<SlotSecret>, SlotError> {
        if index >= self.next {
            return Ok(None);
        }
        let mut slot = [0; SLOT_USED];
        self.file.read(offset(index), &mut slot)?;
        Ok(open_slot(key, &self.store_id, index, &slot))
    }

    fn write(&mut self, key: &SealingKey, index: u32, secret: &SlotSecret) -> Result<(), SlotError> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|_| SlotError::Randomness)?;
        self.grow_to(index)?;
        let slot = seal_slot(key, &self.store_id, index, salt, secret)?;
        self.file.write(offset(index), &slot)?;
        Ok(())
    }

    /// Grows the file by whole pages of 64 slots.
    fn grow_to(&mut self, index: u32) -> Result<(), SlotError> {
        if index < self.next {
            return Ok(());
        }
        let next = (index / 64 + 1) * 64;
        self.file.set_len(offset(next))?;
        self.free.extend((self.next..next).filter(|index| *index != ROOT));
        self.next = next;
        Ok(())
    }
}

/// Whether the file begins as a key file does, or with what a power cut leaves of that.
fn begins_as_ours(file: &dyn StorageBackend, length: u64) -> Result<bool, SlotError> {
    let mut start = [0; MAGIC.len()];
    let present = usize::try_from(length).unwrap_or(usize::MAX).min(start.len());
    if let Some(start) = start.get_mut(..present) {
        file.read(0, start)?;
    }
    Ok(start.iter().zip(MAGIC).all(|(found, expected)| *found == 0 || found == expected))
}

fn offset(index: u32) -> u64 {
    (u64::from(index) + 1) * SLOT_BYTES
}

/// The nonce is 64 fresh random bits and the index: one slot would have to be written billions of times to repeat it.
fn nonce(index: u32, salt: [u8; 8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (place, byte) in nonce.iter_mut().zip(salt.into_iter().chain(index.to_le_bytes())) {
        *place = byte;
    }
    nonce
}

fn seal_slot(
    key: &SealingKey,
    store: &StoreId,
    index: u32,
    salt: [u8; 8],
    secret: &SlotSecret,
) -> Result<Vec<u8>, SlotError> {
    let mut slot = salt.to_vec();
    slot.extend_from_slice(&secret.0);
    let body = slot.get_mut(8..).unwrap_or_default();
    let tag = Aes256Gcm::new(key.expose().into())
        .encrypt_inout_detached(&nonce(index, salt).into(), store, body.into())
        .map_err(|_| SlotError::Randomness)?;
    slot.extend_from_slice(&tag);
    Ok(slot)
}

fn open_slot(key: &SealingKey, store: &StoreId, index: u32, slot: &[u8; SLOT_USED]) -> Option<SlotSecret> {
    let (salt, rest) = slot.split_first_chunk::<8>()?;
    let (body, tag) = rest.split_first_chunk::<32>()?;
    let tag: &[u8; 16] = tag.try_into().ok()?;
    let mut secret = SlotSecret(*body);
    Aes256Gcm::new(key.expose().into())
        .decrypt_inout_detached(
            &nonce(index, *salt).into(),
            store,
            secret.0.as_mut_slice().into(),
            tag.into(),
        )
        .ok()?;
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKey;
    use redb::backends::InMemoryBackend;
    use std::sync::Arc;

    #[derive(Debug, Clone, Default)]
    struct Shared(Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write(offset, data)
        }
    }

    impl Shared {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = vec![0; usize::try_from(self.len().unwrap()).unwrap()];
            self.read(0, &mut bytes).unwrap();
            bytes
        }
    }

    fn open(file: &Shared) -> (KeySlots, SealingKey) {
        let slots = KeySlots::open(Box::new(file.clone()), file.len().unwrap() == 0).unwrap();
        let key = SealingKey::for_slots(&MasterKey::from_bytes([9; 32]), slots.store_id());
        (slots, key)
    }

    #[test]
    fn a_secret_reads_back_after_reopening() {
        let file = Shared::default();
        let (mut slots, key) = open(&file);
        let fresh = slots.allocate(&key, 3).unwrap();
        let (mut slots, key) = open(&file);
        for (slot, secret) in &fresh {
            assert_eq!(slots.load(&key, *slot).unwrap().unwrap().0, secret.0);
        }
    }

    #[test]
    fn an_overwritten_or_destroyed_secret_is_nowhere_in_the_file() {
        let file = Shared::default();
        let (mut slots, key) = open(&file);
        let fresh = slots.allocate(&key, 2).unwrap();
        let (kept, gone) = (fresh[0].0, fresh[1].0);
        let old_secret = fresh[0].1.0;
        let before = file.bytes();
        slots.destroy(&[gone]).unwrap();
        slots.write_fresh(&key, &[kept]).unwrap();
        let after = file.bytes();
        assert_ne!(slots.load(&key, kept).unwrap().unwrap().0, old_secret);
        assert!(slots.load(&key, gone).unwrap().is_none());
        for slot in [kept, gone] {
            let start = usize::try_from(offset(slot)).unwrap();
            let old = &before[start + 8..start + SLOT_USED];
            assert!(!after.windows(old.len()).any(|window| window == old));
        }
    }

    #[test]
    fn a_slot_in_use_is_never_given_out_and_a_destroyed_one_is_given_out_again() {
        let file = Shared::default();
        let (mut slots, key) = open(&file);
        let mut given: BTreeSet<u32> = BTreeSet::new();
        for count in [1, 63, 64, 65, 200] {
            for (slot, _) in slots.allocate(&key, count).unwrap() {
                assert!(slot != ROOT && given.insert(slot), "slot {slot} is given out twice");
            }
        }
        let gone: Vec<u32> = given.iter().copied().filter(|slot| slot % 3 == 0).collect();
        slots.destroy(&gone).unwrap();
        let length = file.len().unwrap();
        let again: BTreeSet<u32> =
            slots.allocate(&key, gone.len()).unwrap().into_iter().map(|(slot, _)| slot).collect();
        assert_eq!(again, gone.into_iter().collect());
        assert_eq!(file.len().unwrap(), length, "the file grows though there is room");
        // After a restart, what nobody claims becomes free, and only that.
        let (mut slots, key) = open(&file);
        slots.load(&key, 1).unwrap().unwrap();
        slots.destroy_unclaimed().unwrap();
        assert!(slots.allocate(&key, given.len()).unwrap().iter().all(|(slot, _)| *slot > 1));
    }

    #[test]
    fn a_torn_slot_is_a_destroyed_secret_and_harms_no_neighbour() {
        let file = Shared::default();
        let (mut slots, key) = open(&file);
        let fresh = slots.allocate(&key, 2).unwrap();
        for torn in 0..SLOT_USED {
            let copy = Shared::default();
            copy.set_len(file.len().unwrap()).unwrap();
            copy.write(0, &file.bytes()).unwrap();
            let start = offset(fresh[0].0) + u64::try_from(torn).unwrap();
            copy.write(start, &vec![0xA5; SLOT_USED - torn]).unwrap();
            let (mut slots, key) = open(&copy);
            assert!(slots.load(&key, fresh[0].0).unwrap().is_none());
            assert!(slots.load(&key, fresh[1].0).unwrap().is_some());
        }
    }

    #[test]
    fn secrets_nobody_claims_are_destroyed() {
        let file = Shared::default();
        let (mut slots, key) = open(&file);
        let fresh = slots.allocate(&key, 2).unwrap();
        let (mut slots, key) = open(&file);
        slots.load(&key, fresh[0].0).unwrap().unwrap();
        slots.destroy_unclaimed().unwrap();
        assert!(slots.load(&key, fresh[0].0).unwrap().is_some());
        assert!(slots.load(&key, fresh[1].0).unwrap().is_none());
    }

    #[test]
    fn a_header_cut_off_in_a_new_store_is_written_again_and_never_in_an_old_one() {
        for present in [0, 1, 8, 11] {
            let file = Shared::default();
            file.set_len(64).unwrap();
            file.write(0, &b"OBOLKEYS\x02\0\0\0"[..present]).unwrap();
            assert_eq!(KeySlots::open(Box::new(file.clone()), false).is_err(), present < 9);
            assert!(KeySlots::open(Box::new(file.clone()), true).is_ok());
        }
        let foreign = Shared::default();
        foreign.set_len(20).unwrap();
        foreign.write(0, b"dear diary, today I ").unwrap();
        assert!(matches!(KeySlots::open(Box::new(foreign), true), Err(SlotError::NotAKeyFile)));
    }

    #[test]
    fn a_new_store_has_a_new_id_and_takes_over_no_slots() {
        let file = Shared::default();
        let first = *KeySlots::open(Box::new(file.clone()), true).unwrap().store_id();
        let (mut slots, key) = {
            let slots = KeySlots::open(Box::new(file.clone()), true).unwrap();
            let key = SealingKey::for_slots(&MasterKey::from_bytes([9; 32]), slots.store_id());
            (slots, key)
        };
        assert_ne!(*slots.store_id(), first, "a header that was there already names no new store");
        let secret = slots.allocate(&key, 1).unwrap().pop().unwrap();
        let before = file.bytes();
        let refused = KeySlots::open(Box::new(file.clone()), true).unwrap_err();
        assert!(matches!(refused, SlotError::WithoutDatabase), "{refused}");
        slots.destroy(&[secret.0]).unwrap();
        let destroyed = KeySlots::open(Box::new(file.clone()), true).unwrap_err();
        assert!(matches!(destroyed, SlotError::WithoutDatabase), "also where all of them were destroyed");
        assert_eq!(before.len(), file.bytes().len());
        assert!(matches!(KeySlots::open(Box::new(Shared::default()), false), Err(SlotError::Empty)));
    }

    #[test]
    fn a_foreign_file_and_a_newer_version_are_refused() {
        let file = Shared::default();
        file.set_len(64).unwrap();
        file.write(0, b"SQLite format 3\0").unwrap();
        assert!(matches!(KeySlots::open(Box::new(file), false), Err(SlotError::NotAKeyFile)));
        let file = Shared::default();
        open(&file);
        file.write(8, &99_u32.to_le_bytes()).unwrap();
        assert!(matches!(KeySlots::open(Box::new(file), false), Err(SlotError::Version(99))));
    }
}
