//! Authenticator and sidecar are killed at any point: nothing is lost, nothing is handed out twice, and no agent looks like a
//! copy of itself.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::{PeerName, ToolName};
use obol_world::random::Random;

use super::World;

/// How often each is killed.
const ROUNDS: u64 = 12;

/// Draws until it is told to stop, over whatever connection there is; every token that was handed out.
fn draw(world: &World, stop: &AtomicBool) -> Vec<String> {
    let endpoint = || Endpoint::at(world.path().join("run/obol/agent.sock")).unwrap();
    let options = || ConnectOptions::new(PeerName::new("obol-tests/1").unwrap());
    let (tool, mut drawn, mut client) = (ToolName::new("search").unwrap(), Vec::new(), None);
    while !stop.load(Ordering::SeqCst) {
        let Some(open) = client.as_mut() else {
            client = Client::connect(endpoint(), options()).ok();
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        match open.dequeue_token(&tool, Duration::from_millis(200)) {
            Ok(token) => drawn.push(token.token.expose().to_owned()),
            Err(error) if error.refusal().is_some() => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => client = None,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drawn
}

#[test]
fn kills_of_authenticator_and_sidecar_lose_nothing_and_hand_nothing_out_twice() {
    let world = World::new(5);
    let (mut tqs, mut authenticator) = (world.tqs(), world.authenticator());
    world.register();
    let mut random = Random::new(0x0b01_11d5);
    let stop = AtomicBool::new(false);
    let (drawn, _tqs, _authenticator) = std::thread::scope(|scope| {
        let drawing = scope.spawn(|| draw(&world, &stop));
        for round in 0..ROUNDS {
            std::thread::sleep(Duration::from_millis(random.below(1_200)));
            authenticator.kill();
            if round % 3 == 2 {
                tqs.kill();
                tqs = world.tqs();
            }
            std::thread::sleep(Duration::from_millis(random.below(300)));
            authenticator = world.authenticator();
            if round % 3 == 1 {
                // While a session may just be on its way to it.
                std::thread::sleep(Duration::from_millis(random.below(200)));
                tqs.kill();
                tqs = world.tqs();
            }
        }
        // Nobody needs to help: a session is there again, and tokens are.
        let deadline = Instant::now() + Duration::from_secs(30);
        let first = world.wait_for("a session", |status| status.session.is_some()).session.unwrap();
        world.wait_for("the one after it", |status| {
            status.session.as_ref().is_some_and(|session| session.session_id != first.session_id)
        });
        assert!(Instant::now() < deadline);
        stop.store(true, Ordering::SeqCst);
        (drawing.join().unwrap(), tqs, authenticator)
    });
    assert!(drawn.len() > 100, "only {} tokens", drawn.len());
    let different: BTreeSet<_> = drawn.iter().collect();
    assert_eq!(different.len(), drawn.len(), "a token was handed out twice");
    // Those whose session the service still has are each accepted once.
    let accepted = drawn.iter().rev().filter(|token| world.present(token).is_ok()).count();
    assert!(accepted > 0);
    assert!(drawn.iter().all(|token| world.present(token).is_err()));
    assert!(!world.agent().clone_suspected, "a kill is no alarm");
    assert_eq!(world.authority().directory().agents(None).unwrap().len(), 1, "it is the same agent");
}
