//! Configuration: a TOML file, overridden by the environment, overridden by flags.
//!
//! A key `store` in section `tqs` is the variable `OBOL_TQS__STORE`. Unknown sections and keys are errors: a setting
//! with a typing error must not be taken for its default. Configuration holds no secrets, only where they are.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use obol_secret::file::read_public;
use serde::Deserialize;
use toml::{Table, Value};

use crate::agent_users::AgentUserNames;
use crate::args::{LogFormat, LogLevel};
use crate::exit::{Failure, Outcome};

/// The longest file of settings, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// All settings; what is not set has a default where it is used.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) log: Log,
    pub(crate) tqs: Tqs,
    pub(crate) rs: Rs,
    pub(crate) atp: Atp,
    pub(crate) atp_serve: AtpServe,
}

/// The log on standard error.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// How much.
    pub(crate) level: Option<LogLevel>,
    /// Lines for people, or JSON for programs.
    pub(crate) format: Option<LogFormat>,
}

/// The Token Queue Service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tqs {
    /// The token store.
    pub(crate) store: Option<PathBuf>,
    /// The master key's file.
    pub(crate) master_key: Option<PathBuf>,
    /// Tokens in a batch under little load.
    pub(crate) batch: Option<u16>,
    /// The most tokens in memory for one tool.
    pub(crate) max_ready: Option<usize>,
    /// The most tokens for one tool in all.
    pub(crate) max_depth: Option<usize>,
    /// The least life of a token handed out, in seconds.
    pub(crate) min_life: Option<u64>,
    /// The users whose processes are agents, where they are others than the sidecar's own.
    pub(crate) agent_users: Option<AgentUserNames>,
    /// Where the audit log is written; nowhere if not said.
    pub(crate) audit: Option<PathBuf>,
    /// The size at which a file of the audit log is closed and the next one begun, in bytes.
    pub(crate) audit_file_bytes: Option<u64>,
    /// The most connections on the agent's socket at a time.
    pub(crate) connections: Option<usize>,
    /// Requests a second of one connection; 0 for no limit.
    pub(crate) connection_rate: Option<u32>,
    /// Requests a second of all connections of one user; 0 for no limit.
    pub(crate) user_rate: Option<u32>,
    /// When all connections are taken, one that was silent for this many seconds makes room.
    pub(crate) idle: Option<u64>,
    /// Where `/livez`, `/readyz` and `/metrics` are served: a loopback address, `unix:///path`, or `off`.
    pub(crate) http: Option<String>,
    /// The name under which the kernel's keyring holds the master key.
    pub(crate) keychain: Option<String>,
    /// Whether to give up what is not needed, by Landlock and seccomp.
    pub(crate) sandbox: Option<bool>,
}

/// A resource server.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rs {
    /// Address to listen on.
    pub(crate) listen: Option<SocketAddr>,
    /// The tokens' audience.
    pub(crate) audience: Option<String>,
    /// The sessions' file.
    pub(crate) sessions: Option<PathBuf>,
    /// Where sessions are kept: a file, `memory`, or the address of a Redis or Valkey.
    pub(crate) session_store: Option<PathBuf>,
    /// The file with the key that kept sessions are sealed under.
    pub(crate) session_key: Option<PathBuf>,
    /// Where spent tokens are kept: a file, `memory`, or the address of a Redis or Valkey.
    pub(crate) spent: Option<PathBuf>,
    /// The Redis user's password is the text of this file.
    pub(crate) redis_password_file: Option<PathBuf>,
    /// The first part of every key in Redis.
    pub(crate) redis_namespace: Option<String>,
    /// How many replicas of Redis must have a mark before a token is accepted.
    pub(crate) redis_wait_replicas: Option<u32>,
    /// How far this machine's clock and that of Redis may be apart, in seconds.
    pub(crate) redis_clock_difference: Option<u64>,
    /// Redis does not tell its maxmemory-policy, and it is noeviction.
    pub(crate) redis_assume_noeviction: Option<bool>,
    /// How far clocks may differ, in seconds.
    pub(crate) clock_skew: Option<u64>,
    /// The longest life a token may have, in seconds.
    pub(crate) max_ttl: Option<u64>,
    /// Where the audit log is written; nowhere if not said.
    pub(crate) audit_log: Option<PathBuf>,
    /// The file with the key that the audit log is sealed under.
    pub(crate) audit_key: Option<PathBuf>,
    /// The size at which a file of the audit log is closed and the next one begun, in bytes.
    pub(crate) audit_file_bytes: Option<u64>,
    /// Whether to give up what is not needed, by Landlock and seccomp.
    pub(crate) sandbox: Option<bool>,
    /// Tokens of an older policy epoch are refused.
    pub(crate) policy_epoch: Option<u64>,
    /// The file with the policy of this server, by agent and tool; `any` for sessions that say nothing of grants to be
    /// accepted without.
    pub(crate) templates: Option<PathBuf>,
}

