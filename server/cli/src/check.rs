//! `obol config check`: what every setting is, where that comes from, and everything that is wrong with it, at once.
//!
//! What settings there are is asked of [`Config`] itself, so that none can be forgotten here.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use obol_ipc::Endpoint;
use obol_secret::file::{PrivateFile, PrivateFileError};
use serde::Serialize;
use toml::{Table, Value};

use crate::args::ConfigCheckArgs;
use crate::client::environment;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Names this alike are taken for one another's typing errors.
const MAX_TYPING_ERRORS: usize = 3;

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
}

/// What is in force where nothing is set. `None` for what has no value then.
fn default_of(name: &str) -> Option<String> {
    let state = |file: &str| Some(config::state_folder().join(file).display().to_string());
    let limits = obol_sidecar::Limits::default();
    let known = match name {
        "log.level" => "info for the servers, warn for the rest",
        "log.format" => "text",
        "tqs.store" => return state("tokens.redb"),
        "tqs.master_key" => return state("master.key"),
        "tqs.batch" => "10",
        "tqs.max_ready" => "256",
        "tqs.max_depth" => "10000",
        "tqs.min_life" => "5",
        "tqs.connections" => return Some(limits.connections.to_string()),
        "tqs.connection_rate" => return Some(limits.connection_rate.to_string()),
        "tqs.user_rate" => return Some(limits.user_rate.to_string()),
        "tqs.idle" => return Some(limits.idle.as_secs().to_string()),
        "tqs.agent_users" => "none: agents and sidecar are one user",
        "tqs.http" => "http.sock beside the agent's socket",
        "tqs.sandbox" | "rs.sandbox" => "true",
        "tqs.keychain" => "none",
        "tqs.audit_file_bytes" => "67108864",
        "rs.audit_key" => return state("rs-audit.key"),
        "rs.audit_file_bytes" => "67108864",
        "rs.listen" => "127.0.0.1:8700",
        "rs.audience" => "the one all sessions name",
        "rs.spent" => return state("spent.redb"),
        "rs.session_store" => "memory",
        "rs.session_key" => return state("session.key"),
        "rs.redis_password_file" => "none",
        "rs.redis_namespace" => "made from the audience",
        "rs.redis_clock_difference" => return Some(obol_verify_redis::MAX_CLOCK_DIFFERENCE.to_string()),
        "rs.redis_wait_replicas" => "0",
        "rs.redis_assume_noeviction" => "false",
        "rs.policy_epoch" => "0",
        "rs.templates" => "none: the sessions' grants alone",
        "rs.clock_skew" => return Some(obol_verify::Limits::default().clock_skew.to_string()),
        "rs.max_ttl" => return Some(obol_verify::Limits::default().max_ttl.to_string()),
        _ => return None,
    };
    Some(known.to_owned())
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
        count => {
            Err(Failure::new(Exit::Usage, format_args!("{count} problems; nothing would start like this")))
        }
    }
}

fn check(args: &ConfigCheckArgs, named: Option<&Path>, variables: &[(OsString, OsString)]) -> Findings {
    let mut check = Check::default();
    check.file(named);
    check.environment(variables);
    check.flags(args);
    check.sockets(args);
    check.files();
    let mut findings = check.findings;
    findings.settings = check
        .known
        .iter()
        .map(|name| match check.set.get(name) {
            Some((value, source)) => {
                Setting { name: name.clone(), value: value.clone(), source: source.clone() }
            }
            None => Setting {
                name: name.clone(),
                value: default_of(name).unwrap_or_else(|| "-".to_owned()),
                source: "default".to_owned(),
            },
        })
        .chain(check.sockets)
        .collect();
    findings.ok = findings.problems.is_empty();
    findings
}

#[derive(Default)]
struct Check {
    findings: Findings,
    /// All settings there are, `section.key`.
    known: Vec<String>,
    /// Those that are set: value and source.
    set: std::collections::BTreeMap<String, (String, String)>,
    sockets: Vec<Setting>,
}

