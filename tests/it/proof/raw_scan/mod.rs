//! After a flush: whoever has the master key and every byte of both files finds no token that the flush was about.
//!
//! The daemon is killed as soon as the flush has answered, before it can clear anything away. The same search finds the
//! tokens before the flush, and finds them after it if it is given the key file as it was before.

mod names;
mod scanner;

use core::time::Duration;
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use obol_ipc::control::FlushScope;
use obol_ipc::names::{AgentInstanceId, Reason, SessionId, ToolName};
use obol_world::halves::AgentSession;
use obol_world::home;
use obol_world::now;
use obol_world::tqs::Tqs;

use self::scanner::{Found, Jti, scan};

const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens that wait on the disk for each tool before the flush, at least.
const WAITING: u64 = 24;
/// The first start of a store has number 1; counters of later ones are above these bits.
const FIRST_BOOT: u64 = 1 << 40;

fn tool(name: &str) -> ToolName {
    ToolName::new(name).unwrap()
}

/// What was known right before the flush.
struct Before {
    home: tempfile::TempDir,
    tqs: Tqs,
    drawn: HashSet<Jti>,
    found: Found,
    keys: Vec<u8>,
}

fn state(home: &Path) -> std::path::PathBuf {
    home.join(".local/state/obol")
}

fn keys_of(home: &Path) -> Vec<u8> {
    std::fs::read(state(home).join("tokens.redb.keys")).unwrap()
}

fn scan_with_keys(home: &Path, keys: &[u8]) -> Found {
    let database = std::fs::read(state(home).join("tokens.redb")).unwrap();
    let master = std::fs::read_to_string(state(home).join("master.key")).unwrap();
    scan(&database, keys, &obol_token::text::from_hex(master.trim_end()).unwrap())
}

fn scan_all(home: &Path) -> Found {
    scan_with_keys(home, &keys_of(home))
}

fn jti(text: &str) -> Jti {
    let bytes = obol_token::text::from_base64url(text.as_bytes()).unwrap();
    *obol_token::Envelope::parse(&bytes).unwrap().jti().as_bytes()
}

/// A daemon with many tokens on the disk for two tools, and what the search finds of them.
fn prepare() -> Before {
    let home = home::home();
    let session = home.path().join("session.json");
    home::write_private(&session, &AgentSession::new(1, now(), &["search", "pay"]).agent_json().to_string());
    let config = home.path().join(".config/obol");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("obol.toml"), "[tqs]\nbatch = 4\nmax_ready = 8\nmax_depth = 60\n").unwrap();
    let tqs = Tqs::start(home.path(), &["--session", session.to_str().unwrap()]);

    let (mut client, mut operator) = (tqs.client(), tqs.control());
    let mut drawn = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    while operator.status().unwrap().tools.iter().any(|tool| tool.stored < WAITING) {
        assert!(Instant::now() < deadline, "the store does not fill");
        for name in ["search", "pay"] {
            for _ in 0..8 {
                let token = client.dequeue_token(&tool(name), Duration::from_secs(20)).unwrap();
                drawn.insert(jti(token.token.expose()));
            }
        }
    }
    let found = scan_all(home.path());
    let keys = keys_of(home.path());
    Before { home, tqs, drawn, found, keys }
}

impl Before {
    /// Shows that the search is worth something.
    fn check(&self) {
        assert!(self.found.documents > 0, "the session's keys are not found before the flush");
        let waiting: usize =
            self.found.tokens.iter().filter(|token| !self.drawn.contains(&token.jti)).count();
        assert!(
            waiting as u64 > WAITING,
            "of the tokens that wait only {waiting} are found before the flush"
        );
        assert!(self.found.partitions().len() == 2, "{:?}", self.found.partitions());
    }
}

/// Flushes, and kills the daemon as soon as the answer is there. Gives back what is found then, and how many tokens had
/// been minted before.
fn flush_and_kill(before: Before, scope: FlushScope) -> (tempfile::TempDir, Found, u64) {
    before.check();
    let Before { home, tqs, keys, .. } = before;
    let mut operator = tqs.control();
    let minted = operator.status().unwrap().tools.iter().map(|tool| tool.minted).sum();
    operator.flush(scope, Reason::new("raw scan").unwrap()).unwrap();
    tqs.kill();
    let with_old_keys = scan_with_keys(home.path(), &keys);
    assert!(with_old_keys.tokens.len() as u64 > WAITING, "with the old key file nothing is found either");
    let found = scan_all(home.path());
    (home, found, minted)
}

fn nothing_is_left_after(scope: FlushScope) {
    let (home, found, _) = flush_and_kill(prepare(), scope);
    assert!(found.keys_tried > 0, "no key was tried");
    assert_eq!((found.tokens.len(), found.documents), (0, 0), "right after the flush");
    // Clears away, and ends in good order.
    assert_eq!(Tqs::start(home.path(), &[]).terminate(), Some(0));
    let found = scan_all(home.path());
    assert_eq!((found.tokens.len(), found.documents), (0, 0), "after the next start");
}

#[test]
fn after_a_flush_of_everything_the_master_key_opens_no_token_and_no_session() {
    nothing_is_left_after(FlushScope::All);
}

#[test]
fn after_a_flush_of_a_session_the_master_key_opens_no_token_and_no_session() {
    nothing_is_left_after(FlushScope::Session(SessionId::from_u64(1)));
}

#[test]
fn after_a_flush_of_an_agent_the_master_key_opens_no_token_and_no_session() {
    nothing_is_left_after(FlushScope::Agent(AgentInstanceId::new("agent-1").unwrap()));
}

#[test]
fn after_a_flush_of_a_tool_the_master_key_opens_none_of_its_tokens_and_still_those_of_others() {
    let before = prepare();
    // Partitions are numbered in the order of the grants.
    let flushed = *before.found.partitions().first().expect("tokens are found before the flush");
    let (home, found, minted) = flush_and_kill(before, FlushScope::Tool(tool("search")));
    let check = |found: &Found| {
        let is_old = |token: &&scanner::Token| token.counter < FIRST_BOOT + minted;
        let (of_the_tool, of_others): (Vec<_>, Vec<_>) =
            found.tokens.iter().filter(is_old).partition(|token| token.partition == flushed);
        assert_eq!(of_the_tool.len(), 0, "tokens of the flushed tool are found");
        assert!(of_others.len() as u64 > WAITING, "the other tool's tokens are gone: {}", of_others.len());
        assert!(found.documents > 0, "the session is gone");
    };
    check(&found);
    let tqs = Tqs::start(home.path(), &[]);
    tqs.client().dequeue_token(&tool("search"), Duration::from_secs(20)).unwrap();
    assert_eq!(tqs.terminate(), Some(0));
    check(&scan_all(home.path()));
}
