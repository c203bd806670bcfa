//! `obol status --watch`: what the sidecar does, second by second.
//!
//! On a terminal one screen is drawn over and over, on the terminal's second screen, which goes away at the end as if it
//! had never been there. Elsewhere a table comes out each time, or one line of JSON. A sidecar that goes away is said and
//! waited for.
//!
//! No library draws: what is used of a terminal is seven escape sequences and its size.

mod format;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use obol_client::ControlClient;
use obol_ipc::control::{SessionState, SessionStatus, StatusResult, ToolStatus};
use obol_secret::text::plain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::Outcome;
use crate::operate::backs_off;
use crate::settings::args::{Sockets, StatusArgs};

pub(crate) use self::format::duration;
use self::format::{Style, cut, decimal, number, percent, short};

/// How much of the rate shown is of the last interval; the rest is of before, so that it does not flicker.
const NEWEST: f64 = 0.4;
/// Sessions that get a line of their own.
const MAX_SESSION_LINES: usize = 3;
/// Size of a terminal that does not tell.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// `obol status --watch`.
pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(args))
}

/// What the sidecar said, or why it said nothing.
type Seen = Result<StatusResult, String>;

async fn watch(args: &StatusArgs) -> Outcome {
    let interval = Duration::from_secs_f64(args.interval);
    let mut seen = look_again_and_again(args.sockets.clone(), interval);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut screen = Screen::open(args.output.json);
    let mut view = View::default();
    loop {
        tokio::select! {
            Some(next) = seen.recv() => view.update(next, Instant::now()),
            _ = resized.recv() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
        if let Err(error) = screen.show(&view) {
            // Who read our output has seen enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
    }
}

/// Asks for the status at every interval, on a thread of its own, because asking may take long.
fn look_again_and_again(sockets: Sockets, interval: Duration) -> mpsc::Receiver<Seen> {
    let (send, receive) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut client = None;
        loop {
            let seen = look(&sockets, &mut client);
            if seen.is_err() {
                client = None;
            }
            if send.blocking_send(seen).is_err() {
                return;
            }
            std::thread::sleep(interval);
        }
    });
    receive
}

fn look(sockets: &Sockets, client: &mut Option<ControlClient>) -> Seen {
    let mut connected = match client.take() {
        Some(client) => client,
        None => sockets.control().map_err(|failure| failure.to_string())?,
    };
    let status = connected.status().map_err(|error| error.to_string())?;
    *client = Some(connected);
    Ok(status)
}

/// A tool for an audience in a session.
type Row = (u64, String, String);

/// What is shown: the last status, and how fast its numbers grow.
#[derive(Default)]
struct View {
    status: Option<StatusResult>,
    at: Option<Instant>,
    rates: BTreeMap<Row, Rates>,
    trouble: Option<String>,
    /// The status on the screen is not of now.
    stale: bool,
}

#[derive(Clone, Copy, Default)]
struct Rates {
    handed_out: f64,
    minted: f64,
}

fn row_of(tool: &ToolStatus) -> Row {
    (tool.session_id.as_u64(), tool.tool.to_string(), tool.audience.to_string())
}

impl View {
    fn update(&mut self, seen: Seen, now: Instant) {
        let status = match seen {
            Ok(status) => status,
            Err(trouble) => {
                self.trouble = Some(trouble);
                self.stale = true;
                return;
            }
        };
        let before = self.status.take().filter(|before| before.pid == status.pid);
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let counted: BTreeMap<Row, (u64, u64)> = before
            .iter()
            .flat_map(|before| &before.tools)
            .map(|tool| (row_of(tool), (tool.handed_out, tool.minted)))
            .collect();
        let mut rates = BTreeMap::new();
        for tool in &status.tools {
            let row = row_of(tool);
            let Some((handed_out, minted)) = counted.get(&row).copied().filter(|_| seconds > 0.0) else {
                continue;
            };
            let old = self.rates.get(&row);
            let smooth = |old: Option<f64>, count: u64| {
                let newest = per_second(count, seconds);
                old.map_or(newest, |old| old.mul_add(1.0 - NEWEST, newest * NEWEST))
            };
            let next = Rates {
                handed_out: smooth(old.map(|old| old.handed_out), tool.handed_out.saturating_sub(handed_out)),
                minted: smooth(old.map(|old| old.minted), tool.minted.saturating_sub(minted)),
            };
            rates.insert(row, next);
        }
        *self = Self { status: Some(status), at: Some(now), rates, trouble: None, stale: false };
    }

    fn rates(&self, tool: &ToolStatus) -> Rates {
        self.rates.get(&row_of(tool)).copied().unwrap_or_default()
    }

