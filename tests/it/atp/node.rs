//! The JavaScript implementation: its own tests, run by Node.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_javascript_tests_pass() {
    let package = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/node"));
    let mut tests: Vec<_> = std::fs::read_dir(package.join("test"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".test.js"))
        .collect();
    tests.sort();
    assert!(tests.len() >= 3, "{tests:?}");
    let run = Command::new("node")
        .arg("--test")
        .arg("--test-timeout=120000")
        .args(&tests)
        .env_remove("AGENTDOM_ATP_SECRET")
        .current_dir(&package)
        .output()
        .expect("node is installed by scripts/install");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}");
    assert!(!text.contains("# skipped 1"), "{text}");
}
