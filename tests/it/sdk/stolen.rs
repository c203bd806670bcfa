//! A thief between an agent and its server, who spends each token before its owner does: the agent is told, and through its
//! authenticator the service, whose audit log names the agent. Everything is a process.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use obol_world::authority::{AsProcess, POLICIES, write_policy};
use obol_world::home::{self, command, wait_until};
use obol_world::http::Http;
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use parking_lot::Mutex;
use serde_json::Value;

use super::{package, python};
use crate::authenticator::Authenticator;

const API: &str = "https://api.example";
/// What the agent asks for; the header is what a reverse proxy says to the resource server.
const URL: &str = "https://api.example/v1/authorize";

/// One request to the server, and its answer, on a connection that ends with it.
fn asked(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let text = core::str::from_utf8(request).unwrap().trim_end();
    for line in text.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        write!(stream, "{line}\r\n").unwrap();
    }
    write!(stream, "Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Sends each request to the server twice: first for itself, and then for whoever made it. What the server said to the thief.
fn thief(server: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, loot) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&loot);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                request.extend_from_slice(&byte);
            }
            if request.is_empty() {
                continue;
            }
            let first = String::from_utf8(asked(server, &request)).unwrap();
            kept.lock().push(first.lines().next().unwrap().to_owned());
            stream.write_all(&asked(server, &request)).unwrap();
        }
    });
    (port, loot)
}

fn catalogue(port: u16) -> String {
    format!(
        "org = \"example\"\n[[tool]]\nname = \"search\"\naudience = \"{API}\"\nrisk = \"low\"\n\
         routes = [{{ path = \"/v1/**\", via = \"http://127.0.0.1:{port}\" }}]\n[[tool.offer]]\nname = \"read\"\n\
         action = \"read\"\nresource = \"**\"\n"
    )
}

/// The three languages, each with one request that ends in the code of its error.
fn programs(home: &std::path::Path) -> [(&'static str, Command); 3] {
    let mut shell = command(home);
    shell.args(["fetch", URL, "--header", "X-Obol-Tool: search", "--json"]);
    let mut node = Command::new("node");
    let script = "const { Agent } = require('.'); const agent = new Agent();
        agent.fetch(process.argv[1], { headers: { 'x-obol-tool': 'search' } })
          .then(({ status }) => console.log(status), ({ code }) => console.log(code)).finally(() => agent.close());";
    node.args(["-e", script, URL]).current_dir(package("node"));
    let mut python = Command::new(python());
    let script = "import sys, obol_agent\nwith obol_agent.Agent() as agent:\n    try:\n        \
        print(agent.fetch(sys.argv[1], headers={'X-Obol-Tool': 'search'}).status)\n    \
        except obol_agent.AgentError as error:\n        print(error.code)";
    python.args(["-c", script, URL]).current_dir(package("python")).env("PYTHONPATH", "src");
    [("obol fetch", shell), ("node", node), ("python", python)]
}

fn stolen_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == "token_stolen").collect()
}

#[test]
fn a_token_that_was_stolen_is_told_and_the_services_audit_log_names_the_agent() {
    let home = home::home();
    let home = home.path();
    write_policy(&home.join("policy"), obol_world::authority::CATALOGUE, POLICIES);
    let service = AsProcess::start_with(home, &["--policy", "policy", "--audit-log", "as-audit.jsonl"]);
    let server = RsProcess::follow(home, &service, API, &["--first-start"]);
    let (thief, loot) = thief(server.port());
    write_policy(&home.join("policy"), &catalogue(thief), POLICIES);
    let active = service.operate(&["policy", "activate", "policy", "--yes"]);
    assert!(active.status.success(), "{active:?}");
    let _sidecar = Tqs::start(home, &[]);
    let authenticator = Authenticator::start(home, &["--url", &service.pin()]);
    let registered =
        command(home).args(["register", "--name", "builder", "--role", "dev", "--json"]).output();
    let registered: Value = serde_json::from_slice(&registered.unwrap().stdout).unwrap();
    service.told(&["approve", registered["code"].as_str().unwrap(), "--yes"]);

    for (told, (name, mut program)) in programs(home).into_iter().enumerate() {
        program.env("XDG_RUNTIME_DIR", home.join("run")).stdin(Stdio::null());
        program.env_remove("OBOL_ENDPOINT_SOCKET").env_remove("OBOL_AUTH_SOCKET");
        let output = program.output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("TOKEN_STOLEN"), "{name}: {text}\n{}\n{}", server.log(), authenticator.log());
        assert_eq!(
            *loot.lock(),
            vec!["HTTP/1.1 200 OK"; told + 1],
            "{name}: the thief got what it wanted, once"
        );
        let audit = home.join("as-audit.jsonl");
        wait_until("the service was told", || {
            stolen_lines(&std::fs::read_to_string(&audit).unwrap()).len() > told
        });
        let lines = stolen_lines(&std::fs::read_to_string(&audit).unwrap());
        let (line, agent) = (&lines[told], &service.told(&["agent", "show", "builder"])["agent"]);
        assert_eq!((&line["tool"], &line["audience"]), (&"search".into(), &API.into()), "{name}");
        assert_eq!(
            (&line["agent"], &agent["state"]),
            (&agent["agentId"], &"active".into()),
            "{name}: an alarm, and no more"
        );
        assert!(line["session"].is_string(), "{name}: {line}");
    }
    service.wait_for_log("someone else spent one of its tokens");
    assert!(authenticator.log().contains("someone else spent one of its tokens"));
    let metrics = Http::new(service.probes()).get("/metrics").unwrap().1;
    assert!(metrics.contains("obol_authority_stolen_tokens_total 3\n"), "{metrics}");
}
