//! `obol status --watch` on a pseudo-terminal and without one.

use core::time::Duration;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use obol_ipc::names::ToolName;
use obol_world::halves::AgentSession;
use obol_world::home::{self, command};
use obol_world::now;
use obol_world::tqs::Tqs;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(60);
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

fn start(home: &Path, tools: &[&str]) -> Tqs {
    let world = AgentSession::new(1, now(), tools);
    home::write_private(&home.join("session.json"), &world.agent_json().to_string());
    Tqs::start(home, &["--session", "session.json"])
}

/// A program on a terminal of its own, and what it wrote there.
struct Terminal {
    child: Child,
    master: Arc<File>,
    written: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::from(slave)).stderr(Stdio::null()).spawn().unwrap();
        let master = Arc::new(File::from(master));
        let written = Arc::new(Mutex::new(String::new()));
        let (mut reader, sink) = (master.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last slave that is closed ends it with an error.
            while let Ok(read) = reader.read(&mut bytes) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { child, master, written }
    }

    /// Waits until the last whole screen is as it should be.
    fn wait_for(&self, what: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let written = self.written.lock().unwrap().clone();
            // A screen begins at the top left; the last one may still be on its way.
            let screens: Vec<_> = written.split("\x1b[H").collect();
            if let Some(screen) = screens.iter().rev().take(2).find(|screen| what(screen)) {
                return (*screen).to_owned();
            }
            assert!(Instant::now() < deadline, "{written:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&*self.master, size).unwrap();
        // The kernel tells whom this terminal controls; here we do.
        self.signal(rustix::process::Signal::WINCH);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ctrl-C; the exit code and all that was written.
    fn interrupt(mut self) -> (Option<i32>, String) {
        self.signal(rustix::process::Signal::INT);
        let code = self.child.wait().unwrap().code();
        let deadline = Instant::now() + PATIENCE;
        while !self.written.lock().unwrap().contains(LEAVE) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let written = self.written.lock().unwrap().clone();
        (code, written)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// What a screen shows, without escape sequences, line by line.
fn shown(screen: &str) -> Vec<String> {
    let mut text = String::new();
    let mut escape = false;
    for character in screen.chars() {
        match (escape, character) {
            (true, c) => escape = !c.is_ascii_alphabetic(),
            (false, '\x1b') => escape = true,
            (false, c) => text.push(c),
        }
    }
    // The terminal's own line discipline adds a carriage return.
    text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

#[test]
fn on_a_terminal_it_draws_a_screen_follows_its_size_and_leaves_it_clean() {
    let home = home::home();
    let tqs = start(home.path(), &["search", "pay"]);
    tqs.client().dequeue_token(&ToolName::new("search").unwrap(), Duration::from_secs(30)).unwrap();
    let terminal =
        Terminal::start(command(home.path()).args(["status", "--watch", "--interval", "0.1"]), 100, 30);
    let screen = terminal.wait_for(|screen| screen.contains("search") && screen.contains("active"));
    let lines = shown(&screen);
    assert!(lines.len() <= 30 && lines.iter().all(|line| line.chars().count() <= 100), "{lines:?}");
    assert!(screen.contains("\x1b[1m"), "headings stand out: {screen:?}");

    terminal.resize(40, 6);
    let screen = terminal.wait_for(|screen| {
        let lines = shown(screen);
        !lines.is_empty() && lines.len() <= 6 && lines.iter().all(|line| line.chars().count() <= 40)
    });
    assert!(screen.contains("obol"), "{screen:?}");
    terminal.resize(100, 30);

    // The sidecar goes away and comes back.
    tqs.kill();
    terminal.wait_for(|screen| screen.contains("no answer"));
    let _again = Tqs::start(home.path(), &["--session", "session.json"]);
    terminal.wait_for(|screen| screen.contains("active") && !screen.contains("no answer"));

    let (code, written) = terminal.interrupt();
    assert_eq!(code, Some(0));
    assert!(written.starts_with(ENTER) && written.matches(ENTER).count() == 1, "{written:?}");
    let end = written.split(LEAVE).nth(1).expect("the screen is left");
    assert_eq!(end, "", "nothing is drawn after it");
    assert!(written.contains("\x1b[?25h"), "the cursor is back");
}

#[test]
fn without_colour_there_is_none() {
    let home = home::home();
    let _tqs = start(home.path(), &["search"]);
    let mut watch = command(home.path());
    watch.args(["status", "--watch", "--interval", "0.1"]).env("NO_COLOR", "1");
    let terminal = Terminal::start(&mut watch, 100, 30);
    let screen = terminal.wait_for(|screen| screen.contains("search"));
    assert!(!screen.contains("\x1b[1m") && !screen.contains("\x1b[31m"), "{screen:?}");
    terminal.interrupt();
}

#[test]
fn without_a_terminal_it_prints_tables_or_json_and_ends_with_its_reader() {
    let home = home::home();
    let _tqs = start(home.path(), &["search"]);
    let read = |more: &[&str], lines: usize| {
        let mut child = command(home.path())
            .args(["status", "--watch", "--interval", "0.1"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let read: Vec<String> = std::io::BufRead::lines(out).take(lines).map(Result::unwrap).collect();
        // The reader is gone now, as `head` would be.
        assert_eq!(child.wait().unwrap().code(), Some(0));
        read
    };
    let text = read(&[], 20).join("\n");
    assert!(text.contains("search") && !text.contains('\x1b'), "{text}");
    for line in read(&["--json"], 3) {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["tools"][0]["tool"], "search", "{value}");
    }
}

#[test]
fn ten_thousand_tools_can_be_listed() {
    let home = home::home();
    let names: Vec<String> = (0..10_000).map(|n| format!("tool-with-a-name-of-some-length-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // A session holds 4,096 grants at most.
    for (session, names) in (1..).zip(names.chunks(2_500)) {
        let world = AgentSession::new(session, now(), names);
        let file = home.path().join(format!("session{session}.json"));
        home::write_private(&file, &world.agent_json().to_string());
    }
    // What there is to list is the point; a token for each is enough.
    home::write_private(&home.path().join("obol.toml"), "[tqs]\nbatch = 1\nmax_ready = 1\nmax_depth = 1\n");
    let sessions = [1, 2, 3, 4].map(|n| format!("session{n}.json"));
    let sessions = sessions.iter().flat_map(|file| ["--session", file]);
    let arguments: Vec<_> = ["--config", "obol.toml"].into_iter().chain(sessions).collect();
    let tqs = Tqs::start(home.path(), &arguments);
    let status = tqs.control().status().unwrap();
    let mut seen: Vec<_> = status.tools.iter().map(|tool| tool.tool.to_string()).collect();
    seen.sort();
    assert_eq!(seen.len(), names.len());
    assert!(seen.iter().zip(&names).all(|(seen, name)| seen == name));
    assert_eq!(status.next, None);
    let table = command(home.path()).args(["status"]).output().unwrap();
    assert!(table.status.success() && table.stdout.len() > 500_000);
}
