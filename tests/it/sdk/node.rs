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

#[test]
fn the_node_sdk_reads_and_writes_the_golden_frames() {
    suite("frames");
}

#[test]
fn the_node_sdk_withstands_its_attackers() {
    suite("attacks");
}

#[test]
fn the_node_sdk_sends_nothing_to_a_server_without_a_certificate_that_holds() {
    suite("tls");
}

#[test]
fn the_lines_of_the_readme_for_node_run_as_they_stand() {
    suite("readme");
}

#[test]
fn the_node_package_works_where_nothing_else_is_installed() {
    suite("package");
}

#[test]
fn the_examples_for_node_work_with_the_libraries_that_they_are_for() {
    suite("examples");
}
