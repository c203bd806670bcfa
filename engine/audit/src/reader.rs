//! Reading a log backwards while it is written: some lines of it, the newest first, and whether they are as they were written.
//!
//! A page costs a bounded amount of reading, however long the log is and whatever is looked for. Every line that was read is
//! checked, also those that nobody asked for; [`check`](AuditLog::check) reads all of it.

use core::fmt;
use core::str::FromStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use obol_secret::file::open_public;
use serde::Deserialize;

use crate::chain::{ChainKey, LineHash, MAX_LINE_BYTES, Read, Torn, hash};
use crate::files;
use crate::log::Source;
use crate::recover::first_line;
use crate::verify::{Report, VerifyError, files_of, verify};
use crate::{AuditLog, Event};

/// How much is read at once, in bytes.
const BLOCK_BYTES: u64 = 256 << 10;
/// How much is read for one page, in bytes: some ten thousand lines.
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// How much is looked through for a good line behind what is none, in bytes: what a crash can tear is less.
const MAX_STRANGE_BYTES: usize = 4 << 20;
/// How often a check begins anew because a file was put aside meanwhile.
const MAX_TRIES: usize = 3;

/// A line, as its reader is told it. What does not apply is absent.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Line {
    /// Its number.
    pub n: u64,
    /// When it was written, ISO 8601.
    pub time: String,
    /// What happened: a name of [`Event`].
    pub event: String,
    /// `allow` or `deny`.
    #[serde(default)]
    pub decision: Option<String>,
    /// Who did it.
    #[serde(default)]
    pub client: Option<String>,
    /// The agent.
    #[serde(default)]
    pub agent: Option<String>,
    /// The session, in 16 hex digits.
    #[serde(default)]
    pub session: Option<String>,
    /// The tool.
    #[serde(default)]
    pub tool: Option<String>,
    /// The resource server.
    #[serde(default)]
    pub audience: Option<String>,
    /// The protocol's error code.
    #[serde(default)]
    pub code: Option<String>,
    /// The check that failed.
    #[serde(default)]
    pub check: Option<String>,
    /// What was meant.
    #[serde(default)]
    pub scope: Option<String>,
    /// The reason somebody gave.
    #[serde(default)]
    pub reason: Option<String>,
    /// How many sessions ended.
    #[serde(default)]
    pub sessions_ended: Option<u64>,
    /// The policy epoch.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// How many things it is about.
    #[serde(default)]
    pub count: Option<u64>,
    /// When it ends what it is about, in Unix seconds.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

impl Event {
    /// As it is called in the log.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned()
    }
}

/// Where a page ends: in this file of the log, before this byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    file: u64,
    offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, self.offset)
    }
}

/// The text is not a place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAPlace;

impl fmt::Display for NotAPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a place in an audit log")
    }
}

impl core::error::Error for NotAPlace {}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (file, offset) = text.split_once('.').ok_or(NotAPlace)?;
        let number = |text: &str| text.parse().map_err(|_| NotAPlace);
        Ok(Self { file: number(file)?, offset: number(offset)? })
    }
}

/// Some lines, and what is known of all that were read to find them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogPage {
    /// The lines that were wanted, the newest first.
    pub lines: Vec<Line>,
    /// Where the next page ends; `None` where the log begins, or goes on in files that are not there.
    pub next: Option<Place>,
    /// How many good lines were read.
    pub read: u64,
    /// The numbers of the oldest and the newest of them.
    pub numbers: Option<(u64, u64)>,
    /// What is wrong with what was read, in words; the first of it.
    pub problem: Option<String>,
}

impl AuditLog {
    /// The newest lines before a place that are `wanted`, at most so many. Where few are, a page holds fewer, and says where to go on.
    ///
    /// # Errors
    ///
    /// Where the files cannot be read, or the log has no such place.
    pub fn page(
        &self,
        before: Option<Place>,
        most: usize,
        wanted: impl Fn(&Line) -> bool,
    ) -> io::Result<LogPage> {
        // What cannot be made durable is read as far as it is there.
        let _not_durable = self.sync();
        let mut walk = Walk::new(&self.source.key, most, &wanted);
        let mut files = numbered(&self.source.path)?;
        if let Some(before) = before {
            files.retain(|(number, _)| *number <= before.file);
        }
        let mut end = before;
        while let Some((number, path)) = files.pop() {
            let file = open_public(&path)?;
            let length = file.metadata()?.len();
            let upto = match end.take().filter(|end| end.file == number) {
                Some(end) if end.offset > length || !ends_a_line(&file, end.offset)? => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, NotAPlace));
                }
                Some(end) => end.offset,
                None => length,
            };
            if let Some(offset) = walk.file(&file, upto)? {
                walk.page.next = (offset > 0 || !files.is_empty()).then_some(Place { file: number, offset });
                break;
            }
        }
        Ok(walk.page)
    }

    /// Checks the log from its first line to its last, or the newest files of it where all have more bytes than `most`. Tells whether
    /// it was all.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn check(&self, most: u64) -> Result<(Report, bool), VerifyError> {
        let Source { path, head, key } = &self.source;
        let io = |error| VerifyError::Io(path.clone(), error);
        let _not_durable = self.sync();
        let mut tries = 0;
        loop {
            let all = files_of(path).map_err(io)?;
            let (mut room, mut newest) = (most, Vec::new());
            for file in all.iter().rev() {
                let length = file.metadata().map_err(io)?.len();
                if length > room && !newest.is_empty() {
                    break;
                }
                room = room.saturating_sub(length);
                newest.push(file.clone());
            }
            let report = verify(&newest, Some(key), Some(head))?;
            tries += 1;
            // A file that was put aside meanwhile was looked for under its old name.
            if tries < MAX_TRIES && files_of(path).map_err(io)? != all {
                continue;
            }
            return Ok((report, newest.len() == all.len()));
        }
    }
}

