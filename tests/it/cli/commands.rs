//! The command line as a user meets it.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use obol_world::halves::AgentSession;
use obol_world::home::{self, command};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::Value;

use super::{run, stderr, stdout};
use crate::sidecar::tool;

#[test]
fn the_demo_needs_nothing_and_everything_comes_out_as_it_should() {
    let home = home::home();
    let output = run(home.path(), &["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", stdout(&output), stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ok"], true);
    assert!(report["lines"].as_array().unwrap().len() >= 15);
    assert!(
        report["latencies"].as_array().unwrap().iter().all(|latency| latency["calls"].as_u64() > Some(100))
    );
    assert_eq!(stderr(&output), "", "nothing but the story is told");
}

#[test]
fn every_suite_goes_the_whole_way() {
    for suite in ["1", "2", "3", "4"] {
        let home = home::home();
        let create =
            ["session", "create", "--audience", "https://api.example", "--tool", "search", "--suite"];
        let made = run(home.path(), &[&create[..], &[suite]].concat());
        assert!(made.status.success(), "{}", stderr(&made));
        let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
        let info: Value = serde_json::from_str(&stdout(&run(home.path(), &["session", "--json"]))).unwrap();
        assert_eq!(info["algorithmSuite"].to_string(), suite, "{info}");
        let drawn = run(home.path(), &["dequeue", "search"]);
        let token = stdout(&drawn);
        drop(tqs);
        let shown: Value =
            serde_json::from_str(&stdout(&run(home.path(), &["token", "inspect", token.trim(), "--json"])))
                .unwrap();
        assert_eq!(shown["suite"].to_string(), suite, "{shown}");
        let sessions = obol_verify::read_session_file(&home.path().join("rs-sessions.json")).unwrap();
        let bytes = obol_token::text::from_base64url(token.trim().as_bytes()).unwrap();
        let envelope = obol_token::Envelope::parse(&bytes).unwrap();
        assert!(sessions[0].material().open(&envelope).is_ok(), "suite {suite}");
    }
    let home = home::home();
    let wrong = ["session", "create", "--audience", "https://a", "--tool", "t", "--suite", "5"];
    assert_eq!(run(home.path(), &wrong).status.code(), Some(2));
}

#[test]
fn a_session_made_by_hand_goes_the_whole_way() {
    let home = home::home();
    let made =
        run(home.path(), &["session", "create", "--audience", "https://api.example", "--tool", "search"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let again =
        run(home.path(), &["session", "create", "--audience", "https://api.example", "--tool", "search"]);
    assert_eq!(again.status.code(), Some(2), "files that are there are not overwritten");

    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let drawn = run(home.path(), &["dequeue", "search"]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    let token = stdout(&drawn);

    let mut inspect = command(home.path())
        .args(["token", "inspect", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    inspect.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    let seen: Value = serde_json::from_slice(&inspect.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((seen["suite"].as_u64(), seen["verified"].as_bool()), (Some(1), Some(false)));

    let json = run(home.path(), &["dequeue", "search", "--json"]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert!(json["expiresAt"].as_u64().unwrap() > now());
    assert_ne!(json["token"].as_str().unwrap(), token.trim());

    let status: Value = serde_json::from_str(&stdout(&run(home.path(), &["status", "--json"]))).unwrap();
    assert_eq!(status["tools"][0]["handedOut"], 2);
    assert!(stdout(&run(home.path(), &["status", "search"])).contains("active"));
    assert!(stdout(&run(home.path(), &["session"])).contains("agent-1"));

    let flushed = run(home.path(), &["flush", "--all", "--reason", "test"]);
    assert!(stdout(&flushed).contains("1 sessions ended"), "{}", stdout(&flushed));
    drop(tqs);
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let home = home::home();
    let code = |arguments: &[&str]| run(home.path(), arguments).status.code();
    assert_eq!(code(&["dequeue", "search", "--wait", "0"]), Some(4), "nothing answers");
    assert_eq!(code(&["dequeue", "search", "--wait", "30001"]), Some(2), "longer than anybody waits");
    assert_eq!(code(&["dequeue"]), Some(2), "no tool");
    assert_eq!(code(&["dequeue", "two words"]), Some(2), "no tool's name");
    assert_eq!(code(&["flush", "--reason", "x"]), Some(2), "no scope");
    assert_eq!(code(&["flush", "--all", "--tool", "x", "--reason", "x"]), Some(2), "two scopes");
    assert_eq!(code(&["token", "inspect", "not+a+token"]), Some(2));
    assert_eq!(code(&["token", "inspect", "AAAA"]), Some(2));
    assert_eq!(code(&["verify"]), Some(2), "verify needs --jsonl");
    assert_eq!(code(&["rs"]), Some(2), "rs needs sessions");
    assert_eq!(code(&["--version"]), Some(0));

    let tqs = Tqs::start(home.path(), &[]);
    assert_eq!(code(&["dequeue", "search"]), Some(5), "no session");
    drop(tqs);
    let session = home.path().join("session.json");
    home::write_private(&session, &AgentSession::new(1, now(), &["search"]).agent_json().to_string());
    let _tqs = Tqs::start(home.path(), &[]);
    assert_eq!(code(&["session", "provision", "session.json"]), Some(0));
    assert_eq!(code(&["session", "provision", "session.json"]), Some(2), "known already");
    assert_eq!(code(&["dequeue", "pay"]), Some(3), "not granted");
    assert_eq!(code(&["dequeue", "search"]), Some(0));
}

#[test]
fn drawing_waits_for_a_sidecar_that_is_still_to_start() {
    let home = home::home();
    let session = home.path().join("session.json");
    home::write_private(&session, &AgentSession::new(1, now(), &["search"]).agent_json().to_string());
    let mut early = command(home.path());
    early.args(["dequeue", "search", "--wait", "30000"]).stdout(Stdio::piped());
    let mut early = early.spawn().unwrap();
    std::thread::sleep(core::time::Duration::from_millis(200));
    assert!(early.try_wait().unwrap().is_none(), "it waits while there is no socket");
    let _tqs = Tqs::start(home.path(), &["--session", "session.json"]);
    let output = early.wait_with_output().unwrap();
    assert!(output.status.success() && stdout(&output).len() > 100);
}

#[test]
fn with_json_an_error_is_json_with_its_code_and_when_to_ask_again() {
    let home = home::home();
    let error = |arguments: &[&str]| {
        let output = run(home.path(), &[arguments, &["--json"]].concat());
        let line: Value = serde_json::from_str(stderr(&output).lines().last().unwrap()).unwrap();
        assert_eq!(line["error"]["exit"].as_i64(), output.status.code().map(i64::from), "{line}");
        assert!(line["error"]["message"].as_str().unwrap().len() > 10, "{line}");
        line["error"].clone()
    };
    assert_eq!(error(&["dequeue", "search", "--wait", "0"])["code"], "UNAVAILABLE");
    assert_eq!(error(&["dequeue", "two words"])["code"], "USAGE");
    assert_eq!(
        error(&["flush", "--everything"])["code"],
        "USAGE",
        "also what the command line does not know"
    );
    let world = AgentSession::new(1, now(), &["search"]);
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    // One token at a time, and somebody takes it: the next one is still being minted.
    home::write_private(&home.path().join("obol.toml"), "[tqs]\nbatch = 1\nmax_ready = 1\nmax_depth = 1\n");
    let tqs = Tqs::start(home.path(), &["--config", "obol.toml", "--session", "session.json"]);
    let empty = loop {
        let output = run(home.path(), &["dequeue", "search", "--wait", "0", "--json"]);
        if output.status.code() == Some(4) {
            break serde_json::from_str::<Value>(stderr(&output).lines().last().unwrap()).unwrap()["error"]
                .clone();
        }
        while tqs.client().dequeue_token(&tool("search"), core::time::Duration::ZERO).is_ok() {}
    };
    assert_eq!((&empty["code"], &empty["renewalPending"]), (&"QUEUE_EMPTY".into(), &true.into()), "{empty}");
    assert!(empty["retryAfterMs"].is_u64(), "{empty}");
    assert_eq!(error(&["dequeue", "pay"])["code"], "POLICY_DENY");
    assert_eq!(error(&["flush", "--session", "nonsense", "--reason", "x"])["code"], "USAGE");
}

/// Runs it with an output that takes nothing.
fn run_into_full(home: &Path, arguments: &[&str]) -> Output {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    command(home).args(arguments).stdout(full).output().unwrap()
}

#[test]
fn output_that_does_not_arrive_is_a_failure() {
    let home = home::home();
    let world = AgentSession::new(1, now(), &["search"]);
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    let tqs = Tqs::start(home.path(), &["--session", "session.json"]);
    for arguments in [
        &["dequeue", "search"][..],
        &["dequeue", "search", "--json"],
        &["status"],
        &["status", "search", "--json"],
        &["session"],
        &["config", "check"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let output = run_into_full(home.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("space"), "{arguments:?}: {}", stderr(&output));
    }
    let drawn = |tqs: &Tqs| tqs.control().status().unwrap().tools[0].handed_out;
    let before = drawn(&tqs);
    let shell = format!("exec {} dequeue search >&-", home::obol().display());
    let mut closed = std::process::Command::new("/bin/sh");
    closed.args(["-c", &shell]).env_clear().env("XDG_RUNTIME_DIR", home.path().join("run"));
    let output = closed.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(drawn(&tqs), before, "nothing is drawn for an output that is closed");
    let discarded = command(home.path()).args(["dequeue", "search"]).stdout(Stdio::null()).output().unwrap();
    assert!(discarded.status.success(), "who throws a token away may");
}

#[test]
fn completions_exist_for_the_usual_shells() {
    let home = home::home();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(home.path(), &["completions", shell]);
        assert!(output.status.success() && stdout(&output).contains("dequeue"), "{shell}");
    }
}

#[test]
fn no_secret_reaches_the_log() {
    let home = home::home();
    let world = AgentSession::new(1, now(), &["search"]);
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    let tqs = Tqs::start(home.path(), &["--session", "session.json", "--log", "trace"]);
    let token = stdout(&run(home.path(), &["dequeue", "search"]));
    run(home.path(), &["flush", "--all", "--reason", "test"]);
    let log = tqs.log();
    let json = world.agent_json();
    let server = &json["resource_servers"][0];
    for secret in ["K_session", "verifier_secret", "mutual_auth"] {
        assert!(!log.contains(server[secret].as_str().unwrap()), "{secret}");
    }
    assert!(token.len() > 100 && !log.contains(token.trim().get(100..140).unwrap()));
    assert!(log.contains("flush"), "the log is there: {log}");
}

#[test]
fn a_log_in_json_carries_the_request_and_no_token_at_any_level() {
    let home = home::home();
    let made =
        run(home.path(), &["session", "create", "--audience", "https://api.example", "--tool", "search"]);
    assert!(made.status.success(), "{}", stderr(&made));
    home::write_private(&home.path().join("obol.toml"), "[log]\nlevel = \"trace\"\nformat = \"json\"\n");
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json", "--config", "obol.toml"]);
    let token = stdout(&run(home.path(), &["dequeue", "search"]));
    run(home.path(), &["flush", "--all", "--reason", "test"]);
    let log = tqs.log();
    drop(tqs);

    // The resource server sees the token whole.
    let mut verify = command(home.path())
        .args(["rs", "--sessions", "rs-sessions.json", "--first-start", "--listen", "127.0.0.1:0"])
        .args(["--config", "obol.toml"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(verify.stderr.take().unwrap()));
    let mut said = Vec::new();
    let address = loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        said.push(line.to_string());
        if let Some(address) = line["address"].as_str() {
            break address.to_owned();
        }
    };
    let body = format!("{{\"token\":\"{}\",\"tool\":\"search\"}}", token.trim());
    let request = format!(
        "POST /v1/verify HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Authorization: TBAC {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
        token.trim()
    );
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    verify.kill().unwrap();
    verify.wait().unwrap();
    said.extend(lines.map_while(Result::ok));

    let flush = log.lines().find(|line| line.contains("\"message\":\"flush\"")).unwrap();
    let flush: Value = serde_json::from_str(flush).unwrap();
    assert_eq!(flush["span"]["name"], "request", "{flush}");
    assert!(flush["span"]["id"].as_str().unwrap().contains('.'), "{flush}");
    let drawn = log.lines().find(|line| line.contains("handed out")).unwrap();
    assert!(drawn.contains("\"request\""), "{drawn}");
    for text in [log, said.join("\n")] {
        for line in text.lines() {
            serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
        }
        for place in [0, 100, 300] {
            assert!(!text.contains(token.trim().get(place..place + 40).unwrap()), "a piece of the token");
        }
    }
}
