//! Where a log is, how large its files grow, and what somebody else remembers of it.

use core::fmt;
use core::str::FromStr;
use std::path::PathBuf;

/// Where a log is, and how large its files grow.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub(crate) path: PathBuf,
    pub(crate) head: PathBuf,
    pub(crate) max_file_bytes: u64,
    pub(crate) known: Option<ChainMark>,
}

/// A chain, and how many lines of it were durable at some time. Kept elsewhere, it shows later that a log was taken away
/// together with its head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainMark {
    pub(crate) chain: String,
    pub(crate) lines: u64,
}

const MARK_PREFIX: &str = "obol-audit 1";

impl ChainMark {
    /// The name of the chain.
    pub fn chain(&self) -> &str {
        &self.chain
    }
}

impl fmt::Display for ChainMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK_PREFIX} {} {}", self.chain, self.lines)
    }
}

/// The text is not a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAMark;

impl fmt::Display for NotAMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a mark of an audit log")
    }
}

impl core::error::Error for NotAMark {}

impl FromStr for ChainMark {
    type Err = NotAMark;

    fn from_str(text: &str) -> Result<Self, NotAMark> {
        let words = text.strip_prefix(MARK_PREFIX).and_then(|rest| rest.strip_prefix(' ')).ok_or(NotAMark)?;
        let (chain, lines) = words.split_once(' ').ok_or(NotAMark)?;
        Ok(Self { chain: chain.to_owned(), lines: lines.parse().map_err(|_| NotAMark)? })
    }
}

/// A file that has grown to this many bytes is closed and the next one begun.
const DEFAULT_MAX_FILE_BYTES: u64 = 64 << 20;

impl LogOptions {
    /// A log in `path`. How far it has got is kept in `head`, which should lie where the log's readers cannot write.
    pub fn new(path: impl Into<PathBuf>, head: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), head: head.into(), max_file_bytes: DEFAULT_MAX_FILE_BYTES, known: None }
    }

    /// What somebody else remembers of this log. Lines that it knows of and that are gone are noted like those that the
    /// head knows of.
    #[must_use]
    pub fn known(mut self, mark: Option<ChainMark>) -> Self {
        self.known = mark;
        self
    }

    /// The size at which a file is closed, in bytes; 64 MiB if not said. Full files are never removed.
    #[must_use]
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }
}
