//! A socket that is another user's: the same command, as whoever may use it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use obol_client::ConnectError;
use obol_ipc::DAEMON_USER_VARIABLE;

use crate::exit::{Exit, Failure};
use crate::output::quote;

/// Why there is no connection; where another user could have made it, with the command to give. `variable` names the
/// socket.
pub(crate) fn unconnected(error: ConnectError, variable: &str) -> Failure {
    let (path, uid) = match &error {
        ConnectError::NotAllowed { path, uid } => (path, *uid),
        ConnectError::ForeignSocket { path, uid } | ConnectError::ForeignPeer { path, uid } => {
            (path, Some(*uid))
        }
        _ => return error.into(),
    };
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| quote(&String::from_utf8_lossy(argument.as_bytes()))).collect();
    let root = rustix::process::geteuid().is_root();
    let command = same_as_operator(&arguments, root, variable, path, uid);
    Failure::new(Exit::Denied, format_args!("{error}; run: {command}"))
}

/// Root may use every sidecar, if it says whose it expects; the environment does not reach it through `sudo`.
fn same_as_operator(
    arguments: &[String],
    root: bool,
    variable: &str,
    path: &Path,
    uid: Option<u32>,
) -> String {
    let mut words = Vec::new();
    if !root {
        words.push("sudo env".to_owned());
    }
    words.push(format!("{variable}={}", quote(&format!("unix://{}", path.display()))));
    words.extend(uid.map(|uid| format!("{DAEMON_USER_VARIABLE}={uid}")));
    words.extend_from_slice(arguments);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_same_as_root() {
        let arguments = ["obol", "flush", "--all", "--reason", "'a drill'"].map(str::to_owned);
        let socket = Path::new("/run/obol/control.sock");
        assert_eq!(
            same_as_operator(&arguments, false, "OBOL_CONTROL_SOCKET", socket, Some(990)),
            "sudo env OBOL_CONTROL_SOCKET=unix:///run/obol/control.sock OBOL_ENDPOINT_USER=990 obol flush --all \
             --reason 'a drill'"
        );
        assert_eq!(
            same_as_operator(&arguments[..1], true, "OBOL_ENDPOINT_SOCKET", socket, None),
            "OBOL_ENDPOINT_SOCKET=unix:///run/obol/control.sock obol"
        );
    }
}
