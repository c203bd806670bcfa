//! Files that hold secrets, and files that decide about them. They are opened here and nowhere else, by one rule.
//!
//! | | written: stores, keys, logs | only read: sessions, passwords | credentials of the service manager |
//! |---|---|---|---|
//! | kind | a regular file with one name | the same | the same |
//! | owner | this process's user | the same, or root | the same, or root |
//! | mode | closed to group and others | the same; root's may be readable by a group of this process | closed to others |
//! | last part of the path | not a symbolic link | a link is followed | a link is followed |
//! | folder | belongs to the user or to root, and others cannot write there | the same, of the file that the link leads to | the same |
//!
//! A link to what is only read is followed because Kubernetes mounts secrets as links and swaps the folder behind them.
//! What was opened must pass the rule, not what was named. The folder is opened first and the file in it, so both are
//! what was checked, whatever is renamed meanwhile.
//!
//! Nothing here waits for another process: a FIFO is opened without blocking and refused, and reading a file ends after
//! two seconds, also when the network mount it lies on does not answer.

mod change;
mod error;
mod place;

use core::time::Duration;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rustix::fs::{CWD, OFlags};
use zeroize::Zeroizing;

pub use self::change::{change, files_in};
pub use self::error::{Fault, PrivateFileError};
pub use self::place::create_folder;
use self::place::{Place, Rule};

/// How long reading one file may take.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// How often a file is looked for again that vanished between finding and opening it: a folder was swapped.
const TRIES: usize = 3;

/// A file that passed the rule, and stays open.
#[derive(Debug)]
pub struct PrivateFile {
    file: File,
    path: PathBuf,
}

impl PrivateFile {
    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`PrivateFileError`] where the file does not pass the rule, is longer, or cannot be read in time.
    pub fn read(path: impl AsRef<Path>, limit: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
        read_by(Rule::Read, path.as_ref(), limit)
    }

    /// Opens a file that is only read, and too long to be read as a whole.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn open_to_read(path: impl AsRef<Path>) -> Result<Self, PrivateFileError> {
        let path = path.as_ref();
        let file = in_time(path, |path| open_to_read(path, Rule::Read))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Opens a file for reading and writing; creates it, durably, where it is not there.
    ///
    /// # Errors
    ///
    /// [`PrivateFileError`] where it does not pass the rule, or cannot be opened or created.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PrivateFileError> {
        Self::written(path.as_ref(), OFlags::RDWR | OFlags::CREATE)
    }

    /// As [`open`](Self::open); what is written goes to the end.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn append(path: impl AsRef<Path>) -> Result<Self, PrivateFileError> {
        Self::written(path.as_ref(), OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)
    }

    /// Creates a file, durably, for reading and writing at the end.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), and where anything of that name is there already.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, PrivateFileError> {
        Self::written(path.as_ref(), OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL)
    }

    /// Creates a file with these contents: whole and durably, or not at all, whenever the process is killed.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn create_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), PrivateFileError> {
        let path = path.as_ref();
        let made = Place::named(path).and_then(|place| place.create_whole(bytes));
        made.map_err(|fault| PrivateFileError::new(path, fault))
    }

    /// Opens or creates a file that holds nothing, and keeps other processes out as long as it is open: a lock. The kernel
    /// gives it back when the process ends, however it ends.
    ///
    /// # Errors
    ///
    /// [`Fault::InUse`] where another process has it; otherwise as for [`open`](Self::open).
    pub fn lock(path: impl AsRef<Path>) -> Result<Self, PrivateFileError> {
        let path = path.as_ref();
        let place = Place::named(path);
        let opened = place.and_then(|place| place.open(OFlags::RDWR | OFlags::CREATE, Rule::Write));
        let file = opened.map_err(|fault| PrivateFileError::new(path, fault))?;
        Self { file, path: path.to_owned() }.locked()
    }

    fn written(path: &Path, flags: OFlags) -> Result<Self, PrivateFileError> {
        let failed = |fault| PrivateFileError::new(path, fault);
        let place = Place::named(path).map_err(failed)?;
        let file = place.open(flags, Rule::Write).map_err(failed)?;
        // A new file can otherwise vanish with a power cut.
        place.sync_folder().map_err(|error| failed(Fault::Io(error)))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Keeps other processes out as long as the file is open.
    ///
    /// # Errors
    ///
    /// [`Fault::InUse`] where another process keeps us out.
    pub fn locked(self) -> Result<Self, PrivateFileError> {
        match self.file.try_lock() {
            Ok(()) => Ok(self),
            Err(TryLockError::WouldBlock) => Err(PrivateFileError::new(&self.path, Fault::InUse)),
            Err(TryLockError::Error(error)) => Err(PrivateFileError::new(&self.path, Fault::Io(error))),
        }
    }

    /// Lets other processes in again.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn unlock(&self) -> Result<(), PrivateFileError> {
        self.file.unlock().map_err(|error| PrivateFileError::new(&self.path, Fault::Io(error)))
    }

    /// The open file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Tells whether a file that is there would be read, without reading it.
    ///
    /// # Errors
    ///
    /// [`PrivateFileError`] as [`read`](Self::read) would give it.
    pub fn check_read(path: impl AsRef<Path>) -> Result<(), PrivateFileError> {
        in_time(path.as_ref(), |path| open_to_read(path, Rule::Read).map(drop))
    }

    /// Tells whether a file that is there would be written, without changing it.
    ///
    /// # Errors
    ///
    /// [`PrivateFileError`] as [`open`](Self::open) would give it.
    pub fn check_write(path: impl AsRef<Path>) -> Result<(), PrivateFileError> {
        in_time(path.as_ref(), |path| Place::named(path)?.open(OFlags::RDONLY, Rule::Write).map(drop))
    }
}

