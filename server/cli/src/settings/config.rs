//! Configuration: a TOML file, overridden by the environment, overridden by flags.
//!
//! A key `store` in section `tqs` is the variable `OBOL_TQS__STORE`. Unknown sections and keys are errors: a setting
//! with a typing error must not be taken for its default. Configuration holds no secrets, only where they are.
//!
//! What is empty counts as not set. Nothing depends on the folder somebody happens to stand in: a relative path in the
//! file is taken from the file's folder, in a variable from the state folder.
//!
//! Programs and `obol config check` read by the same way, [`Gathered`]: programs stop at the first problem, the check
//! names all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use obol_secret::file::read_public;
use serde::Deserialize;
use toml::{Table, Value};

use crate::exit::{Failure, Outcome};
use crate::places::{absolute, state_folder};
use crate::settings::args::LogLevel;
use crate::settings::shown::shown;
use crate::settings::{self, Kind, Log, RENAMED, Rs, Setting, Tqs};
pub(crate) use crate::settings::{As, Atp, AtpServe, Authenticator};

/// The longest file of settings, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Names this alike are taken for one another's typing errors.
const MAX_TYPING_ERRORS: usize = 3;

/// All settings; what is not set has a default where it is used.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) log: Log,
    pub(crate) tqs: Tqs,
    pub(crate) authenticator: Authenticator,
    pub(crate) rs: Rs,
    #[serde(rename = "as")]
    pub(crate) authority: As,
    pub(crate) atp: Atp,
    pub(crate) atp_serve: AtpServe,
}

impl Config {
    /// Reads the file and the environment of this process.
    pub(crate) fn load(named: Option<&Path>) -> Outcome<Self> {
        let variables: Vec<_> = std::env::vars_os().collect();
        let gathered = Gathered::read(named, &variables);
        match gathered.problems.first() {
            Some(problem) => Err(Failure::usage(format_args!("the configuration is wrong: {problem}"))),
            None => {
                gathered.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                Ok(gathered.config)
            }
        }
    }
}

/// Where settings come from, to read them again.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The configuration's file, if one was named.
    pub(crate) file: Option<PathBuf>,
    /// The log's level, if one was named.
    pub(crate) log: Option<LogLevel>,
}

/// A setting that is set.
#[derive(Debug)]
pub(crate) struct Set {
    /// As people may read it: without a password.
    pub(crate) shown: String,
    /// The file, or the variable.
    pub(crate) source: String,
}

/// What file and environment say, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Of what is right.
    pub(crate) config: Config,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// What is set, by name.
    pub(crate) set: BTreeMap<String, Set>,
    pub(crate) problems: Vec<String>,
    /// What works and should be written otherwise.
    pub(crate) warnings: Vec<String>,
    table: Table,
}

impl Gathered {
    /// Reads the file that was named or one of the usual ones, and then these variables.
    pub(crate) fn read(named: Option<&Path>, variables: &[(OsString, OsString)]) -> Self {
        let mut gathered = Self::default();
        match file(named, |name| variable(variables, name)) {
            Err(problem) => gathered.problems.push(problem),
            Ok(None) => {}
            Ok(Some(path)) => {
                match text_of(&path) {
                    Ok(text) => gathered.file(&text, &path),
                    Err(problem) => gathered.problems.push(problem),
                }
                gathered.file = Some(path);
            }
        }
        gathered.environment(variables);
        match Config::deserialize(Value::Table(gathered.table.clone())) {
            Ok(config) => gathered.config = config,
            Err(error) => gathered.problems.push(error.message().to_owned()),
        }
        gathered
    }

    fn file(&mut self, text: &str, path: &Path) {
        let place = path.display().to_string();
        let table: Table = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => return self.problems.push(format!("{place}: {}", without_excerpt(text, &error))),
        };
        let folder = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        let folder = folder.unwrap_or_else(state_folder);
        for (section, settings) in table {
            let Value::Table(settings) = settings else {
                self.problems.push(format!(
                    "{place}: `{section}` is not a setting: settings belong in a section such as [tqs]"
                ));
                continue;
            };
            for (key, value) in settings {
                self.put(&section, &key, |_| value, &folder, &place);
            }
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut variables: Vec<_> = variables.iter().collect();
        variables.sort();
        for (name, value) in variables {
            let Some(place) = name.to_str().and_then(|name| name.strip_prefix("OBOL_")) else { continue };
            let Some((section, key)) = place.split_once("__") else { continue };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let source = format!("variable OBOL_{place}");
            match value.to_str() {
                None => self.problems.push(format!("the variable OBOL_{place} is not UTF-8")),
                Some(text) => {
                    self.put(&section, &key, |setting| typed(setting, text), &state_folder(), &source);
                }
            }
        }
    }

