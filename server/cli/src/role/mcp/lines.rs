//! Lines, read and written.

use std::io::{self, BufRead, BufReader, Read, Write};

use parking_lot::Mutex;

/// The longest line of a client, in bytes.
pub(super) const MAX_CLIENT_BYTES: usize = 16 << 20;
/// The longest line of a server, in bytes: results may hold images.
pub(super) const MAX_SERVER_BYTES: usize = 64 << 20;
/// What is read at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// A line's room is given back when it was longer than this, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// A line with its end.
    Line,
    /// One that is longer than allowed; its rest was read and is gone.
    TooLong,
    /// The end, with what stood in front of it and has no end of its own.
    End,
}

/// Reads lines of at most so many bytes.
pub(super) struct Lines<R> {
    from: BufReader<R>,
    most: usize,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(from: R, most: usize) -> Self {
        Self { from: BufReader::with_capacity(BUFFER_BYTES, from), most, line: Vec::new() }
    }

    /// Reads the next line.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES);
        let mut whole = true;
        loop {
            let there = match self.from.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                there => there?,
            };
            if there.is_empty() {
                return Ok(Found::End);
            }
            let end = there.iter().position(|byte| *byte == b'\n').map(|place| place + 1);
            let part = there.get(..end.unwrap_or(there.len())).unwrap_or_default();
            whole &= self.line.len() + part.len() <= self.most;
            if whole {
                self.line.extend_from_slice(part);
            }
            let taken = part.len();
            self.from.consume(taken);
            if end.is_some() {
                return Ok(if whole { Found::Line } else { Found::TooLong });
            }
        }
    }

    /// What was read last, with its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }
}

/// A line without its end.
pub(super) fn inside(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// Where lines go. Closed once; then everything fails that is written.
pub(super) struct Sink<W>(Mutex<Option<W>>);

impl<W: Write> Sink<W> {
    pub(super) fn new(to: W) -> Self {
        Self(Mutex::new(Some(to)))
    }

    /// Writes a line that has its end.
    pub(super) fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut to = self.0.lock();
        let to = to.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        to.write_all(line)?;
        to.flush()
    }

    /// Writes a line, and ends it.
    pub(super) fn write_line(&self, mut line: String) -> io::Result<()> {
        line.push('\n');
        self.write(line.as_bytes())
    }

    /// Who reads there reads the end.
    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], most: usize) -> Vec<(Found, Vec<u8>)> {
        let mut lines = Lines::new(text, most);
        let mut found = Vec::new();
        loop {
            let what = lines.next().unwrap();
            found.push((what, lines.line().to_vec()));
            if what == Found::End {
                return found;
            }
        }
    }

    #[test]
    fn a_line_has_an_end_and_a_bound() {
        assert_eq!(
            read(b"one\r\n\ntwo\nbroken of", 5),
            [
                (Found::Line, b"one\r\n".to_vec()),
                (Found::Line, b"\n".to_vec()),
                (Found::Line, b"two\n".to_vec()),
                (Found::End, Vec::new()),
            ]
        );
        assert_eq!(read(b"four", 5), [(Found::End, b"four".to_vec())]);
        let long = [vec![b'x'; 3 * BUFFER_BYTES], b"\nnext\n".to_vec()].concat();
        assert_eq!(
            read(&long, 5),
            [(Found::TooLong, Vec::new()), (Found::Line, b"next\n".to_vec()), (Found::End, Vec::new())]
        );
    }

    #[test]
    fn what_is_closed_takes_nothing() {
        let sink = Sink::new(Vec::new());
        sink.write_line("a".to_owned()).unwrap();
        sink.close();
        assert_eq!(sink.write(b"b\n").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
