//! Handing out over the local socket: the real daemon, a bare echo, and Redis, each a process of its own.
//!
//! `cargo bench -p obol-benches --bench ipc`; with `-- --quick` a few seconds that show only that it works. Names of
//! [`PARTS`] run these alone: `-- 16x32 memory`. Redis is measured where `redis-server` is installed.
//!
//! What is in it: the daemon as it is shipped, with its sandbox; the binary codec on both sides, wiping, the system's
//! sockets. What is not: limits of rate, which would be what is measured; an audit log, which is off unless it is asked
//! for; and minting. Tokens are minted before the measured time, and no run draws so many that the daemon mints new ones
//! ([`Plan::draws`]); `token.rs` measures minting, `queue` both together. Where only the hand-out is measured the tokens
//! are of suite 2, because they are minted fast, and as long as those of suite 1; what they are makes no difference to it.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it measures is what it prints")]

mod client;
mod daemon;
mod echo;
mod idle;
mod redis;

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use obol_benches::rows::{self, Row, Target, Unit};
use obol_ipc::names::ToolName;

use crate::client::{ObolPeer, RedisPeer, drive};
use crate::daemon::{Daemon, obol};
use crate::echo::Echo;
use crate::idle::Agents;
use crate::redis::Redis;

/// The suite of the extension, and one whose tokens are minted fast.
const USUAL: u8 = 1;
const FAST: u8 = 2;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Tokens ready before a run; the daemon mints no more until a quarter of them is gone.
    ready: u16,
    /// Runs of which the median counts.
    runs: usize,
    starts: usize,
}

const FULL: Plan = Plan { ready: 60_000, runs: 21, starts: 21 };
const QUICK: Plan = Plan { ready: 4_000, runs: 1, starts: 3 };

impl Plan {
    /// Draws in one run: few enough that the daemon does not refill meanwhile.
    fn draws(self) -> usize {
        usize::from(self.ready) / 5
    }
}

/// What can be run alone, and how.
type Part = (&'static str, fn(Plan));

const PARTS: [Part; 8] = [
    ("single", single),
    ("1x32", |plan| throughput(plan, 1, 32)),
    ("16x1", |plan| throughput(plan, 16, 1)),
    ("64x1", |plan| throughput(plan, 64, 1)),
    ("16x32", |plan| throughput(plan, 16, 32)),
    ("memory", |_| memory()),
    ("idle", |_| idle_agents()),
    ("start", start),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("--echo-server", rest)) => return echo::serve(rest),
        Some(("--idle-agents", rest)) => return idle::stay(rest),
        _ => {}
    }
    // `cargo test --benches` runs this without it, and wants to know only that it builds.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let plan = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let asked: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    rows::begin();
    obol();
    for (name, run) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| name == part.as_str()) {
            run(plan);
        }
    }
}

/// One connection, one request at a time, beside an echo of the same sizes.
fn single(plan: Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), FAST, &["search"], plan.ready);
    daemon.wait_until_ready(u64::from(plan.ready));
    let mut client = daemon.client();
    let tool = ToolName::new("search").expect("a name");
    let (request, answer) = ObolPeer::new("search").sizes(client.dequeue_token(&tool, Duration::ZERO));
    let echo = Echo::start(folder.path(), request, answer);
    let mut echoing = echo.client();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turns, so that what else goes on in the machine meets both alike.
    while ours.len() < plan.draws() {
        for _ in 0..100 {
            let start = Instant::now();
            client.dequeue_token(&tool, Duration::ZERO).expect("a token");
            ours.push(start.elapsed());
        }
        for _ in 0..100 {
            let start = Instant::now();
            echoing.exchange();
            theirs.push(start.elapsed());
        }
    }
    for (name, share) in [("p50", 50), ("p99", 99)] {
        let (ours, theirs) = (percentile(&mut ours, share), percentile(&mut theirs, share));
        let row = Row::new("ipc", format!("dequeue, one connection, {name}"), Unit::Nanoseconds, ours)
            .beside(format!("echo of {request} and {answer} bytes, {name}"), theirs);
        report(if share == 50 { row.wants(Target::RatioAtMost(1.3)) } else { row });
    }
}