impl Check {
    fn problem(&mut self, problem: impl Into<String>) {
        self.findings.problems.push(problem.into());
    }

    fn file(&mut self, named: Option<&Path>) {
        self.known = known_settings();
        let Some(path) = config::file(named, |name| std::env::var_os(name)) else {
            self.sockets.push(setting("file", "-", "no file: none of the usual ones is there"));
            return;
        };
        self.sockets.push(setting("file", &path.display().to_string(), "read"));
        let text = match config::text_of(&path) {
            Ok(text) => text,
            Err(error) => return self.problem(error),
        };
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o022 != 0) {
            self.problem(format!(
                "{} can be written by others; run `chmod go-w {}`",
                path.display(),
                path.display()
            ));
        }
        let table: Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => return self.problem(format!("{}: {error}", path.display())),
        };
        for (section, settings) in table {
            let Value::Table(settings) = settings else {
                self.problem(format!(
                    "{}: `{section}` is no setting; settings stand in a section",
                    path.display()
                ));
                continue;
            };
            for (key, value) in settings {
                self.put(&section, &key, value, &path.display().to_string());
            }
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut variables: Vec<_> = variables.iter().collect();
        variables.sort();
        for (name, value) in variables {
            let Some(place) = name.to_str().and_then(|name| name.strip_prefix("OBOL_")) else { continue };
            let Some((section, key)) = place.split_once("__") else { continue };
            match value.to_str() {
                None => self.problem(format!("the variable OBOL_{place} is not UTF-8")),
                Some(value) => {
                    let source = format!("variable OBOL_{place}");
                    let value = config::scalar(value);
                    self.put(&section.to_ascii_lowercase(), &key.to_ascii_lowercase(), value, &source);
                }
            }
        }
    }

    /// Takes one setting, or says what is wrong with it.
    fn put(&mut self, section: &str, key: &str, value: Value, source: &str) {
        let name = format!("{section}.{key}");
        if !self.known.contains(&name) {
            let hint = self.nearest(&name).map_or(String::new(), |near| format!("; did you mean {near}?"));
            return self.problem(format!("{source}: there is no setting {name}{hint}"));
        }
        let shown = shown(&value);
        match one(section, key, value) {
            Err(error) => {
                let error = error.to_string();
                let what = error.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                self.problem(format!("{source}: {name} = {shown}: {what}"));
            }
            Ok(config) => {
                if let Some(Err(error)) = config.tqs.agent_users.map(|users| users.find()) {
                    self.problem(format!("{source}: {name} = {shown}: {error}"));
                }
            }
        }
        self.set.insert(name, (shown, source.to_owned()));
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let near = self.known.iter().map(|known| (distance(known, name), known)).min()?;
        (near.0 <= MAX_TYPING_ERRORS).then_some(near.1.as_str())
    }

    fn flags(&mut self, args: &ConfigCheckArgs) {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        for (name, flag, value) in [
            ("tqs.store", "--store", path(&args.tqs.store)),
            ("tqs.master_key", "--master-key", path(&args.tqs.master_key)),
            ("tqs.audit", "--audit", path(&args.tqs.audit)),
            ("rs.audit_log", "--audit-log", path(&args.rs.audit_log)),
            ("rs.audit_key", "--audit-key", path(&args.rs.audit_key)),
            ("rs.listen", "--listen", args.rs.listen.map(|listen| listen.to_string())),
            ("rs.audience", "--audience", args.rs.audience.clone()),
            ("rs.sessions", "--sessions", path(&args.rs.sessions)),
            ("rs.spent", "--spent", path(&args.rs.spent)),
        ] {
            if let Some(value) = value {
                self.set.insert(name.to_owned(), (value, format!("flag {flag}")));
            }
        }
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
                        "the agent's and the operator's socket are the same; name another for one of them",
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
                self.problem(format!("{what}: {} is no folder", folder.display()));
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

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        match self.set.get(name) {
            Some((path, _)) => Some(path.into()),
            None => default_of(name).map(PathBuf::from),
        }
    }

    fn files(&mut self) {
        for name in ["tqs.store", "tqs.audit", "rs.spent", "rs.audit_log"] {
            self.own_file(name, |path| PrivateFile::check_write(path));
        }
        for name in ["tqs.master_key", "rs.audit_key"] {
            self.own_file(name, |path| PrivateFile::check_read(path));
        }
        if let Some(path) = self.set.get("rs.sessions").map(|(path, _)| PathBuf::from(path)) {
            match PrivateFile::check_read(&path) {
                Err(error) if error.is_missing() => self.problem(format!(
                    "rs.sessions: {} is not there; `obol session create` makes one",
                    path.display()
                )),
                Err(error) => self.problem(format!("rs.sessions: {error}")),
                Ok(()) => {}
            }
        }
    }

    /// A file that is there must be ours alone; one that is not needs a folder to be created in.
    fn own_file(&mut self, name: &str, check: impl Fn(&Path) -> Result<(), PrivateFileError>) {
        let Some(path) = self.path_of(name) else { return };
        match check(&path) {
            Ok(()) => {}
            Err(error) if !error.is_missing() => self.problem(format!("{name}: {error}")),
            // The state folder is created where nothing is named.
            Err(_) if !self.set.contains_key(name) => {}
            Err(_) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                if !folder.is_dir() {
                    self.problem(format!("{name}: the folder {} is not there; create it", folder.display()));
                }
            }
        }
    }
}

