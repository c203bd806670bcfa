//! Spending: how long one caller waits in each spent set, and what 64 callers come to together.
//!
//! `cargo bench -p obol-benches --bench spent`. Needs `redis-server` (Debian: apt-get install redis-server) for its
//! part; without it, it says so and leaves that out.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use criterion::{Criterion, Throughput, criterion_group};
use obol_benches::rows::{self, Row, Unit, criterion_median};
use obol_token::{Jti, SessionId};
use obol_verify::{
    Clock, Mark, MemorySpentSet, NewFile, RedbSpentSetOptions, SpendError, SpentSet, SystemClock,
};
use obol_verify_redis::{RedisOptions, RedisSpentSet};

/// Threads that spend at once in the second measurement of each set.
const CALLERS: u64 = 64;
/// Marks alive at a time are bounded, so they end soon; a set that is measured for minutes forgets them meanwhile.
const LIFE_SECS: u64 = 10;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A mark that was never seen before.
fn fresh() -> Mark {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = [0; 16];
    name.split_at_mut(8).1.copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Mark::new(SessionId::from_u64(7), &Jti::from_random(name), now() + LIFE_SECS)
}

fn spend_one(set: &dyn SpentSet) {
    assert_eq!(set.spend(fresh()).wait(), Ok::<(), SpendError>(()));
}

/// Spends that many marks on that many threads that start together; the time until the last is done.
fn spend(set: &dyn SpentSet, count: u64, callers: u64) -> Duration {
    let gate = Barrier::new(usize::try_from(callers).unwrap_or(1) + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                let gate = &gate;
                let share = count / callers + u64::from(caller < count % callers);
                scope.spawn(move || {
                    gate.wait();
                    (0..share).for_each(|_| spend_one(set));
                })
            })
            .collect();
        gate.wait();
        let began = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().expect("every mark is fresh"));
        began.elapsed()
    })
}

fn measure(criterion: &mut Criterion, name: &str, set: &dyn SpentSet) {
    let mut group = criterion.benchmark_group("spend");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{name}, 1 caller"), |bencher| bencher.iter(|| spend_one(set)));
    group.bench_function(format!("{name}, {CALLERS} callers"), |bencher| {
        bencher.iter_custom(|iterations| spend(set, iterations, CALLERS));
    });
    group.finish();
}

fn spending(criterion: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    measure(criterion, "memory", &MemorySpentSet::unfenced(Arc::clone(&clock), 0));

    let folder = tempfile::tempdir().expect("a folder");
    let file = RedbSpentSetOptions::new(folder.path().join("spent.redb"))
        .clock_skew(0)
        .new_file(NewFile::Trusted)
        .open(Arc::clone(&clock))
        .expect("a spent set");
    measure(criterion, "file", &file);

    let Some(redis) = Redis::start(&folder) else { return };
    let options = RedisOptions::new(&redis.url, "bench").expect("an address").clock_skew(0).first_start();
    let shared = RedisSpentSet::open(options, clock).expect("a fit server");
    measure(criterion, "Redis over a Unix socket", &shared);
    let mut connection = redis::Client::open(redis.url.as_str())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    criterion.benchmark_group("spend").throughput(Throughput::Elements(1)).bench_function(
        "peer: SET NX PX over a Unix socket, 1 caller",
        |bencher| {
            bencher.iter(|| {
                let mark = fresh();
                let set: Option<String> = redis::cmd("SET")
                    .arg(mark.id())
                    .arg("1")
                    .arg("NX")
                    .arg("PX")
                    .arg(LIFE_SECS * 1_000)
                    .query(&mut connection)
                    .expect("an answer");
                assert!(set.is_some());
            });
        },
    );
}

/// A server of our own, killed when dropped.
struct Redis {
    child: Child,
    url: String,
}

impl Redis {
    fn start(folder: &tempfile::TempDir) -> Option<Self> {
        let socket = folder.path().join("redis.sock");
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            rows::skipped("Redis; redis-server is missing (Debian: apt-get install redis-server)");
            return None;
        };
        rows::count_as_ours(child.id());
        let redis = Self { child, url: format!("unix://{}", socket.display()) };
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Ours by its handle.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// One row for each set, the one over Redis beside Redis itself.
fn record() {
    const PEER: &str = "peer: SET NX PX over a Unix socket, 1 caller";
    let sets = ["memory", "file", "Redis over a Unix socket"];
    for set in sets {
        let alone = format!("{set}, 1 caller");
        if let Some(time) = criterion_median("spend", &alone) {
            let row = Row::new("spent", format!("spend, {alone}"), Unit::Nanoseconds, time);
            let peer = criterion_median("spend", PEER).filter(|_| set.starts_with("Redis"));
            peer.map_or(row.clone(), |peer| row.beside("SET NX PX, 1 caller", peer)).record();
        }
        let together = format!("{set}, {CALLERS} callers");
        if let Some(time) = criterion_median("spend", &together) {
            Row::new("spent", format!("spend, {together}"), Unit::PerSecond, 1e9 / time).record();
        }
    }
}

criterion_group!(benches, spending);

fn main() {
    rows::begin();
    benches();
    Criterion::default().configure_from_args().final_summary();
    record();
}
