//! Security event tokens that are forged, misdirected, late or sent again: each does nothing, and the same token as its issuer makes
//! it suspends the agents of the human whom it is about.

use std::path::Path;

use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, write_policy};
use obol_world::home::{self, write_private};
use obol_world::idp::Idp;
use obol_world::now;
use serde_json::{Value, json};

use super::Agent;
use super::attested::made;
use super::events::{RISC, VERIFICATION, ask, owner, push};

/// A token that is sent, and the answer: 202, or the code of RFC 8935.
struct Case {
    why: &'static str,
    bad: Value,
    good: Value,
    answer: &'static str,
}

struct World {
    service: AsProcess,
    /// Whose word counts, and another tenant who is listened to as well.
    idp: Idp,
    tenant: Idp,
    owner: String,
}

impl World {
    fn start(home: &Path) -> Self {
        let (idp, tenant) = (Idp::start(), Idp::start());
        let events = json!({ "transmitters": [
            { "issuer": idp.issuer, "users_of": "local", "email_domain": "corp.example" },
            { "issuer": tenant.issuer, "email_domain": "tenant.example" },
        ]});
        write_private(&home.join("events.json"), &events.to_string());
        write_policy(&home.join("policy"), CATALOGUE, POLICIES);
        let service = AsProcess::start_with(home, &["--policy", "policy", "--events", "events.json"]);
        let _agent = Agent::approved(&service, home, "builder");
        let owner = owner(&service, "builder");
        Self { service, idp, tenant, owner }
    }

    /// What is asked of the maker of tokens: one of the provider's that disables the owner's account.
    fn token(&self, jti: &str, about: &Value) -> Value {
        let claims = self.idp.claims(&self.service.origin(), jti, &format!("{RISC}account-disabled"), about);
        json!({ "alg": "RS256", "header": { "typ": "secevent+jwt" }, "claims": claims })
    }

    fn human(&self) -> Value {
        json!({ "format": "opaque", "id": self.owner })
    }

    fn email(&self) -> Value {
        json!({ "format": "email", "email": format!("{}@corp.example", self.owner) })
    }

    /// A token of the other tenant's, by its own key.
    fn of_tenant(&self, jti: &str, about: &Value) -> Value {
        let mut token = self.token(jti, about);
        (token["others"], token["claims"]["iss"]) = (json!(true), json!(self.tenant.issuer));
        token
    }

    fn send(&self, token: &str) -> String {
        let (status, body) =
            ask(&self.service, "/v1/events", "Content-Type: application/secevent+jwt\r\n", Some(token));
        match status {
            202 => "202".to_owned(),
            _ => serde_json::from_str::<Value>(&body).unwrap()["err"].as_str().unwrap().to_owned(),
        }
    }

    fn status(&self) -> String {
        self.service.told(&["agent", "show", "builder"])["agent"]["state"].as_str().unwrap().to_owned()
    }

    /// A token and the same with this changed.
    fn changed(&self, why: &'static str, change: impl Fn(&mut Value), answer: &'static str) -> Case {
        let good = self.token(why, &self.human());
        let mut bad = good.clone();
        change(&mut bad);
        Case { why, bad, good, answer }
    }

    fn cases(&self) -> Vec<Case> {
        let claim = |why, name: &'static str, value: Value, answer| {
            self.changed(why, move |token| token["claims"][name] = value.clone(), answer)
        };
        let header = |why, name: &'static str, value: Value, answer| {
            self.changed(why, move |token| token["header"][name] = value.clone(), answer)
        };
        let algorithm =
            |why, alg: &'static str| self.changed(why, move |token| token["alg"] = json!(alg), "invalid_key");
        let tenants = |why, about: Value| Case {
            why,
            bad: self.of_tenant(why, &about),
            good: self.token(why, &about),
            answer: "202",
        };
        vec![
            claim("a wrong issuer", "iss", json!("https://evil.example"), "invalid_issuer"),
            claim("another tenant's issuer", "iss", json!(self.tenant.issuer), "authentication_failed"),
            claim("a wrong audience", "aud", json!("https://other.example"), "invalid_audience"),
            claim("an iat too long ago", "iat", json!(now() - 700), "invalid_request"),
            claim("an iat too far ahead", "iat", json!(now() + 900), "invalid_request"),
            claim("no iat", "iat", Value::Null, "invalid_request"),
            claim("no jti", "jti", Value::Null, "invalid_request"),
            self.changed("another's key of the same name", |token| token["others"] = json!(true), {
                "authentication_failed"
            }),
            algorithm("no signature", "none"),
            algorithm("a MAC by the public key", "HS256"),
            self.changed(
                "an unknown crit",
                |token| token["header"] = json!({ "typ": "secevent+jwt", "crit": ["x"], "x": 1 }),
                "invalid_request",
            ),
            header("another kind of token", "typ", json!("JWT"), "invalid_request"),
            tenants("an address of another tenant", self.email()),
            tenants("a name of another tenant's human", self.human()),
        ]
    }
}

#[test]
fn each_forged_event_does_nothing_and_the_one_it_was_made_from_suspends() {
    let home = home::home();
    let world = World::start(home.path());
    let mut cases = world.cases();
    let nobody = json!({ "format": "opaque", "id": "nobody" });
    let mut verify = [world.token("v", &nobody), world.of_tenant("v", &nobody)];
    for token in &mut verify {
        token["claims"]["events"] = json!({ VERIFICATION: {} });
    }
    let make: Vec<_> = cases.iter().flat_map(|case| [&case.bad, &case.good]).chain(&verify).collect();
    let made = made(&json!(make));
    world.idp.publish(&made["jwks"]);
    world.tenant.publish(&made["others"]);
    let mut tokens = made["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap());
    let last: Vec<&str> = tokens.clone().skip(2 * cases.len()).collect();
    // The keys are there, so that nothing is refused for want of them.
    last.iter().for_each(|token| push(&world.service, token));
    for case in cases.drain(..) {
        let (bad, good) = (tokens.next().unwrap(), tokens.next().unwrap());
        assert_eq!(world.send(bad), case.answer, "{}", case.why);
        assert_eq!(world.status(), "active", "{}: it did something", case.why);
        // The control has the same `jti`, and issuers differ where the forged one was taken.
        assert_eq!(world.send(good), "202", "the control of {}", case.why);
        assert_eq!(world.status(), "suspended", "the control of {}: it did nothing", case.why);
        world.service.told(&["agent", "enable", "builder"]);
    }
}

#[test]
fn an_event_does_its_work_once_also_after_a_kill() {
    let home = home::home();
    let mut world = World::start(home.path());
    let made = made(&json!([world.token("first", &world.human()), world.token("second", &world.human())]));
    world.idp.publish(&made["jwks"]);
    let [first, second] = [0, 1].map(|place| made["tokens"][place].as_str().unwrap());
    push(&world.service, first);
    assert_eq!(world.status(), "suspended");
    world.service.told(&["agent", "enable", "builder"]);
    push(&world.service, first);
    assert_eq!(world.status(), "active", "the same again does nothing");
    world.service.kill();
    world.service.start_again();
    push(&world.service, first);
    assert_eq!(world.status(), "active", "not by another process either");
    push(&world.service, second);
    assert_eq!(world.status(), "suspended", "the control");
}
