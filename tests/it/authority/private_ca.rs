//! Joining, registering and fetching over TLS by real processes, where a certificate authority of one's own issued the service's certificate.

use std::path::Path;

use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, command_in, write_policy};
use obol_world::certificates::{self, Holds};
use obol_world::home::{self, wait_until, write_private};
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::stream::API;
use crate::authenticator::Authenticator;

/// An `obol as` that serves TLS with a certificate of the authority `ours`.
fn service(folder: &Path) -> AsProcess {
    certificates::issued(folder, "ours", "as", "localhost", Holds::Now);
    write_policy(&folder.join("policy"), CATALOGUE, POLICIES);
    let mut service = AsProcess::unstarted(folder, &["--policy", "policy"]);
    let origin = format!("https://localhost:{}", service.port());
    service.call_it(&origin, &["--tls-cert", "as.crt", "--tls-key", "as.key"]);
    service.start_again();
    service
}

#[test]
fn agent_and_resource_server_come_in_by_the_authority_that_was_named_and_by_no_other() {
    let home = home::home();
    let folder = home.path();
    let (ours, others) = (certificates::authority(folder, "ours"), certificates::authority(folder, "others"));
    let (ours, others) = (ours.to_str().unwrap(), others.to_str().unwrap());
    let service = service(folder);
    let pin = service.pin();
    assert!(pin.starts_with("https://localhost:"), "{pin}");

    // With another authority, and with the system's alone, neither comes in, and each says what to do.
    let code = service.told(&["rs", "invite", API])["ticket"].as_str().unwrap().to_owned();
    let join = ["rs", "join", "--authority", &pin, "--rs-identity-key", "stranger.key", &code];
    for trusted in [&["--rs-ca-file", others][..], &[]] {
        let refused = command_in(folder, &[&join, trusted].concat());
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{told}");
        assert!(told.contains("is not trusted") && told.contains("--rs-ca-file"), "{told}");
    }
    let tqs = Tqs::start(folder, &[]);
    let register = ["register", "--name", "builder", "--role", "dev", "--json"];
    let authenticator = Authenticator::start(folder, &["--url", &pin, "--ca-file", others]);
    let refused = command_in(folder, &register);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{told}");
    assert!(told.contains("AUTHORITY_UNREACHABLE") && told.contains("--ca-file"), "{told}");
    authenticator.kill();

    // With the right one both do: the code was not used up, and a token goes the whole way.
    assert!(command_in(folder, &[&join, &["--rs-ca-file", ours][..]].concat()).status.success());
    let arguments = ["--spent", "memory", "--first-start", "--rs-ca-file", ours];
    let rs = RsProcess::follow(folder, &service, API, &arguments);
    let authenticator = Authenticator::start(folder, &["--url", &pin, "--ca-file", ours]);
    let asked = command_in(folder, &register);
    assert!(asked.status.success(), "{asked:?}");
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    service.told(&["approve", asked["code"].as_str().unwrap(), "--yes"]);
    wait_until("a session", || command_in(folder, &["authenticate", "--if-needed"]).status.success());
    let drawn = command_in(folder, &["dequeue", "search", "--wait", "5000"]);
    assert!(drawn.status.success(), "{drawn:?} {}", authenticator.log());
    let token = String::from_utf8(drawn.stdout).unwrap();
    assert_eq!(rs.present(token.trim(), "search"), "OK", "{}", rs.log());
    assert_eq!(rs.present(token.trim(), "search"), "TOKEN_REPLAYED");
    drop(tqs);
}

#[test]
fn a_request_from_a_shell_goes_by_the_authority_that_was_named_and_by_no_other() {
    let (home, other) = (home::home(), home::home());
    let folder = home.path();
    let (ours, others) = (certificates::authority(folder, "ours"), certificates::authority(folder, "others"));
    let (ours, others) = (ours.to_str().unwrap(), others.to_str().unwrap());
    let service = service(folder);
    let agent = other.path();
    let created = command_in(agent, &["session", "create", "--audience", API, "--tool", "search"]);
    assert!(created.status.success(), "{created:?}");
    let _tqs = Tqs::start(agent, &["--session", "agent-session.json"]);
    let fetch = |host: &str, trusted: &[&str]| {
        let origin = format!("https://{host}:{}", service.port());
        let routes = json!([{"audience": API, "url": origin, "tools": ["search"]}]);
        write_private(&agent.join("routes.json"), &routes.to_string());
        let url = format!("{origin}/nothing/is/here");
        let fetched = command_in(
            agent,
            &[&["fetch", "--json", "--include", "--routes", "routes.json", &url], trusted].concat(),
        );
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (fetched.status.code(), told(&fetched.stdout), told(&fetched.stderr))
    };
    for (host, trusted) in
        [("localhost", &["--ca-file", others][..]), ("localhost", &[]), ("127.0.0.1", &["--ca-file", ours])]
    {
        let (exit, answer, told) = fetch(host, trusted);
        assert_ne!(exit, Some(0));
        assert!(answer.is_empty(), "{host} {trusted:?}: {answer}");
        // Nothing was sent, and no token drawn at all where the system trusts nobody.
        assert!(
            told.contains("UNREACHABLE") || told.contains("ca-certificates"),
            "{host} {trusted:?}: {told}"
        );
    }
    let (_, answer, told) = fetch("localhost", &["--ca-file", ours]);
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer} {told}");
}
