//! Versions of the policy: which decides, which is only looked at, what differs between two, and what putting one in force would do.

use std::sync::Arc;

use askama::Template;
use axum::extract::Request;
use http::StatusCode;
use obol_policy::PolicyVersion as Loaded;

use super::super::answer::{Refusal, page, see_other};
use super::super::{Pages, Served};
use super::audit::Line as Audited;
use super::diff::{self, Line as Changed};
use super::{Browser, Deed, Heard, Visit, ago, audiences, is_allowed, may_of_service, shown, span};
use crate::authority::Authority;
use crate::directory::PolicyVersion as Row;
use crate::policy::{Activated, Policies};
use crate::refused::Refused;

/// What policies call the deeds.
const ACTIVATE: &str = "policy.activate";
const OBSERVE: &str = "policy.observe";
/// Who may do either is told what it would do, and who may ask that alone.
const WEIGH: &str = "policy.weigh";
/// What is listed of a version's warnings, and of what looking at it found.
const MAX_TOLD: usize = 20;
/// Letters of a digest that are shown where there is little room.
const SHORT: usize = 12;
/// The name of the catalogue beside the policies' files.
const CATALOGUE: &str = "catalogue.toml";

/// A version in a line.
struct Line {
    digest: String,
    short: String,
    /// Its number, epoch, who put it in force and when; of one that never was, nothing.
    row: Option<(u64, u64, String, String)>,
    is_in_force: bool,
    is_observed: bool,
}

/// Which version decides, and which is looked at.
#[derive(Clone, Default)]
struct Held {
    in_force: Option<String>,
    observed: Option<String>,
}

impl Held {
    fn of(policies: &Policies) -> Self {
        let digest = |version: Option<Arc<Loaded>>| version.map(|version| version.digest().to_string());
        Self { in_force: digest(policies.in_force()), observed: digest(policies.observed()) }
    }

    fn line(&self, digest: &str, row: Option<&Row>, now: u64) -> Line {
        Line {
            digest: digest.to_owned(),
            short: short(digest),
            row: row.map(|row| (row.version, row.epoch, shown(&row.by.to_string()), ago(row.at, now))),
            is_in_force: self.in_force.as_deref() == Some(digest),
            is_observed: self.observed.as_deref() == Some(digest),
        }
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(SHORT).collect()
}

/// The versions that this service has; a service that is embedded may have none.
fn policies(pages: &Pages) -> Result<Arc<Policies>, Refusal> {
    pages.kept.policies.clone().ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "No versions", "This service's policy is not kept in versions.")
    })
}

#[derive(Template)]
#[template(path = "policies.html")]
struct ListPage<'a> {
    browser: &'a Browser,
    versions: Vec<Line>,
    /// Why nothing is decided, where nothing is.
    is_undecided: bool,
}

/// The versions there is a way back to, the newest first, and the one that is looked at.
pub(in super::super) async fn list(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/policies")?;
    let policies = policies(pages)?;
    let now = visit.now.secs();
    let found = visit.look_at_service(pages, move |authority| {
        Ok((authority.directory().policies()?, Held::of(&policies)))
    });
    let (rows, held) = found.await?;
    let mut versions: Vec<Line> = Vec::new();
    for row in rows.iter().rev() {
        let mut line = held.line(&row.digest, Some(row), now);
        // One that came back is in force once.
        line.is_in_force &= versions.iter().all(|newer| newer.digest != line.digest);
        versions.push(line);
    }
    let is_new = |digest: &&String| rows.iter().all(|row| row.digest != **digest);
    if let Some(observed) = held.observed.as_ref().filter(is_new) {
        versions.insert(0, held.line(observed, None, now));
    }
    let is_undecided = held.in_force.is_none();
    Ok(page(StatusCode::OK, &ListPage { browser: &visit.browser, versions, is_undecided }, ""))
}

/// One file of a version.
struct File {
    name: String,
    text: String,
}

/// What putting a version in force would do.
struct Weighed {
    agents: usize,
    held: usize,
    lost: usize,
    narrowed: usize,
    widened: usize,
    sessions: usize,
    is_too_much: bool,
}

