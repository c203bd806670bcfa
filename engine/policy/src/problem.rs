//! What is wrong with a version: each problem with its file and line, and many at once, so that they can be mended at once.

use core::fmt;

use obol_secret::text::plain;

use crate::limits::MAX_PROBLEMS;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, counted from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", plain(&self.message))
    }
}

/// Why a version did not load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    problems: Vec<Problem>,
    more: usize,
}

impl LoadError {
    /// What is wrong, at most [`MAX_PROBLEMS`] of it.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl core::error::Error for LoadError {}

/// Gathers problems. Proof that there are none comes from [`none_or`](Self::none_or) only.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    problems: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(crate) fn add(&mut self, file: &str, line: Option<usize>, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { file: file.to_owned(), line, message: message.into() });
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn into_error(self) -> LoadError {
        LoadError { problems: self.problems, more: self.more }
    }

    /// The value, if nothing is wrong.
    pub(crate) fn none_or<T>(self, value: T) -> Result<T, LoadError> {
        if self.is_empty() { Ok(value) } else { Err(self.into_error()) }
    }
}

/// Where the lines of a text begin: to count them anew for each place would take the square of its length.
#[derive(Debug)]
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(end, _)| end + 1).collect())
    }

    /// The line of a place in bytes, counted from 1.
    pub(crate) fn at(&self, place: usize) -> usize {
        self.0.partition_point(|start| *start <= place) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let lines = Lines::of("a\nbc\n\nd");
        let found: Vec<_> = (0..9).map(|place| lines.at(place)).collect();
        assert_eq!(found, [1, 1, 2, 2, 2, 3, 4, 4, 4]);
        assert_eq!(Lines::of("").at(0), 1);
    }
}
