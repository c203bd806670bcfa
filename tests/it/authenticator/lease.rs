//! A sidecar whose authenticator is dead, and one whose service is: both hand nothing out once the lease is over, and both go
//! on by themselves.

use core::time::Duration;
use std::time::Instant;

use obol_client::CallError;
use obol_ipc::refusal::ErrorCode;
use obol_world::home::wait_until;
use obol_world::tqs::Tqs;

use super::World;

/// As short as a service may say.
const LEASE: Duration = Duration::from_secs(30);
/// Heartbeats come every five seconds, and clocks count whole ones.
const EARLIEST: Duration = Duration::from_secs(30 - 5 - 3);
const LATEST: Duration = Duration::from_secs(30 + 3);

/// Whether a token is drawn; where none is, because the lease is over.
fn draws(world: &World, tqs: &Tqs) -> bool {
    match world.draw(&mut tqs.client()) {
        Ok(_) => true,
        Err(CallError::Refused(refusal)) if refusal.code() == ErrorCode::NoSession => {
            assert!(refusal.message().contains("the session's lease is 30 s"), "{refusal}");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

/// How long tokens are drawn still, once that has happened.
fn draws_for(world: &World, tqs: &Tqs, began: Instant) -> Duration {
    while draws(world, tqs) {
        assert!(began.elapsed() < LATEST + LEASE, "the lease has no end");
        std::thread::sleep(Duration::from_millis(200));
    }
    began.elapsed()
}

#[test]
fn a_killed_authenticator_ends_the_hand_outs_with_the_lease_and_its_successor_goes_on() {
    let world = World::with_lease(3_600, LEASE);
    let tqs = world.tqs();
    let authenticator = world.authenticator();
    let session = world.register().session.unwrap();
    assert!(draws(&world, &tqs));
    let killed = Instant::now();
    authenticator.kill();
    let passed = draws_for(&world, &tqs, killed);
    assert!(passed > EARLIEST && passed < LATEST, "{passed:?}");

    let _authenticator = world.authenticator();
    wait_until("it goes on", || draws(&world, &tqs));
    assert!(world.sessions().iter().any(|kept| kept.id == session.session_id && kept.ended.is_none()));
}

#[test]
fn a_dead_service_ends_the_hand_outs_with_the_lease_and_they_go_on_when_it_is_back() {
    let mut world = World::with_lease(3_600, LEASE);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    world.register();
    // Longer than the lease: what is heard prolongs it.
    let began = Instant::now();
    while began.elapsed() < LATEST {
        assert!(draws(&world, &tqs), "after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    let gone = Instant::now();
    world.stop_service();
    let passed = draws_for(&world, &tqs, gone);
    assert!(passed > EARLIEST && passed < LATEST, "{passed:?}");
    world.start_service();
    wait_until("it goes on", || draws(&world, &tqs));
    let token = world.draw(&mut tqs.client()).unwrap();
    assert!(world.present(&token).is_ok());
}
