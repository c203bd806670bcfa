//! The file a resource server reads its sessions from.

use core::fmt;
use std::path::Path;

use obol_secret::file::{PrivateFile, PrivateFileError};
use obol_session::limits::MAX_LIST_BYTES;
use obol_session::{DocumentError, ResourceHalf};

use crate::session::Session;

/// Why a session file was not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionFileError {
    /// The file is not one of ours alone, too long, or cannot be read.
    File(PrivateFileError),
    /// What it says is wrong.
    Document(std::path::PathBuf, DocumentError),
}

impl fmt::Display for SessionFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "the sessions cannot be read: {error}"),
            Self::Document(path, error) => write!(f, "session file {}: {error}", path.display()),
        }
    }
}

impl core::error::Error for SessionFileError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Document(_, error) => Some(error),
        }
    }
}

/// Reads the halves in `path`.
///
/// # Errors
///
/// [`SessionFileError`].
pub fn read_session_halves(path: &Path) -> Result<Vec<ResourceHalf>, SessionFileError> {
    let json = PrivateFile::read(path, MAX_LIST_BYTES).map_err(SessionFileError::File)?;
    ResourceHalf::list_from_json(&json).map_err(|error| SessionFileError::Document(path.to_owned(), error))
}

/// Reads the sessions in `path`.
///
/// # Errors
///
/// [`SessionFileError`].
pub fn read_session_file(path: &Path) -> Result<Vec<Session>, SessionFileError> {
    let halves = read_session_halves(path)?;
    let sessions = halves.iter().map(Session::from_half).collect::<Result<_, _>>();
    sessions.map_err(|error| SessionFileError::Document(path.to_owned(), error))
}

/// Reads sessions from the contents of a session file.
///
/// # Errors
///
/// [`DocumentError`].
pub fn parse_sessions(json: &[u8]) -> Result<Vec<Session>, DocumentError> {
    ResourceHalf::list_from_json(json)?.iter().map(Session::from_half).collect()
}
