//! `obol config check`: what is in force, where it comes from, and everything that is wrong.

use std::path::Path;

use obol_world::home::{self, command};
use serde_json::Value;

use crate::house::same_as_the_document;

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
    let home = home::home();
    let (code, report) = check(home.path(), &[], &[]);
    assert_eq!((code, &report["problems"]), (Some(0), &Value::Array(vec![])));
    assert_eq!(setting(&report, "tqs.batch")["value"], "10");
    assert_eq!(setting(&report, "tqs.batch")["source"], "default");
    let store = home.path().join(".local/state/obol/tokens.redb");
    assert_eq!(setting(&report, "tqs.store")["value"], store.display().to_string());
    assert!(!home.path().join(".local").exists(), "it changes nothing");
    for setting in report["settings"].as_array().unwrap() {
        let (name, value) = (setting["name"].as_str().unwrap(), setting["value"].as_str().unwrap());
        assert!(value != "-" || name == "file", "the default of {name} is not explained");
    }
    let text = command(home.path()).args(["config", "check"]).output().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("no problems found"));
}

#[test]
fn each_source_overrides_the_one_before_and_is_named() {
    let home = home::home();
    let file = home.path().join("obol.toml");
    home::write_private(&file, "[tqs]\nbatch = 7\nmin_life = 3\n[rs]\nlisten = \"127.0.0.1:1\"\n");
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
fn the_audit_log_has_one_flag_and_its_former_one_is_taken_with_a_warning() {
    let home = home::home();
    let (code, report) = check(home.path(), &["--audit-log", "log.jsonl"], &[]);
    assert_eq!((code, &report["warnings"]), (Some(0), &Value::Array(vec![])));
    for name in ["tqs.audit_log", "rs.audit_log"] {
        assert_eq!(setting(&report, name)["source"], "flag --audit-log");
    }
    let (code, report) = check(home.path(), &["--audit", "log.jsonl"], &[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(setting(&report, "tqs.audit_log")["source"], "flag --audit");
    assert_eq!(setting(&report, "rs.audit_log")["source"], "default");
    let warned = report["warnings"][0].as_str().unwrap();
    assert!(warned.contains("--audit is now called --audit-log"), "{warned}");
}

#[test]
fn all_problems_come_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let home = home::home();
    let open = home.path().join("open.key");
    std::fs::write(&open, "x").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = "[tqs]\nbacth = 7\nmax_ready = \"many\"\nmaster_key = \"open.key\"\nstore = \"nowhere/tokens.redb\"\n\
                [rs]\nsessions = \"none.json\"\n[sqt]\nbatch = 1\n";
    home::write_private(&home.path().join("obol.toml"), text);
    let long = format!("unix:///{}", "x".repeat(200));
    let environment = [
        ("OBOL_TQS__MAX_REDY", "4"),
        ("OBOL_RS__LISTEN", "nowhere"),
        ("OBOL_ENDPOINT_SOCKET", long.as_str()),
    ];
    let nowhere = format!("{} does not exist", home.path().join("nowhere").display());
    let (code, report) = check(home.path(), &["--config", "obol.toml"], &environment);
    assert_eq!(code, Some(2));
    let problems: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    for says in [
        "tqs.bacth is not a setting; did you mean tqs.batch?",
        "tqs.max_ready = many",
        "open.key",
        nowhere.as_str(),
        "none.json does not exist",
        "sqt.batch is not a setting",
        "tqs.max_redy is not a setting; did you mean tqs.max_ready?",
        "rs.listen = nowhere",
        "the agent's socket",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(says)), "{says}: {problems:#?}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");

    home::write_private(&home.path().join("obol.toml"), "[tqs\n");
    let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
    assert_eq!((code, report["problems"].as_array().unwrap().len()), (Some(2), 1));
}

#[test]
fn what_a_server_refuses_to_start_with_is_found_without_starting_it() {
    let home = home::home();
    let spent = home.path().join("spent.redb").display().to_string();
    for (text, word) in [
        ("[rs]\nlisten = \"0.0.0.0:8700\"", "loopback"),
        ("[rs]\nspent = \"redis://obol:swordfish@127.0.0.1:6379\"", "password"),
        ("[rs]\nspent = \"rediss://127.0.0.1\"", "TLS"),
        ("[rs]\nspent = \"ftp://127.0.0.1\"", "redis://host:port"),
        ("[rs]\nspent = \"unix:///r\"\nredis_namespace = \"a b\"", "namespace"),
        ("[rs]\nmax_ttl = 0", "rs.max_ttl = 0: must be 1 to 3600"),
        ("[rs]\nclock_skew = 99999", "rs.clock_skew = 99999: must be 0 to 600"),
        ("[tqs]\nhttp = \"nonsense\"", "loopback address such as"),
        ("[tqs]\nhttp = \"0.0.0.0:9466\"", "loopback"),
    ] {
        home::write_private(&home.path().join("obol.toml"), &format!("{text}\n"));
        let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
        let problems = report["problems"].as_array().unwrap();
        assert_eq!((code, problems.len()), (Some(2), 1), "{text}: {report}");
        assert!(problems[0].as_str().unwrap().contains(word), "{text}: {report}");
        assert!(!report.to_string().contains("swordfish"), "{report}");
        let role = if text.starts_with("[tqs]") {
            &["tqs"][..]
        } else {
            &["rs", "--session-store", "memory", "--audience", "a"]
        };
        let server = command(home.path()).args(role).args(["--config", "obol.toml"]).output().unwrap();
        let said = String::from_utf8_lossy(&server.stderr);
        assert!(matches!(server.status.code(), Some(2 | 4)) && said.contains(word), "{text}: {said}");
        assert!(!said.contains("swordfish"), "{said}");
    }
    for spent in ["unix:///run/redis.sock", "redis://127.0.0.1:6379", "memory", &spent] {
        home::write_private(&home.path().join("obol.toml"), &format!("[rs]\nspent = \"{spent}\"\n"));
        let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
        assert_eq!(code, Some(0), "{report}");
    }
}

/// Of a certificate that is named without its key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

#[test]
fn what_each_role_refuses_to_start_with_is_found_by_the_check_in_the_same_words() {
    let home = home::home();
    let pin = format!("http://127.0.0.1:9#{}", "11".repeat(32));
    let pinned = |section: &str, key: &str| format!("[{section}]\n{key} = \"{pin}\"\n");
    home::write_private(&home.path().join("tls.crt"), CERTIFICATE);
    let provider = |url: &str| format!("[atp_serve]\nurl = \"{url}\"\nscopes = [\"search\"]\n");
    let good = provider("https://api.example.com/v1/agent-tokens");
    let serve = &["atp", "serve", "--secrets", "secrets.json"][..];
    let agent = &["atp", "agent-id"][..];
    let rs = &["rs", "--session-store", "memory", "--spent", "memory"][..];
    let follower = &["rs", "--audience", "a", "--spent", "memory"][..];
    let made = command(home.path())
        .args(["atp", "secret", "new", "--secrets", "secrets.json", "--shared"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for (text, word, role) in [
        (provider("nonsense"), "an endpoint is https://", serve),
        (format!("{good}http = \"nonsense\""), "--http is a loopback address", serve),
        (format!("{good}http = \"0.0.0.0:9000\""), "--http is a loopback address", serve),
        (format!("{good}listen = \"0.0.0.0:8710\""), "is not a loopback address", serve),
        (format!("{good}secrets = \"none.json\""), "none.json", &["atp", "serve"]),
        (format!("{good}spent = \"ftp://x\""), "not a place to keep data", serve),
        (format!("{good}store = \"redis://u:swordfish@127.0.0.1\""), "password", serve),
        (format!("{good}tls_cert = \"tls.crt\""), "a certificate and its key go together", serve),
        (format!("{good}discovery = \"none.json\""), "none.json", serve),
        (format!("{good}single_use = [\"pay\"]"), "must be one of the scopes on offer", serve),
        ("[atp]\nagent_id_mode = \"nonsense\"".to_owned(), "agent_id_mode is machine or keyed", agent),
        ("[atp]\nkeychain = \"nonsense\"".to_owned(), "keychain", agent),
        ("[atp]\nendpoints = [\"nonsense\"]".to_owned(), "atp.endpoints", agent),
        ("[atp]\nhosts = [\"no host\"]".to_owned(), "atp.hosts", agent),
        ("[atp]\nmasters = [\"nonsense\"]".to_owned(), "atp.masters", agent),
        ("[atp]\nca_file = \"none.pem\"".to_owned(), "none.pem", agent),
        ("[rs]\naudience = \"a\\u0007b\"".to_owned(), "audience", rs),
        (format!("{}ca_file = \"none.pem\"", pinned("rs", "authority")), "none.pem", follower),
        (
            format!("{}http = \"nonsense\"", pinned("authenticator", "url")),
            "http must be",
            &["authenticator"],
        ),
        (format!("{}http = \"0.0.0.0:9\"", pinned("authenticator", "url")), "loopback", &["authenticator"]),
        (format!("{}ca_file = \"none.pem\"", pinned("authenticator", "url")), "none.pem", &["authenticator"]),
    ] {
        home::write_private(&home.path().join("obol.toml"), &format!("{text}\n"));
        let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
        let problems = report["problems"].as_array().unwrap();
        assert_eq!((code, problems.len()), (Some(2), 1), "{text}: {report}");
        let problem = problems[0].as_str().unwrap();
        assert!(problem.contains(word), "{text}: {problem}");
        let started = command(home.path()).args(role).args(["--config", "obol.toml"]).output().unwrap();
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(matches!(started.status.code(), Some(2 | 4)), "{text}: {said}");
        let words = problem.split_once("]: ").map_or(problem, |(_, words)| words);
        assert!(said.contains(words), "{text}: the check says {words}, and the start {said}");
        assert!(!report.to_string().contains("swordfish") && !said.contains("swordfish"), "{said}");
    }
    // What is right is not complained of.
    let right = format!(
        "{good}secrets = \"secrets.json\"\nspent = \"memory\"\nhttp = \"127.0.0.1:8711\"\n[atp]\nkeychain = \"file\"\n\
         [rs]\naudience = \"https://api\"\n[authenticator]\nurl = \"{pin}\"\nhttp = \"off\"\n"
    );
    home::write_private(&home.path().join("obol.toml"), &right);
    let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
    assert_eq!((code, &report["problems"]), (Some(0), &Value::Array(vec![])), "{report}");
}

#[test]
fn the_sample_has_every_setting_and_so_has_the_manual() {
    let home = home::home();
    let sample = command(home.path()).args(["config", "sample"]).output().unwrap();
    let sample = String::from_utf8(sample.stdout).unwrap();
    same_as_the_document("obol.toml", &sample);
    home::write_private(&home.path().join("obol.toml"), &sample);
    let (code, report) = check(home.path(), &["--config", "obol.toml"], &[]);
    assert_eq!(code, Some(0), "{report}");
    let manual = include_str!("../../../docs/operations.md");
    for setting in report["settings"].as_array().unwrap() {
        let name = setting["name"].as_str().unwrap();
        let Some((section, key)) = name.split_once('.') else { continue };
        assert!(sample.contains(&format!("\n#{key} = ")), "{name}");
        if section.starts_with("atp") {
            // docs/atp.md names these by their flags.
            continue;
        }
        let key_alone = section == "rs" && manual.contains(&format!("`{key}`"));
        let named =
            manual.contains(&format!("`{name}")) || key_alone || manual.contains(&format!("| `{key}` |"));
        assert!(named, "docs/operations.md does not name {name}");
    }
}