/// Reads a file that the service manager made for this service alone, of at most `limit` bytes.
///
/// # Errors
///
/// As for [`PrivateFile::read`].
pub fn read_credential(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    read_by(Rule::Credential, path, limit)
}

/// Reads a file that holds no secret, such as settings: a regular file of at most `limit` bytes, in time.
///
/// # Errors
///
/// As for [`PrivateFile::read`], except that anybody may own or read it.
pub fn read_public(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    read_by(Rule::Public, path, limit)
}

/// Reads a file that holds no secret and decides something, such as which calls are let through: as [`read_public`], and
/// others may not write it.
///
/// # Errors
///
/// As for [`read_public`], and [`Fault::OthersWrite`].
pub fn read_rules(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    read_by(Rule::Decides, path, limit)
}

/// Tells whether [`read_rules`] would read a file that is there, without reading it.
///
/// # Errors
///
/// As for [`read_rules`].
pub fn check_rules(path: &Path) -> Result<(), PrivateFileError> {
    in_time(path, |path| open_to_read(path, Rule::Decides).map(drop))
}

/// Opens a file that holds no secret and may be long, such as a log that somebody else checks: a regular file, in time.
///
/// # Errors
///
/// As for [`read_public`].
pub fn open_public(path: &Path) -> Result<File, PrivateFileError> {
    in_time(path, |path| open_to_read(path, Rule::Public))
}

/// Makes a file's entry in its folder durable.
///
/// # Errors
///
/// What the system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    place::sync_folder(CWD, place::folder_of(path))
}

/// The folders that a file's path is led through by links to their own contents. Whoever swaps such a link changes what
/// the path names, so whoever wants to read the file again needs these folders too.
pub fn folders_of_links(path: &Path) -> Vec<PathBuf> {
    let ancestors: Vec<&Path> = path.ancestors().filter(|part| part.file_name().is_some()).collect();
    let leads_inside = |link: &&&Path| {
        std::fs::read_link(link).is_ok_and(|target| {
            target.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        })
    };
    ancestors.iter().rev().filter(leads_inside).map(|link| place::folder_of(link).to_owned()).collect()
}

fn read_by(rule: Rule, path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    in_time(path, move |path| read_whole(open_to_read(path, rule)?, limit))
}

fn open_to_read(path: &Path, rule: Rule) -> Result<File, Fault> {
    let mut tries = 1;
    loop {
        // Fails where nothing is there, so what is missing after it was swapped away.
        let found = path.canonicalize().map_err(Fault::Io)?;
        let opened = Place::named(&found)
            .and_then(|place| place.open(OFlags::RDONLY, rule))
            .map_err(|fault| fault.reached_over(path, &found));
        match opened {
            Err(fault) if fault.is_missing() && tries < TRIES => tries += 1,
            opened => return opened,
        }
    }
}

fn read_whole(mut file: File, limit: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let length = usize::try_from(file.metadata().map_err(Fault::Io)?.len()).unwrap_or(usize::MAX);
    if length > limit {
        return Err(Fault::TooLong(limit));
    }
    // The whole space at once, and one byte to see that there is no more: growing would leave copies behind.
    let mut bytes = Zeroizing::new(vec![0; length.saturating_add(1)]);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => {
                bytes.truncate(filled);
                return Ok(bytes);
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Io(error)),
        }
    }
    Err(Fault::Changing)
}

/// Does something with a file that may take for ever, and waits for it for [`READ_PATIENCE`] at most. A thread that is
/// still stuck then is left behind; what it may still read is wiped.
fn in_time<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, Fault> + Send + 'static,
) -> Result<T, PrivateFileError> {
    let (done, result) = mpsc::sync_channel(1);
    let file = path.to_owned();
    let thread = std::thread::Builder::new()
        .name("obol-read".to_owned())
        .spawn(move || {
            let _nobody_waits_any_more = done.send(work(&file));
        })
        .map_err(|error| PrivateFileError::new(path, Fault::Io(error)))?;
    let done = result.recv_timeout(READ_PATIENCE).unwrap_or(Err(Fault::NoAnswer));
    if !matches!(done, Err(Fault::NoAnswer)) {
        // Sandboxes are entered while there is one thread.
        let _panicked = thread.join();
    }
    done.map_err(|fault| PrivateFileError::new(path, fault))
}

#[cfg(test)]
mod tests;
