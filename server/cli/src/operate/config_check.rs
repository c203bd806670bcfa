//! `obol config check`: what every setting is, where that comes from, and everything that is wrong with it, at once.
//!
//! Settings are read by the very code that servers read them with, and what servers do with them before they open
//! anything is done as well: [`Gathered`], [`tqs::check`], [`authenticator::check`], [`rs::listen`], [`stores::check`], [`atp::check`], [`files`],
//! [`ServerTemplates`].

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use obol_ipc::Endpoint;
use obol_secret::file::{PrivateFile, PrivateFileError, check_rules};
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::places::{environment, state_folder};
use crate::role::atp;
use crate::role::rs;
use crate::role::stores;
use crate::role::templates::ServerTemplates;
use crate::role::tqs;
use crate::role::{authenticator, followed};
use crate::sessions::files;
use crate::settings::args::ConfigCheckArgs;
use crate::settings::config::{Config, Gathered, Set};
use crate::settings::shown::{shown, without_password};
use crate::settings::{self, Usual};

/// One setting as it is in force.
#[derive(Debug, Serialize)]
struct Setting {
    name: String,
    value: String,
    source: String,
}

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    ok: bool,
    settings: Vec<Setting>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// What is in force where nothing is set.
fn default_of(setting: &settings::Setting) -> String {
    match (setting.usual)() {
        Usual::Value(value) => shown(&value),
        Usual::InState(name) => state_folder().join(name).display().to_string(),
        Usual::Otherwise(words, _) => words.to_owned(),
    }
}

/// `obol config check`.
pub(crate) fn run(args: &ConfigCheckArgs, named: Option<&Path>) -> Outcome {
    let variables: Vec<_> = std::env::vars_os().collect();
    let findings = check(args, named, &variables);
    if args.output.json {
        output::json(&serde_json::to_value(&findings).map_err(Failure::other)?);
    } else {
        tell(&findings);
    }
    match findings.problems.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::Usage,
            format_args!("{count} problems; no role would start with this configuration"),
        )),
    }
}

fn check(args: &ConfigCheckArgs, named: Option<&Path>, variables: &[(OsString, OsString)]) -> Findings {
    let gathered = Gathered::read(named, variables);
    let mut check = Check { set: gathered.set, ..Check::default() };
    check.findings.problems = gathered.problems;
    check.findings.warnings = gathered.warnings;
    check.findings.warnings.extend(args.former.warning().map(str::to_owned));
    check.file(gathered.file.as_deref());
    check.flags(args);
    check.sockets(args);
    check.files();
    check.starts(args, &gathered.config);
    let mut findings = check.findings;
    findings.settings = settings::all()
        .map(|known| match check.set.get(&known.name()) {
            Some(set) => setting(&known.name(), &set.shown, &set.source),
            None => setting(&known.name(), &default_of(known), "default"),
        })
        .chain(check.sockets)
        .collect();
    findings.ok = findings.problems.is_empty();
    findings
}

#[derive(Default)]
struct Check {
    findings: Findings,
    set: BTreeMap<String, Set>,
    sockets: Vec<Setting>,
}

impl Check {
    fn problem(&mut self, problem: impl Into<String>) {
        self.findings.problems.push(problem.into());
    }

    fn file(&mut self, read: Option<&Path>) {
        let Some(path) = read else {
            self.sockets.push(setting("file", "-", "no file: none of the usual files exists"));
            return;
        };
        self.sockets.push(setting("file", &path.display().to_string(), "read"));
        if let Err(error) = check_rules(path) {
            self.problem(error.to_string());
        }
    }

