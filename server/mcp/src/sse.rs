//! Server-sent events as they travel: taken apart where one ends, and each kept as it came.
//!
//! Lines end as readers of such streams take it: by a carriage return, a line feed, or both.

use memchr::memchr2;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Cuts a stream into events of at most so many bytes.
#[derive(Debug)]
pub struct Events {
    most: usize,
    held: Vec<u8>,
    /// How far was looked, and where the line begins that goes on there.
    looked: usize,
    line: usize,
    /// Whether a line feed would belong to the end of the line before.
    after_return: bool,
    /// Whether the event has nothing but comments so far: those pass by themselves, since they keep a connection alive.
    only_comments: bool,
    is_first: bool,
}

/// An event is longer than allowed. What came of it must not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

/// One event, or one comment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    raw: Vec<u8>,
}

impl Events {
    /// Of at most so many bytes each.
    pub const fn at_most(most: usize) -> Self {
        Self {
            most,
            held: Vec::new(),
            looked: 0,
            line: 0,
            after_return: false,
            only_comments: true,
            is_first: true,
        }
    }

    /// Takes what came of the stream, and gives the events that it ends.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; the stream is of no use any more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        self.held.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.next_end() {
            let mut raw = self.held.split_off(end);
            core::mem::swap(&mut raw, &mut self.held);
            if raw.len() > self.most {
                return Err(TooLong);
            }
            self.begin_anew(&mut raw);
            events.push(Event { raw });
        }
        if self.held.len() > self.most { Err(TooLong) } else { Ok(events) }
    }

    /// Whether the stream ended in the middle of an event: its readers take none that has no end.
    pub fn is_broken_off(&self) -> bool {
        self.held.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Where the event ends that is held, if it does.
    fn next_end(&mut self) -> Option<usize> {
        loop {
            let rest = self.held.get(self.looked..).unwrap_or_default();
            if self.after_return && rest.first() == Some(&b'\n') {
                self.looked += 1;
                self.line = self.looked;
                self.after_return = false;
                continue;
            }
            let Some(found) = memchr2(b'\r', b'\n', rest) else {
                self.after_return &= rest.is_empty();
                self.looked = self.held.len();
                return None;
            };
            let end = self.looked + found;
            let line = self.held.get(self.line..end).unwrap_or_default();
            let (is_empty, is_comment) = (line.is_empty(), line.first() == Some(&b':'));
            self.after_return = self.held.get(end) == Some(&b'\r');
            self.looked = end + 1;
            self.line = self.looked;
            self.only_comments &= is_comment;
            if is_empty || self.only_comments {
                // The other half of the line's end goes with it, where it is there already.
                if self.after_return && self.held.get(self.looked) == Some(&b'\n') {
                    self.looked += 1;
                    self.after_return = false;
                }
                return Some(self.looked);
            }
        }
    }

    fn begin_anew(&mut self, raw: &mut Vec<u8>) {
        if self.is_first && raw.starts_with(BYTE_ORDER_MARK) {
            raw.drain(..BYTE_ORDER_MARK.len());
        }
        self.is_first = false;
        (self.looked, self.line, self.only_comments) = (0, 0, true);
    }
}

impl Event {
    /// The bytes that it came as.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// What it says, if it says anything: all its lines of data.
    pub fn data(&self) -> Option<Vec<u8>> {
        let mut data: Option<Vec<u8>> = None;
        for (_, value) in self.fields().filter(|(name, _)| *name == b"data") {
            match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            }
        }
        data
    }

    /// Where the stream could be taken up again behind it.
    pub fn id(&self) -> Option<&str> {
        let id = self.fields().filter(|(name, _)| *name == b"id").last()?.1;
        str::from_utf8(id).ok().filter(|id| !id.contains('\0'))
    }

    /// How long to wait before that, in milliseconds.
    pub fn retry_millis(&self) -> Option<u64> {
        let retry = self.fields().filter(|(name, _)| *name == b"retry").last()?.1;
        let is_number = !retry.is_empty() && retry.iter().all(u8::is_ascii_digit);
        str::from_utf8(retry).ok().filter(|_| is_number)?.parse().ok()
    }

    /// The same event saying something else.
    pub fn with_data(&self, data: &str) -> Vec<u8> {
        let mut written = Vec::with_capacity(self.raw.len().max(data.len()) + 16);
        for line in self.lines().filter(|line| name_and_value(line).0 != b"data") {
            written.extend_from_slice(line);
            written.push(b'\n');
        }
        for line in data.split(['\r', '\n']) {
            written.extend_from_slice(b"data: ");
            written.extend_from_slice(line.as_bytes());
            written.push(b'\n');
        }
        written.push(b'\n');
        written
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.raw.split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| !line.is_empty())
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().map(name_and_value)
    }
}

