//! The sidecar as a real process, from the outside.

use core::time::Duration;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use obol_client::CallError;
use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::codec::Codec;
use obol_ipc::control::FlushScope;
use obol_ipc::names::{PeerName, Reason};
use obol_ipc::refusal::ErrorCode;
use obol_world::halves::AgentSession;
use obol_world::home;
use obol_world::now;
use obol_world::tqs::{self, Tqs};
use serde_json::json;

use super::{PATIENCE, Raw, start, tool};

#[test]
fn both_codecs_draw_tokens_and_never_the_same() {
    let home = home::home();
    let _tqs = start(home.path());
    let mut seen = HashSet::new();
    for codec in [Codec::Json, Codec::Bincode] {
        let mut options = ConnectOptions::new(PeerName::new("test/1").unwrap());
        options.codec = codec;
        let endpoint = Endpoint::at(tqs::socket(home.path())).unwrap();
        let mut client = Client::connect(endpoint, options).unwrap();
        for name in ["search", "pay"] {
            for _ in 0..20 {
                let drawn = client.dequeue_token(&tool(name), PATIENCE).unwrap();
                assert_eq!(drawn.tool, tool(name));
                assert!(seen.insert(drawn.token.expose().to_owned()));
            }
        }
        let info = client.session_info().unwrap();
        assert_eq!((info.session_id.as_u64(), info.algorithm_suite.number()), (1, 1));
        let status = client.token_status(None).unwrap();
        assert!(status.session_active);
        assert_eq!(status.tools.unwrap().len(), 2);
    }
}

