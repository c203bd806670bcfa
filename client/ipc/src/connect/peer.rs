//! Who owns a socket and who is behind it.
//!
//! Four users may serve a client: its own; root, which could read its memory anyway; the one that was named; and the one
//! whom root gave the socket's folder, as `/run/obol` is the sidecar's: where every folder above can be changed by root
//! alone, nobody else decided whose that folder is.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use obol_ipc::Endpoint;

use super::ConnectError;

const ROOT: u32 = 0;
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Only the owner of a file can remove it from such a folder.
const STICKY: u32 = 0o1000;

/// The users who may serve a client at one endpoint.
#[derive(Debug)]
pub(super) struct Trusted {
    own: u32,
    named: Option<u32>,
    keeper: Option<u32>,
}

impl Trusted {
    /// For this process and this endpoint.
    pub(super) fn at(endpoint: &Endpoint) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self { own, named: endpoint.user(), keeper: endpoint.path().parent().and_then(keeper) }
    }

    fn includes(&self, uid: u32) -> bool {
        uid == self.own || uid == ROOT || self.named == Some(uid) || self.keeper == Some(uid)
    }

    /// Makes sure, before connecting, that what is at `path` is a socket of somebody who is trusted.
    pub(super) fn check_socket(&self, path: &Path) -> Result<(), ConnectError> {
        let metadata = fs::metadata(path).map_err(|error| from_system(path, error))?;
        if !metadata.file_type().is_socket() {
            return Err(ConnectError::NotASocket { path: path.to_owned() });
        }
        if !self.includes(metadata.uid()) {
            return Err(ConnectError::ForeignSocket { path: path.to_owned(), uid: metadata.uid() });
        }
        Ok(())
    }

    /// Makes sure, before a byte is sent, that the process which listens at the other end runs as somebody who is trusted.
    pub(super) fn check_peer(&self, socket: &impl AsFd, path: &Path) -> Result<(), ConnectError> {
        let uid = peer_uid(socket).map_err(|error| from_system(path, error))?;
        if !self.includes(uid) {
            return Err(ConnectError::ForeignPeer { path: path.to_owned(), uid });
        }
        Ok(())
    }
}

/// The user whom root gave this folder. None where anybody but root could have put the folder there, and none for the
/// part of a path that leads elsewhere.
fn keeper(folder: &Path) -> Option<u32> {
    let metadata = fs::symlink_metadata(folder).ok().filter(fs::Metadata::is_dir)?;
    let named = std::path::absolute(folder).ok()?;
    let real = fs::canonicalize(folder).ok()?;
    (only_root_decides(&named) && only_root_decides(&real)).then(|| metadata.uid())
}

