//! Tokens of workloads and grants of an identity provider that stand in for a human: those of another's library register an agent,
//! once; forged, stolen and foreign ones register none, each beside one that does.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use obol_uplink::AuthError;
use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, write_policy};
use obol_world::home::{self, wait_until, write_private};
use obol_world::idp::Idp;
use obol_world::now;
use serde_json::{Value, json};

use super::{Agent, Registered, tools};
use crate::sdk::python;

/// What tokens call the service: they are made, and their keys published, before it starts.
const AUDIENCE: &str = "https://as.example";
const SUBJECT: &str = "system:serviceaccount:prod:builder";

/// What joserfc makes of this: the keys, another's keys with the same names, and the tokens.
fn made(asked: &Value) -> Value {
    let mut command = Command::new(python());
    command.args(["-c", include_str!("attested.py")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A service that takes two issuers at their word, and one of them for its humans' agents too.
fn service(home: &Path, idp: &Idp, other: &Idp) -> AsProcess {
    let workload = json!({ "claims": { "sub": SUBJECT }, "class": "coding", "names": ["ci-*"],
        "roles": ["dev"], "owner": "local:root" });
    let human = json!({ "claims": { "client_id": "obol" }, "class": "coding", "names": ["of-*"],
        "roles": ["dev"], "owner": "subject" });
    let attestor = |idp: &Idp, kind: &str, rule: &Value| json!({ "issuer": idp.issuer, "kind": kind, "audience": AUDIENCE, "jwks_uri": format!("{}/jwks", idp.issuer), "agents": [rule] });
    let file = json!({ "attestors": [
        attestor(idp, "workload", &workload), attestor(idp, "id-jag", &human), attestor(other, "workload", &workload),
    ]});
    write_private(&home.join("attestors.json"), &file.to_string());
    write_policy(&home.join("policy"), CATALOGUE, POLICIES);
    AsProcess::start_with(home, &["--policy", "policy", "--attestors", "attestors.json"])
}

fn claims(idp: &Idp, jti: &str) -> Value {
    json!({ "iss": idp.issuer, "aud": AUDIENCE, "sub": SUBJECT, "jti": jti, "iat": now(), "exp": now() + 300 })
}

/// The code that a token is refused with; `Ok` where it makes an agent. Keys are fetched meanwhile.
fn presented(agent: &mut Agent, token: &str) -> Result<(), String> {
    let mut last = None;
    wait_until("the keys are known", || {
        let done = agent.runtime.block_on(agent.authenticator.register_attested(&agent.wishes, token, now()));
        last = Some(match done {
            Ok(Registered::Active { .. }) => Ok(()),
            Ok(Registered::Waits { .. }) => panic!("a human is asked"),
            Err(AuthError::Refused { code, .. }) => Err(code),
            Err(error) => panic!("{error}"),
        });
        last.as_ref().unwrap() != &Err("UNAVAILABLE".to_owned())
    });
    last.unwrap()
}

#[test]
fn a_workloads_token_registers_one_agent_once_also_after_a_kill() {
    let (home, idp, other) = (home::home(), Idp::start(), Idp::start());
    let make: Vec<_> = [("RS256", "JWT"), ("ES256", ""), ("EdDSA", "jwt")]
        .map(|(alg, typ)| {
            let header = if typ.is_empty() { json!({}) } else { json!({ "typ": typ }) };
            json!({ "alg": alg, "header": header, "claims": claims(&idp, alg) })
        })
        .to_vec();
    let made = made(&json!(make));
    idp.publish(&made["jwks"]);
    let mut service = service(home.path(), &idp, &other);
    for (number, token) in made["tokens"].as_array().unwrap().iter().enumerate() {
        let mut agent = Agent::new(&service, home.path(), &format!("ci-{number}"));
        assert_eq!(presented(&mut agent, token.as_str().unwrap()), Ok(()), "{}", service.log());
        assert_eq!(tools(&agent.open().unwrap()), ["search"], "it may do what its rule's roles may");
        let shown = service.told(&["agent", "show", &format!("ci-{number}")]);
        assert_eq!(shown["agent"]["owner"], "local:root", "{shown}");
    }
    let stolen = made["tokens"][0].as_str().unwrap();
    let mut thief = Agent::new(&service, home.path(), "ci-thief");
    assert_eq!(presented(&mut thief, stolen), Err("ASSERTION_USED".to_owned()));
    service.kill();
    service.start_again();
    let mut thief = Agent::new(&service, home.path(), "ci-thief");
    assert_eq!(presented(&mut thief, stolen), Err("ASSERTION_USED".to_owned()), "it is spent durably");
}

#[test]
fn a_forged_foreign_or_late_word_registers_nobody() {
    let (home, idp, other) = (home::home(), Idp::start(), Idp::start());
    let good = || claims(&idp, "good");
    let with = |claim: &str, value: Value| {
        let mut claims = good();
        claims[claim] = value;
        json!({ "alg": "RS256", "claims": claims })
    };
    let mut human = good();
    human["client_id"] = json!("obol");
    // Somebody else, with the address of a human whom others know.
    (human["sub"], human["email"]) = (json!("mallory"), json!("anna@corp.example"));
    let jag = json!({ "typ": "oauth-id-jag+jwt" });
    let bad = [
        ("another audience", "ci-x", with("aud", json!("https://other.example"))),
        ("two audiences", "ci-x", with("aud", json!([AUDIENCE, "https://other.example"]))),
        ("over", "ci-x", with("exp", json!(now() - 1))),
        ("old", "ci-x", with("iat", json!(now() - 7_200))),
        ("another workload", "ci-x", with("sub", json!("system:serviceaccount:test:builder"))),
        ("an issuer that nobody knows", "ci-x", with("iss", json!("https://evil.example"))),
        ("no jti", "ci-x", with("jti", Value::Null)),
        ("a name that is not its own", "builder", json!({ "alg": "RS256", "claims": good() })),
        (
            "another's key of the same name",
            "ci-x",
            json!({ "alg": "RS256", "claims": good(), "others": true }),
        ),
        ("no signature", "ci-x", json!({ "alg": "none", "claims": good() })),
        ("a MAC by the public key", "ci-x", json!({ "alg": "HS256", "claims": good() })),
        (
            "another kind",
            "ci-x",
            json!({ "alg": "RS256", "claims": good(), "header": { "typ": "secevent+jwt" } }),
        ),
        ("an ID-JAG for a workload", "ci-x", json!({ "alg": "RS256", "claims": good(), "header": jag })),
        ("an address of another tenant", "of-x", json!({ "alg": "RS256", "claims": human, "header": jag })),
    ];
    let mut make: Vec<_> = bad.iter().map(|(_, _, token)| token.clone()).collect();
    make.push(json!({ "alg": "RS256", "claims": good() }));
    let made = made(&json!(make));
    idp.publish(&made["jwks"]);
    other.publish(&made["others"]);
    let service = service(home.path(), &idp, &other);
    let (control, tokens) = made["tokens"].as_array().unwrap().split_last().unwrap();
    for ((why, name, _), token) in bad.iter().zip(tokens) {
        let mut agent = Agent::new(&service, home.path(), name);
        let code = presented(&mut agent, token.as_str().unwrap()).expect_err(why);
        let expected = if *name == "of-x" { "APPROVAL_DENIED" } else { "ASSERTION" };
        assert_eq!(code, expected, "{why}\n{}", service.log());
    }
    let mut agent = Agent::new(&service, home.path(), "ci-x");
    assert_eq!(presented(&mut agent, control.as_str().unwrap()), Ok(()), "the control");
}
