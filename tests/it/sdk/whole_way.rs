//! Everything as processes and nothing by hand: a service with a policy, a resource server that follows it, sidecar and
//! authenticator, and an SDK's program that is told nothing. It calls by a gateway that the catalogue names; an agent that is disabled
//! calls no more, and one that is enabled again does.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use obol_world::authority::{AsProcess, POLICIES, write_policy};
use obol_world::home;
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use serde_json::Value;

use super::{package, python};
use crate::authenticator::Authenticator;

const API: &str = "https://api.example";

/// The tool's requests go to the resource server itself, in place of the API that it guards.
fn catalogue(port: u16) -> String {
    format!(
        "org = \"example\"\n[[tool]]\nname = \"search\"\naudience = \"{API}\"\nrisk = \"low\"\n\
         routes = [{{ path = \"/v1/**\", via = \"http://127.0.0.1:{port}\" }}]\n[[tool.offer]]\nname = \"read\"\n\
         action = \"read\"\nresource = \"**\"\n"
    )
}

fn the_whole_way(mut program: Command) {
    let home = home::home();
    let home = home.path();
    let service = AsProcess::start(home);
    let server = RsProcess::follow(home, &service, API, &["--first-start"]);
    write_policy(&home.join("policy"), &catalogue(server.port()), POLICIES);
    let active = service.operate(&["policy", "activate", "policy", "--yes"]);
    assert!(active.status.success(), "{active:?}");
    let _sidecar = Tqs::start(home, &[]);
    let _authenticator = Authenticator::start(home, &["--url", &service.pin()]);

    program.env("XDG_RUNTIME_DIR", home.join("run"));
    program.env_remove("OBOL_ENDPOINT_SOCKET").env_remove("OBOL_AUTH_SOCKET");
    let mut running = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut go_on = running.stdin.take().unwrap();
    let mut next = || lines.next().unwrap();

    let prompt: Value = serde_json::from_str(&next()).unwrap();
    service.told(&["approve", prompt["code"].as_str().unwrap(), "--yes"]);
    assert_eq!(next(), "200 200 200", "{}", server.log());
    service.told(&["agent", "disable", "builder"]);
    go_on.write_all(b"\n").unwrap();
    assert_eq!(next(), "SUSPENDED");
    service.told(&["agent", "enable", "builder"]);
    go_on.write_all(b"\n").unwrap();
    assert_eq!(next(), "200");
    assert!(running.wait().unwrap().success());
}

#[test]
fn a_node_program_goes_the_whole_way_and_is_stopped_where_its_agent_is() {
    let mut node = Command::new("node");
    node.arg("test/agent/real/whole_way.js").current_dir(package("node"));
    the_whole_way(node);
}

#[test]
fn a_python_program_goes_the_whole_way_and_is_stopped_where_its_agent_is() {
    let mut command = Command::new(python());
    command.arg("tests/real/whole_way.py").current_dir(package("python")).env("PYTHONPATH", "src");
    the_whole_way(command);
}
