//! A directory that was put back from a copy and is taken all the same: what may have been ended since lives no longer, and whoever
//! decides what lives again is shown what the audit log knows of the time that the copy does not.

use core::cell::Cell;
use core::time::Duration;
use std::io;
use std::time::SystemTime;

use obol_audit::{AuditLog, Decision, Entry, Event, Line};
use obol_authority::Now;
use obol_authority::directory::{RedbDirectory, StartedOver};
use obol_secret::key::Key32;
use obol_secret::text::plain;

use super::setup::Places;
use crate::exit::{Failure, Outcome};

/// The most things that are shown of the time since the copy was made.
const MAX_SHOWN: usize = 1_000;
const REASON: &str = "the directory was put back from a copy, with --accept-rollback";
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
        "the directory was put back from a copy: its sessions have ended and its agents are suspended; let an agent in again with `obol agent enable`"
    );
    if let Some(place) = place {
        place.put(Entry {
            decision: Some(Decision::Allow),
            count: Some(agents),
            sessions_ended: Some(sessions),
            scope: Some("every agent and session".into()),
            reason: Some(REASON.into()),
            ..Entry::new(Event::Disable)
        });
    }
    match log {
        Some(log) => show(log, &over),
        None => {
            tracing::warn!("without an audit log, it is not known what was ended since the copy was made");
        }
    }
    Ok(directory)
}

/// Says what the audit log knows since.
fn show(log: &AuditLog, over: &StartedOver) {
    match since(log, over.known_until) {
        Ok(done) => {
            for line in done.iter().rev() {
                tracing::warn!("since the copy was made: {line}");
            }
            if done.len() == MAX_SHOWN {
                tracing::warn!("and more before these; read the audit log");
            }
        }
        Err(error) => {
            tracing::error!(%error, "the changes since the copy was made could not be read; look into the audit log");
        }
    }
}

/// What was done at `from` (Unix seconds) or later, the newest first.
fn since(log: &AuditLog, from: u64) -> io::Result<Vec<String>> {
    // Times of one form are in the order of their texts.
    let from = obol_audit::iso(SystemTime::UNIX_EPOCH + Duration::from_secs(from));
    let known = Cell::new(false);
    let wanted = |line: &Line| {
        known.set(known.get() || line.time < from);
        !known.get() && changed_something(line)
    };
    let (mut done, mut before) = (Vec::new(), None);
    loop {
        let page = log.page(before, MAX_SHOWN - done.len(), wanted)?;
        if let Some(problem) = &page.problem {
            tracing::error!(problem, "the audit log was changed");
        }
        done.extend(page.lines.iter().map(told));
        before = page.next.filter(|_| !known.get() && done.len() < MAX_SHOWN);
        if before.is_none() {
            return Ok(done);
        }
    }
}

fn changed_something(line: &Line) -> bool {
    line.decision.is_some()
        && !HARMLESS.contains(&line.event.as_str())
        && line.reason.as_deref() != Some(REASON)
}

fn told(line: &Line) -> String {
    let fields = [
        ("agent", &line.agent),
        ("scope", &line.scope),
        ("tool", &line.tool),
        ("audience", &line.audience),
        ("reason", &line.reason),
    ];
    let fields = fields.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
    let fields: String = fields.map(|(name, text)| format!(" {name}={}", plain(text))).collect();
    format!("{} {}{fields}", line.time, line.event)
}
