//! SIGKILL at random moments of the service and of those who follow it: every follower ends in the same state as the service,
//! and no session that was ended is accepted by any of them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use obol_authenticator::Session;
use obol_world::authority::AsProcess;
use obol_world::home::{self, wait_until};
use obol_world::random::Random;
use obol_world::rs::RsProcess;

use super::Agent;
use super::captured::minted;
use super::stream::API;

/// How many processes are killed.
const KILLS: u64 = 50;

/// The sessions that the service says are live.
fn live(service: &AsProcess) -> BTreeSet<String> {
    let shown = service.told(&["agent", "show", "builder"]);
    let sessions = shown["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["sessionId"].as_str().unwrap().to_owned()).collect()
}

/// Those that a follower accepts.
fn accepted(rs: &RsProcess) -> BTreeSet<String> {
    let status = rs.operate("status");
    let active = status["sessions"].as_array().unwrap().iter().filter(|session| session["state"] == "active");
    active.map(|session| session["sessionId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn whatever_is_killed_every_follower_ends_in_the_same_state_and_nothing_that_ended_is_accepted() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    let start = |store: &str| {
        let spent = format!("{store}-spent.redb");
        let kept = ["--first-start", "--spent", &spent, "--session-store", store];
        RsProcess::follow(home.path(), &service, API, &kept)
    };
    let mut followers = [start("one.redb"), start("memory")];
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let mut random = Random::new(29);
    let mut opened: BTreeMap<String, Session> = BTreeMap::new();
    let mut ended: BTreeSet<String> = BTreeSet::new();
    let mut killed = 0;
    while killed < KILLS {
        let session = agent.open().unwrap();
        let name = session.half.session_id.to_string();
        opened.insert(name.clone(), session);
        // Something ends, and is answered, before the end of whoever it is; or at the same moment.
        let victim = usize::try_from(random.below(3)).unwrap();
        let ends = random.pick(&opened.keys().cloned().collect::<Vec<_>>()).clone();
        let delay = Duration::from_micros(random.below(30_000));
        std::thread::scope(|scope| {
            let service = &service;
            let ending = scope.spawn(move || {
                service
                    .operate(&["agent", "end-session", &ends, "--wait", "0"])
                    .status
                    .success()
                    .then_some(ends)
            });
            std::thread::sleep(delay);
            if let Some(follower) = followers.get_mut(victim) {
                follower.kill();
            }
            ended.extend(ending.join().unwrap());
        });
        killed += 1;
        if victim == 2 || random.one_in(4) {
            service.kill();
            killed += 1;
            service.start_again();
        }
        if victim < 2 {
            followers[victim].start_again();
        }
    }
    let told = live(&service);
    assert!(told.is_disjoint(&ended), "the service itself revives nothing");
    for follower in &followers {
        wait_until("it is as the service", || accepted(follower) == told);
        let mut refused = 0;
        for (name, session) in &opened {
            let answer = follower.present(&minted(session, |_| {}), "search");
            match told.contains(name) {
                true => assert_eq!(answer, "OK", "{name}: {}", follower.log()),
                false => {
                    assert!(
                        ["SESSION_EXPIRED", "SESSION_NOT_FOUND"].contains(&answer.as_str()),
                        "{name}: {answer}"
                    );
                    refused += 1;
                }
            }
        }
        println!("{} accepted, {refused} refused, {} ended and answered", told.len(), ended.len());
    }
    assert!(!ended.is_empty() && !told.is_empty());
}
