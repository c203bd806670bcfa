//! Finding the end of the chain when a process begins to write.
//!
//! Only the end is read, so a start does not take longer the longer the log is; `verify` reads all of it. What lies
//! behind the last good line was torn by a crash. It stays where it is, and the first line written says, sealed, that it
//! is there.

use core::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};

use obol_secret::file::{Fault, PrivateFile, PrivateFileError, open_public};
use obol_secret::text::to_hex;

use crate::chain::{ChainKey, MAX_LINE_BYTES, Opening, Read, Tip, Torn, VERSION, hash};
use crate::entry::Event;
use crate::files;
use crate::head::{self, Found, Head, HeadFile};
use crate::options::{ChainMark, LogOptions};

/// How much of a file's end is searched for its last good line: what a crash can tear is one write, at most.
const TAIL_BYTES: u64 = 2 << 20;

/// Why a log could not be opened. No line was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogOpenError {
    /// A file could not be read or written.
    Io(PathBuf, io::Error),
    /// A file is not one of ours alone, or could not be opened or created.
    File(PrivateFileError),
    /// Another process writes this log.
    InUse(PathBuf),
    /// The file is not an audit log, or its beginning or a long piece of its end is damaged.
    Damaged(PathBuf),
    /// The log is sealed under another key.
    OtherKey(PathBuf),
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for LogOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot use the audit log {}: {error}", path.display()),
            Self::File(error) => write!(f, "cannot use the audit log: {error}"),
            Self::InUse(path) => write!(
                f,
                "the audit log {} is written by another process; stop that one, or name another file",
                path.display()
            ),
            Self::Damaged(path) => write!(
                f,
                "{} is not an audit log, or was tampered with; run `obol audit verify {}`, then move it away to begin a \
                 new one",
                path.display(),
                path.display()
            ),
            Self::OtherKey(path) => write!(
                f,
                "the audit log {} was written under another master key; move it and the note of its end (.audit) away \
                 to begin a new one",
                path.display()
            ),
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl core::error::Error for LogOpenError {}

impl LogOpenError {
    fn of(error: PrivateFileError) -> Self {
        match error.fault() {
            Fault::InUse => Self::InUse(error.path().to_owned()),
            _ => Self::File(error),
        }
    }
}

/// A log ready to be written.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) head: HeadFile,
    pub(crate) tip: Tip,
    pub(crate) chain: String,
    pub(crate) file_number: u64,
    /// Whether the chain is new.
    pub(crate) begins: bool,
    /// The lines to begin with.
    pub(crate) first: Vec<(Event, Opening)>,
}

/// The last good line of a chain, and where it stands.
struct Last {
    tip: Tip,
    chain: String,
    file_number: u64,
    clean: bool,
}

pub(crate) fn open(options: &LogOptions, key: &ChainKey) -> Result<Opened, LogOpenError> {
    let path = &options.path;
    let io = |error| LogOpenError::Io(path.clone(), error);
    let file = PrivateFile::append(path).and_then(PrivateFile::locked);
    let mut file = file.map_err(LogOpenError::of)?.into_file();

    let (here, torn) = end_of(&file, path, key)?;
    let fresh_file = here.is_none();
    let last = match here {
        Some(last) => Some(last),
        None => last_full(path, key)?,
    };
    if torn.is_some() || fresh_file {
        finish_line(&mut file).map_err(io)?;
    }
    let (head, chain, doubts) = anchor(options, key, last.as_ref())?;
    let file_number = last.as_ref().map_or(1, |last| last.file_number + u64::from(fresh_file));
    let begins = Opening {
        version: Some(VERSION),
        chain: Some(chain.clone()),
        key: Some(key.id()),
        file: Some(file_number),
        ..Opening::default()
    };
    let start = Opening {
        pid: Some(std::process::id()),
        clean: last.as_ref().map(|last| last.clean),
        ..Opening::default()
    };
    // Whatever is wrong stands in the very first line.
    let mut first = match (&last, fresh_file) {
        (None, _) => vec![(Event::Genesis, begins), (Event::Start, start)],
        (Some(_), true) => vec![(Event::Rotate, begins), (Event::Start, start)],
        (Some(_), false) => vec![(Event::Start, start)],
    };
    if let Some((_, opening)) = first.first_mut() {
        opening.torn = torn;
        opening.missing = doubts.missing;
        opening.head = doubts.head;
    }
    let begins = last.is_none();
    let tip = last.map_or(Tip::GENESIS, |last| last.tip);
    Ok(Opened { file, head, tip, chain, file_number, begins, first })
}

/// What the files that belong to the log say against it.
struct Doubts {
    missing: Option<u64>,
    head: Option<&'static str>,
}

