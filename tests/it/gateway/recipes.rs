//! `obol gateway add` with a recipe: written once, sealed, said nothing of, and good to do again.

use std::fs;
use std::path::Path;
use std::process::Output;

use obol_world::home::{command, home, write_private};

use super::SECRET;

fn add(home: &Path, name: &str, secret: &str, more: &[&str]) -> Output {
    write_private(&home.join("key.txt"), secret);
    let added = command(home)
        .args(["gateway", "add", name, "--apis", "apis", "--credential-file", "key.txt"])
        .args(more)
        .output()
        .unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&added.stdout), String::from_utf8_lossy(&added.stderr));
    assert!(!told.contains(secret), "{told}");
    added
}

#[test]
fn a_recipe_is_written_once_and_its_credential_sealed() {
    let home = home();
    let at = |name: &str| home.path().join("apis").join(name);
    let names = ["anthropic", "github", "gitlab", "openai", "slack", "stripe"];
    for name in names {
        let added = add(home.path(), name, SECRET, &[]);
        assert!(added.status.success(), "{added:?}");
        let sealed = fs::read(at(&format!("{name}.credential"))).unwrap();
        assert!(!sealed.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{name}");
    }
    let checked = command(home.path()).args(["gateway", "check", "--apis", "apis"]).output().unwrap();
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && told.contains("github: api.github.com:443, "), "{told}");
    assert_eq!(told.lines().count(), names.len());

    let own = fs::read_to_string(at("github.toml")).unwrap().replace("/contents/", "/other/");
    write_private(&at("github.toml"), &own);
    let sealed = fs::read(at("github.credential")).unwrap();
    assert!(add(home.path(), "github", SECRET, &[]).status.success(), "the same again");
    let other = add(home.path(), "github", "another-secret-0123456789", &[]);
    assert_eq!(other.status.code(), Some(2), "{other:?}");
    assert_eq!(fs::read(at("github.credential")).unwrap(), sealed, "nothing was changed");
    assert!(add(home.path(), "github", "another-secret-0123456789", &["--replace"]).status.success());
    assert_ne!(fs::read(at("github.credential")).unwrap(), sealed);
    assert_eq!(fs::read_to_string(at("github.toml")).unwrap(), own, "it is the operator's");

    let unknown = add(home.path(), "saas", SECRET, &[]);
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(2) && told.contains("gitlab"), "{told}");
    assert!(!at("saas.toml").exists() && !at("saas.credential").exists());
}

const COMPOSE: &str = include_str!("../../../server/gateway/compose/compose.yaml");

/// Docker is not asked; that what the file sets is what servers read, is.
#[test]
fn what_the_compose_file_sets_is_read_and_its_policy_holds() {
    let home = home();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/gateway/compose/policy");
    let checked = command(home.path()).args(["policy", "check"]).arg(&policy).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let lines =
        COMPOSE.lines().map(str::trim).filter(|line| line.starts_with("OBOL_") && line.contains("__"));
    let set: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    assert!(set.len() >= 6, "{set:?}");
    let (pin, here) = (format!("http://127.0.0.1:8720#{}", "ab".repeat(32)), home.path().to_str().unwrap());
    let check = |more: Option<(&str, &str)>| {
        let mut check = command(home.path());
        check.args(["config", "check"]);
        for (name, value) in set.iter().copied().chain(more) {
            let value = value.trim_matches('"').replace("${OBOL_AUTHORITY:-}", &pin);
            let value = value.replace("/etc/obol/policy", policy.to_str().unwrap());
            check.env(name, value.replace("/var/lib/obol-as", here).replace("/var/lib/obol-gateway", here));
        }
        check.output().unwrap()
    };
    let checked = check(None);
    assert!(checked.status.success(), "{checked:?}");
    assert!(!check(Some(("OBOL_RS__AUDIENZE", "x"))).status.success(), "the control");
}
