//! The guard over HTTP as its flags have it: TLS, with a certificate that can change.

use std::fs;
use std::path::Path;
use std::process::Command;

use obol_world::home::{free_port, home, wait_until};
use serde_json::json;

use super::{Listening, guard_at, log_of, server};
use crate::authority::private_ca::{certificate, certificate_authority};
use crate::mcp::pipe::create_session;

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
    certificate_authority(home.path(), "ours");
    certificate_authority(home.path(), "others");
    certificate(home.path(), "ours");
    let server = server(home.path(), &[]);
    let flags = ["--spent", "memory", "--tls-cert", "as.crt", "--tls-key", "as.key"];
    let guard = guard_at(home.path(), free_port(), &server.url(), &flags);
    let met = |authority: &str| initialize(home.path(), authority, guard.port);
    let answer = met("ours.crt").unwrap_or_else(|| panic!("{}", log_of(home.path())));
    assert!(answer.contains(obol_mcp::EXTENSION), "{answer}");
    assert_eq!(met("others.crt"), None, "the control");
    let clear =
        crate::resource::send(guard.address(), "POST /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned());
    assert_eq!(clear.status, 0, "nothing is served in the clear");

    let good = fs::read(home.path().join("as.crt")).unwrap();
    fs::write(home.path().join("as.crt"), "no certificate").unwrap();
    read_again(&guard);
    wait_until("it is said", || log_of(home.path()).contains("the certificate stays as it was"));
    assert!(met("ours.crt").is_some(), "what cannot be read changes nothing");
    fs::write(home.path().join("as.crt"), good).unwrap();

    certificate(home.path(), "others");
    read_again(&guard);
    wait_until("the new one is shown", || met("others.crt").is_some());
    assert_eq!(met("ours.crt"), None);
}
