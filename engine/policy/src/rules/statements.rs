//! Where the policies of a text begin, and whether each is short enough to be read.
//!
//! What reads and evaluates Cedar calls itself for each operator within another. A policy of many thousand of them could
//! use up a stack, and that ends the process. So the words of each policy are counted before anything else is done with it.

use crate::limits::MAX_POLICY_WORDS;

/// A text that is not read.
#[derive(Debug)]
pub(super) struct Fault {
    /// Where, in bytes.
    pub(super) at: usize,
    pub(super) why: String,
}

/// The places in bytes where policies begin. Knows as much of Cedar as it must to find their ends: words, strings, and
/// comments, which end with the line.
pub(super) fn statements(text: &str) -> Result<Vec<usize>, Fault> {
    let mut starts = Vec::new();
    let mut words = 0;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let at = text.len() - rest.len();
        let length = match first {
            '"' => string_length(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            letter if is_word(letter) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
        rest = rest.get(length..).unwrap_or_default();
        if first.is_whitespace() || (first == '/' && length > 1) {
            continue;
        }
        if words == 0 {
            starts.push(at);
        }
        words += 1;
        if words > MAX_POLICY_WORDS {
            let why = format!("a policy of more than {MAX_POLICY_WORDS} words and signs; make several of it");
            return Err(Fault { at: starts.last().copied().unwrap_or(at), why });
        }
        if first == ';' {
            words = 0;
        }
    }
    Ok(starts)
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// How long the string is that a text begins with; all of it, where it does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_begin_after_the_end_of_the_one_before() {
        let text = "// a; b\n@id(\"x;\\\";\") permit (a);\n  forbid(b) when { \"//\" == c }; // end\n";
        let starts: Vec<_> = statements(text).unwrap().into_iter().map(|at| &text[at..at + 4]).collect();
        assert_eq!(starts, ["@id(", "forb"]);
        assert!(statements("").unwrap().is_empty());
        assert!(statements(" \n// nothing").unwrap().is_empty());
    }

    #[test]
    fn a_policy_of_too_many_words_is_refused_where_it_begins() {
        let long = format!("permit (a);\nforbid {};", "! ".repeat(MAX_POLICY_WORDS));
        assert_eq!(statements(&long).unwrap_err().at, 12);
        let fits = format!("{};", "! ".repeat(MAX_POLICY_WORDS - 1)).repeat(5);
        assert_eq!(statements(&fits).unwrap().len(), 5);
    }

    #[test]
    fn no_text_is_too_odd_to_be_scanned() {
        for text in ["\"", "\"\\", "/", "//", "é;é", "\"é", "a\u{2028};", "'", ";;;"] {
            let _starts = statements(text).unwrap();
        }
    }
}
