//! A call that has a name is carried out once, however often its connection breaks: the SDKs against a guarded API with retry
//! receipts, through a proxy that cuts the first answer to each.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use obol_resource::{Receipts, SpentToken, TbacLayer, ToolCall};
use obol_verify::SystemClock;
use obol_verify::receipt::{Limits, MemoryReceipts};
use obol_world::home::{self, command};
use obol_world::tqs::{self, Tqs};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{package, python};
use crate::end_to_end::api;

const AUDIENCE: &str = "https://bank.example";
/// How many calls a program makes.
const CALLS: u64 = 12;

/// An API whose handler takes a while, and counts how often it runs.
fn serve(runtime: &Runtime, home: &Path, ran: &Arc<AtomicU64>) -> SocketAddr {
    let clock = Arc::new(SystemClock::new());
    let receipts = Receipts::new(Arc::new(MemoryReceipts::new(Limits::default(), clock)));
    let gate = api::gate(home, AUDIENCE);
    let ran = Arc::clone(ran);
    let pay = move |_: SpentToken, Json(order): Json<Value>| async move {
        ran.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(30)).await;
        Json(order)
    };
    let routes = Router::new().route("/pay", post(pay)).route_layer(receipts.layer());
    let routes = routes.route_layer(TbacLayer::new(gate, ToolCall::new("pay")).json_arguments());
    runtime.block_on(api::listen(routes))
}

/// One request or answer whose head says how long it is; `None` at the end of the connection.
fn message(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut head, mut length) = (Vec::new(), 0);
    while !head.ends_with(b"\r\n\r\n") {
        let begin = head.len();
        if from.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&head[begin..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    head.extend(body);
    Some(head)
}

/// The name of a call.
fn key(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let value = text.lines().find_map(|line| line.strip_prefix("idempotency-key:"));
    value.unwrap().trim().to_owned()
}

/// Passes on what a client says, and cuts the first answer to each call: at once, while the handler runs, or at some byte.
fn cutting(mut client: TcpStream, server: SocketAddr, named: &Mutex<BTreeSet<String>>) {
    let upstream = TcpStream::connect(server).unwrap();
    let mut requests = BufReader::new(client.try_clone().unwrap());
    let mut answers = BufReader::new(upstream.try_clone().unwrap());
    while let Some(request) = message(&mut requests) {
        (&upstream).write_all(&request).unwrap();
        let cut = {
            let mut named = named.lock().unwrap();
            // Within the head: what follows one is the caller's to read.
            named.insert(key(&request)).then(|| 13 * (named.len() - 1) % 70)
        };
        if cut.is_some_and(|at| at % 2 == 0) {
            client.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let Some(answer) = message(&mut answers) else { break };
        let _gone = client.write_all(&answer[..cut.unwrap_or(answer.len())]);
        if cut.is_some() {
            break;
        }
    }
    let _gone = client.shutdown(std::net::Shutdown::Both);
}

fn each_is_carried_out_once(mut program: Command) {
    let home = home::home();
    let home = home.path();
    let created = command(home).args(["session", "create", "--audience", AUDIENCE, "--tool", "pay"]).output();
    assert!(created.unwrap().status.success());
    let _sidecar = Tqs::start(home, &["--session", "agent-session.json"]);
    let (runtime, ran) = (Runtime::new().unwrap(), Arc::new(AtomicU64::new(0)));
    let server = serve(&runtime, home, &ran);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = proxy.local_addr().unwrap();
    let named = Arc::<Mutex<BTreeSet<String>>>::default();
    let noted = Arc::clone(&named);
    std::thread::spawn(move || {
        for client in proxy.incoming() {
            let named = Arc::clone(&noted);
            std::thread::spawn(move || cutting(client.unwrap(), server, &named));
        }
    });
    program.env("BASE", format!("http://{place}")).env("AUDIENCE", AUDIENCE).env("CALLS", CALLS.to_string());
    program.env("OBOL_ENDPOINT_SOCKET", tqs::socket(home)).env_remove("OBOL_AUTH_SOCKET");
    let run = program.output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(ran.load(Ordering::Relaxed), CALLS, "each ran once");
    assert_eq!(u64::try_from(named.lock().unwrap().len()).unwrap(), CALLS, "each was cut once");
}

#[test]
fn a_node_program_has_each_named_call_carried_out_once_through_cuts() {
    let mut node = Command::new("node");
    node.arg("test/agent/real/named_calls.js").current_dir(package("node"));
    each_is_carried_out_once(node);
}

#[test]
fn a_python_program_has_each_named_call_carried_out_once_through_cuts() {
    let mut command = Command::new(python());
    command.arg("tests/real/named_calls.py").current_dir(package("python")).env("PYTHONPATH", "src");
    each_is_carried_out_once(command);
}