impl Weighed {
    fn of(activated: &Activated) -> Self {
        let impact = &activated.impact;
        Self {
            agents: activated.agents,
            held: impact.held,
            lost: impact.lost,
            narrowed: impact.narrowed,
            widened: impact.widened,
            sessions: activated.sessions,
            is_too_much: impact.is_too_much(),
        }
    }
}

#[derive(Template)]
#[template(path = "policy.html")]
struct VersionPage<'a> {
    browser: &'a Browser,
    version: Line,
    /// The digest of the one in force, if there is one.
    in_force: Option<String>,
    warnings: Vec<String>,
    more_warnings: usize,
    weighed: Option<Weighed>,
    /// What looking at it found lately, where there is an audit log.
    findings: Option<Vec<Audited>>,
    session_life: String,
    files: Vec<File>,
    may_activate: bool,
    may_observe: bool,
    heard: Option<Heard>,
}

fn texts(version: &Loaded) -> Vec<(String, String)> {
    let source = version.source();
    let catalogue = (CATALOGUE.to_owned(), source.catalogue.clone());
    core::iter::once(catalogue)
        .chain(source.policies.iter().map(|(name, text)| (name.clone(), text.clone())))
        .collect()
}

/// What would have been decided otherwise by a version that is only looked at.
fn findings(authority: &Authority, digest: &str) -> Option<Vec<Audited>> {
    let begins = format!("version {digest}");
    let read = authority.audit_log()?.page(None, MAX_TOLD, |line| {
        line.event == "observed" && line.reason.as_deref().is_some_and(|why| why.starts_with(&begins))
    });
    Some(read.ok()?.lines.iter().map(Audited::of).collect())
}

/// What is found of one version.
struct Found {
    version: Arc<Loaded>,
    row: Option<Row>,
    held: Held,
    weighed: Option<Activated>,
    findings: Option<Vec<Audited>>,
    session_secs: u64,
    allowed: [bool; 2],
    heard: Option<Heard>,
}

/// One version.
pub(in super::super) async fn show(pages: &Pages, name: &str, request: Request) -> Served {
    let path = format!("/console/policies/{name}");
    let visit = Visit::begin(pages, &request, &path)?;
    let policies = policies(pages)?;
    let (digest, since, now, by) = (name.to_owned(), visit.since(), visit.now, visit.browser.human.clone());
    let found = visit.look_at_service(pages, move |authority| {
        let version = policies.kept(&digest)?;
        let rows = authority.directory().policies()?;
        let held = Held::of(&policies);
        let is_in_force = held.in_force.as_deref() == Some(&*digest);
        let is_observed = held.observed.as_deref() == Some(&*digest);
        let heard = |event| Heard::of(authority, event, &audiences(authority)?, None, &path, now.secs());
        let weighs = [WEIGH, ACTIVATE, OBSERVE].iter().any(|verb| is_allowed(authority, &by, verb));
        Ok(Found {
            weighed: (!is_in_force && weighs).then(|| policies.weigh(&version, now)).transpose()?,
            findings: is_observed.then(|| findings(authority, &digest)).flatten(),
            session_secs: authority.settings().session_life_secs(),
            allowed: [ACTIVATE, OBSERVE].map(|verb| is_allowed(authority, &by, verb)),
            heard: since.map(heard).transpose()?,
            row: rows.into_iter().rfind(|row| row.digest == digest),
            held,
            version,
        })
    });
    let found = found.await?;
    let [may_activate, may_observe] = found.allowed;
    let warnings: Vec<String> =
        found.version.findings().iter().map(|finding| shown(&finding.to_string())).collect();
    let file = |(name, text): (String, String)| File { name: shown(&name), text: shown_lines(&text) };
    let shown_page = VersionPage {
        browser: &visit.browser,
        version: found.held.line(&found.version.digest().to_string(), found.row.as_ref(), now.secs()),
        more_warnings: warnings.len().saturating_sub(MAX_TOLD),
        warnings: warnings.into_iter().take(MAX_TOLD).collect(),
        weighed: found.weighed.as_ref().map(Weighed::of),
        findings: found.findings,
        session_life: span(found.session_secs),
        files: texts(&found.version).into_iter().map(file).collect(),
        in_force: found.held.in_force,
        may_activate,
        may_observe,
        heard: found.heard,
    };
    Ok(page(StatusCode::OK, &shown_page, ""))
}