/// Holds the log against its head and what else is known of it; the head to go on with, and the chain.
fn anchor(
    options: &LogOptions,
    key: &ChainKey,
    last: Option<&Last>,
) -> Result<(HeadFile, String, Doubts), LogOpenError> {
    let path = &options.path;
    let head_io = |error| LogOpenError::Io(options.head.clone(), error);
    let found = head::read(&options.head, key).map_err(LogOpenError::of)?;
    let mut head_file = HeadFile::open(&options.head).map_err(LogOpenError::of)?;
    let noted = match &found {
        Found::Head(head) => Some(ChainMark { chain: head.chain.clone(), lines: head.lines() }),
        Found::Absent | Found::Unreadable => None,
    };
    let missing = missing([noted, options.known.clone()].iter().flatten(), last);
    if let Some(missing) = missing {
        tracing::error!(file = %path.display(), missing, "lines of the audit log that had been written are gone");
    }
    let head = match (&found, last) {
        (Found::Unreadable, _) => Some(HEAD_UNREADABLE),
        (Found::Absent, Some(_)) => Some(HEAD_GONE),
        _ => None,
    };
    if let Some(what) = head {
        tracing::error!(
            file = %options.head.display(),
            "the note of how far the audit log had got is {what}: lines may have been cut off the log's end"
        );
    }
    let chain = match (last, &found) {
        (Some(last), _) => last.chain.clone(),
        // A chain that was begun and whose first line a crash prevented.
        (None, Found::Head(head)) if head.n.is_none() => head.chain.clone(),
        (None, _) => new_chain()?,
    };
    // Where a head knows of lines, or did, it is left alone until the log says so.
    if last.is_none() && found == Found::Absent {
        head_file.write(&Head::begun(chain.clone()), key).map_err(head_io)?;
    }
    Ok((head_file, chain, Doubts { missing, head }))
}

/// Words for what is wrong with a head, in a line of the log.
const HEAD_GONE: &str = "gone";
const HEAD_UNREADABLE: &str = "unreadable";

/// How many lines somebody knows of that are not there.
fn missing<'a>(known: impl Iterator<Item = &'a ChainMark>, last: Option<&Last>) -> Option<u64> {
    let missing_of = |mark: &ChainMark| {
        let there = last.filter(|last| last.chain == mark.chain).map_or(0, |last| last.tip.next);
        mark.lines.saturating_sub(there)
    };
    known.map(missing_of).max().filter(|missing| *missing > 0)
}

fn new_chain() -> Result<String, LogOpenError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| LogOpenError::Randomness)?;
    Ok(to_hex(&random))
}

/// Sees to it that what is written next begins on a line of its own.
fn finish_line(file: &mut File) -> io::Result<()> {
    let (_, end) = files::read_tail(file, 1)?;
    if end.first().is_some_and(|byte| *byte != b'\n') {
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// The last good line of a file, and what was torn behind it. `None` where the file holds no good line because a crash
/// came before its first was whole.
fn end_of(file: &File, path: &Path, key: &ChainKey) -> Result<(Option<Last>, Option<Torn>), LogOpenError> {
    let io = |error| LogOpenError::Io(path.to_owned(), error);
    let (start, tail) = files::read_tail(file, TAIL_BYTES).map_err(io)?;
    if tail.is_empty() {
        return Ok((None, None));
    }
    let first = first_line(path).map_err(io)?;
    if let Some(first) = first.as_ref().and_then(|first| first.key.as_ref())
        && *first != key.id()
    {
        return Err(LogOpenError::OtherKey(path.to_owned()));
    }
    let Some((good, end)) = last_good(&tail, key) else {
        // Nothing good: only a file torn in its very first write may be gone on with.
        let torn_at_birth = start == 0 && tail.len() <= MAX_LINE_BYTES && first.is_none();
        return if torn_at_birth {
            Ok((None, Some(Torn::of(&tail))))
        } else {
            Err(LogOpenError::Damaged(path.to_owned()))
        };
    };
    let line = tail.get(good.clone()).unwrap_or_default();
    let read = Read::parse(line).ok_or_else(|| LogOpenError::Damaged(path.to_owned()))?;
    let (chain, file_number) = first
        .and_then(|first| Some((first.chain?, first.file?)))
        .ok_or_else(|| LogOpenError::Damaged(path.to_owned()))?;
    let behind = tail.get(end..).unwrap_or_default();
    // A last line that is whole but for its line end is good; the end is put there.
    if end > tail.len() {
        file.try_clone().and_then(|mut file| file.write_all(b"\n")).map_err(io)?;
    }
    let torn = (!behind.is_empty()).then(|| Torn::of(behind));
    let clean = read.event == "stop" && torn.is_none();
    let tip = Tip { next: read.n + 1, prev: hash(line) };
    Ok((Some(Last { tip, chain, file_number, clean }), torn))
}

/// Where the last good line stands, and where what follows it begins.
fn last_good(tail: &[u8], key: &ChainKey) -> Option<(core::ops::Range<usize>, usize)> {
    let mut end = tail.len();
    loop {
        let start = tail.get(..end)?.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = tail.get(start..end)?;
        if key.vouches_for(line) && Read::parse(line).is_some() {
            return Some((start..end, end + 1));
        }
        end = start.checked_sub(1)?;
    }
}

/// The last good line of the last full file: the process ended between two files.
fn last_full(path: &Path, key: &ChainKey) -> Result<Option<Last>, LogOpenError> {
    let io = |error| LogOpenError::Io(path.to_owned(), error);
    let Some((_, full)) = files::all_full(path).map_err(io)?.pop() else { return Ok(None) };
    let file = PrivateFile::open_to_read(&full).map_err(LogOpenError::of)?.into_file();
    match end_of(&file, &full, key)? {
        (Some(last), None) => Ok(Some(last)),
        _ => Err(LogOpenError::Damaged(full)),
    }
}

/// A file's first line, which says whose it is; `None` where it is not whole.
pub(crate) fn first_line(path: &Path) -> io::Result<Option<Read>> {
    let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(open_public(path)?.take(limit));
    // A file torn at its birth has its first line behind the torn one.
    for _ in 0..2 {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if let Some(read) = Read::parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
            return Ok(Some(read));
        }
    }
    Ok(None)
}
