//! `@obol/agent`: the rule book's cases, attackers, and whole processes.

use std::process::Command;

use super::{package, succeeds};

fn suite(file: &str) {
    let mut command = Command::new("node");
    command.args(["--test", "--test-timeout=300000"]).arg(format!("test/agent/{file}.test.js"));
    let text = succeeds(command.current_dir(package("node")));
    assert!(text.contains("# fail 0") && text.contains("# skipped 0"), "{text}");
}

#[test]
fn the_node_sdk_keeps_the_rule_book() {
    suite("conformance");
}
