//! `obol rs revoke` and its operator's socket, from outside.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use obol_world::halves::AgentSession;
use obol_world::home::{self, wait_until, write_private};
use obol_world::http::Http;
use obol_world::redis::RedisServer;
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use obol_world::{AUDIENCE, now};
use serde_json::{Value, json};

use crate::cli::{run, stderr, stdout};
use crate::sidecar::tool;

/// Writes both halves of some sessions into a home: a file for the sidecar for each, and one for the server.
pub(crate) fn write_halves(home: &Path, agents: &[(u64, &str)]) {
    let mut listed = Vec::new();
    for (number, agent) in agents {
        let world = AgentSession::new(*number, now(), &["search", "pay"]);
        let mut half = world.agent_json();
        half["agent_instance_id"] = json!(agent);
        write_private(&home.join(format!("session-{number}.json")), &half.to_string());
        let mut server = half["resource_servers"][0].clone();
        let more = json!({
            "session_id": world.session_id, "suite": 1, "org_id": half["org_id"], "iss": half["iss"], "sub": half["sub"],
            "agent_instance_id": agent, "policy_epoch": 1, "grants": half["grants"],
            "window": {"start": world.established_at, "end": world.expires_at},
        });
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        listed.push(server);
    }
    let file = json!({"obol_rs_sessions": 1, "sessions": listed}).to_string();
    write_private(&home.join("sessions.json"), &file);
}

/// A sidecar that draws for a session and a home whose server accepts it.
struct Field {
    home: tempfile::TempDir,
    tqs: Tqs,
}

impl Field {
    fn new(agents: &[(u64, &str)]) -> Self {
        let home = home::home();
        write_halves(home.path(), agents);
        let mut arguments = Vec::new();
        let files: Vec<_> = agents.iter().map(|(number, _)| format!("session-{number}.json")).collect();
        files.iter().for_each(|file| arguments.extend(["--session", file]));
        let tqs = Tqs::start(home.path(), &arguments);
        Self { home, tqs }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// A token of the session provisioned last.
    fn draw(&self) -> String {
        let drawn = self.tqs.client().dequeue_token(&tool("search"), core::time::Duration::from_secs(10));
        drawn.unwrap().token.expose().to_owned()
    }

    fn rs(&self, arguments: &[&str]) -> RsProcess {
        RsProcess::start(self.path(), &[&["--spent", "memory", "--first-start"], arguments].concat())
    }

    fn revoke(&self, arguments: &[&str]) -> std::process::Output {
        run(self.path(), &[&["rs", "revoke"], arguments].concat())
    }
}

fn present(rs: &RsProcess, token: &str) -> String {
    Http::new(rs.port()).present_for(token, "search").unwrap()
}

#[test]
fn a_revoked_sessions_tokens_are_refused_from_then_on_and_no_others() {
    let field = Field::new(&[(1, "agent-1"), (2, "agent-2")]);
    let rs = field.rs(&["--audit-log", "rs-audit.jsonl"]);
    assert_eq!(present(&rs, &field.draw()), "OK");
    let revoked = field.revoke(&["0000000000000001", "--reason", "hijacked"]);
    assert_eq!(revoked.status.code(), Some(0), "{}", stderr(&revoked));
    assert!(stdout(&revoked).contains("a restart forgets"), "{}", stdout(&revoked));
    assert_eq!(present(&rs, &field.draw()), "OK", "session 2 is another");

    let by_agent = field.revoke(&["--agent", "agent-2"]);
    assert_eq!(by_agent.status.code(), Some(0), "{}", stderr(&by_agent));
    assert!(stdout(&by_agent).contains("0000000000000002"), "{}", stdout(&by_agent));
    assert_eq!(present(&rs, &field.draw()), "SESSION_EXPIRED");
    let status: Value =
        serde_json::from_str(&stdout(&run(field.path(), &["rs", "status", "--json"]))).unwrap();
    let states: Vec<_> = status["sessions"].as_array().unwrap().iter().map(|s| &s["state"]).collect();
    assert_eq!(states, ["revoked", "revoked"], "{status}");

    let revocations = || {
        let log = std::fs::read_to_string(field.path().join("rs-audit.jsonl")).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == "revoke").collect::<Vec<_>>()
    };
    wait_until("both are audited", || revocations().len() == 2);
    let revocations = revocations();
    assert_eq!(revocations[0]["reason"], "hijacked");
    assert_eq!(revocations[1]["scope"], "agent agent-2");
    assert_eq!(revocations[1]["sessions_ended"], 1);
}

