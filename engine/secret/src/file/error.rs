//! Why a file was not opened: what is wrong with it, and what to do.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file that was not opened or read, and why.
#[derive(Debug)]
pub struct PrivateFileError {
    path: PathBuf,
    fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// What the system says.
    Io(io::Error),
    /// It is something else than a regular file.
    Kind(&'static str),
    /// It is written, and a symbolic link leads to it.
    Link,
    /// It belongs to this user.
    Owner(u32),
    /// Others may read or write it.
    Mode {
        /// Its mode.
        mode: u32,
        /// Whether it belongs to this process's user; otherwise to root.
        ours: bool,
    },
    /// It decides something, and others may write it.
    OthersWrite,
    /// It has so many names.
    Names(u64),
    /// Others can write in its folder.
    FolderMode(PathBuf),
    /// Its folder belongs to this user.
    FolderOwner(PathBuf, u32),
    /// It is longer than so many bytes.
    TooLong(usize),
    /// It is a folder with more than so many files.
    TooMany(usize),
    /// It grew while it was read.
    Changing,
    /// Another process has it open.
    InUse,
    /// It could not be read in time.
    NoAnswer,
    /// A symbolic link leads to this file, and something is wrong with it.
    Behind(PathBuf, Box<Fault>),
}

impl PrivateFileError {
    pub(crate) fn new(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), fault }
    }

    /// The file, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Whether there is nothing of this name.
    pub fn is_missing(&self) -> bool {
        self.fault.is_missing()
    }
}

impl Fault {
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Behind(_, fault) => fault.is_missing(),
            _ => false,
        }
    }

    /// Says which file is meant where a link led to it.
    pub(super) fn reached_over(self, named: &Path, found: &Path) -> Self {
        let is_link = std::fs::symlink_metadata(named).is_ok_and(|metadata| metadata.is_symlink());
        if is_link { Self::Behind(found.to_owned(), Box::new(self)) } else { self }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
        let file = path.display();
        match self {
            Self::Io(error) => write!(f, "cannot open {file}: {error}"),
            Self::Kind(kind) => write!(f, "{file} is {kind}; it must be a regular file"),
            Self::Link => write!(
                f,
                "{file} is a symbolic link, and what is written is not reached through one; name the file it leads to"
            ),
            Self::Owner(owner) => write!(
                f,
                "{file} belongs to user {owner} and must belong to you; run `chown` on it, or make one of your own"
            ),
            Self::Mode { mode, ours: true } => {
                write!(f, "{file} has mode {mode:03o} and must be closed to others; run `chmod 600 {file}`")
            }
            Self::Mode { mode, ours: false } => write!(
                f,
                "{file} belongs to root and has mode {mode:03o}; at most a group of this process may read it, and \
                 nobody else: run `chmod 640 {file}`, or 600 where the group is another"
            ),
            Self::OthersWrite => {
                write!(
                    f,
                    "others can write to {file}, which decides what is allowed; run `chmod go-w {file}`"
                )
            }
            Self::Names(names) => write!(
                f,
                "{file} has {names} names (hard links) and must have one; run `cp {file} {file}.new && mv \
                 {file}.new {file}`"
            ),
            Self::FolderMode(folder) if folder == path => {
                write!(f, "others can write in {file}, and so put their files there; run `chmod go-w {file}`")
            }
            Self::FolderMode(folder) => write!(
                f,
                "others can write in {}, and so put another file in the place of {file}; run `chmod go-w {}`",
                folder.display(),
                folder.display()
            ),
            Self::FolderOwner(folder, owner) if folder == path => write!(
                f,
                "the folder {file} belongs to user {owner}, who can put other files there; use a folder of your own"
            ),
            Self::FolderOwner(folder, owner) => write!(
                f,
                "the folder {} belongs to user {owner}, who can put another file in the place of {file}; use a \
                 folder of your own",
                folder.display()
            ),
            Self::TooLong(limit) => write!(f, "{file} is longer than {limit} bytes"),
            Self::TooMany(most) => {
                write!(f, "{file} holds more than {most} files; move those that are over to another folder")
            }
            Self::Changing => write!(f, "{file} grew while it was read; try again when it is complete"),
            Self::InUse => write!(f, "{file} is open in another process; stop that one"),
            Self::NoAnswer => write!(
                f,
                "{file} could not be read in {} s; is it on a network mount that does not answer?",
                super::READ_PATIENCE.as_secs()
            ),
            Self::Behind(found, fault) => {
                write!(f, "{file} leads to {}: ", found.display())?;
                fault.write(f, found)
            }
        }
    }
}

impl fmt::Display for PrivateFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.write(f, &self.path)
    }
}

impl core::error::Error for PrivateFileError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<PrivateFileError> for io::Error {
    fn from(error: PrivateFileError) -> Self {
        let kind = match error.fault {
            Fault::Io(error) => return error,
            Fault::NoAnswer => io::ErrorKind::TimedOut,
            Fault::TooLong(_) => io::ErrorKind::FileTooLarge,
            Fault::InUse => io::ErrorKind::ResourceBusy,
            _ => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}
