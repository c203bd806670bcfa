//! A witness for the one bit that redb trusts blindly.
//!
//! redb keeps two commit slots; one bit in its header says which of them counts. After a two-phase commit redb does not
//! look at the other slot. If that bit flips after an unclean stop, redb opens the state before the last commit, and what
//! was claimed in that commit comes back. So the bit is written down a second time, in bytes of the header's page that
//! redb leaves alone: along with each header write, before the same sync, at no sync of its own.
//!
//! | the two | what it means | what happens |
//! |---|---|---|
//! | agree | nothing | redb opens the slot that the bit names |
//! | no witness | the database is being created, or older than the witness | the same |
//! | differ | a bit flipped, or the power failed between the two writes | redb is told that the last commit was not two-phase |
//!
//! In the last case redb opens the newer slot of the two, if all that hangs on it is whole, and otherwise the older one.
//! After a flipped bit the newer slot is the last commit. After a power cut it is a commit that nobody was told of, and
//! whose data were synced before either of the two was written; either slot would be right.

use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::io::Result;
use std::sync::Arc;

use redb::StorageBackend;

/// What redb's files begin with.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// Where the header keeps its flags, behind the magic.
const FLAGS: usize = MAGIC.len();
/// Which slot counts.
const PRIMARY: u8 = 1;
/// Whether redb may trust that blindly.
const TWO_PHASE: u8 = 4;
/// What redb writes of the header's page, and always as a whole.
const HEADER_BYTES: usize = 320;
/// Behind the header, in the same sector.
const WITNESS_AT: u64 = 320;
const WITNESS_BYTES: usize = 8;
/// What stands there for either slot.
const WITNESSES: [[u8; WITNESS_BYTES]; 2] = [[0x55; WITNESS_BYTES], [0xAA; WITNESS_BYTES]];
/// Nothing known of what stands there.
const UNKNOWN: u8 = 2;

/// Where in the file the witness stands.
pub(crate) const PLACE: Range<usize> = 320..320 + WITNESS_BYTES;

/// The database file, with the witness kept.
#[derive(Debug)]
pub(crate) struct Witnessed {
    file: Box<dyn StorageBackend>,
    /// Which slot the witness names, or [`UNKNOWN`].
    noted: AtomicU8,
    length: Arc<AtomicU64>,
}

impl Witnessed {
    /// Compares the witness in the file with the header.
    pub(crate) fn new(file: Box<dyn StorageBackend>) -> Result<Self> {
        if file.len()? >= WITNESS_AT + WITNESS_BYTES as u64 {
            let mut header = [0; FLAGS + 1];
            file.read(0, &mut header)?;
            let mut witness = [0; WITNESS_BYTES];
            file.read(WITNESS_AT, &mut witness)?;
            let [magic @ .., flags] = header;
            if magic == *MAGIC && flags & TWO_PHASE != 0 && contradicts(&witness, flags) {
                tracing::warn!("the database's header is in doubt; its newest whole state is used");
                file.write(FLAGS as u64, &[flags & !TWO_PHASE])?;
            }
        }
        let length = Arc::new(AtomicU64::new(file.len()?));
        Ok(Self { file, noted: AtomicU8::new(UNKNOWN), length })
    }

    /// How long the file is, in bytes, for as long as anybody wants to know.
    pub(crate) fn length(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.length)
    }

    fn note(&self, flags: u8) -> Result<()> {
        let slot = flags & PRIMARY;
        // redb writes its header from one thread at a time.
        if self.noted.load(Ordering::Relaxed) != slot {
            let [first, second] = &WITNESSES;
            self.file.write(WITNESS_AT, if slot == 0 { first } else { second })?;
            self.noted.store(slot, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn contradicts(witness: &[u8; WITNESS_BYTES], flags: u8) -> bool {
    let absent = *witness == [0; WITNESS_BYTES];
    !absent && WITNESSES.get(usize::from(flags & PRIMARY)) != Some(witness)
}

impl StorageBackend for Witnessed {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)?;
        self.length.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write(offset, data)?;
        match data.split_first_chunk::<{ MAGIC.len() }>() {
            Some((MAGIC, [flags, ..])) if offset == 0 => {
                if data.len() > HEADER_BYTES {
                    // The witness was overwritten with the rest of the page.
                    self.noted.store(UNKNOWN, Ordering::Relaxed);
                }
                self.note(*flags)
            }
            _ => Ok(()),
        }
    }

    fn close(&self) -> Result<()> {
        self.file.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase, TableDefinition};

    const TABLE: TableDefinition<u64, u64> = TableDefinition::new("numbers");

    #[derive(Debug, Clone, Default)]
    struct Memory(Arc<InMemoryBackend>);

    impl StorageBackend for Memory {
        fn len(&self) -> Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
            self.0.write(offset, data)
        }
    }

    fn open(file: &Memory) -> Database {
        let witnessed = Witnessed::new(Box::new(file.clone())).unwrap();
        Database::builder().set_check_integrity_on_open(true).create_with_backend(witnessed).unwrap()
    }

    fn put(db: &Database, number: u64) {
        let mut txn = db.begin_write().unwrap();
        txn.set_two_phase_commit(true);
        txn.open_table(TABLE).unwrap().insert(0, number).unwrap();
        txn.commit().unwrap();
    }

    fn get(db: &Database) -> u64 {
        db.begin_read().unwrap().open_table(TABLE).unwrap().get(0).unwrap().unwrap().value()
    }

    /// The file as a crash after some commits leaves it.
    fn crashed(commits: u64) -> Memory {
        let file = Memory::default();
        let db = open(&file);
        (1..=commits).for_each(|number| put(&db, number));
        let copy = Memory::default();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read(0, &mut bytes).unwrap();
        copy.set_len(bytes.len() as u64).unwrap();
        copy.write(0, &bytes).unwrap();
        copy
    }

    fn flip(file: &Memory, place: u64, bit: u8) {
        let mut byte = [0];
        file.read(place, &mut byte).unwrap();
        file.write(place, &[byte[0] ^ (1 << bit)]).unwrap();
    }

    #[test]
    fn a_flip_of_the_bit_or_of_its_witness_takes_no_commit_back() {
        for commits in [3, 4] {
            for place in (9..10).chain(WITNESS_AT..WITNESS_AT + WITNESS_BYTES as u64) {
                for bit in if place == 9 { 0..1 } else { 0..8 } {
                    let file = crashed(commits);
                    flip(&file, place, bit);
                    assert_eq!(get(&open(&file)), commits, "byte {place} bit {bit}");
                    // And what was mended stays so.
                    let db = open(&file);
                    put(&db, 99);
                    drop(db);
                    assert_eq!(get(&open(&file)), 99);
                }
            }
        }
    }

    #[test]
    fn without_the_witness_the_flip_takes_a_commit_back() {
        let file = crashed(3);
        file.write(WITNESS_AT, &[0; WITNESS_BYTES]).unwrap();
        flip(&file, 9, 0);
        assert_eq!(get(&open(&file)), 2, "redb guards the bit by now; the witness can go");
    }
}
