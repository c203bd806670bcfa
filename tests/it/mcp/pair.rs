//! `obol mcp wrap` and `obol mcp guard` as processes: what passes, what is refused, and what becomes of those who do not keep
//! to the rules.

use obol_world::home;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::pipe::{
    AUDIENCE, Pipe, call, create_session, guarded, program, reason, recording_server, seal_all, seen, wrapped,
};

const MEMORY: [&str; 2] = ["--spent", "memory"];

fn text(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"));
    serde_json::from_str(text).unwrap_or_else(|_| panic!("refused: {answer}"))
}

#[test]
fn a_server_gets_what_the_client_said_and_nothing_of_the_token() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add", "--require-pop"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = recording_server(home.path());
    let mut pipe = Pipe::start(home.path(), &wrapped(guarded(&MEMORY, server)));
    let hello = pipe.initialize();
    assert_eq!(
        hello["result"]["capabilities"]["experimental"][obol_mcp::EXTENSION]["version"],
        obol_mcp::VERSION
    );

    let params = json!({"name": "add", "arguments": {"n": 9_007_199_254_740_991_u64, "t": "\u{2028}"}, "_meta": {"progressToken": 7}});
    let said = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params});
    assert_eq!(text(&pipe.ask(&said)), params);
    assert_eq!(text(&pipe.ask(&said)), params, "each call draws a token of its own");
    let bare = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "add"}});
    assert_eq!(text(&pipe.ask(&bare)), json!({"name": "add"}), "what was absent stays absent");
    assert_eq!(reason(&pipe.call(3, "pay", &json!({}))), "TBAC_REQUIRED", "no grant, no token");
    let (rest, ended) = pipe.finish();
    assert_eq!((rest, ended), (Vec::new(), Some(0)));
    let seen = seen(home.path());
    assert!(!seen.contains("\"token\"") && !seen.contains("\"pop\""), "{seen}");
    assert_eq!(seen.matches("tools/call").count(), 3, "{seen}");
}

#[test]
fn a_wrapped_client_works_with_a_server_that_knows_nothing_and_draws_nothing() {
    let home = home::home();
    // No sidecar, no session: none is needed.
    let mut pipe = Pipe::start(home.path(), &wrapped(recording_server(home.path())));
    pipe.initialize();
    let odd = r#"{ "id":1 ,"jsonrpc":"2.0", "method":"tools/call","params":{"name":"add","arguments":{"n":1e400}}}"#;
    pipe.tell(odd);
    pipe.hear().unwrap();
    let (_, ended) = pipe.finish();
    assert_eq!(ended, Some(0));
    assert!(seen(home.path()).ends_with(&format!("{odd}\n")), "{}", seen(home.path()));
}

