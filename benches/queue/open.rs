//! Opening what a killed process left: 100,000 tokens.

use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use obol_benches::rows::{self, Row, Target, Unit};

use crate::store;

const TOKENS: u64 = 100_000;
/// The most tokens for the tool: room for what the demand asks for.
const MAX_DEPTH: usize = 200_000;
/// Opened so often, each time from a copy of what the killed process left.
const OPENED: usize = 30;
/// What p99 must stay below, in nanoseconds.
const TARGET: f64 = 1e9;
/// Where the child is to keep its store; set for the child alone.
const VARIABLE: &str = "OBOL_BENCH_CHILD";
const FILES: [&str; 2] = ["tokens.redb", "tokens.redb.keys"];

pub(crate) fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The process that is to be killed: fills a store, says so, and goes on drawing.
#[expect(clippy::print_stdout, reason = "how the child tells its parent")]
pub(crate) fn child() {
    let folder = PathBuf::from(std::env::var_os(VARIABLE).unwrap_or_default());
    let queue = store::open(store::builder().max_depth(MAX_DEPTH), &folder);
    store::provision(&queue, 7, &store::names(&["search"]));
    store::fill(&queue, "search", TOKENS);
    println!("filled");
    loop {
        let _none_is_fine = queue.dequeue("search");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn killed_process(folder: &Path) {
    let itself = std::env::current_exe().expect("a program");
    let mut child =
        Command::new(itself).env(VARIABLE, folder).stdout(Stdio::piped()).spawn().expect("a child");
    rows::count_as_ours(child.id());
    let mut line = String::new();
    let output = child.stdout.take().expect("its output");
    BufReader::new(output).read_line(&mut line).expect("a word from it");
    assert_eq!(line, "filled\n");
    std::thread::sleep(Duration::from_millis(20));
    child.kill().expect("killed");
    child.wait().expect("gone");
}

pub(crate) fn run() {
    let left = tempfile::tempdir().expect("a folder");
    killed_process(left.path());
    let mut times: Vec<Duration> = (0..OPENED)
        .map(|_| {
            let folder = tempfile::tempdir().expect("a folder");
            for file in FILES {
                std::fs::copy(left.path().join(file), folder.path().join(file)).expect("copied");
            }
            let start = Instant::now();
            let queue = store::open(store::builder(), folder.path());
            let took = start.elapsed();
            let waiting = store::stored(&queue) + store::ready(&queue);
            assert!(waiting + 1_000 > TOKENS, "only {waiting} tokens are left");
            took
        })
        .collect();
    times.sort_unstable();
    let row = |name: &str, share| {
        let what = format!("open 100,000 queued tokens after kill -9, {name} of {OPENED}");
        Row::new("queue", what, Unit::Nanoseconds, store::nanos(store::percentile(&times, share)))
    };
    row("p50", 0.5).record();
    row("p99", 0.99).wants(Target::AtMost(TARGET)).record();
}
