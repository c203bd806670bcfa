//! The guard over HTTP as its flags have it: plain on loopback alone, watched on an address of its own, and TLS with a
//! certificate that can change.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use obol_world::certificates::{self, Holds};
use obol_world::home::{command, free_port, home, wait_until};
use obol_world::http::Http;
use obol_world::tqs::Tqs;
use serde_json::json;

use super::attacks::{in_session, message, session};
use super::{Listening, guard, guard_at, log_of, server};
use crate::mcp::pipe::{AUDIENCE, call, create_session};

/// An address for documents alone: nothing is ever sent there.
const ELSEWHERE: &str = "http://192.0.2.1:9/mcp";

fn guarding(home: &Path, arguments: &[&str]) -> Output {
    let guard = ["mcp", "guard", "--sessions", "rs-sessions.json", "--spent", "memory", "--first-start"];
    command(home).args(guard).args(arguments).output().unwrap()
}

fn refused(output: &Output, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(why), "{why}: {told}");
}

#[test]
fn plain_http_is_for_this_machine_unless_it_is_said() {
    let home = home();
    create_session(home.path(), &["--tool", "add"]);
    refused(&guarding(home.path(), &["--url", ELSEWHERE]), "--plain");
    for flags in
        [&["--plain"][..], &["--http", "127.0.0.1:9"], &["--tls-cert", "as.crt", "--tls-key", "as.key"]]
    {
        refused(&guarding(home.path(), &[flags, &["--", "/bin/true"]].concat()), "need --url");
    }
    let url = format!("http://127.0.0.1:{}/mcp", free_port());
    // Neither serves anybody: what other machines reach needs TLS, and those who watch are on this one.
    refused(&guarding(home.path(), &["--url", &url, "--listen", "192.0.2.1:9"]), "--tls-cert");
    let listen = format!("127.0.0.1:{}", free_port());
    let watched = guarding(home.path(), &["--url", &url, "--listen", &listen, "--http", "192.0.2.1:9"]);
    refused(&watched, "192.0.2.1");
    refused(&guarding(home.path(), &["--url", &url, "--tls-cert", "as.crt"]), "--tls-key");
    refused(&guarding(home.path(), &["--listen", &listen, "--", "/bin/true"]), "--listen");
    let wrap = ["mcp", "wrap", "--audience", AUDIENCE];
    for (more, why) in
        [(&["--url", ELSEWHERE][..], "--plain"), (&["--plain", "--", "/bin/true"], "needs --url")]
    {
        refused(&command(home.path()).args(wrap).args(more).output().unwrap(), why);
    }

    let said = guard(home.path(), ELSEWHERE, &["--spent", "memory", "--plain"]);
    assert!(log_of(home.path()).contains("listening"), "{}", log_of(home.path()));
    drop(said);
}

#[test]
fn those_who_watch_a_guard_ask_at_an_address_of_its_own() {
    let home = home();
    create_session(home.path(), &["--tool", "add"]);
    let server = server(home.path(), &[]);
    let probes = free_port();
    let address = format!("127.0.0.1:{probes}");
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let guard = guard(home.path(), &server.url(), &["--spent", "memory", "--http", &address]);
    let watched = |path: &str| Http::new(probes).get(path).expect("an answer");
    for path in ["/livez", "/readyz"] {
        assert_eq!(watched(path).0, 200, "{path}");
    }
    let accepted = |counts: &str| counts.contains("obol_verifications_total{code=\"OK\"} 1\n");
    assert!(!accepted(&watched("/metrics").1));
    let begun = session(guard.address());
    let mut called = call(1, "add", &json!({"a": 1, "b": 1}));
    let token = crate::end_to_end::draw(&tqs, "add");
    called["params"]["_meta"] = json!({obol_mcp::EXTENSION: {"token": token, "format": "opaque"}});
    let answer = message(&in_session(guard.address(), &begun, &called.to_string()));
    assert_eq!(answer["result"]["content"][0]["text"], "add 1 1", "{answer}");
    let (status, counts) = watched("/metrics");
    assert!(status == 200 && accepted(&counts), "{counts}");
    for path in ["/livez", "/metrics"] {
        assert_eq!(Http::new(guard.port).get(path).expect("an answer").0, 404, "strangers ask for {path}");
    }
}

/// What `curl` gets that trusts this authority; `None` where it does not trust what it meets.
fn initialize(home: &Path, authority: &str, port: u16) -> Option<String> {
    let client = json!({"name": "t", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string();
    let output = Command::new("curl")
        .current_dir(home)
        .args(["-sS", "--max-time", "60", "--cacert", authority, "-H", "Content-Type: application/json"])
        .args(["-H", "Accept: application/json, text/event-stream", "-d", &hello])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1"), &format!("https://localhost:{port}/mcp")])
        .output()
        .expect("curl is installed by scripts/install");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

fn read_again(guard: &Listening) {
    let sent = Command::new("kill").args(["-s", "HUP", &guard.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_guard_serves_tls_and_takes_another_certificate_while_it_serves() {
    let home = home();
    create_session(home.path(), &["--tool", "add"]);
    certificates::authority(home.path(), "ours");
    certificates::authority(home.path(), "others");
    certificates::issued(home.path(), "ours", "as", "localhost", Holds::Now);
    let server = server(home.path(), &[]);
    let flags = ["--spent", "memory", "--tls-cert", "as.crt", "--tls-key", "as.key"];
    let guard = guard_at(home.path(), free_port(), &server.url(), &flags);
    let met = |authority: &str| initialize(home.path(), authority, guard.port);
    let answer = met("ours.crt").unwrap_or_else(|| panic!("{}", log_of(home.path())));
    assert!(answer.contains(obol_mcp::EXTENSION), "{answer}");
    assert_eq!(met("others.crt"), None, "the control");
    let clear = crate::resource::send(guard.address(), "POST /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(clear.status, 0, "nothing is served in the clear");

    let good = fs::read(home.path().join("as.crt")).unwrap();
    fs::write(home.path().join("as.crt"), "no certificate").unwrap();
    read_again(&guard);
    wait_until("it is said", || log_of(home.path()).contains("the certificate stays as it was"));
    assert!(met("ours.crt").is_some(), "what cannot be read changes nothing");
    fs::write(home.path().join("as.crt"), good).unwrap();

    certificates::issued(home.path(), "others", "as", "localhost", Holds::Now);
    read_again(&guard);
    wait_until("the new one is shown", || met("others.crt").is_some());
    assert_eq!(met("ours.crt"), None);
}
