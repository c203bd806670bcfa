//! Why a directory was not opened, in words that say what to do.

use core::fmt;
use std::path::PathBuf;

use obol_secret::file::PrivateFileError;

/// Why a directory was not opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirectoryOpenError {
    /// The file cannot be used.
    File(PrivateFileError),
    /// The file is damaged, sealed under another key, or belongs to something else.
    NotOurs(PathBuf, String),
    /// The file is older than the one that was last written: what was ended since would live again.
    PutBack(PathBuf, String),
    /// The file was to be taken though it is older, and it is not.
    NotPutBack(PathBuf),
}

impl fmt::Display for DirectoryOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "the directory: {error}"),
            Self::NotOurs(path, why) => write!(
                f,
                "the directory {} was not opened: {why}. Moving it away starts over: every agent registers again",
                path.display()
            ),
            Self::PutBack(path, why) => write!(
                f,
                "the directory {} was put back from a copy: {why}. Agents, keys and tools that were ended since would live again. \
                 Put the newest directory and its witness back; or start once with --accept-rollback, which ends every session and \
                 suspends every agent",
                path.display()
            ),
            Self::NotPutBack(path) => write!(
                f,
                "--accept-rollback: the directory {} is the one that was last written. Start without it",
                path.display()
            ),
        }
    }
}

impl core::error::Error for DirectoryOpenError {}
