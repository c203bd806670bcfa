//! What others say reaches no log and no terminal as it is.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::Path;

use obol_ipc::control::FlushScope;
use obol_ipc::names::{Audience, Reason};
use obol_world::halves::AgentSession;
use obol_world::home::{self, command, free_port, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::json;

use crate::resource::post;
use crate::sidecar::tool;

/// Begins a terminal's command, turns the direction of text, does not show, and ends a line.
const EVIL: &str = "\u{9b}31m\u{202e}red\u{200b}\u{2028}\u{e0041}";

/// What must not stand in a text as it is.
fn raw(text: &str) -> Vec<char> {
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0001}'..='\u{e007f}');
    text.chars().filter(|c| *c != '\n' && (c.is_control() || hidden(*c))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn no_control_characters_reach_a_log() {
    for format in ["text", "json"] {
        let home = home::home();
        let log = home.path().join("logs");
        std::fs::DirBuilder::new().create(&log).unwrap();
        std::fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let create = ["session", "create", "--audience", "https://a", "--tool", "search"];
        assert!(command(home.path()).args(create).status().unwrap().success());
        let debug = ["--log", "debug", "--log-format", format];
        let audit = log.join("tqs.jsonl").display().to_string();
        let tqs = Tqs::start(
            home.path(),
            &[&["--session", "agent-session.json", "--audit-log", &audit], &debug[..]].concat(),
        );
        let evil = Audience::new(format!("https://a/{EVIL}")).unwrap();
        tqs.client().dequeue_token_for(&tool("nope"), &evil, Duration::ZERO).unwrap_err();
        let reason = Reason::new(format!("because {EVIL}")).unwrap();
        let _nothing_to_flush = tqs.control().flush(FlushScope::Tool(tool("search")), reason);

        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let rs_audit = log.join("rs.jsonl");
        let mut rs = command(home.path());
        rs.args([
            "rs",
            "--sessions",
            "rs-sessions.json",
            "--first-start",
            "--listen",
            &at.to_string(),
            "--audit-log",
        ]);
        rs.arg(&rs_audit).args(debug).stderr(std::fs::File::create(home.path().join("rs.log")).unwrap());
        let mut rs = rs.spawn().unwrap();
        wait_until("the server answers", || std::net::TcpStream::connect(at).is_ok());
        let body =
            json!({"token": "forged", "tool": format!("tool{EVIL}"), "action": EVIL, "resource": EVIL});
        assert!(post(at, "/v1/verify", &body.to_string()).status >= 400);
        let said = tqs.log();
        assert_eq!(tqs.terminate(), Some(0));
        rs.kill().unwrap();
        rs.wait().unwrap();
        for text in [said, read(&home.path().join("rs.log")), read(Path::new(&audit)), read(&rs_audit)] {
            assert!(!text.is_empty());
            assert_eq!(raw(&text), Vec::<char>::new(), "{text}");
        }
        assert!(read(Path::new(&audit)).contains("\\u009b31m"), "it is escaped, not lost");
        let verified = command(home.path()).args(["audit", "verify", &audit]).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}

#[test]
fn no_control_characters_reach_a_terminal() {
    let home = home::home();
    let mut world = AgentSession::new(1, now(), &["search"]).agent_json();
    world["resource_servers"][0]["aud"] = "https://a/\u{202e}red\u{200b}\u{2028}".into();
    world["grants"][0]["aud"] = "https://a/\u{202e}red\u{200b}\u{2028}".into();
    home::write_private(&home.path().join("session.json"), &world.to_string());
    let _tqs = Tqs::start(home.path(), &["--session", "session.json"]);
    for arguments in [&["status"][..], &["status", "--json"]] {
        let output = command(home.path()).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("search"), "{text}");
        assert_eq!(raw(&text), Vec::<char>::new(), "{text}");
    }
}

#[test]
fn a_daemon_outlives_signals_that_mean_nothing_and_a_manager_that_is_gone() {
    let home = home::home();
    let tqs = Tqs::start_as(home.path(), &[], |command| {
        command.env("NOTIFY_SOCKET", "/nobody/listens/here");
    });
    tqs.wait_for_log("NOTIFY_SOCKET cannot be reached");
    for signal in ["USR1", "USR2"] {
        tqs.signal(signal);
    }
    std::thread::sleep(Duration::from_millis(200));
    tqs.control().health().unwrap();
    tqs.client().dequeue_token(&tool("secrets"), Duration::ZERO).unwrap_err();
    tqs.wait_for_log("denied tool=\"secrets\" code=\"NO_SESSION\"");
    assert_eq!(tqs.terminate(), Some(0));
}
