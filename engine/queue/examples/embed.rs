//! A queue inside one's own process: provision a session, draw tokens, flush.
//!
//! ```text
//! cargo run -p obol-queue --example embed
//! ```

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use core::error::Error;
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_queue::{AgentHalf, DequeueError, FlushScope, MasterKey, Queue};

/// What an Authentication Service would send. These keys are for show; `obol session create` makes real ones.
fn session(now: u64) -> String {
    let (key, end) = ("11".repeat(32), now + 3600);
    format!(
        r#"{{
            "obol_session": 1, "session_id": "00000000deadbeef", "suite": 1,
            "agent_instance_id": "agent-1", "org_id": "example", "iss": "https://auth.example", "sub": "agent-1",
            "established_at": {now}, "expires_at": {end}, "policy_epoch": 1,
            "resource_servers": [{{"aud": "https://api.example", "K_session": "{key}", "verifier_secret": "{key}",
                                   "mutual_auth": "{key}", "SEK_PK": "{key}"}}],
            "grants": [{{"tool": "search", "aud": "https://api.example", "action": "read", "resource": "docs/**"}}]
        }}"#
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let document = session(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());

    let master_key = MasterKey::load_or_create(folder.join("master.key"))?;
    let queue = Queue::open(folder.join("tokens.redb"), master_key)?;
    let id = queue.provision(AgentHalf::from_json(document.as_bytes())?)?;
    println!("session {id} provisioned");

    // The first token has to be minted; from then on they wait in memory.
    let token = queue.dequeue_within("search", Duration::from_secs(5))?;
    let authorization = format!("TBAC {}", token.to_text().as_str());
    println!("a header of {} bytes, good until {}", authorization.len(), token.expires_at());
    // Who draws often from one tool looks it up once.
    let search = queue.tool("search")?;
    let another = search.dequeue_within(Duration::from_secs(5))?;
    assert!(token.as_bytes() != another.as_bytes(), "each is handed out once");
    println!("{} more wait", queue.status(Some("search"))?.queue_depth);

    let flushed = queue.flush(&FlushScope::All, "the agent was hijacked")?;
    println!(
        "flushed: {} tokens destroyed, {} session ended",
        flushed.tokens_discarded, flushed.sessions_ended
    );
    assert!(matches!(queue.dequeue("search"), Err(DequeueError::SessionFlushed)));
    Ok(())
}
