//! Known secrets are given to the daemon; then everything that others can come by is searched for them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use obol_token::text::from_hex;
use obol_world::canary::Canaries;
use obol_world::halves::AgentSession;
use obol_world::home::{self, command, wait_until};
use obol_world::now;
use obol_world::tqs::{self, Tqs};

/// The session's keys, and the master key.
fn canaries(world: &AgentSession, master_key: &str) -> Canaries {
    let json = world.agent_json();
    let server = &json["resource_servers"][0];
    let bytes = |hex: &str| from_hex::<32>(hex).unwrap();
    let keys = ["K_session", "verifier_secret", "mutual_auth"];
    let keys = keys.map(|key| (key, bytes(server[key].as_str().unwrap())));
    Canaries::of(keys.into_iter().chain([("master key", bytes(master_key.trim()))]))
}

/// An agent that has drawn a token and lives on.
fn agent(home: &Path) -> Child {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    let script = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let mut agent = Command::new("python3");
    agent.args(["-c", &format!("{script}\nsys.stdout.flush()\nsys.stdin.read()"), "search"]);
    agent.env("OBOL_ENDPOINT_SOCKET", format!("unix://{}", tqs::socket(home).display()));
    agent.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = agent.spawn().expect("python3 is needed for this test; install Debian's package python3");
    let mut token = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut token).unwrap();
    assert!(token.len() > 100, "the agent has its token: {token:?}");
    agent
}

fn end(mut child: Child) {
    let _ended = child.kill();
    child.wait().unwrap();
}

#[test]
fn no_secret_is_in_an_agent_a_log_a_database_or_anything_else_the_daemon_leaves() {
    let home = home::home();
    let world = AgentSession::new(1, now(), &["search"]);
    let session = home.path().join("session.json");
    home::write_private(&session, &world.agent_json().to_string());
    let tqs = Tqs::start(home.path(), &["--session", "session.json", "--log", "trace"]);
    let master_key = home.path().join(".local/state/obol/master.key");
    let canaries = canaries(&world, &fs::read_to_string(&master_key).unwrap());

    let agent = agent(home.path());
    assert_eq!(canaries.found_in_process(agent.id()), Vec::<String>::new());

    // Our own client, held in the middle of a request.
    tqs.signal("STOP");
    let held = command(home.path()).args(["dequeue", "search"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the client waits for the daemon", || {
        let state = fs::read_to_string(format!("/proc/{}/stat", held.id())).unwrap();
        let mut descriptors = fs::read_dir(format!("/proc/{}/fd", held.id())).unwrap().map(Result::unwrap);
        let connected = descriptors.any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        });
        connected && state.rsplit(')').next().unwrap().trim_start().starts_with('S')
    });
    assert_eq!(canaries.found_in_process(held.id()), Vec::<String>::new());
    tqs.signal("CONT");
    end(held);

    for secret in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{}/{secret}", tqs.pid())).unwrap();
        assert_eq!(canaries.found_in(&bytes), Vec::<&str>::new(), "{secret} of the daemon");
    }
    let flushed = command(home.path()).args(["flush", "--all", "--reason", "canary"]).output().unwrap();
    assert!(flushed.status.success(), "{flushed:?}");
    tqs.signal("ABRT");
    tqs.wait_for_status();
    let (found, searched) = canaries.found_in_files(home.path(), &[session.clone(), master_key]);
    assert_eq!(found, Vec::<String>::new());
    assert!(searched >= 3, "the log, the database and its keys");
    end(agent);

    // The control: whoever does hold a secret is found out.
    let (found, _) = canaries.found_in_files(home.path(), &[]);
    assert!(found.len() >= 4, "{found:?}");
    let mut holder = Command::new("python3");
    holder.args([
        "-c",
        "import sys; kept = sys.stdin.readline(); print('holds', flush=True); sys.stdin.read()",
    ]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = holder.stdin.take().unwrap();
    stdin.write_all(world.agent_json().to_string().as_bytes()).unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let found = canaries.found_in_process(holder.id());
    assert!(found.iter().any(|name| name.starts_with("K_session")), "{found:?}");
    end(holder);
}