/// Whether every folder above this one belongs to root and can be changed by root alone. Higher up, folders in which
/// everybody has files of their own, such as `/tmp`, do no harm: what is root's there stays in its place.
fn only_root_decides(folder: &Path) -> bool {
    let is_roots = |(height, place): (usize, &Path)| {
        let Ok((entry, target)) =
            fs::symlink_metadata(place).and_then(|entry| Ok((entry, fs::metadata(place)?)))
        else {
            return false;
        };
        let closed = target.mode() & WRITABLE_BY_OTHERS == 0 || (height > 0 && target.mode() & STICKY != 0);
        entry.uid() == ROOT && target.uid() == ROOT && closed
    };
    folder.ancestors().skip(1).enumerate().all(is_roots)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer_uid(socket: &impl AsFd) -> io::Result<u32> {
    // Not rustix's: of a process in another container the system tells no number, and what is none there is read as an error.
    let peer = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(peer.uid())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer_uid(_socket: &impl AsFd) -> io::Result<u32> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system cannot tell which user is behind a socket"))
}

pub(super) fn from_system(path: &Path, error: io::Error) -> ConnectError {
    let owned = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ConnectError::NoSocket { path: owned },
        io::ErrorKind::ConnectionRefused => ConnectError::NotListening { path: owned },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectError::NotAccepted { path: owned },
        io::ErrorKind::PermissionDenied => {
            let seen = fs::metadata(path).or_else(|_| fs::metadata(path.parent().unwrap_or(path)));
            let uid = seen.ok().map(|metadata| metadata.uid());
            ConnectError::NotAllowed { path: owned, uid }
        }
        _ => ConnectError::System { path: owned, cause: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const OTHER: u32 = 54_321;

    fn trusted(own: u32, named: Option<u32>, keeper: Option<u32>) -> Trusted {
        Trusted { own, named, keeper }
    }

    fn check(path: &Path) -> Result<(), ConnectError> {
        Trusted::at(&Endpoint::at(path).unwrap()).check_socket(path)
    }

    #[test]
    fn ones_own_user_root_and_who_was_named_or_given_the_folder_are_trusted_and_nobody_else() {
        let alone = trusted(1_000, None, None);
        assert!(alone.includes(1_000) && alone.includes(0) && !alone.includes(1_001));
        assert!(!trusted(0, None, None).includes(1_000));
        assert!(trusted(1_000, Some(1_001), None).includes(1_001));
        assert!(trusted(1_000, None, Some(1_002)).includes(1_002));
        assert!(!trusted(1_000, Some(1_001), Some(1_002)).includes(1_003));
    }

    #[test]
    fn ones_own_peer_is_recognised() {
        let (near, _far) = UnixStream::pair().unwrap();
        Trusted::at(&Endpoint::at("/pair").unwrap()).check_peer(&near, Path::new("/pair")).unwrap();
    }

    #[test]
    fn a_socket_of_another_user_is_not_connected_to_unless_the_user_was_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        check(&path).unwrap();
        if chown(&path, Some(OTHER), None).is_err() {
            eprintln!("SKIPPED: only root can give a file away; run this test as root");
            return;
        }
        let error = check(&path).unwrap_err();
        assert!(matches!(error, ConnectError::ForeignSocket { uid: OTHER, .. }), "{error}");
        assert!(error.to_string().contains("OBOL_ENDPOINT_USER=54321"), "{error}");
        let named = Endpoint::at(&path).unwrap().of_user(OTHER);
        Trusted::at(&named).check_socket(&path).unwrap();
    }

    #[test]
    fn the_owner_of_a_folder_is_trusted_only_where_root_alone_could_put_it_there() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("obol");
        fs::create_dir(&folder).unwrap();
        if chown(&folder, Some(OTHER), None).is_err() {
            eprintln!("SKIPPED: only root can give a folder away; run this test as root");
            return;
        }
        assert_eq!(keeper(&folder), Some(OTHER));
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(above.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(keeper(&folder), None, "{mode:o}");
        }
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o700)).unwrap();
        chown(above.path(), Some(OTHER), None).unwrap();
        assert_eq!(keeper(&folder), None, "the folder above is not root's");
        chown(above.path(), Some(0), None).unwrap();
        assert_eq!(keeper(&folder), Some(OTHER));
    }

    #[test]
    fn a_link_that_somebody_else_laid_gives_its_target_no_trust() {
        let place = tempfile::tempdir().unwrap();
        let (homes, open) = (place.path().join("homes"), place.path().join("open"));
        fs::create_dir_all(homes.join("mallory")).unwrap();
        fs::create_dir(&open).unwrap();
        if chown(homes.join("mallory"), Some(OTHER), None).is_err() {
            eprintln!("SKIPPED: only root can give a folder away; run this test as root");
            return;
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        for (name, target) in [("all", homes.clone()), ("one", homes.join("mallory"))] {
            symlink(target, open.join(name)).unwrap();
            std::os::unix::fs::lchown(open.join(name), Some(OTHER), None).unwrap();
        }
        assert_eq!(keeper(&homes.join("mallory")), Some(OTHER), "the control: named by its own path");
        assert_eq!(keeper(&open.join("all/mallory")), None);
        assert_eq!(keeper(&open.join("one")), None);
    }

    #[test]
    fn what_is_no_socket_is_told_apart_from_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        assert!(matches!(check(&path), Err(ConnectError::NoSocket { .. })));
        fs::write(&path, "").unwrap();
        assert!(matches!(check(&path), Err(ConnectError::NotASocket { .. })));
    }
}
