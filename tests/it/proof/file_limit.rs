//! The real daemon on a file system that takes no more: writes beyond a limit fail, as they do on a full disk.
//!
//! The limit is that of the process (`ulimit -f`), which needs no privileges and fails writes for real, with `EFBIG` where a
//! full disk says `ENOSPC`. Failures of every kind at every single operation are in `proof::power_loss::failing_disk`.

use core::time::Duration;
use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Instant;

use obol_client::CallError;
use obol_ipc::names::ToolName;
use obol_ipc::refusal::ErrorCode;
use obol_world::halves::AgentSession;
use obol_world::home;
use obol_world::now;
use obol_world::tqs::Tqs;

const PATIENCE: Duration = Duration::from_secs(60);
/// Room for the files to grow, in blocks of 1,024 bytes; far less than the tokens that the demand asks for.
const ROOM: u64 = 512;

#[test]
fn a_daemon_whose_files_cannot_grow_says_unavailable_and_recovers_with_room() {
    let home = home::home();
    let mut world = AgentSession::new(1, now(), &["search"]);
    world.grants[0]["ttl"] = 3600.into();
    world.expires_at = now() + 24 * 3600;
    let session = home.path().join("session.json");
    home::write_private(&session, &world.agent_json().to_string());
    let config = home.path().join(".config/obol");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("obol.toml"), "[tqs]\nmax_depth = 100000\n").unwrap();
    assert_eq!(Tqs::start(home.path(), &["--session", session.to_str().unwrap()]).terminate(), Some(0));
    let database = home.path().join(".local/state/obol/tokens.redb");
    let limit = std::fs::metadata(&database).unwrap().len() / 1024 + ROOM;

    // A signal that is ignored stays so in the daemon; otherwise the kernel would end it at its first write too many.
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" tqs");
    let mut limited = Command::new("/bin/bash");
    limited.env_clear().env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path().join("run"));
    limited.args(["-c", &script]).arg(home::obol()).current_dir(home.path()).stdin(Stdio::null());
    let mut tqs = Tqs::spawn_command(&mut limited, home.path());
    tqs.wait_until_it_answers();

    let mut client = tqs.client();
    let search = ToolName::new("search").unwrap();
    let mut seen = HashSet::new();
    let deadline = Instant::now() + 5 * PATIENCE;
    let refused = loop {
        assert!(Instant::now() < deadline, "the files never reach their limit");
        match client.dequeue_token(&search, Duration::from_secs(5)) {
            Ok(drawn) => assert!(seen.insert(drawn.token.expose().to_owned()), "handed out twice"),
            Err(refused) => break refused,
        }
    };
    assert!(refused.refusal().is_some_and(|refusal| refusal.code() == ErrorCode::Unavailable), "{refused:?}");
    // It stays so, also for others, and the operator is told why.
    for _ in 0..20 {
        let again = tqs.client().dequeue_token(&search, Duration::ZERO);
        let is_unavailable = |error: &CallError| {
            error.refusal().is_some_and(|refusal| refusal.code() == ErrorCode::Unavailable)
        };
        assert!(again.as_ref().is_err_and(is_unavailable), "{again:?}");
    }
    let health = tqs.control().health().unwrap();
    assert!(!health.ready && health.reason.is_some(), "{health:?}");
    tqs.kill();

    let tqs = Tqs::start(home.path(), &[]);
    assert!(tqs.control().health().unwrap().ready);
    let mut client = tqs.client();
    for _ in 0..600 {
        let drawn = client.dequeue_token(&search, PATIENCE.min(Duration::from_secs(20))).unwrap();
        assert!(seen.insert(drawn.token.expose().to_owned()), "handed out again after the restart");
    }
}
