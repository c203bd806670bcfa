//! Binding a socket that is ours alone, or ours and the agents', and telling who connects.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use obol_ipc::Endpoint;
use obol_probe::contract::{Address, BindCause, BindError};
use obol_secret::file::{Fault, PrivateFile};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::{UnixListener, UnixStream};

use crate::access::{Access, Modes};
use crate::owner::Owner;

/// What nobody but the owner may do in a socket's folder, whomever it is for: see what is in it, and change that.
const FOR_THE_OWNER: u32 = 0o066;

/// A bound socket. Its file goes away when it is dropped, unless somebody has put another there.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    endpoint: Endpoint,
    access: Access,
    ownership: Ownership,
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// Somebody the socket is for.
    Served(Owner),
    /// Somebody else.
    Stranger(u32),
}

/// What ties a socket to its path.
#[derive(Debug)]
enum Ownership {
    /// We made it.
    Own {
        identity: (u64, u64),
        /// Held as long as the socket is ours; the kernel gives it back when the process ends, however it ends.
        _lock: PrivateFile,
    },
    /// Another process made it and handed it over, such as systemd; it also looks after it.
    Inherited,
}

/// What became of a socket's path.
#[derive(Debug)]
pub(crate) enum PathState {
    /// It leads to our socket.
    Intact,
    /// It led nowhere; there is a new socket now.
    Restored,
    /// It leads elsewhere, or nowhere, and we could not put it right.
    Lost(BindError),
}

impl Listener {
    /// Binds a socket for these users. Its folder is created if it is not there.
    ///
    /// A lock file beside the socket decides who may: only its holder removes a dead socket and binds a new one, so two
    /// daemons that start at once cannot take each other's.
    ///
    /// # Errors
    ///
    /// [`BindError`] if another daemon serves the socket, something else is in its place, or its folder is open to others.
    pub fn bind(endpoint: &Endpoint, access: Access) -> Result<Self, BindError> {
        let path = endpoint.path();
        let io = |error| failed(path, BindCause::Io(error));
        let modes = access.modes();
        make_folder(path, modes)?;
        let lock = lock(path)?;
        remove_dead_socket(path)?;
        let inner = with_mode(modes.socket, || UnixListener::bind(path)).map_err(io)?;
        let identity = identity(path).map_err(io)?;
        Ok(Self {
            inner,
            endpoint: endpoint.clone(),
            access,
            ownership: Ownership::Own { identity, _lock: lock },
        })
    }

    /// Takes over a socket that another process has bound and listens on, such as systemd. The peer's user is checked
    /// at every connection all the same; folder and socket are that process's care. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// If the socket has no path, or cannot be listened on.
    pub fn inherit(socket: std::os::unix::net::UnixListener, access: Access) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let path = address
            .as_pathname()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket has no path"))?;
        let endpoint = Endpoint::at(path).map_err(io::Error::other)?;
        socket.set_nonblocking(true)?;
        Ok(Self { inner: UnixListener::from_std(socket)?, endpoint, access, ownership: Ownership::Inherited })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.endpoint.path()
    }

    /// Whom it is for.
    pub(crate) const fn access(&self) -> &Access {
        &self.access
    }

    /// The next connection, and whose it is. One whose user the kernel does not tell is an error.
    pub(crate) async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.inner.accept().await?;
        let peer = stream.peer_cred()?;
        let is_served = self.access.admits(peer.uid(), peer.gid());
        Ok((stream, if is_served { Peer::Served(Owner::of(&peer)) } else { Peer::Stranger(peer.uid()) }))
    }

    /// Sees whether the path still leads here. A path that leads nowhere gets a new socket; one that leads to somebody
    /// else's is left alone.
    pub(crate) fn look_after(&mut self) -> PathState {
        let Ownership::Own { identity: ours, .. } = &self.ownership else { return PathState::Intact };
        match identity(self.path()) {
            Ok(found) if found == *ours => PathState::Intact,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.bind_again() {
                Ok(()) => PathState::Restored,
                Err(error) => PathState::Lost(error),
            },
            Ok(_) => PathState::Lost(failed(self.path(), BindCause::InUse)),
            Err(error) => PathState::Lost(failed(self.path(), BindCause::Io(error))),
        }
    }

    fn bind_again(&mut self) -> Result<(), BindError> {
        // The lock may have gone with the socket; then whoever takes the new one first may bind.
        let lock_is_there = fs::symlink_metadata(lock_path(self.path())).is_ok();
        if lock_is_there && let Ownership::Own { _lock, .. } = &self.ownership {
            _lock.unlock().map_err(|error| failed(self.path(), BindCause::Lock(error.into())))?;
        }
        *self = Self::bind(&self.endpoint, self.access.clone())?;
        Ok(())
    }
}

