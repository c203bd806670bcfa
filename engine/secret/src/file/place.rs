//! A file's place, and what the rule says about what is there.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups};

use super::error::{Fault, PrivateFileError};

const ROOT: u32 = 0;
/// Mode of every file that is created.
const PRIVATE_MODE: u32 = 0o600;
/// Mode of every folder that is created.
const PRIVATE_FOLDER_MODE: u32 = 0o700;

/// What a file is for, which decides what it must be like; the table is in the module above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// Written, by this process or another of its user.
    Write,
    /// Only read.
    Read,
    /// Only read, and made by the service manager.
    Credential,
    /// Only read, and no secret.
    Public,
    /// Only read, and no secret, but what it says is done.
    Decides,
}

impl Rule {
    fn keeps_a_secret(self) -> bool {
        !matches!(self, Self::Public | Self::Decides)
    }
}

/// A name in an open folder.
pub(super) struct Place<'a> {
    folder: File,
    folder_path: PathBuf,
    name: &'a OsStr,
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl<'a> Place<'a> {
    /// The place that a path names.
    pub(super) fn named(path: &'a Path) -> Result<Self, Fault> {
        let name = path.file_name().ok_or(Fault::Kind("a folder"))?;
        let folder_path = folder_of(path).to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            openat(CWD, &folder_path, flags, Mode::empty()).map_err(|error| Fault::Io(error.into()))?;
        Ok(Self { folder: folder.into(), folder_path, name })
    }

    /// Opens what is here, if it passes the rule.
    pub(super) fn open(&self, flags: OFlags, rule: Rule) -> Result<File, Fault> {
        if rule.keeps_a_secret() {
            let folder = Access::of(&self.folder.metadata().map_err(Fault::Io)?);
            check_folder(&self.folder_path, &folder, &Process::this())?;
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = openat(&self.folder, self.name, flags, Mode::from_raw_mode(PRIVATE_MODE));
        let file = File::from(opened.map_err(|error| match error {
            Errno::LOOP => Fault::Link,
            Errno::ISDIR => Fault::Kind("a folder"),
            Errno::NXIO => Fault::Kind("a socket or a device"),
            error => Fault::Io(error.into()),
        })?);
        let metadata = file.metadata().map_err(Fault::Io)?;
        check_kind(&metadata)?;
        if rule.keeps_a_secret() {
            check_names(&metadata)?;
            check_access(&Access::of(&metadata), &Process::this(), rule)?;
        }
        if rule == Rule::Decides && metadata.mode() & 0o022 != 0 {
            return Err(Fault::OthersWrite);
        }
        Ok(file)
    }

    /// Makes a file with these contents, where nothing of that name is: whole and durably, or not at all. It has no name until
    /// it is whole, so whoever is killed meanwhile leaves nothing.
    pub(super) fn create_whole(&self, bytes: &[u8]) -> Result<(), Fault> {
        let folder = Access::of(&self.folder.metadata().map_err(Fault::Io)?);
        check_folder(&self.folder_path, &folder, &Process::this())?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let made = match openat(&self.folder, ".", flags, Mode::from_raw_mode(PRIVATE_MODE)) {
            Ok(file) => self.name_whole(file.into(), bytes),
            Err(error) => Err(error.into()),
        };
        match made {
            // A file system that has no files without a name, or a system without /proc.
            Err(error) if is_unable(&error) => {
                let mut file = self.open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Rule::Write)?;
                file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Fault::Io)?;
            }
            made => made.map_err(Fault::Io)?,
        }
        self.sync_folder().map_err(Fault::Io)
    }

    fn name_whole(&self, mut file: File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        file.sync_all()?;
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, nameless, &self.folder, self.name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Makes the entry durable.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        sync_folder(&self.folder, Path::new("."))
    }
}

/// Creates a folder that is closed to others, and those above it that are not there. One that is there stays as it is, and
/// must be one that files with secrets may be in.
///
/// # Errors
///
/// [`PrivateFileError`] where it cannot be created, belongs to somebody else, or others can write in it.
pub fn create_folder(path: &Path) -> Result<(), PrivateFileError> {
    let made = || {
        DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER_MODE).create(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        File::from(openat(CWD, path, flags, Mode::empty())?).metadata()
    };
    made()
        .map_err(Fault::Io)
        .and_then(|metadata| check_folder(path, &Access::of(&metadata), &Process::this()))
        .map_err(|fault| PrivateFileError::new(path, fault))
}

/// Makes the entries of a folder durable. What is no folder is not waited for.
pub(super) fn sync_folder(above: impl AsFd, folder: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::from(openat(above, folder, flags, Mode::empty())?).sync_all()
}

fn is_unable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT))
}

fn check_kind(metadata: &Metadata) -> Result<(), Fault> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err(Fault::Kind("a folder"))
    } else if kind.is_fifo() {
        Err(Fault::Kind("a pipe (FIFO)"))
    } else {
        Err(Fault::Kind("a socket or a device"))
    }
}