/// An agent of the Agent Token Protocol.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Atp {
    /// The folder with the agent's name and tokens.
    pub(crate) state: Option<PathBuf>,
    /// The file with the secret.
    pub(crate) secret_file: Option<PathBuf>,
    /// The certificate authorities that are trusted, and no others.
    pub(crate) ca_file: Option<PathBuf>,
    /// Further hosts that the plain secret of the environment may be used for.
    pub(crate) hosts: Option<Vec<String>>,
    /// Endpoints that are used though they are not at the host whose document names them.
    pub(crate) endpoints: Option<Vec<String>>,
    /// Hosts that may be at addresses that are not public.
    pub(crate) allow_private: Option<Vec<String>>,
}

/// A provider of the Agent Token Protocol.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AtpServe {
    /// The token endpoint as agents see it.
    pub(crate) url: Option<String>,
    /// Address to listen on.
    pub(crate) listen: Option<SocketAddr>,
    /// The scopes on offer.
    pub(crate) scopes: Option<Vec<String>>,
    /// Scopes whose tokens are good for one request.
    pub(crate) single_use: Option<Vec<String>>,
    /// The file of secrets, agents and masters.
    pub(crate) secrets: Option<PathBuf>,
    /// The certificate chain.
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key.
    pub(crate) tls_key: Option<PathBuf>,
    /// Where `/livez`, `/readyz` and `/metrics` are served: a loopback address, or `off`.
    pub(crate) http: Option<String>,
    /// The life of a token, in seconds.
    pub(crate) ttl: Option<u64>,
    /// The longest life of a token under a master, in seconds.
    pub(crate) max_ttl: Option<u64>,
    /// How long ago a request may have been signed, in seconds.
    pub(crate) window: Option<u64>,
    /// How tokens are signed: `HS256` or `EdDSA`.
    pub(crate) algorithm: Option<obol_atp::jwt::Algorithm>,
    /// Requests a second of one address; 0 for no limit.
    pub(crate) address_rate: Option<u32>,
    /// Requests a second of one agent, after ten at once; 0 for no limit.
    pub(crate) agent_rate: Option<u32>,
    /// Where JWT keys, tokens and revocations are kept: a file, or `memory`.
    pub(crate) store: Option<PathBuf>,
    /// The file with the key that the store is sealed under.
    pub(crate) key: Option<PathBuf>,
    /// Where answered requests are remembered: a file, `memory`, or the address of a Redis or Valkey.
    pub(crate) spent: Option<PathBuf>,
    /// The Redis user's password is the text of this file.
    pub(crate) redis_password_file: Option<PathBuf>,
    /// The first part of every key in Redis.
    pub(crate) redis_namespace: Option<String>,
    /// Where the audit log is written; nowhere if not said.
    pub(crate) audit_log: Option<PathBuf>,
    /// The file with the key that the audit log is sealed under.
    pub(crate) audit_key: Option<PathBuf>,
    /// A JSON file with `name` and `capabilities` for the discovery document.
    pub(crate) discovery: Option<PathBuf>,
    /// Whether a request must name this endpoint.
    pub(crate) require_aud: Option<bool>,
    /// Whether the dialect of masters is switched off.
    pub(crate) signed_only: Option<bool>,
}

impl Config {
    /// Reads the file and the environment of this process.
    pub(crate) fn load(named: Option<&Path>) -> Outcome<Self> {
        let environment: Vec<_> = std::env::vars_os().collect();
        let lookup = |name: &str| std::env::var_os(name);
        match file(named, lookup) {
            None => Self::read("", Path::new("(no file)"), &environment),
            Some(path) => {
                let text = text_of(&path).map_err(Failure::usage)?;
                Self::read(&text, &path, &environment)
            }
        }
    }

    fn read(text: &str, path: &Path, environment: &[(OsString, OsString)]) -> Outcome<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::usage(format_args!("the configuration in {} is wrong: {error}", path.display()))
        };
        let mut table: Table = toml::from_str(text).map_err(|error| wrong(&error))?;
        // The file on its own first, so that an error in it is not blamed on the environment.
        Self::deserialize(Value::Table(table.clone())).map_err(|error| wrong(&error))?;
        for (name, value) in environment {
            overlay(&mut table, name, value)?;
        }
        Self::deserialize(Value::Table(table)).map_err(|error| {
            Failure::usage(format_args!("a setting in the environment (OBOL_SECTION__KEY) is wrong: {error}"))
        })
    }
}