    /// Takes one setting, or says what is wrong with it.
    fn put(
        &mut self,
        section: &str,
        key: &str,
        value: impl FnOnce(&Setting) -> Value,
        folder: &Path,
        source: &str,
    ) {
        let renamed = RENAMED.iter().find(|(of, old, _)| (*of, *old) == (section, key));
        let key = renamed.map_or(key, |(.., new)| {
            self.warnings.push(format!("{source}: {section}.{key} is now called {section}.{new}; rename it"));
            new
        });
        let name = format!("{section}.{key}");
        let Some(setting) = settings::all().find(|known| known.section == section && known.key == key) else {
            let hint = nearest(&name).map_or(String::new(), |near| format!("; did you mean {near}?"));
            return self.problems.push(format!("{source}: {name} is not a setting{hint}"));
        };
        let value = value(setting);
        if value.as_str() == Some("")
            || setting.kind == Kind::Paths && value.as_array().is_some_and(Vec::is_empty)
        {
            return;
        }
        let value = within(folder, setting, value);
        let shown = shown(&value);
        let taken = alone(setting, value.clone()).and_then(|()| setting.check(&value));
        if let Err(why) = taken {
            return self.problems.push(format!("{source}: {name} = {shown}: {why}"));
        }
        let section = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(section) = section {
            section.insert(key.to_owned(), value);
        }
        self.set.insert(name, Set { shown, source: source.to_owned() });
    }
}

/// A variable's text as its setting wants it. A list, where a setting takes one, is written with commas by its own type.
fn typed(setting: &Setting, text: &str) -> Value {
    let plain = || Value::String(text.to_owned());
    if setting.kind == Kind::Paths {
        let paths = text.split(',').map(str::trim).filter(|path| !path.is_empty());
        return Value::Array(paths.map(|path| Value::String(path.to_owned())).collect());
    }
    if setting.kind != Kind::Scalar || alone(setting, plain()).is_ok() {
        return plain();
    }
    text.parse().map(Value::Integer).or_else(|_| text.parse().map(Value::Boolean)).unwrap_or_else(|_| plain())
}

/// Whether a configuration of this one setting can be read.
fn alone(setting: &Setting, value: Value) -> Result<(), String> {
    let settings = Table::from_iter([(setting.key.to_owned(), value)]);
    let whole = Table::from_iter([(setting.section.to_owned(), Value::Table(settings))]);
    Config::deserialize(Value::Table(whole)).map(drop).map_err(|error| error.message().to_owned())
}

/// Paths that depend on no current folder. A word or an address in their place stays as it is, and so does what is not a path.
fn within(folder: &Path, setting: &Setting, value: Value) -> Value {
    let text = match value {
        Value::String(text) if matches!(setting.kind, Kind::Path | Kind::Paths) && !text.is_empty() => text,
        Value::Array(several) if setting.kind == Kind::Paths => {
            return Value::Array(several.into_iter().map(|one| within(folder, setting, one)).collect());
        }
        other => return other,
    };
    let is_path = setting.word().is_none_or(|word| text != word && !text.contains("://"));
    Value::String(if is_path { folder.join(text).display().to_string() } else { text })
}