    /// The lines of a screen.
    fn lines(&self, (width, height): (usize, usize), style: Style) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(trouble) = &self.trouble {
            lines.push(style.alarm(&format!("no answer; asking again: {}", plain(trouble))));
        }
        let Some(status) = &self.status else { return lines };
        lines.push(style.strong(&headline(status)));
        lines.extend(session_lines(status));
        lines.push(totals(self, status));
        lines.push(String::new());
        let left = height.saturating_sub(lines.len());
        lines.extend(self.table(status, (width, left), style));
        if self.stale {
            lines = lines
                .into_iter()
                .enumerate()
                .map(|(n, line)| if n == 0 { line } else { style.dim(&line) })
                .collect();
        }
        lines
    }

    fn table(&self, status: &StatusResult, (width, height): (usize, usize), style: Style) -> Vec<String> {
        let mut tools: Vec<_> = status.tools.iter().collect();
        let rate = |tool: &ToolStatus| self.rates(tool).handed_out;
        tools.sort_by(|a, b| {
            rate(b).total_cmp(&rate(a)).then(b.handed_out.cmp(&a.handed_out)).then(row_of(a).cmp(&row_of(b)))
        });
        let several = status.tools.windows(2).any(|pair| matches!(pair, [a, b] if a.audience != b.audience));
        let mut names: Vec<String> = tools
            .iter()
            .map(|tool| {
                if several {
                    format!("{} → {}", tool.tool, plain(tool.audience.as_str()))
                } else {
                    tool.tool.to_string()
                }
            })
            .collect();
        let unknown: Vec<_> =
            status.denials.iter().filter(|(name, _)| !tools.iter().any(|tool| tool.tool == **name)).collect();
        let wanted = tools.len() + unknown.len();
        let room = if wanted + 1 > height { height.saturating_sub(2) } else { wanted };
        names.truncate(room);
        let mut rows: Vec<Line> = tools
            .iter()
            .zip(names)
            .map(|(tool, name)| {
                let alarming = tool.denied || backs_off(tool.renewal_pending, tool.retry_after_ms).is_some();
                Line { name, cells: self.cells(tool, status), state: state(tool), alarming }
            })
            .collect();
        for (name, count) in unknown.iter().take(room.saturating_sub(rows.len())) {
            let cells = format!("{:>cells$}", number(**count), cells = HEADER.len());
            let state = "  not granted".to_owned();
            rows.push(Line { name: name.to_string(), cells, state, alarming: true });
        }
        // On a narrow screen the names give way: they are known to who looks, the state is not.
        let longest =
            |of: fn(&Line) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (names, states) = (longest(|row| &row.name), longest(|row| &row.state));
        let width = names.min(width.saturating_sub(HEADER.len() + states)).clamp(8, 40);
        let mut lines = vec![style.strong(&format!("{:width$}{HEADER}", "tool"))];
        let mut seen = BTreeMap::new();
        for Line { name, cells, state, alarming } in rows {
            let name = short(&name, width, &mut seen);
            let line = format!("{name:width$}{cells}{state}");
            lines.push(if alarming { style.alarm(&line) } else { line });
        }
        let shown = lines.len() - 1;
        if shown < wanted {
            lines.push(style.dim(&format!("and {} more", wanted - shown)));
        }
        lines
    }

    fn cells(&self, tool: &ToolStatus, status: &StatusResult) -> String {
        let rates = self.rates(tool);
        // With several sessions a tool comes several times; its denials are not known apart.
        let denials = status.denials.get(&tool.tool).copied().unwrap_or(0);
        format!(
            "{:>6}{:>6}{:>8}{:>7}{:>7}{:>6}{:>7}{:>7}",
            number(tool.ready),
            number(tool.ready + tool.stored),
            format!("{} s", tool.ttl),
            decimal(rates.handed_out),
            decimal(rates.minted),
            number(tool.handed_out),
            percent(tool.expired, tool.minted),
            number(denials),
        )
    }
}

/// One line of the table.
struct Line {
    name: String,
    cells: String,
    state: String,
    alarming: bool,
}

/// As wide as what stands below it, and with a short name and a state within the 80 columns of a usual terminal.
const HEADER: &str = " ready depth     ttl  out/s mint/s drawn  waste denied";

/// What stands behind a tool's numbers.
fn state(tool: &ToolStatus) -> String {
    match (tool.denied, tool.renewal_pending, backs_off(tool.renewal_pending, tool.retry_after_ms)) {
        (true, ..) => "  denied".to_owned(),
        (false, _, Some(seconds)) => format!("  in {seconds} s"),
        (false, true, None) => "  renewing".to_owned(),
        (false, false, None) => String::new(),
    }
}

