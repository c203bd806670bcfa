//! SIGKILL at random moments of the service and of those who follow it: every follower ends in the same state as the service,
//! no session that was ended is accepted by any of them, and none that was opened is lost.
//!
//! `OBOL_SOAK_FOLLOWER_KILLS=10000` asks for that many kills (`scripts/soak followers`), and `OBOL_CRASH_SEED` begins with the
//! seed that a failure has printed. A seed repeats who is killed after how long; what runs at that moment may differ.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use obol_authenticator::Session;
use obol_ipc::control::SessionState;
use obol_ipc::names::ToolName;
use obol_verify::Unverified;
use obol_world::authority::AsProcess;
use obol_world::home::{self, wait_until};
use obol_world::random::Random;
use obol_world::rs::RsProcess;

use super::Agent;
use super::captured::minted;
use super::stream::{API, Beside};
use crate::proof::setting;

/// How many processes are killed, unless told otherwise.
const KILLS: u64 = 50;
/// How many of them in one home.
const KILLS_OF_A_HOME: u64 = 50;
/// Homes at a time, where there are several.
const WORKERS: u64 = 2;
/// An agent of this process, which knows the keys of its sessions, and one beside a sidecar.
const AGENTS: [&str; 2] = ["builder", "helper"];

/// The sessions that the service says are live.
fn live(service: &AsProcess, agent: &str) -> BTreeSet<String> {
    let shown = service.told(&["agent", "show", agent]);
    let sessions = shown["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["sessionId"].as_str().unwrap().to_owned()).collect()
}

/// Those that a follower accepts.
fn accepted(rs: &RsProcess) -> BTreeSet<String> {
    let status = rs.operate("status");
    let active = status["sessions"].as_array().unwrap().iter().filter(|session| session["state"] == "active");
    active.map(|session| session["sessionId"].as_str().unwrap().to_owned()).collect()
}

/// A service and everybody who follows it.
struct World {
    seed: u64,
    random: Random,
    service: AsProcess,
    followers: [RsProcess; 2],
    agent: Agent,
    beside: Option<Beside>,
    /// What `agent` opened.
    opened: BTreeMap<String, Session>,
    /// What was ended, and answered.
    ended: BTreeSet<String>,
    /// Tokens that the sidecar handed out, with their sessions.
    drawn: Vec<(String, String)>,
    killed: u64,
    home: tempfile::TempDir,
}

impl World {
    fn new(seed: u64) -> Self {
        let home = home::home();
        let service = AsProcess::start(home.path());
        let start = |store: &str| {
            let spent = format!("{store}-spent.redb");
            let kept = ["--first-start", "--spent", &spent, "--session-store", store];
            RsProcess::follow(home.path(), &service, API, &kept)
        };
        let followers = [start("one.redb"), start("memory")];
        let (agent, _) = Agent::approved(&service, home.path(), AGENTS[0]);
        let beside = Some(Beside::start_as(home.path(), &service, AGENTS[1]));
        let (opened, ended, drawn) = Default::default();
        let random = Random::new(seed);
        Self { seed, random, service, followers, agent, beside, opened, ended, drawn, killed: 0, home }
    }

    fn beside(&self) -> &Beside {
        self.beside.as_ref().unwrap()
    }

    /// A session is opened; then one ends, and somebody is killed before that is known, or at the same moment, or after it.
    fn round(&mut self) {
        let session = self.agent.open().unwrap();
        self.opened.insert(session.half.session_id.to_string(), session);
        if self.random.one_in(4) {
            self.draw();
        }
        let victim = usize::try_from(self.random.below(4)).unwrap();
        let ends = self.one_that_ends();
        let delay = Duration::from_micros(self.random.below(30_000));
        let Self { service, followers, ended, home, beside, .. } = self;
        std::thread::scope(|scope| {
            let service = &*service;
            let ending = scope.spawn(move || {
                let done = service.operate(&["agent", "end-session", &ends, "--wait", "0"]);
                done.status.success().then_some(ends)
            });
            std::thread::sleep(delay);
            match (followers.get_mut(victim), beside.take()) {
                (Some(follower), untouched) => {
                    follower.kill();
                    *beside = untouched;
                }
                (None, Some(authenticator)) if victim == 3 => {
                    *beside = Some(authenticator.restarted(home.path(), service));
                }
                (None, untouched) => *beside = untouched,
            }
            ended.extend(ending.join().unwrap());
        });
        self.killed += u64::from(victim != 2);
        if victim == 2 || self.random.one_in(4) {
            self.service.kill();
            self.killed += 1;
            self.service.start_again();
        }
        if let Some(follower) = self.followers.get_mut(victim) {
            follower.start_again();
        }
    }

    /// A session of either agent.
    fn one_that_ends(&mut self) -> String {
        let beside = live(&self.service, AGENTS[1]).into_iter().collect::<Vec<_>>();
        match self.random.one_in(3) && !beside.is_empty() {
            true => self.random.pick(&beside).clone(),
            false => self.random.pick(&self.opened.keys().cloned().collect::<Vec<_>>()).clone(),
        }
    }

    /// Draws from the sidecar, if there is anything: after an end another session takes a moment.
    fn draw(&mut self) {
        let tool = ToolName::new("search").unwrap();
        if let Ok(drawn) = self.beside().tqs.client().dequeue_token(&tool, Duration::from_millis(500)) {
            let token = drawn.token.expose().to_owned();
            let session = Unverified::from_text(token.as_bytes()).unwrap().claimed_session_id();
            self.drawn.push((session.to_string(), token));
        }
    }

    /// Everybody is in the same state.
    fn check(&mut self) {
        let all =
            || -> BTreeSet<String> { AGENTS.iter().flat_map(|agent| live(&self.service, agent)).collect() };
        assert!(all().is_disjoint(&self.ended), "seed {}: the service itself revives something", self.seed);
        for follower in &self.followers {
            wait_until("a follower is as the service", || accepted(follower) == all());
            let told = all();
            for (name, session) in &self.opened {
                let answer = follower.present_once(&minted(session, |_| {}), "search");
                let is_refused = ["SESSION_EXPIRED", "SESSION_NOT_FOUND"].contains(&answer.as_str());
                let as_told = if told.contains(name) { answer == "OK" } else { is_refused };
                assert!(as_told, "seed {}, {name}: {answer}\n{}", self.seed, follower.log());
            }
            for (session, token) in self.drawn.iter().filter(|(session, _)| self.ended.contains(session)) {
                let answer = follower.present_once(token, "search");
                assert_ne!(answer, "OK", "seed {}: of {session}, which was ended", self.seed);
            }
        }
        self.check_sidecar();
    }

    /// The sidecar hands out what is accepted, and holds nothing that was ended.
    fn check_sidecar(&self) {
        let held = || -> BTreeSet<String> {
            let sessions = self.beside().tqs.control().status().unwrap().sessions;
            let open = sessions.iter().filter(|session| session.state == SessionState::Active);
            open.map(|session| session.session_id.to_string()).collect()
        };
        wait_until("the sidecar has what the service says is live, and nothing else", || {
            let held = held();
            !held.is_empty() && held.is_subset(&live(&self.service, AGENTS[1]))
        });
        let tool = ToolName::new("search").unwrap();
        let drawn = self.beside().tqs.client().dequeue_token(&tool, Duration::from_secs(5)).unwrap();
        for follower in &self.followers {
            // Its session may have been opened a moment ago: whoever is told that it is not known yet asks again, as an agent does.
            let answer = follower.present(drawn.token.expose(), "search");
            assert_eq!(answer, "OK", "seed {}: a session is lost\n{}", self.seed, follower.log());
        }
        let shown = self.service.told(&["agent", "show", AGENTS[1]]);
        assert_eq!(shown["agent"]["cloneSuspected"], false, "seed {}: a kill is no copied key", self.seed);
    }
}

#[test]
fn whatever_is_killed_every_follower_ends_in_the_same_state_and_nothing_that_ended_is_accepted() {
    let kills = setting("OBOL_SOAK_FOLLOWER_KILLS", KILLS);
    let first = setting("OBOL_CRASH_SEED", 1);
    let homes = kills.div_ceil(KILLS_OF_A_HOME);
    let (next, killed, start) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= homes {
                return;
            }
            let seed = first + number;
            let mut world = World::new(seed);
            println!("followers: seed {seed} begins");
            while world.killed < KILLS_OF_A_HOME {
                world.round();
            }
            world.check();
            assert!(!world.ended.is_empty() && !world.opened.is_empty());
            let done = killed.fetch_add(world.killed, Ordering::SeqCst) + world.killed;
            println!(
                "followers: {done} of {kills} kills after {:.0?}; seed {seed} held: {} opened, {} ended, {} drawn",
                start.elapsed(),
                world.opened.len(),
                world.ended.len(),
                world.drawn.len()
            );
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(homes)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
