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
