//! Sidecar and resource server as real processes: a token's whole way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use obol_ipc::names::ToolName;
use serde_json::json;

use obol_world::home::{self, command};
use obol_world::tqs::Tqs;

pub(crate) const AUDIENCE: &str = "https://api.example";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `obol rs`, killed when dropped.
pub(crate) struct Rs {
    child: Child,
    address: SocketAddr,
}

impl Rs {
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        let log = home.join("rs.log");
        let file = std::fs::File::create(&log).unwrap();
        let child = command(home)
            .args(["rs", "--sessions", "rs-sessions.json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        let mut rs = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            // The log may be read in the middle of a line.
            let line = text.split_once("listening address=").and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((line, _)) = line {
                rs.address = line.split_whitespace().next().unwrap().parse().unwrap();
                return rs;
            }
            assert!(rs.child.try_wait().unwrap().is_none() && Instant::now() < deadline, "obol rs: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status of one verification.
    pub(crate) fn verify(&self, token: &str, tool: &str) -> u16 {
        let body = json!({"token": token, "tool": tool}).to_string();
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Rs {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

pub(crate) fn create_session(home: &Path) {
    let created = command(home)
        .args(["session", "create", "--audience", AUDIENCE, "--tool", "search", "--tool", "pay"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
}

pub(crate) fn draw(tqs: &Tqs, tool: &str) -> String {
    let drawn = tqs.client().dequeue_token(&ToolName::new(tool).unwrap(), PATIENCE).unwrap();
    drawn.token.expose().to_owned()
}

#[test]
fn a_drawn_token_is_accepted_once_when_64_clients_present_it_at_the_same_moment() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let rs = Rs::start(home.path(), &["--first-start"]);
    for _ in 0..5 {
        let token = draw(&tqs, "search");
        let gate = std::sync::Barrier::new(64);
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..64)
                .map(|_| {
                    scope.spawn(|| {
                        gate.wait();
                        rs.verify(&token, "search")
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 401).count(), 63, "{answers:?}");
    }
}

#[test]
fn a_spent_token_stays_spent_when_the_resource_server_is_killed() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let mut spent = Vec::<String>::new();
    for first in [&["--first-start"][..], &[], &[]] {
        let rs = Rs::start(home.path(), first);
        for token in &spent {
            assert_eq!(rs.verify(token, "search"), 401, "accepted again after a kill");
        }
        for _ in 0..5 {
            let token = draw(&tqs, "search");
            assert_eq!(rs.verify(&token, "search"), 200);
            spent.push(token);
        }
    }
}

#[test]
fn a_lost_file_of_spent_tokens_accepts_nothing_from_before() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let token = draw(&tqs, "search");
    {
        let rs = Rs::start(home.path(), &["--first-start"]);
        assert_eq!(rs.verify(&token, "search"), 200);
    }
    std::fs::remove_file(home.path().join(".local/state/obol/spent.redb")).unwrap();
    let rs = Rs::start(home.path(), &[]);
    assert_eq!(rs.verify(&token, "search"), 401, "the mark is gone, so the fence must hold");
}

#[test]
fn a_session_revoked_at_the_resource_server_stops_tokens_in_flight() {
    let home = home::home();
    create_session(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let rs = Rs::start(home.path(), &["--first-start"]);
    let (before, after) = (draw(&tqs, "pay"), draw(&tqs, "pay"));
    assert_eq!(rs.verify(&before, "search"), 403, "for another tool");
    assert_eq!(rs.verify(&before, "pay"), 200);
    let file = home.path().join("rs-sessions.json");
    let sessions = std::fs::read_to_string(&file).unwrap();
    let revoked = sessions.replace("\"suite\": 1", "\"suite\": 1, \"status\": \"revoked\"");
    std::fs::write(&file, revoked).unwrap();
    let hangup =
        std::process::Command::new("kill").args(["-HUP", &rs.child.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(home.path().join("rs.log")).unwrap().contains("sessions read again") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rs.verify(&after, "pay"), 401);
}
