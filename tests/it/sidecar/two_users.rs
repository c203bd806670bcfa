//! Sidecar and agents as different users: what an agent of its own user gets, and what one that was hijacked does not.
//!
//! The users are real: a thread of this test takes another user's number, and what it opens or connects to is asked for in
//! that user's name. Only root can do that.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use obol_client::ConnectError;
use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::control::{FlushScope, StatusResult};
use obol_ipc::hello::HelloError;
use obol_ipc::names::{PeerName, Reason};
use obol_world::home::{self, obol, wait_until};
use obol_world::tqs::{self, Tqs};
use rustix::process::{Gid, Uid};

use crate::end_to_end::{Rs, create_session};
use crate::sidecar::{PATIENCE, tool};

pub(crate) const OPERATOR: u32 = 54_001;
pub(crate) const AGENT: u32 = 54_002;
pub(crate) const STRANGER: u32 = 54_003;
const GROUP: u32 = 54_100;

/// Whether this test can be run; on screen if not.
pub(crate) fn can_switch_users() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can run processes of three users; run this test as root");
    }
    root
}

/// What a deed comes to when this user does it, in a group of the same number or in another.
pub(crate) fn as_user<T: Send>(uid: u32, gid: u32, deed: impl FnOnce() -> T + Send) -> T {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    thread::scope(|scope| {
        let done = scope.spawn(move || {
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            deed()
        });
        done.join().unwrap()
    })
}

fn options() -> ConnectOptions {
    ConnectOptions::new(PeerName::new("test/1").unwrap())
}

/// A sidecar of the operator's, with a session for two tools.
struct House {
    home: tempfile::TempDir,
    tqs: Tqs,
}

impl House {
    /// With these users as agents; `None` where agents are the operator.
    fn with(agent_users: Option<&str>) -> Self {
        Self::prepared(agent_users, OPERATOR, |_| {})
    }

    /// The same, in a group, after something was done in the home.
    fn prepared(agent_users: Option<&str>, group: u32, prepare: impl FnOnce(&Path)) -> Self {
        let home = home::home();
        let at = |path: &str| home.path().join(path);
        create_session(home.path());
        fs::copy(obol(), at("obol")).unwrap();
        fs::create_dir(at("own")).unwrap();
        fs::rename(at("agent-session.json"), at("own/session.json")).unwrap();
        for path in ["own", "own/session.json", "run"] {
            chown(at(path), Some(OPERATOR), Some(group)).unwrap();
        }
        for (path, mode) in [("", 0o711), ("obol", 0o755), ("own", 0o700), ("run", 0o711)] {
            fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
        }
        prepare(home.path());
        let mut daemon = Command::new(at("obol"));
        daemon.args(["tqs", "--session", "session.json"]).current_dir(at("own")).uid(OPERATOR).gid(group);
        daemon.env_clear().env("HOME", at("own")).env("XDG_RUNTIME_DIR", at("run"));
        daemon.envs(agent_users.map(|users| ("OBOL_TQS__AGENT_USERS", users)));
        let tqs = Tqs::spawn_command(&mut daemon, home.path());
        tqs.wait_for_log("listening");
        Self { home, tqs }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.home.path().join("run/obol").join(name)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.home.path().join("own/.local/state/obol").join(name)
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        Endpoint::at(self.socket(name)).unwrap().of_user(OPERATOR)
    }

    /// Draws one token; the refusal's text if there is none.
    fn draw(&self, name: &str) -> Result<String, String> {
        let mut client =
            Client::connect(self.endpoint("agent.sock"), options()).map_err(|e| e.to_string())?;
        let drawn = client.dequeue_token(&tool(name), PATIENCE).map_err(|error| error.to_string())?;
        Ok(drawn.token.expose().to_owned())
    }

    /// As the operator, on the operator's socket.
    fn operate<T: Send>(&self, act: impl FnOnce(&mut ControlClient) -> T + Send) -> T {
        as_user(OPERATOR, OPERATOR, || {
            act(&mut ControlClient::connect(self.endpoint("control.sock"), options()).unwrap())
        })
    }

