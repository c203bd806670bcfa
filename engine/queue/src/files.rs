//! What every file of the queue has in common: private to us, and durable in its folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
