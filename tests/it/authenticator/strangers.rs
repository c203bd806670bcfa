//! Who is not meant to be on the authenticator's socket, and who speaks nonsense there.

use core::time::Duration;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use obol_client::{AuthClient, ConnectError};
use obol_ipc::Endpoint;
use obol_ipc::auth::AuthState;
use obol_ipc::hello::HelloError;
use obol_world::home::{self, obol};
use obol_world::tqs::Tqs;

use super::{Authenticator, World, auth_socket, options};
use crate::sidecar::Raw;
use crate::sidecar::two_users::{AGENT, OPERATOR, STRANGER, as_user, can_switch_users};

/// Sidecar and authenticator of the operator's, for another user's agents.
fn of_two_users(world: &World) -> (Tqs, Authenticator) {
    let at = |path: &str| world.path().join(path);
    fs::copy(obol(), at("obol")).unwrap();
    fs::create_dir(at("own")).unwrap();
    for path in ["own", "run"] {
        chown(at(path), Some(OPERATOR), Some(OPERATOR)).unwrap();
    }
    for (path, mode) in [("", 0o711), ("obol", 0o755), ("own", 0o700), ("run", 0o711)] {
        fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    }
    let command = |role: &str| {
        let mut command = Command::new(at("obol"));
        command.arg(role).current_dir(at("own")).uid(OPERATOR).gid(OPERATOR);
        command.env_clear().env("HOME", at("own")).env("XDG_RUNTIME_DIR", at("run"));
        command.env("OBOL_TQS__AGENT_USERS", AGENT.to_string());
        command
    };
    let tqs = Tqs::spawn_command(&mut command("tqs"), world.path());
    tqs.wait_for_log("listening");
    let mut authenticator = command("authenticator");
    authenticator.args(["--url", &world.pinned()]);
    (tqs, Authenticator::run(world.path(), &mut authenticator))
}

fn connect(path: &Path) -> Result<AuthClient, ConnectError> {
    AuthClient::connect(Endpoint::at(path).unwrap().of_user(OPERATOR), options())
}

#[test]
fn the_agents_user_may_ask_and_sees_no_file_and_a_stranger_is_turned_away() {
    if !can_switch_users() {
        return;
    }
    let world = World::new(900);
    let (_tqs, _authenticator) = of_two_users(&world);
    let socket = auth_socket(world.path());
    let status = as_user(AGENT, AGENT, || connect(&socket).unwrap().auth_status().unwrap());
    assert_eq!((status.state, status.uid), (AuthState::Unregistered, OPERATOR));
    let refused = as_user(STRANGER, STRANGER, || connect(&socket).unwrap_err());
    let ConnectError::Hello(HelloError::Refused { code, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(code, "USER_NOT_SERVED");
    // What the socket is for is all that an agent has of it.
    let folder = world.path().join("own/.local/state/obol/authenticator");
    for name in ["agent.identity", "identity.key"] {
        assert!(fs::metadata(folder.join(name)).is_ok(), "the control: it is there");
        for user in [AGENT, STRANGER] {
            assert!(as_user(user, user, || fs::read(folder.join(name))).is_err(), "{name}");
        }
    }
    for name in ["control.sock", "auth-http.sock"] {
        let path = world.path().join("run/obol").join(name);
        assert!(as_user(AGENT, AGENT, || UnixStream::connect(&path)).is_err(), "{name}");
    }
    let asked = as_user(AGENT, AGENT, || {
        let name = Some(obol_ipc::names::WishedName::new("builder").unwrap());
        let roles = vec![obol_ipc::names::WishedName::new("dev").unwrap()];
        connect(&socket)
            .unwrap()
            .register(obol_ipc::auth::RegisterParams { name, roles, ..Default::default() })
            .unwrap()
    });
    world.approve(&asked.code.unwrap(), &asked.words);
    let session = as_user(AGENT, AGENT, || {
        let mut client = connect(&socket).unwrap();
        let mut session = client.ensure_authenticated();
        for _ in 0..50 {
            if session.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
            session = client.ensure_authenticated();
        }
        session.unwrap()
    });
    assert_eq!(session.agent_instance_id.as_str(), world.agent().id.to_string());
}

#[test]
fn the_sandbox_reaches_the_services_port_and_binds_none_of_its_choice_on_every_thread() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let authenticator = world.authenticator();
    // It works from inside: names, the service, its files, the sidecar's socket.
    world.register();
    let log = authenticator.log();
    let port = world.address.port();
    // On port 0: one that the system chooses, where a browser on this machine brings a human's yes.
    assert!(log.contains(&format!("TCP, listening on 0, connecting to {port}")), "{log}");
    assert!(log.contains("seccomp"), "{log}");
    let pid = world.status().pid;
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(Result::unwrap).collect();
    assert!(threads.len() > 1, "threads that may wait were there");
    for thread in threads {
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "Umask:\t0077"] {
            assert!(status.contains(line), "{line}: {status}");
        }
    }
    let other = World::new(900);
    let off = Authenticator::start(other.path(), &["--url", &other.pinned(), "--no-sandbox"]);
    home::wait_until("it says so where there is none", || off.log().contains("the sandbox is switched off"));
}