    fn flags(&mut self, args: &ConfigCheckArgs) {
        let (tqs, rs, auth) = (&args.tqs, &args.rs, &args.authenticator);
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let paths = |paths: &[PathBuf]| {
            let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            (!shown.is_empty()).then(|| shown.join(", "))
        };
        for (name, flag, value) in [
            ("tqs.store", "--store", path(&tqs.store)),
            ("tqs.master_key", "--master-key", path(&tqs.master_key)),
            ("tqs.sessions", "--session", paths(&tqs.session)),
            // One flag for both, as both have it; the former name was the sidecar's alone.
            ("tqs.audit_log", "--audit-log", path(&rs.audit.audit_log)),
            ("tqs.audit_log", "--audit", path(&args.former.audit)),
            ("tqs.http", "--http", tqs.http.clone()),
            ("tqs.sandbox", "--no-sandbox", tqs.no_sandbox.then(|| "false".to_owned())),
            ("authenticator.url", "--url", auth.url.clone()),
            ("authenticator.pin_file", "--pin-file", path(&auth.pin_file)),
            ("authenticator.ca_file", "--ca-file", path(&auth.ca_file)),
            ("authenticator.identity", "--identity", path(&auth.identity)),
            ("authenticator.identity_key", "--identity-key", path(&auth.identity_key)),
            ("rs.audit_log", "--audit-log", path(&rs.audit.audit_log)),
            ("rs.audit_key", "--audit-key", path(&rs.audit.audit_key)),
            ("rs.listen", "--listen", rs.listen.map(|listen| listen.to_string())),
            ("rs.audience", "--audience", rs.audience.clone()),
            ("rs.authority", "--authority", rs.service.authority.clone()),
            ("rs.sessions", "--sessions", paths(&rs.sessions)),
            ("rs.session_store", "--session-store", path(&rs.session_store)),
            ("rs.session_key", "--session-key", path(&rs.session_key)),
            ("rs.spent", "--spent", path(&rs.spent)),
            ("rs.spend_socket", "--spend-socket", path(&rs.spend_socket)),
        ] {
            if let Some(value) = value {
                let shown = without_password(&value);
                self.set.insert(name.to_owned(), Set { shown, source: format!("flag {flag}") });
            }
        }
    }

    /// What the servers do with their settings before they open anything, by their own code.
    fn starts(&mut self, args: &ConfigCheckArgs, config: &Config) {
        let mut found = Vec::new();
        found.extend(tqs::check(&args.tqs, config).err());
        found.extend(authenticator::check(&args.authenticator, config).err());
        found.extend(rs::listen(&args.rs, config).err());
        found.extend(rs::spend_socket(&args.rs, config).err());
        found.extend(rs::check_audience(&args.rs, config).err());
        found.extend(stores::check(&args.rs, config));
        found.extend(atp::check(&config.atp_serve));
        found.extend(crate::operate::atp::check(&config.atp));
        let mut found: Vec<_> = found.iter().map(Failure::to_string).collect();
        let mut named = |name, failure: Option<Failure>| {
            found.extend(failure.map(|failure| format!("{name}: {failure}")));
        };
        named("tqs.sessions", files::agent_halves(&tqs::sessions(&args.tqs, config)).err());
        named("rs.sessions", files::resource_halves(&rs::sessions(&args.rs, config)).err());
        // What says what is wrong names the setting itself.
        let service = followed::check(&args.rs.service, config).err();
        named("rs.templates", ServerTemplates::open(config).err());
        found.extend(service.map(|failure| failure.to_string()));
        #[cfg(feature = "authority")]
        found.extend(crate::role::authority::check(&config.authority).iter().map(Failure::to_string));
        found.into_iter().for_each(|problem| self.problem(problem));
    }

    /// The sockets are not settings; they have flags and variables of their own.
    fn sockets(&mut self, args: &ConfigCheckArgs) {
        let sockets = &args.tqs.sockets;
        let agent = match Endpoint::agent(sockets.socket.as_deref(), environment) {
            Ok(agent) => agent,
            Err(error) => return self.problem(format!("the agent's socket: {error}")),
        };
        let source = |flag: bool, variable: &str| match (flag, environment(variable)) {
            (true, _) => "flag".to_owned(),
            (false, Some(value)) if !value.is_empty() => format!("variable {variable}"),
            _ => "default".to_owned(),
        };
        let path = agent.path().display().to_string();
        self.sockets.push(setting(
            "socket",
            &path,
            &source(sockets.socket.is_some(), "OBOL_ENDPOINT_SOCKET"),
        ));
        match Endpoint::control(sockets.control_socket.as_deref(), &agent, environment) {
            Err(error) => self.problem(format!("the operator's socket: {error}")),
            Ok(control) => {
                let source = source(sockets.control_socket.is_some(), "OBOL_CONTROL_SOCKET");
                self.sockets.push(setting("control socket", &control.path().display().to_string(), &source));
                if control == agent {
                    self.problem(
                        "the agent's socket and the operator's socket are the same; choose another for one of them",
                    );
                }
            }
        }
        self.private_folder("the agent's socket", agent.path());
    }

