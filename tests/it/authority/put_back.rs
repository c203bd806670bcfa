//! A directory that is put back from a copy: what was ended since the copy was made does not live again.

use std::fs;
use std::path::{Path, PathBuf};

use obol_world::authority::AsProcess;
use obol_world::home::{self, wait_until};
use obol_world::rs::RsProcess;

use super::Agent;

const AUDITED: &[&str] = &["--policy", "policy", "--audit-log", "as.audit"];

fn state(home: &Path) -> PathBuf {
    home.join(".local/state/obol")
}

/// A service that has ended an agent, denied a tool and opened a session since its directory was copied, and does not run; with the
/// agent that was ended, the one that was not, and the number of the newest session.
fn gone_on(home: &Path) -> (AsProcess, Agent, Agent, u64) {
    let mut service = AsProcess::start_audited(home, AUDITED);
    let (mut leaver, _) = Agent::approved(&service, home, "leaver");
    let (mut builder, _) = Agent::approved(&service, home, "builder");
    leaver.open().unwrap();
    builder.open().unwrap();
    assert_eq!(service.terminate(), Some(0));
    for file in ["authority.redb", "authority.witness"] {
        fs::copy(state(home).join(file), home.join(file)).unwrap();
    }
    service.start_again();
    service.told(&["agent", "remove", "leaver"]);
    service.told(&["agent", "disable", "--tool", "pay"]);
    let newest = builder.open().unwrap().half.session_id.as_u64();
    service.kill();
    (service, leaver, builder, newest)
}

fn put_back(home: &Path, file: &str) {
    fs::copy(home.join(file), state(home).join(file)).unwrap();
}

#[test]
fn a_directory_that_was_put_back_stops_the_service_until_somebody_accepts_it_and_then_nothing_revived_is_accepted()
 {
    let home = home::home();
    let (mut service, mut leaver, mut builder, newest) = gone_on(home.path());
    put_back(home.path(), "authority.redb");
    for _ in 0..2 {
        let (code, said) = service.fails();
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("put back from a copy") && said.contains("--accept-rollback"), "{said}");
    }
    service.start_once(&["--accept-rollback"]);
    // The log tells what the copy does not know.
    let log = service.log();
    let since: Vec<_> = log.lines().filter(|line| line.contains("since the copy was made")).collect();
    assert!(since.iter().any(|line| line.contains("leaver")), "{log}");
    assert!(since.iter().any(|line| line.contains("pay")), "{log}");
    for agent in [&mut leaver, &mut builder] {
        assert_eq!(agent.refused(), "SUSPENDED", "nobody has a session before somebody looked");
    }
    assert_eq!(service.terminate(), Some(0));
    let audit = fs::read_to_string(home.path().join("as.audit")).unwrap();
    assert!(audit.contains("--accept-rollback"), "{audit}");

    let (code, said) = service.fails_with(&["--accept-rollback"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("Start without it"), "it is for one start: {said}");
    service.start_again();
    service.told(&["agent", "enable", "builder"]);
    let number = builder.open().unwrap().half.session_id.as_u64();
    assert!(number > newest, "no number comes twice");
    assert_eq!(leaver.refused(), "SUSPENDED");
    let shown = service.told(&["agent", "show", "builder"]);
    assert_eq!(shown["agent"]["cloneSuspected"], false, "no false alarm");
}

/// What the witness beside it cannot see, those who follow can.
#[test]
fn a_directory_that_was_put_back_with_its_witness_is_noticed_by_a_resource_server() {
    let home = home::home();
    let mut service = AsProcess::start_audited(home.path(), AUDITED);
    let _server = RsProcess::follow(home.path(), &service, "https://api.example", &[]);
    assert_eq!(service.terminate(), Some(0));
    for file in ["authority.redb", "authority.witness"] {
        fs::copy(state(home.path()).join(file), home.path().join(file)).unwrap();
    }
    service.start_again();
    let (mut builder, _) = Agent::approved(&service, home.path(), "builder");
    builder.open().unwrap();
    wait_until("the server has heard of it", || {
        let copy = &service.told(&["rs", "list"])["copies"][0];
        copy["follows"] == true && copy["confirmed"] == true
    });
    service.kill();
    put_back(home.path(), "authority.redb");
    put_back(home.path(), "authority.witness");
    service.start_again();
    service.wait_for_log("heard of events that the directory does not know");
}
