//! The lives of one store: a process opens it, works, and loses power; the next one opens what is left.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use obol_queue::{AgentHalf, DequeueError, Draw, FlushScope, MasterKey, Queue, SessionId, StoreOpenError};
use obol_world::ManualClock;
use obol_world::random::Random;

use super::disk::{Fate, Image, Name, SimulatedDisk, Survival};
use super::ledger::{Ledger, Scope, Verdict, Violation, world};
use super::{FILLED_DEPTH, LIMIT_DEPTH, LIMIT_READY, PATIENCE, START, TOOLS};

/// Resource servers in a document of some 400,000 bytes; two of them and the file has to grow.
pub(super) const LONG: usize = 200;

/// Lines that are kept of what happened.
const LOG_LINES: usize = 80;

/// A store on a disk, and what is known about it.
pub(super) struct Life {
    pub(super) disk: SimulatedDisk,
    pub(super) clock: Arc<ManualClock>,
    pub(super) ledger: Ledger,
    pub(super) random: Random,
    /// What happened last, for whoever has to find out why a promise was broken.
    log: VecDeque<String>,
    time_travels: bool,
    /// Whether sessions come whose documents make the file grow.
    grows: bool,
}

/// A populated store at rest, to start from.
#[derive(Clone)]
pub(super) struct Populated {
    pub(super) files: [Image; 2],
    pub(super) ledger: Ledger,
}

/// What one step does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Draw { session: u64, tool: &'static str },
    Provision { agent: u64, tools: Vec<&'static str>, audiences: usize },
    Flush(Scope),
    Policy { epoch: u64, denied: BTreeSet<String> },
    Sync,
    Rest(Duration),
    Advance(u64),
    ClockBack(u64),
}

