//! The real daemon under SIGKILL: eight clients draw, an operator flushes and provisions, and at a random moment the
//! process is gone. It is started again on the same files, again and again; `witness` holds what comes out of it
//! against everything that was seen before.
//!
//! `OBOL_SOAK_KILLS=10000` asks for that many kills, and `OBOL_CRASH_SEED` begins with the seed that a failure has
//! printed. The seed repeats what is done and when; how the processes' threads meet is up to the machine.

mod controls;
mod witness;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use obol_client::CallError;
use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::codec::Codec;
use obol_ipc::control::FlushScope;
use obol_ipc::names::{AgentInstanceId, PeerName, Reason, SessionId, ToolName};
use obol_ipc::refusal::ErrorCode;
use obol_ipc::secret::SessionDocumentText;
use obol_world::halves::AgentSession;
use obol_world::home;
use obol_world::now;
use obol_world::random::Random;
use obol_world::tqs::{self, Tqs};

use self::witness::{Broken, Drawn, Event, Flushed, Verdict, Witness};
use crate::proof::setting;

/// Kills in a run of the test suite.
const KILLS: u64 = 50;
/// Homes that are worked on at the same time: most of the time a daemon is starting.
const HOMES: u64 = 2;
/// Kills after which a home is left for a fresh one, so that its list of ended sessions stays short.
const KILLS_OF_A_HOME: u64 = 500;
/// Connections that draw.
const CLIENTS: u64 = 8;
/// The operator's longest pause. What he flushes has to be minted again, so he must not do nothing else.
const PAUSE_MICROS: u64 = 60_000;
const TOOLS: [&str; 3] = ["search", "pay", "read"];
/// Tokens in memory for each tool: few, so that claims and kills meet often.
const MAX_READY: u64 = 16;
/// Lines of the daemon's log that a failure shows.
const LOG_LINES: usize = 20;
const PROGRESS: Duration = Duration::from_secs(30);
/// How long a draw waits before the daemon counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happened in all homes, for the last line.
#[derive(Default)]
struct Totals {
    kills: AtomicU64,
    tokens: AtomicU64,
    flushes: AtomicU64,
    sessions: AtomicU64,
    unanswered: AtomicU64,
}

/// One home: its daemon, and what is known about it.
struct Home {
    folder: tempfile::TempDir,
    witness: Witness,
    random: Random,
}

/// When the daemon is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// While it starts, this long after it was spawned.
    Starting(Duration),
    /// This long after everybody began to work.
    Working(Duration),
    /// As soon as the operator has his first answer.
    FirstAnswer,
}

