//! The queue against a model small enough to be obviously right, under random work, clocks that jump, and a disk that
//! fails.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Error, Result as IoResult};
use std::sync::Arc;

use obol_queue::{
    AgentHalf, DequeueError, Draw, FlushScope, MasterKey, ProvisionError, Queue, SessionId, SessionState,
    StorageBackend,
};
use obol_token::Envelope;
use obol_world::ManualClock;
use obol_world::halves::AgentSession;
use proptest::prelude::*;

const START: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const TOOLS: [&str; 2] = ["search", "pay"];
const TTL: u64 = 60;
const MIN_LIFE: u64 = 5;
const MAX_DEPTH: usize = 64;
/// Inside this many seconds a clock that runs backwards makes time stand still.
const CLOCK_TOLERANCE: u64 = 2;
/// How long a draw waits before the queue counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory that a file is kept in; it fails when told to.
#[derive(Clone, Debug, Default)]
struct Memory {
    bytes: Arc<std::sync::Mutex<Vec<u8>>>,
    fails: Arc<AtomicBool>,
}

impl Memory {
    fn check(&self) -> IoResult<()> {
        if self.fails.load(Ordering::SeqCst) { Err(Error::other("the disk fails")) } else { Ok(()) }
    }
}

fn place(offset: u64, length: usize) -> core::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + length
}

impl StorageBackend for Memory {
    fn len(&self) -> IoResult<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> IoResult<()> {
        let bytes = self.bytes.lock().unwrap();
        let found = bytes.get(place(offset, out.len())).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> IoResult<()> {
        self.check()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> IoResult<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.check()?;
        let mut bytes = self.bytes.lock().unwrap();
        let place = place(offset, data.len());
        if bytes.len() < place.end {
            bytes.resize(place.end, 0);
        }
        bytes[place].copy_from_slice(data);
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Provision,
    Draw(usize, usize),
    DrawUnknownTool(usize),
    FlushTool(usize),
    FlushSession(usize),
    FlushAll,
    Deny(Option<usize>),
    RaiseEpoch,
    Clock(i64),
    Reopen,
    DiskFails,
}

fn step() -> impl Strategy<Value = Step> {
    let tool = 0..TOOLS.len();
    let session = 0..4_usize;
    prop_oneof![
        2 => Just(Step::Provision),
        14 => (session.clone(), tool.clone()).prop_map(|(session, tool)| Step::Draw(session, tool)),
        1 => session.clone().prop_map(Step::DrawUnknownTool),
        2 => tool.clone().prop_map(Step::FlushTool),
        1 => session.prop_map(Step::FlushSession),
        1 => Just(Step::FlushAll),
        2 => prop::option::of(tool).prop_map(Step::Deny),
        1 => Just(Step::RaiseEpoch),
        4 => prop::sample::select(vec![1, 30, 54, 56, 61, 3600, -1, -2, -30, 24 * 3600, -24 * 3600])
            .prop_map(Step::Clock),
        1 => Just(Step::Reopen),
        1 => Just(Step::DiskFails),
    ]
}

/// All that the queue should know: nothing of batches, threads, rows or keys.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<u64, SessionState>,
    denied: BTreeSet<String>,
    epoch: u64,
    handed_out: HashSet<Vec<u8>>,
    failed: bool,
}

struct Harness {
    files: [Memory; 2],
    clock: Arc<ManualClock>,
    queue: Option<Queue>,
    model: Model,
    /// Tokens of a tool must be minted no earlier than this: the counter in their nonce.
    floors: BTreeMap<&'static str, u64>,
    latest_counter: u64,
}

impl Harness {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let files = <[Memory; 2]>::default();
        let mut harness = Self {
            files,
            clock,
            queue: None,
            model: Model::default(),
            floors: BTreeMap::new(),
            latest_counter: 0,
        };
        harness.reopen();
        harness
    }

    fn now(&self) -> u64 {
        obol_queue::Clock::now(&*self.clock)
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.queue = None;
        for file in &self.files {
            file.fails.store(false, Ordering::SeqCst);
        }
        self.model.failed = false;
        let [database, keys] = self.files.clone();
        let builder = Queue::builder()
            .batch(3)
            .max_ready(6)
            .max_depth(MAX_DEPTH)
            .min_life(Duration::from_secs(MIN_LIFE));
        let builder = builder.clock(Arc::clone(&self.clock));
        self.queue = Some(builder.open_with(database, keys, MasterKey::from_bytes([3; 32])).unwrap());
    }

