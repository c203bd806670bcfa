//! `obol install --role as`, `--role rs` and `--role gateway`, tried in a folder that stands for a machine, and their units by systemd's own check.
//!
//! What is not tried here is a running systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use obol_world::home::{command, write_private};

use super::install::{Machine, PROGRAM};

const AS_UNIT: &str = "etc/systemd/system/obol-as.service";
const GATEWAY_UNIT: &str = "etc/systemd/system/obol-gateway.service";
const RS_UNIT: &str = "etc/systemd/system/obol-rs.service";
const AUDIENCE: &str = "https://api.example";

fn pin() -> String {
    format!("https://as.example:8443#{}", "ab".repeat(32))
}

fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|is| is == *line), "{line}: {text}");
    }
    let filled = text.lines().all(|line| !line.contains('@') || line.starts_with("SystemCallFilter"));
    assert!(filled, "something was not filled in: {text}");
}

#[test]
fn an_authentication_service_is_laid_out_with_a_key_of_its_own_and_taken_away() {
    let machine = Machine::new();
    let said = machine.says(&["install", "--role", "as"]);
    assert!(said.contains("obol approve CODE") && said.contains("/etc/obol-as/settings.conf"), "{said}");
    assert!(said.contains("run systemctl restart obol-as.service"), "{said}");
    has_lines(
        &machine.text(AS_UNIT),
        &[
            "User=obol-as",
            "ExecStart=/usr/local/bin/obol as",
            "Environment=OBOL_AS_CONTROL_SOCKET=unix:///run/obol-as/as-control.sock",
            "Environment=OBOL_AS__AUDIT_LOG=%L/obol-as/audit.jsonl",
            "LoadCredential=obol-as-master-key:/etc/obol-as/master.key",
        ],
    );
    assert!(machine.text("etc/sysusers.d/obol-as.conf").contains("u obol-as - "), "a user of its own");
    assert_eq!((machine.mode("etc/obol-as/master.key"), machine.mode(PROGRAM)), (0o600, 0o755));
    let key = machine.text("etc/obol-as/master.key");
    machine.says(&["install", "--role", "as"]);
    assert_eq!(machine.text("etc/obol-as/master.key"), key, "doing it again loses no key");

    fs::create_dir_all(machine.at("var/lib/obol-as")).unwrap();
    fs::write(machine.at("var/lib/obol-as/authority.redb"), "").unwrap();
    fs::create_dir_all(machine.at("var/log/obol-as")).unwrap();
    fs::write(machine.at("var/log/obol-as/audit.jsonl"), "who approved what").unwrap();
    fs::write(machine.at("etc/obol-as/settings.conf"), "OBOL_AS__LISTEN=192.0.2.1:8443").unwrap();
    let said = machine.says(&["uninstall", "--role", "as"]);
    assert_eq!(said.lines().filter(|line| line.contains("STAYS")).count(), 2, "log and settings: {said}");
    assert!(!machine.at(AS_UNIT).exists() && !machine.at("var/lib/obol-as").exists(), "{said}");
    let left = machine.files();
    assert_eq!(left.len(), 2, "what nobody installed stays: {left:?}");
}

#[test]
fn a_resource_server_is_told_who_it_is_and_whom_it_follows_and_is_not_started_before_it_joined() {
    let machine = Machine::new();
    let ca_file = machine.home.path().join("ca.pem");
    fs::write(&ca_file, "").unwrap();
    let (pin, ca_file) = (pin(), ca_file.to_str().unwrap().to_owned());
    let install = ["install", "--role", "rs", "--audience", AUDIENCE, "--as", &pin];
    let said = machine.says(&[&install[..], &["--ca-file", &ca_file]].concat());
    let join = format!(
        "obol rs join --authority '{pin}' --rs-identity-key /etc/obol-rs/identity.key --rs-ca-file {ca_file}"
    );
    assert!(said.contains(&join), "{join}: {said}");
    assert!(
        !said.contains("systemctl restart") && said.contains("systemctl try-restart obol-rs.service"),
        "{said}"
    );
    has_lines(
        &machine.text(RS_UNIT),
        &[
            "User=obol-rs",
            "ExecStart=/usr/local/bin/obol rs",
            &format!("Environment=\"OBOL_RS__AUDIENCE={AUDIENCE}\""),
            &format!("Environment=\"OBOL_RS__AUTHORITY={pin}\""),
            &format!("Environment=OBOL_RS__CA_FILE={ca_file}"),
            "LoadCredential=obol-rs-identity-key:/etc/obol-rs/identity.key",
        ],
    );
    assert_eq!(machine.mode("etc/obol-rs/identity.key"), 0o600);
    // A second one beside it, and only that one goes.
    machine.says(&[&install[..], &["--name", "b"]].concat());
    assert!(machine.text("etc/systemd/system/obol-rs-b.service").contains("User=obol-rs-b\n"));
    machine.says(&["uninstall", "--role", "rs", "--name", "b"]);
    assert!(!machine.at("etc/obol-rs-b").exists() && machine.at(RS_UNIT).exists());
    let said = machine.says(&["uninstall", "--role", "rs"]);
    assert_eq!(machine.files(), Vec::<PathBuf>::new(), "{said}");
}

