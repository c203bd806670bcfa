//! The log's files: `NAME` is being written, `NAME.000001`, `NAME.000002`, … are full.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The name a full file gets.
pub(crate) fn full(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    name.into()
}

/// The full files, in order of their numbers.
pub(crate) fn all_full(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let digits = file_name
            .to_str()
            .and_then(|file| file.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix('.'));
        if let Some(digits) =
            digits.filter(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()))
            && let Ok(number) = digits.parse()
        {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads at most `limit` bytes from the end of a file; tells where they begin.
pub(crate) fn read_tail(file: &File, limit: u64) -> io::Result<(u64, Vec<u8>)> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(limit);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;
    Ok((start, bytes))
}

/// Whether `path` still names this open file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let here = file.metadata().map(identity).ok();
    here.is_some() && fs::symlink_metadata(path).map(identity).ok() == here
}
