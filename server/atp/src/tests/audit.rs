//! What a token, and the line about it in the audit log, say of how it was proven who asks.

use std::sync::Arc;

use axum::body::Body;
use obol_atp::{AgentId, Secret, TokenBody};
use obol_audit::{AuditLog, ChainKey, LogOptions};
use obol_secret::text::from_base64url;
use serde_json::Value;
use tempfile::TempDir;

use super::{MASTER, SECRET, World, agent, request};
use crate::{Peer, Store};

const ROOT: &str = "/v1/agent-tokens";
const SHARED: &str = "a secret that agents share";

/// A provider with a log, whose agent has a secret of its own, and others share one.
struct Logged {
    folder: TempDir,
    log: Arc<AuditLog>,
    world: World,
}

impl Logged {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions::new(folder.path().join("audit.jsonl"), folder.path().join("audit.head"));
        let log = Arc::new(options.open(ChainKey::from_bytes([7; 32])).unwrap());
        let mut book = super::book();
        book.add_shared(SHARED.as_bytes()).unwrap();
        let world = World::with(Store::memory(), |builder| builder.secrets(book).audit(Arc::clone(&log)));
        Self { folder, log, world }
    }

    fn lines(&self) -> Vec<Value> {
        self.log.sync().unwrap();
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Sends a request from an address; the answer, and what the one line about it tells: event, decision, agent, check, client.
    async fn send(
        &self,
        (method, path, authorization): (&str, &str, &str),
        body: impl Into<Body>,
    ) -> (Value, [String; 5]) {
        let before = self.lines().len();
        let mut request = request(method, path, authorization, body);
        request.extensions_mut().insert(Peer("192.0.2.7:1".parse().unwrap()));
        let (_, answer) = self.world.send(request).await;
        let mut lines = self.lines().split_off(before);
        assert_eq!(lines.len(), 1, "{answer}: {lines:?}");
        let line = lines.remove(0);
        let told = ["event", "decision", "agent", "check", "client"]
            .map(|member| line[member].as_str().unwrap_or("-").to_owned());
        (answer, told)
    }

    /// A signed request.
    async fn ask(&self, agent_id: AgentId, scope: &str, secret: &[u8]) -> (Value, [String; 5]) {
        let body = TokenBody { agent_id, ..self.world.body(&[scope]) };
        self.send(("POST", ROOT, ""), body.signed_with(&Secret::of_any_length(secret))).await
    }
}

/// The claims of the token in an answer, unchecked.
fn claims(answer: &Value) -> Value {
    let claims = answer["token"].as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&from_base64url(claims.as_bytes(), 8_192).unwrap()).unwrap()
}

fn line(event: &str, decision: &str, agent: &str, check: &str) -> [String; 5] {
    [event, decision, agent, check, "192.0.2.7"].map(str::to_owned)
}

#[tokio::test]
async fn token_and_log_say_how_it_was_proven_who_asks() {
    let logged = Logged::new();
    let (own, sharing) = (agent().to_string(), AgentId::from_random([5; 16]));

    let (answer, told) = logged.ask(agent(), "read", SECRET).await;
    assert_eq!(told, line("token_issue", "allow", &own, "own secret"));
    assert_eq!(claims(&answer).get("cred"), None, "it proved a secret of its own");

    let (answer, told) = logged.ask(sharing, "read", SHARED.as_bytes()).await;
    assert_eq!(told, line("token_issue", "allow", &sharing.to_string(), "shared secret"));
    assert_eq!(claims(&answer)["cred"], "shared");

    let master = format!("Bearer {MASTER}");
    let issue = r#"{"scopes":["read"],"agent_id":"label"}"#;
    let (answer, told) = logged.send(("POST", &format!("{ROOT}/issue"), &master), issue).await;
    assert_eq!(told, line("token_issue", "allow", "label", "master"));
    assert_eq!(claims(&answer)["cred"], "master");

    // A refusal says it where it was proven, and says nothing where it was not.
    let (_, told) = logged.ask(agent(), "write", SECRET).await;
    assert_eq!(told, line("denial", "deny", &own, "own secret"));
    let (_, told) = logged.ask(agent(), "read", SHARED.as_bytes()).await;
    assert_eq!(told, line("denial", "deny", "-", "-"), "an agent with a secret of its own shares none");
}

#[tokio::test]
async fn what_is_done_with_a_token_is_logged_with_the_address_that_it_came_from() {
    let logged = Logged::new();
    let own = agent().to_string();
    let once = async || {
        let (answer, _) = logged.ask(agent(), "once", SECRET).await;
        format!("Bearer {}", answer["token"].as_str().unwrap())
    };
    let (_, told) = logged.send(("GET", "/once", &once().await), "").await;
    assert_eq!(told, line("spend", "allow", &own, "token"));
    let verify = format!("{ROOT}/verify");
    let (answer, told) = logged.send(("POST", &verify, &once().await), r#"{"spend":true}"#).await;
    assert_eq!((answer["valid"] == true, told), (true, line("spend", "allow", &own, "token")));
    let (_, told) = logged.send(("GET", "/data", &once().await), "").await;
    assert_eq!(told, line("denial", "deny", &own, "token"), "it lacks the scope");
    let (_, told) = logged.send(("POST", &format!("{ROOT}/revoke"), &once().await), "").await;
    assert_eq!(told, line("token_revoke", "allow", &own, "token"));
}
