//! Opening a store: what an earlier process left behind, and what of it may still be used.
//!
//! | what is found | what it means | what happens |
//! |---|---|---|
//! | database cut off before redb signed it, key file empty | its creation did not end | it is cleared; a fresh store |
//! | database blank, key file without slots | creation did not end, or the files are new | a fresh store, with a new id |
//! | database blank, key file with slots | the database is gone, and with it what was flushed | refused |
//! | key file empty, database not blank | the key file is gone | refused |
//! | root slot does not open | a flush of all was torn | a fresh root; every session counts as flushed |
//! | session row does not open | its slot or the root was destroyed | the session counts as flushed |
//! | partition slot does not open | a flush of its tool was torn | a fresh secret; its batches are given up |
//! | batch of no known partition | its session is gone | the row is removed in the background |
//! | the clock is behind the latest time noted | the age of what waits is unknown | all of it is given up |

use core::sync::atomic::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use obol_secret::file::{Fault, PrivateFile};
use obol_session::AgentHalf;
use obol_session::clock::Clock;
use obol_token::SessionId;
use redb::backends::FileBackend;
use redb::{ReadableTable, StorageBackend};

use crate::clock::Timeline;
use crate::error::StoreOpenError;
use crate::grant::Grant;
use crate::identity::Identity;
use crate::jobs::{Chore, MAX_CLAIMS, MAX_JOBS};
use crate::keys::{FORMAT_VERSION, KeySlots, Keys, MasterKey, ROOT, SealingKey, SlotError, SlotSecret};
use crate::partition::{LiveKey, Partition, PartitionKey};
use crate::session::Session;
use crate::shared::{Settings, Shared, SharedParts};
use crate::source::TokenSource;
use crate::store::values::{self, Values};
use crate::store::{
    self, BatchHeader, BatchKey, CompactWhen, Contents, LockedStore, Policy, SealedSession, SessionHeader,
    Store, StoreError, Witnessed,
};
use crate::threads::{Opener, Writer};

/// The two files of a store.
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    pub(crate) database: Box<dyn StorageBackend>,
    pub(crate) keys: Box<dyn StorageBackend>,
}

impl Files {
    /// Opens or creates `path` and, beside it, `path.keys`.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreOpenError> {
        let mut keys = path.as_os_str().to_owned();
        keys.push(".keys");
        Ok(Self { path: path.to_owned(), database: backend(path)?, keys: backend(Path::new(&keys))? })
    }
}

/// Opens a file of ours, or creates it, and keeps other processes out; redb locks the database in the same way.
fn backend(path: &Path) -> Result<Box<dyn StorageBackend>, StoreOpenError> {
    let file =
        PrivateFile::open(path).and_then(PrivateFile::locked).map_err(|error| match error.fault() {
            Fault::InUse => StoreOpenError::InUse(path.to_owned()),
            _ => StoreOpenError::File(error),
        })?;
    let backend = FileBackend::new(file.into_file())
        .map_err(|error| StoreOpenError::Corrupted(path.to_owned(), error.to_string()))?;
    Ok(Box::new(backend))
}

/// A store that has been opened and checked, and what its threads run.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) opener: Opener,
}

/// Opens a store and recovers what an earlier process left.
pub(crate) fn open(
    files: Files,
    master: MasterKey,
    settings: Settings,
    clock: Box<dyn Clock>,
    source: Box<dyn TokenSource>,
) -> Result<Opened, StoreOpenError> {
    let path = files.path.clone();
    let failed = |error| store_error(&path, error);
    let (mut store, keys) = open_files(files, master)?;
    let contents = store.contents().map_err(failed)?;
    store.compact(CompactWhen::Opening).map_err(failed)?;
    let Memory { latest_time, boots, next_partition, policy, note } =
        store.read(Memory::read).map_err(failed)?;
    let (timeline, behind) = Timeline::resume(clock, latest_time);
    let (boot, saved_time) = (boots + 1, timeline.latest());
    first_commit(&store, boot, saved_time).map_err(failed)?;

    let (jobs, to_do) = crossbeam::channel::bounded(MAX_JOBS);
    let (claims, to_open) = crossbeam::channel::bounded(MAX_CLAIMS);
    let parts = SharedParts { settings, source, timeline, keys, policy, note, boot, next_partition, jobs };
    let shared = Arc::new(Shared::new(parts));
    recover_sessions(&shared, &contents, behind).map_err(|error| slot_error(&path, error))?;
    let opener = Opener { shared: Arc::clone(&shared), claims: to_open };
    let last_compaction = Instant::now();
    let writer =
        Writer { shared: Arc::clone(&shared), store, jobs: to_do, claims, saved_time, last_compaction };
    Ok(Opened { shared, writer, opener })
}

