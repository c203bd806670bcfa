//! `obol install` and `obol uninstall`, tried in a folder that stands for a machine, and its units by systemd's own check.
//!
//! What is not tried here is a running systemd: starting the service, and the user that it makes on a real machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use obol_world::home::{self, command};

/// A folder that stands for a machine.
pub(crate) struct Machine {
    pub(crate) home: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { home: home::home() }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("machine")
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A command of the binary on this machine.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        command(self.home.path()).args(arguments).arg("--prefix").arg(self.root()).output().unwrap()
    }

    /// What it said, which must have worked.
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.at(path)).unwrap().mode() & 0o7777
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// systemd's own check finds nothing wrong with these units; and, for control, that this setting of one of them is misspelt.
    pub(crate) fn units_hold(&self, units: &[&str], unit: &str, setting: &str) {
        let system = Path::new("/usr/lib/systemd/system");
        if !has("systemd-analyze") || !system.exists() {
            return;
        }
        fs::create_dir_all(self.at("usr/lib/systemd")).unwrap();
        must_work(Command::new("cp").arg("-r").arg(system).arg(self.at("usr/lib/systemd")));
        fs::create_dir(self.at("usr/bin")).unwrap();
        fs::copy("/bin/kill", self.at("usr/bin/kill")).unwrap();
        symlink("usr/bin", self.at("bin")).unwrap();
        let root = format!("--root={}", self.root().display());
        let verify = || {
            let mut verify = Command::new("systemd-analyze");
            verify.args(["verify", &root]).args(units);
            verify
        };
        must_work(&mut verify());
        let misspelt = format!("{setting}s");
        let text = self.text(unit).replace(&format!("{setting}="), &format!("{misspelt}="));
        fs::write(self.at(unit), text).unwrap();
        let found = verify().output().unwrap();
        assert!(String::from_utf8_lossy(&found.stderr).contains(&misspelt), "{found:?}");
    }
}

const AUTHENTICATOR: &str = "etc/systemd/system/obol-authenticator.service";
const SERVICE: &str = "etc/systemd/system/obol-tqs.service";
const AGENTS: &str = "etc/obol/agents.conf";
const SOCKET: &str = "etc/systemd/system/obol-tqs.socket";
const USERS: &str = "etc/sysusers.d/obol.conf";
const FOLDERS: &str = "etc/tmpfiles.d/obol.conf";
const KEY: &str = "etc/obol/master.key";
pub(super) const PROGRAM: &str = "usr/local/bin/obol";

#[test]
fn install_lays_out_user_folders_and_units_and_uninstall_takes_them_away() {
    let machine = Machine::new();
    let said = machine.says(&["install", "--agent-user", "54002", "--agent-user", "54003"]);
    for (path, mode) in [
        (SERVICE, 0o644),
        (SOCKET, 0o644),
        (USERS, 0o644),
        (FOLDERS, 0o644),
        (AGENTS, 0o644),
        (KEY, 0o600),
        (PROGRAM, 0o755),
    ] {
        assert_eq!(machine.mode(path), mode, "{path}");
        assert!(said.contains(&format!("/{path}")), "{path} is not told: {said}");
    }
    assert_eq!(machine.mode("etc/obol"), 0o755);
    for page in ["obol.1", "obol-tqs.1", "obol-rs-revoke.1"] {
        assert_eq!(machine.mode(&format!("usr/local/share/man/man1/{page}")), 0o644, "{page}");
    }
    let service = machine.text(SERVICE);
    for line in ["User=obol", "EnvironmentFile=/etc/obol/agents.conf", "ExecStart=/usr/local/bin/obol tqs"] {
        assert!(service.lines().any(|is| is == line), "{line}: {service}");
    }
    assert!(machine.text(AGENTS).ends_with("\nOBOL_TQS__AGENT_USERS=54002,54003\n"));
    let socket = machine.text(SOCKET);
    for line in
        ["ListenStream=/run/obol/agent.sock", "SocketUser=obol", "SocketGroup=obol", "SocketMode=0666"]
    {
        assert!(socket.lines().any(|is| is == line), "{line}: {socket}");
    }
    assert!(machine.text(FOLDERS).contains("d /run/obol 0711 obol obol -"));
    assert!(said.contains("left out, because of --prefix: run systemctl restart obol-tqs.socket"), "{said}");

    let key = machine.text(KEY);
    machine.says(&["install", "--agent-user", "54004"]);
    assert_eq!(machine.text(KEY), key, "another installation does not lose the key");
    assert!(machine.text(AGENTS).ends_with("\nOBOL_TQS__AGENT_USERS=54004\n"), "and changes the agents");

    for file in ["tokens.redb", "tokens.redb.keys"] {
        fs::create_dir_all(machine.at("var/lib/obol")).unwrap();
        fs::write(machine.at("var/lib/obol").join(file), "").unwrap();
    }
    let said = machine.says(&["uninstall"]);
    assert_eq!(machine.files(), Vec::<PathBuf>::new(), "{said}");
    for folder in ["etc/obol", "var/lib/obol", "run/obol"] {
        assert!(!machine.at(folder).exists(), "{folder}");
    }
    assert!(said.contains("left out, because of --prefix: remove user obol"), "{said}");
    machine.says(&["uninstall"]);
}

