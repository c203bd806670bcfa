//! Several providers of one endpoint as processes, sharing one real Redis: what one issues the others accept, what one revokes or
//! answers is over for all of them, and nothing comes back when Redis loses what it had or somebody puts it back.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_atp::{AgentId, Secret, TokenBody};
use obol_world::home::{command, free_port, wait_until, write_private};
use obol_world::http::Http;
use obol_world::redis::RedisServer;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const E: &str = "https://api.example.com/v1/agent-tokens";
const SECRET: &[u8] = b"a secret that is long enough, truly";
const MASTER: &str = "the long-lived credential of the build server";
/// By then a change is in force everywhere, or a replica answers nothing any more.
const SPREAD: Duration = Duration::from_millis(800);

fn agent() -> AgentId {
    AgentId::from_random([1; 16])
}

/// What all replicas have: the file of secrets and the key.
struct World {
    folder: tempfile::TempDir,
    redis: RedisServer,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), redis: RedisServer::start(&[]) };
        let hash: String = Sha256::digest(MASTER).iter().map(|byte| format!("{byte:02x}")).collect();
        world.write(&json!({"obol_atp": 1,
            "agents": [{"agent_id": agent(), "secrets": [{"secret": String::from_utf8_lossy(SECRET)}]}],
            "masters": [{"name": "ci", "sha256": hash, "scopes": ["read"]}]}));
        world
    }

    fn write(&self, secrets: &Value) {
        write_private(&self.secrets(), &secrets.to_string());
    }

    fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets.json")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("atp.key")
    }

    /// One more replica. `places`: where tokens and answered requests are kept; at the Redis if not said.
    fn replica(&self, places: Option<&str>, first: bool) -> Replica {
        let url = self.redis.url();
        let place = places.unwrap_or(&url);
        Replica::start(&self.secrets(), &self.key(), place, first)
    }
}

