//! The witness checked: files that are put back from a copy must be found to repeat tokens and to undo flushes.

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use obol_ipc::control::FlushScope;
use obol_ipc::names::{Reason, ToolName};
use obol_world::tqs::Tqs;

use super::witness::{Broken, Drawn, Event, Flushed, Verdict};
use super::{Home, MAX_READY, agent, control, provision};

const FILES: [&str; 2] = ["tokens.redb", "tokens.redb.keys"];
/// More than is ready in memory, so that what waits on the disk comes up as well.
const MANY: u64 = 2 * MAX_READY;

/// What an operator should never do: keep a copy of the store.
fn copy(from: &Path, to: &Path) {
    for file in FILES {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// Draws so many tokens of one tool, as a client would see them.
fn draw(home: &Home, tool: &'static str, count: u64) -> Vec<Event> {
    let mut client = agent(home.path()).unwrap();
    let name = ToolName::new(tool).unwrap();
    let draw = |_| {
        let sent = Instant::now();
        let token = client.dequeue_token(&name, Duration::from_secs(20)).unwrap();
        Event::Drawn(Drawn::new(tool, token.token.expose(), sent, Instant::now()))
    };
    (0..count).map(draw).collect()
}

/// A daemon that is started, looked at and left to `act`, then killed.
fn live(home: &mut Home, act: impl FnOnce(&mut Home) -> Vec<Event>) -> Verdict {
    let tqs = Tqs::start(home.path(), &[]);
    let status = control(home.path()).unwrap().status().unwrap();
    home.witness.reopened(&status)?;
    if home.witness.active().is_none() {
        let number = home.witness.next_session();
        provision(&mut control(home.path()).unwrap(), number).unwrap();
        home.witness.provisioned(number);
    }
    let events = act(home);
    tqs.kill();
    home.witness.learn(events)
}

/// Draws until so many tokens wait on the disk.
fn draw_until_wait(home: &Home, tool: &'static str, least: u64) -> Vec<Event> {
    let mut events = Vec::new();
    let stored = || {
        let status = control(home.path()).unwrap().status().unwrap();
        status.tools.iter().filter(|found| found.tool.as_str() == tool).map(|found| found.stored).sum::<u64>()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while stored() < least {
        assert!(Instant::now() < deadline, "nothing waits on the disk");
        events.extend(draw(home, tool, MAX_READY));
    }
    events
}

fn store_of(home: &Home) -> std::path::PathBuf {
    home.path().join(".local/state/obol")
}

#[test]
fn a_store_put_back_from_a_copy_is_found_to_repeat_tokens() {
    let mut home = Home::new(1);
    let kept = tempfile::tempdir().unwrap();
    live(&mut home, |home| draw_until_wait(home, "search", MANY)).unwrap();
    copy(&store_of(&home), kept.path());
    live(&mut home, |home| draw(home, "search", MANY)).unwrap();
    copy(kept.path(), &store_of(&home));
    let verdict = live(&mut home, |home| draw(home, "search", MANY));
    assert!(matches!(verdict, Err(Broken::Repeated(_))), "{verdict:?}");
}

#[test]
fn a_store_put_back_from_a_copy_is_found_to_undo_the_flush_of_a_tool() {
    let mut home = Home::new(2);
    let kept = tempfile::tempdir().unwrap();
    live(&mut home, |home| draw_until_wait(home, "search", MANY)).unwrap();
    copy(&store_of(&home), kept.path());
    live(&mut home, |home| {
        let mut operator = control(home.path()).unwrap();
        let minted = operator.status().unwrap().tools.iter().map(|tool| tool.minted).sum();
        let what = Flushed::Tool("search");
        let scope = FlushScope::Tool(ToolName::new("search").unwrap());
        operator.flush(scope, Reason::new("control").unwrap()).unwrap();
        vec![Event::FlushBegan(what), Event::FlushReturned { at: Instant::now(), what, minted }]
    })
    .unwrap();
    copy(kept.path(), &store_of(&home));
    let verdict = live(&mut home, |home| draw(home, "search", MANY));
    assert!(matches!(verdict, Err(Broken::FlushUndone(_))), "{verdict:?}");
}

#[test]
fn a_store_put_back_from_a_copy_is_found_to_undo_the_flush_of_a_session() {
    let mut home = Home::new(3);
    let kept = tempfile::tempdir().unwrap();
    live(&mut home, |home| draw(home, "search", 1)).unwrap();
    copy(&store_of(&home), kept.path());
    live(&mut home, |home| {
        let what = Flushed::Session(1);
        control(home.path()).unwrap().flush(FlushScope::All, Reason::new("control").unwrap()).unwrap();
        vec![Event::FlushBegan(what), Event::FlushReturned { at: Instant::now(), what, minted: 0 }]
    })
    .unwrap();
    copy(kept.path(), &store_of(&home));
    let verdict = live(&mut home, |_| Vec::new());
    assert!(matches!(verdict, Err(Broken::FlushUndone(_))), "{verdict:?}");
}

#[test]
fn a_store_that_was_deleted_is_found_to_have_lost_its_sessions() {
    let mut home = Home::new(4);
    live(&mut home, |home| draw(home, "search", 1)).unwrap();
    for file in FILES {
        std::fs::remove_file(store_of(&home).join(file)).unwrap();
    }
    let verdict = live(&mut home, |_| Vec::new());
    assert!(matches!(verdict, Err(Broken::SessionLost(_))), "{verdict:?}");
}

#[test]
fn tokens_that_vanish_without_a_flush_are_found_to_be_lost() {
    let mut home = Home::new(5);
    live(&mut home, |home| {
        let mut events = draw_until_wait(home, "pay", 8 * MAX_READY);
        let status = control(home.path()).unwrap().status().unwrap();
        events.push(Event::Looked { at: Instant::now(), status });
        // The witness is not told of this flush, and a tool that is denied gets nothing minted in its place.
        let deny = || control(home.path()).unwrap().policy(1, vec![ToolName::new("pay").unwrap()]).unwrap();
        deny();
        let scope = FlushScope::Tool(ToolName::new("pay").unwrap());
        control(home.path()).unwrap().flush(scope, Reason::new("control").unwrap()).unwrap();
        // Each commit does one chore beside its own work: after these the flushed rows are gone and not counted.
        (0..4).for_each(|_| deny());
        events
    })
    .unwrap();
    let verdict = live(&mut home, |_| Vec::new());
    assert!(matches!(verdict, Err(Broken::TokensLost(_))), "{verdict:?}");
}
