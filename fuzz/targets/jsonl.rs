//! Any lines to `obol verify --jsonl`: each gets one line of JSON, of bounded length; no token is accepted twice; no
//! answer repeats a key.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use obol_conformance::run;
use obol_fuzz::{secrets, seeds};
use serde_json::Value;

/// An answer repeats at most the scope, each byte of which JSON may write as six, and the names of its fields.
const MAX_GROWTH: usize = 6;
const MAX_FIXED_BYTES: usize = 2048;

fuzz_target!(init: seeds::write_if_asked("jsonl"), |data: &[u8]| {
    let mut output = Vec::new();
    run(data, &mut output).expect("memory can be read and written");
    let output = String::from_utf8(output).expect("answers are text");
    assert!(output.is_empty() || output.ends_with('\n'));

    // A last line counts only if it is not empty.
    let lines: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
    let answers: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), answers.len(), "one answer a line");

    let mut accepted = HashSet::new();
    for (line, answer) in lines.into_iter().zip(answers) {
        assert!(answer.len() <= MAX_GROWTH * line.len() + MAX_FIXED_BYTES, "an answer of {} bytes", answer.len());
        secrets::assert_kept(line, answer);
        let answer: Value = serde_json::from_str(answer).expect("answers are JSON");
        if !answer["ok"].as_bool().expect("an answer says whether it is good") {
            assert!(answer["code"].is_string() && answer["failed_check"].is_string());
            continue;
        }
        let line: Value = serde_json::from_slice(line).expect("only JSON has good answers");
        match line["op"].as_str() {
            Some("reset") => accepted.clear(),
            Some("verify") if line["fresh"] == true => {}
            Some("verify") => {
                let token = (answer["session_id"].to_string(), answer["jti"].to_string());
                assert!(accepted.insert(token), "a token was accepted twice");
            }
            Some("mint") => assert!(answer["token_b64url"].is_string()),
            other => panic!("{other:?} was answered"),
        }
    }
});
