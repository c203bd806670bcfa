//! Writing TOML: whatever a text holds, it stays a text of its line.

use core::fmt::Write as _;

/// A text between quotes, in ASCII.
pub(super) fn quoted(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push('"');
    for sign in text.chars() {
        match sign {
            '"' | '\\' => {
                written.push('\\');
                written.push(sign);
            }
            ' '..='~' => written.push(sign),
            sign => {
                let _never_fails = write!(written, "\\U{:08X}", u32::from(sign));
            }
        }
    }
    written.push('"');
    written
}

/// A list of texts.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// A line of a table.
pub(super) fn line(text: &mut String, key: &str, value: &str) {
    let _never_fails = writeln!(text, "{key} = {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_is_read() {
        let odd = "a\"\\\n\r\t\u{0}\u{7f}\u{85}\u{2028}\u{202e}\u{1f600}'''\"\"\" # [x]\nput = \"none\"";
        let mut text = String::new();
        line(&mut text, "one", &quoted(odd));
        line(&mut text, "list", &list([odd, ""]));
        assert!(text.is_ascii() && text.lines().count() == 2, "{text}");
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(read["one"].as_str(), Some(odd));
        assert_eq!(read["list"].as_array().unwrap()[0].as_str(), Some(odd));
    }
}
