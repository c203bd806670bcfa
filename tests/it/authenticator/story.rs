//! The whole story as processes, with nothing of it in the test: `obol as`, its operator, `obol authenticator`, `obol tqs`, and
//! an agent.

use core::time::Duration;
use std::path::Path;
use std::process::Output;

use obol_world::authority::AsProcess;
use obol_world::home::{self, command, wait_until};
use obol_world::tqs::Tqs;

use super::Authenticator;

fn obol(home: &Path, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

#[test]
fn an_agent_is_approved_served_disabled_and_enabled_by_commands_alone() {
    let home = home::home();
    let home = home.path();
    let service = AsProcess::start(home);
    let _tqs = Tqs::start(home, &[]);
    home::write_private(&home.join("as.pin"), &service.pin());
    let _authenticator = Authenticator::start(home, &["--pin-file", "as.pin"]);
    let asked = obol(home, &["register", "--name", "builder", "--role", "dev", "--json"]);
    let asked: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    service.told(&["approve", asked["code"].as_str().unwrap(), "--yes"]);
    let draw = || obol(home, &["dequeue", "search", "--wait", "2000", "--json"]);
    wait_until("a token can be drawn", || draw().status.success());
    assert!(obol(home, &["auth", "status"]).status.success());

    std::thread::sleep(Duration::from_secs(3));
    service.told(&["agent", "disable", "builder"]);
    let refused = obol(home, &["authenticate", "--json"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SUSPENDED"), "{refused:?}");
    assert_eq!(draw().status.code(), Some(5), "what was minted ahead is destroyed");

    service.told(&["agent", "enable", "builder"]);
    // For a second the last refusal is what whoever asks is told.
    wait_until("a session again", || obol(home, &["authenticate"]).status.success());
    assert!(draw().status.success());
}
