//! Security events, from an identity provider to those who refuse: tokens of other people's libraries are taken, ours are
//! taken by them, and a human whose account is disabled has agents that get nothing any more, anywhere.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use obol_secret::text::to_hex;
use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, command_in, write_policy};
use obol_world::home::{self, obol, wait_until, write_private};
use obol_world::idp::Idp;
use obol_world::rs::RsProcess;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::stream::{API, Beside, drawn};
use crate::sdk::python;

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
pub(super) const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
pub(super) const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
const TOKEN: &str = "the-receivers-token";
/// How often the way from an event to a refusal is gone.
const ROUNDS: usize = 3;

/// Another's library, in its own language.
#[derive(Clone, Copy, Debug)]
enum Library {
    Joserfc,
    Authlib,
    Jose,
}

impl Library {
    fn command(self) -> Command {
        let mut command;
        match self {
            Self::Joserfc => {
                command = Command::new(python());
                command.args(["-c", include_str!("sets.py")]);
            }
            Self::Authlib => {
                command = Command::new(python());
                command.args(["-c", include_str!("authlib_sets.py")]);
            }
            Self::Jose => {
                let modules: PathBuf = obol().parent().unwrap().parent().unwrap().join("npm");
                assert!(modules.join("node_modules/jose").exists(), "run scripts/test, which fetches jose");
                command = Command::new("node");
                command.args(["--input-type=module", "-e", include_str!("sets.mjs")]).current_dir(modules);
            }
        }
        command
    }