    fn status(&self) -> StatusResult {
        self.operate(|control| control.status().unwrap())
    }

    /// A command of the binary, as this user.
    fn command(&self, uid: u32, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.home.path().join("obol"));
        command.args(arguments).env_clear().uid(uid).gid(uid).current_dir("/");
        for (variable, name) in
            [("OBOL_ENDPOINT_SOCKET", "agent.sock"), ("OBOL_CONTROL_SOCKET", "control.sock")]
        {
            command.env(variable, format!("unix://{}", self.socket(name).display()));
        }
        command.env("OBOL_ENDPOINT_USER", OPERATOR.to_string()).output().unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Kinds of errors, or none, in the order of the deeds.
fn reads(paths: &[PathBuf]) -> Vec<Option<ErrorKind>> {
    paths.iter().map(|path| fs::read(path).err().map(|error| error.kind())).collect()
}

#[test]
fn agents_of_another_user_draw_and_a_stranger_is_turned_away() {
    if !can_switch_users() {
        return;
    }
    let house = House::with(Some("54002"));
    for (name, wanted) in [("", 0o711), ("agent.sock", 0o666), ("control.sock", 0o600), ("http.sock", 0o600)]
    {
        assert_eq!(mode(&house.socket(name)), wanted, "{name}");
    }
    let first = as_user(AGENT, AGENT, || house.draw("search")).unwrap();
    assert_ne!(as_user(AGENT, AGENT, || house.draw("search")).unwrap(), first);
    as_user(OPERATOR, OPERATOR, || house.draw("search")).unwrap();
    as_user(0, 0, || house.draw("search")).unwrap();
    let refused = as_user(STRANGER, STRANGER, || Client::connect(house.endpoint("agent.sock"), options()));
    let ConnectError::Hello(HelloError::Refused { code, message }) = refused.unwrap_err() else {
        panic!("a stranger is turned away in words");
    };
    assert_eq!(code, "USER_NOT_SERVED");
    assert!(message.contains("#54003") && message.contains("agent_users"), "{message}");
    let metrics =
        as_user(AGENT, AGENT, || std::os::unix::net::UnixStream::connect(house.socket("http.sock")));
    assert_eq!(metrics.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn strangers_who_knock_without_end_do_not_fill_the_log() {
    if !can_switch_users() {
        return;
    }
    let house = House::with(Some("54002"));
    as_user(STRANGER, STRANGER, || {
        for _ in 0..500 {
            let refused = Client::connect(house.endpoint("agent.sock"), options());
            assert!(refused.is_err());
        }
    });
    as_user(AGENT, AGENT, || house.draw("search")).unwrap();
    let lines = house.tqs.log().lines().filter(|line| line.contains("not served")).count();
    assert!((1..=30).contains(&lines), "{lines} lines for 500 connections");
}

#[test]
fn a_group_has_the_socket_to_itself_also_when_it_is_bound_again() {
    if !can_switch_users() {
        return;
    }
    let house = House::prepared(Some("@54100"), GROUP, |_| {});
    let as_wanted = || {
        let group = |name| fs::metadata(house.socket(name)).map_or(0, |metadata| metadata.gid());
        mode(&house.socket("")) == 0o2710
            && mode(&house.socket("agent.sock")) == 0o660
            && (group(""), group("agent.sock")) == (GROUP, GROUP)
    };
    assert!(as_wanted());
    let check = || {
        as_user(AGENT, GROUP, || house.draw("search")).unwrap();
        let stranger = as_user(STRANGER, STRANGER, || house.draw("search")).unwrap_err();
        assert!(stranger.contains("may not connect"), "{stranger}");
    };
    check();
    fs::remove_file(house.socket("agent.sock")).unwrap();
    wait_until("there is a new socket", || tqs::is_served(&house.socket("agent.sock")));
    assert!(as_wanted(), "{:o}", mode(&house.socket("agent.sock")));
    check();
}

#[test]
fn an_agent_believes_whom_it_was_told_to_expect_or_whom_root_gave_the_folder_and_nobody_else() {
    if !can_switch_users() {
        return;
    }
    let unnamed = |house: &House| {
        let endpoint = Endpoint::at(house.socket("agent.sock")).unwrap();
        as_user(AGENT, AGENT, || Client::connect(endpoint, options()))
    };
    let house = House::with(Some("54002"));
    let refused = unnamed(&house).unwrap_err();
    assert!(matches!(refused, ConnectError::ForeignSocket { uid: OPERATOR, .. }), "{refused}");

    let house = House::prepared(Some("54002"), OPERATOR, |home| {
        let (run, folder) = (home.join("run"), home.join("run/obol"));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
        chown(&folder, Some(OPERATOR), Some(OPERATOR)).unwrap();
        chown(run, Some(0), Some(0)).unwrap();
    });
    unnamed(&house).unwrap().dequeue_token(&tool("search"), PATIENCE).unwrap();
}

/// What a hijacked agent gets that runs code as this user.
struct Loot {
    /// Reading the master key, the session and the store.
    files: Vec<Option<ErrorKind>>,
    /// Reading the daemon's memory.
    memory: bool,
    /// Lifting its own denial, and drawing what was denied.
    lifted: Result<(), String>,
    denied: Result<String, String>,
}

fn attack(house: &House, thief: u32) -> Loot {
    let reason = || Reason::new("a drill").unwrap();
    house.operate(|control| control.policy(2, vec![tool("pay")]).unwrap());
    let files = ["master.key", "tokens.redb", "tokens.redb.keys"].map(|name| house.state(name)).into_iter();
    let files: Vec<_> = files.chain([house.home.path().join("own/session.json")]).collect();
    let loot = as_user(thief, thief, || {
        let control = || ControlClient::connect(house.endpoint("control.sock"), options());
        let lifted = control()
            .map_err(|error| error.to_string())
            .and_then(|mut control| control.policy(2, Vec::new()).map_err(|error| error.to_string()));
        Loot {
            files: reads(&files),
            memory: fs::File::open(format!("/proc/{}/mem", house.tqs.pid())).is_ok(),
            lifted,
            denied: house.draw("pay"),
        }
    });
    house.operate(|control| control.flush(FlushScope::All, reason()).unwrap());
    assert!(as_user(thief, thief, || house.draw("search")).is_err(), "the flush ended the session");
    loot
}

/// Mints from a stolen session in a sidecar of the thief's own; the token, if there is one.
fn mint_for_oneself(house: &House, thief: u32) -> Option<String> {
    let session =
        as_user(thief, thief, || fs::read_to_string(house.home.path().join("own/session.json"))).ok()?;
    let den = home::home();
    let file = den.path().join("stolen.json");
    home::write_private(&file, &session);
    for path in [den.path(), &file, &den.path().join("run")] {
        chown(path, Some(thief), Some(thief)).unwrap();
    }
    let mut own = Command::new(house.home.path().join("obol"));
    own.args(["tqs", "--session", "stolen.json"]).current_dir(den.path()).uid(thief).gid(thief);
    own.env_clear().env("HOME", den.path()).env("XDG_RUNTIME_DIR", den.path().join("run"));
    let tqs = Tqs::spawn_command(&mut own, den.path());
    tqs.wait_for_log("listening");
    let socket = Endpoint::at(tqs::socket(den.path())).unwrap();
    as_user(thief, thief, || {
        let drawn =
            Client::connect(socket, options()).unwrap().dequeue_token(&tool("pay"), PATIENCE).unwrap();
        Some(drawn.token.expose().to_owned())
    })
}

#[test]
fn a_hijacked_agent_of_another_user_gets_no_key_and_no_say() {
    if !can_switch_users() {
        return;
    }
    let house = House::with(Some("54002"));
    let rs = Rs::start(house.home.path(), &["--first-start"]);
    let token = as_user(AGENT, AGENT, || house.draw("pay")).unwrap();
    assert_eq!(rs.verify(&token, "pay"), 200, "before anything happens it is an agent like any other");

    let loot = attack(&house, AGENT);
    assert_eq!(loot.files, [Some(ErrorKind::PermissionDenied); 4]);
    assert!(!loot.memory);
    let lifted = loot.lifted.unwrap_err();
    assert!(lifted.contains("may not connect"), "{lifted}");
    let denied = loot.denied.unwrap_err();
    assert!(denied.contains("POLICY_DENY"), "{denied}");
    assert_eq!(mint_for_oneself(&house, AGENT), None, "there is nothing to mint from");
}

/// The control: this is what one user for both does not defend.
#[test]
fn where_agents_and_sidecar_are_one_user_a_hijacked_agent_has_the_keys_and_the_say() {
    if !can_switch_users() {
        return;
    }
    let house = House::with(None);
    let rs = Rs::start(house.home.path(), &["--first-start"]);
    let loot = attack(&house, OPERATOR);
    assert_eq!(loot.files, [None; 4]);
    assert!(!loot.memory, "that much holds for one user, too");
    loot.lifted.unwrap();
    loot.denied.unwrap();
    let token = mint_for_oneself(&house, OPERATOR).expect("the session can be read");
    assert_eq!(rs.verify(&token, "pay"), 200, "a flush does not end the session where tokens are spent");
}

#[test]
fn a_refusal_names_the_command_that_works_and_root_operates_any_sidecar() {
    if !can_switch_users() {
        return;
    }
    let house = House::with(Some("54002"));
    let refused = house.command(AGENT, &["flush", "--all", "--reason", "it's a drill"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{message}");
    let (_, named) = message.trim_end().split_once("; run: sudo env ").expect(&message);
    // What `sudo env` does: root, and nothing of the environment.
    let as_root = Command::new("env").args(["-i", "sh", "-c", &format!("env {named}")]).output().unwrap();
    assert!(as_root.status.success(), "{named}: {as_root:?}");
    assert!(String::from_utf8_lossy(&as_root.stdout).contains("1 sessions ended"), "{as_root:?}");
}

#[test]
fn status_and_the_start_line_say_whether_agents_are_other_users() {
    if !can_switch_users() {
        return;
    }
    let house = House::with(Some("54002,@54100"));
    assert_eq!(
        (house.status().uid, house.status().agent_users),
        (OPERATOR, vec!["54002".into(), "@54100".into()])
    );
    let shown = house.command(OPERATOR, &["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("sidecar: #54001; agents: 54002, @54100"), "{shown}");
    assert!(
        house.tqs.log().contains("agents=\"54002, @54100; the daemon is #54001\""),
        "{}",
        house.tqs.log()
    );

    let house = House::with(None);
    let shown = String::from_utf8(house.command(OPERATOR, &["status"]).stdout).unwrap();
    assert!(shown.contains("one user, #54001") && shown.contains("can read the keys"), "{shown}");
    assert!(house.tqs.log().contains("an agent that runs code has its keys"), "{}", house.tqs.log());
}

#[test]
fn users_who_have_the_keys_or_do_not_exist_are_no_agents() {
    let home = home::home();
    let own = rustix::process::geteuid().as_raw().to_string();
    for users in [own.as_str(), "no-such-user", "@no-such-group", ","] {
        for command in [&["tqs"][..], &["config", "check"]] {
            let mut refused = home::command(home.path());
            let refused = refused.args(command).env("OBOL_TQS__AGENT_USERS", users).output().unwrap();
            let said = [refused.stdout, refused.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(refused.status.code(), Some(2), "{users}: {said}");
            assert!(said.contains("tqs.agent_users"), "{users}: {said}");
        }
    }
}
