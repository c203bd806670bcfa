//! The vectors of the local sockets in the hands of a stranger: a client that shares no code with Obol.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use obol_token::text::bytes_from_hex;
use serde_json::{Value, json};

const NEEDED: &str = "python3 is needed for this test; install Debian's package python3";

/// Reads every file of vectors with Python's standard library alone.
const READER: &str = r#"
import json, pathlib, struct, sys

count = 0
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    for case in json.loads(file.read_text(encoding="utf-8")):
        frame = bytes.fromhex(case["json"])
        length, = struct.unpack(">I", frame[:4])
        assert length == len(frame) - 4, case["what"]
        assert json.loads(frame[4:]) == case["message"], case["what"]
        count += 1
print(count)
"#;

fn vectors(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/ipc").join(name)
}

fn cases(name: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(vectors(name)).unwrap()).unwrap()
}

/// The frame of the first case that has all these members.
fn frame(name: &str, members: &Value) -> Vec<u8> {
    let fits = |case: &&Value| members.as_object().unwrap().iter().all(|(name, value)| case[name] == *value);
    let case = cases(name).iter().find(fits).unwrap()["json"].clone();
    bytes_from_hex(case.as_str().unwrap()).unwrap()
}

#[test]
fn a_stranger_reads_every_frame_as_the_message_beside_it() {
    let output = Command::new("python3").args(["-c", READER]).arg(vectors("")).output().expect(NEEDED);
    assert!(output.status.success(), "{output:?}");
    let names =
        ["agent.json", "as-control.json", "auth.json", "control.json", "hello.json", "rs-control.json"];
    let all: usize = names.iter().map(|name| cases(name).len()).sum();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), all.to_string());
}

fn received(stream: &mut UnixStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn the_python_script_in_the_protocol_document_understands_the_vectors() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let document = std::fs::read_to_string(page).unwrap();
    let script = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let hello = received(&mut stream);
        stream.write_all(&frame("hello.json", &json!({"from": "server"}))).unwrap();
        let request = received(&mut stream);
        let answer = json!({"kind": "response", "method": "dequeueToken", "what": "The token."});
        stream.write_all(&frame("agent.json", &answer)).unwrap();
        (hello, request)
    });
    let output = Command::new("python3")
        .args(["-c", script, "mail"])
        .env("OBOL_ENDPOINT_SOCKET", format!("unix://{}", path.display()))
        .output()
        .expect(NEEDED);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "dG9r\n");
    let (hello, request) = daemon.join().unwrap();
    assert_eq!((&hello["obol"], &hello["codec"]), (&json!(1), &json!("json")));
    assert_eq!(request["params"], json!({"tool": "mail", "waitMs": 5000}));
}
