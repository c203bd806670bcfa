//! `obol config check`: what is in force, where it comes from, and everything that is wrong.

use std::path::Path;

use serde_json::Value;

use crate::process::{self, command};

fn check(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, Value) {
    let output = command(home)
        .args(["config", "check", "--json"])
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn setting<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap()
}

#[test]
fn with_nothing_set_nothing_is_wrong_and_all_is_explained() {
    let home = process::home();
    let (code, report) = check(home.path(), &[], &[]);
    assert_eq!((code, &report["problems"]), (Some(0), &Value::Array(vec![])));
    assert_eq!(setting(&report, "tqs.batch")["value"], "10");
    assert_eq!(setting(&report, "tqs.batch")["source"], "default");
    let store = home.path().join(".local/state/obol/tokens.redb");
    assert_eq!(setting(&report, "tqs.store")["value"], store.display().to_string());
    assert!(!home.path().join(".local").exists(), "it changes nothing");
    for setting in report["settings"].as_array().unwrap() {
        let (name, value) = (setting["name"].as_str().unwrap(), setting["value"].as_str().unwrap());
        let may_be_unset = ["tqs.audit", "rs.audit_log", "rs.sessions", "file"].contains(&name);
        assert!(value != "-" || may_be_unset, "the default of {name} is not explained in check.rs");
    }
    let text = command(home.path()).args(["config", "check"]).output().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("nothing is wrong"));
}

#[test]
fn each_source_overrides_the_one_before_and_is_named() {
    let home = process::home();
    let file = home.path().join("obol.toml");
    process::write_private(&file, "[tqs]\nbatch = 7\nmin_life = 3\n[rs]\nlisten = \"127.0.0.1:1\"\n");
    let arguments = ["--config", "obol.toml", "--listen", "127.0.0.1:3"];
    let environment = [("OBOL_TQS__MIN_LIFE", "4"), ("OBOL_RS__LISTEN", "127.0.0.1:2")];
    let (code, report) = check(home.path(), &arguments, &environment);
    assert_eq!(code, Some(0), "{report}");
    for (name, value, source) in [
        ("tqs.batch", "7", "obol.toml"),
        ("tqs.min_life", "4", "variable OBOL_TQS__MIN_LIFE"),
        ("rs.listen", "127.0.0.1:3", "flag --listen"),
    ] {
        let setting = setting(&report, name);
        assert_eq!((&setting["value"], &setting["source"]), (&value.into(), &source.into()), "{name}");
    }
}

#[test]
fn all_problems_come_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let home = process::home();
    let open = home.path().join("open.key");
    std::fs::write(&open, "x").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = "[tqs]\nbacth = 7\nmax_ready = \"many\"\nmaster_key = \"open.key\"\nstore = \"nowhere/tokens.redb\"\n\
                [rs]\nsessions = \"none.json\"\n[sqt]\nbatch = 1\n";
    process::write_private(&home.path().join("obol.toml"), text);
    let long = format!("unix:///{}", "x".repeat(200));
    let environment = [
        ("OBOL_TQS__MAX_REDY", "4"),
        ("OBOL_RS__LISTEN", "nowhere"),
        ("OBOL_ENDPOINT_SOCKET", long.as_str()),
    ];
    let (code, report) = check(home.path(), &["--config", "obol.toml"], &environment);
    assert_eq!(code, Some(2));
    let problems: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    for says in [
        "no setting tqs.bacth; did you mean tqs.batch?",
        "tqs.max_ready = many",
        "chmod 600 open.key",
        "nowhere is not there",
        "none.json is not there",
        "no setting sqt.batch",
        "no setting tqs.max_redy; did you mean tqs.max_ready?",
        "rs.listen = nowhere",
        "the agent's socket",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(says)), "{says}: {problems:#?}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");

    process::write_private(&home.path().join("obol.toml"), "[tqs\n");
    let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
    assert_eq!((code, report["problems"].as_array().unwrap().len()), (Some(2), 1));
}
