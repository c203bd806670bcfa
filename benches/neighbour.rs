//! What quiet agents notice of a noisy one that asks for ten times its rate: their p99 without it and beside it.
//!
//! `cargo bench -p obol-benches --bench neighbour`; `-- --quick` for a look, `-- --assert` to fail at a ratio of two.
//! Daemon and agents share the machine, so on a busy one both numbers mean little; the load is printed.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program that measures and says so"
)]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::{PeerName, ToolName};
use obol_queue::{MasterKey, Queue};
use obol_sidecar::{Options, PeerLimits};
use obol_world::AUDIENCE;
use obol_world::halves::AgentSession;
use serde_json::json;

/// Requests a second that one connection may make.
const RATE: u32 = 1_000;
/// How much more the noisy one makes.
const EXCESS: u32 = 10;
const QUIET_AGENTS: usize = 8;
/// Draws a second of each quiet agent.
const QUIET_RATE: u32 = 50;
const PATIENCE: Duration = Duration::from_secs(5);
/// Rounds of each kind, in turn, so that a drift of the machine meets both.
const ROUNDS: usize = 5;

fn main() {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    // What `cargo test --benches` calls; there is nothing to check there.
    if asked("--test") {
        return;
    }
    let round = Duration::from_secs(if asked("--quick") { 1 } else { 6 });
    let folder = tempfile::tempdir().unwrap();
    let daemon = serve(folder.path());
    let socket = folder.path().join("run/agent.sock");
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    measure(&socket, round / 2);
    for _ in 0..ROUNDS {
        alone.extend(measure(&socket, round));
        let noise = Noise::start(&socket);
        beside.extend(measure(&socket, round));
        noise.stop();
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{QUIET_AGENTS} agents at {QUIET_RATE}/s, load average {}", load.trim());
    let (p99_alone, p99_beside) = (report("alone", &mut alone), report("beside the noisy one", &mut beside));
    let ratio = p99_beside.as_secs_f64() / p99_alone.as_secs_f64();
    println!("p99 ratio {ratio:.2}");
    drop(daemon);
    assert!(!asked("--assert") || ratio < 2.0, "the noisy agent is noticed");
}

/// The daemon, on a thread of its own.
fn serve(folder: &Path) -> JoinHandle<()> {
    let queue = Queue::open(folder.join("tokens.redb"), MasterKey::from_bytes([7; 32])).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let grant = |tool| json!({"tool": tool, "aud": AUDIENCE, "action": "x", "resource": "**", "ttl": 600});
    let grants = vec![grant("quiet"), grant("noisy")];
    let session = AgentSession { grants, ..AgentSession::new(1, now, &[]) };
    queue.provision(session.document()).unwrap();
    let at = |name: &str| Endpoint::at(folder.join("run").join(name)).unwrap();
    let limits = PeerLimits { connection_rate: RATE, ..PeerLimits::default() };
    let options = Options::new(at("agent.sock"), at("control.sock")).limits(limits);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let service = runtime.block_on(options.bind(Arc::new(queue))).unwrap();
    thread::spawn(move || {
        let _never = runtime.block_on(service.run(core::future::pending()));
    })
}

/// How long each draw of the quiet agents took.
fn measure(socket: &Path, time: Duration) -> Vec<Duration> {
    let agents: Vec<_> = (0..QUIET_AGENTS)
        .map(|_| {
            let endpoint = Endpoint::at(socket).unwrap();
            thread::spawn(move || {
                let options = ConnectOptions::new(PeerName::new("quiet/1").unwrap());
                let mut client = Client::connect(endpoint, options).unwrap();
                let (tool, began, mut took) = (ToolName::new("quiet").unwrap(), Instant::now(), Vec::new());
                while began.elapsed() < time {
                    let asked = Instant::now();
                    client.dequeue_token(&tool, PATIENCE).unwrap();
                    took.push(asked.elapsed());
                    thread::sleep((Duration::from_secs(1) / QUIET_RATE).saturating_sub(asked.elapsed()));
                }
                took
            })
        })
        .collect();
    agents.into_iter().flat_map(|agent| agent.join().unwrap()).collect()
}

/// An agent that asks for far too much and reads what it gets.
struct Noise {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
}

impl Noise {
    fn start(socket: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writer = UnixStream::connect(socket).unwrap();
        let mut reader = writer.try_clone().unwrap();
        let reading =
            thread::spawn(move || while reader.read(&mut [0; 1 << 16]).is_ok_and(|read| read > 0) {});
        let stopped = Arc::clone(&stop);
        let writing = thread::spawn(move || {
            writer.write_all(&frame(&json!({"obol": 1, "codec": "json", "client": "noisy/1"}))).unwrap();
            let request =
                json!({"jsonrpc": "2.0", "id": 1, "method": "dequeueToken", "params": {"tool": "noisy"}});
            let (request, began, mut sent) = (frame(&request), Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due =
                    u64::from(RATE * EXCESS) * u64::try_from(began.elapsed().as_millis()).unwrap() / 1_000;
                while sent < due {
                    writer.write_all(&request).unwrap();
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            writer.shutdown(std::net::Shutdown::Both).unwrap();
        });
        Self { stop, threads: [reading, writing] }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn frame(message: &serde_json::Value) -> Vec<u8> {
    let body = message.to_string();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body.as_bytes()].concat()
}

/// Prints the median and returns the p99.
fn report(what: &str, took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    println!("{what:>22}: p50 {:?}, p99 {:?}, {} draws", at(50), at(99), took.len());
    at(99)
}