impl Life {
    pub(super) fn begin(populated: &Populated, seed: u64) -> Self {
        Self {
            disk: SimulatedDisk::holding(populated.files.clone(), seed),
            clock: Arc::new(ManualClock::new(START)),
            ledger: populated.ledger.clone(),
            random: Random::new(!seed),
            log: VecDeque::new(),
            time_travels: seed % 4 == 1,
            grows: seed % 32 == 3,
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(what());
    }

    /// The last things that happened, oldest first.
    pub(super) fn log(&self) -> String {
        self.log.iter().flat_map(|line| ["\n    ", line]).collect()
    }

    pub(super) fn on_empty_disk(seed: u64) -> Self {
        let nothing = Populated { files: [Image::default(), Image::default()], ledger: Ledger::new() };
        Self::begin(&nothing, seed)
    }

    /// What is durable now, and known.
    pub(super) fn populated(&self) -> Populated {
        Populated { files: self.disk.durable(), ledger: self.ledger.clone() }
    }

    pub(super) fn open(&self) -> Result<Queue, StoreOpenError> {
        self.open_with_depth(LIMIT_DEPTH)
    }

    fn open_with_depth(&self, depth: usize) -> Result<Queue, StoreOpenError> {
        Queue::builder()
            .batch(2)
            .max_ready(LIMIT_READY)
            .max_depth(depth)
            .clock(Arc::clone(&self.clock))
            .open_with(
                self.disk.open(Name::Database),
                self.disk.open(Name::Keys),
                MasterKey::from_bytes([7; 32]),
            )
    }

    /// Opens the store, and holds what is found against what was promised. `None` if the disk failed meanwhile.
    pub(super) fn reopen(&mut self) -> Result<Option<Queue>, Violation> {
        let opened = self.open();
        let operations = self.disk.operations();
        match opened {
            Ok(queue) => {
                let sessions = queue.sessions().len();
                self.note(|| format!("opened after {operations} operations, {sessions} sessions"));
                self.ledger.reopened(&queue, || !self.disk.is_well())?;
                Ok(Some(queue))
            }
            Err(error) if !self.disk.is_well() => {
                self.note(|| format!("failed to open after {operations} operations: {error}"));
                Ok(None)
            }
            Err(error) => Err(Violation::DoesNotOpen(error)),
        }
    }

    fn now(&self) -> u64 {
        obol_queue::Clock::now(&*self.clock)
    }

    pub(super) fn draw(&mut self, queue: &Queue, session: u64, tool: &str) -> Verdict {
        let draw = Draw { tool, audience: None, session: Some(SessionId::from_u64(session)) };
        match queue.dequeue_within(draw, PATIENCE) {
            Ok(token) => self.ledger.handed_out(session, tool, token.as_bytes(), self.now()),
            Err(error) => self.ledger.refused(session, tool, &error, !self.disk.is_well()),
        }
    }

    pub(super) fn act(&mut self, queue: &Queue, step: &Step) -> Verdict {
        let before = self.disk.operations();
        let verdict = self.do_step(queue, step);
        let (after, well) = (self.disk.operations(), self.disk.is_well());
        self.note(|| {
            format!("{step:?}: operations {before} to {after}{}", if well { "" } else { ", failed" })
        });
        verdict
    }

    fn do_step(&mut self, queue: &Queue, step: &Step) -> Verdict {
        match step {
            Step::Draw { session, tool } => return self.draw(queue, *session, tool),
            Step::Provision { agent, tools, audiences } => {
                return self.provision(queue, *agent, tools, *audiences);
            }
            Step::Flush(scope) => {
                let minted = queue.tools().iter().map(|tool| tool.minted).sum();
                let answer = queue.flush(&flush_scope(scope), "power loss test");
                self.ledger.flushed(scope, minted, answer.is_ok());
                return self.explained(&answer);
            }
            Step::Policy { epoch, denied } => {
                let answer = queue.set_policy(*epoch, denied.clone());
                self.ledger.policy_set(*epoch, denied.clone(), answer.is_ok());
                return self.explained(&answer);
            }
            Step::Sync => return self.explained(&queue.sync()),
            Step::Rest(time) => std::thread::sleep(*time),
            Step::Advance(seconds) => {
                self.clock.advance(*seconds);
                self.ledger.time_passed();
            }
            Step::ClockBack(seconds) => {
                self.clock.set(self.now() - seconds);
                self.ledger.time_passed();
            }
        }
        Ok(())
    }

    /// An operation may fail only after the disk has.
    fn explained<T, E: core::fmt::Debug>(&self, answer: &Result<T, E>) -> Verdict {
        match answer {
            Err(error) if self.disk.is_well() => Err(Violation::Absurd(format!("{error:?}"))),
            _ => Ok(()),
        }
    }

    fn provision(&mut self, queue: &Queue, agent: u64, tools: &[&'static str], audiences: usize) -> Verdict {
        let id = self.ledger.new_session();
        let mut json = world(id, agent, tools, self.now());
        // Further resource servers only make the document long, so that the file has to grow.
        for number in 0..audiences {
            let mut server = json["resource_servers"][0].clone();
            server["aud"] = format!("https://{number}.example/{}", "x".repeat(1900)).into();
            json["resource_servers"].as_array_mut().unwrap().push(server);
        }
        let document = AgentHalf::from_json(json.to_string().as_bytes()).unwrap();
        let answer = queue.provision(document);
        self.ledger.provisioned(id, agent, tools, answer.is_ok());
        self.explained(&answer)
    }

    /// A step that makes sense now.
    pub(super) fn choose(&mut self) -> Step {
        let random = &mut self.random;
        let active = self.ledger.active();
        let tool = *random.pick(&TOOLS);
        match random.below(100) {
            0..=5 => Step::Provision {
                agent: random.below(3),
                tools: TOOLS[..=usize::try_from(random.below(TOOLS.len() as u64)).unwrap()].to_vec(),
                audiences: if self.grows && random.one_in(4) { LONG } else { 0 },
            },
            6..=8 if !active.is_empty() => Step::Flush(Scope::Session(random.pick(&active).0)),
            9 => Step::Flush(Scope::Agent(random.below(3))),
            10 => Step::Flush(Scope::All),
            11..=15 => Step::Flush(Scope::Tool(tool)),
            16..=17 => Step::Policy { epoch: self.ledger.epoch() + 1, denied: BTreeSet::new() },
            18..=20 => Step::Policy {
                epoch: self.ledger.epoch(),
                denied: (0..random.below(2)).map(|_| tool.to_owned()).collect(),
            },
            21..=25 => Step::Sync,
            26..=27 => Step::Rest(Duration::from_micros(random.below(2000))),
            28 if self.time_travels => Step::Advance(*random.pick(&[1, 60, 3590, 86_400])),
            29 if self.time_travels => Step::ClockBack(*random.pick(&[1, 2, 600, 86_400])),
            _ if active.is_empty() => {
                Step::Provision { agent: random.below(3), tools: TOOLS.to_vec(), audiences: 0 }
            }
            30..=32 => {
                let session = *random.pick(&self.ledger.sessions());
                Step::Draw { session, tool }
            }
            _ => {
                let (session, tools) = random.pick(&active).clone();
                Step::Draw { session, tool: random.pick::<&str>(&tools) }
            }
        }
    }

    /// Works until the power fails, or for a while.
    pub(super) fn work(&mut self, queue: &Queue, steps: u64) -> Verdict {
        for number in 0..steps {
            if !self.disk.is_well() {
                break;
            }
            if number % 8 == 0 {
                self.ledger.look(queue)?;
            }
            let step = self.choose();
            self.act(queue, &step)?;
        }
        Ok(())
    }

    /// One process from its start to the next power cut.
    pub(super) fn live_and_lose_power(&mut self) -> Verdict {
        let reach = *self.random.pick(&[12, 40, 40, 150, 400]);
        let at = 1 + self.random.below(reach);
        self.note(|| format!("a process starts; the power fails at operation {at}"));
        self.disk.arm(Fate::PowerCut(at));
        if let Some(queue) = self.reopen()? {
            let steps = self.random.below(40);
            if self.random.one_in(8) {
                self.work_beside_a_drawer(&queue, steps)?;
            } else {
                self.work(&queue, steps)?;
            }
            if self.random.one_in(2) {
                // The power fails while nothing happens, or while the last things do.
                self.cut();
            }
            drop(queue);
        }
        self.cut();
        Ok(())
    }

    fn cut(&mut self) {
        let survival = *self.random.pick(&[
            Survival::Nothing,
            Survival::Everything,
            Survival::Torn,
            Survival::Sectors,
            Survival::Sectors,
            Survival::Bytes,
            Survival::Bytes,
        ]);
        self.note(|| format!("power cut, what survives: {survival:?}"));
        self.disk.cut_power(survival);
    }

    /// Somebody else draws all the while; what they got counts as soon as the work is done.
    fn work_beside_a_drawer(&mut self, queue: &Queue, steps: u64) -> Verdict {
        let Some((session, tools)) = self.ledger.active().pop() else { return self.work(queue, steps) };
        let tool = *self.random.pick(&tools);
        let draw = Draw { tool, audience: None, session: Some(SessionId::from_u64(session)) };
        let done = core::sync::atomic::AtomicBool::new(false);
        let (worked, drawn) = std::thread::scope(|scope| {
            let drawer = scope.spawn(|| {
                let mut drawn = Vec::new();
                while !done.load(core::sync::atomic::Ordering::SeqCst) && drawn.len() < 500 {
                    match queue.dequeue(draw) {
                        Ok(token) => drawn.push(token.as_bytes().to_vec()),
                        Err(DequeueError::Empty { .. }) => std::thread::yield_now(),
                        Err(_) => break,
                    }
                }
                drawn
            });
            let worked = self.work(queue, steps);
            done.store(true, core::sync::atomic::Ordering::SeqCst);
            (worked, drawer.join().unwrap())
        });
        worked?;
        for token in drawn {
            self.ledger.drawn_beside(&token)?;
        }
        Ok(())
    }

    /// After the last power cut all is well: everything promised is there, and every tool has tokens.
    pub(super) fn end_well(&mut self) -> Verdict {
        self.disk.arm(Fate::Well);
        let Some(queue) = self.reopen()? else {
            return Err(Violation::Absurd("no disk".to_owned()));
        };
        for session in self.ledger.sessions() {
            for tool in self.ledger.tools(session) {
                // More than a process keeps in memory, so that what waits on the disk comes up as well.
                for _ in 0..3 {
                    self.draw(&queue, session, tool)?;
                }
            }
        }
        Ok(())
    }
}

fn flush_scope(scope: &Scope) -> FlushScope {
    match scope {
        Scope::All => FlushScope::All,
        Scope::Session(id) => FlushScope::Session(SessionId::from_u64(*id)),
        Scope::Agent(agent) => FlushScope::Agent(format!("agent-{agent}")),
        Scope::Tool(tool) => FlushScope::Tool((*tool).to_owned()),
    }
}

impl Populated {
    /// A store with sessions and a good many tokens on disk, cleanly closed.
    pub(super) fn store(sessions: u64) -> Self {
        let mut life = Life::on_empty_disk(1);
        let queue = life.open_with_depth(FILLED_DEPTH).unwrap();
        life.ledger.reopened(&queue, || false).unwrap();
        for agent in 0..sessions {
            life.provision(&queue, agent, &TOOLS, 0).unwrap();
        }
        let full = FILLED_DEPTH as u64 / 2;
        let deadline = std::time::Instant::now() + PATIENCE;
        // Only a tool that is drawn from has tokens minted ahead.
        while queue.tools().iter().any(|tool| tool.stored < full) {
            assert!(std::time::Instant::now() < deadline, "the store does not fill: {:?}", queue.tools());
            for (session, tools) in life.ledger.active() {
                for tool in tools {
                    life.draw(&queue, session, tool).unwrap();
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        queue.sync().unwrap();
        drop(queue);
        life.populated()
    }
}
