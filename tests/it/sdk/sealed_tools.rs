//! Tools whose bodies are sealed, and an SDK without what seals them: it asks the sidecar, and draws nothing.

use std::process::Command;

use axum::http::Request;
use obol_agent::{Agent, AgentLayer, CallOptions, Code, Error, Route};
use obol_world::halves::AgentSession;
use obol_world::tqs::{self, Tqs};
use obol_world::{AUDIENCE, home, now};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{package, python};
use crate::sidecar::{Raw, tool};

/// Where the tool `both` is granted as well, and sealed.
const OTHER: &str = "https://other.example";

/// `plain` is not sealed, `seal` is, and `both` is at one of its two resource servers.
fn session() -> Value {
    let mut session = AgentSession::new(1, now(), &["plain", "seal", "both", "both"]).agent_json();
    let sealed = json!({"require_channel_encryption": true});
    session["grants"][1]["constraints"] = sealed.clone();
    session["grants"][3]["constraints"] = sealed;
    session["grants"][3]["aud"] = json!(OTHER);
    let mut server = session["resource_servers"][0].clone();
    server["aud"] = json!(OTHER);
    session["resource_servers"].as_array_mut().unwrap().push(server);
    session
}

/// A program as it is where `cryptography` is not installed.
const PROGRAM: &str = "
import sys
from unittest import mock
from obol_agent import Agent, AgentError
audience, origin = sys.argv[1:]
route = {'audience': audience, 'url': origin, 'tools': ['plain', 'seal']}
with mock.patch('obol_agent._call.is_supported', return_value=False), Agent(routes=[route], timeout=10) as agent:
    for tool in ('seal', 'seal', 'plain'):
        try:
            agent.fetch(origin + '/x', tool=tool)
        except AgentError as error:
            print(error.code)
";

#[test]
fn the_sidecar_says_which_tools_are_sealed_and_who_cannot_seal_draws_none_of_their_tokens() {
    let home = home::home();
    home::write_private(&home.path().join("session.json"), &session().to_string());
    let sidecar = Tqs::start(home.path(), &["--session", "session.json"]);
    let mut raw = Raw::greeted(home.path(), "agent.sock");
    for (params, sealed) in [
        (json!({"tool": "plain"}), Value::Null),
        (json!({"tool": "seal"}), json!(true)),
        (json!({"tool": "both"}), json!(true)),
        (json!({"tool": "both", "audience": AUDIENCE}), Value::Null),
        (json!({"tool": "both", "audience": OTHER}), json!(true)),
        (json!({}), Value::Null),
    ] {
        let answer = raw.call("tokenStatus", params.clone());
        assert_eq!(answer["result"]["sealed"], sealed, "{params}: {answer}");
        assert_eq!(answer["result"]["sessionActive"], true, "{params}");
    }
    let answer = raw.call("tokenStatus", json!({"audience": OTHER}));
    assert_eq!(answer["error"]["data"]["code"], "INVALID_ARGUMENT", "{answer}");
    let elsewhere = raw.call("tokenStatus", json!({"tool": "seal", "audience": OTHER}));
    assert_eq!(elsewhere["error"]["data"]["code"], "POLICY_DENY", "{elsewhere}");

    let mut command = Command::new(python());
    command.args(["-c", PROGRAM, AUDIENCE, &format!("http://127.0.0.1:{}", home::free_port())]);
    command.env("OBOL_ENDPOINT_SOCKET", tqs::socket(home.path())).env_remove("OBOL_AUTH_SOCKET");
    let output = command.current_dir(package("python")).env("PYTHONPATH", "src").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "CHANNEL_UNSUPPORTED\nCHANNEL_UNSUPPORTED\nUNREACHABLE\n");
    assert_eq!((handed_out(&sidecar, "seal"), handed_out(&sidecar, "plain")), (0, 3));
}

/// How many tokens of a tool were drawn.
fn handed_out(sidecar: &Tqs, name: &str) -> u64 {
    let status = sidecar.control().status().unwrap();
    status.tools.iter().filter(|status| status.tool == tool(name)).map(|status| status.handed_out).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rust_agent_cannot_seal_is_refused_before_a_token_is_drawn() {
    let home = home::home();
    home::write_private(&home.path().join("session.json"), &session().to_string());
    let sidecar = Tqs::start(home.path(), &["--session", "session.json"]);
    let origin = format!("http://127.0.0.1:{}", home::free_port());
    let route = |audience: &str, url: &str, tools: &[&str]| -> Route {
        serde_json::from_value(json!({"audience": audience, "url": url, "tools": tools})).unwrap()
    };
    let routes = [
        route(AUDIENCE, &format!("{origin}/a"), &["plain", "seal", "both"]),
        route(OTHER, &format!("{origin}/other"), &["both"]),
    ];
    let agent = Agent::builder().socket(tqs::socket(home.path())).routes(routes).connect().await.unwrap();
    let request = |place: &str, tool: &str| {
        let options = CallOptions::new().tool(tool);
        Request::get(format!("{origin}/{place}/x")).extension(options).body(()).unwrap()
    };
    let code = |error: &Error| (error.code(), error.message().contains("sealed"));
    let sealed = (Code::InvalidArgument, true);
    for (place, name) in [("a", "seal"), ("other", "both"), ("a", "seal")] {
        let mut signed = request(place, name);
        let refused = agent.sign(&mut signed).await.unwrap_err();
        assert_eq!(code(&refused), sealed, "{name}: {refused}");
        assert!(signed.headers().is_empty());
        let options = CallOptions::new().tool(name);
        let refused = agent.open_websocket(request(place, name), &options).await.unwrap_err();
        assert_eq!(code(&refused), sealed, "{name}: {refused}");
        let sends = service_fn(|_: Request<()>| async { Ok::<_, Error>(()) });
        let refused =
            AgentLayer::new(agent.clone()).layer(sends).oneshot(request(place, name)).await.unwrap_err();
        assert_eq!(code(refused.downcast_ref().unwrap()), sealed, "{name}: {refused}");
    }
    assert_eq!((handed_out(&sidecar, "seal"), handed_out(&sidecar, "both")), (0, 0));

    // What is sealed at one of its resource servers is signed for the other, and what can be sealed is drawn.
    for name in ["plain", "both"] {
        let mut signed = request("a", name);
        agent.sign(&mut signed).await.unwrap();
        assert!(signed.headers().contains_key("authorization"));
        assert_eq!(handed_out(&sidecar, name), 1, "{name}");
    }
    let unreachable = agent.fetch(request("a", "seal")).await.unwrap_err();
    assert_eq!((unreachable.code(), handed_out(&sidecar, "seal")), (Code::Unreachable, 3));
}
