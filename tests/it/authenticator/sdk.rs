//! The SDKs in other languages on the whole story: a program registers, a human approves, sessions come and are renewed, and calls go
//! on while service, authenticator and sidecar are stopped and started.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use obol_resource::{Gate, SpentToken, TbacLayer, ToolCall};
use obol_verify::SessionStore;
use obol_world::authority::{AsProcess, POLICIES};
use obol_world::now;
use obol_world::tqs;
use serde_json::Value;

use super::{Authenticator, SERVER, World, auth_socket};
use crate::end_to_end::api;
use crate::sdk::{package, python};

impl World {
    /// Tells the resource server of the sessions that the service has for it. It does not follow: what is tried here is the
    /// agent's side, whatever the server's does.
    fn tell_server(&self) {
        let directory = self.authority().directory();
        for session in self.sessions() {
            if let Some(half) = directory.half(session.id, SERVER).unwrap() {
                let _known_already = SessionStore::add(&*self.server.sessions, &half, now());
            }
        }
    }

    fn tell_server_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.tell_server();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn serve(&self, runtime: &tokio::runtime::Runtime, ran: &Arc<AtomicU64>) -> SocketAddr {
        let counted = Arc::clone(ran);
        let handler = move |_: SpentToken| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { "found" }
        };
        let call = ToolCall::new("search").action("call").resource("x");
        let layer = TbacLayer::new(Gate::new(self.server.verifier.clone()), call);
        let routes = Router::new().route("/search", post(handler).layer(layer));
        runtime.block_on(api::listen(routes))
    }
}

fn the_whole_story(mut program: Command) {
    let mut world = World::new(9);
    let mut sidecar = world.tqs();
    let mut authenticator = world.authenticator();
    let (runtime, ran) = (tokio::runtime::Runtime::new().unwrap(), Arc::new(AtomicU64::new(0)));
    let server = world.serve(&runtime, &ran);
    program.env("BASE", format!("http://{server}")).env("AUDIENCE", SERVER);
    program.env("OBOL_ENDPOINT_SOCKET", tqs::socket(world.path()));
    program.env("OBOL_AUTH_SOCKET", auth_socket(world.path()));
    let mut running = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };

    let prompt: Value = serde_json::from_str(&line()).unwrap();
    world.approve(prompt["code"].as_str().unwrap(), prompt["words"].as_str().unwrap());
    assert_eq!(line().trim(), world.agent().id.to_string(), "the agent that was approved");
    let open = world.sessions().len();
    assert_eq!(line(), "ready\n");
    assert!(world.sessions().len() <= open + 2, "fifty who ask at once make one session");

    world.tell_server_for(Duration::from_secs(2));
    authenticator.kill();
    world.tell_server_for(Duration::from_millis(300));
    authenticator = world.authenticator();
    world.tell_server_for(Duration::from_secs(1));
    world.stop_service();
    std::thread::sleep(Duration::from_millis(500));
    world.start_service();
    world.tell_server_for(Duration::from_secs(1));
    sidecar.kill();
    world.tell_server_for(Duration::from_millis(300));
    sidecar = world.tqs();
    // By now the first session is over.
    world.tell_server_for(Duration::from_secs(6));
    drop(running.stdin.take());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(running.wait().unwrap().success(), "{rest}");
    let called: u64 = rest.trim().parse().unwrap();
    assert!(called > 20, "{called}");
    assert_eq!(ran.load(Ordering::Relaxed), called, "each call ran once, and none was refused");
    drop((sidecar, authenticator));
}

#[test]
fn a_node_program_registers_authenticates_and_calls_through_restarts() {
    let mut node = Command::new("node");
    node.arg("test/agent/real/story.js").current_dir(package("node"));
    the_whole_story(node);
}

#[test]
fn a_python_program_registers_authenticates_and_calls_through_restarts() {
    let mut command = Command::new(python());
    command.arg("tests/real/story.py").current_dir(package("python")).env("PYTHONPATH", "src");
    the_whole_story(command);
}

/// A tool at a resource server of this machine, with a route.
fn catalogue(server: SocketAddr) -> String {
    format!(
        "org = \"example\"\n[[tool]]\nname = \"search\"\naudience = \"http://{server}\"\nrisk = \"low\"\n\
         routes = [{{ method = \"GET\", path = \"/v1/**\" }}]\n[[tool.offer]]\nname = \"read\"\naction = \"read\"\n\
         resource = \"**\"\n"
    )
}

/// With nothing but processes, and an agent that is told nothing: where tokens go comes from the catalogue.
fn the_session_says_where(mut program: Command) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let note = move |headers: HeaderMap| {
        noted.lock().unwrap().push(headers["authorization"].to_str().unwrap().to_owned());
        async { "found" }
    };
    let server = runtime.block_on(api::listen(Router::new().fallback(note)));
    let home = obol_world::home::home();
    let home = home.path();
    obol_world::authority::write_policy(&home.join("policy"), &catalogue(server), POLICIES);
    let service = AsProcess::start_with(home, &["--policy", "policy"]);
    let _sidecar = tqs::Tqs::start(home, &[]);
    obol_world::home::write_private(&home.join("as.pin"), &service.pin());
    let _authenticator = Authenticator::start(home, &["--pin-file", "as.pin"]);

    program.env("BASE", format!("http://{server}")).env("XDG_RUNTIME_DIR", home.join("run"));
    program.env_remove("OBOL_ENDPOINT_SOCKET").env_remove("OBOL_AUTH_SOCKET");
    let mut running = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
    let prompt: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    service.told(&["approve", prompt["code"].as_str().unwrap(), "--yes"]);
    let said: Vec<String> = lines.collect();
    assert_eq!(said, ["found", "found", "UNKNOWN_DESTINATION", "UNKNOWN_DESTINATION"]);
    assert!(running.wait().unwrap().success());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "nothing went where no route leads");
    assert!(seen.iter().all(|value| value.starts_with("TBAC ")) && seen[0] != seen[1]);
}

#[test]
fn a_node_program_that_is_told_nothing_calls_where_the_catalogue_says() {
    let mut node = Command::new("node");
    node.arg("test/agent/real/told_nothing.js").current_dir(package("node"));
    the_session_says_where(node);
}

#[test]
fn a_python_program_that_is_told_nothing_calls_where_the_catalogue_says() {
    let mut command = Command::new(python());
    command.arg("tests/real/told_nothing.py").current_dir(package("python")).env("PYTHONPATH", "src");
    the_session_says_where(command);
}
