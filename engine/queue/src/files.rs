//! What every file of the queue has in common: private to us, and durable in its folder.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Mode of every file the queue creates.
pub(crate) const PRIVATE_MODE: u32 = 0o600;

/// Open flag that refuses a symbolic link in the last place of a path.
pub(crate) const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Whether this is a regular file that belongs to us and that nobody else may touch.
pub(crate) fn is_private(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    Ok(metadata.is_file() && ours && metadata.mode() & 0o077 == 0)
}

/// Makes a file's entry in its folder durable; a new file can otherwise vanish with a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Why a file that holds secrets was not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// It could not be read.
    Io(PathBuf, io::Error),
    /// It can be read or written by others, or belongs to somebody else.
    Permissions(PathBuf),
    /// It is longer than it may be, in bytes.
    TooLong(PathBuf, usize),
}

impl fmt::Display for PrivateFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Permissions(path) => write!(
                f,
                "{} holds keys and must be a regular file that belongs to you and is closed to others; check its \
                 owner and run `chmod 600 {}`",
                path.display(),
                path.display()
            ),
            Self::TooLong(path, limit) => write!(f, "{} is longer than {limit} bytes", path.display()),
        }
    }
}

impl core::error::Error for PrivateFileError {}

/// Reads a file that holds secrets: a regular file of ours that others cannot touch, of at most `limit` bytes.
pub fn read_private_file(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let io = |error| PrivateFileError::Io(path.to_owned(), error);
    let file = OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path).map_err(io)?;
    if !is_private(&file).map_err(io)? {
        return Err(PrivateFileError::Permissions(path.to_owned()));
    }
    // The whole space at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > limit {
        return Err(PrivateFileError::TooLong(path.to_owned(), limit));
    }
    Ok(bytes)
}