/// The text of a configuration's file.
pub(crate) fn text_of(path: &Path) -> Result<String, String> {
    let bytes = read_public(path, MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("{} is not UTF-8", path.display()))
}

/// Where the file is looked for, in this order; only one place if it was named.
pub(crate) fn places(named: Option<&Path>) -> Vec<PathBuf> {
    named_or_usual(named, |name| std::env::var_os(name)).0
}

/// The file to read: the one named, or the first of the usual ones that is there.
pub(crate) fn file(named: Option<&Path>, lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let (places, is_named) = named_or_usual(named, lookup);
    places.into_iter().find(|path| is_named || path.is_file())
}

/// The places, and whether it is one that was named and therefore must be there.
fn named_or_usual(named: Option<&Path>, lookup: impl Fn(&str) -> Option<OsString>) -> (Vec<PathBuf>, bool) {
    if let Some(path) = named {
        return (vec![path.to_owned()], true);
    }
    if let Some(path) = lookup("OBOL_CONFIG").filter(|path| !path.is_empty()) {
        return (vec![path.into()], true);
    }
    let user = lookup("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(lookup("HOME")?).join(".config")))
        .map(|folder| folder.join("obol/obol.toml"));
    (user.into_iter().chain([PathBuf::from("/etc/obol/obol.toml")]).collect(), false)
}

/// Puts one variable of the form `OBOL_SECTION__KEY` into the table.
fn overlay(table: &mut Table, name: &OsString, value: &OsString) -> Outcome {
    let Some(place) = name.to_str().and_then(|name| name.strip_prefix("OBOL_")) else { return Ok(()) };
    let Some((section, key)) = place.split_once("__") else { return Ok(()) };
    let value = value
        .to_str()
        .ok_or_else(|| Failure::usage(format_args!("the variable OBOL_{place} is not UTF-8")))?;
    let section = table
        .entry(section.to_ascii_lowercase())
        .or_insert_with(|| Value::Table(Table::new()))
        .as_table_mut()
        .ok_or_else(|| Failure::usage(format_args!("OBOL_{place} names a section that is none")))?;
    section.insert(key.to_ascii_lowercase(), scalar(value));
    Ok(())
}

/// A number or a truth value where it looks like one, text otherwise.
pub(crate) fn scalar(value: &str) -> Value {
    value
        .parse()
        .map(Value::Integer)
        .or_else(|_| value.parse().map(Value::Boolean))
        .unwrap_or_else(|_| Value::String(value.to_owned()))
}

/// Where state is kept if nothing else is said: `$XDG_STATE_HOME/obol`, `~/.local/state/obol`, or `/var/lib/obol`
/// where there is no home.
pub(crate) fn state_folder() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map_or_else(|| PathBuf::from("/var/lib/obol"), |folder| folder.join("obol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment: Vec<_> = environment.iter().map(|(k, v)| (k.into(), v.into())).collect();
        Config::read(text, Path::new("obol.toml"), &environment).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config =
            read("[tqs]\nbatch = 5\nstore = \"/a\"", &[("OBOL_TQS__BATCH", "7"), ("PATH", "x")]).unwrap();
        assert_eq!(config.tqs.batch, Some(7));
        assert_eq!(config.tqs.store, Some("/a".into()));
    }

    #[test]
    fn what_is_not_known_or_of_the_wrong_kind_is_named() {
        for (text, environment, named) in [
            ("[tqs]\nbacth = 5", vec![], "bacth"),
            ("[tsq]\nbatch = 5", vec![], "tsq"),
            ("[tqs]\nbatch = \"many\"", vec![], "batch"),
            ("[tqs", vec![], "obol.toml"),
            ("", vec![("OBOL_TQS__BACTH", "5")], "bacth"),
            ("", vec![("OBOL_RS__LISTEN", "nowhere")], "environment"),
        ] {
            let error = read(text, &environment).unwrap_err();
            assert!(error.contains(named), "{text:?} {environment:?}: {error}");
        }
    }

    #[test]
    fn a_named_file_comes_before_the_usual_ones() {
        assert_eq!(file(Some(Path::new("x")), |_| Some("y".into())), Some("x".into()));
        assert_eq!(file(None, |name| (name == "OBOL_CONFIG").then(|| "y".into())), Some("y".into()));
    }
}
