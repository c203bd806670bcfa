//! A human's yes to a call, asked for by programs: the SDK for Node, the one for Python, and `obol fetch`, which is the one for Rust.
//! The API checks the arguments that the human saw.

use core::sync::atomic::{AtomicU64, Ordering};
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use obol_resource::{Gate, SpentToken, TbacLayer, ToolCall};
use obol_verify::{MemorySpentSet, SystemClock};
use obol_world::home::command;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{CATALOGUE, POLICIES, Replica, World};
use crate::sdk::{package, python};

const URL: &str = "https://api.example/v1/pay";
const ARGUMENTS: &str = r#"{"amount":"12.50"}"#;

/// All of it, and an API that counts how often it paid.
struct Paying {
    world: World,
    paid: Arc<AtomicU64>,
    _api: Runtime,
}

impl Paying {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let via = format!("http://{}", listener.local_addr().unwrap());
        let routes = format!(
            "risk = \"high\"\nroutes = [{{ path = \"/v1/**\", method = \"POST\", via = \"{via}\" }}]"
        );
        let world = World::with(&CATALOGUE.replace("risk = \"high\"", &routes), POLICIES);
        let spent = MemorySpentSet::unfenced(Arc::new(SystemClock::new()), 60);
        let Replica { verifier, _runtime: follows, .. } = Replica::start(&world.service, Arc::new(spent));
        let call = ToolCall::new("pay").action("pay").resource("accounts/7");
        let layer = TbacLayer::new(Gate::new(verifier), call).json_arguments();
        let paid = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&paid);
        let pay = move |_: SpentToken, Json(arguments): Json<Value>| async move {
            counted.fetch_add(1, Ordering::Relaxed);
            Json(json!({"paid": arguments["amount"]}))
        };
        listener.set_nonblocking(true).unwrap();
        let routes = Router::new().route("/v1/pay", post(pay).layer(layer));
        follows.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
        Self { world, paid, _api: follows }
    }

    fn paid(&self) -> u64 {
        self.paid.load(Ordering::Relaxed)
    }

    /// The one request that waits, as the human sees it.
    fn waiting(&self) -> Value {
        let shown = self.world.service.told(&["approvals"]);
        assert_eq!(shown["approvals"].as_array().unwrap().len(), 1, "{shown}");
        shown["approvals"][0].clone()
    }

    fn decide(&self, word: &str, id: &str) {
        let yes: &[&str] = if word == "approve" { &["--yes"] } else { &[] };
        self.world.service.told(&[&[word, id], yes].concat());
    }
}

/// A program of an SDK: a line in, `never` or `wait`, and what comes of a call out; before it the prompt.
struct Program {
    running: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(mut program: Command, world: &World) -> Self {
        program.env("XDG_RUNTIME_DIR", world.path().join("run"));
        program.env_remove("OBOL_ENDPOINT_SOCKET").env_remove("OBOL_AUTH_SOCKET");
        let mut running = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
        Self { running, to, from: BufReader::new(from).lines() }
    }

    fn told(&mut self) -> String {
        self.from.next().expect("the program goes on").unwrap()
    }

    fn say(&mut self, word: &str) -> String {
        writeln!(self.to, "{word}").unwrap();
        self.told()
    }

    /// Has it ask a human; gives what they decide by.
    fn ask(&mut self) -> String {
        let prompt: Value = serde_json::from_str(&self.say("wait")).unwrap();
        prompt["approval_id"].as_str().unwrap().to_owned()
    }
}

fn a_program_asks(program: Command) {
    let mut paying = Paying::start();
    let mut program = Program::start(program, &paying.world);
    assert_eq!(program.say("never"), "APPROVAL_REQUIRED");

    let id = program.ask();
    let shown = paying.waiting();
    assert_eq!(shown["approvalId"], json!(id), "the human decides by what the program showed");
    assert_eq!(
        (&shown["purpose"], &shown["calls"][0]["arguments"]),
        (&json!("invoice 7"), &json!(ARGUMENTS))
    );
    assert_eq!(shown["calls"][0]["resource"], "accounts/7");
    assert_eq!(paying.paid(), 0);
    paying.decide("approve", &id);
    assert_eq!(program.told(), r#"200 {"paid":"12.50"}"#);
    assert_eq!(paying.paid(), 1);

    let id = program.ask();
    paying.decide("deny", &id);
    assert_eq!(program.told(), "APPROVAL_DENIED");

    paying.world.service.kill();
    assert_eq!(program.say("wait"), "AUTHORITY_UNREACHABLE");
    assert_eq!(paying.paid(), 1, "one yes, one payment");
    drop(program.to);
    assert!(program.running.wait().unwrap().success());
}

#[test]
fn a_node_program_asks_a_human_and_pays_once() {
    let mut node = Command::new("node");
    node.arg("test/agent/real/approvals.js").current_dir(package("node"));
    a_program_asks(node);
}

#[test]
fn a_python_program_asks_a_human_and_pays_once() {
    let mut command = Command::new(python());
    command.arg("tests/real/approvals.py").current_dir(package("python")).env("PYTHONPATH", "src");
    a_program_asks(command);
}

#[test]
fn obol_fetch_asks_a_human_and_pays_once() {
    let paying = Paying::start();
    let home = paying.world.path().to_owned();
    let fetch = |options: &[&str]| {
        let mut fetch = command(&home);
        fetch.args(["fetch", URL, "--data", ARGUMENTS, "--json"]).args(options);
        fetch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let unasked = fetch(&[]).wait_with_output().unwrap();
    assert_eq!(unasked.status.code(), Some(3), "{unasked:?}");
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("APPROVAL_REQUIRED"), "{unasked:?}");

    // The request of an agent that is ended is over, as if nobody had decided.
    let words = [(&["approve"][..], 0), (&["deny"], 3), (&["agent", "disable", "builder"], 5)];
    for (word, exit) in words {
        let mut asking = fetch(&["--approval", "wait", "--purpose", "invoice 7"]);
        let mut lines = BufReader::new(asking.stderr.take().unwrap()).lines().map(Result::unwrap);
        let how = lines.by_ref().find(|line| line.contains("obol approve")).expect("what to do");
        let id = how.trim().strip_prefix("obol approve ").unwrap().to_owned();
        let shown = paying.waiting();
        assert_eq!((&shown["approvalId"], &shown["purpose"]), (&json!(id), &json!("invoice 7")));
        match word {
            [word] => paying.decide(word, &id),
            words => drop(paying.world.service.told(words)),
        }
        let answered = asking.wait_with_output().unwrap();
        assert_eq!(answered.status.code(), Some(exit), "{answered:?} {:?}", lines.collect::<Vec<_>>());
        let is_paid = String::from_utf8_lossy(&answered.stdout).contains(r#"{"paid":"12.50"}"#);
        assert_eq!(is_paid, exit == 0, "{answered:?}");
    }
    assert_eq!(paying.paid(), 1, "one yes, one payment");
}