    /// The folder of a socket must be ours and closed to others, unless agents that are others must come through.
    fn private_folder(&mut self, what: &str, path: &Path) {
        let Some(folder) = path.parent() else { return };
        if self.set.contains_key("tqs.agent_users") {
            return;
        }
        match std::fs::metadata(folder) {
            Ok(metadata) if !metadata.is_dir() => {
                self.problem(format!("{what}: {} is not a folder", folder.display()));
            }
            Ok(metadata) if metadata.uid() != our_user() || metadata.mode() & 0o077 != 0 => {
                self.problem(format!(
                    "{what}: the folder {} must belong to you and be closed to others; run `chmod 700 {}`",
                    folder.display(),
                    folder.display()
                ));
            }
            _ => {}
        }
    }

    fn is_usual(&self, name: &str, path: &Path) -> bool {
        let usual = settings::all().find(|known| known.name() == name).map(|known| (known.usual)());
        matches!(usual, Some(Usual::InState(file)) if state_folder().join(file).parent() == path.parent())
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        match self.set.get(name) {
            Some(set) if stores::is_file(&set.shown) => Some((&set.shown).into()),
            Some(_) => None,
            None => {
                settings::all().find(|known| known.name() == name).and_then(|known| match (known.usual)() {
                    Usual::InState(file) => Some(state_folder().join(file)),
                    _ => None,
                })
            }
        }
    }

    fn files(&mut self) {
        for name in [
            "tqs.store",
            "tqs.audit_log",
            "authenticator.identity",
            "rs.spent",
            "authenticator.audit_log",
            "rs.session_store",
            "rs.audit_log",
            "as.directory",
            "as.audit_log",
            "atp_serve.store",
            "atp_serve.spent",
            "atp_serve.audit_log",
        ] {
            self.own_file(name, |path| PrivateFile::check_write(path));
        }
        for name in [
            "tqs.master_key",
            "authenticator.identity_key",
            "authenticator.audit_key",
            "rs.audit_key",
            "rs.session_key",
            "rs.identity_key",
            "rs.redis_password_file",
            "as.master_key",
            "as.identity_key",
            "as.audit_key",
            "atp_serve.key",
            "atp_serve.audit_key",
            "atp_serve.redis_password_file",
        ] {
            self.own_file(name, |path| PrivateFile::check_read(path));
        }
    }

    /// A file that is there must be ours alone; one that is not needs a folder to be created in.
    fn own_file(&mut self, name: &str, check: impl Fn(&Path) -> Result<(), PrivateFileError>) {
        let Some(path) = self.path_of(name) else { return };
        match check(&path) {
            Ok(()) => {}
            Err(error) if !error.is_missing() => self.problem(format!("{name}: {error}")),
            // The state folder is created, and what is usual in it.
            Err(_) if path.parent() == Some(&state_folder()) || self.is_usual(name, &path) => {}
            Err(_) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                if !folder.is_dir() {
                    self.problem(format!(
                        "{name}: the folder {} does not exist; create it",
                        folder.display()
                    ));
                }
            }
        }
    }
}

fn our_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn setting(name: &str, value: &str, source: &str) -> Setting {
    Setting { name: name.to_owned(), value: value.to_owned(), source: source.to_owned() }
}

fn tell(findings: &Findings) {
    let mut table = output::Table::new(&["setting", "value", "from"]);
    for setting in &findings.settings {
        table.row([setting.name.clone(), setting.value.clone(), setting.source.clone()]);
    }
    table.print();
    output::line("");
    if findings.problems.is_empty() {
        output::line("no problems found");
    }
    for warning in &findings.warnings {
        output::line(&format!("warning: {warning}"));
    }
    for problem in &findings.problems {
        let mut line = String::from("problem: ");
        let _always = write!(line, "{problem}");
        output::line(&line);
    }
}
