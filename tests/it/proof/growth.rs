//! A queue that lives long and holds much: files that do not grow without end, starts that stay short, and draws that
//! are right among ten thousand sessions and tools.
//!
//! Tokens here are numbered bytes, not minted: it is the store that is tested. `OBOL_SOAK_CYCLES=1000000` asks for that many
//! tokens to go the whole way.

use core::time::Duration;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use obol_queue::{
    DequeueError, Draw, MasterKey, Order, Queue, QueueBuilder, SessionId, SourceError, TokenSource, Tokens,
};
use obol_world::halves::AgentSession;
use obol_world::home::Store;
use obol_world::now;
use redb::backends::InMemoryBackend;
use sha2::{Digest, Sha256};

use crate::proof::setting;

/// Bytes of an ordinary token.
const TOKEN_BYTES: usize = 450;
const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens that go the whole way in a run of the test suite.
const CYCLES: u64 = 60_000;
/// Tokens that wait while they do.
const DEPTH: u64 = 10_000;
/// Of them on the disk, at the least, once a refill has come to its end: all but what is ready, and what is drawn before
/// the next one begins.
const FULL: u64 = DEPTH * 3 / 4 - MAX_READY;
/// The files may be this many times what waits in them.
const MOST_GROWTH: u64 = 4;
/// Tokens that a killed process leaves behind.
const LEFT: u64 = 100_000;
/// What is ready in the killed process, and so may be gone.
const MAX_READY: u64 = 256;
/// Tells the process that is to be killed where its store is.
const VARIABLE: &str = "OBOL_TEST_CHILD_STORE";

/// Tokens that say what they are for: a number, the session, and a digest of the tool.
#[derive(Debug)]
struct Numbered;

impl TokenSource for Numbered {
    fn mint(&self, order: &Order<'_>, tokens: &mut Tokens<'_>) -> Result<(), SourceError> {
        for number in (order.first_number()..).take(usize::from(order.count())) {
            tokens.push(&token(number, order.session_id().as_u64(), order.tool()))?;
        }
        Ok(())
    }
}

fn token(number: u64, session: u64, tool: &str) -> Vec<u8> {
    let mut token = [number.to_be_bytes(), session.to_be_bytes()].concat();
    token.extend_from_slice(&Sha256::digest(tool));
    token.resize(TOKEN_BYTES, 0x5A);
    token
}

fn number(token: &[u8]) -> u64 {
    u64::from_be_bytes(token[..8].try_into().unwrap())
}

fn builder() -> QueueBuilder {
    Queue::builder().token_source(Numbered).max_ready(usize::try_from(MAX_READY).unwrap())
}

/// A session whose tokens live as long as tokens can.
fn world(session: u64, tools: &[&str]) -> AgentSession {
    let mut world = AgentSession::new(session, now(), tools);
    world.expires_at = now() + 24 * 3600;
    for grant in &mut world.grants {
        grant["ttl"] = 3600.into();
    }
    world
}

fn stored(queue: &Queue) -> u64 {
    queue.tools().iter().map(|tool| tool.stored).sum()
}

