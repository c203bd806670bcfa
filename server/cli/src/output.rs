//! What commands print: data on standard output, as a table for people or as JSON for programs.
//!
//! Output that does not arrive is a failure. Nobody has to remember that: the first write that fails is kept, and
//! [`finish`] makes the command fail at its end. What is lost with its output, a token, is printed by [`token`] instead.

use std::io::{self, Write};
use std::sync::OnceLock;

use obol_secret::text::plain_but;
use rustix::fs::{OFlags, fcntl_getfl, fstat, major, minor};
use serde_json::Value;

use crate::exit::{Failure, Outcome};

/// Why output did not arrive, the first time.
static FAILED: OnceLock<String> = OnceLock::new();

/// The device number of `/dev/null` on Linux.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Prints one line. A reader that has gone away, such as `head`, has seen enough.
pub(crate) fn line(text: &str) {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _earlier_one_counts = FAILED.set(error.to_string());
        }
        _ => {}
    }
}

/// Prints what is gone for good if it does not arrive.
pub(crate) fn token(text: &str) -> Outcome {
    write(text).map_err(|error| {
        Failure::other(format_args!(
            "cannot write to standard output: {error}; the token is lost, draw another"
        ))
    })
}

/// Refuses a standard output that was closed, before anything is drawn for it. The runtime puts `/dev/null` in its place,
/// open both ways, which no shell does.
pub(crate) fn must_be_open() -> Outcome {
    let stdout = io::stdout();
    let is_null = fstat(&stdout).is_ok_and(|stat| (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE);
    let both_ways = fcntl_getfl(&stdout).is_ok_and(|flags| flags.contains(OFlags::RDWR));
    if is_null && both_ways {
        return Err(Failure::other(
            "standard output is closed, so a token could not be printed; nothing was drawn",
        ));
    }
    Ok(())
}

/// Whether all of it arrived.
pub(crate) fn finish() -> Outcome {
    match (FAILED.get(), io::stdout().flush()) {
        (Some(error), _) => Err(unwritten(error)),
        (None, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
        _ => Ok(()),
    }
}

fn unwritten(error: &dyn core::fmt::Display) -> Failure {
    Failure::other(format_args!("cannot write to standard output: {error}"))
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    // Names come from others. A text of ours may have several lines.
    writeln!(stdout, "{}", plain_but(text, |character| character == '\n')).and_then(|()| stdout.flush())
}

/// Prints JSON, indented.
pub(crate) fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// A table whose columns are as wide as their widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self) {
        for row in self.lines() {
            line(&row);
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let pad = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(pad).collect()
    }
}

/// A value as its JSON text has it, without quotes.
pub(crate) fn text(value: &impl serde::Serialize) -> Outcome<String> {
    let value = serde_json::to_value(value).map_err(Failure::other)?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// How long a renewal may take, in milliseconds, before it counts as one that failed and waits to be tried again.
const LONG_RENEWAL_MS: u64 = 1_000;

/// In how many seconds a renewal is tried again, where that is worth a word: minting backs off.
pub(crate) fn backs_off(pending: bool, retry_after_ms: Option<u64>) -> Option<u64> {
    retry_after_ms.filter(|wait| pending && *wait > LONG_RENEWAL_MS).map(|wait| wait.div_ceil(1_000))
}

/// A time as people say it.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Text as a shell takes it for one word.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@%".contains(c);
    let is_word = !text.is_empty() && text.chars().all(plain);
    if is_word { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["tool", "depth"]);
        table.row(["a_long_name".to_owned(), "3".to_owned()]);
        assert_eq!(table.lines(), ["tool         depth", "a_long_name  3"]);
    }

    #[test]
    fn times_are_said_in_their_two_largest_units() {
        assert_eq!([duration(59), duration(3_700), duration(90_000)], ["59 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn a_word_stays_one_word() {
        for (text, quoted) in
            [("a/b-c", "a/b-c"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("$x", "'$x'")]
        {
            assert_eq!(quote(text), quoted);
        }
    }
}
