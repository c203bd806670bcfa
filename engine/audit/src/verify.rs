//! Checking a log from its first line to its last.
//!
//! With the sealing key every line is checked by itself, so a report names exactly the lines that were changed, put in,
//! moved or taken out. Without it the chain alone is checked: that shows any change, removal or move but of the last
//! line, made by somebody who did not write all that follows afresh.

use core::fmt;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use obol_secret::file::open_public;
use obol_secret::text::{from_hex, to_hex};
use sha2::{Digest, Sha256};

use crate::chain::{ChainKey, LineHash, MAX_LINE_BYTES, Read, Torn, VERSION, hash};
use crate::files;
use crate::head::{self, Found, Head};
use crate::recover::first_line;

/// Problems that are listed; more are counted.
const MAX_LISTED: usize = 100;

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogProblemKind {
    /// Its bytes are not those that were written.
    Changed,
    /// It was never written here by who holds the key.
    Inserted,
    /// It stands in another place than it was written to.
    Moved,
    /// It was taken out.
    Removed,
    /// It follows a line it was not written after.
    Broken,
    /// The end of the log was cut off.
    Truncated,
    /// The file begins with no line that says whose it is, or with one of another key.
    Unreadable,
    /// The note of how far the log had got is gone, or was when the log was opened again.
    NoHead,
}

impl fmt::Display for LogProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Inserted => "inserted",
            Self::Moved => "moved",
            Self::Removed => "removed",
            Self::Broken => "broken",
            Self::Truncated => "truncated",
            Self::Unreadable => "unreadable",
            Self::NoHead => "no head",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct LogProblem {
    /// The file.
    pub file: PathBuf,
    /// The line in the file, counted from 1; 0 where none can be named.
    pub line: u64,
    /// What.
    pub kind: LogProblemKind,
    /// The numbers (`n`) of the log's lines it is about, first and last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<(u64, u64)>,
    /// The same in words.
    pub message: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// What is wrong; at most 100 entries.
    pub problems: Vec<LogProblem>,
    /// How many problems there are in all.
    pub problem_count: u64,
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Lines that are good.
    pub lines: u64,
    /// Number of the first good line.
    pub first: Option<u64>,
    /// Number of the last good line.
    pub last: Option<u64>,
    /// When the first good line was written.
    pub from: Option<String>,
    /// When the last good line was written.
    pub to: Option<String>,
    /// The chain's name.
    pub chain: Option<String>,
    /// Starts of a process.
    pub starts: u64,
    /// Starts after a process that did not end in good order.
    pub unclean_starts: u64,
    /// Lines torn by a crash, each declared by the start that followed.
    pub torn: u64,
    /// Hand-outs.
    pub hand_outs: u64,
    /// Tokens that were accepted.
    pub spends: u64,
    /// Denials, those without lines of their own included.
    pub denials: u64,
    /// Hand-outs and acceptances that were refused because the log could not be written.
    pub refused: u64,
    /// Lines that were given up because too many waited; never one of a hand-out or an acceptance.
    pub dropped: u64,
    /// Whether the seals were checked.
    pub sealed: bool,
    /// Whether the head was checked.
    pub head_checked: bool,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, problem: LogProblem) {
        self.problem_count += 1;
        if self.problems.len() < MAX_LISTED {
            self.problems.push(problem);
        }
    }
}

/// Why a check could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file could not be read.
    Io(PathBuf, io::Error),
    /// A file holds no line of an audit log.
    NotALog(PathBuf),
    /// The log is sealed under another key than the one given.
    OtherKey(PathBuf),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NotALog(path) => write!(f, "{} is not an audit log", path.display()),
            Self::OtherKey(path) => write!(
                f,
                "{} was sealed under another master key; name the one it was written with",
                path.display()
            ),
        }
    }
}

impl core::error::Error for VerifyError {}

/// All files of the log that is written to `path`, the oldest first.
///
/// # Errors
///
/// If the folder cannot be listed.
pub fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all: Vec<_> = files::all_full(path)?.into_iter().map(|(_, path)| path).collect();
    if path.exists() {
        all.push(path.to_owned());
    }
    Ok(all)
}

/// Checks files of one log, in whatever order they are given; with the key, their seals; with the head, their end.
///
/// # Errors
///
/// [`VerifyError`] if a file cannot be read, holds no line of a log, or was sealed under another key than `key`. What is wrong
/// with the lines themselves is in the report.
pub fn verify(paths: &[PathBuf], key: Option<&ChainKey>, head: Option<&Path>) -> Result<Report, VerifyError> {
    let mut check =
        Check { key, report: Report::default(), last: None, pending: Pending::default(), head: None };
    check.report.sealed = key.is_some();
    if let (Some(path), Some(key)) = (head, key) {
        check.read_head(path, key)?;
    }
    for path in in_order(paths, key)? {
        check.file(&path)?;
        check.report.files.push(path);
    }
    check.finish();
    Ok(check.report)
}

