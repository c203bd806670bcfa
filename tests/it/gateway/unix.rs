//! The gateway's Unix socket: the same tokens and routes, for those who may connect.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use obol_world::home::{PATIENCE, command, home, wait_until};

use super::{SECRET, World, file};
use crate::cli::install::Machine;
use crate::sidecar::two_users::{AGENT, STRANGER, as_user, can_switch_users};

/// A folder through which other users come, and the socket in it.
fn door() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    let socket = folder.path().join("door/gateway.sock");
    (folder, socket)
}

fn world(socket: &Path, more: &[&str]) -> World {
    let socket = socket.display().to_string();
    World::with(&[&["--unix", &socket], more].concat(), |_, api| file(api))
}

/// What comes back over the socket; empty where nothing does.
fn over(socket: &Path, line: &str, token: &str, more: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _refused = write!(
        stream,
        "{line} HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: TBAC {token}\r\nConnection: close\r\n{more}\r\n"
    );
    let mut answer = String::new();
    let _cut = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_token_is_good_once_over_the_socket_and_the_port_together() {
    let (_folder, socket) = door();
    let mut world = world(&socket, &[]);
    let token = world.token("search");
    let line = "GET /saas/v1/search/a";
    let answer = over(&socket, line, &token, "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains(SECRET), "{answer} {}", world.log());
    assert_eq!(world.ask(line, &token, "", "").problem().1, "TOKEN_REPLAYED");
    let other = world.token("search");
    assert_eq!(world.ask(line, &other, "", "").status, 200);
    assert!(over(&socket, line, &other, "").contains("TOKEN_REPLAYED"));
    let fresh = world.token("search");
    for (line, more, says) in [
        ("GET /saas/v1/admin", "", "NOT_FOUND"),
        ("DELETE /saas/v1/search/a", "", "METHOD_NOT_ALLOWED"),
        (
            "POST /saas/v1/search/a",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "MALFORMED_REQUEST",
        ),
        ("POST /saas/v1/search/a", "Content-Length: 0\r\nContent-Length: 5\r\n", "MALFORMED_REQUEST"),
    ] {
        let answer = over(&socket, line, &fresh, more);
        assert!(answer.contains(says), "{line} {more}: {answer}");
    }
    assert_eq!(world.count(), 2);
    assert!(over(&socket, line, &fresh, "").starts_with("HTTP/1.1 200 "), "what was refused spent nothing");

    let child = world.child.as_mut().unwrap();
    let asked = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    let mut ended = None;
    wait_until("the gateway ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert!(asked.success() && ended.unwrap().success(), "{}", world.log());
    assert!(!socket.exists(), "it is removed at the end");
}

#[test]
fn who_may_not_connect_gets_nothing_and_who_is_named_may() {
    if !can_switch_users() {
        return;
    }
    let (_folder, socket) = door();
    let world = world(&socket, &["--agent-user", &AGENT.to_string()]);
    let (line, token) = ("GET /saas/v1/search/a", world.token("search"));
    assert_eq!(as_user(STRANGER, STRANGER, || over(&socket, line, &token, "")), "");
    assert_eq!(world.count(), 0);
    let served = as_user(AGENT, AGENT, || over(&socket, line, &token, ""));
    assert!(served.starts_with("HTTP/1.1 200 "), "{served} {}", world.log());
    assert_eq!(world.count(), 1);
}

#[test]
fn with_a_socket_and_no_listen_there_is_no_port() {
    let (_folder, socket) = door();
    let mut world = world(&socket, &[]);
    world.kill();
    let mut gateway = command(world.home());
    gateway.args(["gateway", "--apis", "apis", "--sessions", "rs-sessions.json", "--unix"]).arg(&socket);
    let log = std::fs::File::create(world.log_file()).unwrap();
    let child = gateway.stderr(log).spawn().unwrap();
    let pid = child.id();
    world.child = Some(child);
    let token = world.token("search");
    wait_until("the socket is served", || UnixStream::connect(&socket).is_ok());
    let answer = over(&socket, "GET /saas/v1/search/a", &token, "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer} {}", world.log());
    assert!(!listens(pid), "{}", world.log());

    let told = command(home().path()).args(["gateway", "--agent-user", "1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("--unix"), "{told:?}");
}

/// The user of an agent, which need not be there.
const BUILDER: &str = "54002";

#[test]
fn a_gateway_starts_with_a_socket_for_agents_in_the_folder_that_the_installer_lays_out_and_in_no_operators() {
    let machine = Machine::new();
    let pin = format!("https://as.example#{}", "ab".repeat(32));
    let install = ["install", "--role", "gateway", "--audience", "https://gateway.example", "--as", &pin];
    machine.says(&install);
    let (unit, folders) = (
        machine.text("etc/systemd/system/obol-gateway.service"),
        machine.text("etc/tmpfiles.d/obol-gateway.conf"),
    );
    let place = "run/obol-gateway-agents";
    assert!(unit.lines().any(|line| line == format!("ReadWritePaths=-/{place}")), "{unit}");
    assert!(
        unit.lines().any(|line| line == "RuntimeDirectoryMode=0700"),
        "the operator's stays closed: {unit}"
    );
    let told = include_str!("../../../docs/gateway.md");
    assert!(told.contains(&format!("--unix /{place}/gateway.sock --agent-user ")), "what is documented");
    let made = folders.lines().find_map(|line| line.strip_prefix(&format!("d /{place} "))).unwrap();
    let mode = made.strip_suffix(" obol-gateway obol-gateway -").unwrap();
    for (folder, mode) in [(place, mode), ("run/obol-gateway", "0700")] {
        let (folder, mode) = (machine.at(folder), u32::from_str_radix(mode, 8).unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    }

    let socket = machine.at(place).join("gateway.sock");
    let mut world = world(&socket, &["--agent-user", BUILDER]);
    wait_until("the socket is served", || UnixStream::connect(&socket).is_ok());
    let answer = over(&socket, "GET /saas/v1/search/a", &world.token("search"), "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer} {}", world.log());
    world.kill();
    // For control: the folder of the operator's socket lets nobody through.
    let closed = machine.at("run/obol-gateway/gateway.sock");
    let mut gateway = command(world.home());
    gateway.args([
        "gateway",
        "--apis",
        "apis",
        "--sessions",
        "rs-sessions.json",
        "--agent-user",
        BUILDER,
        "--unix",
    ]);
    let refused = gateway.arg(&closed).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("chmod 711"), "{refused:?}");

    assert!(socket.exists(), "it was killed, and left it");
    machine.says(&["uninstall", "--role", "gateway"]);
    assert!(!machine.at(place).exists() && machine.files().is_empty(), "{:?}", machine.files());
}

/// Whether a process listens on a TCP port: one of its descriptors is a socket in that state.
fn listens(pid: u32) -> bool {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let inodes: Vec<String> = std::fs::read_dir(folder.join("fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!inodes.is_empty(), "the socket at least");
    ["net/tcp", "net/tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(folder.join(table)).unwrap();
        table.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(3) == Some(&"0A")
                && fields.get(9).is_some_and(|inode| inodes.iter().any(|own| own == inode))
        })
    })
}
