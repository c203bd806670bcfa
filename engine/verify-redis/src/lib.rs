//! A spent set, a session table and named records that several servers share, in Redis (6.2 or later) or Valkey.
//!
//! # What it promises
//!
//! - Of any number of servers that spend one token, at most one is told "yes", as long as they talk to one Redis
//!   process or to one after the other.
//! - Whatever is unclear is a refusal: an error, a reply that does not come in time or makes no sense, a server that
//!   is a replica, loading, full, or configured to evict. A token whose reply was lost counts as spent.
//! - Marks that Redis loses are never missed silently. Each server process of Redis, each change of its replication
//!   history, each eviction and each flush of the database begins a new *incarnation*, which comes with a fence:
//!   tokens issued before it are refused (see `incarnation.rs`).
//!
//! # What it cannot promise
//!
//! Redis replicates asynchronously. While a master that was replaced still runs and can be reached by some servers
//! and not by others, a token can be spent once on each side. [`RedisOptions::wait_replicas`] and Redis's own
//! `min-replicas-to-write` close that gap as far as it can be closed; `docs/operations.md` says how far.
//!
//! Who can write to this Redis can make spent tokens fresh.
//!
//! # How it works
//!
//! One thread has the one connection. It takes all spends that wait and sends them in one script, which checks the
//! incarnation and adds every mark to one sorted set: one round trip for as many spends as arrived during the one before.

mod contention;
mod incarnation;
mod info;
mod link;
mod options;
mod receipts;
mod records;
mod script;
mod sessions;
mod spent;
mod table;
mod unfit;
mod writer;

pub use contention::attempts;
pub use options::{InvalidOption, MAX_CLOCK_DIFFERENCE_SECS, MAX_PASSWORD_BYTES, RedisOptions, Server};
pub use receipts::RedisReceipts;
pub use records::{News, Record, RedisRecords};
pub use sessions::{MAX_STALENESS, RedisSessionTable};
pub use spent::{RedisOpenError, RedisSpentSet};
pub use unfit::Unfit;
pub use writer::WATCH_INTERVAL;