/// Files in the order of their first lines.
fn in_order(paths: &[PathBuf], key: Option<&ChainKey>) -> Result<Vec<PathBuf>, VerifyError> {
    let mut order = Vec::new();
    for (given, path) in paths.iter().enumerate() {
        let first = first_line(path).map_err(|error| VerifyError::Io(path.clone(), error))?;
        let other_key =
            |first: &Read| key.is_some_and(|key| first.key.as_ref().is_some_and(|id| *id != key.id()));
        // A first line that is damaged says nothing of keys; the check of the lines will say what is wrong.
        if let Some(first) = first.as_ref().filter(|first| other_key(first))
            && !vouched_by_any(path, key)?
        {
            let _named_another_key = first;
            return Err(VerifyError::OtherKey(path.clone()));
        }
        let n = match &first {
            Some(first) => Some(first.n),
            None => any_number(path)?,
        };
        let Some(n) = n else { return Err(VerifyError::NotALog(path.clone())) };
        order.push((n, given, path.clone()));
    }
    order.sort();
    Ok(order.into_iter().map(|(.., path)| path).collect())
}

/// The number of any line of a file whose first line is damaged.
fn any_number(path: &Path) -> Result<Option<u64>, VerifyError> {
    let mut found = None;
    for_each_line(path, |_, line| {
        found = found.or_else(|| Read::parse(line).map(|read| read.n));
    })?;
    Ok(found)
}

/// Whether any line of a file is sealed under the key.
fn vouched_by_any(path: &Path, key: Option<&ChainKey>) -> Result<bool, VerifyError> {
    let mut any = false;
    for_each_line(path, |_, line| any |= key.is_some_and(|key| key.vouches_for(line)))?;
    Ok(any)
}

/// Calls `act` with each line's number, from 1, and its bytes without the line end. A line beyond the limit comes in
/// pieces, none of which is a good line.
fn for_each_line(path: &Path, mut act: impl FnMut(u64, &[u8])) -> Result<(), VerifyError> {
    each_line(path, |number, line, _| act(number, line))
}

/// As [`for_each_line`], and with whether a line end follows.
fn each_line(path: &Path, mut act: impl FnMut(u64, &[u8], bool)) -> Result<(), VerifyError> {
    let io = |error| VerifyError::Io(path.to_owned(), error);
    let file = open_public(path).map_err(|error| io(error.into()))?;
    // What is written meanwhile is not looked at: it could be half a line.
    let length = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::with_capacity(256 << 10, file.take(length));
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64 + 1;
    for number in 1.. {
        line.clear();
        reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(io)?;
        match line.strip_suffix(b"\n") {
            Some(line) => act(number, line, true),
            None if line.is_empty() => return Ok(()),
            None => act(number, &line, false),
        }
    }
    Ok(())
}

/// The last line in its place.
struct Last {
    n: u64,
    hash: LineHash,
    file: PathBuf,
    line: u64,
}

/// Lines that are none, until the next good line says what they are.
#[derive(Default)]
struct Pending {
    lines: Vec<(PathBuf, u64, Option<u64>)>,
    count: u64,
    bytes: u64,
    hasher: Sha256,
    line_end: bool,
}

impl Pending {
    fn push(&mut self, file: &Path, number: u64, n: Option<u64>, line: &[u8], line_end: bool) {
        if self.line_end {
            self.hasher.update(b"\n");
            self.bytes += 1;
        }
        self.hasher.update(line);
        self.bytes += line.len() as u64;
        self.line_end = line_end;
        self.count += 1;
        if self.lines.len() < MAX_LISTED {
            self.lines.push((file.to_owned(), number, n));
        }
    }

    /// Whether this is what a start found behind the last good line.
    fn is(&self, torn: &Torn) -> bool {
        torn.bytes == self.bytes && torn.sha256 == to_hex(&self.hasher.clone().finalize())
    }
}

struct Check<'a> {
    key: Option<&'a ChainKey>,
    report: Report,
    last: Option<Last>,
    pending: Pending,
    head: Option<(PathBuf, Head, bool)>,
}

