//! From an event at an identity provider to resource servers that refuse: an account is disabled, the token is pushed, and the
//! last of three resource servers has ended the agent's session.

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use obol_ipc::as_control::{EnableParams, EnableScope};
use obol_ipc::names::Label;
use obol_verify::{MemorySessionTable, SessionTable as _};
use obol_world::authority::{AsProcess, write_policy};
use obol_world::home::{self, write_private};
use obol_world::idp::Idp;
use obol_world::now;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{LOOK, Plan, Service, policy, report};

/// Resource servers that must refuse.
pub(super) const SERVERS: usize = 3;
pub(super) const DISABLED: &str = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";

pub(super) fn event(plan: Plan) {
    let idp = Idp::start();
    let service = listening(&idp);
    let mut operator = service.operator();
    let mut times = Runtime::new().expect("a runtime").block_on(async {
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            servers.push(service.server(&mut operator).await);
        }
        let mut agent = service.agent("builder").await;
        let name = Label::new("builder").expect("a name");
        let owner = operator.agent(name.clone()).expect("it answers").agent.expect("an agent").owner;
        let user = owner.strip_prefix("local:").expect("a user of this machine").to_owned();
        let about = json!({ "format": "opaque", "id": user });
        let mut times = Vec::new();
        for round in 0..plan.ends {
            let id = agent.authenticate(None, now()).await.expect("a session").half.session_id;
            let known = |server: &Arc<MemorySessionTable>| {
                server.look_up(id).is_ok_and(|found| found.is_some_and(|session| session.is_active()))
            };
            while !servers.iter().all(known) {
                tokio::time::sleep(LOOK).await;
            }
            let token =
                idp.sign(&idp.claims(&service.process.origin(), &round.to_string(), DISABLED, &about));
            let begun = Instant::now();
            push(service.process.port(), &token).await;
            while servers.iter().any(known) {
                tokio::task::yield_now().await;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e9);
            let scope = EnableScope::Agent(name.clone());
            assert!(
                operator.enable(EnableParams { scope }).expect("it answers").matched,
                "it is let in again"
            );
        }
        times
    });
    report(&format!("a security event, to the last of {SERVERS} resource servers"), &mut times, 50e6, 1e9);
}

/// A service that listens to an identity provider. On loopback without TLS: what is measured is not a handshake of TLS.
pub(super) fn listening(idp: &Idp) -> Service {
    let home = home::home();
    let (catalogue, policies) = policy(1);
    write_policy(&home.path().join("policy"), &catalogue, &policies);
    let events = json!({ "transmitters": [{ "issuer": idp.issuer, "users_of": "local" }] });
    write_private(&home.path().join("events.json"), &events.to_string());
    // One that nobody reads: the library of the agent's side takes a file.
    let certificate = super::certificate(home.path());
    let process = AsProcess::start_with(home.path(), &["--policy", "policy", "--events", "events.json"]);
    obol_benches::rows::count_as_ours(process.pid());
    Service { process, home, certificate }
}

/// Sends a token until it is taken: the first may come before the keys that it is signed with.
pub(super) async fn push(port: u16, token: &str) {
    loop {
        let (request, length) = (token.to_owned(), token.len());
        let sent = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the service listens");
            write!(
                stream,
                "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/secevent+jwt\r\n\
                 Content-Length: {length}\r\n\r\n{request}"
            )
            .expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            answer
        });
        let answer = sent.await.expect("it does not panic");
        match answer.split(' ').nth(1) {
            Some("202") => return,
            Some("503") => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => unreachable!("{answer}"),
        }
    }
}
