//! Parameter patterns against a matcher that is slow and obviously right, and their subset relation against every
//! short argument.
//!
//! Input: three lines, pattern, argument, and another pattern.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use obol_fuzz::{patterns, seeds};
use obol_token::pattern::{parameter_is_within, parameter_matches};

/// Keeps the oracle's table below a million entries.
const MAX_INPUT_BYTES: usize = 1024;
/// Patterns that are compared by every short argument.
const MAX_COMPARED_BYTES: usize = 12;

fn short_arguments() -> &'static [Vec<u8>] {
    static ARGUMENTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ARGUMENTS.get_or_init(|| patterns::all_up_to(b"ab/*?\\", 4))
}

fuzz_target!(init: seeds::write_if_asked("parameter"), |data: &[u8]| {
    if data.len() > MAX_INPUT_BYTES {
        return;
    }
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (pattern, argument, parent) = (line(), line(), line());
    assert_eq!(
        parameter_matches(pattern, argument),
        patterns::parameter_matches(pattern, argument),
        "{:?} against {:?}",
        pattern.escape_ascii().to_string(),
        argument.escape_ascii().to_string()
    );
    assert!(parameter_is_within(pattern, pattern));
    if !parameter_is_within(pattern, parent) {
        return;
    }
    let escapes = |argument: &[u8]| {
        patterns::parameter_matches(pattern, argument) && !patterns::parameter_matches(parent, argument)
    };
    assert!(!escapes(argument), "a subset matches what its parent does not");
    if pattern.len().max(parent.len()) <= MAX_COMPARED_BYTES {
        assert!(!short_arguments().iter().any(|argument| escapes(argument)), "a subset is none");
    }
});
