//! What the daemons show in `/metrics`, and that the manual names all of it.

use std::path::Path;

use obol_world::authority::{CATALOGUE, POLICIES, write_policy};
use obol_world::halves::AgentSession;
use obol_world::home::{self, command, free_port, wait_until};
use obol_world::http::Http;
use obol_world::now;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::tqs::Tqs;

use super::root;
use crate::sidecar::{PATIENCE, get, tool};

/// The names of all numbers in a text of metrics.
fn names(metrics: &str) -> Vec<&str> {
    metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// Asserts that each number is one that the page explains, and that the build is among them.
fn explained(metrics: &str, page: &str) {
    let text = std::fs::read_to_string(root().join("docs").join(page)).unwrap();
    let names = names(metrics);
    assert!(names.len() > 5, "{metrics}");
    for name in names {
        assert!(text.contains(&format!("`{name}")), "docs/{page} does not explain {name}");
    }
    let build = concat!("\nobol_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(metrics.contains(build), "{metrics}");
}

/// The reasons for which a server says that it is not ready.
fn reasons(metrics: &str) -> Vec<&str> {
    let lines = metrics.lines();
    lines.filter_map(|line| line.strip_prefix("obol_not_ready{reason=\"")?.strip_suffix("\"} 1")).collect()
}

#[test]
fn the_sidecar_names_its_build_its_audit_log_and_why_it_is_not_ready() {
    let home = home::home();
    let home = home.path();
    let tqs = Tqs::start(home, &["--audit-log", "audit.jsonl"]);
    let metrics = get(home, "/metrics").1;
    explained(&metrics, "operations.md");
    assert!(metrics.contains("\nobol_audit_state{state=\"writing\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nobol_audit_refused_total 0\n"), "{metrics}");
    assert_eq!(reasons(&metrics), ["no_session"]);

    let session = AgentSession::new(1, now(), &["search"]).agent_json().to_string();
    let session = obol_ipc::secret::SessionDocumentText::new(session).unwrap();
    tqs.control().provision(session).unwrap();
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    let metrics = get(home, "/metrics").1;
    explained(&metrics, "operations.md");
    assert_eq!(reasons(&metrics), Vec::<&str>::new());
    assert!(metrics.contains("\nobol_mint_failures_total{tool=\"search\"} 0\n"), "{metrics}");

    let flushed = command(home).args(["flush", "--all", "--reason", "a drill"]).output().unwrap();
    assert!(flushed.status.success(), "{flushed:?}");
    wait_until("the reason is a flush", || {
        ["session_flushed", "sessions_held"].contains(&reasons(&get(home, "/metrics").1).concat().as_str())
    });
}

#[test]
fn the_resource_server_names_its_build_its_audit_log_and_why_it_is_not_ready() {
    let home = home::home();
    write_sessions(home.path(), now());
    let arguments = ["--spent", "memory", "--first-start", "--audit-log", "audit.jsonl"];
    let rs = RsProcess::start(home.path(), &arguments);
    let metrics = || Http::new(rs.port()).get("/metrics").unwrap().1;
    explained(&metrics(), "operations.md");
    assert!(metrics().contains("\nobol_audit_state{state=\"writing\"} 1\n"), "{}", metrics());
    assert_eq!(reasons(&metrics()), Vec::<&str>::new());
    // A line that finds no room: the next refusal writes one.
    home::limit_files(rs.pid(), Some(0));
    wait_until("the audit log is suspended", || {
        let _refused = Http::new(rs.port()).present("not a token");
        reasons(&metrics()) == ["audit_log"]
    });
    assert!(metrics().contains("\nobol_audit_state{state=\"suspended\"} 1\n"), "{}", metrics());
    assert!(metrics().contains("\nobol_ready 0\n"));
    home::limit_files(rs.pid(), None);
    wait_until("it is written again", || reasons(&metrics()).is_empty());
}

#[test]
fn a_provider_names_its_build_and_its_audit_log() {
    let home = home::home();
    let home = home.path();
    let new = command(home).args(["atp", "secret", "new", "--secrets", "secrets.json", "--shared"]).output();
    assert!(new.unwrap().status.success());
    let (port, probe) = (free_port(), free_port());
    let mut serve = command(home);
    serve.args(["atp", "serve", "--secrets", "secrets.json", "--scope", "read", "--first-start"]);
    serve.args([
        "--url",
        "https://api.example.com/v1/agent-tokens",
        "--listen",
        &format!("127.0.0.1:{port}"),
    ]);
    serve.args(["--http", &format!("127.0.0.1:{probe}"), "--audit-log", "audit.jsonl"]);
    let provider = Child::start(&mut serve, home);
    let mut metrics = String::new();
    wait_until("the provider shows its metrics", || {
        let answer = Http::new(probe).get("/metrics");
        metrics = answer.map(|(_, text)| text).unwrap_or_default();
        !metrics.is_empty()
    });
    explained(&metrics, "atp.md");
    assert!(metrics.contains("\nobol_audit_state{state=\"writing\"} 1\n"), "{metrics}");
    assert_eq!(reasons(&metrics), Vec::<&str>::new());
    let log = std::fs::read_to_string(home.join("atp.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("hardening")).count(), 1, "{log}");
    drop(provider);
}

#[test]
fn the_authentication_service_names_its_build_its_audit_log_and_why_it_is_not_ready() {
    let home = home::home();
    let home = home.path();
    write_policy(&home.join("policy"), CATALOGUE, POLICIES);
    let (port, probe) = (free_port(), free_port());
    let mut serve = home::limitable(home);
    serve.args([
        "as",
        "--policy",
        "policy",
        "--audit-log",
        "as.jsonl",
        "--http",
        &format!("127.0.0.1:{probe}"),
    ]);
    serve.args(["--listen", &format!("127.0.0.1:{port}")]);
    let service = Child::start(&mut serve, home);
    let get = |path: &str| Http::new(probe).get(path).unwrap_or_default();
    wait_until("the service is ready", || get("/readyz").0 == 200);
    let metrics = get("/metrics").1;
    explained(&metrics, "operations.md");
    assert!(metrics.contains("\nobol_audit_state{state=\"writing\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nobol_audit_refused_total 0\n"), "{metrics}");
    assert!(metrics.contains("\nobol_ready 1\n"), "{metrics}");
    assert_eq!(reasons(&metrics), Vec::<&str>::new());
    // Nothing finds room any more, and the next deed wants some.
    home::limit_files(service.0.id(), Some(0));
    let mut metrics = String::new();
    wait_until("the service says why it is not ready", || {
        let _refused = command(home).args(["rs", "invite", "https://api"]).output().unwrap();
        metrics = get("/metrics").1;
        ["audit_log", "directory"].contains(&reasons(&metrics).concat().as_str())
    });
    assert!(metrics.contains("\nobol_ready 0\n"), "{metrics}");
    assert_eq!(get("/readyz").0, 503);
    if reasons(&metrics) == ["audit_log"] {
        assert!(metrics.contains("\nobol_audit_state{state=\"suspended\"} 1\n"), "{metrics}");
    }
    drop(service);
}

/// A process, killed when dropped.
struct Child(std::process::Child);

impl Child {
    fn start(command: &mut std::process::Command, home: &Path) -> Self {
        let log = std::fs::File::create(home.join("atp.log")).unwrap();
        Self(command.stderr(log).spawn().unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Ours by its handle; ended already is fine.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}
