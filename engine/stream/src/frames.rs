//! Server-sent events: each carries one sealed message as base64url in its `data` field. Proxies pass these on as they come,
//! and buffer most else.
//!
//! What is read is bounded and comes from anybody on the way; whether the service said it shows when it is opened.

use core::fmt;
use core::ops::Range;

use obol_secret::text::{base64url_len, from_base64url, to_base64url};

/// The bytes are not a stream of events of ours. The connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// An event is longer than the longest message.
    TooLong,
    /// An event has another form.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "an event of the stream is longer than any message is",
            Self::Malformed => "the stream has another form than the service's",
        })
    }
}

impl core::error::Error for FrameError {}

const DATA: &[u8] = b"data:";

/// The event that carries a sealed message.
pub fn frame(sealed: &[u8]) -> Vec<u8> {
    ["data: ", &to_base64url(sealed), "\n\n"].concat().into_bytes()
}

/// Takes bytes as they come, and gives sealed messages. After an error it gives none.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    /// How much of the buffer was read: it is cut off once more comes, and not line by line.
    read: usize,
    /// How far the buffer was searched for the end of a line.
    searched: usize,
    /// The letters of the event whose end has not come yet.
    data: Option<Vec<u8>>,
    max_letters: usize,
    failed: Option<FrameError>,
}

impl Frames {
    /// For messages of at most so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        let max_letters = base64url_len(max_bytes).unwrap_or(usize::MAX / 2);
        Self { buffer: Vec::new(), read: 0, searched: 0, data: None, max_letters, failed: None }
    }

    /// Adds what came. What was there before is to be taken out first: it is bounded by that.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.drain(..self.read);
            self.searched -= self.read;
            self.read = 0;
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next message, if the whole of it has come.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the same from then on.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.next_event().inspect_err(|error| {
            *self = Self { failed: Some(*error), ..Self::new(0) };
        })
    }

    fn next_event(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        while let Some(line) = self.line()? {
            let line = self.buffer.get(line).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                let Some(letters) = self.data.take() else { continue };
                let sealed = from_base64url(&letters, self.max_letters);
                return sealed.map(Some).map_err(|_| FrameError::Malformed);
            }
            // Comments keep a connection open, and other fields say nothing that counts: none of it is sealed.
            let Some(letters) = line.strip_prefix(DATA) else { continue };
            let letters = letters.strip_prefix(b" ").unwrap_or(letters);
            // A message has one line.
            if self.data.replace(letters.to_vec()).is_some() {
                return Err(FrameError::Malformed);
            }
        }
        Ok(None)
    }

    /// Where the next whole line is, without its end.
    fn line(&mut self) -> Result<Option<Range<usize>>, FrameError> {
        let longest = self.max_letters.saturating_add(DATA.len() + 2);
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(place) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.buffer.len() - self.read > longest { Err(FrameError::TooLong) } else { Ok(None) };
        };
        let (start, end) = (self.read, self.searched + place);
        if end - start > longest {
            return Err(FrameError::TooLong);
        }
        (self.read, self.searched) = (end + 1, end + 1);
        Ok(Some(start..end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames) -> Result<Vec<Vec<u8>>, FrameError> {
        core::iter::from_fn(|| frames.next_message().transpose()).collect()
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_out_however_it_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
            cut in 1_usize..64,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            let mut frames = Frames::new(200);
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.push(piece);
                found.extend(all(&mut frames).unwrap());
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn junk_ends_in_an_error_or_in_nothing_and_holds_no_more_than_one_message(
            junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..40),
        ) {
            let mut frames = Frames::new(64);
            for piece in junk {
                frames.push(&piece);
                let failed = all(&mut frames).is_err();
                prop_assert!(frames.buffer.len() <= 64 * 2 + 100);
                prop_assert!(!failed || frames.buffer.is_empty());
            }
        }
    }

    #[test]
    fn comments_other_fields_and_both_line_ends_are_passed_over() {
        let mut frames = Frames::new(16);
        frames.push(b": hello\r\nid: 7\nevent: x\n\ndata:YWI\r\n\r\ndata: YWI\n\n");
        assert_eq!(all(&mut frames).unwrap(), [b"ab", b"ab"]);
    }

    #[test]
    fn what_is_too_long_or_has_two_lines_is_refused_for_good() {
        for (bytes, error) in [
            (&b"data: YWI\ndata: YWI\n\n"[..], FrameError::Malformed),
            (b"data: YW=\n\n", FrameError::Malformed),
            (b"data: YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo\n\n", FrameError::TooLong),
            (&[b'x'; 100], FrameError::TooLong),
        ] {
            let mut frames = Frames::new(8);
            frames.push(bytes);
            assert_eq!(all(&mut frames), Err(error));
            frames.push(&frame(b"ab"));
            assert_eq!(all(&mut frames), Err(error), "it stays so");
        }
    }
}