/// What comes back for these bytes, up to the end of the connection or a pause.
fn answer(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // The other side may end it in the middle.
    let _cut_off = stream.write_all(bytes);
    let (mut answer, mut piece) = (Vec::new(), [0; 4_096]);
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..count]);
    }
    answer
}

#[test]
fn junk_and_crowds_on_the_socket_change_nothing() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let _authenticator = world.authenticator();
    world.register();
    let socket = auth_socket(world.path());
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let hello = frame(br#"{"obol":1,"codec":"json","client":"junk/1"}"#);
    let after_hello = |bytes: &[u8]| [&hello[..], bytes].concat();
    for junk in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 4_096],
        frame(b"{}"),
        frame(br#"{"obol":2,"codec":"json","client":"junk/1"}"#),
        after_hello(&[0; 4]),
        after_hello(&[0xff; 4]),
        after_hello(&frame(&[0x80; 65_536])),
        after_hello(&frame(b"[[[[")),
    ] {
        let told = String::from_utf8_lossy(&answer(&socket, &junk)).into_owned();
        assert!(!told.contains("K_session") && !told.contains("\"result\""), "{told}");
    }
    let mut raw = Raw::greeted(world.path(), "auth.sock");
    for (method, params) in [
        ("provision", serde_json::json!({})),
        ("dequeueToken", serde_json::json!({"tool": "search"})),
        ("flush", serde_json::json!({"scope": {"all": true}, "reason": "x"})),
        ("resume", serde_json::json!({})),
    ] {
        let refused = raw.call(method, params);
        assert_eq!(refused["error"]["data"]["code"], "METHOD_NOT_ALLOWED", "{refused}");
    }
    for params in
        [serde_json::json!({"name": "two words"}), serde_json::json!({"nmae": "x"}), serde_json::json!([])]
    {
        let refused = raw.call("register", params);
        assert_eq!(refused["error"]["data"]["code"], "INVALID_ARGUMENT", "{refused}");
    }
    // Many who ask at once get one session; many who only connect keep nobody out for good.
    let before = world.sessions().len();
    std::thread::sleep(Duration::from_secs(3));
    let sessions: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..40).map(|_| scope.spawn(|| world.auth().authenticate().unwrap().session_id)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(sessions.iter().all(|id| *id == sessions[0]), "{sessions:?}");
    assert_eq!(world.sessions().len(), before + 1);
    let crowd: Vec<_> = (0..600).map_while(|_| UnixStream::connect(&socket).ok()).collect();
    assert!(crowd.len() > 256, "only {}", crowd.len());
    drop(crowd);
    home::wait_until("it answers again", || {
        let at = Endpoint::at(&socket).unwrap();
        AuthClient::connect(at, options()).is_ok_and(|mut client| client.auth_status().is_ok())
    });
}

#[test]
fn two_authenticators_do_not_share_an_identity() {
    let world = World::new(900);
    let _authenticator = world.authenticator();
    let url = world.pinned();
    let second = world.obol(&[
        "authenticator",
        "--url",
        &url,
        "--auth-socket",
        "run/other/auth.sock",
        "--http",
        "off",
    ]);
    assert_eq!(second.status.code(), Some(4), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another authenticator"), "{second:?}");
}
