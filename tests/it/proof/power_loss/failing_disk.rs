//! A disk that fails without a power cut: no room, read and write errors, syncs that fail.

use core::sync::atomic::{AtomicU64, Ordering};
use std::io::ErrorKind;

use obol_queue::{DequeueError, Draw, Queue, SessionId};

use super::disk::{Fate, SimulatedDisk, Survival};
use super::in_parallel;
use super::ledger::{Scope, Verdict, Violation};
use super::life::{Life, Populated, Step};

fn steps() -> Vec<Step> {
    let draw = |session, tool| Step::Draw { session, tool };
    vec![
        draw(1, "search"),
        draw(1, "search"),
        Step::Provision { agent: 3, tools: vec!["search"], audiences: 0 },
        Step::Flush(Scope::Tool("search")),
        draw(2, "search"),
        Step::Policy { epoch: 1, denied: ["pay".to_owned()].into() },
        Step::Flush(Scope::Session(2)),
        draw(1, "read"),
        Step::Sync,
    ]
}

/// After an error every draw is refused, for good, however much is ready.
fn is_stopped(life: &Life, queue: &Queue) -> Verdict {
    for session in life.ledger.sessions() {
        for tool in life.ledger.tools(session) {
            let draw = Draw { tool, audience: None, session: Some(SessionId::from_u64(session)) };
            for _ in 0..3 {
                match queue.dequeue(draw) {
                    Err(DequeueError::Unavailable(_)) => {}
                    answer => return Err(Violation::NotStopped(format!("{tool}: {answer:?}"))),
                }
            }
        }
    }
    Ok(())
}

fn fail_at(populated: &Populated, fate: Fate, at: u64) -> Verdict {
    let mut life = Life::begin(populated, at);
    life.disk.arm(fate);
    if let Some(queue) = life.reopen()? {
        for step in &steps() {
            life.act(&queue, step)?;
        }
        if !life.disk.is_well() {
            // Whatever failed was needed, so the writer knows of it by now, or learns of it here.
            if queue.sync().is_ok() || queue.health().is_ok() {
                return Err(Violation::NotStopped("it goes on after an error".to_owned()));
            }
            is_stopped(&life, &queue)?;
        }
        drop(queue);
    }
    if at.is_multiple_of(2) {
        life.disk.kill_process();
    } else {
        life.disk.cut_power(Survival::Sectors);
    }
    life.end_well()
}

/// Lets each operation of some work fail in turn.
fn fail_everywhere(count: impl Fn(&SimulatedDisk) -> u64, fate: impl Fn(u64) -> Fate + Sync) {
    let populated = Populated::store(2);
    let mut life = Life::begin(&populated, 0);
    let queue = life.reopen().unwrap().unwrap();
    for step in &steps() {
        life.act(&queue, step).unwrap();
    }
    drop(queue);
    let operations = count(&life.disk);
    assert!(operations > 20, "{operations}");
    // Twice each: once the process ends, once the power goes as well. Unoptimised, one of the two in turn.
    let times = if cfg!(debug_assertions) { 1 } else { 2 };
    let next = AtomicU64::new(1);
    in_parallel(|| {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let at = number.div_ceil(times);
            if at > operations {
                return;
            }
            fail_at(&populated, fate(at), number)
                .unwrap_or_else(|broken| panic!("{:?}: {broken:?}", fate(at)));
        }
    });
    eprintln!("{} failures at {operations} operations", times * operations);
}

#[test]
fn a_disk_that_is_full_stops_the_queue_and_costs_no_promise() {
    let fate = |at| Fate::Fails { at, error: ErrorKind::StorageFull, lasting: true };
    fail_everywhere(SimulatedDisk::operations, fate);
}

#[test]
fn a_single_write_or_sync_that_fails_stops_the_queue_and_costs_no_promise() {
    let fate = |at| Fate::Fails { at, error: ErrorKind::Other, lasting: false };
    fail_everywhere(SimulatedDisk::operations, fate);
}

#[test]
fn a_single_read_that_fails_stops_the_queue_and_costs_no_promise() {
    fail_everywhere(SimulatedDisk::reads, Fate::FailsToRead);
}