#[test]
fn a_recorded_message_a_forged_one_and_one_for_another_call_are_refused() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add", "--tool", "pay", "--require-pop"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    // A server that takes what it is sent, and answers as a guard does: so tokens come to those who should not have them.
    let rules = home.path().join("rules.toml");
    std::fs::write(&rules, "open = [\"add\", \"pay\"]\n").unwrap();
    let thief = guarded(&["--spent", "memory", "--rules", "rules.toml"], recording_server(home.path()));
    let words = [r#"tee recorded | exec "$0" "$@""#.into()];
    let thief = [vec!["/bin/sh".into(), "-c".into()], words.to_vec(), thief].concat();
    let mut client = Pipe::start(home.path(), &wrapped(thief));
    client.initialize();
    for id in 1..=3 {
        client.call(id, "pay", &json!({"cents": 12}));
    }
    client.finish();
    let recorded = std::fs::read_to_string(home.path().join("recorded")).unwrap();
    let recorded: Vec<Value> = recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<&Value> = recorded.iter().filter(|message| message["method"] == "tools/call").collect();
    assert_eq!(calls.len(), 3);

    std::fs::remove_file(home.path().join("seen")).unwrap();
    let mut other =
        Pipe::start(home.path(), &guarded(&["--spent", "spent.redb"], recording_server(home.path())));
    other.initialize();
    let mut changed = calls[0].clone();
    changed["params"]["arguments"]["cents"] = json!(1200);
    assert_eq!(reason(&other.ask(&changed)), "POP_FAILED", "other arguments");
    let mut changed = calls[0].clone();
    changed["params"]["name"] = json!("add");
    assert_eq!(reason(&other.ask(&changed)), "INSUFFICIENT_PRIVILEGE", "another tool");
    let mut changed = calls[0].clone();
    changed["params"]["_meta"][obol_mcp::EXTENSION]["token"] = json!("A".repeat(400));
    assert_eq!(reason(&other.ask(&changed)), "MALFORMED_TOKEN", "forged");
    let mut changed = calls[0].clone();
    changed["params"]["_meta"][obol_mcp::EXTENSION]["pop"] =
        calls[1]["params"]["_meta"][obol_mcp::EXTENSION]["pop"].clone();
    assert_eq!(reason(&other.ask(&changed)), "POP_FAILED", "the proof of another token");
    assert!(!seen(home.path()).contains("tools/call"), "none of them reached the server");

    assert_eq!(text(&other.ask(calls[0]))["arguments"], json!({"cents": 12}), "and none burned the token");
    assert_eq!(reason(&other.ask(calls[0])), "TOKEN_REPLAYED");
    other.finish();
    // Nor is it taken by a guard that is started anew.
    let mut again =
        Pipe::start(home.path(), &guarded(&["--spent", "spent.redb"], recording_server(home.path())));
    again.initialize();
    assert_eq!(reason(&again.ask(calls[0])), "TOKEN_REPLAYED");
    // A guard of another server takes none of them.
    let elsewhere = ["--audience", "https://other.example", "--spent", "memory"];
    let mut elsewhere = Pipe::start(home.path(), &guarded(&elsewhere, recording_server(home.path())));
    elsewhere.initialize();
    assert_eq!(reason(&elsewhere.ask(calls[1])), "AUD_MISMATCH", "{AUDIENCE}");
    assert_eq!(seen(home.path()).matches("tools/call").count(), 1);
}

#[test]
fn a_line_that_two_readers_could_read_in_two_ways_reaches_no_server() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    let mut pipe = Pipe::start(home.path(), &guarded(&MEMORY, recording_server(home.path())));
    pipe.initialize();
    for line in [
        "no json",
        r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"add"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"add"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"add"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call ","params":{"name":"add"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","Name":"pay"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[{"name":"add"}]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"tools/call","params":{"name":"add"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":{"b":1,"b":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"vendor/other"}"#,
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
    ] {
        pipe.tell(line);
        let answer = pipe.answer();
        assert!(answer["error"]["code"].is_i64(), "{line}: {answer}");
    }
    // One that calls without asking for an answer is dropped.
    pipe.tell(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"add"}}"#);
    let pinged = pipe.ask(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping", "params": {"_meta": {obol_mcp::EXTENSION: {"token": "x"}}}}));
    assert_eq!(pinged["id"], "p");
    let seen = seen(home.path());
    assert!(!seen.contains("add") && !seen.contains("token") && seen.lines().count() == 2, "{seen}");
}

#[test]
fn no_message_is_hidden_in_another_ones_blanks_or_texts() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    let server = vec!["node".into(), program("splitting.js").into(), home.path().join("lines").into()];
    let mut pipe = Pipe::start(home.path(), &guarded(&MEMORY, server));
    let hidden = r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"add"}}"#;
    pipe.tell(&format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{{\"x\":\r{hidden}\r}}}}"
    ));
    for end in ['\u{2028}', '\u{2029}', '\u{85}'] {
        let inside = hidden.replace('"', "\\\"");
        pipe.tell(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{{\"x\":\"{end}{inside}{end}\"}}}}"
        ));
    }
    let (_, ended) = pipe.finish();
    assert_eq!(ended, Some(0));
    let lines = std::fs::read_to_string(home.path().join("lines")).unwrap();
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.lines().all(|line| line.contains("\"ping\"")), "{lines}");
}