fn failed(path: &Path, cause: BindCause) -> BindError {
    BindError::new(Address::Unix(path.to_owned()), cause)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Ownership::Own { identity: ours, .. } = &self.ownership else { return };
        if identity(self.path()).is_ok_and(|found| found == *ours) {
            let _already_gone = fs::remove_file(self.path());
        }
    }
}

/// Makes something whose mode is exactly this, whatever the mask of the process. The mask does it and not a later change,
/// because nobody may come in between, and because the sandbox lets no mode be changed. For a moment the mask holds for
/// other threads as well; they give the modes of their own files.
fn with_mode<T>(mode: u32, make: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(!mode & 0o777));
    let made = make();
    rustix::process::umask(before);
    made
}

/// Makes the folder, or sees that the one which is there is as it must be. That one is not changed: its owner may have
/// had a reason.
fn make_folder(socket: &Path, modes: Modes) -> Result<(), BindError> {
    let folder = folder_of(socket);
    let io = |error| failed(folder, BindCause::Io(error));
    let wrong = || {
        let (path, mode) = (folder.display(), modes.folder);
        let group = modes.group.map_or(String::new(), |group| format!("chgrp {group} {path} && "));
        let command = format!("{group}chmod {mode:o} {path}");
        let cause = BindCause::Folder { folder: folder.to_owned(), is_shared: mode != 0o700, command };
        failed(socket, cause)
    };
    if let Some(above) = folder.parent() {
        let create = || DirBuilder::new().recursive(true).create(above);
        with_mode(modes.folder & 0o711, create).map_err(io)?;
    }
    match with_mode(modes.folder & 0o777, || fs::create_dir(folder)) {
        Ok(()) => give_to_group(folder, modes).map_err(io)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let metadata = fs::metadata(folder).map_err(io)?;
    let ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    let (mode, for_the_owner) = (metadata.mode(), FOR_THE_OWNER | (!modes.folder & 0o077));
    let lets_them_through = match modes.group {
        Some(group) => metadata.gid() == group && mode & modes.folder == modes.folder,
        None => mode & modes.folder & 0o011 == modes.folder & 0o011,
    };
    if ours && mode & for_the_owner == 0 && lets_them_through { Ok(()) } else { Err(wrong()) }
}

/// Of a folder that was just made. Only who is in a group can give it something.
fn give_to_group(folder: &Path, modes: Modes) -> io::Result<()> {
    let Some(group) = modes.group else { return Ok(()) };
    std::os::unix::fs::chown(folder, None, Some(group)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("this process's user is not in group {group}; add it (`usermod -aG`), or name users"),
        ),
        _ => error,
    })?;
    fs::set_permissions(folder, fs::Permissions::from_mode(modes.folder))
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

fn lock(socket: &Path) -> Result<PrivateFile, BindError> {
    PrivateFile::lock(lock_path(socket)).map_err(|error| match error.fault() {
        Fault::InUse => failed(socket, BindCause::InUse),
        _ => failed(socket, BindCause::Lock(error.into())),
    })
}

/// Removes a socket that nobody serves. We hold the lock, so nobody of our kind is about to.
fn remove_dead_socket(path: &Path) -> Result<(), BindError> {
    let io = |error| failed(path, BindCause::Io(error));
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(io)?,
    };
    if !metadata.file_type().is_socket() {
        return Err(failed(path, BindCause::NotASocket));
    }
    match knock(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(io),
        // One that takes no connection now still has somebody behind it.
        Ok(()) | Err(Errno::AGAIN) => Err(failed(path, BindCause::InUse)),
        Err(error) => Err(io(error.into())),
    }
}

/// Connects to a socket, without waiting for room in its queue: who never accepts would keep us for ever.
fn knock(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}