/// A setting's value as people read it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => format!("({})", other.type_str()),
    }
}

fn our_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn setting(name: &str, value: &str, source: &str) -> Setting {
    Setting { name: name.to_owned(), value: value.to_owned(), source: source.to_owned() }
}

/// Reads a configuration of one setting.
fn one(section: &str, key: &str, value: Value) -> Result<Config, toml::de::Error> {
    let settings = Table::from_iter([(key.to_owned(), value)]);
    Value::Table(Table::from_iter([(section.to_owned(), Value::Table(settings))])).try_into()
}

/// Asks the configuration what it knows: it names what it expected in place of what cannot be there.
fn known_settings() -> Vec<String> {
    let nothing = "\u{1}";
    let sections = Value::Table(Table::from_iter([(nothing.to_owned(), Value::Boolean(true))]));
    let mut known = Vec::new();
    for section in expected(sections.try_into()) {
        for key in expected(one(&section, nothing, Value::Boolean(true))) {
            known.push(format!("{section}.{key}"));
        }
    }
    known
}

fn expected(error: Result<Config, toml::de::Error>) -> Vec<String> {
    let message = error.err().map(|error| error.message().to_owned()).unwrap_or_default();
    // "unknown field `x`, expected one of `a`, `b`": every second piece between back quotes is a name.
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// How many letters must be changed, put in or left out to make one word the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (to, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            *cell = (corner + usize::from(from != to)).min(above + 1).min(left + 1);
            corner = above;
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn tell(findings: &Findings) {
    let mut table = output::Table::new(&["setting", "value", "from"]);
    for setting in &findings.settings {
        table.row([setting.name.clone(), setting.value.clone(), setting.source.clone()]);
    }
    table.print();
    output::line("");
    if findings.problems.is_empty() {
        output::line("nothing is wrong");
    }
    for problem in &findings.problems {
        let mut line = String::from("problem: ");
        let _always = write!(line, "{problem}");
        output::line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_known_and_explained() {
        let known = known_settings();
        for name in ["log.level", "log.format", "tqs.store", "tqs.audit", "rs.listen", "rs.policy_epoch"] {
            assert!(known.iter().any(|known| known == name), "{name} in {known:?}");
        }
    }

    #[test]
    fn typing_errors_are_counted() {
        assert_eq!(distance("batch", "batch"), 0);
        assert_eq!(distance("batch", "bacth"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("store", "stores"), 1);
    }
}
