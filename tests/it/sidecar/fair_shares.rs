//! Processes that take all there is of a sidecar, and what others notice of it. This test is the one that hoards; the others
//! are processes of their own.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Instant;

use obol_world::home;
use serde_json::json;

use crate::sidecar::{Raw, start_as};

/// Connections of the agents' socket in these tests.
const CONNECTIONS: usize = 200;
/// Requests of one connection that may wait.
const WAITING: usize = 128;
const PATIENCE: Duration = Duration::from_secs(60);

/// Another agent, which is another process.
fn another_agent_draws(home: &Path) -> Output {
    home::command(home).args(["dequeue", "search", "--wait", "20000"]).output().unwrap()
}

/// Opens connections until there are this many, or no more are let in.
fn hoard(home: &Path, held: &mut Vec<Raw>) {
    while held.len() < CONNECTIONS {
        let mut raw = Raw::connect(home, "agent.sock");
        // One that is not let in may be closed before its first word.
        if raw.try_send(&json!({"obol": 1, "codec": "json", "client": "hoarder/1"})).is_err() {
            return;
        }
        match raw.receive() {
            Some(hello) if hello["codec"] == "json" => held.push(raw),
            _ => return,
        }
    }
}

/// Says something on each, and lets go of those that were closed.
fn keep_busy(held: &mut Vec<Raw>) {
    held.retain_mut(|raw| {
        let asked = json!({"jsonrpc": "2.0", "id": 7, "method": "sessionInfo", "params": {}});
        raw.try_send(&asked).is_ok() && raw.receive().is_some()
    });
}

#[test]
fn a_process_that_keeps_every_connection_busy_shuts_no_other_out() {
    let home = home::home();
    let home = home.path();
    let _tqs = start_as(home, &[], |command| {
        command.env("OBOL_TQS__CONNECTIONS", CONNECTIONS.to_string());
    });
    let (stop, held_now) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hoarder = {
        let (home, stop, held_now) = (home.to_owned(), Arc::clone(&stop), Arc::clone(&held_now));
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                hoard(&home, &mut held);
                keep_busy(&mut held);
                held_now.store(held.len(), Ordering::Relaxed);
            }
        })
    };
    home::wait_until("the hoarder has nearly all", || held_now.load(Ordering::Relaxed) >= CONNECTIONS - 2);
    for number in 0..10 {
        let drawn = another_agent_draws(home);
        assert!(drawn.status.success(), "draw {number}: {drawn:?}");
        assert!(held_now.load(Ordering::Relaxed) >= CONNECTIONS - 10, "the hoarder keeps nearly all");
    }
    stop.store(true, Ordering::Relaxed);
    hoarder.join().unwrap();
}

#[test]
fn a_process_that_has_every_wait_leaves_others_of_the_same_tool_their_turn() {
    const HOARDING: usize = 140;
    let home = home::home();
    let home = home.path();
    let _tqs = start_as(home, &[], |_| {});
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hoarders: Vec<_> = (0..HOARDING)
        .map(|_| {
            let mut raw = Raw::greeted(home, "agent.sock");
            raw.0.set_read_timeout(Some(PATIENCE)).unwrap();
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..WAITING {
                        let params = json!({"tool": "search", "waitMs": 30_000});
                        raw.send(
                            &json!({"jsonrpc": "2.0", "id": 1, "method": "dequeueToken", "params": params}),
                        );
                    }
                    for _ in 0..WAITING {
                        if raw.receive().is_none() {
                            return;
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    home::wait_until("the hoarder is at work", || answered.load(Ordering::Relaxed) > 2 * WAITING);
    for number in 0..5 {
        let began = Instant::now();
        let drawn = another_agent_draws(home);
        assert!(drawn.status.success(), "draw {number}: {drawn:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "draw {number} took {:?}", began.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    hoarders.into_iter().for_each(|hoarder| hoarder.join().unwrap());
}
