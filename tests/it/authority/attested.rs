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
pub(crate) const AUDIENCE: &str = "https://as.example";
const SUBJECT: &str = "system:serviceaccount:prod:builder";

/// What joserfc makes of this: the keys, another's keys with the same names, and the tokens.
pub(crate) fn made(asked: &Value) -> Value {
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
    let mut human = json!({ "claims": { "client_id": "obol" }, "class": "coding", "names": ["of-*"],
        "roles": ["dev"], "owner": "subject" });
    let anybody = human.clone();
    (human["claims"]["sub"], human["owner"]) = (json!("anna"), json!("local:root"));
    let attestor = |idp: &Idp, kind: &str, rules: &[&Value]| {
        json!({ "issuer": idp.issuer, "kind": kind, "audience": AUDIENCE,
            "jwks_uri": format!("{}/jwks", idp.issuer), "agents": rules })
    };
    let file = json!({ "attestors": [
        attestor(idp, "workload", &[&workload]),
        attestor(idp, "id-jag", &[&human, &anybody]),
        attestor(other, "workload", &[&workload]),
    ]});
    write_private(&home.join("attestors.json"), &file.to_string());
    write_policy(&home.join("policy"), CATALOGUE, POLICIES);
    AsProcess::start_with(home, &["--policy", "policy", "--attestors", "attestors.json"])
}

fn claims(idp: &Idp, jti: &str) -> Value {
    json!({ "iss": idp.issuer, "aud": AUDIENCE, "sub": SUBJECT, "jti": jti, "iat": now(), "exp": now() + 300 })
}

/// The code and the reason that a token is refused with; `Ok` where it makes an agent. Keys are fetched meanwhile.
pub(crate) fn presented(agent: &mut Agent, token: &str) -> Result<(), (String, String)> {
    let mut last = None;
    wait_until("the keys are known", || {
        let done = agent.runtime.block_on(agent.authenticator.register_attested(&agent.wishes, token, now()));
        last = Some(match done {
            Ok(Registered::Active { .. }) => Ok(()),
            Ok(Registered::Waits { .. }) => panic!("a human is asked"),
            Err(AuthError::Refused { code, detail }) => Err((code, detail)),
            Err(error) => panic!("{error}"),
        });
        !matches!(last.as_ref().unwrap(), Err((code, _)) if code == "UNAVAILABLE")
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
    assert_eq!(presented(&mut thief, stolen).unwrap_err().0, "ASSERTION_USED");
    service.kill();
    service.start_again();
    let mut thief = Agent::new(&service, home.path(), "ci-thief");
    assert_eq!(presented(&mut thief, stolen).unwrap_err().0, "ASSERTION_USED", "it is spent durably");
}

/// A word that is not taken, and the same as it is taken.
struct Case {
    why: &'static str,
    /// The agent's name, where that is what is wrong.
    name: Option<&'static str>,
    bad: Value,
    good: Value,
    code: &'static str,
    detail: &'static str,
}

/// What is wrong with what a workload's token says.
fn of_claims(idp: &Idp) -> Vec<Case> {
    let late = now() - 7_200;
    [
        ("another audience", "aud", json!("https://other.example"), "its `aud` must be"),
        ("two audiences", "aud", json!([AUDIENCE, "https://other.example"]), "its `aud` must be"),
        ("over", "exp", json!(now() - 1), "it is over"),
        ("old", "iat", json!(late), "it is 3600 s old or more"),
        ("another workload", "sub", json!("system:serviceaccount:test:builder"), "no rule of its issuer"),
        (
            "an unknown issuer",
            "iss",
            json!("https://evil.example"),
            "of this kind of \"https://evil.example\"",
        ),
        ("no jti", "jti", Value::Null, "its `jti` must be"),
    ]
    .map(|(why, claim, value, detail)| {
        let good = json!({ "alg": "RS256", "claims": claims(idp, why) });
        let mut bad = good.clone();
        bad["claims"][claim] = value;
        Case { why, name: None, bad, good, code: "ASSERTION", detail }
    })
    .into()
}

/// What is wrong with whose token it is, and of which kind.
fn of_forms(idp: &Idp, other: &Idp) -> Vec<Case> {
    let jag = json!({ "typ": "oauth-id-jag+jwt" });
    let case = |why: &'static str, changed: &[(&str, Value)], detail| {
        let good = json!({ "alg": "RS256", "claims": claims(idp, why) });
        let mut bad = good.clone();
        for (member, value) in changed {
            bad[*member] = value.clone();
        }
        Case { why, name: None, bad, good, code: "ASSERTION", detail }
    };
    let algorithm = "its header names another algorithm";
    let named =
        Case { name: Some("builder"), ..case("a name that is not its own", &[], "no rule of its issuer") };
    // The other issuer's keys have the same names, and it says nothing of humans.
    let others = json!({ "alg": "RS256", "others": true, "claims": claims(other, "of the other issuer") });
    let mut human = others.clone();
    human["header"] = jag.clone();
    let human =
        Case { bad: human, good: others, ..case("an ID-JAG of a cluster", &[], "tokens of this kind of") };
    // Somebody else, with the address of a human whom others know.
    let mut anna = json!({ "alg": "RS256", "header": jag, "claims": claims(idp, "anna") });
    let said = &mut anna["claims"];
    (said["client_id"], said["sub"], said["email"]) =
        (json!("obol"), json!("anna"), json!("anna@corp.example"));
    let mut mallory = anna.clone();
    mallory["claims"]["sub"] = json!("mallory");
    let tenant = case("an address of another tenant", &[], "policy does not let you");
    vec![
        named,
        human,
        Case { bad: mallory, good: anna, code: "APPROVAL_DENIED", ..tenant },
        case(
            "another's key of the same name",
            &[("others", json!(true))],
            "its signature is not that of the key",
        ),
        case("no signature", &[("alg", json!("none"))], algorithm),
        case("a MAC by the public key", &[("alg", json!("HS256"))], algorithm),
        case("another kind", &[("header", json!({ "typ": "secevent+jwt" }))], "does not say `typ`"),
    ]
}

#[test]
fn a_forged_foreign_or_late_word_registers_nobody() {
    let (home, idp, other) = (home::home(), Idp::start(), Idp::start());
    let mut cases = of_claims(&idp);
    cases.extend(of_forms(&idp, &other));
    let make: Vec<_> = cases.iter().flat_map(|case| [&case.bad, &case.good]).collect();
    let made = made(&json!(make));
    idp.publish(&made["jwks"]);
    other.publish(&made["others"]);
    let service = service(home.path(), &idp, &other);
    for (number, (case, tokens)) in cases.iter().zip(made["tokens"].as_array().unwrap().chunks(2)).enumerate()
    {
        let (why, kind) = (case.why, if case.code == "APPROVAL_DENIED" { "of" } else { "ci" });
        let own = format!("{kind}-{number}");
        let mut agent = Agent::new(&service, home.path(), case.name.unwrap_or(&own));
        let (code, detail) = presented(&mut agent, tokens[0].as_str().unwrap()).expect_err(why);
        assert_eq!(code, case.code, "{why}: {detail}\n{}", service.log());
        assert!(detail.contains(case.detail), "{why}: {detail}");
        let mut control = Agent::new(&service, home.path(), &own);
        assert_eq!(presented(&mut control, tokens[1].as_str().unwrap()), Ok(()), "the control of {why}");
    }
}