#[test]
fn a_revocation_that_matches_nothing_fails_and_lists_what_there_is() {
    let field = Field::new(&[(1, "agent-1")]);
    let rs = field.rs(&[]);
    for (arguments, named) in
        [(&["00000000000000ff"][..], "00000000000000ff"), (&["--agent", "agent-2"], "agent-2")]
    {
        let failed = field.revoke(arguments);
        assert_eq!(failed.status.code(), Some(1), "{arguments:?}");
        let said = stderr(&failed);
        assert!(
            said.contains(named) && said.contains("0000000000000001") && said.contains("agent-1"),
            "{said}"
        );
    }
    assert_eq!(present(&rs, &field.draw()), "OK");
    assert_eq!(field.revoke(&["--all"]).status.code(), Some(0));
    assert_eq!(present(&rs, &field.draw()), "SESSION_EXPIRED");
    assert_eq!(field.revoke(&["not-a-session"]).status.code(), Some(2));
    assert_eq!(field.revoke(&[]).status.code(), Some(2));
    assert_eq!(field.revoke(&["0000000000000001", "--agent", "agent-1"]).status.code(), Some(2));
}

#[test]
fn a_revocation_lasts_where_sessions_are_kept_and_a_reload_brings_nothing_back() {
    let field = Field::new(&[(1, "agent-1")]);
    let mut rs = field.rs(&["--session-store", "kept.redb", "--session-key", "kept.key"]);
    assert_eq!(present(&rs, &field.draw()), "OK");
    let revoked = field.revoke(&["--agent", "agent-1"]);
    assert!(stdout(&revoked).contains("survives a restart"), "{revoked:?}");
    // The file lists it still.
    let reloaded = run(field.path(), &["rs", "reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", stderr(&reloaded));
    assert_eq!(present(&rs, &field.draw()), "SESSION_EXPIRED");
    rs.kill();
    rs.start_again();
    assert_eq!(present(&rs, &field.draw()), "SESSION_NOT_FOUND");
    let again = field.revoke(&["0000000000000001"]);
    assert_eq!(again.status.code(), Some(0), "it was revoked before: {}", stderr(&again));
}

#[test]
fn a_session_that_is_revoked_before_it_is_known_is_never_taken_where_that_is_kept() {
    let field = Field::new(&[(1, "agent-1")]);
    let halves = std::fs::read_to_string(field.path().join("sessions.json")).unwrap();
    write_private(&field.path().join("sessions.json"), r#"{"obol_rs_sessions":1,"sessions":[]}"#);
    let rs = field.rs(&["--session-store", "kept.redb", "--session-key", "kept.key", "--audience", AUDIENCE]);
    let early = field.revoke(&["0000000000000001"]);
    assert_eq!(early.status.code(), Some(1), "{early:?}");
    assert!(stderr(&early).contains("will not be accepted"), "{}", stderr(&early));
    write_private(&field.path().join("sessions.json"), &halves);
    assert_eq!(run(field.path(), &["rs", "reload"]).status.code(), Some(0));
    assert_eq!(present(&rs, &field.draw()), "SESSION_NOT_FOUND");
}

#[test]
fn a_revocation_reaches_all_servers_that_share_their_sessions() {
    let redis = RedisServer::start(&[]);
    let field = Field::new(&[(1, "agent-1")]);
    let url = redis.url();
    let shared = ["--session-store", url.as_str(), "--session-key", "kept.key"];
    let servers = [field.rs(&shared), field.rs(&shared)];
    assert_eq!(present(&servers[1], &field.draw()), "OK");
    let socket = servers[0].control_socket();
    let revoked = run(
        field.path(),
        &["rs", "revoke", "--agent", "agent-1", "--rs-control-socket", socket.to_str().unwrap()],
    );
    assert!(stdout(&revoked).contains("share"), "{revoked:?}");
    wait_until("the other server refuses as well", || present(&servers[1], &field.draw()) != "OK");
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_the_operator_hears_why() {
    let field = Field::new(&[(1, "agent-1")]);
    let rs = field.rs(&[]);
    write_private(&field.path().join("sessions.json"), "{}");
    let failed = run(field.path(), &["rs", "reload"]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(stderr(&failed).contains("obol_rs_sessions"), "{}", stderr(&failed));
    assert_eq!(present(&rs, &field.draw()), "OK");
}

#[test]
fn the_servers_operator_speaks_the_protocol_of_the_other_sockets() {
    let field = Field::new(&[(1, "agent-1")]);
    let rs = field.rs(&[]);
    let mut link = UnixStream::connect(rs.control_socket()).unwrap();
    let mut exchange = |message: Value| -> Value {
        let body = message.to_string();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        link.write_all(&[&length[..], body.as_bytes()].concat()).unwrap();
        let mut length = [0; 4];
        link.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        link.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    };
    let hello = exchange(json!({"obol": 1, "codec": "json", "client": "tests/1"}));
    assert!(hello["server"].as_str().unwrap().starts_with("obol-rs/"), "{hello}");
    let mut call = |method: &str, params: Value| {
        exchange(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    };
    assert_eq!(call("health", json!({}))["result"]["ready"], true);
    for method in ["dequeueToken", "flush", "provision", "drain", ""] {
        let answer = call(method, json!({}));
        assert_eq!(answer["error"]["data"]["code"], "METHOD_NOT_ALLOWED", "{method}: {answer}");
    }
    for params in
        [json!({}), json!({"scope": {"tool": "pay"}, "reason": "x"}), json!({"scope": {"all": true}})]
    {
        assert_eq!(call("revoke", params)["error"]["data"]["code"], "INVALID_ARGUMENT");
    }
    let done = call("revoke", json!({"scope": {"agent": "agent-1"}, "reason": "hijacked"}));
    assert_eq!(
        done["result"],
        json!({"revoked": 1, "sessions": ["0000000000000001"], "kept": "memory"}),
        "{done}"
    );
}

#[test]
fn the_servers_socket_is_closed_to_others_never_stolen_and_can_be_left_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let field = Field::new(&[(1, "agent-1")]);
    let rs = field.rs(&[]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = rs.control_socket();
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let place = socket.to_str().unwrap();
    let second = home::command(field.path())
        .args(["rs", "--sessions", "sessions.json", "--listen", "127.0.0.1:0", "--spent", "memory"])
        .args(["--rs-control-socket", place])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(4), "{second:?}");
    assert!(stderr(&second).contains("--rs-control-socket"), "{}", stderr(&second));
    // Where none was named, the second serves without, and says so.
    let port = home::free_port();
    let mut second = home::command(field.path())
        .args(["rs", "--sessions", "sessions.json", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--spent", "memory", "--first-start"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let serves = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    while !serves() && second.try_wait().unwrap().is_none() {
        std::thread::sleep(core::time::Duration::from_millis(20));
    }
    second.kill().unwrap();
    let second = second.wait_with_output().unwrap();
    assert!(stderr(&second).contains("does not reach this server"), "{}", stderr(&second));
    drop(rs);
    let _rs = field.rs(&["--rs-control-socket", "off"]);
    assert_eq!(field.revoke(&["--all"]).status.code(), Some(4), "nobody answers");
}
