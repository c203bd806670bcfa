//! `obol-agent`: the rule book's cases, blocking and with asyncio, attackers, and whole processes.

use std::process::Command;

use super::{package, python, succeeds};

fn suite(file: &str) {
    let mut command = Command::new(python());
    // An open socket or file that nobody closed is a failure.
    command.args(["-W", "error::ResourceWarning", "-m", "unittest", file]);
    command.env("PYTHONPATH", "src:tests").current_dir(package("python"));
    let text = succeeds(&mut command);
    assert!(text.contains("\nOK") && !text.contains("skipped"), "{text}");
}

#[test]
fn the_python_sdk_keeps_the_rule_book() {
    suite("test_conformance");
}

#[test]
fn the_python_sdk_reads_and_writes_the_golden_frames() {
    suite("test_frames");
}

#[test]
fn the_python_sdk_withstands_its_attackers() {
    suite("test_attacks");
}

#[test]
fn the_python_sdk_takes_nothing_for_an_answer_that_is_none() {
    suite("test_http");
}

#[test]
fn the_python_sdk_sends_nothing_to_a_server_without_a_certificate_that_holds() {
    suite("test_tls");
}

#[test]
fn the_lines_of_the_readme_for_python_run_as_they_stand() {
    suite("test_readme");
}

#[test]
fn the_python_sdk_gives_httpx_and_requests_a_token_for_each_request() {
    suite("test_auth");
}

#[test]
fn the_python_package_works_where_nothing_else_is_installed() {
    suite("test_package");
}

#[test]
fn the_examples_for_python_work_with_the_libraries_that_they_are_for() {
    suite("test_examples");
}
