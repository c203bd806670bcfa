//! Changing a file that is there, and finding the files of a folder.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::place::{Place, Rule};
use super::{Fault, PrivateFile, PrivateFileError, in_time, read_whole, sync_folder};
use crate::wipe::Wiped;

/// Puts what `change` makes of a file's contents, at most `limit` bytes, in their place: whole and durably, or not at all.
/// Whoever changes the same file at the same time is refused.
///
/// # Errors
///
/// [`PrivateFileError`] where the file is not there, does not pass the rule for files that are written, is longer, or is
/// being changed by another process; and what `change` says. The file is as it was then.
pub fn change<E: From<PrivateFileError>>(
    path: &Path,
    limit: usize,
    change: impl FnOnce(&[u8]) -> Result<Wiped, E>,
) -> Result<(), E> {
    let failed = |fault| PrivateFileError::new(path, fault);
    let place = Place::named(path).map_err(failed)?;
    let held = place.open(OFlags::RDWR, Rule::Write).map_err(failed)?;
    let held = PrivateFile { file: held, path: path.to_owned() }.locked()?.into_file();
    let is_same = place.open(OFlags::RDONLY, Rule::Write).and_then(|now| same(&now, &held));
    if !is_same.map_err(failed)? {
        // Replaced between finding and locking it.
        return Err(failed(Fault::InUse).into());
    }
    let old = read_whole(held.try_clone().map_err(|error| failed(Fault::Io(error)))?, limit);
    let new = change(&old.map_err(failed)?)?;
    replace(path, &new).map_err(|error| failed(Fault::Io(error)))?;
    Ok(())
}

fn same(one: &File, other: &File) -> Result<bool, Fault> {
    let number = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let of = |file: &File| file.metadata().map(number).map_err(Fault::Io);
    Ok(of(one)? == of(other)?)
}

/// Writes another file, and gives it this one's name. To be called by who has locked this one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".changed");
    let next = path.with_file_name(name);
    // Left behind by a change that was cut short: nobody else has the lock.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = PrivateFile::create(&next)?.into_file();
    let replaced = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&next, path))
        .and_then(|()| sync_folder(path));
    if replaced.is_err() {
        let _gone_or_renamed = std::fs::remove_file(&next);
    }
    replaced
}

/// The files in a folder whose names end with `ending`, in the order of their names, at most `most` of them; `None` where
/// the path leads to something else than a folder, or to nothing. What begins with a dot is left out: it is somebody's
/// half-written file, or the folder that a link leads to. Whether the files pass the rule is found when they are read.
///
/// # Errors
///
/// [`PrivateFileError`] where the folder cannot be read in time, or there are more.
pub fn files_in(folder: &Path, ending: &str, most: usize) -> Result<Option<Vec<PathBuf>>, PrivateFileError> {
    let ending = ending.to_owned();
    in_time(folder, move |folder| {
        match std::fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => {}
            _ => return Ok(None),
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Fault::Io)? {
            let name = entry.map_err(Fault::Io)?.file_name();
            let bytes = name.as_bytes();
            if bytes.starts_with(b".") || !bytes.ends_with(ending.as_bytes()) {
                continue;
            }
            if found.len() == most {
                return Err(Fault::TooMany(most));
            }
            found.push(folder.join(name));
        }
        found.sort();
        Ok(Some(found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn private(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (folder, path)
    }

    fn append(path: &Path, more: &str) -> Result<(), PrivateFileError> {
        change(path, 100, |old| Ok(Wiped::new([old, more.as_bytes()].concat())))
    }

    #[test]
    fn a_change_replaces_the_file_whole_and_leaves_nothing_else() {
        let (folder, path) = private("a");
        // Held open, so that its number is not given to another.
        let before = File::open(&path).unwrap();
        fs::write(folder.path().join(".list.json.changed"), "half of a change").unwrap();
        append(&path, "b").unwrap();
        append(&path, "c").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_ne!(
            metadata.ino(),
            before.metadata().unwrap().ino(),
            "a reader sees the old file or the new one"
        );
        assert_eq!(io::read_to_string(before).unwrap(), "a");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_changed_stays_as_it_was() {
        let (folder, path) = private("a");
        let missing = append(&folder.path().join("none"), "b").unwrap_err();
        assert!(missing.is_missing());
        let refused = change(&path, 100, |_| Err(PrivateFileError::new(&path, Fault::Changing))).unwrap_err();
        assert!(matches!(refused.fault(), Fault::Changing));
        assert!(matches!(change(&path, 0, |_| unreachable()).unwrap_err().fault(), Fault::TooLong(0)));
        let held = PrivateFile::open(&path).unwrap().locked().unwrap();
        assert!(matches!(append(&path, "b").unwrap_err().fault(), Fault::InUse));
        drop(held);
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(append(&link, "b").unwrap_err().fault(), Fault::Link));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(append(&path, "b").unwrap_err().fault(), Fault::Mode { .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a");
    }

    fn unreachable() -> Result<Wiped, PrivateFileError> {
        panic!("a file that is too long is not shown")
    }

    #[test]
    fn a_folders_files_are_found_by_their_ending_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", ".c.json", "d.txt", "json", "e.json.changed"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |most| {
            files_in(folder.path(), ".json", most).map(|found| {
                found
                    .unwrap()
                    .iter()
                    .map(|path| path.strip_prefix(&folder).unwrap().to_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(2).unwrap(), [Path::new("a.json"), Path::new("b.json")]);
        assert!(matches!(names(1).unwrap_err().fault(), Fault::TooMany(1)));
        assert!(files_in(&folder.path().join("d.txt"), ".json", 2).unwrap().is_none());
        assert!(files_in(&folder.path().join("nowhere"), ".json", 2).unwrap().is_none());
    }
}
