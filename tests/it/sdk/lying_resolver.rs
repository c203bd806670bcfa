//! `localhost` is this machine, and `http` is for it alone, whatever a resolver says: the SDKs where the system's own says otherwise.

use core::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::any;
use obol_world::home::{self, command, obol};
use obol_world::tqs::{self, Tqs};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{package, python};

const AUDIENCE: &str = "https://api.example";
/// What the resolver says: `localhost` is somebody else, and a name of the world is this machine.
const LIES: &str = "127.0.0.9 localhost\n127.0.0.1 inward.example\n";
const NODE: &str = "
const { Agent } = require(process.argv[1]);
const [audience, url] = process.argv.slice(2);
const routes = [{ audience, url, tools: ['search'] }];
(async () => {
  const agent = new Agent({ routes });
  console.log(await (await agent.fetch(url + '/x')).text());
  await agent.close();
})();";
const PYTHON: &str = "
import asyncio, sys
from obol_agent import Agent, AsyncAgent
audience, url = sys.argv[1:]
routes = [{'audience': audience, 'url': url, 'tools': ['search']}]
with Agent(routes=routes) as agent:
    print(agent.fetch(url + '/x').text)
async def again():
    async with AsyncAgent(routes=routes) as agent:
        print(await (await agent.fetch(url + '/x')).text())
asyncio.run(again())";

/// Says who it is, and notes what it is sent to be let in.
fn serve(
    runtime: &Runtime,
    address: SocketAddr,
    name: &'static str,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&seen);
    let answer = any(async move |headers: HeaderMap| {
        let token = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
        noted.lock().unwrap().push(token.to_owned());
        name
    });
    let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().fallback(answer);
    runtime.spawn(async move { axum::serve(listener, routes).await });
    (address, seen)
}

/// A command of a program that sees that resolver.
fn deceived(home: &Path, program: &Path) -> Command {
    let mut command = home::command_of("/usr/bin/unshare".as_ref(), home);
    command.args(["--mount", "sh", "-c", r#"mount --bind lies /etc/hosts && exec "$@""#, "sh"]).arg(program);
    let socket = format!("unix://{}", tqs::socket(home).display());
    command.env("OBOL_ENDPOINT_SOCKET", socket).env("PATH", std::env::var_os("PATH").unwrap());
    command
}

fn says(command: &mut Command) -> String {
    let run = command.output().unwrap();
    assert!(run.status.success(), "{command:?}: {run:?}");
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn a_resolver_that_lies_about_localhost_leads_no_token_elsewhere() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a name space of mounts; run this test as root");
        return;
    }
    let home = home::home();
    let home = home.path();
    let created =
        command(home).args(["session", "create", "--audience", AUDIENCE, "--tool", "search"]).output();
    assert!(created.unwrap().status.success());
    let _sidecar = Tqs::start(home, &["--session", "agent-session.json"]);
    std::fs::write(home.join("lies"), LIES).unwrap();
    let runtime = Runtime::new().unwrap();
    let (honest, seen) = serve(&runtime, ([127, 0, 0, 1], home::free_port()).into(), "here");
    let (_, stolen) = serve(&runtime, ([127, 0, 0, 9], honest.port()).into(), "elsewhere");
    let origin = format!("http://localhost:{}", honest.port());

    // The lie is believed by whoever asks.
    let plain = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
    assert_eq!(says(deceived(home, &python()).args(["-c", plain, &origin])), "elsewhere\n");
    assert_eq!(stolen.lock().unwrap().drain(..).count(), 1);

    let routes = json!([{"audience": AUDIENCE, "url": origin, "tools": ["search"]}]);
    std::fs::write(home.join("routes.json"), routes.to_string()).unwrap();
    let fetch = ["fetch", "--routes", "routes.json"];
    assert_eq!(says(deceived(home, obol()).args(fetch).arg(format!("{origin}/x"))), "here");
    let library = package("node");
    let mut node = deceived(home, "node".as_ref());
    assert_eq!(says(node.args(["-e", NODE]).arg(library).args([AUDIENCE, &origin])), "here\n");
    let mut program = deceived(home, &python());
    program.env("PYTHONPATH", package("python").join("src"));
    assert_eq!(says(program.args(["-c", PYTHON, AUDIENCE, &origin])), "here\nhere\n");
    assert_eq!(stolen.lock().unwrap().len(), 0, "nothing went elsewhere");
    let tokens = seen.lock().unwrap().clone();
    assert!(tokens.len() == 4 && tokens.iter().all(|token| token.starts_with("TBAC ")), "{}", tokens.len());

    // A name of the world gets no token in the clear, though it leads to this machine.
    let inward = format!("http://inward.example:{}/x", honest.port());
    let refused = deceived(home, obol()).args(fetch).args(["--json", &inward]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("INVALID_ARGUMENT"), "{refused:?}");
    assert_eq!(seen.lock().unwrap().len(), 4);
}