#[test]
fn a_named_service_brings_an_authenticator_that_goes_with_the_rest() {
    let machine = Machine::new();
    let pin = format!("https://as.example:8443#{}", "ab".repeat(32));
    let ca_file = machine.home.path().join("ca.pem");
    fs::write(&ca_file, "").unwrap();
    let said = machine.says(&[
        "install",
        "--agent-user",
        "54002",
        "--as",
        &pin,
        "--ca-file",
        ca_file.to_str().unwrap(),
    ]);
    assert!(said.contains("obol register") && said.contains("obol approve CODE"), "{said}");
    assert!(
        said.contains("run systemctl restart obol-tqs.socket obol-tqs.service obol-authenticator.service")
    );
    let unit = machine.text(AUTHENTICATOR);
    for line in [
        "User=obol",
        "ExecStart=/usr/local/bin/obol authenticator",
        "EnvironmentFile=/etc/obol/agents.conf",
        "Environment=OBOL_ENDPOINT_SOCKET=unix:///run/obol/agent.sock",
        &format!("Environment=\"OBOL_AUTHENTICATOR__URL={pin}\""),
        &format!("Environment=OBOL_AUTHENTICATOR__CA_FILE={}", ca_file.display()),
    ] {
        assert!(unit.lines().any(|is| is == line), "{line}: {unit}");
    }
    assert!(!unit.contains('@') || unit.contains("@system-service"), "{unit}");
    let keys = (machine.text(KEY), machine.text("etc/obol/identity.key"));
    assert_ne!(keys.0, keys.1);
    assert_eq!(machine.mode("etc/obol/identity.key"), 0o600);

    let said = machine.says(&["install", "--agent-user", "54003"]);
    assert!(said.contains("run systemctl try-restart obol-authenticator.service"), "{said}");
    assert!(machine.text(AGENTS).contains("=54003\n"), "both serve the new user");
    assert_eq!(machine.text(AUTHENTICATOR), unit, "an installation that names none leaves it as it is");
    machine.says(&["install", "--agent-user", "54003", "--as", &pin]);
    assert!(!machine.text(AUTHENTICATOR).contains("CA_FILE"), "and one that names it makes it anew");
    assert_eq!((machine.text(KEY), machine.text("etc/obol/identity.key")), keys, "no key is lost");

    for file in ["agent.identity", "agent.identity.lock"] {
        fs::create_dir_all(machine.at("var/lib/obol/authenticator")).unwrap();
        fs::write(machine.at("var/lib/obol/authenticator").join(file), "").unwrap();
    }
    let said = machine.says(&["uninstall"]);
    assert_eq!(machine.files(), Vec::<PathBuf>::new(), "{said}");
    assert!(!machine.at("var/lib/obol").exists(), "{said}");
}

#[test]
fn a_group_of_agents_has_folder_and_socket_to_itself() {
    let machine = Machine::new();
    machine.says(&["install", "--agent-user", "@54100", "--name", "mail"]);
    let socket = machine.text("etc/systemd/system/obol-mail-tqs.socket");
    assert!(socket.contains("SocketGroup=54100\nSocketMode=0660\n"), "{socket}");
    assert!(
        machine.text("etc/tmpfiles.d/obol-mail.conf").contains("d /run/obol-mail 2710 obol-mail 54100 -")
    );
    machine.says(&["install", "--agent-user", "54002"]);
    machine.says(&["uninstall", "--name", "mail"]);
    assert!(machine.at(SERVICE).exists() && machine.at(PROGRAM).exists(), "the other sidecar stays");
    assert!(!machine.at("etc/obol-mail").exists());
}

