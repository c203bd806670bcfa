//! A process that is spoken to line by line, as an MCP client does.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use obol_world::home::{command, obol, write_private};
use serde_json::{Value, json};

use crate::sdk::python;

/// A program beside this file.
pub(super) fn program(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/it/mcp/programs")).join(name)
}

/// The server that writes down what reaches it.
pub(super) fn recording_server(home: &Path) -> Vec<OsString> {
    vec![python().into(), program("server.py").into(), home.join("seen").into()]
}

/// What reached it.
pub(super) fn seen(home: &Path) -> String {
    std::fs::read_to_string(home.join("seen")).unwrap_or_default()
}

pub(super) const AUDIENCE: &str = "https://tools.example";

/// `obol mcp wrap` in front of a command.
pub(super) fn wrapped(server: Vec<OsString>) -> Vec<OsString> {
    let words = ["mcp", "wrap", "--audience", AUDIENCE, "--"].map(OsString::from);
    [vec![obol().into()], words.to_vec(), server].concat()
}

/// `obol mcp guard` in front of a command.
pub(super) fn guarded(arguments: &[&str], server: Vec<OsString>) -> Vec<OsString> {
    let words = ["mcp", "guard", "--sessions", "rs-sessions.json", "--first-start"].map(OsString::from);
    let more = arguments.iter().map(OsString::from).chain(["--".into()]).collect();
    [vec![obol().into()], words.to_vec(), more, server].concat()
}

/// A session of both sides, of suite 2.
pub(super) fn create_session(home: &Path, arguments: &[&str]) {
    let create = ["session", "create", "--audience", AUDIENCE, "--suite", "2"];
    let created = command(home).args(create).args(arguments).output().unwrap();
    assert!(created.status.success(), "{created:?}");
}

/// From here on each token of the session asks for channel encryption.
pub(super) fn seal_all(home: &Path) {
    for (file, grants) in [("agent-session.json", "/grants"), ("rs-sessions.json", "/sessions/0/grants")] {
        let file = home.join(file);
        let mut document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for grant in document.pointer_mut(grants).unwrap().as_array_mut().unwrap() {
            grant["constraints"] = json!({"require_channel_encryption": true});
        }
        write_private(&file, &document.to_string());
    }
}

/// A process with pipes.
pub(super) struct Pipe {
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Pipe {
    /// Starts a command line; what it says on standard error is added to `pipe.log`.
    pub(super) fn start(home: &Path, line: &[OsString]) -> Self {
        Self::start_with(home, line, |_| {})
    }

    pub(super) fn start_with(home: &Path, line: &[OsString], more: impl FnOnce(&mut Command)) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("pipe.log")).unwrap();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(home).env_clear();
        command.env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        more(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take(), child, lines }
    }

    /// Says hello as a client of 2025-11-25.
    pub(super) fn initialize(&mut self) -> Value {
        self.try_initialize().expect("an answer")
    }

    /// The same; `None` where nobody answers.
    pub(super) fn try_initialize(&mut self) -> Option<Value> {
        let client = json!({"name": "t", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.write(format!("{hello}\n").as_bytes()).ok()?;
        serde_json::from_str(&self.hear()?).ok()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.input.as_mut().unwrap().write_all(bytes)
    }

    pub(super) fn tell(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(super) fn hear(&mut self) -> Option<String> {
        self.lines.next()?.ok()
    }

    pub(super) fn ask(&mut self, message: &Value) -> Value {
        self.tell(&message.to_string());
        self.answer()
    }

    pub(super) fn answer(&mut self) -> Value {
        serde_json::from_str(&self.hear().expect("an answer")).unwrap()
    }

    pub(super) fn call(&mut self, id: u64, tool: &str, arguments: &Value) -> Value {
        self.ask(&call(id, tool, arguments))
    }

    pub(super) fn kill(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }

    /// Closes its input, and waits for it to end: what else it said, and how it ended.
    pub(super) fn finish(mut self) -> (Vec<String>, Option<i32>) {
        drop(self.input.take());
        let mut rest = Vec::new();
        while let Some(line) = self.hear() {
            rest.push(line);
        }
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// The code of a refusal, of a tool or of another method.
pub(super) fn reason(answer: &Value) -> &str {
    let meta = [&answer["result"]["_meta"], &answer["error"]["data"]];
    let found = meta.iter().find_map(|meta| meta[obol_mcp::EXTENSION]["reason"].as_str());
    found.unwrap_or_else(|| panic!("no refusal: {answer}"))
}
