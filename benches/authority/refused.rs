//! From an event at an identity provider to what an agent notices, with every part a process of its own: an account is disabled, the token
//! is pushed, three resource servers refuse a token that nobody has used, and the sidecar hands out nothing more.

use core::time::Duration;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use obol_client::{AuthClient, CallError, Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::as_control::{EnableParams, EnableScope};
use obol_ipc::names::{Label, PeerName, ToolName};
use obol_ipc::refusal::ErrorCode;
use obol_world::home::{command, wait_until};
use obol_world::idp::Idp;
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::event::{DISABLED, SERVERS, listening, push};
use super::{AUDIENCE, Plan, Service, report};

const TOOL: &str = "tool-0";
const REFUSED: &str = "SESSION_EXPIRED";
/// How long a draw may wait while there is a session.
const DRAW: Duration = Duration::from_secs(5);

/// The agent's side, as processes.
struct Beside {
    tqs: Tqs,
    authenticator: Child,
    auth: Endpoint,
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ended = self.authenticator.kill();
        let _ended = self.authenticator.wait();
    }
}

impl Beside {
    fn start(service: &Service) -> Self {
        let home = service.home.path();
        let tqs = Tqs::start(home, &[]);
        let mut authenticator = command(home);
        authenticator.args(["authenticator", "--url", &service.process.pin()]).stderr(Stdio::null());
        let authenticator = authenticator.spawn().expect("obol is built");
        let auth = Endpoint::at(home.join("run/obol/auth.sock")).expect("a socket's path");
        let beside = Self { tqs, authenticator, auth };
        wait_until("the authenticator answers", || beside.client().is_some());
        let asked = command(home).args(["register", "--name", "builder", "--role", "dev", "--json"]).output();
        let asked: Value = serde_json::from_slice(&asked.expect("it runs").stdout).expect("an answer");
        service.process.told(&[
            "approve",
            asked.get("code").and_then(Value::as_str).expect("a code"),
            "--yes",
        ]);
        beside
    }

    fn client(&self) -> Option<AuthClient> {
        let options = ConnectOptions::new(PeerName::new("obol-benches/1").expect("a name"));
        AuthClient::connect(self.auth.clone(), options).ok()
    }

    /// A session whose tokens can be drawn.
    fn authenticate(&self, tokens: &mut Client) {
        wait_until("a session", || {
            let opened = self.client().is_some_and(|mut client| client.authenticate().is_ok());
            opened && tokens.dequeue_token(&tool(), DRAW).is_ok()
        });
    }
}

fn tool() -> ToolName {
    ToolName::new(TOOL).expect("a name")
}

/// Whether nothing comes any more: to be empty for a moment is something else.
fn is_over<T>(drawn: Result<T, CallError>) -> bool {
    drawn.err().is_some_and(|error| {
        let code = error.refusal().map(obol_ipc::refusal::Refusal::code);
        code.is_some_and(|code| !matches!(code, ErrorCode::QueueEmpty { .. }))
    })
}

pub(super) fn refused(plan: Plan) {
    let idp = Idp::start();
    let service = listening(&idp);
    let memory = ["--first-start", "--spent", "memory"];
    let follow = || RsProcess::follow(service.home.path(), &service.process, AUDIENCE, &memory);
    let servers: Vec<_> = (0..SERVERS).map(|_| follow()).collect();
    let beside = Beside::start(&service);
    let mut operator = service.operator();
    let mut tokens = beside.tqs.client();
    beside.authenticate(&mut tokens);
    let name = Label::new("builder").expect("a name");
    let owner = operator.agent(name.clone()).expect("it answers").agent.expect("an agent").owner;
    let about =
        json!({ "format": "opaque", "id": owner.strip_prefix("local:").expect("a user of this machine") });
    let runtime = Runtime::new().expect("a runtime");
    let mut times = Vec::new();
    for round in 0..plan.ends {
        // For each server one that is spent before, by which it is seen when the session ends, and one that nobody has used.
        let mut draw = || tokens.dequeue_token(&tool(), DRAW).expect("a token").token.expose().to_owned();
        let drawn: Vec<_> = servers.iter().map(|server| (server, draw(), draw())).collect();
        for (server, spent, _) in &drawn {
            assert_eq!(server.present(spent, TOOL), "OK", "{}", server.log());
        }
        let claims = idp.claims(&service.process.origin(), &format!("whole-{round}"), DISABLED, &about);
        let event = idp.sign(&claims);
        let begun = Instant::now();
        let seen = thread::scope(|scope| {
            let refusing: Vec<_> = drawn
                .iter()
                .map(|(server, spent, unused)| {
                    scope.spawn(move || {
                        while server.present_once(spent, TOOL) != REFUSED {
                            thread::yield_now();
                        }
                        assert_eq!(server.present_once(unused, TOOL), REFUSED);
                        begun.elapsed()
                    })
                })
                .collect();
            runtime.block_on(push(service.process.port(), &event));
            while !is_over(tokens.dequeue_token(&tool(), Duration::ZERO)) {}
            assert_eq!(tokens.token_status(None).expect("it answers").queue_depth, 0);
            let empty = begun.elapsed();
            let refusing = refusing.into_iter().map(|one| one.join().expect("a server that answers"));
            refusing.fold(empty, Duration::max)
        });
        times.push(seen.as_secs_f64() * 1e9);
        let scope = EnableScope::Agent(name.clone());
        assert!(operator.enable(EnableParams { scope }).expect("it answers").matched, "it is let in again");
        beside.authenticate(&mut tokens);
    }
    report(
        &format!("a security event, to refusals at {SERVERS} resource servers and an empty queue"),
        &mut times,
        100e6,
        1e9,
    );
}
