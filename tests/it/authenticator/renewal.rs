//! The next session is there before the last one ends: while an agent draws, while the service is away, and after it.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use obol_client::Client;
use obol_session::SessionId;
use obol_world::home::wait_until;

use super::World;

/// The longest that any draw may take while sessions change.
const LONGEST_DRAW: Duration = Duration::from_secs(2);

/// Draws and presents until the time is over; the sessions that tokens came from. Each token is accepted at once, though the
/// resource server heard of its session only from the service.
fn draw_for(world: &World, client: &mut Client, time: Duration) -> BTreeSet<SessionId> {
    let (end, mut seen, mut drawn) = (Instant::now() + time, BTreeSet::new(), 0);
    while Instant::now() < end {
        let began = Instant::now();
        let token = world.draw(client).unwrap_or_else(|error| panic!("after {drawn} tokens: {error}"));
        assert!(began.elapsed() < LONGEST_DRAW, "a draw took {:?}", began.elapsed());
        seen.insert(world.present(&token).unwrap());
        drawn += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(drawn > 100, "only {drawn}");
    seen
}

#[test]
fn sessions_are_renewed_without_a_gap_while_an_agent_draws() {
    let world = World::new(6);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    world.register();
    let seen = draw_for(&world, &mut tqs.client(), Duration::from_secs(20));
    assert!(seen.len() >= 4, "only {seen:?}");
    // Not more often than needed, and none suspected of being a copy.
    assert!(world.sessions().len() <= 10, "{}", world.sessions().len());
    assert!(!world.agent().clone_suspected);
}

#[test]
fn a_service_that_is_away_costs_nothing_while_the_session_lives_and_is_found_again() {
    let mut world = World::new(24);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    let first = world.register().session.unwrap();
    let mut client = tqs.client();
    // The half is known to the resource server before the service is gone.
    let token = world.draw(&mut client).unwrap();
    assert_eq!(world.present(&token), Ok(first.session_id));
    world.stop_service();
    let away = world.wait_for("it is missed", |status| status.problem.is_some());
    let problem = away.problem.unwrap();
    assert_eq!(problem.code, "AUTHORITY_UNREACHABLE");
    assert!(problem.retry_at.is_some());
    assert_eq!(away.session.unwrap().session_id, first.session_id, "it goes on with what it has");
    for _ in 0..20 {
        let token = world.draw(&mut client).unwrap();
        assert_eq!(world.present(&token), Ok(first.session_id));
    }
    let told = world.obol(&["auth", "status"]);
    assert_eq!(told.status.code(), Some(0), "there is a session");
    assert!(String::from_utf8_lossy(&told.stdout).contains("AUTHORITY_UNREACHABLE"), "{told:?}");

    world.start_service();
    let back = world.wait_for("the next session", |status| {
        status.session.as_ref().is_some_and(|session| session.session_id != first.session_id)
    });
    assert_eq!(back.problem, None);
    let token = world.draw(&mut client).unwrap();
    assert!(world.present(&token).is_ok());
    assert!(!world.agent().clone_suspected);
}

#[test]
fn a_session_that_ended_while_the_service_was_away_is_followed_by_another() {
    let mut world = World::new(4);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    world.register();
    world.stop_service();
    world.wait_for("the session is over", |status| status.session.is_none());
    let refused = world.obol(&["dequeue", "search", "--wait", "100", "--json"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("NO_SESSION"), "{refused:?}");
    world.start_service();
    // Whoever asks need not wait for the next attempt, but for the end of the second after one that failed.
    wait_until("a session", || world.obol(&["authenticate"]).status.success());
    let token = world.draw(&mut tqs.client()).unwrap();
    assert!(world.present(&token).is_ok());
}
