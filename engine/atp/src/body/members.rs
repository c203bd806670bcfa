//! Writes the canonical form of a body: members one behind the other, in the order in which they are given. That has to be the
//! order of their names.

use obol_secret::text::push_hex;

/// An object that is being written.
pub(super) struct Members<'o>(&'o mut Vec<u8>);

impl<'o> Members<'o> {
    pub(super) fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self(out)
    }

    /// Behind an object whose last sign was taken off.
    pub(super) fn behind(out: &'o mut Vec<u8>) -> Self {
        Self(out)
    }

    pub(super) fn end(self) {
        self.0.push(b'}');
    }

    /// Names are our own, of letters and `_`.
    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(if self.0.ends_with(b"{") { b"\"" } else { b",\"" });
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    pub(super) fn hex(&mut self, name: &'static str, bytes: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        push_hex(bytes, self.0);
        self.0.push(b'"');
    }

    pub(super) fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        // A number into memory: it cannot fail.
        let _infallible = serde_json::to_writer(&mut *self.0, &number);
    }

    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        self.value(text);
    }

    pub(super) fn text_if(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(super) fn texts<'t>(&mut self, name: &'static str, texts: impl Iterator<Item = &'t str>) {
        self.name(name);
        self.0.push(b'[');
        for (place, text) in texts.enumerate() {
            if place > 0 {
                self.0.push(b',');
            }
            self.value(text);
        }
        self.0.push(b']');
    }

    fn value(&mut self, text: &str) {
        let is_escaped = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
        // Without a way out in between, so that many bytes are looked at in one step.
        if text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
            // Text into memory: it cannot fail. Escapes are those of RFC 8785.
            let _infallible = serde_json::to_writer(&mut *self.0, text);
            return;
        }
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }
}
