//! The handshake over other people's cryptography, in Python, against the service: the same keys in every suite.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use obol_session::SessionId;
use serde_json::Value;

use super::{SERVER, World};
use crate::sdk::{package, python};

#[test]
fn a_second_implementation_registers_authenticates_and_derives_the_same_keys_in_every_suite() {
    let world = World::new(900);
    let mut program = Command::new(python());
    program.arg("story.py").arg(world.pinned()).current_dir(package("python").join("examples/handshake"));
    let mut running = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

    let asked = next();
    world.approve(asked["code"].as_str().unwrap(), asked["words"].as_str().unwrap());
    let approved = next();
    assert_eq!(approved["state"], "approved", "{approved}");
    for suite in 1..=4 {
        let opened = next();
        assert_eq!(opened["suite"], suite, "{opened}");
        let id: SessionId = serde_json::from_value(opened["session_id"].clone()).unwrap();
        let half = world.authority().directory().half(id, SERVER).unwrap().unwrap();
        let document: Value = serde_json::from_slice(&half.to_json()).unwrap();
        let half = &document["sessions"][0];
        for key in ["K_session", "verifier_secret", "mutual_auth"] {
            assert_eq!(opened["keys"][SERVER][key], half[key], "{key} in suite {suite}");
            assert_eq!(half[key].as_str().unwrap().len(), 64);
        }
        assert_eq!(opened["sek"], half["SEK_PK"], "suite {suite}");
    }
    assert!(running.wait().unwrap().success());
    let agent = world.authority().directory().agent("second").unwrap().unwrap();
    let sessions = world.authority().directory().sessions(&agent.id).unwrap();
    assert_eq!(sessions.len(), 4);
    assert!(!agent.clone_suspected, "each session brought what the last one left");
}
