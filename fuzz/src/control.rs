//! A defect planted on purpose, to prove that a target would find one: `scripts/fuzz --control`.

use std::sync::OnceLock;

/// Whether this run must fail. Asked for by the variable `OBOL_FUZZ_CONTROL`, and by nothing else.
pub fn planted() -> bool {
    static PLANTED: OnceLock<bool> = OnceLock::new();
    *PLANTED.get_or_init(|| std::env::var_os("OBOL_FUZZ_CONTROL").is_some())
}
