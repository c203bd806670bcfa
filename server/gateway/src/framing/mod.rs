//! Where one request ends and the next begins, decided before anything else reads them.
//!
//! Two readers of one connection that do not agree on that let one request hide in another (request smuggling). The HTTP library
//! repairs some of what is ambiguous; here it is refused: a length beside a coding, several of either, lines that end without a
//! carriage return or go on in the next one, spaces around a name. After a body of chunks, and after a request to change the
//! protocol, the connection carries no other request.

mod http2;

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use self::http2::check as check_http2;

/// The longest head of a request, in bytes. The longest token takes 43,800.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;
/// The most headers.
pub(crate) const MAX_HEADERS: usize = 96;
/// What is read at a time, in bytes.
const PIECE_BYTES: usize = 16 << 10;
/// The method of what takes the place of a request that is refused. Nobody else can use it: it is refused itself.
pub(crate) const REFUSED: &str = "OBOL-REFUSED";
/// In such a request: why.
pub(crate) const WHY: &str = "obol-why";

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// So many bytes after its head.
    After(u64),
    /// It is the connection's last.
    WithConnection,
}

/// A connection that hands on whole heads that can be read in one way, and of others only that there was one.
pub(crate) struct Strict<S> {
    stream: S,
    state: State,
    /// What came of a head so far.
    head: Vec<u8>,
    /// What may be read now.
    out: Vec<u8>,
    taken: usize,
    piece: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    Body(u64),
    /// Everything passes.
    Rest,
    /// Nothing does.
    Over,
}

impl<S> Strict<S> {
    pub(crate) fn new(stream: S) -> Self {
        let piece = Box::default();
        Self { stream, state: State::Head, head: Vec::new(), out: Vec::new(), taken: 0, piece }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Over => return,
                State::Rest => {
                    self.out.extend_from_slice(bytes);
                    return;
                }
                State::Body(left) => {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (body, rest) = bytes.split_at(now);
                    self.out.extend_from_slice(body);
                    bytes = rest;
                    self.state = match left - now as u64 {
                        0 => State::Head,
                        left => State::Body(left),
                    };
                }
                State::Head => bytes = self.feed_head(bytes),
            }
        }
    }

    /// Takes what belongs to the head, and gives what is left.
    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let seen = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = seen.saturating_sub(3);
        let end =
            self.head.get(from..).and_then(|tail| memmem::find(tail, b"\r\n\r\n")).map(|at| from + at + 4);
        let outcome = match end {
            Some(end) => {
                self.head.truncate(end);
                inspect(&self.head)
            }
            None if self.head.len() > MAX_HEAD_BYTES => Err("the head is longer than 65536 bytes"),
            // Its end would never be found.
            None if has_bare_line_end(
                self.head.get(seen.saturating_sub(1)..).unwrap_or_default(),
                seen == 0,
            ) =>
            {
                Err("a line of the head does not end with CR LF")
            }
            None => return &[],
        };
        let head = core::mem::take(&mut self.head);
        match outcome {
            Ok(how) => {
                self.out.extend_from_slice(&head);
                self.state = match how {
                    End::After(0) => State::Head,
                    End::After(bytes) => State::Body(bytes),
                    End::WithConnection => State::Rest,
                };
                end.and_then(|end| bytes.get(end - seen..)).unwrap_or_default()
            }
            Err(why) => {
                let refused = format!(
                    "{REFUSED} / HTTP/1.1\r\nhost: localhost\r\n{WHY}: {why}\r\nconnection: close\r\n\r\n"
                );
                self.out.extend_from_slice(refused.as_bytes());
                self.state = State::Over;
                &[]
            }
        }
    }
}

fn has_bare_line_end(bytes: &[u8], is_first: bool) -> bool {
    let is_bare = |pair: &[u8]| matches!(pair, [before, b'\n'] if *before != b'\r');
    (is_first && bytes.first() == Some(&b'\n')) || bytes.windows(2).any(is_bare)
}

