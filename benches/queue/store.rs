//! Queues to measure, and tokens to fill them with.

use core::time::Duration;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_queue::{DequeueError, MasterKey, Order, Queue, QueueBuilder, SourceError, TokenSource, Tokens};
use obol_world::AUDIENCE;
use obol_world::halves::AgentSession;

/// Bytes of a token: that of an ordinary one.
pub(crate) const TOKEN_BYTES: usize = 450;
/// Tokens in a batch under load.
pub(crate) const BATCH: usize = 64;
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Tokens of the usual size that cost nothing to make: a number, and bytes that do not repeat in a batch.
#[derive(Debug)]
pub(crate) struct Premade;

impl TokenSource for Premade {
    fn mint(&self, order: &Order<'_>, tokens: &mut Tokens<'_>) -> Result<(), SourceError> {
        let mut token = [0x5A; TOKEN_BYTES];
        for number in (order.first_number()..).take(usize::from(order.count())) {
            if let Some(start) = token.first_chunk_mut() {
                *start = number.to_be_bytes();
            }
            tokens.push(&token)?;
        }
        Ok(())
    }
}

pub(crate) fn builder() -> QueueBuilder {
    Queue::builder().batch(u16::try_from(BATCH).unwrap_or(u16::MAX)).token_source(Premade)
}

pub(crate) fn master_key() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

pub(crate) fn open(builder: QueueBuilder, folder: &Path) -> Queue {
    builder.open(folder.join("tokens.redb"), master_key()).expect("a queue")
}

/// Provisions a session that grants these tools, for as long as there is.
pub(crate) fn provision(queue: &Queue, number: u64, tools: &[String]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let grant = |tool: &String| serde_json::json!({"tool": tool, "aud": AUDIENCE, "action": "read", "resource": "docs/**", "ttl": 3600});
    let session = AgentSession {
        expires_at: now + 24 * 3600,
        grants: tools.iter().map(grant).collect(),
        ..AgentSession::new(number, now, &[])
    };
    queue.provision(session.document()).expect("provisioned");
}

pub(crate) fn names(tools: &[&str]) -> Vec<String> {
    tools.iter().map(|tool| (*tool).to_owned()).collect()
}

/// Waits until it holds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn ready(queue: &Queue) -> u64 {
    queue.tools().iter().map(|tool| tool.ready).sum()
}

pub(crate) fn stored(queue: &Queue) -> u64 {
    queue.tools().iter().map(|tool| tool.stored).sum()
}

/// Draws from the tool until so many tokens wait on the disk: a queue mints ahead what the demand asks for.
pub(crate) fn fill(queue: &Queue, tool: &str, tokens: u64) {
    let deadline = Instant::now() + PATIENCE;
    while stored(queue) < tokens {
        assert!(Instant::now() < deadline, "the store does not fill: {:?}", queue.tools());
        for _ in 0..2_000 {
            match queue.dequeue(tool) {
                Ok(_) => {}
                Err(DequeueError::Empty { .. }) => break,
                Err(error) => panic_about(&error),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    queue.sync().expect("durable");
}

/// How long nothing must be minted or claimed for a queue to count as at rest.
const REST: Duration = Duration::from_millis(300);
/// The same where it is waited for often: longer than it takes to mint or store the largest batch.
const SHORT_REST: Duration = Duration::from_millis(30);

/// What changes while a queue is at work: tokens minted, stored and ready of each tool.
fn numbers(queue: &Queue) -> Vec<(u64, u64, u64)> {
    queue.tools().iter().map(|tool| (tool.minted, tool.stored, tool.ready)).collect()
}

/// Waits until nothing is being minted, stored or claimed, without letting the processor rest.
pub(crate) fn calm(queue: &Queue) {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut since) = (numbers(queue), Instant::now());
    while since.elapsed() < SHORT_REST {
        assert!(Instant::now() < deadline, "the queue never comes to rest");
        let now = numbers(queue);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        core::hint::spin_loop();
    }
}

/// Waits until the queue has done what it had to do.
pub(crate) fn settle(queue: &Queue) {
    let numbers = || numbers(queue);
    let (mut last, mut since) = (numbers(), Instant::now());
    wait_for("the queue is at rest", || {
        let now = numbers();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > REST
    });
}

#[expect(clippy::panic, reason = "a benchmark that cannot go on has nothing to measure")]
fn panic_about(error: &DequeueError) {
    panic!("no token: {error}");
}

/// The smallest value that this share of the samples does not exceed; the samples are sorted.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a measurement needs no 53rd bit")]
pub(crate) fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

#[expect(clippy::cast_precision_loss, reason = "a measurement needs no 53rd bit")]
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
