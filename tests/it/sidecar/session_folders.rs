//! Sessions in a folder: what comes and goes there is seen by a reload, and one bad file changes nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use obol_world::halves::AgentSession;
use obol_world::home::{self, command, wait_until, write_private};
use obol_world::now;
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use serde_json::Value;

const AUDIENCE: &str = "https://api.example";

/// Writes the sidecar's half of a session.
fn put(home: &Path, file: &str, number: u64) {
    write_private(&home.join(file), &AgentSession::new(number, now(), &["search"]).agent_json().to_string());
}

fn folder(home: &Path) {
    std::fs::create_dir(home.join("sessions")).unwrap();
}

/// The numbers of the sessions that a sidecar has.
fn sessions(tqs: &Tqs) -> Vec<u64> {
    tqs.control().status().unwrap().sessions.iter().map(|session| session.session_id.as_u64()).collect()
}

#[test]
fn a_sidecar_provisions_what_is_in_a_folder_and_what_comes_there_later() {
    let home = home::home();
    let home = home.path();
    folder(home);
    put(home, "sessions/a.json", 1);
    // What is over may stay there until somebody tidies it.
    let over = AgentSession { expires_at: now() - 1, ..AgentSession::new(9, now() - 100, &["search"]) };
    write_private(&home.join("sessions/over.json"), &over.agent_json().to_string());
    write_private(&home.join("obol.toml"), "[tqs]\nsessions = \"sessions\"\n");
    let tqs = Tqs::start(home, &["--config", "obol.toml"]);
    assert_eq!(sessions(&tqs), [1]);

    put(home, "sessions/b.json", 2);
    std::fs::remove_file(home.join("sessions/a.json")).unwrap();
    tqs.signal("HUP");
    wait_until("the new session is there", || sessions(&tqs) == [1, 2]);

    put(home, "sessions/c.json", 3);
    write_private(&home.join("sessions/d.json"), "{\"obol_session\":1}");
    tqs.signal("HUP");
    tqs.wait_for_log("the session was not provisioned");
    assert!(tqs.log().contains("sessions/d.json"), "{}", tqs.log());
    assert_eq!(sessions(&tqs), [1, 2], "beside a bad file nothing is taken");
    std::fs::remove_file(home.join("sessions/d.json")).unwrap();
    tqs.signal("HUP");
    wait_until("the session that was held up is there", || sessions(&tqs) == [1, 2, 3]);
}