/// Opens both files, and refuses what is not ours before anything is changed.
fn open_files(files: Files, master: MasterKey) -> Result<(Store, Keys), StoreOpenError> {
    let path = files.path;
    let failed = |error| store_error(&path, error);
    clear_unfinished(files.database.as_ref(), files.keys.as_ref()).map_err(failed)?;
    let database = Witnessed::new(files.database).map_err(|error| failed(error.into()))?;
    let locked = LockedStore::open(database).map_err(failed)?;
    let is_new = locked.is_blank().map_err(failed)?;
    let slots = KeySlots::open(files.keys, is_new).map_err(|error| slot_error(&path, error))?;
    let store = unlock(&path, locked, &slots, &master, is_new)?;
    let keys = open_keys(slots, master, is_new).map_err(|error| slot_error(&path, error))?;
    Ok((store, keys))
}

/// The keys of the store, with a fresh root where there is none.
fn open_keys(mut slots: KeySlots, master: MasterKey, is_new: bool) -> Result<Keys, SlotError> {
    let slots_key = SealingKey::for_slots(&master, slots.store_id());
    let root = match slots.load(&slots_key, ROOT)? {
        Some(root) if !is_new => root,
        _ => fresh_secret(&mut slots, &slots_key, ROOT)?,
    };
    Ok(Keys::new(master, slots_key, slots, root))
}

/// Notes that the store was opened once more, before anything is numbered by it.
fn first_commit(store: &Store, boot: u64, latest_time: u64) -> Result<(), StoreError> {
    let ((), _committed) = store.commit(|tables| {
        tables.values.raise(values::BOOTS, boot)?;
        tables.values.put(values::LATEST_TIME, &latest_time.to_be_bytes())
    })?;
    Ok(())
}

/// Brings back the sessions there were, and clears away what belongs to none.
fn recover_sessions(shared: &Arc<Shared>, contents: &Contents, behind: bool) -> Result<(), SlotError> {
    let mut recovery = Recovery { shared, batches: HashMap::new(), behind };
    recovery.count_batches(contents);
    for (id, row) in &contents.sessions {
        recovery.session(SessionId::from_u64(*id), row)?;
    }
    recovery.finish(contents)
}

/// Empties a database whose creation a power cut ended before redb had signed it.
fn clear_unfinished(database: &dyn StorageBackend, keys: &dyn StorageBackend) -> Result<(), StoreError> {
    // The key file comes after the database, so without it nothing was ever promised on this one.
    if keys.len()? == 0 && store::is_unfinished(database)? {
        store::clear(database)?;
    }
    Ok(())
}

/// Refuses a foreign or newer database, another's key file, and a wrong master key, before anything is changed.
fn unlock(
    path: &Path,
    locked: LockedStore,
    slots: &KeySlots,
    master: &MasterKey,
    is_new: bool,
) -> Result<Store, StoreOpenError> {
    let failed = |error| store_error(path, error);
    let key = SealingKey::for_values(master, slots.store_id());
    if is_new {
        let store = locked.unlock(key);
        store.begin(slots.store_id()).map_err(failed)?;
        return Ok(store);
    }
    locked.check_format().map_err(failed)?;
    if !locked.is_of(slots.store_id()).map_err(failed)? {
        return Err(StoreOpenError::Mismatch(path.to_owned()));
    }
    let store = locked.unlock(key);
    if !store.opens().map_err(failed)? {
        return Err(StoreOpenError::WrongMasterKey(path.to_owned()));
    }
    Ok(store)
}

