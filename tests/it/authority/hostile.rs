//! Junk at the operator's socket and at the agents' port, and many at once.

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use obol_world::authority::AsProcess;
use obol_world::home::{self, wait_until};
use obol_world::random::Random;
use serde_json::json;

use super::Agent;

/// A frame of the socket.
fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// Sends bytes to the operator's socket, and whatever comes back.
fn sent(service: &AsProcess, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(service.control_socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The other side may have had enough before the end.
    let _refused = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    let _cut_off = stream.read_to_end(&mut answer);
    answer
}

/// Sends a hello and a request, and stays until it is answered: the answer to the request.
fn asked(service: &AsProcess, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(service.control_socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut body = Vec::new();
    for _ in ["hello", "answer"] {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body).unwrap();
    }
    String::from_utf8(body).unwrap()
}

fn hello() -> Vec<u8> {
    frame(br#"{"obol":1,"codec":"json","client":"test/1"}"#)
}

#[test]
fn junk_on_the_operators_socket_is_answered_or_cut_off_and_changes_nothing() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let (_, id) = Agent::approved(&service, home.path(), "builder");
    let before = service.told(&["as", "status"]);
    let request = |method: &str, params: serde_json::Value| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        [hello(), frame(body.as_bytes())].concat()
    };
    for (bytes, expected) in [
        (request("provision", json!({})), "METHOD_NOT_ALLOWED"),
        (request("disable", json!({})), "INVALID_ARGUMENT"),
        (request("disable", json!({"scope": {"agent": ""}, "reason": "x"})), "INVALID_ARGUMENT"),
        (
            request("disable", json!({"scope": {"agent": "a", "tool": "b"}, "reason": "x"})),
            "INVALID_ARGUMENT",
        ),
        (request("disable", json!({"scope": {"agent": "builder"}, "reason": "a\nb"})), "INVALID_ARGUMENT"),
        (request("disable", json!({"scope": {"all": true}, "reason": "x"})), "INVALID_ARGUMENT"),
        (
            request("approve", json!({"code": "KQXR-WTBN", "registrationId": id, "roles": []})),
            "INVALID_ARGUMENT",
        ),
        (request("deny", json!({"target": {"registration": "reg_x"}})), "INVALID_ARGUMENT"),
        (request("agents", json!({"after": "nobody"})), "INVALID_ARGUMENT"),
        (
            request("invite", json!({"class": "c", "roles": [], "maxAgents": 0, "lifetimeSeconds": 1})),
            "INVALID_ARGUMENT",
        ),
        (request("inviteServer", json!({"audience": "https://a", "suites": [9]})), "INVALID_ARGUMENT"),
        (request("activate", json!({"digest": "0", "mode": "force"})), "INVALID_ARGUMENT"),
        (request("policyPart", json!({"digest": "0", "file": "../../x", "text": "x"})), "INVALID_ARGUMENT"),
        ([hello(), frame(b"not json")].concat(), "INVALID_ARGUMENT"),
    ] {
        let answer = asked(&service, &bytes);
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    let mut random = Random::new(11);
    for _ in 0..200 {
        let junk: Vec<u8> =
            (0..random.below(300)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        sent(&service, &junk);
        sent(&service, &[hello(), junk].concat());
    }
    // A declared length that never comes must not hold anything up.
    let mut silent = UnixStream::connect(service.control_socket()).unwrap();
    silent.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(service.told(&["as", "status"]), before);
    assert_eq!(service.told(&["agent", "show", "builder"])["agent"]["state"], "active");
}

#[test]
fn junk_at_the_port_and_silent_connections_hold_nobody_up() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let silent: Vec<_> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", service.port())).unwrap()).collect();
    let mut random = Random::new(12);
    for path in ["/v1/handshake", "/v1/sessions", "/v1/agents", "/v1/agents/rotate", "/v1/stream", "/"] {
        for length in [0, 1, 64, 1_400, 16_384, 16_385] {
            let body: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/vnd.obol.handshake\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            let mut stream = TcpStream::connect(("127.0.0.1", service.port())).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let _refused = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            let mut answer = Vec::new();
            let _cut_off = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{path} {length}: {answer}");
        }
    }
    agent.open().unwrap();
    service.told(&["agent", "disable", "builder"]);
    drop(silent);
}

/// The status of a request with these headers, and what is answered.
fn named(service: &AsProcess, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", service.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_page_whose_name_was_made_to_lead_here_reads_nothing() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let path = "/.well-known/obol-configuration";
    for foreign in [
        "Host: evil.example\r\n",
        "Host: evil.example:8720\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
    ] {
        for path in [path, "/v1/handshake", "/v1/nothing"] {
            let answer = named(&service, path, foreign);
            assert!(
                answer.starts_with("HTTP/1.1 421 ") && answer.contains("FOREIGN_HOST"),
                "{foreign}: {answer}"
            );
            assert!(!answer.contains("authority_key"), "{answer}");
        }
    }
    // Control: this machine's own names, also as an origin.
    for own in ["Host: localhost\r\n", "Host: 127.0.0.1\r\nOrigin: http://localhost:3000\r\n"] {
        let answer = named(&service, path, own);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{own}: {answer}");
    }
}

#[test]
fn a_second_service_takes_neither_the_socket_nor_the_directory() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let second = AsProcess::unstarted(home.path(), &["--policy", "policy"]);
    let (code, said) = second.fails();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("as-control.sock"), "{said}");
    let elsewhere = home.path().join("run/other.sock");
    let third = AsProcess::unstarted(
        home.path(),
        &["--policy", "policy", "--as-control-socket", elsewhere.to_str().unwrap()],
    );
    let (code, said) = third.fails();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("authority.redb"), "{said}");
    wait_until("the first goes on", || service.told(&["as", "status"])["policyEpoch"] == 1);
}
