//! Whom a proxy is for: the agents' users, and no other user, web page or machine.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use obol_world::home::{PATIENCE, command, home};

use super::{Here, request};
use crate::sidecar::two_users::{AGENT, STRANGER, as_user, can_switch_users};

/// An answer over a Unix socket; empty if there is none.
fn over(socket: &Path, line: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _refused = stream.write_all(request(line, "", "").as_bytes());
    let mut answer = String::new();
    let _cut = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn another_user_gets_no_token_and_those_who_are_named_do() {
    if !can_switch_users() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let socket = folder.path().join("door/proxy.sock");
    let (user, path) = (AGENT.to_string(), socket.display().to_string());
    let here = Here::start(&["--agent-user", &user, "--unix", &path]);
    let line = "GET /saas/v1/search/a";
    let before = here.world.drawn("search");

    let refused = as_user(STRANGER, STRANGER, || here.ask(line, "", ""));
    assert_eq!(refused.problem(), (403, "USER_NOT_SERVED".to_owned(), String::new()));
    assert!(refused.text().contains(&STRANGER.to_string()), "{}", refused.text());
    // In the agent's group, which is not what was named.
    assert_eq!(as_user(STRANGER, AGENT, || here.ask(line, "", "")).status, 403);
    assert_eq!(as_user(STRANGER, STRANGER, || over(&socket, line)), "");
    assert_eq!((here.world.count(), here.world.drawn("search")), (0, before), "{}", here.log());

    let own = here.ask(line, "", "");
    assert_eq!(own.status, 200, "{} {}", own.text(), here.log());
    assert_eq!(as_user(AGENT, AGENT, || here.ask(line, "", "")).status, 200);
    assert!(as_user(AGENT, AGENT, || over(&socket, line)).starts_with("HTTP/1.1 200 "), "{}", here.log());
    assert!(over(&socket, line).starts_with("HTTP/1.1 200 "));
    assert_eq!((here.world.count(), here.world.drawn("search")), (4, before + 4));
}

#[test]
fn a_web_page_gets_no_token() {
    let here = Here::start(&[]);
    let before = here.world.drawn("search");
    let ask = |host: &str, more: &str| {
        let request = request("GET /saas/v1/search/a", more, "");
        crate::resource::send(here.at(), request.replace("Host: localhost", &format!("Host: {host}")))
    };
    for (host, more) in [
        ("evil.example", ""),
        ("evil.example:8740", ""),
        ("127.0.0.1.evil.example", ""),
        ("localhost", "Origin: https://evil.example\r\n"),
        ("localhost", "Origin: null\r\n"),
        ("localhost", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"),
    ] {
        let refused = ask(host, more);
        assert_eq!(refused.problem().1, "FOREIGN_HOST", "{host} {more}");
    }
    assert_eq!((here.world.count(), here.world.drawn("search")), (0, before));
    for host in ["localhost", "127.0.0.1:8740", "[::1]"] {
        assert_eq!(ask(host, "Origin: http://localhost:3000\r\n").status, 200, "{host}");
    }
}

#[test]
fn an_address_that_other_machines_reach_is_not_served() {
    let home = home();
    let started = command(home.path()).args(["proxy", "--listen", "0.0.0.0:0"]).output().unwrap();
    let told = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && told.contains("127.0.0.1"), "{told}");
    for (arguments, says) in [
        (&["--agent-user", "root"][..], "--agent-user"),
        (&["--agent-user", "no-such-user"], "no-such-user"),
        (&["--to", "saas"], "NAME=URL"),
        (&["--to", "saas=http://saas.example"], "saas.example"),
    ] {
        let started = command(home.path()).arg("proxy").args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(started.status.code() == Some(2) && told.contains(says), "{arguments:?}: {told}");
    }
}