/// How a request with this head ends, if there are no two ways to read it.
fn inspect(head: &[u8]) -> Result<End, &'static str> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or("the head does not end")?;
    let mut lines = Vec::new();
    for line in memmem_split(text) {
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err("a line of the head does not end with CR LF");
        }
        lines.push(line);
    }
    let (first, headers) = lines.split_first().ok_or("there is no request line")?;
    let is_1_1 = request_line(first)?;
    if headers.len() > MAX_HEADERS {
        return Err("there are more than 96 headers");
    }
    let (mut hosts, mut length, mut coded, mut upgrades) = (0, None, false, false);
    for line in headers {
        let (name, value) = header(line)?;
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" if length.is_some() => return Err("there are several Content-Length headers"),
            b"content-length" => length = Some(number(value).ok_or("Content-Length is not one number")?),
            b"transfer-encoding" if coded => return Err("there are several Transfer-Encoding headers"),
            b"transfer-encoding" if !value.eq_ignore_ascii_case(b"chunked") => {
                return Err("Transfer-Encoding is not chunked");
            }
            b"transfer-encoding" => coded = true,
            b"upgrade" => upgrades = true,
            b"expect" if !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err("Expect is not 100-continue");
            }
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && is_1_1) {
        return Err("there is not exactly one Host");
    }
    match (length, coded) {
        (Some(_), true) => Err("there is a Content-Length beside Transfer-Encoding"),
        (None, true) if !is_1_1 => Err("HTTP/1.0 has no Transfer-Encoding"),
        (None, true) => Ok(End::WithConnection),
        (_, false) if upgrades => Ok(End::WithConnection),
        (length, false) => Ok(End::After(length.unwrap_or(0))),
    }
}

fn memmem_split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let Some(place) = memmem::find(text, b"\r\n") else {
            rest = None;
            return Some(text);
        };
        rest = text.get(place + 2..);
        text.get(..place)
    })
}

/// Whether it is of HTTP/1.1, and not of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, &'static str> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the request line is not METHOD /path HTTP/1.1");
    };
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let is_target = target.first() == Some(&b'/') && target.iter().all(u8::is_ascii_graphic);
    if !is_method || !is_target || method == REFUSED.as_bytes() {
        return Err("the request line is not METHOD /path HTTP/1.1");
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

fn header(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a header continues on the next line");
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a header has no colon")?;
    let (name, value) = line.split_at_checked(colon).ok_or("a header has no colon")?;
    let value = value.get(1..).unwrap_or_default();
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err("a header's name has invalid characters");
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("a header holds a control character");
    }
    Ok((name, value.trim_ascii()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn number(value: &[u8]) -> Option<u64> {
    let is_number = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(ready) = this.out.get(this.taken..).filter(|ready| !ready.is_empty()) {
                let now = ready.len().min(buffer.remaining());
                buffer.put_slice(ready.get(..now).unwrap_or_default());
                this.taken += now;
                return Poll::Ready(Ok(()));
            }
            // A connection that waits for its next request holds no more memory than it must.
            (this.out, this.taken) = (Vec::new(), 0);
            match this.state {
                State::Rest => return Pin::new(&mut this.stream).poll_read(context, buffer),
                // An end would be taken for the caller's, who then got no answer; the refusal itself ends the connection.
                State::Over => return Poll::Pending,
                State::Head | State::Body(_) => {}
            }
            let mut piece = core::mem::take(&mut this.piece);
            if piece.is_empty() {
                piece = vec![0; PIECE_BYTES].into();
            }
            let mut read = ReadBuf::new(&mut piece);
            match Pin::new(&mut this.stream).poll_read(context, &mut read) {
                Poll::Pending => return Poll::Pending,
                outcome => ready!(outcome)?,
            }
            let length = read.filled().len();
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            this.feed(piece.get(..length).unwrap_or_default());
            this.piece = piece;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
