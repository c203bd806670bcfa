//! Where things are if nothing is said, and what the environment says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use obol_secret::file::{Fault, create_folder};

use crate::exit::{Failure, Outcome};

/// A variable of this process's environment.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A folder from a variable. What is empty or relative counts as not set, as the XDG specification wants it.
pub(crate) fn absolute(lookup: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    lookup(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where state is kept if nothing else is said: `$XDG_STATE_HOME/obol`, `~/.local/state/obol`, or `/var/lib/obol`
/// where there is no home.
pub(crate) fn state_folder() -> PathBuf {
    absolute(&environment, "XDG_STATE_HOME")
        .or_else(|| absolute(&environment, "HOME").map(|home| home.join(".local/state")))
        .map_or_else(|| PathBuf::from("/var/lib/obol"), |folder| folder.join("obol"))
}

/// The path that was named, or a file in the state folder, or in a folder of it; such a folder is created closed to others.
pub(crate) fn place(named: Option<&PathBuf>, name: &str) -> Outcome<PathBuf> {
    let usual = state_folder().join(name);
    let ours = [state_folder(), folder_of(&usual).to_owned()];
    let path = named.unwrap_or(&usual);
    let folder = folder_of(path);
    if ours.iter().any(|own| own == folder) {
        create_folder(folder).map_err(|error| match error.fault() {
            Fault::Io(error) => {
                Failure::unavailable(format_args!("cannot create {}: {error}", folder.display()))
            }
            _ => error.into(),
        })?;
    }
    Ok(path.clone())
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
