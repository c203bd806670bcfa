//! Files that belong together: one that is gone beside the other is noticed, and brings nothing back.
//!
//! `docs/design.md` lists the pairs.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use obol_ipc::names::ToolName;
use obol_queue::{DequeueError, FlushScope, Queue, StoreOpenError};
use obol_world::halves::AgentSession;
use obol_world::home::{self, Store, command, write_private};
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::tqs::Tqs;
use serde_json::Value;

use crate::queue::{draw, now};

/// A store with a session that was flushed, closed.
fn flushed_store() -> Store {
    let store = Store::new();
    let queue = Queue::open(store.database(), store.master_key()).unwrap();
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    draw(&queue, "search");
    queue.flush(&FlushScope::All, "the agent was hijacked").unwrap();
    assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionFlushed);
    store
}

#[test]
fn of_the_two_files_of_a_store_neither_comes_back_alone() {
    const DATABASE: &str = "tokens.redb";
    const KEYS: &str = "tokens.redb.keys";
    for (lost, kept) in [(DATABASE, KEYS), (KEYS, DATABASE)] {
        for emptied in [false, true] {
            let store = flushed_store();
            let (lost, kept) = (store.path(lost), store.path(kept));
            let aside = store.path("aside");
            fs::copy(&lost, &aside).unwrap();
            let before = fs::read(&kept).unwrap();
            if emptied {
                fs::File::options().write(true).open(&lost).unwrap().set_len(0).unwrap();
            } else {
                fs::remove_file(&lost).unwrap();
            }
            // However often it is tried.
            for _ in 0..2 {
                match Queue::open(store.database(), store.master_key()) {
                    Err(StoreOpenError::HalfGone { gone, left }) => {
                        assert_eq!((gone, left), (lost.clone(), kept.clone()));
                    }
                    other => panic!("{}: {other:?}", lost.display()),
                }
            }
            // redb keeps its own books in the database whenever it opens it.
            assert!(
                kept == store.database() || fs::read(&kept).unwrap() == before,
                "the key file is untouched"
            );
            fs::rename(&aside, &lost).unwrap();
            let queue = Queue::open(store.database(), store.master_key()).unwrap();
            assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionFlushed);
        }
    }
}

#[test]
fn a_new_store_in_the_place_of_an_old_one_repeats_no_nonce() {
    let store = Store::new();
    let mut prefixes = Vec::new();
    for _ in 0..3 {
        let queue = Queue::open(store.database(), store.master_key()).unwrap();
        queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
        let token = draw(&queue, "search");
        let envelope = obol_token::Envelope::parse(&token).unwrap();
        prefixes.push(*envelope.iv().first_chunk::<4>().unwrap());
        drop(queue);
        fs::remove_file(store.database()).unwrap();
        fs::remove_file(store.path("tokens.redb.keys")).unwrap();
    }
    assert!(
        prefixes[0] != prefixes[1] && prefixes[1] != prefixes[2] && prefixes[0] != prefixes[2],
        "{prefixes:?}"
    );
}

const STATE: &str = ".local/state/obol";

fn start(home: &Path) -> Tqs {
    Tqs::start(home, &["--session", "session.json", "--audit-log", "audit.jsonl"])
}

/// A sidecar's home after some hand-outs, with its audit log, closed.
fn audited() -> tempfile::TempDir {
    let home = home::home();
    let session = AgentSession::new(1, now(), &["search"]).agent_json().to_string();
    write_private(&home.path().join("session.json"), &session);
    let tqs = start(home.path());
    let mut client = tqs.client();
    for _ in 0..6 {
        client.dequeue_token(&ToolName::new("search").unwrap(), Duration::from_secs(20)).unwrap();
    }
    drop(client);
    assert_eq!(tqs.terminate(), Some(0));
    assert_eq!(verify(home.path()).0, Some(0));
    home
}

fn log(home: &Path) -> PathBuf {
    home.join("audit.jsonl")
}

fn head(home: &Path) -> PathBuf {
    home.join(STATE).join("tokens.redb.audit")
}

