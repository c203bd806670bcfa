//! The SDKs in other languages: their own suites, run by their own interpreters, with what `scripts/test` fetches for them.

mod lying_resolver;
mod node;
mod python;
mod real;
mod receipts;
mod sealed_tools;
mod stolen;
mod whole_way;

use std::path::{Path, PathBuf};
use std::process::Command;

use obol_world::home::obol;

/// Where `scripts/test` puts what is fetched for tests.
fn fetched(place: &str, what_for: &str) -> PathBuf {
    let found = obol().parent().unwrap().parent().unwrap().join(place);
    assert!(found.exists(), "run scripts/test, which fetches {what_for} into {}", found.display());
    found
}

/// The interpreter with what the tests import.
pub(crate) fn python() -> PathBuf {
    fetched("python/bin/python", "what the SDKs are tested with")
}

/// The folder with packages for Node.
pub(crate) fn modules() -> PathBuf {
    fetched("npm/node_modules", "libraries for Node").parent().unwrap().to_owned()
}

/// A package of `client`.
pub(crate) fn package(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../client")).join(name)
}

/// Runs what must end well; gives what it wrote.
fn succeeds(command: &mut Command) -> String {
    command
        .env("OBOL", obol())
        .env("PYTHON", python())
        .env("MODULES", modules())
        .env_remove("OBOL_ENDPOINT_SOCKET")
        .env_remove("OBOL_AUTH_SOCKET");
    let run = command.output().expect("its interpreter is installed by scripts/install");
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{text}");
    text
}
