//! The house rules: the code's own, and that the pages say what is so.

mod crash_table;
mod incident;
mod manual;
mod map;
mod metrics;
mod promises;
mod readme;
mod server_contract;
mod tidy;

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a document with what the code says, or writes it where `OBOL_BLESS` is set.
pub(crate) fn same_as_the_document(name: &str, made: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("OBOL_BLESS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "docs/{name} is not what the code says; run this test with OBOL_BLESS=1 to write it"
    );
}
