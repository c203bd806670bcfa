//! What a token costs a call between processes: an MCP client and a server over standard input and output, bare, and with
//! `obol mcp wrap` and `obol mcp guard` in between, the real sidecar beside them. Suite 2; calls back to back.
//!
//! `cargo bench -p obol-benches --bench mcp`; with `-- --quick` a tenth of the calls. All kinds take turns, in blocks, so that what
//! else the machine does falls on each.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::print_stdout, reason = "what it measures is what it prints")]
#![expect(clippy::indexing_slicing, reason = "an answer of another form ends it")]

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use obol_benches::rows::{self, Row, Target, Unit};
use obol_world::home::{command, home, obol, wait_until};
use serde_json::{Value, json};

const AUDIENCE: &str = "https://tools.example";
/// What makes this program the server.
const SERVE: &str = "--serve";
/// Calls of one kind that are not counted, those of a block, and blocks.
const WARM: usize = 300;
const BLOCK: usize = 200;
const BLOCKS: usize = 50;
/// The most that both may add with the spent set in memory, p50, in nanoseconds.
const MOST_ADDED: f64 = 150_000.0;

fn main() {
    if std::env::args().any(|argument| argument == SERVE) {
        return serve();
    }
    // `cargo test --benches` runs this without it, and wants to know only that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    rows::begin();
    let home = home();
    let create = ["session", "create", "--audience", AUDIENCE, "--suite", "2", "--tool", "add"];
    let created = command(home.path()).args(create).output().expect("obol runs");
    assert!(created.status.success(), "{created:?}");
    let _sidecar = sidecar(home.path());
    let mut pairs = [
        Pair::start(home.path(), &server()),
        Pair::start(home.path(), &between("memory")),
        Pair::start(home.path(), &between("spent.redb")),
    ];
    let mut taken = [const { Vec::new() }; 3];
    pairs.iter_mut().for_each(|pair| drop(pair.calls(WARM)));
    for _ in 0..if quick { BLOCKS / 10 } else { BLOCKS } {
        for (pair, taken) in pairs.iter_mut().zip(&mut taken) {
            taken.extend(pair.calls(BLOCK));
        }
    }
    let [bare, memory, durable] = taken.map(sorted);
    record("the spent set in memory", &bare, &memory, Some(Target::AtMost(MOST_ADDED)));
    record("a durable spent set", &bare, &durable, None);
}

fn record(kind: &str, bare: &[f64], with: &[f64], target: Option<Target>) {
    let micros = |times: &[f64], percent| percentile(times, percent) / 1e3;
    println!(
        "{kind}: p50 {:.1} µs, p99 {:.1} µs; bare p50 {:.1} µs, p99 {:.1} µs",
        micros(with, 50),
        micros(with, 99),
        micros(bare, 50),
        micros(bare, 99),
    );
    let added = percentile(with, 50) - percentile(bare, 50);
    let what = format!("what wrap and guard add to a call over stdio, {kind}, p50");
    let row = Row::new("mcp", what, Unit::Nanoseconds, added);
    match target {
        Some(target) => row.wants(target).record(),
        None => row.record(),
    }
    let what = format!("a call through wrap and guard, {kind}, p50");
    Row::new("mcp", what, Unit::Nanoseconds, percentile(with, 50))
        .beside("the bare pair", percentile(bare, 50))
        .record();
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().expect("something was measured")
}

/// This program as the server.
fn server() -> Vec<OsString> {
    vec![std::env::current_exe().expect("our own path").into(), SERVE.into()]
}

/// The server behind both, and where its guard keeps what is spent.
fn between(spent: &str) -> Vec<OsString> {
    let wrap = ["mcp", "wrap", "--audience", AUDIENCE, "--"];
    let guard = ["mcp", "guard", "--sessions", "rs-sessions.json", "--first-start", "--spent", spent, "--"];
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let own = vec![obol().as_os_str().to_owned()];
    [own.clone(), words(&wrap), own, words(&guard), server()].concat()
}

/// Answers each request at once.
fn serve() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.expect("a line")).expect("a message");
        if message["id"].is_null() {
            continue;
        }
        let result = match message["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}),
            _ => json!({"content": [{"type": "text", "text": "3"}]}),
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        writeln!(out, "{answer}").and_then(|()| out.flush()).expect("the client hears");
    }
}

/// A process; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn sidecar(home: &Path) -> Running {
    let mut tqs = command(home);
    tqs.env("OBOL_TQS__CONNECTION_RATE", "0").env("OBOL_TQS__USER_RATE", "0");
    tqs.args(["--log", "warn", "tqs", "--session", "agent-session.json"]);
    let child = tqs.spawn().expect("the sidecar starts");
    rows::count_as_ours(child.id());
    wait_until("the sidecar answers", || home.join("run/obol/agent.sock").exists());
    Running(child)
}

/// A client's side of one connection.
struct Pair {
    _child: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    number: u64,
}

impl Pair {
    fn start(home: &Path, line: &[OsString]) -> Self {
        let (program, arguments) = line.split_first().expect("a command");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(home).env_clear();
        command.env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
        // The guard logs each token, and nobody reads it here.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        rows::count_as_ours(child.id());
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut pair = Self { _child: Running(child), input, output, number: 0 };
        let client = json!({"name": "bench", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let hello = pair.ask("initialize", &params);
        assert!(hello["result"]["capabilities"].is_object(), "{hello}");
        pair
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.number += 1;
        let message = json!({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params});
        let answer = self.exchange(&format!("{message}\n"));
        serde_json::from_str(&answer).expect("an answer")
    }

    fn exchange(&mut self, line: &str) -> String {
        self.input.write_all(line.as_bytes()).expect("it hears");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("it answers");
        answer
    }

    /// Calls one after the other; how long each took, in nanoseconds.
    fn calls(&mut self, count: usize) -> Vec<f64> {
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            self.number += 1;
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"tools/call\",\"params\":{{\"name\":\"add\",\"arguments\":{{\"a\":1,\"b\":2}}}}}}\n",
                self.number
            );
            let begun = Instant::now();
            let answer = self.exchange(&line);
            taken.push(begun.elapsed().as_secs_f64() * 1e9);
            assert!(answer.contains("\"text\":\"3\""), "{answer}");
        }
        taken
    }
}
