//! Binding a socket that is ours alone, and telling who connects.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use obol_ipc::Endpoint;
use tokio::net::{UnixListener, UnixStream};

/// Why a socket could not be bound. Nothing that was there before was touched.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The folder, the lock or the socket could not be created.
    Io(PathBuf, io::Error),
    /// The folder is open to others, or belongs to somebody else.
    Folder(PathBuf),
    /// A daemon serves this socket already.
    InUse(PathBuf),
    /// Something else than a socket stands in its place.
    NotASocket(PathBuf),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot listen on {}: {error}", path.display()),
            Self::Folder(path) => write!(
                f,
                "the folder {} must belong to you and be closed to others; run `chmod 700 {}`, or name another",
                path.display(),
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{} is served by another process; stop that one, or name another socket",
                path.display()
            ),
            Self::NotASocket(path) => {
                write!(f, "{} is not a socket; move it away, or name another path", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {}

/// A bound socket. Its file goes away when it is dropped, unless somebody has put another there.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    endpoint: Endpoint,
    place: Place,
}

/// What ties a socket to its path.
#[derive(Debug)]
enum Place {
    /// We made it.
    Own {
        identity: (u64, u64),
        /// Held as long as the socket is ours; the kernel gives it back when the process ends, however it ends.
        _lock: File,
    },
    /// Another process made it and handed it over, such as systemd; it also looks after it.
    Inherited,
}

/// What became of a socket's path.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It leads to our socket.
    Intact,
    /// It led nowhere; there is a new socket now.
    Restored,
    /// It leads elsewhere, or nowhere, and we could not put it right.
    Lost(BindError),
}

impl Listener {
    /// Binds a socket. Its folder is created with mode 0700 if it is not there.
    ///
    /// A lock file beside the socket decides who may: only its holder removes a dead socket and binds a new one, so two
    /// daemons that start at once cannot take each other's.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        let path = endpoint.path();
        let io = |error| BindError::Io(path.to_owned(), error);
        make_private_folder(folder_of(path))?;
        let lock = lock(path)?;
        remove_dead_socket(path)?;
        let inner = UnixListener::bind(path).map_err(io)?;
        // The folder is closed to others, so nobody came in between.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)?;
        let identity = identity(path).map_err(io)?;
        Ok(Self { inner, endpoint: endpoint.clone(), place: Place::Own { identity, _lock: lock } })
    }

    /// Takes over a socket that another process has bound and listens on, such as systemd. The peer's user is checked
    /// at every connection all the same; folder and socket are that process's care. Must be called inside a tokio
    /// runtime.
    pub fn inherit(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let path = address
            .as_pathname()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket has no path"))?;
        let endpoint = Endpoint::at(path).map_err(io::Error::other)?;
        socket.set_nonblocking(true)?;
        Ok(Self { inner: UnixListener::from_std(socket)?, endpoint, place: Place::Inherited })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.endpoint.path()
    }

    /// The next connection of our own user, and the user. Others are turned away without a word.
    pub(crate) async fn accept(&self) -> io::Result<(UnixStream, u32)> {
        loop {
            let (stream, _) = self.inner.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if is_own_user(peer.uid()) => return Ok((stream, peer.uid())),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "a connection of another user was refused"),
                Err(error) => tracing::warn!(%error, "a connection whose user is unknown was refused"),
            }
        }
    }

    /// Sees whether the path still leads here. A path that leads nowhere gets a new socket; one that leads to somebody
    /// else's is left alone.
    pub(crate) fn look_after(&mut self) -> Fate {
        let Place::Own { identity: ours, .. } = &self.place else { return Fate::Intact };
        match identity(self.path()) {
            Ok(found) if found == *ours => Fate::Intact,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.bind_again() {
                Ok(()) => Fate::Restored,
                Err(error) => Fate::Lost(error),
            },
            Ok(_) => Fate::Lost(BindError::InUse(self.path().to_owned())),
            Err(error) => Fate::Lost(BindError::Io(self.path().to_owned(), error)),
        }
    }

    fn bind_again(&mut self) -> Result<(), BindError> {
        // The lock may have gone with the socket; then whoever takes the new one first may bind.
        let lock_is_there = fs::symlink_metadata(lock_path(self.path())).is_ok();
        if lock_is_there && let Place::Own { _lock, .. } = &self.place {
            _lock.unlock().map_err(|error| BindError::Io(self.path().to_owned(), error))?;
        }
        *self = Self::bind(&self.endpoint)?;
        Ok(())
    }
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Root may connect to everybody's socket: it can read their memory anyway.
fn is_own_user(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() || uid == 0
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Place::Own { identity: ours, .. } = &self.place else { return };
        if identity(self.path()).is_ok_and(|found| found == *ours) {
            let _already_gone = fs::remove_file(self.path());
        }
    }
}

fn make_private_folder(folder: &Path) -> Result<(), BindError> {
    let io = |error| BindError::Io(folder.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let metadata = fs::metadata(folder).map_err(io)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if ours && metadata.mode() & 0o077 == 0 { Ok(()) } else { Err(BindError::Folder(folder.to_owned())) }
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

fn lock(socket: &Path) -> Result<File, BindError> {
    let path = lock_path(socket);
    let io = |error| BindError::Io(path.clone(), error);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BindError::InUse(socket.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Removes a socket that nobody serves. We hold the lock, so nobody of our kind is about to.
fn remove_dead_socket(path: &Path) -> Result<(), BindError> {
    let io = |error| BindError::Io(path.to_owned(), error);
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(io)?,
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io),
        Err(error) => Err(io(error)),
        Ok(_) => Err(BindError::InUse(path.to_owned())),
    }
}