#[test]
fn a_sidecar_does_not_start_beside_a_bad_file_and_names_it() {
    let home = home::home();
    let home = home.path();
    folder(home);
    put(home, "sessions/a.json", 1);
    put(home, "sessions/open.json", 2);
    std::fs::set_permissions(home.join("sessions/open.json"), Permissions::from_mode(0o644)).unwrap();
    let refused = command(home).args(["tqs", "--session", "sessions"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("sessions/open.json") && said.contains("chmod 600"), "{said}");
    std::fs::remove_file(home.join("sessions/open.json")).unwrap();
    let tqs = Tqs::start(home, &[]);
    assert!(sessions(&tqs).is_empty(), "nothing was provisioned before");
}

fn create(home: &Path, agent: &str, arguments: &[&str]) -> Output {
    let file = format!("{agent}.json");
    let create = ["session", "create", "--audience", AUDIENCE, "--tool", "search", "--agent", agent];
    command(home).args(create).args(["--agent-file", &file]).args(arguments).output().unwrap()
}

/// The agents whose sessions a resource server has, in order.
fn agents(home: &Path, rs: &RsProcess) -> Vec<String> {
    let mut status = command(home);
    status.args(["rs", "status", "--json", "--rs-control-socket"]).arg(rs.control_socket());
    let status: Value = serde_json::from_slice(&status.output().unwrap().stdout).unwrap();
    let sessions = status["sessions"].as_array().unwrap();
    let mut agents: Vec<_> =
        sessions.iter().map(|session| session["agentInstanceId"].as_str().unwrap().to_owned()).collect();
    agents.sort();
    agents
}

fn reload(home: &Path, rs: &RsProcess) -> Output {
    let mut reload = command(home);
    reload.args(["rs", "reload", "--rs-control-socket"]).arg(rs.control_socket()).output().unwrap()
}

#[test]
fn a_resource_server_takes_what_is_in_a_folder_and_lets_go_of_what_left_it() {
    let home = home::home();
    let home = home.path();
    folder(home);
    for agent in ["one", "two"] {
        assert!(create(home, agent, &["--rs-file", &format!("sessions/{agent}.json")]).status.success());
    }
    let rs = RsProcess::start_with(home, "sessions", &["--spent", "memory", "--first-start"]);
    assert_eq!(agents(home, &rs), ["one", "two"]);

    assert!(create(home, "three", &["--rs-file", "sessions/three.json"]).status.success());
    std::fs::remove_file(home.join("sessions/one.json")).unwrap();
    assert!(reload(home, &rs).status.success());
    assert_eq!(agents(home, &rs), ["three", "two"]);

    std::fs::remove_file(home.join("sessions/two.json")).unwrap();
    std::fs::copy(home.join("sessions/three.json"), home.join("sessions/twice.json")).unwrap();
    let refused = reload(home, &rs);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(said.contains("three.json") && said.contains("twice.json"), "{said}");
    assert_eq!(agents(home, &rs), ["three", "two"], "beside a bad file nothing changes");
}

#[test]
fn several_files_are_as_good_as_one_and_a_session_can_be_added_to_a_file() {
    let home = home::home();
    let home = home.path();
    // A folder of their own: a sandbox lets a server read again what was replaced there, and never in a home.
    folder(home);
    assert!(create(home, "one", &["--rs-file", "sessions/a.json"]).status.success());
    assert!(create(home, "two", &["--rs-file", "sessions/b.json"]).status.success());
    let more = ["--sessions", "sessions/b.json", "--spent", "memory", "--first-start"];
    let rs = RsProcess::start_with(home, "sessions/a.json", &more);
    assert_eq!(agents(home, &rs), ["one", "two"]);
    let added = create(home, "three", &["--append", "sessions/b.json"]);
    assert!(added.status.success(), "{added:?}");
    assert!(reload(home, &rs).status.success());
    assert_eq!(agents(home, &rs), ["one", "three", "two"]);

    let before = std::fs::read(home.join("sessions/b.json")).unwrap();
    for (arguments, says) in [
        (&["--append", "sessions/none.json"][..], "--rs-file"),
        (&["--append", "sessions/b.json", "--rs-file", "sessions/c.json"], "--append"),
    ] {
        let refused = create(home, "four", arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(says), "{said}");
        assert!(!home.join("four.json").exists(), "half a session is left nowhere");
    }
    assert_eq!(std::fs::read(home.join("sessions/b.json")).unwrap(), before);
}

#[test]
fn a_file_that_was_replaced_where_the_sandbox_does_not_reach_is_refused_with_what_to_do() {
    let home = home::home();
    let home = home.path();
    assert!(create(home, "one", &["--rs-file", "a.json"]).status.success());
    let rs = RsProcess::start_with(home, "a.json", &["--spent", "memory", "--first-start"]);
    assert!(create(home, "two", &["--append", "a.json"]).status.success());
    let refused = reload(home, &rs);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("in its own folder"), "{said}");
    assert_eq!(agents(home, &rs), ["one"]);
}

#[test]
fn sessions_that_are_added_at_the_same_time_are_all_there_or_were_refused() {
    const WRITERS: usize = 12;
    let home = home::home();
    let home = home.path();
    assert!(create(home, "first", &["--rs-file", "all.json"]).status.success());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let agent = format!("agent-{number}");
            let mut create = command(home);
            create.args(["session", "create", "--audience", AUDIENCE, "--tool", "search", "--agent", &agent]);
            create.args(["--agent-file", &format!("{agent}.json"), "--append", "all.json"]);
            create.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            (agent, create.spawn().unwrap())
        })
        .collect();
    let mut wanted = vec!["first".to_owned()];
    for (agent, writer) in writers {
        let ended = writer.wait_with_output().unwrap();
        if ended.status.success() {
            wanted.push(agent);
            continue;
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("open in another process"), "{said}");
        assert!(!home.join(format!("{agent}.json")).exists(), "half a session is left nowhere");
    }
    wanted.sort();
    let listed: Value = serde_json::from_slice(&std::fs::read(home.join("all.json")).unwrap()).unwrap();
    let listed = listed["sessions"].as_array().unwrap();
    let mut found: Vec<_> =
        listed.iter().map(|session| session["agent_instance_id"].as_str().unwrap().to_owned()).collect();
    found.sort();
    assert_eq!(found, wanted);
    assert!(found.len() > 1, "nobody got through");
}
