//! Sidecar and resource server as real processes: a token's whole way.

use core::time::Duration;
use std::time::Instant;

use obol_world::home;
use obol_world::tqs::Tqs;

use super::{PATIENCE, Rs, create_session, draw};

#[test]
fn a_drawn_token_is_accepted_once_when_64_clients_present_it_at_the_same_moment() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let rs = Rs::start(home.path(), &["--first-start"]);
    for _ in 0..5 {
        let token = draw(&tqs, "search");
        let gate = std::sync::Barrier::new(64);
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..64)
                .map(|_| {
                    scope.spawn(|| {
                        gate.wait();
                        rs.verify(&token, "search")
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 401).count(), 63, "{answers:?}");
    }
}

#[test]
fn a_spent_token_stays_spent_when_the_resource_server_is_killed() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let mut spent = Vec::<String>::new();
    for first in [&["--first-start"][..], &[], &[]] {
        let rs = Rs::start(home.path(), first);
        for token in &spent {
            assert_eq!(rs.verify(token, "search"), 401, "accepted again after a kill");
        }
        for _ in 0..5 {
            let token = draw(&tqs, "search");
            assert_eq!(rs.verify(&token, "search"), 200);
            spent.push(token);
        }
    }
}

#[test]
fn a_lost_file_of_spent_tokens_accepts_nothing_from_before() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let token = draw(&tqs, "search");
    {
        let rs = Rs::start(home.path(), &["--first-start"]);
        assert_eq!(rs.verify(&token, "search"), 200);
    }
    std::fs::remove_file(home.path().join(".local/state/obol/spent.redb")).unwrap();
    let rs = Rs::start(home.path(), &[]);
    assert_eq!(rs.verify(&token, "search"), 401, "the mark is gone, so the fence must hold");
}

#[test]
fn a_session_revoked_at_the_resource_server_stops_tokens_in_flight() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let rs = Rs::start(home.path(), &["--first-start"]);
    let (before, after) = (draw(&tqs, "pay"), draw(&tqs, "pay"));
    assert_eq!(rs.verify(&before, "search"), 403, "for another tool");
    assert_eq!(rs.verify(&before, "pay"), 200);
    let file = home.path().join("rs-sessions.json");
    let sessions = std::fs::read_to_string(&file).unwrap();
    let revoked = sessions.replace("\"suite\": 1", "\"suite\": 1, \"status\": \"revoked\"");
    std::fs::write(&file, revoked).unwrap();
    let hangup =
        std::process::Command::new("kill").args(["-HUP", &rs.child.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(home.path().join("rs.log")).unwrap().contains("sessions read again") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rs.verify(&after, "pay"), 401);
}