#[test]
fn the_status_of_any_number_of_tools_is_answered() {
    let home = home::home();
    let names: Vec<_> = (0..600).map(|n| format!("t{n:03}{}", "\\".repeat(240))).collect();
    let world = AgentSession::new(1, now(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    let tqs = Tqs::start(home.path(), &["--session", "session.json"]);
    let mut agent = Raw::greeted(home.path(), "agent.sock");
    let (mut seen, mut from, mut pages) = (HashSet::new(), json!(0), 0);
    while !from.is_null() {
        let answer = agent.call("tokenStatus", json!({ "from": from }));
        let result = &answer["result"];
        let tools = result["tools"].as_object().unwrap_or_else(|| panic!("{answer}"));
        assert!(!tools.is_empty());
        seen.extend(tools.keys().cloned());
        (from, pages) = (result["next"].clone(), pages + 1);
    }
    assert_eq!((seen.len(), seen), (600, names.iter().cloned().collect()));
    assert!(pages > 1, "one frame does not hold them");
    assert_eq!(tqs.client().token_status(None).unwrap().tools.unwrap().len(), 600);
    let one = tqs.client().token_status(Some(&tool(&names[0]))).unwrap();
    assert!(one.session_active && one.tools.is_none());
}

#[test]
fn the_agents_socket_knows_three_methods_and_no_other() {
    let home = home::home();
    let _tqs = start(home.path());
    let mut agent = Raw::greeted(home.path(), "agent.sock");
    for method in [
        "provision",
        "flush",
        "securityEvent",
        "policy",
        "status",
        "health",
        "drain",
        "resume",
        "deny",
        "allow",
        "",
        "x",
    ] {
        let answer = agent.call(method, json!({}));
        assert_eq!(answer["error"]["data"]["code"], "METHOD_NOT_ALLOWED", "{method}: {answer}");
    }
    assert!(
        agent.call("dequeueToken", json!({"tool": "search", "waitMs": 5000}))["result"]["token"].is_string()
    );
}

#[test]
fn the_operators_socket_hands_out_no_token() {
    let home = home::home();
    let _tqs = start(home.path());
    let mut operator = Raw::greeted(home.path(), "control.sock");
    let answer = operator.call("dequeueToken", json!({"tool": "search"}));
    assert_eq!(answer["error"]["data"]["code"], "METHOD_NOT_ALLOWED");
    assert_eq!(operator.call("health", json!({}))["result"]["ready"], true);
}

#[test]
fn wrong_parameters_are_named_and_the_connection_goes_on() {
    let home = home::home();
    let _tqs = start(home.path());
    let mut agent = Raw::greeted(home.path(), "agent.sock");
    for (params, code, named) in [
        (json!({}), "INVALID_ARGUMENT", "tool"),
        (json!({"tool": ""}), "INVALID_ARGUMENT", "tool"),
        (json!({"tool": "two words"}), "INVALID_ARGUMENT", "tool"),
        (json!({"tool": "search", "waitMs": 30_001}), "INVALID_ARGUMENT", "waitMs"),
        (json!({"tool": "search", "wait": 1}), "INVALID_ARGUMENT", "wait"),
        (json!({"tool": "search", "audience": "https://nobody"}), "POLICY_DENY", "granted"),
        (json!({"tool": "unheard_of"}), "POLICY_DENY", "granted"),
    ] {
        let answer = agent.call("dequeueToken", params.clone());
        assert_eq!(answer["error"]["data"]["code"], code, "{params}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(named), "{params}: {answer}");
    }
    assert!(agent.call("sessionInfo", json!({}))["result"]["sessionId"].is_string());
}

#[test]
fn pipelined_requests_are_all_answered_each_with_its_id() {
    let home = home::home();
    let _tqs = start(home.path());
    let mut agent = Raw::connect(home.path(), "agent.sock");
    // Hello and requests in one go, before anything is answered.
    agent.send(&json!({"obol": 1, "codec": "json", "client": "raw/1"}));
    for id in 0..100 {
        let params = json!({"tool": "search", "waitMs": 10_000});
        agent.send(&json!({"jsonrpc": "2.0", "id": id, "method": "dequeueToken", "params": params}));
    }
    assert_eq!(agent.receive().unwrap()["codec"], "json");
    let (mut ids, mut tokens) = (HashSet::new(), HashSet::new());
    for _ in 0..100 {
        let answer = agent.receive().unwrap();
        assert!(ids.insert(answer["id"].as_u64().unwrap()));
        assert!(tokens.insert(answer["result"]["token"].as_str().unwrap().to_owned()), "{answer}");
    }
    assert_eq!(ids, (0..100).collect());
}

#[test]
fn garbage_ends_the_connection_it_came_on_and_no_other() {
    let home = home::home();
    let tqs = start(home.path());
    let mut good = tqs.client();
    let hello = br#"{"obol":1,"codec":"json","client":"raw/1"}"#;
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xFF; 64],
        framed(b"not json"),
        framed(br#"{"obol":2,"codec":"json","client":"x/1"}"#),
        framed(br#"{"obol":1,"codec":"xml","client":"x/1"}"#),
        [framed(hello), 65_537_u32.to_be_bytes().to_vec()].concat(),
        [framed(hello), vec![0; 4]].concat(),
    ] {
        let mut raw = Raw::connect(home.path(), "agent.sock");
        raw.0.write_all(&garbage).unwrap();
        let mut rest = Vec::new();
        raw.0.read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty(), "an answer in words comes before the end");
    }
    let mut half = Raw::connect(home.path(), "agent.sock");
    half.0.write_all(&framed(hello)[..9]).unwrap();
    drop(half);
    good.dequeue_token(&tool("search"), PATIENCE).unwrap();
}

#[test]
fn sockets_and_files_are_closed_to_others() {
    let home = home::home();
    let _tqs = start(home.path());
    let mode = |path: &str| std::fs::metadata(home.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("run/obol"), 0o700);
    for path in ["run/obol/agent.sock", "run/obol/control.sock"] {
        assert_eq!(mode(path), 0o600, "{path}");
    }
    for path in ["tokens.redb", "tokens.redb.keys", "master.key"] {
        assert_eq!(mode(&format!(".local/state/obol/{path}")), 0o600, "{path}");
    }
}

#[test]
fn another_user_is_turned_away() {
    let home = home::home();
    let _tqs = start(home.path());
    if std::fs::metadata(home.path()).unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can connect as another user; run this test as root");
        return;
    }
    // Open every door but the check itself.
    for path in ["", "run", "run/obol", "run/obol/agent.sock"] {
        std::fs::set_permissions(home.path().join(path), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  b=b'{\"obol\":1,\"codec\":\"json\",\"client\":\"x/1\"}'; \
                  s.sendall(len(b).to_bytes(4,'big')+b); n=int.from_bytes(s.recv(4),'big'); print(s.recv(n).decode())";
    let mut stranger = Command::new("python3");
    std::os::unix::process::CommandExt::uid(&mut stranger, 65_534);
    let outcome =
        stranger.args(["-c", script]).arg(tqs::socket(home.path())).current_dir("/").output().unwrap();
    // Turned away in the middle of whatever the stranger was doing: reading, or still writing.
    let errors = String::from_utf8_lossy(&outcome.stderr);
    let cut_off = errors.contains("ConnectionResetError") || errors.contains("BrokenPipeError");
    let told = String::from_utf8_lossy(&outcome.stdout).contains("USER_NOT_SERVED");
    assert!(told || cut_off, "{outcome:?}");
}

#[test]
fn a_live_socket_is_not_stolen_and_a_dead_one_is_replaced() {
    let home = home::home();
    let tqs = start(home.path());
    let second = home::command(home.path())
        .args(["tqs", "--store", "other.redb", "--master-key", "other.key"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&second.stderr).contains("served by another process"), "{second:?}");
    tqs.client().session_info().unwrap();
    tqs.kill();
    assert!(tqs::socket(home.path()).exists(), "a killed daemon leaves its socket behind");
    start(home.path()).client().session_info().unwrap();
}

#[test]
fn no_token_comes_back_after_the_daemon_is_killed() {
    let home = home::home();
    let mut seen = HashSet::new();
    for _ in 0..5 {
        let tqs = start(home.path());
        let mut client = tqs.client();
        for _ in 0..15 {
            let drawn = client.dequeue_token(&tool("search"), PATIENCE).unwrap();
            assert!(seen.insert(drawn.token.expose().to_owned()), "handed out again after a kill");
        }
        tqs.kill();
    }
}

#[test]
fn a_flush_ends_the_session_for_callers_that_wait_and_callers_that_come() {
    let home = home::home();
    let tqs = start(home.path());
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    tqs.control().policy(1, vec![]).unwrap();
    let flushed = tqs.control().flush(FlushScope::All, Reason::new("leak").unwrap()).unwrap();
    assert_eq!(flushed.sessions_ended, 1);
    let refused = tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap_err();
    assert_eq!(refused.refusal().unwrap().code(), ErrorCode::SessionFlushed);
    tqs.kill();
    let tqs = Tqs::start(home.path(), &[]);
    let refused = tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap_err();
    assert_eq!(refused.refusal().unwrap().code(), ErrorCode::SessionFlushed);
}

#[test]
fn sigterm_and_drain_end_the_daemon_in_good_order() {
    let home = home::home();
    let tqs = start(home.path());
    let idle = tqs.client();
    assert_eq!(tqs.terminate(), Some(0));
    assert!(!tqs::socket(home.path()).exists());
    drop(idle);

    let mut tqs = start(home.path());
    tqs.control().drain().unwrap();
    assert_eq!(tqs.wait(), Some(0));
}

#[test]
fn a_request_lost_with_the_daemon_is_reported_and_not_repeated() {
    let home = home::home();
    let tqs = Tqs::start(home.path(), &[]);
    let mut client = tqs.client();
    // No session: nothing is handed out, but the request is on its way when the daemon dies.
    let pid = tqs.pid();
    let stop = Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
    assert!(stop.success());
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        client.dequeue_token(&tool("search"), Duration::ZERO)
    });
    // Asleep means that the request is written and the answer awaited.
    let state = Path::new("/proc").join(told.recv().unwrap()).join("stat");
    home::wait_until("the request is sent", || {
        std::fs::read_to_string(&state).unwrap().rsplit(')').next().unwrap().starts_with(" S")
    });
    tqs.kill();
    assert!(matches!(waiting.join().unwrap(), Err(CallError::MayHaveBeenHandedOut(_))));
}

#[test]
fn bad_files_and_settings_get_an_error_that_says_what_to_do() {
    let home = home::home();
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = home::command(home.path())
            .arg("tqs")
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let open = home.path().join("open.json");
    std::fs::write(&open, "{}").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    home::write_private(&home.path().join("wrong.json"), "{\"obol_session\": 1}");
    home::write_private(&home.path().join("wrong.toml"), "[tqs]\nbacth = 1\n");
    home::write_private(&home.path().join("short.key"), "abc\n");
    home::write_private(&home.path().join("text.redb"), "dear diary, this is no database");
    for (arguments, environment, code, says) in [
        (vec!["--session", "open.json"], vec![], 2, "chmod 600"),
        (vec!["--session", "none.json"], vec![], 2, "none.json"),
        (vec!["--session", "wrong.json"], vec![], 2, "missing field"),
        (vec!["--config", "wrong.toml"], vec![], 2, "bacth"),
        (vec!["--master-key", "short.key"], vec![], 2, "64 lower-case hex digits"),
        (vec!["--store", "text.redb"], vec![], 4, "not a token store"),
        (vec!["--socket", "unix:relative"], vec![], 2, "unix:///"),
        (vec![], vec![("OBOL_TQS__BACTH", "1")], 2, "bacth"),
        (vec![], vec![("OBOL_ENDPOINT_SOCKET", "/no/url")], 2, "OBOL_ENDPOINT_SOCKET"),
    ] {
        let (exit, message) = run(&arguments, &environment);
        assert_eq!(exit, Some(code), "{arguments:?} {environment:?}: {message}");
        assert!(message.contains(says), "{arguments:?} {environment:?}: {message}");
    }
    assert_eq!(
        std::fs::read_to_string(home.path().join("text.redb")).unwrap(),
        "dear diary, this is no database"
    );
}

#[test]
fn the_python_script_in_the_protocol_document_draws_a_token() {
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    let script = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(script.lines().count() <= 20, "the script is twenty lines");
    let home = home::home();
    let _tqs = start(home.path());
    let output = Command::new("python3")
        .args(["-c", script, "search"])
        .env("OBOL_ENDPOINT_SOCKET", format!("unix://{}", tqs::socket(home.path()).display()))
        .output()
        .expect("python3 is needed for this test; install Debian's package python3");
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    let bytes = obol_token::text::from_base64url(token.trim().as_bytes()).unwrap();
    obol_token::Envelope::parse(&bytes).unwrap();
}