#[test]
fn rules_say_what_a_call_stands_for_and_what_is_guarded_or_hidden() {
    let home = home::home();
    create_session(
        home.path(),
        &["--tool", "add", "--tool", "resources/read", "--resource", "docs/**", "--action", "read"],
    );
    let rules = "open = [\"open\"]\nguard = [\"resources/read\"]\nhide_not_granted = true\n\
                 [tool.add]\naction = \"read\"\nresource = \"{*paths[]}\"\n\
                 [tool.\"resources/read\"]\naction = \"read\"\nresource = \"{*uri}\"\n";
    std::fs::write(home.path().join("rules.toml"), rules).unwrap();
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let guard = guarded(&["--spent", "memory", "--rules", "rules.toml"], recording_server(home.path()));
    let mut pipe = Pipe::start(home.path(), &wrapped(guard));
    pipe.initialize();
    let tools = pipe.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert_eq!(tools["result"], json!({"tools": [{"name": "add", "n": 1.0}, {"name": "open", "n": 1.0}]}));
    text(&pipe.call(2, "add", &json!({"paths": ["docs/a", "docs/b/c"]})));
    assert_eq!(
        reason(&pipe.call(3, "add", &json!({"paths": ["docs/a", "etc/passwd"]}))),
        "INSUFFICIENT_PRIVILEGE"
    );
    assert_eq!(reason(&pipe.call(4, "add", &json!({"paths": ["docs/../etc"]}))), "MALFORMED_REQUEST");
    assert_eq!(reason(&pipe.call(5, "add", &json!({"Paths": ["docs/a"]}))), "MALFORMED_REQUEST");
    text(&pipe.call(6, "open", &json!({})));
    let read = |id: u64, uri: &str| json!({"jsonrpc": "2.0", "id": id, "method": "resources/read", "params": {"uri": uri}});
    assert_eq!(
        pipe.ask(&read(7, "docs/a")),
        json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
        "asked again with a token"
    );
    assert_eq!(reason(&pipe.ask(&read(8, "etc/passwd"))), "INSUFFICIENT_PRIVILEGE");
    let log = std::fs::read_to_string(home.path().join("pipe.log")).unwrap();
    let passes = log.lines().find(|line| line.contains("these pass without a token")).unwrap();
    assert!(passes.contains("prompts/get") && passes.contains("tools=\"open\""), "{passes}");
    assert!(!passes.contains("resources/read"), "{passes}");
}

#[test]
fn sealed_arguments_and_results_pass_through_a_client_that_knows_nothing_of_seals() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    seal_all(home.path());
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let guard = guarded(&MEMORY, recording_server(home.path()));
    let tapped = [r#"tee asked | "$0" "$@" | tee answered"#.into()];
    let tapped = [vec!["/bin/sh".into(), "-c".into()], tapped.to_vec(), guard].concat();
    let mut pipe = Pipe::start(home.path(), &wrapped(tapped));
    pipe.initialize();
    assert_eq!(
        text(&pipe.call(1, "add", &json!({"secret": "rows"})))["arguments"],
        json!({"secret": "rows"})
    );
    pipe.finish();
    for between in ["asked", "answered"] {
        let said = std::fs::read_to_string(home.path().join(between)).unwrap();
        assert!(said.contains("\"enc\"") && !said.contains("rows"), "{said}");
    }
    assert!(seen(home.path()).contains("rows"), "the server reads them");
}

