//! From the service to those who follow it: a resource server knows what the stream says and nothing else, and an end reaches
//! resource server and sidecar at once.

use std::path::Path;
use std::time::Instant;

use obol_world::authority::{AsProcess, command_in};
use obol_world::home::{self, wait_until};
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use crate::authenticator::Authenticator;
use crate::cli::stdout;

pub(super) const API: &str = "https://api.example";

/// An agent with its sidecar and authenticator, registered and approved, with a session.
pub(super) struct Beside {
    pub(super) tqs: Tqs,
    pub(super) authenticator: Authenticator,
}

impl Beside {
    pub(super) fn start(home: &Path, service: &AsProcess) -> Self {
        Self::start_as(home, service, "builder")
    }

    pub(super) fn start_as(home: &Path, service: &AsProcess, name: &str) -> Self {
        let tqs = Tqs::start(home, &[]);
        let authenticator = Authenticator::start(home, &["--url", &service.pin()]);
        let asked = told(home, &["register", "--name", name, "--role", "dev"]);
        service.told(&["approve", asked["code"].as_str().unwrap(), "--yes"]);
        wait_until("a session", || command_in(home, &["auth", "status"]).status.success());
        Self { tqs, authenticator }
    }

    /// The authenticator is killed, and another takes its place.
    pub(super) fn restarted(self, home: &Path, service: &AsProcess) -> Self {
        let Self { tqs, authenticator } = self;
        authenticator.kill();
        Self { tqs, authenticator: Authenticator::start(home, &["--url", &service.pin()]) }
    }
}