/// A count of some interval, for each second.
fn per_second(count: u64, seconds: f64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds
}

fn headline(status: &StatusResult) -> String {
    let active = status.sessions.iter().filter(|session| session.state == SessionState::Active).count();
    format!(
        "obol {} · process {} · up {} · {} sessions, {active} active · {} queues",
        status.version,
        status.pid,
        duration(status.uptime_seconds),
        status.sessions.len(),
        status.tools.len()
    )
}

fn session_lines(status: &StatusResult) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // The one provisioned last is the one in use.
    let mut lines: Vec<_> = status
        .sessions
        .iter()
        .rev()
        .take(MAX_SESSION_LINES)
        .map(|session| session_line(session, now))
        .collect();
    if status.sessions.is_empty() {
        lines.push("no session: authenticate, or provision one".to_owned());
    }
    lines
}

fn session_line(session: &SessionStatus, now: u64) -> String {
    let state = match session.state {
        SessionState::Active => {
            format!("active, ends in {}", duration(session.expires_at.unix_seconds().saturating_sub(now)))
        }
        SessionState::Flushed => "flushed".to_owned(),
        SessionState::Held => "held back by a flush".to_owned(),
        _ => "over".to_owned(),
    };
    format!(
        "session {} · {} · suite {} · {state}",
        session.session_id, session.agent_instance_id, session.algorithm_suite
    )
}

fn totals(view: &View, status: &StatusResult) -> String {
    let sum = |of: fn(&ToolStatus) -> u64| status.tools.iter().map(of).sum::<u64>();
    let rates = status.tools.iter().map(|tool| view.rates(tool));
    let (out, minted) =
        rates.fold((0.0, 0.0), |(out, minted), rates| (out + rates.handed_out, minted + rates.minted));
    let (expired, all) = (sum(|tool| tool.expired), sum(|tool| tool.minted));
    format!(
        "depth {} · {} handed out a second · {} minted · waste {} · {} denials",
        number(sum(|tool| tool.ready + tool.stored)),
        decimal(out),
        decimal(minted),
        percent(expired, all),
        number(status.denials.values().sum())
    )
}

/// Where it is shown.
enum Screen {
    /// A terminal's second screen, left when dropped.
    Terminal(Style),
    Text {
        json: bool,
        first: bool,
    },
}

impl Screen {
    fn open(json: bool) -> Self {
        if json || !io::stdout().is_terminal() {
            return Self::Text { json, first: true };
        }
        let colour = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        print_now(ENTER);
        Self::Terminal(Style { colour })
    }

