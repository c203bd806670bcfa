//! Handing out, in process.
//!
//! The queue is filled outside the measured time: minting is measured in `token.rs`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use obol_benches::AUDIENCE;
use obol_queue::{MasterKey, Queue, SessionDocument};

/// Tokens that wait in memory before a measured run.
const READY: u16 = 20_000;
/// Bytes of a token.
const TOKEN_BYTES: usize = 450;

fn dequeue(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = queue(&folder);
    let mut group = criterion.benchmark_group("dequeue");
    // Few and short: each measured token has to be minted first, which takes hundreds of times as long.
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(10));
    for threads in [1, 2] {
        group.bench_function(format!("queue, {threads} threads"), |bencher| {
            bencher.iter_custom(|iterations| draw(&queue, iterations, threads));
        });
        group.bench_function(
            format!("peer: pop and free from an ArrayQueue, {threads} threads"),
            |bencher| {
                bencher.iter_custom(|iterations| pop(iterations, threads));
            },
        );
    }
    group.finish();
}

fn queue(folder: &tempfile::TempDir) -> Queue {
    let queue = Queue::builder()
        .batch(READY)
        .max_ready(usize::from(READY))
        .max_depth(usize::from(READY))
        .open(folder.path().join("tokens.redb"), MasterKey::from_bytes([7; 32]))
        .expect("a queue");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let key = "11".repeat(32);
    let document = serde_json::json!({
        "obol_session": 1, "session_id": "0000000000000007", "suite": 1, "agent_instance_id": "agent-1",
        "org_id": "example", "iss": "https://auth.example", "sub": "IK:2f9c0d",
        "established_at": now, "expires_at": now + 7200, "policy_epoch": 1,
        "resource_servers": [{"aud": AUDIENCE, "K_session": key, "verifier_secret": key, "mutual_auth": key,
                              "SEK_PK": key}],
        "grants": [{"tool": "search", "aud": AUDIENCE, "action": "read", "resource": "docs/**", "ttl": 3600}],
    });
    let document = SessionDocument::from_json(document.to_string().as_bytes()).expect("a session");
    queue.provision(document).expect("provisioned");
    queue
}

/// Draws that many tokens in runs of what is ready; the time of the draws alone, each thread's share.
fn draw(queue: &Queue, iterations: u64, threads: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let run = left.min(u64::from(READY) / 2);
        while queue.tools().iter().map(|tool| tool.ready).sum::<u64>() < run {
            // An empty queue asks for more by being drawn from.
            let _asks_for_more = queue.dequeue("none");
            std::thread::sleep(Duration::from_millis(1));
        }
        spent += timed(threads, run, || {
            black_box(queue.dequeue("search").expect("a token"));
        });
        left -= run;
    }
    spent
}

fn pop(iterations: u64, threads: u64) -> Duration {
    let ring = ArrayQueue::new(usize::from(READY));
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let run = left.min(u64::from(READY) / 2);
        for _ in 0..run {
            let _full = ring.push(vec![7_u8; TOKEN_BYTES].into_boxed_slice());
        }
        spent += timed(threads, run, || {
            black_box(ring.pop().expect("a box"));
        });
        left -= run;
    }
    spent
}

/// Does something `run` times, spread over threads that start together; the time of the slowest. Starting them is not
/// measured.
fn timed(threads: u64, run: u64, act: impl Fn() + Sync) -> Duration {
    let gate = Barrier::new(usize::try_from(threads).unwrap_or(1));
    let work = |share: u64| {
        gate.wait();
        let start = Instant::now();
        (0..share).for_each(|_| act());
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let share = |thread| run / threads + u64::from(thread < run % threads);
        let others: Vec<_> = (1..threads)
            .map(|thread| {
                let (work, share) = (&work, share(thread));
                scope.spawn(move || work(share))
            })
            .collect();
        let own = work(share(0));
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, Duration::max)
    })
}

criterion_group!(benches, dequeue);
criterion_main!(benches);