pub(super) fn told(home: &Path, arguments: &[&str]) -> Value {
    let output = command_in(home, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A token for `search`, or what was said instead.
pub(super) fn drawn(home: &Path) -> Result<String, String> {
    let output = command_in(home, &["dequeue", "search", "--wait", "2000", "--json"]);
    match output.status.success() {
        true => {
            Ok(serde_json::from_slice::<Value>(&output.stdout).unwrap()["token"].as_str().unwrap().to_owned())
        }
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn an_agent_is_approved_draws_calls_and_is_refused_everywhere_once_it_is_disabled() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let rs = RsProcess::follow(home.path(), &service, API, &["--first-start"]);
    let copy = RsProcess::follow(home.path(), &service, API, &["--first-start", "--spent", "memory"]);
    let beside = Beside::start(home.path(), &service);
    assert_eq!(rs.present(&drawn(home.path()).unwrap(), "search"), "OK", "{}", rs.log());
    assert_eq!(copy.present(&drawn(home.path()).unwrap(), "search"), "OK", "{}", copy.log());
    let (first, second) = (drawn(home.path()).unwrap(), drawn(home.path()).unwrap());

    let began = Instant::now();
    let disabled = service.told(&["agent", "disable", "builder", "--reason", "a drill"]);
    let confirmed = began.elapsed();
    assert_eq!(rs.present(&first, "search"), "SESSION_EXPIRED", "{}", rs.log());
    assert_eq!(copy.present(&second, "search"), "SESSION_EXPIRED");
    let refused = began.elapsed();
    println!("disable, confirmed by all: {} ms; refused: {} ms", confirmed.as_millis(), refused.as_millis());
    let confirmed = |list: &str| {
        let list = disabled[list].as_array().unwrap();
        list.iter().map(|one| one["confirmed"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(confirmed("copies"), [true, true], "{disabled}");
    assert_eq!(confirmed("sidecars"), [true], "{disabled}\n{}", beside.authenticator.log());
    let why = drawn(home.path()).unwrap_err();
    assert!(why.contains("SESSION_FLUSHED"), "what was minted ahead is destroyed: {why}");
    assert!(
        beside
            .tqs
            .control()
            .status()
            .unwrap()
            .sessions
            .iter()
            .all(|session| { session.state != obol_ipc::control::SessionState::Active })
    );

    // Enabled again it comes back by itself, and what was ended stays ended.
    service.told(&["agent", "enable", "builder"]);
    wait_until("a session again", || command_in(home.path(), &["auth", "status"]).status.success());
    assert_eq!(rs.present(&drawn(home.path()).unwrap(), "search"), "OK", "{}", rs.log());
    assert_eq!(rs.present(&first, "search"), "SESSION_EXPIRED");
}

#[test]
fn a_session_and_a_tool_end_at_resource_server_and_sidecar_too() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let rs = RsProcess::follow(home.path(), &service, API, &["--first-start"]);
    let _beside = Beside::start(home.path(), &service);
    let session = || told(home.path(), &["session"])["sessionId"].as_str().unwrap().to_owned();
    let (token, first) = (drawn(home.path()).unwrap(), session());
    let ended = service.told(&["agent", "end-session", &first]);
    assert_eq!(ended["copies"][0]["confirmed"], true, "{ended}");
    assert_eq!(ended["sidecars"][0]["confirmed"], true, "{ended}");
    assert_eq!(rs.present(&token, "search"), "SESSION_EXPIRED");
    // The agent may go on, with another session.
    wait_until("another session", || {
        command_in(home.path(), &["auth", "status"]).status.success() && session() != first
    });
    let token = drawn(home.path()).unwrap();
    let denied = service.operate(&["agent", "disable", "--tool", "search"]);
    let said = stdout(&denied);
    assert!(
        said.contains("no longer accepts their tokens") && said.contains("its sidecar has destroyed"),
        "{said}"
    );
    assert_eq!(rs.present(&token, "search"), "SESSION_EXPIRED");
    wait_until("it has nothing to draw", || drawn(home.path()).is_err());
}

#[test]
fn a_copy_joins_once_by_a_code_and_is_told_nothing_without_or_once_it_is_removed() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let pin = service.pin();
    let join = |key: &str, code: &str| {
        command_in(home.path(), &["rs", "join", "--authority", &pin, "--rs-identity-key", key, code])
    };
    let invite = || service.told(&["rs", "invite", API])["ticket"].as_str().unwrap().to_owned();
    let code = invite();
    let joined = join("one.key", &code);
    assert!(stdout(&joined).contains("joined as rsr_"), "{joined:?}");
    let again = join("two.key", &code);
    assert_eq!(again.status.code(), Some(3), "a code is good for one: {again:?}");
    let twice = join("one.key", &invite());
    assert!(
        String::from_utf8_lossy(&twice.stderr).contains("already joined with this identity"),
        "{twice:?}"
    );
    let mut stranger = RsProcess::joined(home.path(), &service, API, &["--first-start"]);
    let copies = service.told(&["rs", "list"])["copies"].as_array().unwrap().clone();
    assert_eq!(copies.len(), 2, "{copies:?}");
    // The one that is removed hears nothing more, and never again.
    stranger.start_again();
    let follows = || {
        let list = service.told(&["rs", "list"]);
        list["copies"].as_array().unwrap().iter().find(|copy| copy["follows"] == true).cloned()
    };
    let copy = follows().expect("it follows");
    service.told(&["rs", "remove", copy["copyId"].as_str().unwrap()]);
    wait_until("it is heard no more", || stranger.operate("status")["authority"]["follows"] == false);
    wait_until("it says why", || {
        stranger.operate("status")["authority"]["problem"]
            .as_str()
            .is_some_and(|why| why.contains("NOT_JOINED"))
    });
    assert_eq!(follows(), None);
    let unknown = service.operate(&["rs", "remove", "rsr_aaaaaaaaaaaaaaaaaaaaaaaaaa"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[test]
fn a_copy_that_serves_another_resource_server_than_it_joined_as_is_never_ready() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut rs = RsProcess::joined(
        home.path(),
        &service,
        API,
        &["--first-start", "--audience", "https://other.example"],
    );
    rs.spawn();
    wait_until("it says why", || {
        rs.get("/readyz") == 503 && rs.log().contains("this copy has joined as one of https://api.example")
    });
    assert_eq!(rs.present("AAAA", "search"), "MALFORMED_TOKEN");
    let json = json!(null);
    assert!(rs.operate("status")["authority"]["leaseEndsAt"] == json);
}
