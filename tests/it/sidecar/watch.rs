//! What those who watch over the daemon see: HTTP, the service manager, and settings that are read again.

use core::time::Duration;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use obol_ipc::control::FlushScope;
use obol_ipc::names::Reason;
use obol_world::halves::AgentSession;
use obol_world::home::{self, obol, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::json;

use super::{PATIENCE, Raw, ask, get, start, start_as, tool};

#[test]
fn readiness_follows_the_session_without_delay() {
    let home = home::home();
    let tqs = Tqs::start(home.path(), &[]);
    assert_eq!(get(home.path(), "/livez").0, 200);
    assert_eq!(
        get(home.path(), "/readyz"),
        (503, "not ready: no session is active; authenticate, or provision a session\n".to_owned())
    );
    let world = AgentSession::new(1, now(), &["search"]);
    home::write_private(&home.path().join("session.json"), &world.agent_json().to_string());
    let given = home::command(home.path()).args(["session", "provision", "session.json"]).output().unwrap();
    assert!(given.status.success(), "{given:?}");
    assert_eq!(get(home.path(), "/readyz"), (200, "ready\n".to_owned()));
    tqs.control().flush(FlushScope::All, Reason::new("test").unwrap()).unwrap();
    let (status, why) = get(home.path(), "/readyz");
    assert!(status == 503 && why.contains("flush"), "{why}");
    assert_eq!(get(home.path(), "/livez").0, 200, "alive all the same");
}

#[test]
fn a_socket_that_is_lost_for_good_makes_the_daemon_not_ready() {
    let home = home::home();
    let tqs = start_as(home.path(), &["--http", "127.0.0.1:0"], |_| {});
    tqs.wait_for_log("serving /livez");
    let log = tqs.log();
    let address = log.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let ready = || ask(TcpStream::connect(&address).unwrap(), "GET /readyz");
    assert_eq!(ready().0, 200);
    fs::remove_dir_all(home.path().join("run/obol")).unwrap();
    wait_until("the daemon sees that its sockets are gone", || ready().0 == 503);
    assert!(ready().1.contains("socket"), "{:?}", ready());
}

#[test]
fn metrics_count_what_happened_and_name_no_token_session_or_person() {
    let home = home::home();
    let tqs = start(home.path());
    let mut agent = Raw::greeted(home.path(), "agent.sock");
    for _ in 0..3 {
        agent.call("dequeueToken", json!({"tool": "search", "waitMs": 10_000}));
    }
    agent.call("dequeueToken", json!({"tool": "unheard_of"}));
    tqs.control().flush(FlushScope::Tool(tool("pay")), Reason::new("test").unwrap()).unwrap();
    let (status, text) = get(home.path(), "/metrics");
    assert_eq!(status, 200);
    for line in [
        "obol_tokens_handed_out_total{tool=\"search\"} 3",
        "obol_requests_total{outcome=\"OK\"} 3",
        "obol_requests_total{outcome=\"POLICY_DENY\"} 1",
        "obol_flushes_total 1",
        "obol_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("obol_") && value.parse::<f64>().is_ok(), "{line}");
    }
    for secret in ["agent-1", "0000000000000001", "api.example", "IK:1"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[test]
fn the_http_listener_serves_its_own_user_on_this_machine_and_nothing_else() {
    let home = home::home();
    let _tqs = start(home.path());
    let connect = || UnixStream::connect(home.path().join("run/obol/http.sock")).unwrap();
    assert_eq!(ask(connect(), "POST /metrics").0, 405);
    assert_eq!(get(home.path(), "/").0, 404);
    assert_eq!(ask(connect(), &format!("GET /{}", "x".repeat(100_000))).0 / 100, 4);
    let mut remote = home::command(home.path());
    let refused = remote.args(["tqs", "--socket", "run/other.sock", "--http", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not a loopback address"), "{refused:?}");
}

#[test]
fn a_reload_changes_limits_under_open_connections_and_a_bad_file_changes_nothing() {
    let home = home::home();
    let (config, folder) = (home.path().join("etc/obol.toml"), home.path().join("etc"));
    fs::create_dir(&folder).unwrap();
    fs::write(&config, "[tqs]\nconnection_rate = 10\n").unwrap();
    // As editors do it: another file under the same name. One that is written over is empty for a moment.
    let replace = |text: &str| {
        fs::write(folder.join("new"), text).unwrap();
        fs::rename(folder.join("new"), &config).unwrap();
    };
    let tqs = start_as(home.path(), &["--config", config.to_str().unwrap()], |_| {});
    let mut agent = Raw::greeted(home.path(), "agent.sock");
    let refused = |agent: &mut Raw| {
        let mut refused = |_| agent.call("sessionInfo", json!({}))["error"]["data"]["code"] == "OVERLOADED";
        (0..200).filter(|number: &i32| refused(*number)).count()
    };
    assert!(refused(&mut agent) > 0);

    replace("[tqs]\nconnection_rate = 0\nmax_depth = 7\n[log]\nlevel = \"debug\"\n");
    tqs.signal("HUP");
    tqs.wait_for_log("settings were read again");
    assert_eq!(refused(&mut agent), 0, "the same connection, without a limit");
    assert!(tqs.log().contains("they wait for a restart"));

    replace("[tqs]\nconnection_rate = -5\n");
    tqs.signal("HUP");
    tqs.wait_for_log("the previous settings stay in force");
    assert_eq!(refused(&mut agent), 0);

    let next = AgentSession::new(2, now(), &["search"]);
    home::write_private(&home.path().join("session.json"), &next.agent_json().to_string());
    replace("[log]\nlevel = \"error\"\n");
    tqs.signal("HUP");
    wait_until("the new session is in use", || {
        tqs.client().session_info().is_ok_and(|session| session.session_id.as_u64() == 2)
    });
    let before = tqs.log().len();
    tqs.signal("HUP");
    replace("nonsense");
    tqs.signal("HUP");
    wait_until("the level holds: only errors are logged", || tqs.log().len() > before);
    assert!(!tqs.log()[before..].contains("INFO"), "{}", &tqs.log()[before..]);
}

#[test]
fn a_service_manager_hears_when_the_daemon_is_ready_alive_and_stopping() {
    let home = home::home();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = |expected: &str| {
        let mut heard = String::new();
        while !heard.contains(expected) {
            let mut buffer = [0; 512];
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {expected}: {error}"));
            heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
        heard
    };
    let tqs = start_as(home.path(), &[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    tqs.signal("HUP");
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    // A daemon that hangs falls silent: it is its own loop that speaks.
    tqs.signal("STOP");
    while manager.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && manager.recv(&mut [0; 512]).is_ok()
    {}
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tqs.signal("CONT");
    hear("WATCHDOG=1");
    assert_eq!(tqs.terminate(), Some(0));
    hear("STOPPING=1");
}

#[test]
fn sockets_that_the_service_manager_bound_are_served() {
    let home = home::home();
    let mut private = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut private, 0o700).create(home.path().join("run/obol")).unwrap();
    let script = "import os, socket, sys\n\
                  for fd, path in enumerate(sys.argv[1:3], 10):\n\
                  \ts = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(64); os.dup2(s.fileno(), fd)\n\
                  os.dup2(10, 3); os.dup2(11, 4)\n\
                  os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='agent:control')\n\
                  os.execv(sys.argv[3], sys.argv[3:])\n";
    let session = home.path().join("session.json");
    home::write_private(&session, &AgentSession::new(1, now(), &["search"]).agent_json().to_string());
    let sockets = ["agent.sock", "control.sock"].map(|name| home.path().join("run/obol").join(name));
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(&sockets).arg(obol()).args(["tqs", "--session", "session.json"]);
    command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path().join("run")).current_dir(home.path());
    let tqs = Tqs::run(home.path(), command);
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    tqs.control().health().unwrap();
    assert_eq!(tqs.terminate(), Some(0));
    assert!(sockets.iter().all(|path| path.exists()), "the manager's sockets are the manager's");
}

/// What is laid out from it is checked by systemd itself in `install`.
#[test]
fn the_unit_relies_on_what_it_promises() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../server/sidecar/systemd"));
    let text = fs::read_to_string(folder.join("obol-tqs.service")).unwrap();
    for directive in
        ["Type=notify", "WatchdogSec=", "LoadCredential=", "NoNewPrivileges=yes", "ProtectSystem=strict"]
    {
        assert!(text.contains(directive), "{directive}");
    }
}
