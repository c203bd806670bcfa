//! Times and other people's words, as they stand on pages.

use obol_secret::text::plain;

/// Somebody else's words, without what steers or hides.
pub(super) fn shown(text: &str) -> String {
    plain(text).into_owned()
}

/// A time as people read how far it is.
pub(super) fn ahead(at: u64, now: u64) -> String {
    match at.checked_sub(now) {
        None | Some(0) => "over".to_owned(),
        Some(secs) => format!("in {}", span(secs)),
    }
}

pub(super) fn ago(at: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(at)))
}

pub(super) fn span(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        7_200..=172_799 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}