impl Check<'_> {
    fn read_head(&mut self, path: &Path, key: &ChainKey) -> Result<(), VerifyError> {
        match head::read(path, key).map_err(|error| VerifyError::Io(path.to_owned(), error.into()))? {
            Found::Absent => self.report.problem(LogProblem {
                file: path.to_owned(),
                line: 0,
                kind: LogProblemKind::NoHead,
                numbers: None,
                message: "the note of how far the log got is gone; who took it away may have cut lines off the log's end"
                    .to_owned(),
            }),
            Found::Unreadable => self.report.problem(LogProblem {
                file: path.to_owned(),
                line: 0,
                kind: LogProblemKind::Unreadable,
                numbers: None,
                message: "the note of how far the log got is damaged, or sealed under another key".to_owned(),
            }),
            Found::Head(head) => {
                self.report.head_checked = true;
                self.head = Some((path.to_owned(), head, false));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), VerifyError> {
        each_line(path, |number, line, line_end| match Read::parse(line) {
            Some(read) if self.key.is_none_or(|key| key.vouches_for(line)) => {
                self.good(path, number, line, &read);
            }
            read => self.pending.push(path, number, read.map(|read| read.n), line, line_end),
        })
    }

    fn good(&mut self, file: &Path, number: u64, line: &[u8], read: &Read) {
        let pending = core::mem::take(&mut self.pending);
        let at = LineAt { file, line: number };
        let crash = match &read.torn {
            Some(torn) if pending.is(torn) => true,
            Some(_) => {
                self.report(
                    &at,
                    LogProblemKind::Changed,
                    None,
                    "the torn line this start declares is not as it was".to_owned(),
                );
                false
            }
            None => false,
        };
        if crash {
            self.report.torn += 1;
        } else {
            self.settle(&pending, read.n);
        }
        let in_place = self.place(&at, read, if crash { 0 } else { pending.count });
        self.count(&at, read);
        if in_place {
            let hash = hash(line);
            if let Some((_, head, met)) = &mut self.head {
                *met |= head.n == Some(read.n) && head.hash == hash;
            }
            self.last = Some(Last { n: read.n, hash, file: file.to_owned(), line: number });
        }
    }

    /// Says what lines are that are none, now that the number of the next good one is known.
    fn settle(&mut self, pending: &Pending, next: u64) {
        let expected = self.last.as_ref().map_or(0, |last| last.n + 1);
        // As many numbers are missing as there are lines too many: these are the same lines, changed.
        let changed = next.saturating_sub(expected).min(pending.count);
        for (index, (file, line, _)) in pending.lines.iter().enumerate() {
            let index = index as u64;
            let at = LineAt { file, line: *line };
            if index < changed {
                let n = expected + index;
                self.report(
                    &at,
                    LogProblemKind::Changed,
                    Some((n, n)),
                    format!("line number {n} was changed"),
                );
            } else {
                self.report(
                    &at,
                    LogProblemKind::Inserted,
                    None,
                    "this line was not written by the log".to_owned(),
                );
            }
        }
        self.report.problem_count += pending.count - pending.lines.len() as u64;
    }

    /// Compares a good line with the one before. False where it does not stand in its place.
    fn place(&mut self, at: &LineAt<'_>, read: &Read, strangers: u64) -> bool {
        let prev = from_hex::<32>(&read.prev).unwrap_or_default();
        let Some(last) = &self.last else {
            if read.n == 0 && prev != [0; 32] {
                self.report(
                    at,
                    LogProblemKind::Broken,
                    Some((0, 0)),
                    "the first line names a line before it".to_owned(),
                );
            }
            if strangers == 0 && read.n > 0 && read.event != "rotate" {
                let message = format!("lines before number {} were taken out of this file", read.n);
                self.report(at, LogProblemKind::Removed, None, message);
            }
            return true;
        };
        let expected = last.n + 1;
        if read.n < expected {
            self.out_of_order(at, read.n, expected);
            return false;
        }
        let hidden = (expected + strangers).min(read.n);
        if read.n > hidden {
            let numbers = (hidden, read.n - 1);
            let message =
                format!("lines number {} to {} were taken out before this one", numbers.0, numbers.1);
            self.report(at, LogProblemKind::Removed, Some(numbers), message);
        } else if read.n == expected && prev != last.hash {
            self.broken(at, read.n);
        }
        true
    }

    /// The line before is not the one this line was written after.
    fn broken(&mut self, at: &LineAt<'_>, n: u64) {
        let Some(last) = &self.last else { return };
        if self.key.is_none() {
            // Without the key nothing else could show that the line before was changed.
            let (file, line) = (last.file.clone(), last.line);
            let place = LineAt { file: &file, line };
            let message = format!("line number {} was changed: the next line does not follow from it", n - 1);
            self.report(&place, LogProblemKind::Changed, Some((n - 1, n - 1)), message);
        } else {
            let message = format!("line number {n} was not written after the line that stands before it");
            self.report(at, LogProblemKind::Broken, Some((n, n)), message);
        }
    }

    fn out_of_order(&mut self, at: &LineAt<'_>, n: u64, expected: u64) {
        let missed = |problem: &&mut LogProblem| {
            problem.kind == LogProblemKind::Removed
                && problem.numbers.is_some_and(|(from, to)| (from..=to).contains(&n))
        };
        let message = format!("line number {n} stands behind number {}", expected - 1);
        if let Some(problem) = self.report.problems.iter_mut().find(missed)
            && problem.numbers == Some((n, n))
        {
            // The one that was missed is here.
            *problem = LogProblem {
                file: at.file.to_owned(),
                line: at.line,
                kind: LogProblemKind::Moved,
                numbers: Some((n, n)),
                message,
            };
            return;
        }
        self.report(at, LogProblemKind::Moved, Some((n, n)), message);
    }

    fn count(&mut self, at: &LineAt<'_>, read: &Read) {
        if let Some(missing) = read.missing {
            let message =
                format!("{missing} lines that had been durable were gone when the log was opened again");
            self.report(at, LogProblemKind::Truncated, None, message);
        }
        if let Some(what) = &read.head {
            let message = format!(
                "when the log was opened again the note of how far it had got was {what}: whether lines had been cut off \
                 before this one cannot be told"
            );
            self.report(at, LogProblemKind::NoHead, None, message);
        }
        if let Some(version) = read.version.filter(|version| *version != VERSION) {
            let message = format!("the file is of version {version}; this build reads version {VERSION}");
            self.report(at, LogProblemKind::Unreadable, None, message);
        }
        let report = &mut self.report;
        report.lines += 1;
        report.first.get_or_insert(read.n);
        report.last = report.last.max(Some(read.n));
        report.from.get_or_insert_with(|| read.time.clone());
        report.to = Some(read.time.clone());
        match read.event.as_str() {
            "start" => {
                report.starts += 1;
                report.unclean_starts += u64::from(read.clean == Some(false));
            }
            "hand_out" => report.hand_outs += 1,
            "spend" => report.spends += 1,
            "denial" => report.denials += 1,
            "denials" => report.denials += read.count.unwrap_or(0),
            "suspended" => report.refused += read.count.unwrap_or(0),
            "dropped" => report.dropped += read.count.unwrap_or(0),
            _ => {}
        }
        if let Some(chain) = &read.chain {
            match &self.report.chain {
                None => self.report.chain = Some(chain.clone()),
                Some(known) if known != chain => {
                    let message = "a file of another chain begins here".to_owned();
                    self.report(at, LogProblemKind::Broken, None, message);
                }
                Some(_) => {}
            }
        }
    }

    fn report(
        &mut self,
        at: &LineAt<'_>,
        kind: LogProblemKind,
        numbers: Option<(u64, u64)>,
        message: String,
    ) {
        self.report.problem(LogProblem { file: at.file.to_owned(), line: at.line, kind, numbers, message });
    }

    fn finish(&mut self) {
        let pending = core::mem::take(&mut self.pending);
        if pending.count > 0 {
            self.torn_end(&pending);
        }
        let Some((file, head, met)) = self.head.take() else { return };
        let at = LineAt { file: &file, line: 0 };
        let last = self.last.as_ref().map(|last| last.n);
        // A chain of which no line was durable yet: there is nothing to hold against the log.
        let Some(n) = head.n else { return };
        if self.report.chain.as_ref().is_some_and(|chain| *chain != head.chain) {
            self.report(
                &at,
                LogProblemKind::Broken,
                None,
                "the head file belongs to another chain".to_owned(),
            );
        } else if last.is_none_or(|last| last < n) {
            let from = last.map_or(0, |last| last + 1);
            let message = format!("the log had got to line number {n}; lines from {from} on were cut off");
            self.report(&at, LogProblemKind::Truncated, Some((from, n)), message);
        } else if !met && self.report.first.is_some_and(|first| first <= n) {
            let message = format!("line number {n} is not the one that was written");
            self.report(&at, LogProblemKind::Broken, Some((n, n)), message);
        }
    }

    /// What stands behind the last good line. One line without its end is what a crash leaves, or a log being written.
    fn torn_end(&mut self, pending: &Pending) {
        if pending.count == 1 && !pending.line_end {
            self.report.torn += 1;
            return;
        }
        self.settle(pending, u64::MAX);
    }
}

#[derive(Clone, Copy)]
struct LineAt<'a> {
    file: &'a Path,
    line: u64,
}
