//! Settings that cannot be: each is told before anything is opened, with what to do.

use obol_world::authority::{AsProcess, CATALOGUE, command_in, write_policy, write_settings};
use obol_world::home::{self, command};
use serde_json::Value;

use crate::cli::stdout;

#[test]
fn a_start_that_cannot_be_says_why_and_what_to_do_and_leaves_nothing() {
    let home = home::home();
    write_policy(&home.path().join("bad"), CATALOGUE, "permit");
    let long = format!("run/{}", "x".repeat(120));
    for (arguments, code, said) in [
        (&["--listen", "0.0.0.0:8720", "--origin", "https://as.example"][..], 4, "give --tls-cert"),
        (&["--listen", "0.0.0.0:8720"], 2, "--origin is needed"),
        (&["--origin", "http://as.example"], 2, "name an origin with https://"),
        (&["--origin", "https://as.example/path"], 2, "without anything behind"),
        (&["--org", ""], 2, "organisation"),
        (&["--tls-cert", "nowhere.crt", "--tls-key", "nowhere.key", "--origin", "https://a"], 2, "nowhere"),
        (&["--tls-cert", "nowhere.crt"], 2, "--tls-key"),
        (&["--http", "0.0.0.0:1"], 2, "loopback"),
        (&["--as-control-socket", &long], 2, "choose a shorter directory"),
        (&["--as-control-socket", "/proc/nowhere/as.sock"], 4, "--as-control-socket names another"),
        (&["--policy", "bad"], 2, "bad"),
        (&["--policy", "nowhere"], 2, "nowhere"),
    ] {
        let output = command(home.path()).arg("as").args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(!last.contains("panicked"), "{last}");
    }
    assert!(!home.path().join("run/obol/as-control.sock").exists(), "no socket is left");
}

#[test]
fn settings_that_cannot_be_are_found_without_starting() {
    let home = home::home();
    write_policy(&home.path().join("bad"), CATALOGUE, "permit");
    let check = || -> (Option<i32>, Value) {
        let output = command(home.path()).args(["config", "check", "--json"]).output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    for (settings, said) in [
        ("listen = \"0.0.0.0:1\"", "--origin is needed"),
        ("listen = \"0.0.0.0:1\"\norigin = \"https://a\"", "give --tls-cert"),
        ("tls_cert = \"/nowhere\"", "go together"),
        ("min_suite = 5", "must be 1 to 4"),
        ("session_life = 1", "must be 60 to 3600"),
        ("http = \"everywhere\"", "loopback"),
        ("policy = \"../../bad\"", "not valid"),
        ("master_key = \"/nowhere/key\"", "/nowhere does not exist"),
        ("orign = \"x\"", "did you mean as.origin"),
    ] {
        write_settings(home.path(), &format!("[as]\n{settings}\n"));
        let (code, report) = check();
        assert_eq!(code, Some(2), "{settings}: {report}");
        let problems = report["problems"].to_string();
        assert!(problems.contains(said), "{settings}: {problems}");
    }
    write_settings(home.path(), "[as]\nlisten = \"127.0.0.1:8721\"\nsession_life = 600\n");
    let (code, report) = check();
    assert_eq!(code, Some(0), "{report}");
}

#[test]
fn settings_hold_and_flags_go_before_them() {
    let home = home::home();
    let folder = home.path().join("state");
    std::fs::create_dir(&folder).unwrap();
    write_settings(
        home.path(),
        &format!(
            "[as]\nsession_life = 120\nlisten = \"127.0.0.1:1\"\ndirectory = \"{0}/d.redb\"\nidentity_key = \"{0}/i.key\"\n\
             master_key = \"{0}/m.key\"\norg = \"acme\"\n",
            folder.display()
        ),
    );
    let service = AsProcess::start(home.path());
    let (mut agent, _) = super::Agent::approved(&service, home.path(), "builder");
    let session = agent.open().unwrap();
    assert_eq!(session.half.expires_at - session.half.established_at, 120);
    assert_eq!(session.half.org_id, "acme");
    for file in ["d.redb", "i.key", "m.key"] {
        assert!(folder.join(file).exists(), "{file}");
    }
}

#[test]
fn the_line_to_pin_has_the_address_of_the_service_that_runs() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    let pin = || {
        let output = command_in(home.path(), &["as", "key", "--pin"]);
        assert!(output.status.success(), "{output:?}");
        stdout(&output).trim().to_owned()
    };
    // Its port was said by its command line, which nobody says again.
    assert_eq!(pin(), service.pin());
    let key = service.pin().rsplit_once('#').unwrap().1.to_owned();
    service.kill();
    assert_eq!(pin(), format!("http://127.0.0.1:8720#{key}"), "the control: without it, the usual one");
}
