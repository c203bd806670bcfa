//! What a login leaves on this machine: which service, whose key it has, and our own, in a private file for each service.

use core::fmt;
use std::path::{Path, PathBuf};

use obol_handshake::IdentityKey;
use obol_secret::file::PrivateFile;
use obol_secret::json;
use obol_secret::text::to_hex;
use obol_uplink::Pinned;
use serde::Deserialize;
use serde_json::json as object;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::places::{place, state_folder};

/// The folder of them, in the state folder.
const FOLDER: &str = "logins";
/// The longest of these files, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// The most services that somebody is logged in at.
const MAX_LOGINS: usize = 64;

obol_secret::secret! {
    /// Our own key.
    KeptKey
}

/// The file as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    service: String,
    ca_file: Option<PathBuf>,
    key: KeptKey,
    login_id: String,
    who: String,
    until: u64,
}

/// A login.
pub(crate) struct Kept {
    service: Pinned,
    ca_file: Option<PathBuf>,
    key: KeptKey,
    login_id: String,
    who: String,
    until: u64,
}

impl Kept {
    pub(super) fn new(
        service: Pinned,
        ca_file: Option<PathBuf>,
        key: &IdentityKey,
        login_id: String,
        who: String,
        until: u64,
    ) -> Self {
        Self { service, ca_file, key: KeptKey::from_bytes(*key.expose()), login_id, who, until }
    }

    /// The login at the service that is named, by its address with or without its key; or the only one there is.
    pub(crate) fn find(named: Option<&str>) -> Outcome<Option<Self>> {
        let Some(named) = named else { return Self::only() };
        let (origin, key) = named.split_once('#').map_or((named, None), |(origin, key)| (origin, Some(key)));
        let Some(kept) = Self::read(&path_of(origin))? else { return Ok(None) };
        if kept.service.origin() != origin {
            return Err(Failure::usage(format_args!(
                "{} belongs to another service; remove it and log in again",
                path_of(origin).display()
            )));
        }
        let pinned = to_hex(&kept.service.key().0);
        match key {
            Some(key) if key != pinned => Err(Failure::usage(format_args!(
                "you are logged in at a service with this address but another key: run `obol logout --as {origin}` first, and find out which key is right"
            ))),
            _ => Ok(Some(kept)),
        }
    }

    fn only() -> Outcome<Option<Self>> {
        let folder = state_folder().join(FOLDER);
        let names = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read?.take(MAX_LOGINS).collect::<Result<Vec<_>, _>>()?,
        };
        let mut found = Vec::new();
        for name in names {
            let path = name.path();
            if path.extension().is_some_and(|kind| kind == "json") {
                found.extend(Self::read(&path)?);
            }
        }
        if found.len() > 1 {
            let services: Vec<&str> = found.iter().map(|kept| kept.service.origin()).collect();
            return Err(Failure::usage(format_args!(
                "you are logged in at several services; name one with --as: {}",
                services.join(", ")
            )));
        }
        Ok(found.pop())
    }

    fn read(path: &Path) -> Outcome<Option<Self>> {
        let bytes = match PrivateFile::read(path, MAX_BYTES) {
            Err(error) if error.is_missing() => return Ok(None),
            read => read?,
        };
        let wrong = |why: &dyn fmt::Display| {
            Failure::usage(format_args!(
                "{}: {why}; remove it, and log in again with `obol login`",
                path.display()
            ))
        };
        let document: Document = json::parse(&bytes).map_err(|error| wrong(&error))?;
        let Document { version, service, ca_file, key, login_id, who, until } = document;
        if version != 1 {
            return Err(wrong(&"it has another version"));
        }
        let service = Pinned::parse(&service).map_err(|error| wrong(&error))?;
        Ok(Some(Self { service, ca_file, key, login_id, who, until }))
    }

    /// Puts it where it is found, in the place of the one before.
    pub(super) fn write(&self) -> Outcome {
        let name = format!("{FOLDER}/{}", name_of(self.service.origin()));
        let path = place(None, &name)?;
        let key = Zeroizing::new(to_hex(self.key.expose()));
        let document = object!({
            "version": 1, "service": self.service.to_string(), "ca_file": self.ca_file, "key": key.as_str(),
            "login_id": self.login_id, "who": self.who, "until": self.until,
        });
        let text = Zeroizing::new(document.to_string());
        PrivateFile::create_whole(&path, text.as_bytes())?;
        Ok(())
    }

    /// Leaves nothing of it here.
    pub(super) fn remove(&self) -> Outcome {
        let path = path_of(self.service.origin());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(
                Exit::Other,
                format_args!("{} cannot be removed: {error}; remove it by hand", path.display()),
            )),
            _ => Ok(()),
        }
    }

    /// The address of the service.
    pub(crate) fn origin(&self) -> &str {
        self.service.origin()
    }

    pub(super) fn service(&self) -> &Pinned {
        &self.service
    }

    pub(super) fn ca_file(&self) -> Option<&PathBuf> {
        self.ca_file.as_ref()
    }

    pub(super) fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    pub(super) fn login_id(&self) -> &str {
        &self.login_id
    }

    pub(super) fn who(&self) -> &str {
        &self.who
    }

    pub(super) fn until(&self) -> u64 {
        self.until
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("service", &self.service.origin()).finish_non_exhaustive()
    }
}

fn path_of(origin: &str) -> PathBuf {
    state_folder().join(FOLDER).join(name_of(origin))
}

/// What an address is called as a file: nothing that leads elsewhere.
fn name_of(origin: &str) -> String {
    let letter = |letter: char| match letter {
        'a'..='z' | '0'..='9' | '.' | '-' => letter,
        _ => '_',
    };
    format!("{}.json", origin.chars().take(128).map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_file_of_its_own_which_leads_nowhere() {
        assert_eq!(name_of("https://as.example:8443"), "https___as.example_8443.json");
        assert_eq!(name_of("https://../../x"), "https___.._.._x.json");
    }
}