/// What is wrong and where, without the line itself: there may be a password in it.
fn without_excerpt(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// The setting that was meant, if one is alike.
fn nearest(name: &str) -> Option<String> {
    let near = settings::all().map(|known| (distance(&known.name(), name), known.name())).min()?;
    (near.0 <= MAX_TYPING_ERRORS).then_some(near.1)
}

/// The text of a configuration's file.
pub(crate) fn text_of(path: &Path) -> Result<String, String> {
    let bytes = read_public(path, MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("{} is not UTF-8", path.display()))
}

/// Where the file is looked for, in this order; only one place if it was named.
pub(crate) fn places(named: Option<&Path>) -> Vec<PathBuf> {
    named_or_usual(named, |name| std::env::var_os(name)).map(|(places, _)| places).unwrap_or_default()
}

/// The file to read: the one named, or the first of the usual ones that is there.
fn file(named: Option<&Path>, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>, String> {
    let (places, is_named) = named_or_usual(named, lookup)?;
    Ok(places.into_iter().find(|path| is_named || path.is_file()))
}

/// The places, and whether it is one that was named and therefore must be there.
fn named_or_usual(
    named: Option<&Path>,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<(Vec<PathBuf>, bool), String> {
    if let Some(path) = named {
        return Ok((vec![path.to_owned()], true));
    }
    if let Some(path) = lookup("OBOL_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from) {
        if !path.is_absolute() {
            return Err(format!("OBOL_CONFIG must be an absolute path, not {}", path.display()));
        }
        return Ok((vec![path], true));
    }
    let user = absolute(&lookup, "XDG_CONFIG_HOME")
        .or_else(|| absolute(&lookup, "HOME").map(|home| home.join(".config")))
        .map(|folder| folder.join("obol/obol.toml"));
    Ok((user.into_iter().chain([PathBuf::from("/etc/obol/obol.toml")]).collect(), false))
}

fn variable(variables: &[(OsString, OsString)], name: &str) -> Option<OsString> {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(text: &str, environment: &[(&str, &str)]) -> Gathered {
        let variables: Vec<_> = environment.iter().map(|(k, v)| (k.into(), v.into())).collect();
        let mut gathered = Gathered::default();
        gathered.file(text, Path::new("/etc/obol/obol.toml"));
        gathered.environment(&variables);
        gathered.config = Config::deserialize(Value::Table(gathered.table.clone())).unwrap();
        gathered
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let gathered = gather(text, environment);
        if gathered.problems.is_empty() { Ok(gathered.config) } else { Err(gathered.problems.join("; ")) }
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
            ("", vec![("OBOL_RS__LISTEN", "nowhere")], "variable OBOL_RS__LISTEN: rs.listen = nowhere"),
        ] {
            let error = read(text, &environment).unwrap_err();
            assert!(error.contains(named), "{text:?} {environment:?}: {error}");
        }
    }

    #[test]
    fn the_type_of_a_setting_decides_how_a_variable_is_read() {
        for (name, text) in [("AUDIENCE", "true"), ("AUDIENCE", "7"), ("REDIS_NAMESPACE", "42")] {
            let config = read("", &[(&format!("OBOL_RS__{name}"), text)]).unwrap();
            let value = if name == "AUDIENCE" { config.rs.audience } else { config.rs.redis_namespace };
            assert_eq!(value.as_deref(), Some(text));
        }
        assert_eq!(read("", &[("OBOL_TQS__SANDBOX", "false")]).unwrap().tqs.sandbox, Some(false));
        assert!(read("", &[("OBOL_TQS__SANDBOX", "no")]).unwrap_err().contains("tqs.sandbox = no"));
    }

    #[test]
    fn a_setting_that_was_renamed_is_taken_by_its_old_name_and_warned_of() {
        for (text, environment) in
            [("[tqs]\naudit = \"/log\"", vec![]), ("", vec![("OBOL_TQS__AUDIT", "/log")])]
        {
            let gathered = gather(text, &environment);
            assert_eq!(gathered.config.tqs.audit_log, Some("/log".into()));
            assert!(gathered.problems.is_empty() && gathered.warnings.len() == 1, "{:?}", gathered.warnings);
            assert!(gathered.warnings[0].contains("tqs.audit is now called tqs.audit_log"));
        }
        assert!(gather("[tqs]\naudit_log = \"/log\"", &[]).warnings.is_empty());
    }

    #[test]
    fn what_is_empty_is_not_set() {
        let empty = [("OBOL_TQS__HTTP", ""), ("OBOL_TQS__BATCH", ""), ("OBOL_RS__SPENT", "")];
        assert_eq!(read("[tqs]\nhttp = \"\"\nstore = \"\"", &empty).unwrap(), Config::default());
        assert_eq!(read("[tqs]\nbatch = 7", &empty).unwrap().tqs.batch, Some(7), "and hides nothing");
    }

    #[test]
    fn no_path_is_taken_from_the_current_folder() {
        let text = "[tqs]\nstore = \"a/b\"\nmaster_key = \"/k\"\n[rs]\nspent = \"memory\"\nsession_store = \"unix:///r\"";
        let config = read(text, &[("OBOL_RS__AUDIT_LOG", "log")]).unwrap();
        assert_eq!(config.tqs.store, Some("/etc/obol/a/b".into()));
        assert_eq!(config.tqs.master_key, Some("/k".into()));
        assert_eq!(config.rs.spent, Some("memory".into()));
        assert_eq!(config.rs.session_store, Some("unix:///r".into()));
        assert_eq!(config.rs.audit_log, Some(state_folder().join("log")));
    }

    #[test]
    fn no_password_is_shown_of_a_file_that_is_wrong() {
        let broken = "[rs]\nspent = \"redis://obol:swordfish@host";
        for text in [broken.to_owned(), format!("{broken}\"\nlisten = \"x\"")] {
            let gathered = gather(&text, &[]);
            assert!(
                !format!("{gathered:?}").replace("redis://obol:swordfish@host\"", "").contains("swordfish")
            );
            assert!(!gathered.problems.is_empty());
            assert!(!gathered.problems.join("").contains("swordfish"), "{:?}", gathered.problems);
        }
    }

    #[test]
    fn numbers_have_a_range() {
        for (text, named) in
            [("max_ttl = 0", "1 to 3600"), ("clock_skew = 99999", "0 to 600"), ("policy_epoch = -1", "")]
        {
            let error = read(&format!("[rs]\n{text}"), &[]).unwrap_err();
            assert!(error.contains(named) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn typing_errors_are_counted() {
        assert_eq!(distance("batch", "batch"), 0);
        assert_eq!(distance("batch", "bacth"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("store", "stores"), 1);
    }

    #[test]
    fn a_named_file_comes_before_the_usual_ones() {
        let config = |path: &'static str| move |name: &str| (name == "OBOL_CONFIG").then(|| path.into());
        assert_eq!(file(Some(Path::new("x")), config("/y")), Ok(Some("x".into())));
        assert_eq!(file(None, config("/y")), Ok(Some("/y".into())));
        assert!(file(None, config("y")).is_err(), "a variable does not depend on the current folder");
        let home = |name: &str| match name {
            "HOME" => Some("/home/a".into()),
            "XDG_CONFIG_HOME" => Some("config".into()),
            _ => None,
        };
        let (places, _) = named_or_usual(None, home).unwrap();
        assert_eq!(
            places[0],
            Path::new("/home/a/.config/obol/obol.toml"),
            "a relative folder counts as none"
        );
    }
}
