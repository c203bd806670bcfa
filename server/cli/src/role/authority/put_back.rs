//! A directory that was put back from a copy and is taken all the same: what may have been ended since lives no longer, and whoever
//! decides what lives again is shown what the audit log knows of the time that the copy does not.

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::SystemTime;

use obol_audit::{AuditLog, Decision, Entry, Event};
use obol_authority::Now;
use obol_authority::directory::{RedbDirectory, StartedOver};
use obol_secret::key::Key32;
use obol_secret::text::plain;
use serde_json::Value;

use super::setup::Places;
use crate::exit::{Failure, Outcome};

/// The most things that are shown of the time since the copy was made.
const MAX_SHOWN: usize = 1_000;
/// What of a line says what was done.
const FIELDS: [&str; 5] = ["agent", "scope", "tool", "audience", "reason"];
/// What need not be looked at: it changed nothing, or ends by itself.
const HARMLESS: [&str; 4] = ["session_open", "denial", "observed", "start"];

pub(super) fn accept(
    places: &Places,
    master: &Key32,
    log: Option<&AuditLog>,
    now: Now,
) -> Outcome<RedbDirectory> {
    // A place for the line first: what cannot be written down is not done.
    let place = log.map(AuditLog::reserve).transpose().map_err(Failure::unavailable)?;
    let accepted = RedbDirectory::accept_rollback(&places.directory, &places.witness, master, now.secs());
    let (directory, over) = accepted.map_err(Failure::unavailable)?;
    let (agents, sessions) = (over.agents.len() as u64, over.sessions.len() as u64);
    tracing::warn!(
        agents,
        sessions,
        known_until = over.known_until,
        "the directory was put back from a copy: its sessions are ended, its agents suspended; `obol agent enable` lets one in again"
    );
    if let Some(place) = place {
        place.put(Entry {
            decision: Some(Decision::Allow),
            count: Some(agents),
            sessions_ended: Some(sessions),
            scope: Some("every agent and session".into()),
            reason: Some("the directory was put back from a copy, with --accept-rollback".into()),
            ..Entry::new(Event::Disable)
        });
    }
    match &places.audit {
        Some((path, _)) => show(path, &over),
        None => tracing::warn!("without an audit log nobody can say what was ended since the copy was made"),
    }
    Ok(directory)
}

/// Says what the audit log knows since.
fn show(log: &Path, over: &StartedOver) {
    match since(log, over.known_until) {
        Ok(done) => {
            for line in &done {
                tracing::warn!("since the copy was made: {line}");
            }
            if done.len() == MAX_SHOWN {
                tracing::warn!("and more: read the audit log from there on");
            }
        }
        Err(error) => {
            tracing::error!(%error, "what was done since the copy was made could not be read; look into the audit log")
        }
    }
}

/// What was done at `from` (Unix seconds) or later, each thing once.
fn since(log: &Path, from: u64) -> std::io::Result<BTreeSet<String>> {
    // Times of one form are in the order of their texts.
    let from = obol_audit::iso(SystemTime::UNIX_EPOCH + Duration::from_secs(from));
    let mut done = BTreeSet::new();
    for path in obol_audit::verify::files_of(log)? {
        for line in BufReader::new(File::open(path)?).lines() {
            let Ok(line) = serde_json::from_str::<Value>(&line?) else { continue };
            if let Some(what) = told(&line, &from) {
                done.insert(what);
            }
            if done.len() == MAX_SHOWN {
                return Ok(done);
            }
        }
    }
    Ok(done)
}

fn told(line: &Value, from: &str) -> Option<String> {
    let at = line.get("time")?.as_str()?;
    let event = line.get("event")?.as_str()?;
    if at < from || HARMLESS.contains(&event) || line.get("decision").is_none() {
        return None;
    }
    let fields = FIELDS.iter().filter_map(|name| Some((name, line.get(*name)?.as_str()?)));
    let fields: String = fields.map(|(name, text)| format!(" {name}={}", plain(text))).collect();
    Some(format!("{event}{fields}"))
}