impl Home {
    fn new(seed: u64) -> Self {
        let folder = home::home();
        let config = folder.path().join(".config/obol");
        std::fs::create_dir_all(&config).unwrap();
        let limits = format!("[tqs]\nbatch = 4\nmax_ready = {MAX_READY}\nmax_depth = 300\n");
        std::fs::write(config.join("obol.toml"), limits).unwrap();
        Self { folder, witness: Witness::new(MAX_READY, CLIENTS), random: Random::new(seed) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn moment(&mut self) -> Moment {
        let micros = |random: &mut Random, most| Duration::from_micros(random.below(most));
        match self.random.below(10) {
            0..=1 => Moment::Starting(micros(&mut self.random, 40_000)),
            2..=3 => Moment::FirstAnswer,
            4..=5 => Moment::Working(micros(&mut self.random, 10_000)),
            6..=7 => Moment::Working(micros(&mut self.random, 120_000)),
            // Long enough for tokens to be minted ahead.
            _ => Moment::Working(micros(&mut self.random, 800_000)),
        }
    }

    /// One life of the daemon, from its start to its kill.
    fn live_and_be_killed(&mut self, totals: &Totals) -> Verdict {
        let moment = self.moment();
        if let Moment::Starting(time) = moment {
            let tqs = Tqs::spawn(self.path(), &[]);
            std::thread::sleep(time);
            tqs.kill();
            self.witness.killed_unseen();
            return Ok(());
        }
        let tqs = Tqs::start(self.path(), &[]);
        let mut operator = control(self.path()).map_err(|error| Broken::NoAnswer(error.to_string()))?;
        let status = operator.status().map_err(|error| Broken::NoAnswer(error.to_string()))?;
        self.witness.reopened(&status)?;
        let session = match self.witness.active() {
            Some(session) => session,
            None => self.provision(&mut operator, totals)?,
        };
        let events = self.work_until_killed(tqs, operator, session, moment, totals);
        let seen = self.witness.tokens();
        self.witness.learn(events)?;
        totals.tokens.fetch_add(self.witness.tokens() - seen, Ordering::SeqCst);
        Ok(())
    }

    fn provision(&mut self, operator: &mut ControlClient, totals: &Totals) -> Result<u64, Broken> {
        let number = self.witness.next_session();
        provision(operator, number).map_err(|error| Broken::NoAnswer(error.to_string()))?;
        self.witness.provisioned(number);
        totals.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(number)
    }

    fn work_until_killed(
        &mut self,
        tqs: Tqs,
        operator: ControlClient,
        session: u64,
        moment: Moment,
        totals: &Totals,
    ) -> Vec<Event> {
        let home = self.folder.path();
        let seeds: Vec<u64> = (0..=CLIENTS).map(|_| self.random.next()).collect();
        let next_session = self.witness.next_session();
        let answered = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = seeds[1..]
                .iter()
                .map(|seed| scope.spawn(|| draw_until_killed(home, Random::new(*seed), totals)))
                .collect();
            let operate = Operator { client: operator, random: Random::new(seeds[0]), session, next_session };
            let operator = scope.spawn(|| operate.until_killed(&answered, totals));
            match moment {
                Moment::Working(time) => std::thread::sleep(time),
                _ => {
                    let deadline = Instant::now() + PATIENCE;
                    while !answered.load(Ordering::SeqCst) && Instant::now() < deadline {
                        std::thread::yield_now();
                    }
                }
            }
            tqs.kill();
            let mut events: Vec<Event> =
                clients.into_iter().flat_map(|client| client.join().unwrap()).map(Event::Drawn).collect();
            events.extend(operator.join().unwrap());
            events
        })
    }
}

fn options() -> ConnectOptions {
    let mut options = ConnectOptions::new(PeerName::new("kills/1").unwrap());
    options.codec = Codec::Bincode;
    options.answer_timeout = PATIENCE;
    options
}

fn control(home: &Path) -> Result<ControlClient, obol_client::ConnectError> {
    ControlClient::connect(Endpoint::at(home.join("run/obol/control.sock")).unwrap(), options())
}

fn agent(home: &Path) -> Result<Client, obol_client::ConnectError> {
    Client::connect(Endpoint::at(tqs::socket(home)).unwrap(), options())
}

fn provision(operator: &mut ControlClient, number: u64) -> Result<(), CallError> {
    let mut world = AgentSession::new(number, now(), &TOOLS);
    world.expires_at += 24 * 3600;
    for grant in &mut world.grants {
        // The longest there is: in this test nothing is to be lost to age.
        grant["ttl"] = 3600.into();
    }
    let document = SessionDocumentText::new(world.agent_json().to_string()).unwrap();
    // After a flush new sessions are held back.
    operator.provision_and_resume(document).map(drop)
}

/// Draws until the connection is gone. A session that was flushed is waited for to be followed by another.
fn draw_until_killed(home: &Path, mut random: Random, totals: &Totals) -> Vec<Drawn> {
    let mut drawn = Vec::new();
    let Ok(mut client) = agent(home) else { return drawn };
    loop {
        let tool = *random.pick(&TOOLS);
        let sent = Instant::now();
        match client.dequeue_token(&ToolName::new(tool).unwrap(), Duration::from_secs(5)) {
            Ok(token) => drawn.push(Drawn::new(tool, token.token.expose(), sent, Instant::now())),
            Err(CallError::Refused(refusal)) => match refusal.code() {
                ErrorCode::SessionFlushed | ErrorCode::NoSession | ErrorCode::QueueEmpty { .. } => {
                    std::thread::yield_now();
                }
                code => panic!("{tool}: {code:?}: {refusal}"),
            },
            Err(CallError::MayHaveBeenHandedOut(_)) => {
                totals.unanswered.fetch_add(1, Ordering::SeqCst);
                return drawn;
            }
            Err(_) => return drawn,
        }
    }
}

/// Flushes, asks and provisions.
struct Operator {
    client: ControlClient,
    random: Random,
    session: u64,
    next_session: u64,
}

