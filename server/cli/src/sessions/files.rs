//! Files of sessions: named one by one, or all of a folder by the folder's name.
//!
//! A folder is looked through each time that its files are read, so a reload sees files that came and went. All files are
//! read before anything is done with one of them: where one is wrong, nothing changes.

use core::fmt::Display;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use obol_secret::file::{Fault, PrivateFile, PrivateFileError, files_in};
use obol_session::limits::{MAX_DOCUMENT_BYTES, MAX_LIST_BYTES};
use obol_session::{AgentHalf, ResourceHalf};
use obol_token::SessionId;
use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};

/// The most files that are read.
const MAX_FILES: usize = 1_024;
/// How the names of those files end that are read of a folder.
const ENDING: &str = ".json";

/// The files: those that are named, and every `*.json` of the folders that are.
fn find(named: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        match files_in(path, ENDING, MAX_FILES).map_err(unread)? {
            Some(inside) => files.extend(inside),
            None => files.push(path.clone()),
        }
    }
    if files.len() > MAX_FILES {
        let count = files.len();
        return Err(Failure::usage(format_args!(
            "{count} session files are named, but at most {MAX_FILES} can be read; put several sessions into one file"
        )));
    }
    Ok(files)
}

/// Fails where a file or folder is on a mount that does not answer: the way into the sandbox, which looks for it, would end
/// there. What else may be wrong with it is said when it is read.
pub(crate) fn answer(named: &[PathBuf]) -> Outcome {
    let is_silent = |error: &PrivateFileError| matches!(error.fault(), Fault::NoAnswer);
    for path in named {
        let silent = match files_in(path, ENDING, MAX_FILES) {
            Ok(None) => PrivateFile::check_read(path).err(),
            found => found.err(),
        };
        if let Some(error) = silent.filter(is_silent) {
            return Err(unread(error));
        }
    }
    Ok(())
}

/// The resource server's halves in all of them.
pub(crate) fn resource_halves(named: &[PathBuf]) -> Outcome<Vec<ResourceHalf>> {
    let (mut halves, mut listed) = (Vec::new(), HashMap::<SessionId, PathBuf>::new());
    read_all(named, MAX_LIST_BYTES, |file, text| {
        for half in ResourceHalf::list_from_json(text).map_err(|error| wrong(file, &error))? {
            if let Some(other) = listed.insert(half.session_id, file.to_owned()) {
                let (id, other) = (half.session_id, other.display());
                return Err(wrong(
                    file,
                    &format_args!("session {id} is also in {other}; remove it from one of them"),
                ));
            }
            halves.push(half);
        }
        Ok(())
    })?;
    Ok(halves)
}

/// A sidecar's half, and where it was found.
pub(crate) struct FoundHalf {
    pub(crate) half: AgentHalf,
    pub(crate) file: PathBuf,
    /// The file was not named itself, but its folder.
    pub(crate) in_folder: bool,
}

/// The sidecar's halves in all of them, one in each.
pub(crate) fn agent_halves(named: &[PathBuf]) -> Outcome<Vec<FoundHalf>> {
    let mut halves = Vec::new();
    read_all(named, MAX_DOCUMENT_BYTES, |file, text| {
        let half = AgentHalf::from_json(text).map_err(|error| wrong(file, &error))?;
        halves.push(FoundHalf {
            half,
            file: file.to_owned(),
            in_folder: !named.iter().any(|path| path == file),
        });
        Ok(())
    })?;
    Ok(halves)
}

/// Reads all files, each of at most `limit` bytes, and all of them together of no more than a list of sessions may have.
fn read_all(named: &[PathBuf], limit: usize, mut take: impl FnMut(&Path, &[u8]) -> Outcome) -> Outcome {
    let mut bytes = 0;
    for file in find(named)? {
        let text = read(&file, limit)?;
        bytes += text.len();
        if bytes > MAX_LIST_BYTES {
            let why = format_args!("with this one, the session files exceed {MAX_LIST_BYTES} bytes in all");
            return Err(wrong(&file, &why));
        }
        take(&file, &text)?;
    }
    Ok(())
}

fn read(file: &Path, limit: usize) -> Outcome<Zeroizing<Vec<u8>>> {
    PrivateFile::read(file, limit).map_err(|error| match error.is_missing() {
        true => Failure::usage(format_args!(
            "the session file {} does not exist; make one with `obol session create`",
            file.display()
        )),
        false => unread(error),
    })
}

/// Reads one sidecar's half as it is. The queue checks what it says.
pub(crate) fn read_one(file: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    PrivateFile::read(file, MAX_DOCUMENT_BYTES).map_err(Failure::usage)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where a function of an error is called for")]
fn unread(error: PrivateFileError) -> Failure {
    let replaced = match error.fault() {
        Fault::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            "; a server can reread a replaced file only in its own folder, not directly in a home directory: move the file to such a folder, or restart the server"
        }
        _ => "",
    };
    let message = format!("the sessions cannot be read: {error}{replaced}");
    if matches!(error.fault(), Fault::NoAnswer) {
        Failure::unavailable(message)
    } else {
        Failure::usage(message)
    }
}

fn wrong(file: &Path, why: &dyn Display) -> Failure {
    Failure::usage(format_args!("session file {}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::create::{Plan, halves};
    use obol_token::Suite;
    use std::io::Write as _;

    fn session() -> crate::sessions::create::Halves {
        let plan = Plan {
            suite: Suite::Tbac,
            audience: "https://api.example",
            agent: "agent-1",
            now: 1_000,
            lifetime: 100,
            grants: vec![("search", "call", "**", 60)],
            require_pop: false,
        };
        halves(&plan).unwrap()
    }

    fn write(folder: &Path, name: &str, text: &[u8]) -> PathBuf {
        let path = folder.join(name);
        PrivateFile::create(&path).unwrap().into_file().write_all(text).unwrap();
        path
    }

    #[test]
    fn a_folder_stands_for_its_files_and_one_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = [folder.path().to_owned()];
        assert!(resource_halves(&place).unwrap().is_empty(), "an empty folder lists no sessions");
        let sessions = [session(), session()];
        write(folder.path(), "b.json", &ResourceHalf::list_to_json_lines(&sessions[0].servers));
        write(folder.path(), "a.json", &ResourceHalf::list_to_json_lines(&sessions[1].servers));
        write(folder.path(), "notes.txt", b"not a session");
        let found: Vec<_> = resource_halves(&place).unwrap().iter().map(|half| half.session_id).collect();
        assert_eq!(found, [sessions[1].servers[0].session_id, sessions[0].servers[0].session_id]);
        let again = write(folder.path(), "c.json", &ResourceHalf::list_to_json_lines(&sessions[0].servers));
        let error = resource_halves(&place).unwrap_err().to_string();
        assert!(error.contains("c.json") && error.contains("b.json"), "{error}");
        std::fs::remove_file(again).unwrap();
        write(folder.path(), "d.json", b"{");
        let error = resource_halves(&place).unwrap_err().to_string();
        assert!(error.contains("d.json"), "{error}");
    }

    #[test]
    fn every_file_of_a_folder_must_be_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "a.json", &session().agent);
        let place = [folder.path().to_owned()];
        assert_eq!(agent_halves(&place).unwrap().len(), 1);
        assert!(agent_halves(&place).unwrap()[0].in_folder);
        assert!(!agent_halves(core::slice::from_ref(&path)).unwrap()[0].in_folder);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = agent_halves(&place).err().unwrap().to_string();
        assert!(error.contains("a.json") && error.contains("chmod 600"), "{error}");
    }
}