/// A running `obol atp serve`, killed when dropped.
struct Replica {
    _home: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Replica {
    fn start(secrets: &Path, key: &Path, place: &str, first: bool) -> Self {
        let (home, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut serve = command(home.path());
        serve.args([
            "atp",
            "serve",
            "--url",
            E,
            "--scope",
            "read",
            "--scope",
            "once",
            "--single-use",
            "once",
        ]);
        serve.args(["--listen", &format!("127.0.0.1:{port}"), "--store", place, "--spent", place]);
        serve.arg("--secrets").arg(secrets).arg("--key").arg(key);
        if first {
            serve.arg("--first-start");
        }
        serve.env("OBOL_ATP_SERVE__AGENT_RATE", "0").env("OBOL_ATP_SERVE__ADDRESS_RATE", "0");
        let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let replica = Self { _home: home, child, port };
        wait_until("the replica serves", || {
            Http::new(port).get("/.well-known/agentdom.json").is_some_and(|(status, _)| status == 200)
        });
        replica
    }

    fn call(&self, method: &str, path: &str, bearer: &str, body: &str) -> (u16, Value) {
        let authorization =
            if bearer.is_empty() { String::new() } else { format!("Authorization: Bearer {bearer}\r\n") };
        let (status, text) = Http::new(self.port)
            .exchange(&format!(
                "{method} /v1/agent-tokens{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{authorization}\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .expect("an answer");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    fn request(&self, scope: &str) -> (u16, Value) {
        self.call("POST", "", "", &signed(scope))
    }

    fn token(&self, scope: &str) -> String {
        let (status, answer) = self.request(scope);
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// `None` where it cannot tell.
    fn is_valid(&self, token: &str) -> Option<bool> {
        let (status, answer) = self.call("POST", "/verify", token, "");
        (status == 200).then(|| answer["valid"] == true)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn signed(scope: &str) -> String {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let body = TokenBody {
        agent_id: agent(),
        aud: Some(E.into()),
        nonce: Some(format!("nonce-{:08}", NONCE.fetch_add(1, Ordering::Relaxed)).into()),
        purpose: None,
        scopes: vec![scope.to_owned().into()],
        timestamp: u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap(),
    };
    String::from_utf8(body.signed_with(&Secret::of_any_length(SECRET))).unwrap()
}

fn text(answer: &Value, member: &str) -> String {
    answer[member].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A token of the master.
fn issue(replica: &Replica) -> (String, Zeroizing<String>) {
    let (status, answer) = replica.call("POST", "/issue", MASTER, r#"{"scopes":["read"],"agent_id":"ci"}"#);
    assert_eq!(status, 200, "{answer}");
    (text(&answer, "id"), Zeroizing::new(text(&answer, "token")))
}

#[test]
fn what_one_replica_does_counts_at_all_of_them_also_after_kill_9() {
    let world = World::new();
    let mut replicas = vec![world.replica(None, true)];
    replicas.extend((0..2).map(|_| world.replica(None, false)));
    let signed = [replicas[0].token("read"), replicas[1].token("read")];
    let (id, first) = issue(&replicas[0]);
    let everywhere = |replicas: &[Replica], token: &str, expected| {
        wait_until("all replicas agree", || {
            replicas.iter().all(|replica| replica.is_valid(token) == Some(expected))
        });
    };
    for token in signed.iter().chain([&*first]) {
        everywhere(&replicas, token, true);
    }
    let (_, rotated) = replicas[1].call("POST", &format!("/{id}/rotate"), MASTER, "");
    assert_eq!(text(&rotated, "id"), id);
    let second = text(&rotated, "token");
    wait_until("the same once more", || {
        let (_, again) = replicas[2].call("POST", &format!("/{id}/rotate"), MASTER, "");
        assert_eq!(text(&again, "token"), second, "of one rotation at two replicas one wins");
        true
    });
    everywhere(&replicas, &second, true);

    let asked = Instant::now();
    assert_eq!(replicas[2].call("DELETE", &format!("/{id}"), MASTER, "").0, 204);
    assert_eq!(replicas[2].is_valid(&second), Some(false), "at once where it was asked");
    std::thread::sleep(SPREAD.saturating_sub(asked.elapsed()));
    for replica in &replicas {
        assert_eq!(replica.is_valid(&second), Some(false), "everywhere in less than a second");
    }
    replicas[0].call("POST", "/revoke", &signed[0], "");
    drop(replicas);
    let replicas = [world.replica(None, false), world.replica(None, false)];
    for (token, expected) in [(&signed[0], false), (&signed[1], true), (&second, false)] {
        everywhere(&replicas, token, expected);
    }
    let stranger = world.replica(Some("memory"), true);
    assert_eq!(stranger.is_valid(&signed[1]), Some(false), "control: who does not share it knows none of it");
}

#[test]
fn a_request_is_answered_once_and_a_single_use_token_opens_once_over_three_replicas() {
    let world = World::new();
    let mut replicas = vec![world.replica(None, true)];
    replicas.extend((0..2).map(|_| world.replica(None, false)));
    let all = |replicas: &[Replica], call: &(dyn Fn(&Replica) -> bool + Sync)| {
        std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..64).map(|number| scope.spawn(move || call(&replicas[number % replicas.len()]))).collect();
            calls.into_iter().map(|call| usize::from(call.join().unwrap())).sum::<usize>()
        })
    };
    let body = signed("read");
    assert_eq!(all(&replicas, &|replica| replica.call("POST", "", "", &body).0 == 200), 1);
    let once = replicas[0].token("once");
    let spend = |token: &str, replica: &Replica| {
        replica.call("POST", "/verify", token, r#"{"spend":true}"#).1["valid"] == true
    };
    assert_eq!(all(&replicas, &|replica| spend(&once, replica)), 1);

    let alone: Vec<_> = (0..3).map(|_| world.replica(Some("memory"), true)).collect();
    let body = signed("read");
    assert_eq!(
        all(&alone, &|replica| replica.call("POST", "", "", &body).0 == 200),
        3,
        "control: replicas that share nothing answer once each"
    );
}

#[test]
fn without_redis_nothing_is_answered_and_what_it_lost_is_over() {
    let mut world = World::new();
    let replicas = [world.replica(None, true), world.replica(None, false)];
    let (signed, (_, mastered)) = (replicas[0].token("read"), issue(&replicas[0]));
    wait_until("both know it", || replicas.iter().all(|replica| replica.is_valid(&mastered) == Some(true)));
    world.redis.kill();
    std::thread::sleep(SPREAD + Duration::from_millis(200));
    for replica in &replicas {
        for token in [&signed, &*mastered] {
            assert_eq!(replica.is_valid(token), None, "what is not known for sure is not answered");
        }
        assert_eq!(replica.request("read").0, 503);
        assert_eq!(replica.call("POST", "/issue", MASTER, r#"{"scopes":["read"]}"#).0, 503);
    }
    world.redis.start_again();
    wait_until("they are there again", || replicas.iter().all(|replica| replica.is_valid(&signed).is_some()));
    for replica in &replicas {
        for token in [&signed, &*mastered] {
            assert_eq!(replica.is_valid(token), Some(false), "its key is gone, whatever was revoked");
        }
        assert_eq!(replica.request("read").0, 503, "it may have been answered before");
    }
    let (_, again) = issue(&replicas[0]);
    wait_until("control: a new token is good", || {
        replicas.iter().all(|replica| replica.is_valid(&again) == Some(true))
    });
}

#[test]
fn nothing_that_was_revoked_comes_back_by_who_can_write_to_redis() {
    let world = World::new();
    let replica = world.replica(None, true);
    let (token, other) = (replica.token("read"), replica.token("read"));
    let keys = world.redis.ask(&["KEYS", "obol:*:records:*:log"]);
    let record = keys.rsplit_once(':').and_then(|(rest, _)| rest.rsplit_once(':')).unwrap().0.to_owned();
    let before = world.redis.ask(&["ZCARD", &keys]);
    replica.call("POST", "/revoke", &token, "");
    assert_eq!(replica.is_valid(&token), Some(false));
    let newcomer = world.replica(None, false);
    assert_eq!(
        (newcomer.is_valid(&token), newcomer.is_valid(&other)),
        (Some(false), Some(true)),
        "control: a newcomer learns of it"
    );
    drop(newcomer);
    // The row of the revocation goes, and the count is set right.
    world.redis.ask(&["ZPOPMAX", &keys]);
    world.redis.ask(&["HSET", &record, "count", &before]);
    let newcomer = world.replica(None, false);
    wait_until("it begins anew", || newcomer.is_valid(&token).is_some());
    assert_eq!(newcomer.is_valid(&token), Some(false), "nothing is believed any more");
    assert_eq!(newcomer.is_valid(&other), Some(false));
    wait_until("the other replica too", || replica.is_valid(&token) == Some(false));
}
