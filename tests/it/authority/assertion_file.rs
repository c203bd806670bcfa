//! `obol register --assertion-file` as whoever runs it on a build machine does: whole processes of the service, the sidecar and the
//! authenticator, and a token that another's library signed by keys that its issuer publishes.

use std::path::{Path, PathBuf};
use std::process::Output;

use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, command_in, write_policy};
use obol_world::home::{self, wait_until, write_private};
use obol_world::idp::Idp;
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::attested::made;
use super::stream::drawn;
use crate::authenticator::Authenticator;

const SUBJECT: &str = "repo:corp/app:ref:refs/heads/main";

/// The agent's side on one machine.
struct Machine {
    home: tempfile::TempDir,
    _tqs: Tqs,
    _authenticator: Authenticator,
}

impl Machine {
    fn start(service: &AsProcess) -> Self {
        let home = home::home();
        let tqs = Tqs::start(home.path(), &[]);
        let authenticator = Authenticator::start(home.path(), &["--url", &service.pin()]);
        Self { home, _tqs: tqs, _authenticator: authenticator }
    }

    /// Registers with the token in a file, which others may read, as those of platforms are. Keys are fetched meanwhile.
    fn register(&self, name: &str, token: &str) -> Output {
        let file = self.home.path().join("token");
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let mut done = None;
        wait_until("it is not too soon, and the keys are known", || {
            let file = file.to_str().unwrap();
            let arguments = ["register", "--name", name, "--class", "coding", "--assertion-file", file];
            let output = command_in(self.home.path(), &arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            let is_early =
                said.contains("keys of its issuer are being fetched") || said.contains("ask again in");
            done = Some(output);
            !is_early
        });
        done.unwrap()
    }

    fn is_refused(&self, token: &str, why: &str) {
        let output = self.register("ci-1", token);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "wanted {why:?}: {output:?}");
        let shown = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(!String::from_utf8_lossy(&shown).contains(token), "the token is repeated");
        let status = command_in(self.home.path(), &["auth", "status"]);
        assert!(!status.status.success(), "it has a session: {status:?}");
    }

    fn is_taken(&self, name: &str, token: &str) {
        let output = self.register(name, token);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("The agent is registered: "), "{output:?}");
        wait_until("a session", || command_in(self.home.path(), &["auth", "status"]).status.success());
        drawn(self.home.path()).unwrap();
    }
}

fn service(home: &Path, idp: &Idp) -> AsProcess {
    let attestors: PathBuf = home.join("attestors.json");
    let file = json!({ "attestors": [{
        "issuer": idp.issuer, "jwks_uri": format!("{}/jwks", idp.issuer),
        "agents": [{ "claims": { "sub": SUBJECT }, "class": "coding", "names": ["ci-*"],
            "roles": ["dev"], "owner": "local:root" }],
    }]});
    write_private(&attestors, &file.to_string());
    write_policy(&home.join("policy"), CATALOGUE, POLICIES);
    AsProcess::unstarted(home, &["--policy", "policy", "--attestors", "attestors.json"])
}

#[test]
fn a_build_machines_token_registers_its_agent_once_and_another_token_registers_none() {
    let (home, idp) = (home::home(), Idp::start());
    let mut service = service(home.path(), &idp);
    let token = |jti: &str, claim: &str, value: Value| {
        let mut claims = json!({ "iss": idp.issuer, "aud": service.origin(), "sub": SUBJECT, "jti": jti,
            "iat": now(), "nbf": now(), "exp": now() + 300 });
        claims[claim] = value;
        json!({ "alg": "RS256", "header": { "typ": "JWT" }, "claims": claims })
    };
    let made = made(&json!([
        token("1", "aud", json!("https://other.example")),
        token("2", "sub", json!("repo:corp/app:pull_request")),
        token("3", "exp", json!(now() - 5)),
        token("4", "jti", json!("good")),
        token("5", "jti", json!("fresh")),
    ]));
    idp.publish(&made["jwks"]);
    service.start_again();
    let [aud, sub, over, good, fresh] = [0, 1, 2, 3, 4].map(|place| made["tokens"][place].as_str().unwrap());
    // Each on a machine of its own: one may not ask again at once.
    Machine::start(&service).is_refused(aud, "its `aud` must be");
    Machine::start(&service).is_refused(sub, "no rule of its issuer");
    let machine = Machine::start(&service);
    machine.is_refused(over, "it is over");
    // The control: the same but for that.
    machine.is_taken("ci-1", good);
    let thief = Machine::start(&service);
    thief.is_refused(good, "has already registered an agent");
    service.kill();
    service.start_again();
    thief.is_refused(good, "has already registered an agent");
    thief.is_taken("ci-2", fresh);
    let owner = service.told(&["agent", "show", "ci-2"])["agent"]["owner"].clone();
    assert_eq!(owner, "local:root", "who answers for it is whom the rule names");
}
