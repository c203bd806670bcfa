//! How far the log had got, sealed, in a file of its own: what is missing from the log's end can be told by it.
//!
//! Two places of fixed size take turns, so that a write torn by a crash leaves the one before. The head is written after
//! what it speaks of is durable, so it never runs ahead of an honest log.
//!
//! A chain's head is begun, durably, before its first line is written: it then says that there is no line yet. So where
//! there are lines and no head, somebody took it away; no crash leaves that behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use obol_secret::file::{PrivateFile, PrivateFileError, read_public};
use obol_secret::text::{from_hex, to_hex};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::chain::{ChainKey, LineHash};

/// Bytes of one place; far more than a head needs, and no more than a disk writes at once.
const PLACE_BYTES: u64 = 512;
/// The longest file that is taken for a head, in bytes.
const MAX_FILE_BYTES: usize = 64 << 10;
const PURPOSE: &[u8] = b"obol audit head";

/// The last line that was durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) chain: String,
    /// The line's number; `None` where the chain has none yet.
    pub(crate) n: Option<u64>,
    pub(crate) hash: LineHash,
}

/// Stands for the number of the last line where there is none.
const NO_LINE: &str = "none";

impl Head {
    /// Of a chain without lines.
    pub(crate) fn begun(chain: String) -> Self {
        Self { chain, n: None, hash: LineHash::default() }
    }

    /// How many lines there were.
    pub(crate) fn lines(&self) -> u64 {
        self.n.map_or(0, |n| n.saturating_add(1))
    }

    fn text(&self) -> String {
        let n = self.n.map_or(NO_LINE.to_owned(), |n| n.to_string());
        format!("obol-audit-head 1 {} {n} {}", self.chain, to_hex(&self.hash))
    }

    fn sealed(&self, key: &ChainKey) -> String {
        let text = self.text();
        let tag = to_hex(&key.tag(PURPOSE, &Sha256::digest(&text)));
        format!("{text} {tag}\n")
    }

    fn parse(place: &[u8], key: &ChainKey) -> Option<Self> {
        let text = core::str::from_utf8(place.split(|byte| *byte == b'\n').next()?).ok()?;
        let (text, tag) = text.rsplit_once(' ')?;
        let expected = to_hex(&key.tag(PURPOSE, &Sha256::digest(text)));
        if !bool::from(expected.as_bytes().ct_eq(tag.as_bytes())) {
            return None;
        }
        let mut words = text.strip_prefix("obol-audit-head 1 ")?.split(' ');
        let head = Self {
            chain: words.next()?.to_owned(),
            n: match words.next()? {
                NO_LINE => None,
                number => Some(number.parse().ok()?),
            },
            hash: from_hex(words.next()?)?,
        };
        words.next().is_none().then_some(head)
    }
}

/// What the head file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// There is none.
    Absent,
    /// There is one, and nothing in it is sealed under this key.
    Unreadable,
    /// How far the log had got.
    Head(Head),
}

/// Reads the head in `path`.
pub(crate) fn read(path: &Path, key: &ChainKey) -> Result<Found, PrivateFileError> {
    // It holds no secret, and its seal says who wrote it: an auditor may have a copy of it.
    let bytes = match read_public(path, MAX_FILE_BYTES) {
        Err(error) if error.is_missing() => return Ok(Found::Absent),
        bytes => bytes?,
    };
    if bytes.is_empty() {
        return Ok(Found::Absent);
    }
    let place = usize::try_from(PLACE_BYTES).unwrap_or(usize::MAX);
    // Of two chains the higher number wins, so that a new one whose first write was torn does not hide what is missing
    // of the old one.
    let newest =
        bytes.chunks(place).take(2).filter_map(|place| Head::parse(place, key)).max_by_key(Head::lines);
    Ok(newest.map_or(Found::Unreadable, Found::Head))
}

/// Writes heads.
#[derive(Debug)]
pub(crate) struct HeadFile {
    file: File,
    turn: u64,
    /// Nothing was written yet: what stands there may be of another chain.
    fresh: bool,
}

impl HeadFile {
    pub(crate) fn open(path: &Path) -> Result<Self, PrivateFileError> {
        Ok(Self { file: PrivateFile::open(path)?.into_file(), turn: 0, fresh: true })
    }

    /// Writes a head. The first one of a process is written to both places, durably. Those after it are not synced: after a
    /// power cut an older one is found, which misses less and is never wrong.
    pub(crate) fn write(&mut self, head: &Head, key: &ChainKey) -> io::Result<()> {
        self.put(head, key)?;
        if self.fresh {
            self.put(head, key)?;
            self.file.sync_all()?;
            self.fresh = false;
        }
        Ok(())
    }

    fn put(&mut self, head: &Head, key: &ChainKey) -> io::Result<()> {
        let mut place = head.sealed(key).into_bytes();
        place.resize(usize::try_from(PLACE_BYTES).unwrap_or(0), b' ');
        self.file.write_all_at(&place, self.turn * PLACE_BYTES)?;
        self.turn ^= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(n: u64) -> Head {
        Head { chain: "ab".to_owned(), n: Some(n), hash: [3; 32] }
    }

    #[test]
    fn the_newest_whole_head_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let key = ChainKey::from_bytes([1; 32]);
        assert_eq!(read(&path, &key).unwrap(), Found::Absent);
        let mut file = HeadFile::open(&path).unwrap();
        let begun = Head::begun("ab".to_owned());
        file.write(&begun, &key).unwrap();
        assert_eq!((read(&path, &key).unwrap(), begun.lines()), (Found::Head(begun), 0));
        for n in 0..5 {
            file.write(&head(n), &key).unwrap();
            assert_eq!(read(&path, &key).unwrap(), Found::Head(head(n)));
        }
        // The place written last is torn: the one before it counts.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path, &key).unwrap(), Found::Head(head(3)));
        assert_eq!(read(&path, &ChainKey::from_bytes([2; 32])).unwrap(), Found::Unreadable);
    }
}