/// A text of several lines without what steers or hides.
fn shown_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| shown(&line.replace('\t', "    "))).collect();
    lines.join("\n")
}

/// What differs in one file.
struct FileDiff {
    name: String,
    /// Whether there is such a file in the old version, and in the new one.
    was: bool,
    is: bool,
    lines: Vec<Changed>,
}

#[derive(Template)]
#[template(path = "policy-diff.html")]
struct DiffPage<'a> {
    browser: &'a Browser,
    from: Line,
    to: Line,
    files: Vec<FileDiff>,
}

fn differences(old: &Loaded, new: &Loaded) -> Vec<FileDiff> {
    let (old, new) = (texts(old), texts(new));
    let mut names: Vec<&String> = old.iter().chain(&new).map(|(name, _)| name).collect();
    names.sort_by_key(|name| (*name != CATALOGUE, *name));
    names.dedup();
    let of = |texts: &[(String, String)], name: &str| {
        texts.iter().find(|(it, _)| it == name).map(|(_, text)| text.clone())
    };
    let file = |name: &String| {
        let (was, is) = (of(&old, name), of(&new, name));
        (was != is).then(|| FileDiff {
            name: shown(name),
            was: was.is_some(),
            is: is.is_some(),
            lines: diff::lines(&was.unwrap_or_default(), &is.unwrap_or_default()),
        })
    };
    names.into_iter().filter_map(file).collect()
}

/// What differs between two versions.
pub(in super::super) async fn compare(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/policies")?;
    let policies = policies(pages)?;
    let asked = |name: &'static str| {
        let missing = || Refused::Malformed(format!("{name} names a version by its digest"));
        visit.asked(name).map(str::to_owned).ok_or_else(missing)
    };
    let (from, to, now) = (asked("from")?, asked("to")?, visit.now.secs());
    let found = visit.look_at_service(pages, move |authority| {
        let (old, new) = (policies.kept(&from)?, policies.kept(&to)?);
        let rows = authority.directory().policies()?;
        let held = Held::of(&policies);
        let line = |digest: &str| held.line(digest, rows.iter().rfind(|row| row.digest == digest), now);
        Ok((line(&from), line(&to), differences(&old, &new)))
    });
    let (from, to, files) = found.await?;
    Ok(page(StatusCode::OK, &DiffPage { browser: &visit.browser, from, to, files }, ""))
}

/// Puts a version in force, looks at it beside the one in force, or looks no more.
pub(in super::super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let to = format!("/console/policies/{name}");
    let deed = Deed::begin(pages, request, &to).await?;
    let policies = policies(pages)?;
    let (word, digest) = (deed.word(), name.to_owned());
    let anyway = deed.form.one("anyway") == Some("yes");
    // What the page said of it was said beside the version that was in force then.
    let beside = deed.form.one("beside").unwrap_or_default().to_owned();
    let Deed { by, now, .. } = deed;
    let done = pages.run(move |authority| {
        let is_other = Held::of(&policies).in_force.unwrap_or_default() != beside;
        match word.as_str() {
            "activate" => {
                may_of_service(authority, &by, ACTIVATE)?;
                if is_other {
                    let text = "Another version came into force since this page was shown. Open it again, and decide by what it says now.";
                    return Err(Refusal::new(StatusCode::CONFLICT, "It changed meanwhile", text));
                }
                policies.activate(policies.kept(&digest)?, &by, anyway, now)?;
                Ok(Some(authority.directory().last_event()?))
            }
            "observe" => {
                may_of_service(authority, &by, OBSERVE)?;
                policies.observe(Some(policies.kept(&digest)?), &by)?;
                Ok(None)
            }
            "stop" => {
                may_of_service(authority, &by, OBSERVE)?;
                policies.observe(None, &by)?;
                Ok(None)
            }
            _ => Err(Refusal::not_ours()),
        }
    });
    match done.await?? {
        Some(event) => Ok(see_other(&format!("{to}?since={event}"))),
        None => Ok(see_other(&to)),
    }
}
