//! `obol atp serve` as a process, spoken to from outside: by the JavaScript implementation, and by the published npm package.

use std::path::{Path, PathBuf};
use std::process::Command;

use obol_world::home::obol;

pub(crate) fn node(script: &str, prepare: impl FnOnce(&mut Command)) {
    let package = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/node"));
    let mut command = Command::new("node");
    command.args(["--test", "--test-timeout=120000"]).arg(package.join("test/against").join(script));
    command.env("OBOL", obol()).env_remove("AGENTDOM_ATP_SECRET").current_dir(package);
    prepare(&mut command);
    let run = command.output().expect("node is installed by scripts/install");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}");
}

#[test]
fn the_javascript_agent_gets_its_tokens_here() {
    node("agent.js", |_| {});
}

#[test]
fn the_rust_agent_gets_its_tokens_from_the_javascript_provider() {
    node("rust_agent.js", |_| {});
}

#[test]
fn the_rust_agent_speaks_the_master_dialect_where_nothing_else_is_offered() {
    node("master_agent.js", |_| {});
}

#[test]
fn what_is_malformed_is_refused_alike_by_both_providers() {
    node("differential.js", |_| {});
}

#[test]
fn the_documented_lines_run_in_a_real_express() {
    let folder = obol().parent().unwrap().parent().unwrap().join("express");
    assert!(
        folder.join("node_modules/express").exists(),
        "run scripts/test, which fetches Express into {}",
        folder.display()
    );
    node("express.js", |command| {
        command.env("EXPRESS", folder);
    });
}

/// The published package, as `scripts/test` fetches it.
fn agentdom() -> PathBuf {
    let target = obol().parent().unwrap().parent().unwrap();
    let package = target.join("agentdom/package");
    assert!(
        package.join("lib/agent-tokens.js").exists(),
        "run scripts/test, which fetches agentdom 3.7.0 into {}",
        target.display()
    );
    package
}

#[test]
fn the_published_npm_client_issues_rotates_and_revokes_here() {
    node("npm_client.js", |command| {
        command.env("AGENTDOM", agentdom());
    });
}
