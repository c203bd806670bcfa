//! Daemons whose log nobody reads: standard error is a pipe, and full.

use core::time::Duration;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use obol_world::halves::AgentSession;
use obol_world::home::{self, free_port, write_private};
use obol_world::http::Http;
use obol_world::now;
use obol_world::rs::write_sessions;
use obol_world::tqs;
use serde_json::json;

use crate::sidecar::{self, Raw};

/// Requests that leave a line each: more than a pipe (64 KiB) and the daemon's own buffer (1 MiB) hold.
const FLOOD: usize = 8_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a daemon may take to end, its drain included.
const END: Duration = Duration::from_secs(10);

/// A daemon, killed when dropped, and its log, unread so far.
struct Daemon {
    child: Child,
    log: Option<ChildStderr>,
}

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = child.stderr.take();
        Self { child, log }
    }

    /// Reads the log from here on.
    fn read_log(&mut self) -> Receiver<String> {
        let (line, lines) = channel();
        let log = BufReader::new(self.log.take().unwrap());
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|read| line.send(read)));
        lines
    }

    /// SIGTERM: the exit code, and how long it took.
    fn terminate(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        while self.child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        (self.child.try_wait().unwrap().and_then(|status| status.code()), began.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ours by its handle; ended already is fine.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn sidecar(home: &Path) -> Daemon {
    let session = home.join("session.json");
    write_private(&session, &AgentSession::new(1, now(), &["search"]).agent_json().to_string());
    let mut command = home::command(home);
    Daemon::start(command.args(["--log", "debug", "tqs", "--session"]).arg(session))
}

fn resource_server(home: &Path, port: u16) -> Daemon {
    write_sessions(home, now());
    let mut command = home::command(home);
    command.args(["--log", "info", "rs", "--sessions", "sessions.json", "--spent", "memory", "--listen"]);
    Daemon::start(command.arg(format!("127.0.0.1:{port}")))
}

/// As an agent that asks for what it was not granted.
fn ask_sidecar(home: &Path, times: usize) {
    let mut agent = Raw::greeted(home, "agent.sock");
    let tool = "t".repeat(250);
    for _ in 0..times {
        let answer = agent.call("dequeueToken", json!({"tool": tool}));
        assert_eq!(answer["error"]["data"]["code"], "POLICY_DENY", "{answer}");
    }
}

/// As a stranger without a token.
fn ask_resource_server(port: u16, times: usize) {
    let mut stranger = Http::new(port);
    for _ in 0..times {
        assert_eq!(stranger.present("rubbish").as_deref(), Some("MALFORMED_TOKEN"));
    }
}

fn dropped(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("obol_log_lines_dropped_total "));
    line.unwrap_or_else(|| panic!("no such metric: {metrics}")).parse().unwrap()
}

/// The line that owns up to what was given up, as the text format has it: `… lines=N`.
fn owned_up(lines: &Receiver<String>) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let line =
        core::iter::from_fn(|| lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok())
            .find(|line| line.contains("lines of this log were dropped"));
    let line = line.expect("the log says that lines were given up");
    line.rsplit_once("lines=").unwrap().1.parse().unwrap()
}

#[test]
fn a_log_that_nobody_reads_stops_no_sidecar_and_its_lines_are_counted() {
    let home = home::home();
    let mut tqs = sidecar(home.path());
    home::wait_until("the sidecar answers", || tqs::is_served(&tqs::socket(home.path())));
    ask_sidecar(home.path(), FLOOD);
    let metrics = || sidecar::get(home.path(), "/metrics").1;
    assert!(dropped(&metrics()) > 0);
    let lines = tqs.read_log();
    assert!(owned_up(&lines) > 0);
    ask_sidecar(home.path(), 1);
    let (code, took) = tqs.terminate();
    assert!(code == Some(0) && took < END, "{code:?} after {took:?}");
}

#[test]
fn a_log_that_nobody_reads_stops_no_resource_server_and_its_lines_are_counted() {
    let home = home::home();
    let port = free_port();
    let mut rs = resource_server(home.path(), port);
    home::wait_until("the server answers", || Http::new(port).get("/livez").is_some());
    ask_resource_server(port, FLOOD);
    assert!(dropped(&Http::new(port).get("/metrics").unwrap().1) > 0);
    let lines = rs.read_log();
    assert!(owned_up(&lines) > 0);
    let (code, took) = rs.terminate();
    assert!(code == Some(0) && took < END, "{code:?} after {took:?}");
}

#[test]
fn daemons_end_when_told_to_though_nobody_ever_reads_their_log() {
    let home = home::home();
    let mut tqs = sidecar(home.path());
    home::wait_until("the sidecar answers", || tqs::is_served(&tqs::socket(home.path())));
    ask_sidecar(home.path(), FLOOD);
    let port = free_port();
    let mut rs = resource_server(home.path(), port);
    home::wait_until("the server answers", || Http::new(port).get("/livez").is_some());
    ask_resource_server(port, FLOOD);
    for (name, daemon) in [("tqs", &mut tqs), ("rs", &mut rs)] {
        let (code, took) = daemon.terminate();
        assert!(code == Some(0) && took < END, "{name}: {code:?} after {took:?}");
    }
}

#[test]
fn a_log_that_is_read_loses_no_line() {
    let home = home::home();
    let port = free_port();
    let mut rs = resource_server(home.path(), port);
    let lines = rs.read_log();
    home::wait_until("the server answers", || Http::new(port).get("/livez").is_some());
    ask_resource_server(port, FLOOD);
    assert_eq!(dropped(&Http::new(port).get("/metrics").unwrap().1), 0);
    assert_eq!(rs.terminate().0, Some(0));
    let refused = lines.into_iter().filter(|line| line.contains("MALFORMED_TOKEN")).count();
    assert_eq!(refused, FLOOD, "also those that were on their way when it ended");
}
