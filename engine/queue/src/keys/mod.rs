//! The keys that everything at rest is sealed under: the master key, and the secrets that a flush overwrites.

mod seal;
mod slots;

use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

pub(crate) use self::seal::{KeyId, NoRandomness, OVERHEAD_BYTES, SealingKey, SlotSecret, StoreId};
pub(crate) use self::slots::{FORMAT_VERSION, KeySlots, ROOT, SlotError};

obol_secret::key! {
    /// What everything at rest is sealed under.
    MasterKey
}

impl MasterKey {
    /// A key for one purpose outside the queue. It tells nothing about the master key nor about other purposes' keys.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        self.0.derive(purpose)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// The keys of an open store.
pub(crate) struct Keys {
    pub(crate) master: MasterKey,
    pub(crate) store_id: StoreId,
    /// What slots are sealed under.
    pub(crate) slots_key: SealingKey,
    pub(crate) slots: Mutex<KeySlots>,
    /// The secret that everything hangs on.
    pub(crate) root: RwLock<SlotSecret>,
}

impl Keys {
    pub(crate) fn new(master: MasterKey, slots_key: SealingKey, slots: KeySlots, root: SlotSecret) -> Self {
        let store_id = *slots.store_id();
        Self { master, store_id, slots_key, slots: Mutex::new(slots), root: RwLock::new(root) }
    }

    /// What a session's document is sealed under.
    pub(crate) fn of_session(&self, root: &SlotSecret, session: &SlotSecret, session_id: u64) -> SealingKey {
        SealingKey::for_session(&self.master, &self.store_id, root, session, session_id)
    }

    /// What the batches of a partition are sealed under.
    pub(crate) fn of_partition(
        &self,
        root: &SlotSecret,
        session: &SlotSecret,
        partition: &SlotSecret,
        partition_id: u64,
    ) -> SealingKey {
        SealingKey::for_batches(&self.store_id, root, session, partition, partition_id)
    }
}
