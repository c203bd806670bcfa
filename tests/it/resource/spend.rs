//! `POST /v1/spend` over real sockets: identifiers of other protocols are spent once, whoever asks, and whoever is killed.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use obol_world::home::{command, home, write_private};
use obol_world::http::Http;
use obol_world::now;
use obol_world::redis::RedisServer;
use obol_world::rs::{RsProcess, write_sessions};
use serde_json::{Value, json};

use super::PATIENCE;
use crate::sidecar::two_users::{AGENT, STRANGER, as_user, can_switch_users};

/// A server with a socket for identifiers, and where that is.
fn start(home: &Path, name: &str, arguments: &[&str]) -> (RsProcess, PathBuf) {
    write_sessions(home, now());
    let socket = home.join(name).join("spend.sock");
    let own = ["--spend-socket", socket.to_str().unwrap()];
    (RsProcess::start(home, &[&own, arguments].concat()), socket)
}

/// Status and body of the answer; `None` where none came.
fn post(socket: &Path, body: &str) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let request = format!(
        "POST /v1/spend HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

fn asked(id: &str) -> Value {
    json!({"issuer": "https://as.example", "id": id, "expires": now() + 300, "issued": now()})
}

/// `OK`, or the code of the refusal.
fn spend(socket: &Path, asked: &Value) -> String {
    let Some((status, answer)) = post(socket, &asked.to_string()) else { return "no answer".to_owned() };
    assert_eq!(status == 200, answer == json!({"ok": true}), "{answer}");
    if status == 200 { "OK".to_owned() } else { answer["code"].as_str().unwrap().to_owned() }
}

#[test]
fn an_identifier_is_spent_once_and_each_issuer_has_its_own() {
    let home = home();
    let (rs, socket) = start(home.path(), "spend", &["--first-start"]);
    assert_eq!(spend(&socket, &asked("a")), "OK");
    assert_eq!(spend(&socket, &asked("a")), "ALREADY_SPENT");
    let mut again = asked("a");
    again["expires"] = json!(now() + 900);
    assert_eq!(spend(&socket, &again), "ALREADY_SPENT", "whatever its end is said to be");
    let mut other = asked("a");
    other["issuer"] = json!("https://other.example");
    assert_eq!(spend(&socket, &other), "OK");
    let mut old = asked("old");
    (old["issued"], old["expires"]) = (json!(now() - 500), json!(now() - 120));
    assert_eq!(spend(&socket, &old), "NOT_REMEMBERED");
    assert_eq!(rs.metric("obol_identifiers_total{outcome=\"first\"}"), 2);
    assert_eq!(rs.metric("obol_identifiers_total{outcome=\"again\"}"), 2);
    // On the port there is no such route.
    let request = "POST /v1/spend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(Http::new(rs.port()).exchange(request).unwrap().0, 404);
}

#[test]
fn what_cannot_be_read_one_way_only_or_lives_too_long_is_refused_in_words() {
    let home = home();
    let (_rs, socket) = start(home.path(), "spend", &["--first-start"]);
    let long = "x".repeat(5_000);
    for (body, says) in [
        ("no json".to_owned(), "line 1"),
        (format!(r#"{{"issuer":"a","id":"b","id":"c","expires":{}}}"#, now()), "id"),
        (format!(r#"{{"issuer":"a","id":"b","expires":{},"more":1}}"#, now()), "more"),
        (format!(r#"{{"issuer":"a","id":"{long}","expires":{}}}"#, now()), "4096"),
        (format!(r#"{{"issuer":"a","id":"b","expires":{}}}"#, now() + 100_000), "86400"),
        (r#"{"issuer":"a","id":"b"}"#.to_owned(), "expires"),
        (" ".repeat(20_000), "16384"),
    ] {
        let (status, answer) = post(&socket, &body).unwrap();
        assert_eq!((status, &answer["code"]), (400, &json!("MALFORMED_REQUEST")), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(says), "{says}: {answer}");
    }
}

#[test]
fn what_was_spent_stays_spent_through_kill_dash_nine() {
    let home = home();
    let (mut rs, socket) = start(home.path(), "spend", &["--first-start"]);
    for round in 0..3 {
        let ids: Vec<Value> = (0..20).map(|number| asked(&format!("{round}-{number}"))).collect();
        let barrier = Barrier::new(2);
        let spent: Vec<bool> = std::thread::scope(|scope| {
            let (ids, socket, barrier) = (&ids, &socket, &barrier);
            let asking = scope.spawn(move || {
                let spend_one = |(number, id): (usize, &Value)| {
                    if number == 5 {
                        barrier.wait();
                    }
                    spend(socket, id) == "OK"
                };
                ids.iter().enumerate().map(spend_one).collect()
            });
            barrier.wait();
            rs.kill();
            asking.join().unwrap()
        });
        assert!(spent[..5].iter().all(|spent| *spent));
        rs.start_again();
        for (id, spent) in ids.iter().zip(spent) {
            let again = spend(&socket, id);
            assert!(!spent || again == "ALREADY_SPENT", "{id}: {again}");
        }
        assert!(ids.iter().all(|id| spend(&socket, id) == "ALREADY_SPENT"));
    }
}

#[test]
fn a_server_that_may_have_forgotten_spends_nothing_as_old_as_that() {
    let home = home();
    let (_rs, socket) = start(home.path(), "spend", &["--spent", "memory"]);
    assert_eq!(spend(&socket, &asked("a")), "NOT_REMEMBERED");
    let unsaid = json!({"issuer": "a", "id": "b", "expires": now() + 300});
    assert_eq!(spend(&socket, &unsaid), "NOT_REMEMBERED", "it may be as old as may be");
}

#[test]
fn three_servers_on_one_redis_spend_an_identifier_once_also_when_one_is_killed() {
    const IDS: usize = 40;
    let mut redis = RedisServer::start(&[]);
    let home = home();
    let url = redis.url();
    let mut servers: Vec<_> =
        ["a", "b", "c"].map(|name| start(home.path(), name, &["--spent", &url, "--first-start"])).into();
    let ids: Vec<Value> = (0..IDS).map(|number| asked(&number.to_string())).collect();
    let (first, others) = servers.split_first_mut().unwrap();
    let sockets: Vec<&Path> =
        core::iter::once(&*first).chain(&*others).map(|(_, socket)| socket.as_path()).collect();
    let sockets: Vec<PathBuf> = sockets.into_iter().map(Path::to_owned).collect();
    let barrier = Barrier::new(sockets.len() + 1);
    let accepted: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let ask = |socket: &PathBuf| {
            let (socket, ids, barrier) = (socket.clone(), &ids, &barrier);
            scope.spawn(move || {
                let spend_one = |(number, id): (usize, &Value)| {
                    if number == IDS / 2 {
                        barrier.wait();
                    }
                    spend(&socket, id) == "OK"
                };
                ids.iter().enumerate().map(spend_one).collect()
            })
        };
        let asking: Vec<_> = sockets.iter().map(ask).collect();
        barrier.wait();
        first.0.kill();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, id) in ids.iter().enumerate() {
        let times = accepted.iter().filter(|accepted| accepted[number]).count();
        assert!(times <= 1, "{id} {times} times");
        assert!(number >= IDS / 2 || times == 1, "{id} was spent by nobody");
        assert_eq!(spend(&sockets[1], id), "ALREADY_SPENT", "{id}");
    }
    redis.kill();
    let refused = spend(&sockets[1], &asked("new"));
    assert_eq!(refused, "UNAVAILABLE", "it does not fail open");
}

#[test]
fn only_users_that_were_named_reach_the_socket() {
    if !can_switch_users() {
        return;
    }
    let home = home();
    fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
    fs::write(home.path().join("obol.toml"), format!("[rs]\nspend_users = [{AGENT}]\n")).unwrap();
    let config = home.path().join("obol.toml");
    let (_rs, socket) = start(home.path(), "spend", &["--first-start", "--config", config.to_str().unwrap()]);
    assert_eq!(as_user(STRANGER, STRANGER, || post(&socket, &asked("a").to_string())), None);
    assert_eq!(as_user(AGENT, AGENT, || spend(&socket, &asked("a"))), "OK");
    assert_eq!(spend(&socket, &asked("a")), "ALREADY_SPENT", "the server's own user");
}

#[test]
fn users_and_folders_that_do_not_fit_the_socket_are_told_in_its_own_words() {
    let home = home();
    write_sessions(home.path(), now());
    let folder = home.path().join("spend");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let socket = folder.join("spend.sock");
    for (users, says) in [
        ("[54001]", "chmod 711"),
        ("[\"@54001\"]", "chgrp 54001"),
        ("[]", "is empty"),
        ("[\"root\"]", "which may spend anyway"),
        ("[\"no-such-user\"]", "no-such-user"),
    ] {
        write_private(&home.path().join("obol.toml"), &format!("[rs]\nspend_users = {users}\n"));
        let mut server = command(home.path());
        server.args(["--config", "obol.toml", "rs", "--listen", "127.0.0.1:0", "--first-start"]);
        let output =
            server.args(["--sessions", "sessions.json", "--spend-socket"]).arg(&socket).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{users}: {says}: {said}");
        assert!(!said.contains("agent") && !said.contains("sidecar"), "{said}");
        assert!(!socket.exists());
    }
}
