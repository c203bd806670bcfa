//! A guard over HTTP that follows an Authentication Service: what that ends is refused, and where it is not heard nothing is
//! accepted for longer than the lease.

use std::path::Path;

use obol_world::authority::{AsProcess, POLICIES, write_policy};
use obol_world::home::{command, free_port, home, wait_until};
use obol_world::http::Http;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::attacks::{in_session, message, session};
use super::{Listening, log_of, server, wrapped_url};
use crate::authenticator::Authenticator;
use crate::end_to_end::draw;
use crate::mcp::pipe::{AUDIENCE, Pipe, call, reason};

const CATALOGUE: &str = r#"
org = "example"

[[tool]]
name = "add"
audience = "https://tools.example"
risk = "low"
  [[tool.offer]]
  name = "sums"
  action = "call"
  resource = "**"
  ttl = 60
"#;

/// A service, an agent that it let in, a server, and the guard in front of it.
struct Followed {
    guard: Listening,
    _server: Listening,
    probes: u16,
    _authenticator: Authenticator,
    tqs: Tqs,
    service: AsProcess,
    home: TempDir,
}

impl Followed {
    fn start() -> Self {
        let home = home();
        let policies = POLICIES.replace("Obol::Tool::\"search\"", "Obol::Tool::\"add\"");
        let policies: Vec<_> = policies.lines().filter(|line| !line.contains("\"pay\"")).collect();
        write_policy(&home.path().join("policy"), CATALOGUE, &policies.join("\n"));
        let service = AsProcess::start_with(home.path(), &["--policy", "policy"]);
        let invited = service.told(&["rs", "invite", AUDIENCE]);
        let ticket = invited["ticket"].as_str().unwrap().to_owned();
        service.told(&["rs", "join", "--authority", &service.pin(), &ticket]);

        let server = server(home.path(), &[]);
        let (port, probes) = (free_port(), free_port());
        let mut guard = command(home.path());
        guard.args(["mcp", "guard", "--authority", &service.pin(), "--audience", AUDIENCE, "--first-start"]);
        guard.args(["--url", &server.url(), "--listen", &format!("127.0.0.1:{port}")]);
        guard.args(["--http", &format!("127.0.0.1:{probes}")]).env("OBOL_RS__LEASE", "30");
        let guard = Listening::start(guard, home.path(), port);

        let tqs = Tqs::start(home.path(), &[]);
        let authenticator = Authenticator::start(home.path(), &["--url", &service.pin()]);
        let register = ["register", "--name", "builder", "--role", "dev", "--json"];
        let asked = command(home.path()).args(register).output().unwrap();
        let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
        service.told(&["approve", asked["code"].as_str().unwrap(), "--yes"]);
        let authenticated = command(home.path()).arg("authenticate").output().unwrap();
        assert!(authenticated.status.success(), "{authenticated:?}");
        let followed =
            Self { guard, _server: server, probes, _authenticator: authenticator, tqs, service, home };
        wait_until("the guard has heard the service", || followed.is_ready());
        followed
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn is_ready(&self) -> bool {
        Http::new(self.probes).get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    fn token(&self) -> String {
        draw(&self.tqs, "add")
    }

    /// The answer to a call with this token.
    fn call(&self, in_: &str, token: &str) -> Value {
        let mut call = call(1, "add", &json!({"a": 1, "b": 2}));
        call["params"]["_meta"] = json!({obol_mcp::EXTENSION: {"token": token, "format": "opaque"}});
        message(&in_session(self.guard.address(), in_, &call.to_string()))
    }

    fn ran(&self) -> usize {
        std::fs::read_to_string(self.home().join("seen")).unwrap_or_default().lines().count()
    }
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[test]
fn a_guard_over_http_that_joined_a_service_takes_its_sessions_and_refuses_those_that_ended() {
    let followed = Followed::start();
    let mut client = Pipe::start(followed.home(), &wrapped_url(&followed.guard.url()));
    client.initialize();
    client.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    let answer = client.call(1, "add", &json!({"a": 1, "b": 2}));
    assert_eq!(text(&answer), "add 1 2", "{answer} {}", log_of(followed.home()));
    client.finish();
    assert_eq!(followed.ran(), 1);

    // Tokens that were drawn before, and are as fresh as any.
    let begun = session(followed.guard.address());
    let mut drawn: Vec<_> = (0..40).map(|_| followed.token()).collect();
    assert_eq!(text(&followed.call(&begun, &drawn.pop().unwrap())), "add 1 2", "the control");
    followed.service.told(&["agent", "disable", "builder"]);
    let mut refused = Value::Null;
    wait_until("the guard has heard of it", || {
        refused = followed.call(&begun, &drawn.pop().expect("it is heard of before they are all spent"));
        refused["result"]["isError"] == true
    });
    assert_eq!(reason(&refused), "SESSION_EXPIRED", "{refused}");
    let before = followed.ran();
    assert_eq!(reason(&followed.call(&begun, &drawn.pop().unwrap())), "SESSION_EXPIRED");
    assert_eq!(followed.ran(), before);
}

#[test]
fn a_guard_over_http_accepts_nothing_once_its_lease_is_over_and_goes_on_when_it_hears_again() {
    let mut followed = Followed::start();
    let begun = session(followed.guard.address());
    assert_eq!(text(&followed.call(&begun, &followed.token())), "add 1 2");
    followed.service.kill();
    assert_eq!(text(&followed.call(&begun, &followed.token())), "add 1 2", "for the length of the lease");
    wait_until("the lease is over", || !followed.is_ready());
    let ran = followed.ran();
    let refused = followed.call(&begun, &followed.token());
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert_eq!(followed.ran(), ran, "nothing runs");
    followed.service.start_again();
    wait_until("the guard hears the service again", || followed.is_ready());
    assert_eq!(text(&followed.call(&begun, &followed.token())), "add 1 2");
}