/// Draws a thousand tokens a second, at most, until so many wait on the disk: a queue mints ahead what the demand asks
/// for, and first of all what somebody waits for.
fn fill(queue: &Queue, least: u64, mut drawn: impl FnMut(u64)) {
    let deadline = Instant::now() + 5 * PATIENCE;
    while stored(queue) < least {
        assert!(Instant::now() < deadline, "the store does not fill: {:?}", queue.tools());
        for _ in 0..5 {
            match queue.dequeue("search") {
                Ok(token) => drawn(number(token.as_bytes())),
                Err(DequeueError::Empty { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    queue.sync().unwrap();
}

#[test]
fn the_files_stay_within_four_times_what_waits_however_many_tokens_have_gone_through() {
    let cycles = setting("OBOL_SOAK_CYCLES", CYCLES);
    let store = Store::new();
    let queue = builder()
        .max_depth(usize::try_from(DEPTH).unwrap())
        .open(store.database(), store.master_key())
        .unwrap();
    queue.provision(world(1, &["search"]).document()).unwrap();
    let mut seen = HashSet::new();
    let start = Instant::now();
    fill(&queue, FULL, |number| assert!(seen.insert(number), "handed out twice"));
    while (seen.len() as u64) < cycles {
        let token = queue.dequeue_within("search", PATIENCE).unwrap();
        assert!(seen.insert(number(token.as_bytes())), "handed out twice");
    }
    fill(&queue, FULL, |number| assert!(seen.insert(number), "handed out twice"));
    let live = stored(&queue) * TOKEN_BYTES as u64;
    let length = |path: PathBuf| std::fs::metadata(path).unwrap().len();
    let files = length(store.database()) + length(store.path("tokens.redb.keys"));
    eprintln!(
        "growth: {} tokens in {:.0?}, none twice; {live} bytes wait in {files} bytes of files: {:.2} times",
        seen.len(),
        start.elapsed(),
        files as f64 / live as f64
    );
    assert!(files <= MOST_GROWTH * live, "{files} bytes for {live}");
}

/// Not a test on its own: the process that the next one kills.
#[test]
#[ignore = "run by the test after it, which kills it"]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let master_key = MasterKey::load_or_create(folder.join("master.key")).unwrap();
    let queue = builder().max_depth(200_000).open(folder.join("tokens.redb"), master_key).unwrap();
    queue.provision(world(1, &["search"]).document()).unwrap();
    fill(&queue, LEFT, |number| println!("\ndrawn {number}"));
    println!("\nfilled");
    // Draws on until it is killed.
    loop {
        if let Ok(token) = queue.dequeue_within("search", PATIENCE) {
            println!("\ndrawn {}", number(token.as_bytes()));
        }
    }
}

#[test]
fn a_hundred_thousand_tokens_of_a_killed_process_are_handed_out_once_each_by_the_next() {
    let store = Store::new();
    let folder = store.database().parent().unwrap().to_owned();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "proof::growth::the_process_that_is_killed",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VARIABLE, &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = HashSet::new();
    let mut after_filled = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("drawn ") {
            // The last line may have been cut off by the kill.
            if let Ok(number) = number.parse::<u64>() {
                seen.insert(number);
            }
            after_filled = after_filled.map(|count: u64| count + 1);
        } else if line == "filled" {
            after_filled = Some(0);
        }
        if after_filled == Some(1_000) {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success() && after_filled.is_some(), "the child ended by itself");
    let drawn_by_it = after_filled.unwrap();

    let start = Instant::now();
    let queue = builder().max_depth(1).open(store.database(), store.master_key()).unwrap();
    let took = start.elapsed();
    let waiting = queue.tools().iter().map(|tool| tool.stored + tool.ready).sum::<u64>();
    assert!(waiting + drawn_by_it + 2 * MAX_READY >= LEFT, "{waiting} wait, {drawn_by_it} were drawn");
    eprintln!("growth: {waiting} tokens of a killed process opened in {took:.1?}");
    for _ in 0..LEFT - drawn_by_it - 2 * MAX_READY {
        let token = queue.dequeue_within("search", PATIENCE).unwrap();
        let number = number(token.as_bytes());
        // The last one may have been handed out, and its line lost with the process; that one is not there again either.
        assert!(seen.insert(number), "{number:x} was handed out before the kill");
    }
}

/// Sessions, and tools. Unoptimised a fifth of it: each needs some handing over between threads.
const MANY: u64 = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
/// Sessions that share the tools.
const FEW: u64 = 4;
/// Callers at the same time: each waits for commits most of the time.
const CALLERS: u64 = 16;

/// Does it for each number up to `last`, spread over callers.
fn for_each_up_to(last: u64, act: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let act = &act;
            scope.spawn(move || (1..=last).filter(|number| number % CALLERS == caller).for_each(act));
        }
    });
}

/// Draws from the tool of that session, and looks whether the token is its own and new.
fn draw_own(queue: &Queue, session: u64, tool: &str, seen: &Mutex<HashSet<u64>>) {
    let draw = Draw { tool, audience: None, session: Some(SessionId::from_u64(session)) };
    let drawn = queue.dequeue_within(draw, PATIENCE).unwrap();
    let number = number(drawn.as_bytes());
    assert!(seen.lock().unwrap().insert(number), "handed out twice");
    assert_eq!(drawn.as_bytes(), token(number, session, tool), "another tool's token");
}

fn in_memory(max_sessions: u64) -> Queue {
    builder()
        .batch(4)
        .max_sessions(usize::try_from(max_sessions).unwrap())
        .open_with(InMemoryBackend::new(), InMemoryBackend::new(), MasterKey::from_bytes([7; 32]))
        .unwrap()
}

#[test]
fn among_ten_thousand_sessions_each_draw_gets_its_own_token() {
    let queue = in_memory(MANY);
    for_each_up_to(MANY, |session| _ = queue.provision(world(session, &["search"]).document()).unwrap());
    let seen = Mutex::default();
    for_each_up_to(MANY, |session| draw_own(&queue, session, "search", &seen));
    assert_eq!(seen.into_inner().unwrap().len() as u64, MANY);
    eprintln!("growth: {MANY} sessions, each draw got its own token");
}

#[test]
fn among_ten_thousand_tools_each_draw_gets_its_own_token() {
    let queue = in_memory(FEW);
    let tools: Vec<String> = (0..MANY / FEW).map(|number| format!("tool-{number}")).collect();
    let names: Vec<&str> = tools.iter().map(String::as_str).collect();
    for session in 1..=FEW {
        queue.provision(world(session, &names).document()).unwrap();
    }
    let seen = Mutex::default();
    for_each_up_to(MANY, |number| {
        let tool = &tools[usize::try_from((number - 1) / FEW).unwrap()];
        draw_own(&queue, (number - 1) % FEW + 1, tool, &seen);
    });
    assert_eq!(queue.tools().len() as u64, MANY);
    assert_eq!(seen.into_inner().unwrap().len() as u64, MANY);
    eprintln!("growth: {MANY} tools, each draw got its own token");
}