/// A line's name and value. A comment has no name.
fn name_and_value(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = memchr::memchr(b':', line) else { return (line, b"") };
    let (name, value) = line.split_at(colon);
    let value = value.strip_prefix(b":").unwrap_or(value);
    (name, value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stream: &[u8], piece: usize) -> (Vec<Event>, Events) {
        let mut events = Events::at_most(1_000);
        let found = stream.chunks(piece).flat_map(|bytes| events.push(bytes).unwrap()).collect();
        (found, events)
    }

    fn said(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
        all(stream, piece).0.iter().filter_map(Event::data).collect()
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut_and_whatever_ends_its_lines() {
        let stream = "\u{feff}data: a\n\nid: 1\nevent: message\ndata: b\ndata:c\ndata\n\n: ping\n\nretry: 20\ndata:  d\n\ndata: lost";
        for end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', end);
            for piece in 1..=stream.len() {
                let said = said(stream.as_bytes(), piece);
                assert_eq!(said, [&b"a"[..], b"b\nc\n", b" d"], "{end:?} {piece}");
                let (found, rest) = all(stream.as_bytes(), piece);
                assert!(rest.is_broken_off());
                let raw: Vec<u8> =
                    found.iter().flat_map(|event| event.raw().to_vec()).chain(rest.held).collect();
                assert_eq!(raw, stream.trim_start_matches('\u{feff}').as_bytes(), "{end:?} {piece}");
            }
        }
    }

    #[test]
    fn what_an_event_says_is_exchanged_and_the_rest_of_it_stays() {
        let (found, rest) = all(b"id: 7\nevent: message\ndata: {\"a\":\ndata: 1}\nretry: 5\n\n", 3);
        assert!(!rest.is_broken_off());
        let [event] = &found[..] else { panic!("{found:?}") };
        assert_eq!((event.id(), event.retry_millis()), (Some("7"), Some(5)));
        assert_eq!(event.data().unwrap(), b"{\"a\":\n1}");
        assert_eq!(event.with_data("x\ny"), b"id: 7\nevent: message\nretry: 5\ndata: x\ndata: y\n\n");
        let (found, _) = all(b"id: a\0b\nretry: 1x\ndata:\n\n", 100);
        assert_eq!((found[0].id(), found[0].retry_millis(), found[0].data()), (None, None, Some(vec![])));
    }

    #[test]
    fn a_comment_passes_before_an_event_ends_and_is_none() {
        let (found, rest) = all(b": ping\n", 1);
        assert_eq!((found.len(), found[0].raw(), found[0].data()), (1, &b": ping\n"[..], None));
        assert!(!rest.is_broken_off());
        // Inside an event it waits for the event's end.
        assert_eq!(said(b"data: a\n: ping\ndata: b\n\n", 1), [b"a\nb"]);
        assert_eq!(all(b"data: a\n: ping\n", 1).0, []);
    }

    #[test]
    fn an_event_is_bounded() {
        let mut events = Events::at_most(10);
        assert_eq!(events.push(b"data: 1\n\ndata: 2\n\n").unwrap().len(), 2);
        assert_eq!(events.push(b"data: 345\n\n"), Err(TooLong));
        let mut events = Events::at_most(10);
        events.push(b"data: 3456").unwrap();
        assert_eq!(events.push(b"7"), Err(TooLong));
    }
}