/// Many requests under way, beside Redis.
fn throughput(plan: Plan, connections: usize, depth: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // The same for each connection.
    let draws = plan.draws() / connections * connections;
    let what = format!("dequeue, {connections} connections, {depth} deep");
    let (mut ours, mut theirs, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let mut redis = Redis::start();
    for _ in 0..plan.runs {
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = Daemon::start(folder.path(), FAST, &["search"], plan.ready);
        daemon.wait_until_ready(u64::from(plan.ready));
        let (socket, before) = (daemon.socket(), daemon.processor_time());
        ours.push(rate(draws, drive::<ObolPeer>(&runtime, &socket, connections, depth, draws)));
        taken.push((daemon.processor_time() - before) / draws as f64);
        drop(daemon);
        if let Some(redis) = &mut redis {
            redis.fill(draws);
            let socket = redis.socket();
            theirs.push(rate(draws, drive::<RedisPeer>(&runtime, &socket, connections, depth, draws)));
        }
    }
    // Steadier than the rate, which depends on who else uses the processors.
    let each = format!("processor time of the daemon for each draw, {connections} connections, {depth} deep");
    report(Row::new("ipc", each, Unit::Nanoseconds, median(&mut taken)));
    let row = Row::new("ipc", what, Unit::PerSecond, median(&mut ours));
    report(match redis {
        Some(_) => row.beside("Redis LPOP, the same", median(&mut theirs)).wants(Target::RatioAtLeast(1.0)),
        None => row,
    });
}

/// The daemon's resident memory.
fn memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let idle = Daemon::start(folder.path(), USUAL, &[], 10);
    report(
        Row::new("ipc", "resident memory, idle", Unit::Bytes, idle.resident()).wants(Target::AtMost(15e6)),
    );
    drop(idle);

    let folder = tempfile::tempdir().expect("a folder");
    let tools: Vec<String> = (0..100).map(|n| format!("tool{n}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    let busy = Daemon::start(folder.path(), USUAL, &tools, 100);
    busy.wait_until_ready(10_000);
    let row =
        Row::new("ipc", "resident memory, 100 tools, 10,000 tokens ready", Unit::Bytes, busy.resident());
    report(row.wants(Target::AtMost(30e6)));
}

/// What agents that are connected and do nothing cost the daemon, each: a thousand, of twenty processes.
fn idle_agents() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), FAST, &["search"], 4_000);
    daemon.wait_until_ready(4_000);
    // What the first connections set up for all is not theirs.
    let first = Agents::start(&daemon.socket(), "search", 50);
    let before = daemon.resident();
    let all: Vec<_> = (0..20).map(|_| Agents::start(&daemon.socket(), "search", 50)).collect();
    let each = (daemon.resident() - before) / 1_000.0;
    drop((first, all));
    report(Row::new(
        "ipc",
        "resident memory for each of 1,000 idle agents of 20 processes",
        Unit::Bytes,
        each,
    ));
}

/// From the start of the process to the first token, on a store that is there.
fn start(plan: Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), USUAL, &["search"], 100);
    daemon.wait_until_ready(100);
    drop(daemon);
    let tool = ToolName::new("search").expect("a name");
    let mut times: Vec<Duration> = (0..plan.starts)
        .map(|_| {
            let start = Instant::now();
            let daemon = Daemon::start(folder.path(), USUAL, &["search"], 100);
            daemon.client().dequeue_token(&tool, Duration::from_secs(30)).expect("a token");
            start.elapsed()
        })
        .collect();
    let row =
        Row::new("ipc", "start to first token, store there", Unit::Nanoseconds, percentile(&mut times, 50));
    report(row.wants(Target::AtMost(50e6)));
}

fn report(row: Row) {
    let beside = row.peer.as_ref().zip(row.peer_measured).map_or(String::new(), |(peer, measured)| {
        format!("; {peer}: {measured:.0}; ratio {:.2}", row.ratio().unwrap_or(f64::NAN))
    });
    let met = match row.is_met() {
        Some(true) => ", target met",
        Some(false) => ", target MISSED",
        None => "",
    };
    println!("{}: {:.0} {:?}{beside}{met}", row.what, row.measured, row.unit);
    row.record();
}

fn percentile(times: &mut [Duration], share: usize) -> f64 {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e9)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// A path in a folder, as an argument.
fn text(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
