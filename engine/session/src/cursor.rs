//! How far somebody has come who follows the events of an Authentication Service.

use core::fmt;

use obol_secret::text::{from_hex, hex_array, to_hex};
use serde::{Deserialize, Serialize};

/// A place in a service's events: everything up to this number was applied.
///
/// Numbers mean something within one incarnation of the service's directory alone. As text: `incarnation.number`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Which life of the directory the number belongs to.
    #[serde(with = "hex_array")]
    pub incarnation: [u8; 16],
    /// The number of the last event that was applied.
    pub seq: u64,
}

impl Cursor {
    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (incarnation, seq) = text.split_once('.')?;
        let cursor = Self { incarnation: from_hex(incarnation)?, seq: seq.parse().ok()? };
        // One cursor has one form.
        (cursor.to_string() == text).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", to_hex(&self.incarnation), self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_one_form_as_text() {
        let cursor = Cursor { incarnation: [0xab; 16], seq: 17 };
        let text = cursor.to_string();
        assert_eq!(text, format!("{}.17", "ab".repeat(16)));
        assert_eq!(Cursor::parse(&text), Some(cursor));
        for bad in
            ["", "17", "ab.17", &text.to_uppercase(), &format!("{text} "), &text.replace(".17", ".+17")]
        {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