#[test]
fn a_gateway_is_told_how_it_gets_an_api_and_keeps_what_its_operator_gave_it() {
    let machine = Machine::new();
    let pin = pin();
    let said = machine.says(&["install", "--role", "gateway", "--audience", AUDIENCE, "--as", &pin]);
    let add = "sudo -u obol-gateway obol gateway add github --apis /var/lib/obol-gateway/apis --gateway-key \
               /var/lib/obol-gateway/gateway.key --credential-file - <token.txt";
    assert!(said.contains(add) && said.contains("obol rs join --authority"), "{said}");
    assert!(said.contains("systemctl try-restart obol-gateway.service"), "{said}");
    has_lines(
        &machine.text(GATEWAY_UNIT),
        &[
            "User=obol-gateway",
            "ExecStart=/usr/local/bin/obol gateway --apis %S/obol-gateway/apis --gateway-key %S/obol-gateway/gateway.key \
             $OBOL_GATEWAY_FLAGS",
            &format!("Environment=\"OBOL_RS__AUDIENCE={AUDIENCE}\""),
            &format!("Environment=\"OBOL_RS__AUTHORITY={pin}\""),
            "LoadCredential=obol-rs-identity-key:/etc/obol-gateway/identity.key",
        ],
    );
    let folders = machine.text("etc/tmpfiles.d/obol-gateway.conf");
    assert!(folders.contains("d /var/lib/obol-gateway/apis 0700 obol-gateway obol-gateway -"), "{folders}");

    // The line it prints works, as the user that it names; here that is this one, in the folder that stands for the machine.
    fs::create_dir_all(machine.at("var/lib/obol-gateway/apis")).unwrap();
    for folder in ["var/lib/obol-gateway", "var/lib/obol-gateway/apis"] {
        fs::set_permissions(machine.at(folder), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let token = machine.home.path().join("token.txt");
    write_private(&token, "ghp_of_the_operator");
    let place = |name| machine.at("var/lib/obol-gateway").join(name);
    let added = command(machine.home.path())
        .args(["gateway", "add", "github", "--credential-file"])
        .arg(&token)
        .arg("--apis")
        .arg(place("apis"))
        .arg("--gateway-key")
        .arg(place("gateway.key"))
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let said = machine.says(&["uninstall", "--role", "gateway"]);
    assert!(!machine.at(GATEWAY_UNIT).exists() && said.contains("STAYS"), "{said}");
    let mut left = machine.files();
    left.sort();
    let given = ["apis/github.credential", "apis/github.toml", "gateway.key"].map(place);
    assert_eq!(left, given, "what the operator gave stays: {said}");
}

#[test]
fn the_program_goes_with_the_last_unit_that_runs_it() {
    let machine = Machine::new();
    machine.says(&["install", "--agent-user", "54002"]);
    machine.says(&["install", "--role", "as"]);
    for role in ["sidecar", "as"] {
        assert!(machine.at(PROGRAM).exists());
        let said = machine.says(&["uninstall", "--role", role]);
        let stays =
            said.lines().any(|line| line.contains(PROGRAM) && line.contains("STAYS: another unit runs it"));
        assert_eq!((stays, machine.at(PROGRAM).exists()), (role == "sidecar", role == "sidecar"), "{said}");
    }
    assert_eq!(machine.files(), Vec::<PathBuf>::new());
}

#[test]
fn what_does_not_go_together_is_refused_before_anything_is_done() {
    let machine = Machine::new();
    let pin = pin();
    for (arguments, says) in [
        (&["--role", "rs", "--as", &pin][..], "--audience"),
        (&["--role", "rs", "--audience", AUDIENCE], "--as"),
        (&["--role", "gateway", "--as", &pin], "--audience"),
        (&["--role", "rs", "--audience", "a b", "--as", &pin], "--audience"),
        (&["--role", "as", "--audience", AUDIENCE], "--role rs"),
        (&["--role", "as", "--agent-user", "54002"], "--agent-user"),
        (&["--role", "as", "--name", "../x"], "../x"),
        (&["--agent-user", "54002", "--audience", AUDIENCE], "--role rs"),
        (&["--agent-user", "54002", "--name", "as"], "--name as"),
        (&["--agent-user", "54002", "--name", "rs-b"], "--name rs-b"),
        (&["--agent-user", "54002", "--name", "gateway-b"], "--name gateway-b"),
    ] {
        let refused = machine.run(&[&["install"], arguments].concat());
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(says), "{arguments:?}: {message}");
        assert!(!machine.root().exists());
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_servers_units() {
    let machine = Machine::new();
    machine.says(&["install", "--role", "as"]);
    machine.says(&["install", "--role", "rs", "--audience", AUDIENCE, "--as", &pin()]);
    machine.says(&["install", "--role", "gateway", "--audience", AUDIENCE, "--as", &pin()]);
    let units = ["obol-as.service", "obol-rs.service", "obol-gateway.service"];
    machine.units_hold(&units, RS_UNIT, "RestartSec");
}
