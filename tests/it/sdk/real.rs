//! Real processes: `obol tqs` mints, an SDK's program calls, and a guarded API verifies and spends; the sidecar is killed in the
//! middle.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Json, Router};
use obol_resource::{SpentToken, TbacLayer, ToolCall};
use obol_world::home::{self, command, write_private};
use obol_world::tqs::{self, Tqs};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{package, python};
use crate::end_to_end::api;

const AUDIENCE: &str = "https://api.example";
/// Calls that go through before each kill, and behind the last.
const CALLS: u64 = 8;

/// A session of both sides: `list` is plain, `sign` asks for proofs, `seal` for sealed bodies.
fn create_session(home: &Path, suite: u8) {
    let create = ["session", "create", "--audience", AUDIENCE, "--require-pop", "--suite"];
    let tools = ["--tool", "list", "--tool", "sign", "--tool", "seal"];
    let created = command(home).args(create).arg(suite.to_string()).args(tools).output().unwrap();
    assert!(created.status.success(), "{created:?}");
    let edit = |file: &str, grants: fn(&mut Value) -> &mut Value| {
        let file = home.join(file);
        let mut document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for grant in grants(&mut document).as_array_mut().unwrap() {
            grant["require_pop"] = json!(grant["tool"] == "sign");
            if grant["tool"] == "seal" {
                grant["constraints"] = json!({"require_channel_encryption": true});
            }
        }
        write_private(&file, &document.to_string());
    };
    edit("agent-session.json", |document| &mut document["grants"]);
    edit("rs-sessions.json", |document| &mut document["sessions"][0]["grants"]);
}

/// An API whose handlers count how often they ran.
fn serve(runtime: &Runtime, home: &Path, ran: &Arc<AtomicU64>) -> SocketAddr {
    let gate = api::gate(home, AUDIENCE);
    let layer = |tool: &str| TbacLayer::new(gate.clone(), ToolCall::new(tool));
    let counted = Arc::clone(ran);
    let list = move |_: SpentToken| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { "listed" }
    };
    let echo = |_: SpentToken, Json(arguments): Json<Value>| async move { Json(json!({"got": arguments})) };
    let routes = Router::new()
        .route("/v1/list", get(list).layer(layer("list")))
        .route("/v1/sign", post(echo).layer(layer("sign").json_arguments()))
        .route("/v1/seal", post(echo).layer(layer("seal").json_arguments()));
    runtime.block_on(api::listen(routes))
}

/// Runs an SDK's program against all that; kills the sidecar twice while it calls.
fn calls_go_on(mut program: Command, suite: u8) {
    let home = home::home();
    let home = home.path();
    create_session(home, suite);
    let mut sidecar = Tqs::start(home, &["--session", "agent-session.json"]);
    let (runtime, ran) = (Runtime::new().unwrap(), Arc::new(AtomicU64::new(0)));
    let server = serve(&runtime, home, &ran);
    program.env("BASE", format!("http://{server}")).env("AUDIENCE", AUDIENCE);
    program.env("OBOL_ENDPOINT_SOCKET", tqs::socket(home)).env_remove("OBOL_AUTH_SOCKET");
    let mut running = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let calls_are_made = || {
        let before = ran.load(Ordering::Relaxed);
        home::wait_until("calls are made", || ran.load(Ordering::Relaxed) >= before + CALLS);
    };
    for _ in 0..2 {
        calls_are_made();
        sidecar.kill();
        std::thread::sleep(Duration::from_millis(300));
        sidecar = Tqs::start(home, &["--session", "agent-session.json"]);
    }
    calls_are_made();
    drop(running.stdin.take());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(running.wait().unwrap().success(), "{rest}");
    let called: u64 = rest.trim().parse().unwrap();
    assert!(called >= 3 * CALLS, "{called}");
    assert_eq!(ran.load(Ordering::Relaxed), called, "each call ran once");
}

fn node() -> Command {
    let mut node = Command::new("node");
    node.arg("test/agent/real/calls.js").current_dir(package("node"));
    node
}

fn python_program() -> Command {
    let mut command = Command::new(python());
    command.arg("tests/real/calls.py").current_dir(package("python")).env("PYTHONPATH", "src");
    command
}

#[test]
fn a_node_program_calls_a_guarded_api_while_its_sidecar_is_killed() {
    for suite in [1, 3] {
        calls_go_on(node(), suite);
    }
}

#[test]
fn a_python_program_calls_a_guarded_api_while_its_sidecar_is_killed() {
    for suite in [1, 3] {
        calls_go_on(python_program(), suite);
    }
}
