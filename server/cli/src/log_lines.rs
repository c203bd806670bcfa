//! Where log lines go: to standard error, which somebody may have stopped reading.
//!
//! A command writes them straight away. A daemon must not: standard error may be a pipe that is full, and its loop would
//! stand still until somebody reads, with every caller and every signal. There a line goes into a bounded buffer, which one
//! thread writes. What finds no room is given up and counted; once there is room, a line says how many were.
//!
//! The thread is not started by itself: a sandbox holds for the threads that are started inside it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::time::Instant;

use obol_secret::text::plain_but;
use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// The most that waits to be written, in bytes. As much again may be on its way.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// How long the end of the process waits for what was not read yet.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// Pause before a write to a descriptor that does not block is tried again.
const RETRY: Duration = Duration::from_millis(10);

static LINES: Lines = Lines::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Whether the subscriber writes colours.
static COLOUR: AtomicBool = AtomicBool::new(false);

/// Lets colours through, for a terminal.
pub(crate) fn allow_colour(allowed: bool) {
    COLOUR.store(allowed, Ordering::Relaxed);
}

/// Lines that were given up since the process began.
pub(crate) fn dropped() -> &'static AtomicU64 {
    &DROPPED
}

/// From here on lines wait until [`begin`]; also what a panic says.
pub(crate) fn hold() {
    LINES.state.lock().held = true;
    std::panic::set_hook(Box::new(note_panic));
}

/// Starts the thread that writes them. To be called by a daemon before it serves, and inside its sandbox.
pub(crate) fn begin() -> io::Result<()> {
    if core::mem::replace(&mut LINES.state.lock().begun, true) {
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("obol-log".to_owned());
    thread.spawn(|| LINES.write_all(&mut io::stderr())).map(drop)
}

/// Writes what waits, as far as somebody reads it soon.
pub(crate) fn end() {
    let mut state = LINES.state.lock();
    if !state.held {
        return;
    }
    drop(state);
    if begin().is_err() {
        return;
    }
    let deadline = Instant::now() + END_PATIENCE;
    state = LINES.state.lock();
    while (state.writing || !state.waiting.is_empty())
        && !LINES.written.wait_until(&mut state, deadline).timed_out()
    {}
}

/// Writes one line that is not part of the log proper.
pub(crate) fn line(text: &str) {
    // A reader that has gone away does not stop the daemon.
    let _reader_gone = Writer.write_all(format!("{text}\n").as_bytes());
}

fn note_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(no message)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    let thread = std::thread::current();
    tracing::error!(thread = thread.name().unwrap_or("?"), place, %backtrace, "panicked: {message}");
}

/// The writer of the log's subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer;

impl MakeWriter<'_> for Writer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for Writer {
    /// Takes all of it: a whole line, as the subscriber hands it over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let safe = safe_line(line);
        if !LINES.put(&safe) {
            io::stderr().write_all(&safe)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line with nothing in it but what may reach a log; colours, where the subscriber was told to use them, and its end.
/// What others say cannot colour anything: the subscriber itself writes no escape of theirs.
fn safe_line(line: &[u8]) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(line);
    let (body, end) = text.strip_suffix('\n').map_or((&*text, ""), |body| (body, "\n"));
    let colour = COLOUR.load(Ordering::Relaxed);
    match plain_but(body, |character| colour && character == '\x1b') {
        Cow::Borrowed(_) if matches!(text, Cow::Borrowed(_)) => Cow::Borrowed(line),
        safe => Cow::Owned(format!("{safe}{end}").into_bytes()),
    }
}

/// Lines on their way.
struct Lines {
    state: Mutex<State>,
    came: Condvar,
    written: Condvar,
}

struct State {
    /// Lines go through the buffer.
    held: bool,
    /// The thread was started.
    begun: bool,
    waiting: Vec<u8>,
    /// The thread has taken some and not written them yet.
    writing: bool,
    /// Given up since it was last said.
    dropped: u64,
}

impl Lines {
    const fn new() -> Self {
        let state = State { held: false, begun: false, waiting: Vec::new(), writing: false, dropped: 0 };
        Self { state: Mutex::new(state), came: Condvar::new(), written: Condvar::new() }
    }

    /// Takes a line, or gives it up; false where lines are written straight away.
    fn put(&self, line: &[u8]) -> bool {
        let mut state = self.state.lock();
        if !state.held {
            return false;
        }
        if state.waiting.len() + line.len() > MAX_WAITING_BYTES {
            state.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let sleeps = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if sleeps {
            self.came.notify_one();
        }
        true
    }

    /// Writes what comes, for ever.
    fn write_all(&self, out: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state.lock();
            state.writing = false;
            self.written.notify_all();
            while state.waiting.is_empty() {
                self.came.wait(&mut state);
            }
            core::mem::swap(&mut state.waiting, &mut lines);
            state.writing = true;
            drop(state);
            let lost = write_patiently(out, &lines).map_or_else(|_| newlines(&lines), |()| 0);
            DROPPED.fetch_add(lost, Ordering::Relaxed);
            lines.clear();
            self.own_up(lost);
        }
    }

    /// Says how many lines were given up, now that one was written.
    fn own_up(&self, lost: u64) {
        let mut state = self.state.lock();
        state.dropped += lost;
        if lost > 0 || state.dropped == 0 {
            return;
        }
        let lines = core::mem::take(&mut state.dropped);
        drop(state);
        tracing::warn!(lines, "lines of this log were dropped: nothing read them in time");
    }
}

fn newlines(lines: &[u8]) -> u64 {
    lines.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Writes all of it, also where the descriptor does not block.
fn write_patiently(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
