//! What `docs/gateway.md` says to do, with its own files: a gateway that joined a service, and an agent that asks for GitHub.

use obol_world::authority::{AsProcess, POLICIES, write_policy};
use obol_world::home::{command, free_port, home, wait_until};
use obol_world::tqs::Tqs;
use serde_json::Value;

use super::{SECRET, World, api};
use crate::authenticator::Authenticator;

const PAGE: &str = include_str!("../../../docs/gateway.md");
const GATEWAY: &str = "https://gateway.example";

/// A block of TOML of the page, with the addresses that are there instead.
fn block(number: usize, from: &str, to: &str) -> String {
    let block = PAGE.split("```toml\n").nth(number).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(block.contains(from), "{block}");
    block.replace(from, to)
}

#[test]
fn an_agent_gets_github_and_not_your_key() {
    let home = home();
    let service = AsProcess::start(home.path());
    let invited = service.told(&["rs", "invite", GATEWAY]);
    service.told(&["rs", "join", "--authority", &service.pin(), invited["ticket"].as_str().unwrap()]);
    let tqs = Tqs::start(home.path(), &[]);
    let (api, seen) = api();
    let arguments =
        vec!["--authority".to_owned(), service.pin(), "--audience".to_owned(), GATEWAY.to_owned()];
    let mut world = World { home, tqs, seen, port: free_port(), arguments, child: None };
    world.write("github", &block(1, "https://api.github.com", &format!("http://127.0.0.1:{api}")));
    world.seal("github", SECRET);
    world.run(&["--first-start"]);

    let via = format!("http://127.0.0.1:{}/github", world.port);
    let catalogue = format!("org = \"example\"\n{}", block(2, "https://gateway.example/github", &via));
    let policies = POLICIES.replace("Obol::Tool::\"search\"", "Obol::Tool::\"github_issues\"");
    write_policy(&world.home().join("policy"), &catalogue, &policies);
    let active = service.operate(&["policy", "activate", "policy", "--yes"]);
    assert!(active.status.success(), "{active:?}");
    let _authenticator = Authenticator::start(world.home(), &["--url", &service.pin()]);
    let obol = |arguments: &[&str]| command(world.home()).args(arguments).output().unwrap();
    let asked = obol(&["register", "--name", "builder", "--role", "dev", "--json"]);
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    service.told(&["approve", asked["code"].as_str().unwrap(), "--yes"]);

    let issues = "https://api.github.com/repos/a/b/issues?state=open";
    let mut fetched = None;
    wait_until("the agent has a session", || {
        fetched = Some(obol(&["fetch", issues, "--json"]));
        fetched.as_ref().is_some_and(|fetched| fetched.status.success())
    });
    let fetched = fetched.unwrap();
    let seen = world.seen.lock().clone();
    let [seen] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(seen.starts_with("get /repos/a/b/issues?state=open http/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("authorization: bearer {SECRET}\r\n")), "{seen}");
    assert!(!String::from_utf8_lossy(&fetched.stdout).contains(SECRET));
    let refused = obol(&["fetch", "https://api.github.com/repos/a/b/issues", "--data", "{}", "--json"]);
    assert!(!refused.status.success(), "reading is all that is on offer: {refused:?}");
    assert_eq!(world.count(), 1);

    service.told(&["agent", "disable", "builder"]);
    wait_until("the agent is stopped", || !obol(&["fetch", issues, "--json"]).status.success());
    let before = world.count();
    assert!(!obol(&["fetch", issues, "--json"]).status.success());
    assert_eq!(world.count(), before);
}