/// The exit code of `obol audit verify`, and the kinds of problems it names.
fn verify(home: &Path) -> (Option<i32>, Vec<String>) {
    let output = command(home)
        .args(["audit", "verify", "--json"])
        .env("OBOL_TQS__AUDIT_LOG", log(home))
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let kinds =
        report["problems"].as_array().unwrap().iter().map(|problem| problem["kind"].as_str().unwrap());
    (output.status.code(), kinds.map(str::to_owned).collect())
}

fn cut_off_lines(home: &Path, count: usize) {
    let text = fs::read_to_string(log(home)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let kept: String = lines[..lines.len() - count].iter().map(|line| format!("{line}\n")).collect();
    fs::write(log(home), kept).unwrap();
}

#[test]
fn a_log_without_its_head_is_a_finding_and_the_daemon_notes_and_warns() {
    let home = audited();
    let home = home.path();
    cut_off_lines(home, 3);
    fs::remove_file(head(home)).unwrap();
    assert_eq!(verify(home), (Some(1), vec!["no_head".to_owned()]));
    let tqs = start(home);
    assert!(tqs.log().contains("the note of how far the audit log had got is gone"), "{}", tqs.log());
    assert_eq!(tqs.terminate(), Some(0));
    // The store knew how many lines there were at the last start; those cut off since it cannot know.
    assert_eq!(verify(home), (Some(1), vec!["no_head".to_owned()]));
}

#[test]
fn a_log_that_was_taken_away_together_with_its_head_is_missed_by_the_store() {
    let home = audited();
    let home = home.path();
    fs::remove_file(log(home)).unwrap();
    fs::remove_file(head(home)).unwrap();
    let tqs = start(home);
    assert!(tqs.log().contains("lines of the audit log that had been written are gone"), "{}", tqs.log());
    assert_eq!(tqs.terminate(), Some(0));
    assert_eq!(verify(home), (Some(1), vec!["truncated".to_owned()]));
    // And a start without any log says so.
    let tqs = Tqs::start(home, &["--session", "session.json"]);
    assert!(tqs.log().contains("nothing is audited"), "{}", tqs.log());
    assert_eq!(tqs.terminate(), Some(0));
}

fn refused(mut command: std::process::Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{said}");
    said
}

#[test]
fn a_key_is_not_made_anew_beside_what_it_sealed() {
    let home = audited();
    let home = home.path();
    let key = home.join(STATE).join("master.key");
    let aside = home.join("aside.key");
    fs::rename(&key, &aside).unwrap();
    for sealed in ["tokens.redb", "tokens.redb.keys", "tokens.redb.audit", "audit.jsonl"] {
        let mut tqs = command(home);
        tqs.args(["tqs", "--audit-log", "audit.jsonl"]);
        let said = refused(tqs);
        assert!(said.contains("master.key is missing") && said.contains(sealed) && !key.exists(), "{said}");
        let file = if sealed == "audit.jsonl" { log(home) } else { home.join(STATE).join(sealed) };
        fs::rename(file, home.join(format!("{sealed}.aside"))).unwrap();
    }
    fs::rename(&aside, &key).unwrap();
    for sealed in ["tokens.redb", "tokens.redb.keys", "tokens.redb.audit"] {
        fs::rename(home.join(format!("{sealed}.aside")), home.join(STATE).join(sealed)).unwrap();
    }
    fs::rename(home.join("audit.jsonl.aside"), log(home)).unwrap();
    assert_eq!(start(home).terminate(), Some(0));
    assert_eq!(verify(home), (Some(0), vec![]));
}

#[test]
fn neither_a_session_table_nor_its_key_is_made_anew_beside_the_other() {
    const TABLE: [&str; 4] = ["--session-store", "kept.redb", "--session-key", "session.key"];
    let home = home::home();
    let home = home.path();
    write_sessions(home, now());
    let arguments = [&TABLE[..], &["--spent", "memory"]].concat();
    let mut rs = RsProcess::start(home, &arguments);
    assert_eq!(rs.terminate(), Some(0));
    for (lost, left) in [("kept.redb", "session.key"), ("session.key", "kept.redb")] {
        fs::rename(home.join(lost), home.join("aside")).unwrap();
        let mut again = command(home);
        again.args(["rs", "--sessions", "sessions.json", "--listen", "127.0.0.1:0"]).args(&arguments);
        let said = refused(again);
        assert!(said.contains(lost) && said.contains(left) && !home.join(lost).exists(), "{said}");
        fs::rename(home.join("aside"), home.join(lost)).unwrap();
    }
    rs.start_again();
    rs.kill();
    // Who says that there was none yet is believed.
    fs::remove_file(home.join("kept.redb")).unwrap();
    RsProcess::start(home, &[&arguments[..], &["--first-start"]].concat()).kill();
}

/// A provider that is killed when dropped.
struct Provider(std::process::Child);

impl Provider {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let port = home::free_port();
        let mut command = serve(home, port);
        let mut provider = Self(command.args(arguments).spawn().unwrap());
        home::wait_until("the provider listens", || {
            assert_eq!(provider.0.try_wait().unwrap(), None, "it ended");
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        provider
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // Ours by its handle; ended already is fine.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn serve(home: &Path, port: u16) -> std::process::Command {
    let mut command = command(home);
    command.args(["atp", "serve", "--url", "https://api.example.com/v1/agent-tokens", "--scope", "read"]);
    command.args(["--secrets", "secrets.json", "--store", "kept.redb", "--key", "atp.key"]);
    command.args(["--spent", "memory", "--listen", &format!("127.0.0.1:{port}")]);
    command
}

#[test]
fn neither_a_providers_store_nor_its_key_is_made_anew_beside_the_other() {
    let home = home::home();
    let home = home.path();
    let new = command(home).args(["atp", "secret", "new", "--secrets", "secrets.json", "--shared"]).output();
    assert!(new.unwrap().status.success());
    drop(Provider::start(home, &[]));
    for (lost, left) in [("kept.redb", "atp.key"), ("atp.key", "kept.redb")] {
        fs::rename(home.join(lost), home.join("aside")).unwrap();
        for _ in 0..2 {
            let said = refused(serve(home, home::free_port()));
            assert!(said.contains(lost) && said.contains(left) && !home.join(lost).exists(), "{said}");
        }
        fs::rename(home.join("aside"), home.join(lost)).unwrap();
    }
    // Both are there, and then neither: that is a start like the first.
    drop(Provider::start(home, &[]));
    for file in ["kept.redb", "atp.key"] {
        fs::remove_file(home.join(file)).unwrap();
    }
    drop(Provider::start(home, &[]));
    // Who says that there was none yet is believed.
    fs::remove_file(home.join("kept.redb")).unwrap();
    drop(Provider::start(home, &["--first-start"]));
}

#[test]
fn a_resource_servers_audit_key_is_not_made_anew_beside_its_log() {
    let home = home::home();
    let home = home.path();
    write_sessions(home, now());
    let arguments = ["--spent", "memory", "--audit-log", "rs.jsonl", "--audit-key", "rs.key"];
    assert_eq!(RsProcess::start(home, &arguments).terminate(), Some(0));
    let again = || {
        let mut again = command(home);
        again.args(["rs", "--sessions", "sessions.json", "--listen", "127.0.0.1:0"]).args(arguments);
        again
    };
    fs::rename(home.join("rs.key"), home.join("aside")).unwrap();
    for left in ["rs.jsonl", "rs.key.audit"] {
        let said = refused(again());
        assert!(said.contains(left) && !home.join("rs.key").exists(), "{said}");
        fs::remove_file(home.join(left)).unwrap();
    }
    // A key that was there while log and head are gone is said.
    fs::rename(home.join("aside"), home.join("rs.key")).unwrap();
    let mut rs = RsProcess::start(home, &arguments);
    assert!(rs.log().contains("a new audit log begins beside an existing key"), "{}", rs.log());
    rs.kill();
}
