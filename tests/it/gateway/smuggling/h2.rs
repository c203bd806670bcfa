//! HTTP/2 as bytes, for what no client would send.

use std::io::{Read, Write};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What a client begins with.
pub(crate) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers as they are, none in a table.
pub(crate) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// With a prefix of seven bits (RFC 7541, section 5.1).
fn integer(number: usize, out: &mut Vec<u8>) {
    let Some(mut rest) = number.checked_sub(127) else { return out.push(u8::try_from(number).unwrap()) };
    out.push(127);
    while rest >= 128 {
        out.push(u8::try_from(rest % 128 + 128).unwrap());
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// A request on the first stream, with this body.
pub(crate) fn request(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, 1, &block(headers));
    [preface(), head, frame(DATA, END_STREAM, 1, body)].concat()
}

/// Sends these bytes, and reads until the connection ends or nothing more comes.
pub(crate) fn exchange(stream: &mut (impl Read + Write), bytes: &[u8]) -> Vec<u8> {
    let _closed_early = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let _silent_or_closed = stream.read_to_end(&mut answer);
    answer
}

/// A frame that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error that ends a stream or the connection.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            RESET => 0,
            GO_AWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap()))
    }

    /// Whether nothing more comes on this stream.
    pub(crate) fn ends(&self, stream: u32) -> bool {
        let is_last = matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0;
        self.kind == GO_AWAY || (self.stream == stream && (is_last || self.kind == RESET))
    }
}

/// The frames up to one that is looked for, or to the connection's end.
pub(crate) fn frames(reader: &mut impl Read, is_last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut head = [0; 9];
    while reader.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        if reader.read_exact(&mut payload).is_err() {
            break;
        }
        frames.push(Frame { kind: head[3], flags: head[4], stream, payload });
        if frames.last().is_some_and(&is_last) {
            break;
        }
    }
    frames
}
