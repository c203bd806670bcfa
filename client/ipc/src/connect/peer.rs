//! Who owns a socket and who is behind it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::ConnectError;

const ROOT: u32 = 0;

/// Whether `uid` may serve this process: its own effective user, or root, which could read its memory anyway.
fn is_trusted(uid: u32, own: u32) -> bool {
    uid == own || uid == ROOT
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes sure, before connecting, that what is at `path` is a socket of this user or root.
pub(super) fn check_socket(path: &Path) -> Result<(), ConnectError> {
    let metadata = fs::metadata(path).map_err(|error| from_system(path, error))?;
    if !metadata.file_type().is_socket() {
        return Err(ConnectError::NotASocket { path: path.to_owned() });
    }
    if !is_trusted(metadata.uid(), own_uid()) {
        return Err(ConnectError::ForeignSocket { path: path.to_owned(), uid: metadata.uid() });
    }
    Ok(())
}

/// Makes sure, before a byte is sent, that the process which listens at the other end runs as this user or root.
pub(super) fn check_peer(socket: &impl AsFd, path: &Path) -> Result<(), ConnectError> {
    let uid = peer_uid(socket).map_err(|error| from_system(path, error))?;
    if !is_trusted(uid, own_uid()) {
        return Err(ConnectError::ForeignPeer { path: path.to_owned(), uid });
    }
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer_uid(socket: &impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer_uid(_socket: &impl AsFd) -> io::Result<u32> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the user behind a socket cannot be told on this system"))
}

pub(super) fn from_system(path: &Path, error: io::Error) -> ConnectError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ConnectError::NoSocket { path },
        io::ErrorKind::ConnectionRefused => ConnectError::NotListening { path },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectError::NotAccepted { path },
        _ => ConnectError::System { path, cause: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn only_ones_own_user_and_root_are_trusted() {
        assert!(is_trusted(1_000, 1_000));
        assert!(is_trusted(0, 1_000));
        assert!(!is_trusted(1_001, 1_000));
        assert!(!is_trusted(1_000, 0));
    }

    #[test]
    fn ones_own_peer_is_recognised() {
        let (near, _far) = UnixStream::pair().unwrap();
        check_peer(&near, Path::new("/pair")).unwrap();
    }

    #[test]
    fn a_socket_of_another_user_is_not_connected_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        check_socket(&path).unwrap();
        // Only root can give a file away; elsewhere there is nothing to try this with.
        if chown(&path, Some(54_321), None).is_ok() {
            let error = check_socket(&path).unwrap_err();
            assert!(matches!(error, ConnectError::ForeignSocket { uid: 54_321, .. }), "{error}");
        }
    }

    #[test]
    fn what_is_no_socket_is_told_apart_from_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        assert!(matches!(check_socket(&path), Err(ConnectError::NoSocket { .. })));
        fs::write(&path, "").unwrap();
        assert!(matches!(check_socket(&path), Err(ConnectError::NotASocket { .. })));
    }
}
