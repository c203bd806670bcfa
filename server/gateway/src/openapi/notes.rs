//! What a document says and a file of rules cannot: told to whoever reads the file, as comments.

use core::fmt::Write as _;

/// The most that is told one by one.
const MAX_NOTES: usize = 200;
/// The longest of them, in signs.
const MAX_NOTE: usize = 240;

/// Remarks, in order, each once.
#[derive(Debug, Default)]
pub(super) struct Notes {
    told: Vec<String>,
    more: usize,
}

impl Notes {
    pub(super) fn add(&mut self, note: &str) {
        let note = shown(note, MAX_NOTE);
        if self.told.contains(&note) {
            return;
        }
        match self.told.len() < MAX_NOTES {
            true => self.told.push(note),
            false => self.more += 1,
        }
    }

    /// As comments.
    pub(super) fn write(&self, text: &mut String) {
        if self.told.is_empty() {
            text.push_str("# Not covered: nothing that the document has.\n");
            return;
        }
        text.push_str("# Not covered:\n");
        for note in &self.told {
            let _never_fails = writeln!(text, "# - {note}");
        }
        if self.more > 0 {
            let _never_fails = writeln!(text, "# - and {} more", self.more);
        }
    }
}

/// What came from the document, on one line and without a sign that does not show.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut line: String =
        text.chars().take(most).map(|sign| if is_shown(sign) { sign } else { '?' }).collect();
    if text.chars().nth(most).is_some() {
        line.push_str("...");
    }
    line
}

fn is_shown(sign: char) -> bool {
    sign == ' ' || sign.is_ascii_graphic()
}
