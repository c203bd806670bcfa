//! A durable queue of single-use tokens: minted ahead in batches, stored in [redb], handed out once and never again.
//!
//! What lives here: sessions and what they may mint, batches on their way from grant to token, the store, refill and
//! flush. The API is synchronous; the queue's own threads do all minting, writing and decrypting, so a caller of
//! [`Queue::dequeue`] never waits for the disk.
//!
//! What it promises, even across a crash, a kill and a power cut:
//!
//! 1. *At most once, for ever.* A token is handed out only after its removal from the store is durable. A crash burns
//!    at most what was claimed and not yet handed out; it repeats nothing.
//! 2. *Flush is final.* Once [`Queue::flush`] has begun, nothing in its scope is handed out; once it has returned, no
//!    crash brings anything back.
//! 3. *Never stale.* No token is handed out with less life left than configured, whatever the clock does.
//! 4. *Policy holds at hand-out.* A denied tool gets no token, even if one waits.
//! 5. *Fail-stop.* After a failed write nothing is handed out.
//! 6. *Nothing readable at rest.* Without the master key the files yield no token and no session.
//! 7. *A caller never waits for the disk.*
//!
//! What it must not know: sockets, HTTP, the identity of callers.
//!
//! ```
//! use obol_queue::{FlushScope, MasterKey, Queue, AgentHalf};
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let key = "11".repeat(32);
//! # let document = format!(r#"{{"obol_session":1,"session_id":"0000000000000007","suite":1,
//! #   "agent_instance_id":"agent-1","org_id":"example","iss":"auth","sub":"key","established_at":1,
//! #   "expires_at":4000000000,"policy_epoch":1,
//! #   "resource_servers":[{{"aud":"https://api.example","K_session":"{key}","verifier_secret":"{key}",
//! #     "mutual_auth":"{key}","SEK_PK":"{key}"}}],
//! #   "grants":[{{"tool":"search","aud":"https://api.example","action":"read","resource":"docs/**"}}]}}"#);
//! let master_key = MasterKey::load_or_create(folder.path().join("master.key"))?;
//! let queue = Queue::open(folder.path().join("tokens.redb"), master_key)?;
//! queue.provision(AgentHalf::from_json(document.as_bytes())?)?;
//!
//! let token = queue.dequeue_within("search", core::time::Duration::from_secs(5))?;
//! println!("Authorization: TBAC {}", token.to_text().as_str());
//!
//! queue.flush(&FlushScope::All, "credentials leaked")?;
//! assert!(queue.dequeue("search").is_err());
//! # Ok(())
//! # }
//! ```

mod approvals;
mod approved;
mod builder;
mod clock;
mod current;
mod demand;
mod draw;
mod error;
mod grant;
mod identity;
mod jobs;
mod keys;
mod lease;
mod operate;
mod partition;
mod queue;
mod recover;
mod refills;
mod session;
mod shared;
mod source;
mod status;
mod store;
mod threads;
mod token;

pub use obol_secret::key::KeyFileError;
pub use obol_session::clock::{Clock, SystemClock};
pub use obol_session::{AgentHalf, DocumentError};
pub use obol_token::{ChannelKeys, Jti, SessionId, Suite};
/// The storage a queue runs on; implement it to inject faults.
pub use redb::StorageBackend;

pub use self::approvals::ConfirmedCall;
pub use self::approved::DrawnCall;
pub use self::builder::QueueBuilder;
pub use self::draw::{Draw, Ready, ToolHandle};
pub use self::error::{ApproveError, DequeueError, ProvisionError, StoreOpenError, Unavailable};
pub use self::keys::MasterKey;
pub use self::operate::{DenyError, FlushScope, Flushed};
pub use self::queue::Queue;
pub use self::session::SessionState;
pub use self::source::{Order, SourceError, TokenSource, Tokens};
pub use self::status::{SessionInfo, Status, ToolStatus};
pub use self::store::Hold;
pub use self::token::Token;