    fn show(&mut self, view: &View) -> io::Result<()> {
        let mut out = String::new();
        match self {
            Self::Terminal(style) => {
                let (width, height) = size();
                out.push_str(HOME);
                let lines = view.lines((width, height), *style);
                for (n, line) in lines.iter().take(height).enumerate() {
                    let end = if n + 1 < height.min(lines.len()) { "\r\n" } else { "" };
                    let _always = write!(out, "{}{CLEAR_LINE}{end}", cut(line, width));
                }
                if lines.len() < height {
                    let _always = write!(out, "\r\n{CLEAR_BELOW}");
                }
            }
            Self::Text { json: true, .. } => {
                let value = match (&view.trouble, &view.status) {
                    (None, Some(status)) => serde_json::to_value(status).map_err(io::Error::other)?,
                    (trouble, _) => serde_json::json!({ "error": trouble }),
                };
                let _always = writeln!(out, "{value}");
            }
            Self::Text { first, .. } => {
                if !std::mem::take(first) {
                    out.push('\n');
                }
                let shown = if view.stale {
                    View { trouble: view.trouble.clone(), ..View::default() }
                } else {
                    view.again()
                };
                for line in shown.lines((usize::MAX, usize::MAX), Style { colour: false }) {
                    out.push_str(line.trim_end());
                    out.push('\n');
                }
            }
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }
}

impl View {
    /// The same once more, to be shown.
    fn again(&self) -> Self {
        Self {
            status: self.status.clone(),
            at: self.at,
            rates: self.rates.clone(),
            trouble: self.trouble.clone(),
            stale: self.stale,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if matches!(self, Self::Terminal(_)) {
            print_now(LEAVE);
        }
    }
}

fn print_now(text: &str) {
    let mut stdout = io::stdout().lock();
    let _terminal_gone = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => DEFAULT_SIZE,
    }
}

/// An interval in seconds, from the command line.
pub(crate) fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("an interval is 0.1 to 3600 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_ipc::names::{Audience, SessionId, ToolName};

    fn tool(name: &str, handed_out: u64) -> ToolStatus {
        ToolStatus {
            session_id: SessionId::from_u64(1),
            tool: ToolName::new(name).unwrap(),
            audience: Audience::new("https://api.example").unwrap(),
            ready: 10,
            stored: 90,
            handed_out,
            minted: handed_out + 100,
            expired: 5,
            discarded: 0,
            ttl: 42,
            denied: false,
            renewal_pending: true,
            retry_after_ms: Some(10),
        }
    }

    fn status(pid: u32, tools: Vec<ToolStatus>) -> StatusResult {
        StatusResult {
            version: "0.1.0".to_owned(),
            pid,
            uid: 1000,
            agent_users: Vec::new(),
            uptime_seconds: 61,
            sessions: Vec::new(),
            tools,
            denials: [(ToolName::new("rm").unwrap(), 3)].into(),
            next: None,
            hold: None,
            denied: Vec::new(),
        }
    }

    fn plain(view: &View, height: usize) -> String {
        view.lines((100, height), Style { colour: false }).join("\n")
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks_and_begin_afresh_with_another_process() {
        let mut view = View::default();
        let start = Instant::now();
        view.update(Ok(status(1, vec![tool("search", 100)])), start);
        view.update(Ok(status(1, vec![tool("search", 150)])), start + Duration::from_secs(2));
        assert!((view.rates(&tool("search", 0)).handed_out - 25.0).abs() < 0.01);
        assert!(plain(&view, 24).contains("25.0"), "{}", plain(&view, 24));
        view.update(Ok(status(2, vec![tool("search", 3)])), start + Duration::from_secs(4));
        assert!(view.rates(&tool("search", 0)).handed_out.abs() < 0.01);
    }

    #[test]
    fn minting_that_backs_off_is_told_apart_from_minting() {
        let show = |wait, denied| {
            let mut view = View::default();
            let tool = ToolStatus { retry_after_ms: Some(wait), denied, ..tool("search", 1) };
            view.update(Ok(status(1, vec![tool])), Instant::now());
            plain(&view, 24)
        };
        assert!(show(1_000, false).contains("  renewing"));
        assert!(show(12_001, false).contains("  in 13 s"), "{}", show(12_001, false));
        assert!(show(12_001, true).contains("  denied"));
    }

    #[test]
    fn what_was_seen_last_stays_while_there_is_no_answer() {
        let mut view = View::default();
        view.update(Ok(status(1, vec![tool("search", 1)])), Instant::now());
        view.update(Err("connection refused".to_owned()), Instant::now());
        let shown = plain(&view, 24);
        assert!(
            shown.contains("no answer") && shown.contains("connection refused") && shown.contains("search")
        );
        view.update(Ok(status(1, vec![tool("search", 1)])), Instant::now());
        assert!(!plain(&view, 24).contains("no answer"));
    }

    #[test]
    fn eighty_columns_hold_a_tool_and_its_state() {
        let many = 4_294_000_000;
        let busy = ToolStatus { expired: many, ttl: 86_400, ..tool("a-name-that-is-rather-long", many) };
        let late = ToolStatus { ready: many, retry_after_ms: Some(3_600_000), ..busy.clone() };
        let mut view = View::default();
        view.update(Ok(status(1, vec![busy, late])), Instant::now());
        let lines = view.lines((80, 24), Style { colour: false });
        let table: Vec<_> = lines.iter().skip_while(|line| !line.starts_with("tool")).collect();
        assert_eq!(table.len(), 4, "{lines:#?}");
        assert!(table.iter().all(|line| line.len() <= 80), "{table:#?}");
        for (line, state) in table[1..].iter().zip(["  renewing", "  in 3600 s", "  not granted"]) {
            assert!(line.ends_with(state), "{table:#?}");
        }
    }

    #[test]
    fn a_screen_is_never_higher_than_it_may_be_and_says_what_it_leaves_out() {
        let tools = (0..10_000).map(|n| tool(&format!("tool{n}"), n)).collect();
        let mut view = View::default();
        view.update(Ok(status(1, tools)), Instant::now());
        for height in [8, 24, 100] {
            let lines = view.lines((100, height), Style { colour: true });
            assert!(lines.len() <= height, "{height}: {}", lines.len());
            assert!(lines.last().unwrap().contains("more"));
        }
        assert!(plain(&view, 24).contains("tool9999"), "the busiest come first");
        let mut view = View::default();
        view.update(Ok(status(1, vec![tool("search", 1)])), Instant::now());
        assert!(
            plain(&view, 24).contains("not granted"),
            "a tool that nobody granted is there with its denials"
        );
    }
}
