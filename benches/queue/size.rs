//! A draw from ten tools, alone and among ten thousand tools and ten thousand sessions.

use core::time::Duration;
use std::time::Instant;

use obol_benches::rows::{Row, Target, Unit};
use obol_queue::{Draw, Queue, SessionId};

use crate::store;

/// Tools that are drawn from.
const HOT: u64 = 10;
const SESSIONS: u64 = 10_000;
/// Tools in each of the sessions that hold many; three of them hold ten thousand and more.
const TOOLS: u64 = 3_400;
/// Draws timed together.
const DRAWS: u32 = 1_000;
const ROUNDS: usize = 101;
/// How much slower it may be among many, to within the noise of it.
const TARGET: f64 = 1.5;

pub(crate) fn run() {
    let few = median(&few());
    let among_sessions = median(&among_sessions());
    let among_tools = median(&among_tools());
    for (what, time) in [("sessions", among_sessions), ("tools", among_tools)] {
        let row = Row::new("queue", format!("dequeue among 10,000 {what}"), Unit::Nanoseconds, time);
        row.beside("among 10", few).wants(Target::RatioAtMost(TARGET)).record();
    }
}

/// What is open, and has to stay so while it is measured.
struct Opened {
    queue: Queue,
    session: u64,
    _folder: tempfile::TempDir,
}

fn open(sessions: u64) -> (Queue, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
    (store::open(store::builder().batch(8).max_ready(4_096).max_sessions(sessions), folder.path()), folder)
}

fn names(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("tool-{number}")).collect()
}

fn few() -> Opened {
    let (queue, folder) = open(10);
    store::provision(&queue, 1, &names(HOT));
    Opened { queue, session: 1, _folder: folder }
}

fn among_sessions() -> Opened {
    let (queue, folder) = open(SESSIONS + 1);
    for session in 1..=SESSIONS {
        store::provision(&queue, session, &names(1));
    }
    store::provision(&queue, SESSIONS + 1, &names(HOT));
    Opened { queue, session: SESSIONS + 1, _folder: folder }
}

fn among_tools() -> Opened {
    let (queue, folder) = open(10);
    for session in 1..=3 {
        store::provision(&queue, session, &names(TOOLS));
    }
    Opened { queue, session: 3, _folder: folder }
}

/// The median time of a draw, in nanoseconds. Rounds in which a tool ran dry are not counted.
fn median(opened: &Opened) -> f64 {
    let Opened { queue, session, .. } = opened;
    let tools: Vec<String> = names(HOT);
    let session = Some(SessionId::from_u64(*session));
    let mut rounds = Vec::new();
    store::wait_for("enough rounds in which no tool ran dry", || {
        for tool in &tools {
            let draw = Draw { tool, audience: None, session };
            let _asks_for_more = queue.dequeue(draw);
        }
        let start = Instant::now();
        let mut drawn = 0;
        'round: for _ in 0..DRAWS {
            for tool in &tools {
                if queue.dequeue(Draw { tool, audience: None, session }).is_err() {
                    break 'round;
                }
                drawn += 1;
            }
        }
        let took = start.elapsed();
        if drawn >= 40 {
            rounds.push(took / drawn);
        }
        std::thread::sleep(Duration::from_millis(2));
        rounds.len() >= ROUNDS
    });
    rounds.sort_unstable();
    store::nanos(store::percentile(&rounds, 0.5))
}