#[test]
fn lines_are_bounded_and_one_that_breaks_off_is_no_message() {
    let home = home::home();
    create_session(home.path(), &["--tool", "open"]);
    let mut guard = Pipe::start(home.path(), &guarded(&MEMORY, recording_server(home.path())));
    guard.initialize();
    let long = vec![b'x'; (16 << 20) + 1];
    guard.write(&long).unwrap();
    guard.write(b"\n").unwrap();
    assert!(guard.answer()["error"]["message"].as_str().unwrap().contains("longer than"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    guard.tell(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{{\"x\":{deep}}}}}"));
    assert_eq!(guard.answer()["error"]["code"], -32_700);
    // What a refusal repeats of a line ends no line either.
    guard.tell("{\"a\u{2028}b\":\"\u{1}\"}");
    let told = guard.hear().unwrap();
    assert!(told.contains("-32700") && told.contains("a\\u2028b") && !told.contains('\u{2028}'), "{told}");
    assert_eq!(guard.ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}))["result"], json!({}));
    // A client that dies in the middle of a line.
    guard.write(br#"{"jsonrpc":"2.0","id":3,"method":"resources/list"}"#).unwrap();
    let (rest, ended) = guard.finish();
    assert_eq!((rest, ended), (Vec::new(), Some(0)));
    assert!(!seen(home.path()).contains("resources/list"), "{}", seen(home.path()));

    let mut wrap = Pipe::start(home.path(), &wrapped(recording_server(home.path())));
    wrap.initialize();
    wrap.write(&long).unwrap();
    wrap.write(b"\n").unwrap();
    assert_eq!(wrap.ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}))["result"], json!({}));
}

/// Starts as often as it takes: of a guard that was left alone in the middle the file of spent tokens may still be in use.
fn started(home: &std::path::Path, line: &[std::ffi::OsString]) -> Pipe {
    let deadline = std::time::Instant::now() + home::PATIENCE;
    loop {
        let mut pipe = Pipe::start(home, line);
        if pipe.try_initialize().is_some() {
            return pipe;
        }
        assert!(std::time::Instant::now() < deadline, "it does not start");
    }
}

#[test]
fn no_call_runs_twice_whoever_is_killed_and_whatever_is_sent_again() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    for round in 0..4_u64 {
        let guard = guarded(&["--spent", "spent.redb"], recording_server(home.path()));
        // Killed in the middle: the guard by itself, or all of them with the wrapper gone.
        let tapped = r#"tee -a recorded | (echo $BASHPID >guard.pid; exec "$0" "$@")"#;
        let tapped = [vec!["/bin/bash".into(), "-c".into()], vec![tapped.into()], guard].concat();
        let mut pipe = started(home.path(), &wrapped(tapped));
        for n in 0..40 {
            let id = round * 1_000 + n;
            if pipe.write(format!("{}\n", call(id, "add", &json!({"once": id}))).as_bytes()).is_err() {
                break;
            }
            if n == 10 + round * 7 {
                // So many have run for sure; of the others nobody knows.
                (0..10).for_each(|_| drop(pipe.hear().unwrap()));
                if round % 2 == 0 {
                    let pid = std::fs::read_to_string(home.path().join("guard.pid")).unwrap();
                    let killed = std::process::Command::new("kill").arg("-KILL").arg(pid.trim()).status();
                    assert!(killed.unwrap().success());
                } else {
                    pipe.kill();
                    break;
                }
            }
        }
    }
    let recorded = std::fs::read_to_string(home.path().join("recorded")).unwrap();
    let guard = guarded(&["--spent", "spent.redb"], recording_server(home.path()));
    let mut again = started(home.path(), &guard);
    let (mut replayed, mut ran) = (0, 0);
    for line in recorded.lines().filter(|line| line.contains("tools/call")) {
        // The last one may be cut off.
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let answer = again.ask(&message);
        if answer["result"]["isError"] == true {
            assert_eq!(reason(&answer), "TOKEN_REPLAYED");
            replayed += 1;
        } else {
            ran += 1;
        }
    }
    assert!(replayed >= 40, "{replayed} were refused and {ran} had not run yet");
    let seen = seen(home.path());
    let calls: Vec<&str> = seen.lines().filter(|line| line.contains("tools/call")).collect();
    let mut once: Vec<String> = calls
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|call| call["params"]["arguments"]["once"].to_string())
        .collect();
    let all = once.len();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all, "a call ran twice");
}
