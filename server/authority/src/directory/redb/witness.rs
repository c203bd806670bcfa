//! How many commits a directory has seen, in a small file of its own: a directory that was put back from a copy knows of fewer.
//!
//! The file is written after each commit and never synced, so it may lag behind after a power cut, and is never ahead. Two places
//! take turns, so that one is whole whenever the process ends.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use obol_secret::file::{PrivateFile, PrivateFileError, sync_folder};
use obol_secret::seal;
use zeroize::Zeroizing;

use crate::directory::tables::{Kept, Unavailable};

/// What the key is derived for that the count is sealed under.
pub(super) const PURPOSE: &str = "obol-authority-witness-v1";
const CONTEXT: &[u8] = b"obol-authority-commits-v1";
/// Bytes of a sealed count: nonce, number, tag.
const SEALED_BYTES: usize = 12 + 8 + 16;
const PLACES: usize = 2;

/// The open file.
pub(super) struct Witness {
    file: File,
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Saw {
    /// There was no file, or an empty one.
    Nothing,
    /// So many commits.
    Commits(u64),
    /// Something that was not written under this key.
    Foreign,
}

impl Witness {
    /// Opens the file, or makes it, and says what it holds.
    pub(super) fn open(path: &Path, key: Zeroizing<[u8; 32]>) -> Result<(Self, Saw), PrivateFileError> {
        let witness = Self { file: PrivateFile::open(path)?.into_file(), path: path.to_owned(), key };
        let saw = witness.read();
        Ok((witness, saw))
    }

    fn read(&self) -> Saw {
        let mut held = [0; SEALED_BYTES * PLACES];
        let read = self.file.read_at(&mut held, 0).unwrap_or(held.len());
        let counts = held.as_chunks::<SEALED_BYTES>().0.iter().filter_map(|sealed| {
            let count = seal::open(&self.key, CONTEXT, sealed)?;
            count.as_slice().try_into().ok().map(u64::from_be_bytes)
        });
        match counts.max() {
            Some(count) => Saw::Commits(count),
            None if read == 0 => Saw::Nothing,
            None => Saw::Foreign,
        }
    }

    /// Begins with so many, durably, whatever it saw before.
    pub(super) fn begin(&self, commits: u64) -> Kept<()> {
        let failed = |error: std::io::Error| self.failed(&error);
        self.file.set_len(0).map_err(failed)?;
        self.note(commits)?;
        self.file.sync_all().and_then(|()| sync_folder(&self.path)).map_err(failed)
    }

    /// Notes that so many commits are durable.
    pub(super) fn note(&self, commits: u64) -> Kept<()> {
        let sealed = seal::seal(&self.key, CONTEXT, &commits.to_be_bytes()).map_err(Unavailable::new)?;
        let place = if commits.is_multiple_of(2) { 0 } else { SEALED_BYTES as u64 };
        self.file.write_all_at(&sealed, place).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Unavailable {
        Unavailable::new(format_args!("{}: {error}", self.path.display()))
    }
}

impl core::fmt::Debug for Witness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Witness({})", self.path.display())
    }
}
