//! Keys and what is sealed under them: one that is gone beside the other is not made afresh.
//!
//! What a new key would do beside an old store is refuse it, at best. What a new table would do beside an old key is to
//! forget what was revoked. `docs/design.md` lists all files that belong together.

use std::path::Path;

use crate::exit::{Failure, Outcome};

/// Refuses to go on where a key file is missing, and would be made anew, beside something that was sealed under it.
pub(crate) fn refuse_lost_key(key: &Path, sealed: &[&Path]) -> Outcome {
    if std::fs::symlink_metadata(key).is_ok() {
        return Ok(());
    }
    let Some(left) = sealed.iter().find(|path| holds_something(path)) else { return Ok(()) };
    Err(Failure::usage(format_args!(
        "the key file {} is missing, but {} is there and was sealed under it; put the key back, or, to start afresh, move away everything that it sealed",
        key.display(),
        left.display()
    )))
}

/// Refuses to begin a table of sessions beside a key that was there before it.
pub(crate) fn refuse_lost_table(table: &Path, key: &Path, is_first_start: bool) -> Outcome {
    if !is_lost(table, key, is_first_start) {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "the session table {} is missing or empty, but its key {} is there: sessions revoked in it would count again. Put the table back; if there was none yet, start once with --first-start; if it is lost, move the key away too and give the server sessions that were never revoked",
        table.display(),
        key.display()
    )))
}

/// Refuses to begin a provider's store beside a key that was there before it.
pub(crate) fn refuse_lost_store(store: &Path, key: &Path, is_first_start: bool) -> Outcome {
    if !is_lost(store, key, is_first_start) {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "the token store {} is missing or empty, but its key {} is there: secrets that were retired or replaced would count again. Put the store back; if there was none yet, start once with --first-start; if it is lost, give out new secrets, move the key away too and start",
        store.display(),
        key.display()
    )))
}

/// Whether something that was kept under a key is gone, and the key is not.
fn is_lost(kept: &Path, key: &Path, is_first_start: bool) -> bool {
    !is_first_start && !holds_something(kept) && holds_something(key)
}

pub(crate) fn holds_something(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file() || metadata.len() > 0)
}