/// The log's files with their numbers, the oldest first.
fn numbered(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = files::all_full(path)?;
    let behind = files.last().map_or(1, |(number, _)| number.saturating_add(1));
    if path.exists() {
        let first = first_line(path)?;
        files.push((first.and_then(|first| first.file).unwrap_or(behind).max(behind), path.to_owned()));
    }
    Ok(files)
}

fn ends_a_line(file: &File, offset: u64) -> io::Result<bool> {
    let Some(last) = offset.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// The line that follows in the log: what was read before this one.
struct Newer {
    n: u64,
    prev: LineHash,
    torn: Option<Torn>,
}

/// Goes backwards through a log.
struct Walk<'a> {
    key: &'a ChainKey,
    most: usize,
    wanted: &'a dyn Fn(&Line) -> bool,
    page: LogPage,
    newer: Option<Newer>,
    /// What lies between the line that follows and the next good one, and is none: the newest first.
    strange: Vec<Vec<u8>>,
    strange_bytes: usize,
    left: u64,
}

impl<'a> Walk<'a> {
    fn new(key: &'a ChainKey, most: usize, wanted: &'a dyn Fn(&Line) -> bool) -> Self {
        Self {
            key,
            most,
            wanted,
            page: LogPage::default(),
            newer: None,
            strange: Vec::new(),
            strange_bytes: 0,
            left: MAX_PAGE_BYTES,
        }
    }

    /// Reads a file from here backwards: to its beginning, or to where the page is over.
    fn file(&mut self, file: &File, mut end: u64) -> io::Result<Option<u64>> {
        let mut is_last = true;
        while end > 0 {
            let start = end.saturating_sub(BLOCK_BYTES);
            let mut block = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut block, start)?;
            // A line that is cut by the block's beginning is read with the next.
            let first = match start {
                0 => 0,
                _ => block.iter().position(|byte| *byte == b'\n').map_or(block.len(), |place| place + 1),
            };
            if first == block.len() {
                self.problem("there are bytes that are no lines".to_owned());
                return Ok(Some(0));
            }
            let mut upto = block.len();
            if core::mem::take(&mut is_last) && block.last() != Some(&b'\n') {
                // It is being written, or a crash tore it and nothing was written since.
                upto = block.iter().rposition(|byte| *byte == b'\n').map_or(first, |place| place + 1);
            }
            while upto > first {
                let whole = block.get(first..upto - 1).unwrap_or_default();
                let begin =
                    whole.iter().rposition(|byte| *byte == b'\n').map_or(first, |place| first + place + 1);
                let is_good = self.line(block.get(begin..upto - 1).unwrap_or_default());
                upto = begin;
                let offset = start + upto as u64;
                self.left = self.left.saturating_sub((whole.len() + 1) as u64 - (begin - first) as u64);
                if self.strange_bytes > MAX_STRANGE_BYTES {
                    self.problem("there are bytes that are no lines".to_owned());
                    return Ok(Some(0));
                }
                if is_good && (self.page.lines.len() >= self.most || self.left == 0) {
                    return Ok(Some(offset));
                }
            }
            end = start + first as u64;
        }
        Ok(None)
    }

    /// One line; whether it is one of this log.
    fn line(&mut self, line: &[u8]) -> bool {
        let read = Read::parse(line).filter(|_| line.len() <= MAX_LINE_BYTES && self.key.vouches_for(line));
        let Some(read) = read else {
            self.strange_bytes += line.len() + 1;
            self.strange.push(line.to_vec());
            return false;
        };
        self.follows(&read, hash(line));
        let prev = obol_secret::text::from_hex::<32>(&read.prev).unwrap_or_default();
        self.newer = Some(Newer { n: read.n, prev, torn: read.torn });
        self.page.read += 1;
        let newest = self.page.numbers.map_or(read.n, |(_, newest)| newest);
        self.page.numbers = Some((read.n, newest));
        if let Ok(line) = serde_json::from_slice::<Line>(line)
            && (self.wanted)(&line)
        {
            self.page.lines.push(line);
        }
        true
    }

    /// Whether the line that was read before was written after this one.
    fn follows(&mut self, read: &Read, hash: LineHash) {
        let mut strange = core::mem::take(&mut self.strange);
        self.strange_bytes = 0;
        strange.reverse();
        let Some(newer) = self.newer.take() else {
            if !strange.is_empty() {
                self.problem(format!("behind line number {} stands what the log did not write", read.n));
            }
            return;
        };
        let is_torn = newer.torn.as_ref().is_some_and(|torn| *torn == Torn::of(&strange.join(&b'\n')));
        if !strange.is_empty() && !is_torn {
            self.problem(format!(
                "between the lines number {} and {} stands what the log did not write",
                read.n, newer.n
            ));
        } else if read.n.checked_add(1) != Some(newer.n) {
            self.problem(format!("line number {} stands behind number {}", newer.n, read.n));
        } else if newer.prev != hash {
            self.problem(format!("line number {} was not written after the one before it", newer.n));
        }
    }

    fn problem(&mut self, problem: String) {
        self.page.problem.get_or_insert(problem);
    }
}
