//! Resource patterns against their rules written down once more, and the subset relation against every short path.
//!
//! Input: two lines, the parent's pattern and the child's.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use obol_fuzz::patterns::{self, is_literal, resource_names, segments};
use obol_fuzz::seeds;
use obol_token::pattern::{ResourcePattern, resource_allows};

/// The oracle takes exponential time.
const MAX_SEGMENTS: usize = 9;

fn short_paths() -> &'static [Vec<&'static str>] {
    static PATHS: OnceLock<Vec<Vec<&'static str>>> = OnceLock::new();
    PATHS.get_or_init(|| patterns::all_up_to(&["a", "b", "", "*"], 5))
}

fuzz_target!(init: seeds::write_if_asked("resource"), |data: &[u8]| {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let (parent_text, child_text) = text.split_once('\n').unwrap_or((text, ""));
    let (parent, child) = (segments(parent_text), segments(child_text));
    if parent.len().max(child.len()) > MAX_SEGMENTS {
        return;
    }
    let (parsed_parent, parsed_child) = (ResourcePattern::parse(parent_text), ResourcePattern::parse(child_text));
    let within = parsed_child.is_within(&parsed_parent);
    assert_eq!(within, patterns::resource_is_within(&child, &parent), "{child_text:?} within {parent_text:?}");
    assert!(parsed_child.is_within(&parsed_child), "{child_text:?} within itself");
    assert_eq!(resource_allows(parent_text, child_text), within || parent_text == "*");

    if is_literal(&child) && is_literal(&parent) {
        return;
    }
    if is_literal(&child) {
        let path: Vec<&str> = child
            .iter()
            .map(|segment| match segment {
                patterns::Segment::Literal(name) => name.as_str(),
                _ => unreachable!("it is literal"),
            })
            .collect();
        assert_eq!(within, resource_names(&parent, &path), "one path is covered exactly where it is named");
    }
    if within {
        let escapes = |path: &&Vec<&str>| resource_names(&child, path) && !resource_names(&parent, path);
        let escaped = short_paths().iter().find(escapes);
        assert_eq!(escaped, None, "{child_text:?} within {parent_text:?}");
    }
});