impl Operator {
    fn until_killed(mut self, answered: &AtomicBool, totals: &Totals) -> Vec<Event> {
        let mut events = Vec::new();
        while self.act(&mut events, totals).is_ok() {
            answered.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(self.random.below(PAUSE_MICROS)));
        }
        events
    }

    fn act(&mut self, events: &mut Vec<Event>, totals: &Totals) -> Result<(), CallError> {
        match self.random.below(40) {
            0..=14 => {
                let at = Instant::now();
                let status = self.client.status()?;
                events.push(Event::Looked { at, status });
                Ok(())
            }
            15..=38 => {
                let tool = *self.random.pick(&TOOLS);
                let scope = FlushScope::Tool(ToolName::new(tool).unwrap());
                self.flush(events, Flushed::Tool(tool), scope, totals)
            }
            _ => self.replace_session(events, totals),
        }
    }

    fn flush(
        &mut self,
        events: &mut Vec<Event>,
        what: Flushed,
        scope: FlushScope,
        totals: &Totals,
    ) -> Result<(), CallError> {
        let minted = self.client.status()?.tools.iter().map(|tool| tool.minted).sum();
        events.push(Event::FlushBegan(what));
        self.client.flush(scope, Reason::new("kill test").unwrap())?;
        totals.flushes.fetch_add(1, Ordering::SeqCst);
        events.push(Event::FlushReturned { at: Instant::now(), what, minted });
        Ok(())
    }

    fn replace_session(&mut self, events: &mut Vec<Event>, totals: &Totals) -> Result<(), CallError> {
        let scope = match self.random.below(3) {
            0 => FlushScope::All,
            1 => FlushScope::Session(SessionId::from_u64(self.session)),
            _ => FlushScope::Agent(AgentInstanceId::new("agent-1").unwrap()),
        };
        self.flush(events, Flushed::Session(self.session), scope, totals)?;
        let number = self.next_session;
        self.next_session += 1;
        events.push(Event::ProvisioningBegan(number));
        provision(&mut self.client, number)?;
        events.push(Event::Provisioned(number));
        totals.sessions.fetch_add(1, Ordering::SeqCst);
        self.session = number;
        Ok(())
    }
}

#[test]
fn no_kill_of_the_daemon_repeats_a_token_or_undoes_a_flush() {
    let kills = setting("OBOL_SOAK_KILLS", KILLS);
    let first = setting("OBOL_CRASH_SEED", 1);
    let of_a_home = KILLS_OF_A_HOME.min(kills.div_ceil(HOMES));
    let homes = kills.div_ceil(of_a_home);
    let (next, totals, start) = (AtomicU64::new(0), Totals::default(), Instant::now());
    let work = &|| {
        let mut reported = start;
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= homes {
                return;
            }
            let seed = first + number;
            let mut home = Home::new(seed);
            for life in 0..of_a_home.min(kills - number * of_a_home) {
                if let Err(broken) = home.live_and_be_killed(&totals) {
                    let kept = home.folder.keep();
                    let log = std::fs::read_to_string(kept.join("tqs.log")).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
                    let tail: String = tail.into_iter().rev().flat_map(|line| [line, "\n"]).collect();
                    panic!(
                        "OBOL_CRASH_SEED={seed}, life {life}: {broken:?}; files are kept in {}; end of the log:\n{tail}",
                        kept.display()
                    );
                }
                totals.kills.fetch_add(1, Ordering::SeqCst);
                if reported.elapsed() > PROGRESS {
                    reported = Instant::now();
                    let done = totals.kills.load(Ordering::SeqCst);
                    eprintln!("kills: {done} of {kills} after {:.0?}, at seed {seed}", start.elapsed());
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..HOMES).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let Totals { kills: done, tokens, flushes, sessions, unanswered } = totals;
    let [done, tokens, flushes, sessions, unanswered] =
        [done, tokens, flushes, sessions, unanswered].map(AtomicU64::into_inner);
    eprintln!(
        "kills: seeds {first} to {}, {done} kills in {:.0?}; {tokens} tokens handed out, none twice; {flushes} flushes, \
         none undone; {sessions} sessions; {unanswered} draws lost their answer",
        first + homes - 1,
        start.elapsed()
    );
    assert_eq!(done, kills);
    assert!(tokens > 4 * kills && flushes > kills / 4, "hardly anything happened between the kills");
}
