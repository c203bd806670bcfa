//! SQLite as a durable queue: one `DELETE … RETURNING` for each token, durable when it returns.

use std::time::Instant;

use rusqlite::{Connection, params};

use crate::store::{self, TOKEN_BYTES};

/// Tokens taken out.
const TAKEN: u64 = 4_000;

/// Tokens a second by one client, in the mode of SQLite that is fastest at it: a write-ahead log, synced with each commit.
pub(crate) fn delete_returning_full() -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut db = Connection::open(folder.path().join("tokens.sqlite")).expect("a database");
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).expect("a journal");
    assert_eq!(mode, "wal");
    db.execute_batch(
        "PRAGMA synchronous = FULL; CREATE TABLE tokens (id INTEGER PRIMARY KEY, token BLOB NOT NULL)",
    )
    .expect("a table");
    let filling = db.transaction().expect("a transaction");
    for _ in 0..TAKEN {
        filling
            .execute("INSERT INTO tokens (token) VALUES (?1)", params![[0x5A_u8; TOKEN_BYTES]])
            .expect("stored");
    }
    filling.commit().expect("committed");
    let mut take = db
        .prepare("DELETE FROM tokens WHERE id = (SELECT min(id) FROM tokens) RETURNING token")
        .expect("a statement");
    let start = Instant::now();
    for _ in 0..TAKEN {
        let mut rows = take.query([]).expect("taken");
        let token: Vec<u8> = rows.next().expect("a row").expect("a token").get(0).expect("bytes");
        assert_eq!(token.len(), TOKEN_BYTES);
        // A statement is done, and durable, when there is no row left.
        assert!(rows.next().expect("the end").is_none());
    }
    store::per_second(TAKEN, start.elapsed())
}