    /// What it answers.
    fn run(self, asked: &Value) -> Value {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("its interpreter is installed by scripts/install");
        child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What a token says of somebody.
fn claims(idp: &Idp, service: &AsProcess, jti: &str, event: &str, about: &Value) -> Value {
    idp.claims(&service.origin(), jti, event, about)
}

/// A request, and the status and body of its answer.
pub(super) fn ask(service: &AsProcess, path: &str, headers: &str, body: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", service.port())).unwrap();
    let (verb, body) = (if body.is_some() { "POST" } else { "GET" }, body.unwrap_or_default());
    let length = body.len();
    write!(
        stream,
        "{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Sends a token until it is taken: keys that are new to the service are fetched meanwhile.
pub(super) fn push(service: &AsProcess, token: &str) {
    let mut last = (0, String::new());
    wait_until("the token is taken", || {
        last = ask(service, "/v1/events", "Content-Type: application/secevent+jwt\r\n", Some(token));
        assert!(matches!(last.0, 202 | 503), "{last:?}\n{}", service.log());
        last.0 == 202
    });
}

fn service(home: &Path, idp: &Idp) -> AsProcess {
    let events = json!({
        "transmitters": [{ "issuer": idp.issuer, "users_of": "local" }],
        "receivers": [{ "name": "siem", "token_sha256": to_hex(&Sha256::digest(TOKEN)) }],
    });
    write_private(&home.join("events.json"), &events.to_string());
    write_policy(&home.join("policy"), CATALOGUE, POLICIES);
    AsProcess::start_with(home, &["--policy", "policy", "--events", "events.json"])
}

/// Who approved the agent, as the machine calls them.
pub(super) fn owner(service: &AsProcess, agent: &str) -> String {
    let shown = service.told(&["agent", "show", agent]);
    shown["agent"]["owner"].as_str().unwrap().strip_prefix("local:").unwrap().to_owned()
}

#[test]
fn tokens_of_other_libraries_are_taken_and_ours_are_taken_by_them() {
    let (home, idp) = (home::home(), Idp::start());
    let service = service(home.path(), &idp);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
    let asked = json!({ "delivery": { "method": "urn:ietf:rfc:8936" }, "events_requested": [
        format!("{CAEP}session-established"), format!("{CAEP}session-revoked"),
    ]});
    let (status, stream) = ask(&service, "/ssf/streams", &bearer, Some(&asked.to_string()));
    assert_eq!(status, 201, "{stream}");
    let id = serde_json::from_str::<Value>(&stream).unwrap()["stream_id"].as_str().unwrap().to_owned();
    let _beside = Beside::start(home.path(), &service);
    let about = json!({ "format": "opaque", "id": "nobody" });
    for library in [Library::Joserfc, Library::Authlib, Library::Jose] {
        let make: Vec<_> = ["RS256", "ES256", "EdDSA"]
            .map(|alg| {
                let jti = format!("{library:?}-{alg}");
                json!({ "alg": alg, "claims": claims(&idp, &service, &jti, VERIFICATION, &about) })
            })
            .to_vec();
        let made = library.run(&json!({ "make": make }));
        idp.publish(&made["jwks"]);
        for token in made["tokens"].as_array().unwrap() {
            push(&service, token.as_str().unwrap());
        }
    }
    // Ours: the session that was opened, as it is fetched, by the keys that the service shows.
    let keys: Value = serde_json::from_str(&ask(&service, "/.well-known/jwks.json", "", None).1).unwrap();
    let (status, fetched) = ask(&service, &format!("/ssf/poll/{id}"), &bearer, Some("{}"));
    assert_eq!(status, 200, "{fetched}");
    let fetched: Value = serde_json::from_str(&fetched).unwrap();
    let token = fetched["sets"].as_object().unwrap().values().next().expect("a session was opened").clone();
    let check = json!({ "jwks": keys, "token": token, "issuer": service.origin(), "audience": "siem" });
    for library in [Library::Joserfc, Library::Authlib, Library::Jose] {
        let claims = &library.run(&json!({ "check": check }))["claims"];
        assert!(
            claims["events"].get(format!("{CAEP}session-established")).is_some(),
            "{library:?}: {claims}"
        );
        assert_eq!(claims["sub_id"]["user"]["id"], owner(&service, "builder").as_str(), "{library:?}");
    }
}

/// Whether it accepts tokens of no session.
fn is_over(server: &RsProcess) -> bool {
    let status = server.operate("status");
    status["sessions"].as_array().unwrap().iter().all(|session| session["state"] != "active")
}

#[test]
fn an_account_that_is_disabled_is_refused_at_three_resource_servers_and_leaves_an_empty_queue() {
    let (home, idp) = (home::home(), Idp::start());
    let service = service(home.path(), &idp);
    let memory = ["--first-start", "--spent", "memory"];
    let servers = [(); 3].map(|()| RsProcess::follow(home.path(), &service, API, &memory));
    let beside = Beside::start(home.path(), &service);
    let about = json!({ "format": "opaque", "id": owner(&service, "builder") });
    let make: Vec<_> = (0..=ROUNDS)
        .map(|round| {
            let event = if round == 0 { VERIFICATION.to_owned() } else { format!("{RISC}account-disabled") };
            json!({ "alg": "RS256", "claims": claims(&idp, &service, &round.to_string(), &event, &about) })
        })
        .collect();
    let made = Library::Joserfc.run(&json!({ "make": make }));
    idp.publish(&made["jwks"]);
    // The keys are fetched before anything is timed.
    let (first, tokens) = made["tokens"].as_array().unwrap().split_first().unwrap();
    push(&service, first.as_str().unwrap());
    for token in tokens {
        wait_until("a session", || command_in(home.path(), &["auth", "status"]).status.success());
        let tokens = servers.each_ref().map(|server| (server, drawn(home.path()).unwrap()));
        let began = Instant::now();
        push(&service, token.as_str().unwrap());
        let taken = began.elapsed();
        wait_until("all three have ended its sessions", || servers.iter().all(is_over));
        let refused = began.elapsed();
        wait_until("the queue is empty", || {
            let status = beside.tqs.control().status().unwrap();
            status.sessions.iter().all(|session| session.state != obol_ipc::control::SessionState::Active)
        });
        let empty = began.elapsed();
        for (server, token) in &tokens {
            assert_eq!(server.present(token, "search"), "SESSION_EXPIRED", "{}", server.log());
        }
        println!("taken {taken:.0?}, three resource servers {refused:.0?}, the queue {empty:.0?}");
        assert!(drawn(home.path()).is_err(), "nothing is handed out");
        service.told(&["agent", "enable", "builder"]);
    }
}

#[test]
fn a_trial_names_who_has_not_heard_and_until_when_they_accept_tokens() {
    let (home, idp) = (home::home(), Idp::start());
    let service = service(home.path(), &idp);
    let memory = ["--first-start", "--spent", "memory"];
    let one = RsProcess::follow(home.path(), &service, API, &memory);
    let mut away = RsProcess::follow(home.path(), &service, API, &memory);
    let _beside = Beside::start(home.path(), &service);
    let token = drawn(home.path()).unwrap();
    away.kill();
    let done = service.told(&["as", "events", "test", "--agent", "builder", "--wait", "1"]);
    assert_eq!(done["sessionsEnded"], 1, "{done}");
    let copies = done["copies"].as_array().unwrap();
    let of =
        |confirmed: bool| copies.iter().filter(|copy| copy["confirmed"] == confirmed).collect::<Vec<_>>();
    assert_eq!((of(true).len(), of(false).len()), (1, 1), "{done}");
    assert!(of(false)[0]["leaseEndsAt"].is_string() && of(false)[0]["follows"] == false, "{done}");
    assert_eq!(one.present(&token, "search"), "SESSION_EXPIRED");
    let nobody = service.operate(&["as", "events", "test", "--user", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("concerns no agent"), "{nobody:?}");
}
