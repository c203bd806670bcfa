//! Signatures over any JSON object: both languages find the same for the same text, however that is written.

use std::path::Path;
use std::process::{Command, Stdio};

use obol_atp::{canonical, sign_atp_body, verify_atp_signature};
use obol_world::home::{command, home, write_private};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::atp::agent::SECRET;

const COUNT: usize = 10_000;

#[derive(Deserialize)]
struct Line {
    text: String,
    signature: String,
}

/// Objects with names and texts from everywhere in Unicode, names that are numbers or mean something to JavaScript, doubles of all sizes;
/// members in any order, white space, escapes and forms of numbers as they come. And what JavaScript signs each with.
fn signed_in_javascript() -> Vec<Line> {
    let package = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/node"));
    let mut node = Command::new("node");
    node.arg(package.join("test/against/signatures.js")).args([&COUNT.to_string(), SECRET]);
    let run = node.output().expect("node is installed by scripts/install");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    run.stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// As `obol atp sign` reads it.
fn object(text: &str) -> Map<String, Value> {
    obol_secret::json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn ten_thousand_random_bodies_have_each_the_same_signature_in_both_languages() {
    let lines = signed_in_javascript();
    assert_eq!(lines.len(), COUNT);
    let mut rewritten = 0;
    for Line { text, signature } in &lines {
        let body = object(text);
        assert_eq!(&sign_atp_body(&body, SECRET.as_bytes()).unwrap(), signature, "{text}");
        rewritten += usize::from(canonical(&body).unwrap() != text.as_bytes());
        // Control: nothing that differs has that signature.
        let mut other = body;
        other.insert("one more".to_owned(), Value::Null);
        assert!(!verify_atp_signature(&other, signature, SECRET.as_bytes()), "{text}");
    }
    assert!(rewritten > COUNT / 2, "control: {rewritten} were not written in canonical form");
}

#[test]
fn the_command_signs_and_checks_what_the_libraries_do() {
    let home = home();
    write_private(&home.path().join("secret"), SECRET);
    for Line { text, signature } in signed_in_javascript().iter().take(20) {
        std::fs::write(home.path().join("body.json"), text).unwrap();
        let run = |arguments: &[&str]| {
            let mut sign = command(home.path());
            sign.args(["atp", "sign", "body.json", "--secret-file", "secret"]).args(arguments);
            sign.stdin(Stdio::null()).output().unwrap()
        };
        assert_eq!(String::from_utf8_lossy(&run(&[]).stdout).trim(), signature, "{text}");
        assert_eq!(run(&["--check", signature]).status.code(), Some(0), "{text}");
        assert_eq!(run(&["--check", &"00".repeat(32)]).status.code(), Some(3), "control: {text}");
    }
}