    fn session(&self, index: usize) -> u64 {
        let known = self.model.sessions.len().max(1);
        self.model.sessions.keys().nth(index % known).copied().unwrap_or(99)
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Provision => self.provision(),
            Step::Draw(session, tool) => self.draw(self.session(*session), TOOLS[*tool]),
            Step::DrawUnknownTool(session) => self.draw(self.session(*session), "delete"),
            Step::FlushTool(tool) => {
                let floor = self.latest_counter + 1;
                if self.flush(&FlushScope::Tool(TOOLS[*tool].to_owned())) {
                    self.floors.insert(TOOLS[*tool], floor);
                }
            }
            Step::FlushSession(index) => {
                let id = self.session(*index);
                if self.flush(&FlushScope::Session(SessionId::from_u64(id))) {
                    self.model.sessions.entry(id).and_modify(|state| *state = SessionState::Flushed);
                }
            }
            Step::FlushAll => {
                if self.flush(&FlushScope::All) {
                    self.model.sessions.values_mut().for_each(|state| *state = SessionState::Flushed);
                }
            }
            Step::Deny(tool) => {
                let denied = tool.iter().map(|tool| TOOLS[*tool].to_owned()).collect();
                self.set_policy(self.model.epoch, denied);
            }
            Step::RaiseEpoch => self.set_policy(self.model.epoch + 1, self.model.denied.clone()),
            Step::Clock(seconds) => self.clock.set(self.now().saturating_add_signed(*seconds)),
            Step::Reopen => self.reopen(),
            Step::DiskFails => self.fail(),
        }
        self.check_numbers();
    }

    fn provision(&mut self) {
        let number = self.model.sessions.keys().last().copied().unwrap_or(0) + 1;
        let mut world = AgentSession::new(number, START - 30 * DAY, &TOOLS);
        world.expires_at = START + 60 * DAY;
        for grant in &mut world.grants {
            grant["ttl"] = TTL.into();
        }
        let document = AgentHalf::from_json(world.agent_json().to_string().as_bytes()).unwrap();
        match self.queue().provision(document) {
            Ok(id) => {
                assert!(!self.model.failed && id == SessionId::from_u64(number));
                self.model.sessions.insert(number, SessionState::Active);
            }
            Err(ProvisionError::Unavailable(_)) => assert!(self.model.failed),
            Err(error) => panic!("{error}"),
        }
    }

    fn flush(&self, scope: &FlushScope) -> bool {
        let flushed = self.queue().flush(scope, "model");
        // A failed queue may still flush, where there is nothing to write for it.
        assert!(flushed.is_ok() || self.model.failed, "{flushed:?}");
        if let Ok(flushed) = &flushed {
            assert!(flushed.tokens_discarded <= 8 * MAX_DEPTH as u64, "{flushed:?}");
        }
        flushed.is_ok() && !self.model.failed
    }

    fn set_policy(&mut self, epoch: u64, denied: BTreeSet<String>) {
        let answer = self.queue().set_policy(epoch, denied.clone());
        assert_eq!(answer.is_err(), self.model.failed, "{answer:?}");
        if answer.is_ok() {
            self.model.epoch = epoch;
            self.model.denied = denied;
        }
    }

    /// The disk fails for good, and the queue learns of it.
    fn fail(&mut self) {
        for file in &self.files {
            file.fails.store(true, Ordering::SeqCst);
        }
        assert!(self.queue().sync().is_err() && self.queue().health().is_err());
        self.model.failed = true;
    }

    fn draw(&mut self, session: u64, tool: &str) {
        let draw = Draw { tool, audience: None, session: Some(SessionId::from_u64(session)) };
        let answer = self.queue().dequeue_within(draw, PATIENCE);
        let standing = self.model.sessions.get(&session).copied();
        if self.model.failed {
            assert!(matches!(answer, Err(DequeueError::Unavailable(_))), "{answer:?}");
            return;
        }
        match standing {
            None => assert_eq!(answer.unwrap_err(), DequeueError::NoSession),
            Some(SessionState::Flushed) => assert_eq!(answer.unwrap_err(), DequeueError::SessionFlushed),
            Some(_) if !TOOLS.contains(&tool) || self.model.denied.contains(tool) => {
                assert_eq!(answer.unwrap_err(), DequeueError::PolicyDenied);
            }
            Some(_) => self.handed_out(tool, answer.unwrap().as_bytes()),
        }
    }

    fn handed_out(&mut self, tool: &str, bytes: &[u8]) {
        assert!(self.model.handed_out.insert(bytes.to_vec()), "a token was handed out twice");
        let token = Envelope::parse(bytes).unwrap();
        let now = self.now();
        assert!(token.issued_at() <= now + CLOCK_TOLERANCE, "of a later time: {token:?} at {now}");
        assert!(now + MIN_LIFE <= token.expires_at(), "stale: {token:?} at {now}");
        assert_eq!(token.expires_at() - token.issued_at(), TTL);
        assert!(token.policy_epoch() >= self.model.epoch, "of an older policy: {token:?}");
        let [.., a, b, c, d, e, f, g, h] = token.iv();
        let counter = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        assert!(self.floors.get(tool).is_none_or(|floor| counter >= *floor), "minted before its flush");
        self.latest_counter = self.latest_counter.max(counter);
    }

    fn check_numbers(&self) {
        for tool in self.queue().tools() {
            let used = tool.handed_out + tool.expired + tool.discarded;
            let sane = tool.ready <= 5 * 6 && tool.stored <= 2 * MAX_DEPTH as u64 && used < 1_000_000;
            assert!(sane, "{tool:?}");
        }
        if let Ok(status) = self.queue().status(None) {
            assert!(status.queue_depth <= 4 * MAX_DEPTH as u64 && status.ttl <= TTL, "{status:?}");
        }
        if self.model.failed {
            return;
        }
        let found: BTreeMap<u64, SessionState> =
            self.queue().sessions().into_iter().map(|info| (info.session_id.as_u64(), info.state)).collect();
        // Sessions are numbered as they come: a flush of a younger one holds the older ones back.
        let youngest_flushed =
            self.model.sessions.iter().rev().find(|(_, state)| **state == SessionState::Flushed);
        let mut expected = self.model.sessions.clone();
        for (id, state) in &mut expected {
            if *state == SessionState::Active && youngest_flushed.is_some_and(|(flushed, _)| flushed > id) {
                *state = SessionState::Held;
            }
        }
        assert_eq!(found, expected);
    }
}

/// How many random histories are tried; `OBOL_SOAK_MODEL=20000` asks for that many.
fn cases() -> u32 {
    u32::try_from(crate::proof::setting("OBOL_SOAK_MODEL", 96)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_a_small_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let mut harness = Harness::new();
        harness.act(&Step::Provision);
        for step in &steps {
            harness.act(step);
        }
    }
}
