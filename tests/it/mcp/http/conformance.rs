//! The MCP project's own conformance tests, bare and with ours in between: what passes bare passes with them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use obol_world::home::{self, command, free_port, obol};
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::{Listening, guard};
use crate::mcp::pipe::{AUDIENCE, create_session, program};
use crate::sdk::modules;

/// The tools that the conformance tests of servers call.
const OPEN: &str = "open = [\"test_simple_text\", \"test_image_content\", \"test_audio_content\", \"test_embedded_resource\", \
                    \"test_multiple_content_types\", \"test_tool_with_logging\", \"test_error_handling\", \"test_tool_with_progress\", \
                    \"test_sampling\", \"test_elicitation\", \"test_elicitation_sep1034_defaults\", \"test_elicitation_sep1330_enums\", \
                    \"test_reconnection\", \"json_schema_2020_12_tool\"]\n";

fn conformance(home: &Path, arguments: &[&str]) -> Command {
    let mut command = command(home);
    let package = modules().join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    assert!(package.exists(), "run scripts/test, which fetches {}", package.display());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("MODULES", modules());
    let mut node = Command::new("node");
    node.current_dir(home).env_clear();
    for (name, value) in command.get_envs() {
        node.env(name, value.unwrap_or_default());
    }
    node.arg(package).args(arguments);
    node
}

/// The published server that has something of everything.
fn everything(home: &Path) -> Listening {
    let port = free_port();
    let mut command = Command::new("node");
    command.arg(modules().join("node_modules/@modelcontextprotocol/server-everything/dist/index.js"));
    command.arg("streamableHttp").current_dir(home).env("PORT", port.to_string());
    Listening::start(command, home, port)
}

/// The scenarios of which all passed.
fn passed(home: &Path, url: &str) -> BTreeSet<String> {
    let ran = conformance(home, &["server", "--url", url]).output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    let lines = said.lines().filter_map(|line| line.strip_prefix("✓ "));
    lines.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
}

#[test]
fn what_a_server_conforms_to_it_conforms_to_behind_the_guard() {
    let home = home::home();
    let home = home.path();
    create_session(home, &["--tool", "add"]);
    let server = everything(home);
    let bare = passed(home, &server.url());
    assert!(
        bare.len() >= 10 && bare.contains("tools-list") && bare.contains("server-sse-multiple-streams"),
        "{bare:?}"
    );
    std::fs::write(home.join("rules.toml"), OPEN).unwrap();
    let guard = guard(home, &server.url(), &["--spent", "memory", "--rules", "rules.toml"]);
    let guarded = passed(home, &guard.url());
    let lost: Vec<_> = bare.difference(&guarded).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// What a scenario for clients found, but for how long something took.
fn checks(home: &Path, scenario: &str, steps: &Value, paired: bool) -> BTreeSet<(String, String)> {
    let pair = format!("/bin/bash {}", program("pair.sh").display());
    let results = home.join(format!("results-{scenario}-{paired}"));
    let folder = results.to_str().unwrap();
    let mut run =
        conformance(home, &["client", "--command", &pair, "--scenario", scenario, "--output-dir", folder]);
    run.env("STEPS", steps.to_string()).env("OBOL", obol()).env("AUDIENCE", AUDIENCE);
    if paired {
        run.env("PAIR", "1").env("PORT", free_port().to_string());
    }
    let ran = run.output().unwrap();
    let mut found = BTreeSet::new();
    for file in walk(&results).iter().filter(|file| file.ends_with("checks.json")) {
        let checks: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
        found.extend(checks.iter().map(|check| (text(check, "id"), text(check, "status"))));
    }
    assert!(!found.is_empty(), "{scenario}: {ran:?}");
    found.into_iter().filter(|(id, status)| status != "INFO" && !id.ends_with("-timing")).collect()
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn what_a_client_conforms_to_it_conforms_to_through_wrapper_and_guard() {
    let home = home::home();
    let home = home.path();
    create_session(home, &["--tool", "add_numbers", "--tool", "test_reconnection"]);
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    for (scenario, steps) in [
        ("initialize", json!({})),
        ("tools_call", json!({"call": "add_numbers", "arguments": {"a": 5, "b": 3}})),
        ("sse-retry", json!({"call": "test_reconnection", "arguments": {}})),
    ] {
        let bare = checks(home, scenario, &steps, false);
        assert!(bare.iter().any(|(_, status)| status == "SUCCESS"), "{scenario}: {bare:?}");
        assert_eq!(checks(home, scenario, &steps, true), bare, "{scenario}");
    }
}
