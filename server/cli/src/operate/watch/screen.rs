//! The view on a terminal, or as text.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use obol_ipc::control::{SessionState, SessionStatus, StatusResult, ToolStatus};
use obol_secret::text::plain;
use obol_session::clock::{Clock as _, SystemClock};

use super::format::{Style, cut, decimal, number, percent, short};
use super::view::View;
use crate::output::{backs_off, duration};

/// Sessions that get a line of their own.
const MAX_SESSION_LINES: usize = 3;
/// Size of a terminal that does not tell.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Where it is shown.
pub(super) enum Screen {
    /// A terminal's second screen, left when dropped.
    Terminal(Style),
    Text {
        json: bool,
        first: bool,
    },
}

impl Screen {
    pub(super) fn open(json: bool) -> Self {
        if json || !io::stdout().is_terminal() {
            return Self::Text { json, first: true };
        }
        let colour = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        print_now(ENTER);
        Self::Terminal(Style { colour })
    }

    pub(super) fn show(&mut self, view: &View) -> io::Result<()> {
        let mut out = String::new();
        match self {
            Self::Terminal(style) => {
                let (width, height) = size();
                out.push_str(HOME);
                let lines = lines(view, (width, height), *style);
                for (n, line) in lines.iter().take(height).enumerate() {
                    let end = if n + 1 < height.min(lines.len()) { "\r\n" } else { "" };
                    let _always = write!(out, "{}{CLEAR_LINE}{end}", cut(line, width));
                }
                if lines.len() < height {
                    let _always = write!(out, "\r\n{CLEAR_BELOW}");
                }
            }
            Self::Text { json: true, .. } => {
                let value = match (view.trouble(), view.status()) {
                    (None, Some(status)) => serde_json::to_value(status).map_err(io::Error::other)?,
                    (trouble, _) => serde_json::json!({ "error": trouble }),
                };
                let _always = writeln!(out, "{value}");
            }
            Self::Text { first, .. } => {
                if !core::mem::take(first) {
                    out.push('\n');
                }
                let style = Style { colour: false };
                let lines = match view.trouble() {
                    // What was seen last is above already.
                    Some(trouble) => vec![no_answer(trouble, style)],
                    None => lines(view, (usize::MAX, usize::MAX), style),
                };
                for line in lines {
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

/// The lines of a screen of this width and height.
fn lines(view: &View, (width, height): (usize, usize), style: Style) -> Vec<String> {
    let trouble = view.trouble().map(|trouble| no_answer(trouble, style));
    let Some(status) = view.status() else { return trouble.into_iter().collect() };
    let mut lines = vec![style.strong(&headline(status))];
    lines.extend(session_lines(status));
    lines.push(totals(view));
    lines.push(String::new());
    let left = height.saturating_sub(lines.len() + usize::from(trouble.is_some()));
    lines.extend(table(view, (width, left), style));
    match trouble {
        Some(trouble) => [trouble].into_iter().chain(lines.iter().map(|line| style.dim(line))).collect(),
        None => lines,
    }
}

fn no_answer(trouble: &str, style: Style) -> String {
    style.alarm(&format!("no answer; asking again: {}", plain(trouble)))
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

fn table(view: &View, (width, height): (usize, usize), style: Style) -> Vec<String> {
    let rows = rows(view);
    let wanted = rows.len();
    let room = if wanted + 1 > height { height.saturating_sub(2) } else { wanted };
    let shown = rows.get(..room).unwrap_or(&rows);
    // On a narrow screen the names give way: they are known to who looks, the state is not.
    let longest = |of: fn(&Line) -> &str| shown.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (names, states) = (longest(|row| &row.name), longest(|row| &row.state));
    let width = names.min(width.saturating_sub(HEADER.len() + states)).clamp(8, 40);
    let mut lines = vec![style.strong(&format!("{:width$}{HEADER}", "tool"))];
    let mut seen = BTreeMap::new();
    for Line { name, cells, state, alarming } in shown {
        let name = short(name, width, &mut seen);
        let line = format!("{name:width$}{cells}{state}");
        lines.push(if *alarming { style.alarm(&line) } else { line });
    }
    if shown.len() < wanted {
        lines.push(style.dim(&format!("and {} more", wanted - shown.len())));
    }
    lines
}

/// A line for each tool, the busiest first, and for each that was asked for and that nobody granted.
fn rows(view: &View) -> Vec<Line> {
    let several = view.has_several_audiences();
    let granted = view.tools().into_iter().map(|tool| {
        let name = if several {
            format!("{} → {}", tool.tool, plain(tool.audience.as_str()))
        } else {
            tool.tool.to_string()
        };
        let alarming = tool.denied || backs_off(tool.renewal_pending, tool.retry_after_ms).is_some();
        Line { name, cells: cells(view, tool), state: state(tool), alarming }
    });
    let not_granted = view.not_granted().map(|(tool, count)| {
        let cells = format!("{:>cells$}", number(count), cells = HEADER.len());
        Line { name: tool.to_string(), cells, state: "  not granted".to_owned(), alarming: true }
    });
    granted.chain(not_granted).collect()
}

fn cells(view: &View, tool: &ToolStatus) -> String {
    let rates = view.rates(tool);
    format!(
        "{:>6}{:>6}{:>8}{:>7}{:>7}{:>6}{:>7}{:>7}",
        number(tool.ready),
        number(tool.ready + tool.stored),
        format!("{} s", tool.ttl),
        decimal(rates.handed_out),
        decimal(rates.minted),
        number(tool.handed_out),
        percent(tool.expired, tool.minted),
        number(view.denials(&tool.tool)),
    )
}

/// What stands behind a tool's numbers.
fn state(tool: &ToolStatus) -> String {
    match (tool.denied, tool.renewal_pending, backs_off(tool.renewal_pending, tool.retry_after_ms)) {
        (true, ..) => "  denied".to_owned(),
        (false, _, Some(seconds)) => format!("  in {seconds} s"),
        (false, true, None) => "  renewing".to_owned(),
        (false, false, None) => String::new(),
    }
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
    let now = SystemClock::new().now();
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
        SessionState::Lapsed => "its lease is over: the Authentication Service does not answer".to_owned(),
        _ => "over".to_owned(),
    };
    format!(
        "session {} · {} · suite {} · {state}",
        session.session_id, session.agent_instance_id, session.algorithm_suite
    )
}

fn totals(view: &View) -> String {
    let totals = view.totals();
    format!(
        "depth {} · {} handed out a second · {} minted · waste {} · {} denials",
        number(totals.depth),
        decimal(totals.rates.handed_out),
        decimal(totals.rates.minted),
        percent(totals.expired, totals.minted),
        number(totals.denials)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::time::Instant;

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
        lines(view, (100, height), Style { colour: false }).join("\n")
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
        let lines = lines(&view, (80, 24), Style { colour: false });
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
            let lines = lines(&view, (100, height), Style { colour: true });
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