/// What the last process left in single values.
struct Memory {
    latest_time: u64,
    boots: u64,
    next_partition: u64,
    policy: Policy,
    note: Vec<u8>,
}

impl Memory {
    fn read<T: ReadableTable<&'static str, &'static [u8]>>(
        values: &Values<'_, T>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            latest_time: values.number(values::LATEST_TIME)?,
            boots: values.count(values::BOOTS)?,
            next_partition: values.count(values::NEXT_PARTITION)?,
            policy: values.policy()?,
            note: values.get(values::NOTE)?.to_vec(),
        })
    }
}

struct Recovery<'a> {
    shared: &'a Arc<Shared>,
    /// Batches on disk, for each partition.
    batches: HashMap<u64, Vec<(BatchKey, BatchHeader)>>,
    behind: bool,
}

impl Recovery<'_> {
    fn count_batches(&mut self, contents: &Contents) {
        if self.behind {
            tracing::warn!(
                "the clock is behind the time the store was last used; all waiting tokens are given up"
            );
            return;
        }
        for (key, header) in &contents.batches {
            self.batches.entry(key.partition).or_default().push((*key, *header));
        }
    }

    fn session(&mut self, id: SessionId, row: &[u8]) -> Result<(), SlotError> {
        let Some((header, sealed)) = SessionHeader::split(row) else {
            self.shared.chore(Chore::Forget { session: id });
            return Ok(());
        };
        self.shared.next.order.fetch_max(header.order + 1, Ordering::SeqCst);
        let opened = if header.is_flushed { None } else { self.open(id, header, sealed)? };
        let session = match opened {
            Some(session) => session,
            None => self.flushed(id, header),
        };
        self.adopt(Arc::new(session));
        Ok(())
    }

    /// A session whose keys are there.
    fn open(
        &mut self,
        id: SessionId,
        header: SessionHeader,
        sealed: &[u8],
    ) -> Result<Option<Session>, SlotError> {
        let shared = self.shared;
        let mut slots = shared.keys.slots.lock();
        let Some(secret) = slots.peek(&shared.keys.slots_key, header.slot)? else { return Ok(None) };
        let root = shared.keys.root.read();
        let key = shared.keys.of_session(&root, &secret, id.as_u64());
        let Some(SealedSession { places, document }) = header.open(id, &key, sealed) else { return Ok(None) };
        let Ok(document) = AgentHalf::from_json(&document) else { return Ok(None) };
        slots.claim(header.slot);

        let identity = Identity {
            id,
            agent_instance_id: document.agent.agent_instance_id.clone(),
            suite: document.suite,
            established_at: document.established_at,
            expires_at: document.expires_at,
            policy_epoch: document.policy_epoch,
            lease_secs: document.lease_secs,
            order: header.order,
            slot: header.slot,
        };
        let mut partitions = Vec::with_capacity(places.len());
        let (ahead, per_call) = Grant::of(&document);
        for (place, grant) in places.iter().zip(ahead) {
            let own = match slots.load(&shared.keys.slots_key, place.slot)? {
                Some(own) => own,
                None => fresh_secret(&mut slots, &shared.keys.slots_key, place.slot)?,
            };
            let key = shared.keys.of_partition(&root, &secret, &own, place.id);
            let floor = if self.behind { shared.next.sequence.load(Ordering::SeqCst) } else { 0 };
            let key = PartitionKey { key: Some(Arc::new(key)), slot: place.slot, floor };
            let stored = self.alive(place.id, &key.live());
            let partition = Partition::new(place.id, &identity, grant, shared.settings.min_life, key);
            partition.count.stored.store(stored, Ordering::Relaxed);
            partitions.push(Arc::new(partition));
        }
        Ok(Some(Session::new(identity, partitions, per_call, true)))
    }

    /// Counts the tokens of a partition that are of use. The others were flushed, or are of an older policy, and the crash
    /// came before their rows were cleared away.
    fn alive(&self, partition: u64, live: &LiveKey) -> u64 {
        let min_policy_epoch = self.shared.policy.min_epoch.load(Ordering::SeqCst);
        let rows = || self.batches.get(&partition).into_iter().flatten();
        let dead = rows().filter(|(key, header)| live.has_given_up(*key, *header, min_policy_epoch));
        let below = dead.map(|(key, _)| key.sequence + 1).max().unwrap_or(0);
        if below > 0 {
            self.shared.chore(Chore::Discard { partition, below });
        }
        let alive = rows().filter(|(key, _)| key.sequence >= below);
        alive.map(|(_, header)| u64::from(header.count)).sum()
    }

    /// A session that was flushed, now or before; only its number is known any more.
    fn flushed(&self, id: SessionId, header: SessionHeader) -> Session {
        if !header.is_flushed {
            self.shared.chore(Chore::Tombstone { session: id, row: header.tombstone() });
        }
        let identity = Identity {
            id,
            agent_instance_id: String::new(),
            suite: obol_token::Suite::Tbac,
            established_at: 0,
            expires_at: header.expires_at,
            policy_epoch: 0,
            lease_secs: None,
            order: header.order,
            slot: header.slot,
        };
        Session::new(identity, Vec::new(), Vec::new(), false)
    }

    fn adopt(&self, session: Arc<Session>) {
        let policy = self.shared.policy.kept.lock();
        for partition in &session.partitions {
            partition.set_denied(policy.denies(partition.tool()));
        }
        drop(policy);
        self.shared.sessions.all.write().insert(session.id, session);
    }

    /// Clears away what belongs to nobody, and sees which session draws use.
    fn finish(&self, contents: &Contents) -> Result<(), SlotError> {
        self.shared.elect();
        self.shared.keys.slots.lock().destroy_unclaimed()?;
        let mut known = BTreeSet::new();
        self.shared.for_each_partition(|partition| {
            known.insert(partition.id);
        });
        let found: BTreeSet<u64> = contents.batches.iter().map(|(key, _)| key.partition).collect();
        for partition in found {
            let orphan = !known.contains(&partition);
            if orphan || self.behind {
                let below = if orphan { u64::MAX } else { self.shared.next.sequence.load(Ordering::SeqCst) };
                self.shared.chore(Chore::Discard { partition, below });
            }
        }
        Ok(())
    }
}