/// Whoever has another name for a file keeps it when this one is replaced. None at all: it was just replaced.
fn check_names(metadata: &Metadata) -> Result<(), Fault> {
    if metadata.nlink() > 1 { Err(Fault::Names(metadata.nlink())) } else { Ok(()) }
}

/// Who may do what with a file or folder.
#[derive(Clone, Copy)]
struct Access {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Access {
    fn of(metadata: &Metadata) -> Self {
        Self { owner: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

/// As whom this process acts.
struct Process {
    user: u32,
    group: u32,
    groups: Vec<u32>,
}

impl Process {
    fn this() -> Self {
        let groups = getgroups().unwrap_or_default();
        Self {
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
            groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
        }
    }

    fn is_in(&self, group: u32) -> bool {
        self.group == group || self.groups.contains(&group)
    }

    /// Whether this is the group that many systems make for each user, with the user's number and nobody else in it.
    /// Where they do, the usual umask lets the group write.
    fn alone_is_in(&self, group: u32) -> bool {
        group != ROOT && group == self.group && group == self.user
    }
}

/// Whoever can write in the folder can put another file in the place of this one.
fn check_folder(path: &Path, folder: &Access, us: &Process) -> Result<(), Fault> {
    if folder.owner != ROOT && folder.owner != us.user {
        return Err(Fault::FolderOwner(path.to_owned(), folder.owner));
    }
    // In a sticky folder, as /tmp is, nobody can take away what belongs to another.
    let sticky = folder.mode & 0o1000 != 0;
    let group = folder.mode & 0o020 != 0 && !us.alone_is_in(folder.group);
    if (folder.mode & 0o002 != 0 || group) && !sticky {
        return Err(Fault::FolderMode(path.to_owned()));
    }
    Ok(())
}

fn check_access(file: &Access, us: &Process, rule: Rule) -> Result<(), Fault> {
    let ours = file.owner == us.user;
    if !ours && (file.owner != ROOT || rule == Rule::Write) {
        return Err(Fault::Owner(file.owner));
    }
    let allowed = match rule {
        Rule::Credential => 0o770,
        _ if ours => 0o700,
        _ if us.is_in(file.group) => 0o740,
        _ => 0o700,
    };
    let mode = file.mode & 0o777;
    if mode & !allowed != 0 { Err(Fault::Mode { mode, ours }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 1000;

    fn us() -> Process {
        Process { user: US, group: US, groups: vec![27] }
    }

    #[test]
    fn who_may_own_and_read_a_file_follows_the_table() {
        use Rule::{Credential, Read, Write};
        // Owner, group, mode; then whether it may be written, read, and a credential.
        for (owner, group, mode, [write, read, credential]) in [
            (US, US, 0o600, [true, true, true]),
            (US, US, 0o400, [true, true, true]),
            (US, US, 0o640, [false, false, true]),
            (US, US, 0o620, [false, false, true]),
            (US, US, 0o604, [false, false, false]),
            (US, US, 0o602, [false, false, false]),
            (ROOT, ROOT, 0o600, [false, true, true]),
            (ROOT, US, 0o440, [false, true, true]),
            (ROOT, 27, 0o640, [false, true, true]),
            (ROOT, ROOT, 0o640, [false, false, true]),
            (ROOT, US, 0o660, [false, false, true]),
            (ROOT, US, 0o644, [false, false, false]),
            (1001, US, 0o600, [false, false, false]),
            (1001, US, 0o640, [false, false, false]),
        ] {
            let file = Access { owner, group, mode };
            for (rule, expected) in [(Write, write), (Read, read), (Credential, credential)] {
                let checked = check_access(&file, &us(), rule);
                assert_eq!(checked.is_ok(), expected, "{owner} {group} {mode:o} {rule:?}: {checked:?}");
            }
        }
    }

    #[test]
    fn a_folder_where_others_can_write_is_refused() {
        for (owner, group, mode, expected) in [
            (US, US, 0o700, true),
            (US, 27, 0o755, true),
            (ROOT, ROOT, 0o755, true),
            (ROOT, ROOT, 0o1777, true),
            (US, US, 0o775, true),
            (US, 27, 0o775, false),
            (ROOT, ROOT, 0o775, false),
            (US, US, 0o777, false),
            (US, US, 0o702, false),
            (1001, US, 0o700, false),
        ] {
            let checked = check_folder(Path::new("folder"), &Access { owner, group, mode }, &us());
            assert_eq!(checked.is_ok(), expected, "{owner} {group} {mode:o}: {checked:?}");
        }
        let root = Process { user: ROOT, group: ROOT, groups: Vec::new() };
        let folder = Access { owner: ROOT, group: ROOT, mode: 0o775 };
        assert!(check_folder(Path::new("folder"), &folder, &root).is_err());
    }
}
