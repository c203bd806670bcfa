//! The audit logs that roles write: where they are, and under which key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_audit::{AuditLog, ChainKey, ChainMark, LogOptions};
use obol_queue::{MasterKey, Queue};

use crate::exit::{Failure, Outcome};
use crate::places::place;
use crate::role::companions;
use crate::settings::args::{RsArgs, TqsArgs};
use crate::settings::config::Config;

/// What the sealing key is derived for. Part of the format: another text is another key.
const PURPOSE: &str = "obol audit log";

/// The key an audit log is sealed under.
pub(crate) fn chain_key(master_key: &MasterKey) -> ChainKey {
    ChainKey::from_bytes(*master_key.derive(PURPOSE))
}

/// The key of a resource server's log, where none is named.
pub(crate) const RS_KEY: &str = "rs-audit.key";

/// Where how far the log had got is kept: beside the sidecar's store, or the resource server's audit key.
pub(crate) fn head_of(anchor: &Path) -> PathBuf {
    let mut name: OsString = anchor.as_os_str().to_owned();
    name.push(".audit");
    name.into()
}

/// The file of the daemon's audit log, if it is to have one.
pub(crate) fn file<'a>(args: &'a TqsArgs, config: &'a Config) -> Option<&'a Path> {
    args.audit_log.as_deref().or(config.tqs.audit_log.as_deref())
}

/// What the master key sealed besides the store: the note of the log's end, and the log.
pub(crate) fn sealed(args: &TqsArgs, config: &Config, store: &Path) -> Vec<PathBuf> {
    [head_of(store)].into_iter().chain(file(args, config).map(Path::to_owned)).collect()
}

/// Opens the daemon's audit log, if it is to have one. The store remembers which chain that is, so that a log which was
/// taken away together with its head is missed.
pub(crate) fn open(
    args: &TqsArgs,
    config: &Config,
    store: &Path,
    key: ChainKey,
    queue: &Queue,
) -> Outcome<Option<Arc<AuditLog>>> {
    let known = remembered(queue)?;
    let Some(path) = file(args, config) else {
        if let Some(mark) = known {
            tracing::warn!(
                chain = mark.chain(),
                "the store was used with an audit log, but now none is named: nothing is audited"
            );
        }
        return Ok(None);
    };
    let log = open_log(path, store, config.tqs.audit_file_bytes, key, known)?;
    queue.set_note(log.mark().to_string().as_bytes()).map_err(Failure::unavailable)?;
    Ok(Some(log))
}

fn remembered(queue: &Queue) -> Outcome<Option<ChainMark>> {
    let note = queue.note();
    if note.is_empty() {
        return Ok(None);
    }
    let mark = core::str::from_utf8(&note).ok().and_then(|text| text.parse().ok());
    mark.map(Some).ok_or_else(|| {
        Failure::unavailable(
            "the store remembers an audit log in a form that this build cannot read; use a newer build",
        )
    })
}

/// Opens the resource server's audit log, if it is to have one.
pub(crate) fn open_for_rs(args: &RsArgs, config: &Config) -> Outcome<Option<Arc<AuditLog>>> {
    let Some(path) = args.audit.audit_log.as_ref().or(config.rs.audit_log.as_ref()) else { return Ok(None) };
    let key_file = place(args.audit.audit_key.as_ref().or(config.rs.audit_key.as_ref()), RS_KEY)?;
    open_beside_key(path, &key_file, config.rs.audit_file_bytes).map(Some)
}

/// The key of a provider's log, where none is named.
pub(crate) const ATP_KEY: &str = "atp-audit.key";

/// Opens the audit log of a provider of the Agent Token Protocol.
pub(crate) fn open_for_atp(path: &Path, key_file: Option<&PathBuf>) -> Outcome<Arc<AuditLog>> {
    open_beside_key(path, &place(key_file, ATP_KEY)?, None)
}

/// The key of the Authentication Service's log, where none is named.
pub(crate) const AS_KEY: &str = "as-audit.key";

/// The key of an authenticator's log, where none is named.
pub(crate) const AUTHENTICATOR_KEY: &str = "authenticator/audit.key";

/// Opens a log whose key is a file of its own.
pub(crate) fn open_beside_key(
    path: &Path,
    key_file: &Path,
    file_bytes: Option<u64>,
) -> Outcome<Arc<AuditLog>> {
    let had_key = key_file.exists();
    companions::refuse_lost_key(key_file, &[path, &head_of(key_file)])?;
    let key = MasterKey::load_or_create(key_file).map_err(Failure::usage)?;
    let log = open_log(path, key_file, file_bytes, chain_key(&key), None)?;
    if had_key && log.begins() {
        tracing::warn!(
            file = %path.display(), key = %key_file.display(),
            "a new audit log begins beside an existing key; this is right only if the key is new too: otherwise the log and the note of its end were removed"
        );
    }
    Ok(log)
}

fn open_log(
    path: &Path,
    anchor: &Path,
    file_bytes: Option<u64>,
    key: ChainKey,
    known: Option<ChainMark>,
) -> Outcome<Arc<AuditLog>> {
    let mut options = LogOptions::new(path, head_of(anchor)).known(known);
    if let Some(bytes) = file_bytes {
        options = options.max_file_bytes(bytes);
    }
    options.open(key).map(Arc::new).map_err(Failure::unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_logs_key_is_the_one_it_always_was() {
        let master = MasterKey::from_bytes(core::array::from_fn(|place| u8::try_from(place).unwrap()));
        let expected = "d3f00ba7e757897e75b4d6df5ca77700bc45b28de0a2ab9a8b58507b2e026dcb";
        assert_eq!(obol_secret::text::to_hex(&*master.derive(PURPOSE)), expected);
    }
}