fn fresh_secret(slots: &mut KeySlots, key: &SealingKey, index: u32) -> Result<SlotSecret, SlotError> {
    let mut fresh = slots.write_fresh(key, &[index])?;
    fresh.pop().map(|(_, secret)| secret).ok_or(SlotError::NotAKeyFile)
}

fn store_error(path: &Path, error: StoreError) -> StoreOpenError {
    let path = path.to_owned();
    match error {
        StoreError::InUse => StoreOpenError::InUse(path),
        StoreError::NotAStore => StoreOpenError::NotAStore(path),
        StoreError::Version(found) => StoreOpenError::Version { path, found, supported: FORMAT_VERSION },
        StoreError::Corrupted(what) | StoreError::Other(what) => StoreOpenError::Corrupted(path, what),
        StoreError::Io(error) => StoreOpenError::Io(path, error),
    }
}

fn slot_error(path: &Path, error: SlotError) -> StoreOpenError {
    let mut keys = path.as_os_str().to_owned();
    keys.push(".keys");
    let keys = PathBuf::from(keys);
    match error {
        SlotError::Io(error) => StoreOpenError::Io(keys, error),
        SlotError::NotAKeyFile => StoreOpenError::Mismatch(path.to_owned()),
        SlotError::Empty => StoreOpenError::HalfGone { gone: keys, left: path.to_owned() },
        SlotError::WithoutDatabase => StoreOpenError::HalfGone { gone: path.to_owned(), left: keys },
        SlotError::Version(found) => StoreOpenError::Version { path: keys, found, supported: FORMAT_VERSION },
        SlotError::Randomness => StoreOpenError::Randomness,
    }
}
