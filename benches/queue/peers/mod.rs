//! What the queue is measured beside.

pub(crate) mod redb_peer;
pub(crate) mod redis;
pub(crate) mod sqlite;