#[test]
fn a_dry_run_says_the_same_and_touches_nothing() {
    let machine = Machine::new();
    let said = machine.says(&["install", "--agent-user", "54002", "--dry-run"]);
    for path in [SERVICE, SOCKET, USERS, FOLDERS, KEY, PROGRAM] {
        assert!(said.lines().any(|line| line.starts_with("would ") && line.contains(path)), "{path}: {said}");
    }
    assert!(!machine.root().exists());
    machine.says(&["install", "--agent-user", "54002"]);
    let before = machine.files().len();
    let said = machine.says(&["uninstall", "--dry-run"]);
    assert!(said.contains("would remove /etc/obol/master.key"), "{said}");
    assert_eq!(machine.files().len(), before);
}

#[test]
fn what_nobody_installed_stays_and_is_named() {
    let machine = Machine::new();
    machine.says(&["install", "--agent-user", "54002"]);
    fs::create_dir_all(machine.at("var/lib/obol")).unwrap();
    fs::write(machine.at("var/lib/obol/audit.jsonl"), "who drew what").unwrap();
    let said = machine.says(&["uninstall"]);
    let stays = |line: &str| line.contains("/var/lib/obol/") && line.contains("STAYS");
    assert!(said.lines().any(stays), "{said}");
    assert_eq!(machine.files(), [machine.at("var/lib/obol/audit.jsonl")]);
}

#[test]
fn what_cannot_be_installed_is_refused_before_anything_is_done() {
    let machine = Machine::new();
    let key = "ab".repeat(32);
    let (sound, quoted) = (format!("https://as.example#{key}"), format!("https://as.ex\"ample#{key}"));
    for (arguments, says) in [
        (&["--agent-user", "no-such-user"][..], "no-such-user"),
        (&["--agent-user", "root"], "root"),
        (&["--agent-user", "54002", "--agent-user", "obol"], "the sidecar's own user"),
        (&["--agent-user", "54002,54003"], "54002,54003"),
        (&["--agent-user", "54002", "--name", "../x"], "../x"),
        (&["--agent-user", "54002", "--as", "https://as.example"], "the service's key is missing"),
        (&["--agent-user", "54002", "--as", &quoted], "--as"),
        (&["--agent-user", "54002", "--as", &sound, "--ca-file", "ca.pem"], "absolute path"),
        (&["--agent-user", "54002", "--as", &sound, "--ca-file", "/no/such/file"], "/no/such/file"),
        (&["--agent-user", "54002", "--ca-file", "/dev/null"], "--as"),
        (&[], "--agent-user"),
    ] {
        let refused = machine.run(&[&["install"], arguments].concat());
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(says), "{arguments:?}: {message}");
        assert!(!machine.root().exists());
    }
    let mut stranger = command(machine.home.path());
    if rustix::process::geteuid().is_root() {
        // Where that user can reach it, whatever the build folder's permissions are.
        let program = machine.home.path().join("obol");
        fs::copy(home::obol(), &program).unwrap();
        for path in [machine.home.path(), &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        stranger = Command::new(program);
        std::os::unix::process::CommandExt::uid(stranger.env_clear().current_dir("/"), 54_002);
    }
    let refused = stranger.args(["install", "--agent-user", "54002"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sudo obol install"), "{refused:?}");
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED IN PART: there is no {program} here; install Debian's package systemd");
    }
    found
}

fn must_work(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("obol-"), "{command:?}: {said}");
}

#[test]
fn systemd_finds_nothing_wrong_with_what_is_laid_out() {
    let machine = Machine::new();
    let pin = format!("https://as.example#{}", "ab".repeat(32));
    machine.says(&["install", "--agent-user", "54002", "--as", &pin]);
    let units = ["obol-tqs.service", "obol-tqs.socket", "obol-authenticator.service"];
    machine.units_hold(&units, SERVICE, "WatchdogSec");
    let root = format!("--root={}", machine.root().display());
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED IN PART: only root can make users and give folders away; run this test as root");
        return;
    }
    if has("systemd-sysusers") && has("systemd-tmpfiles") {
        must_work(Command::new("systemd-sysusers").args([&root, "obol.conf"]));
        let users = machine.text("etc/passwd");
        let user: Vec<_> = users.lines().find(|line| line.starts_with("obol:")).unwrap().split(':').collect();
        must_work(Command::new("systemd-tmpfiles").args([&root, "--create", "obol.conf"]));
        let folder = fs::metadata(machine.at("run/obol")).unwrap();
        assert_eq!((folder.mode() & 0o7777, folder.uid().to_string().as_str()), (0o711, user[2]));
    }
}
