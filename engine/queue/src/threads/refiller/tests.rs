//! The refiller with a source of tokens that can be held up, and fails on demand.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use redb::backends::InMemoryBackend;

use crate::{
    AgentHalf, DequeueError, MasterKey, Order, Queue, QueueBuilder, SourceError, TokenSource, Tokens,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Makes tokens that are their numbers, when it may.
#[derive(Clone, Debug, Default)]
struct Numbers {
    orders: Arc<AtomicUsize>,
    /// Asked while this is set, it waits.
    held: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
}

impl TokenSource for Numbers {
    fn mint(&self, order: &Order<'_>, tokens: &mut Tokens<'_>) -> Result<(), SourceError> {
        self.orders.fetch_add(1, Ordering::SeqCst);
        while self.held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(SourceError::new("no tokens today"));
        }
        let mut numbers = order.first_number()..;
        (0..order.count()).zip(&mut numbers).try_for_each(|(_, number)| tokens.push(&number.to_be_bytes()))
    }
}

fn open(builder: QueueBuilder, source: &Numbers) -> Queue {
    let builder = builder.token_source(source.clone());
    builder.open_with(InMemoryBackend::new(), InMemoryBackend::new(), MasterKey::from_bytes([1; 32])).unwrap()
}

fn provision(queue: &Queue, tools: &[&str]) {
    let key = "11".repeat(32);
    let grant =
        |tool| serde_json::json!({"tool": tool, "aud": "https://api", "action": "read", "resource": "**"});
    let document = serde_json::json!({
        "obol_session": 1, "session_id": "0000000000000007", "suite": 1,
        "agent_instance_id": "agent-1", "org_id": "example", "iss": "auth", "sub": "key",
        "established_at": 1, "expires_at": 4_000_000_000_u64, "policy_epoch": 1,
        "resource_servers": [{"aud": "https://api", "K_session": key, "verifier_secret": key,
                              "mutual_auth": key, "SEK_PK": key}],
        "grants": tools.iter().map(grant).collect::<Vec<_>>(),
    });
    let document = AgentHalf::from_json(document.to_string().as_bytes()).unwrap();
    queue.provision(document).unwrap();
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn any_number_of_cold_callers_cause_one_renewal() {
    const CALLERS: usize = 16;
    let source = Numbers::default();
    source.held.store(true, Ordering::SeqCst);
    let queue = open(Queue::builder().batch(100), &source);
    provision(&queue, &["search"]);
    let found_nothing = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let empty = queue.dequeue("search").unwrap_err();
                assert!(matches!(empty, DequeueError::Empty { .. }), "{empty:?}");
                found_nothing.fetch_add(1, Ordering::SeqCst);
                queue.dequeue_within("search", PATIENCE).unwrap();
            });
        }
        eventually("all callers found nothing", || found_nothing.load(Ordering::SeqCst) == CALLERS);
        source.held.store(false, Ordering::SeqCst);
    });
    assert_eq!(source.orders.load(Ordering::SeqCst), 1);
    assert_eq!(queue.tools()[0].minted, 100);
}

#[test]
fn while_minting_fails_a_renewal_is_pending_and_says_for_how_long() {
    let source = Numbers::default();
    source.fails.store(true, Ordering::SeqCst);
    let queue = open(Queue::builder(), &source);
    provision(&queue, &["search"]);
    eventually("minting was tried and failed twice", || source.orders.load(Ordering::SeqCst) >= 2);
    eventually("the wait is told", || {
        queue.status(Some("search")).unwrap().retry_after > Some(Duration::from_millis(50))
    });
    let status = queue.status(Some("search")).unwrap();
    assert!(status.renewal_pending && status.queue_depth == 0, "{status:?}");
    assert!(queue.tools()[0].mint_failures >= 1, "failures are counted");
    let DequeueError::Empty { retry_after } = queue.dequeue("search").unwrap_err() else {
        panic!("a renewal is pending");
    };
    assert!(retry_after <= super::MAX_BACKOFF * 3 / 2, "{retry_after:?}");
    // Callers that ask all the same do not make it try more often.
    let before = source.orders.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        queue.dequeue("search").unwrap_err();
    }
    let tried = source.orders.load(Ordering::SeqCst) - before;
    assert!(tried <= 20, "tried {tried} times for 1,000 calls");

    source.fails.store(false, Ordering::SeqCst);
    queue.dequeue_within("search", PATIENCE).unwrap();
    eventually("nothing is pending", || !queue.status(Some("search")).unwrap().renewal_pending);
}

#[test]
fn a_source_that_makes_too_few_or_too_many_is_refused() {
    #[derive(Debug)]
    struct Wrong(u16);
    impl TokenSource for Wrong {
        fn mint(&self, _: &Order<'_>, tokens: &mut Tokens<'_>) -> Result<(), SourceError> {
            (0..self.0).try_for_each(|number| tokens.push(&number.to_be_bytes()))
        }
    }
    for made in [0, 9, 11] {
        let queue = Queue::builder()
            .token_source(Wrong(made))
            .open_with(InMemoryBackend::new(), InMemoryBackend::new(), MasterKey::from_bytes([1; 32]))
            .unwrap();
        provision(&queue, &["search"]);
        eventually("the batch is refused", || {
            queue.status(Some("search")).unwrap().retry_after > Some(Duration::from_millis(50))
        });
        assert_eq!(queue.tools()[0].minted, 0);
    }
}

#[test]
fn a_tool_that_waits_is_served_before_stocks_are_filled_up() {
    let source = Numbers::default();
    source.held.store(true, Ordering::SeqCst);
    let queue = open(Queue::builder().batch(1).max_ready(8), &source);
    let names: Vec<String> = (0..500).map(|number| format!("tool{number}")).collect();
    let tools: Vec<&str> = names.iter().map(String::as_str).collect();
    provision(&queue, &tools);
    eventually("the first is being minted", || source.orders.load(Ordering::SeqCst) == 1);
    // The last in the row asks while the first is being minted; with it, it is the second or third to get tokens.
    queue.dequeue("tool499").unwrap_err();
    source.held.store(false, Ordering::SeqCst);
    queue.dequeue_within("tool499", PATIENCE).unwrap();
    let served = queue.tools().iter().filter(|tool| tool.minted > 0).count();
    assert!(served < 499, "{served} tools were served before the one that waited");
}
