//! A provider as a process, with plain HTTP or TLS on loopback, as tests start it, speak to it and end it.

use core::sync::atomic::{AtomicU64, Ordering};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use obol_atp::{AgentId, Secret, TokenBody};
use obol_world::home::{self, limitable, wait_until, write_private};
use obol_world::http::Http;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::atp::agent::SECRET;

pub(crate) const MASTER: &str = "the long-lived credential of the build server";

/// The operator's file: these shared secrets, and a master.
pub(crate) fn secrets(shared: &[&str]) -> String {
    let hash: String = Sha256::digest(MASTER).iter().map(|byte| format!("{byte:02x}")).collect();
    let shared: Vec<Value> = shared.iter().map(|secret| json!({"secret": secret})).collect();
    json!({"obol_atp": 1, "shared": shared, "masters": [{"name": "ci", "sha256": hash, "scopes": ["read"]}]})
        .to_string()
}

/// A home whose settings are in a folder of their own: of files straight in a home none is read again that was replaced.
pub(crate) fn home_with(shared: &[&str]) -> tempfile::TempDir {
    let home = home::home();
    for folder in ["etc", "log"] {
        fs::create_dir(home.path().join(folder)).unwrap();
    }
    write_private(&home.path().join("etc/secrets.json"), &secrets(shared));
    home
}

/// A running `obol atp serve`, killed when dropped.
pub(crate) struct Serve {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Serve {
    pub(crate) fn start(home: &Path, port: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = home.join("serve.log");
        let mut serve = limitable(home);
        serve.args(["atp", "serve", "--url", &endpoint(port), "--scope", "read"]);
        serve.args(["--secrets", "etc/secrets.json", "--listen", &format!("127.0.0.1:{port}")]);
        serve.args(arguments).env("OBOL_ATP_SERVE__AGENT_RATE", "0").envs(environment.iter().copied());
        let child = serve.stderr(Stdio::from(fs::File::create(&log).unwrap())).spawn().unwrap();
        let serve = Self { child, port, log };
        serve.wait_for_log("listening address");
        serve
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// One request over plain HTTP: status and answer; `None` if nobody answers.
    pub(crate) fn call(&self, method: &str, path: &str, bearer: &str, body: &str) -> Option<(u16, Value)> {
        let authorization =
            if bearer.is_empty() { String::new() } else { format!("Authorization: Bearer {bearer}\r\n") };
        let (status, text) = Http::new(self.port).exchange(&format!(
            "{method} /v1/agent-tokens{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{authorization}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        Some((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Has the secrets read again, as an operator does.
    pub(crate) fn reload(&self) {
        let count = || self.log().matches("secrets read again").count();
        let before = count();
        self.signal(Signal::HUP);
        wait_until("secrets read again", || count() > before);
    }

    /// Asks for a token of the master: the status.
    pub(crate) fn issue(&self) -> Option<u16> {
        self.call("POST", "/issue", MASTER, r#"{"scopes":["read"]}"#).map(|(status, _)| status)
    }

    /// Sends a signed request: the status, and the token or the code of the refusal.
    pub(crate) fn request(&self, body: &str) -> (u16, String) {
        let (status, answer) = self.call("POST", "", "", body).unwrap();
        let said = answer[if status == 200 { "token" } else { "error" }].as_str().unwrap().to_owned();
        (status, said)
    }

    pub(crate) fn is_valid(&self, token: &str) -> bool {
        let (status, answer) = self.call("POST", "/verify", token, "").unwrap();
        assert_eq!(status, 200, "{answer}");
        answer["valid"] == true
    }

    /// A signed request.
    pub(crate) fn signed(&self) -> String {
        self.signed_by(AgentId::from_random([1; 16]), SECRET)
    }

    /// A request that this agent signed with this secret.
    pub(crate) fn signed_by(&self, agent_id: AgentId, secret: &str) -> String {
        static NONCE: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let body = TokenBody {
            agent_id,
            aud: Some(endpoint(self.port).into()),
            nonce: Some(format!("nonce-{:08}", NONCE.fetch_add(1, Ordering::Relaxed)).into()),
            purpose: None,
            scopes: vec!["read".into()],
            timestamp: u64::try_from(now).unwrap(),
        };
        String::from_utf8(body.signed_with(&Secret::of_any_length(secret.as_bytes()))).unwrap()
    }
}

fn endpoint(port: u16) -> String {
    format!("https://localhost:{port}/v1/agent-tokens")
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
