//! How names, numbers, times and lines are written on the screen.

use std::collections::BTreeMap;

/// A number in at most seven characters.
pub(super) fn number(value: u64) -> String {
    match value {
        0..=99_999 => value.to_string(),
        100_000..=9_999_999 => format!("{}k", value / 1_000),
        10_000_000..=9_999_999_999 => format!("{}M", value / 1_000_000),
        _ => format!("{}G", value / 1_000_000_000),
    }
}

pub(super) fn decimal(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    // In tenths, rounded.
    let tenths = (u128::from(part) * 2_000 / u128::from(whole)).div_ceil(2);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// How text stands out; not at all without colour.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn alarm(self, text: &str) -> String {
        self.paint("31", text)
    }
}

/// The first `width` characters of a line, escape sequences not counted and never cut.
pub(super) fn cut(line: &str, width: usize) -> String {
    let (mut out, mut shown, mut escape) = (String::new(), 0, false);
    for character in line.chars() {
        if escape {
            escape = !character.is_ascii_alphabetic();
        } else if character == '\x1b' {
            escape = true;
        } else if shown == width {
            continue;
        } else {
            shown += 1;
        }
        out.push(character);
    }
    out
}

/// A name in at most so many characters, unlike every other so shortened: its beginning and its end, and a number where
/// that is not enough. `seen` counts what was given out.
pub(super) fn short(name: &str, width: usize, seen: &mut BTreeMap<String, u32>) -> String {
    let shortened = within(name, width);
    let count = seen.entry(shortened.clone()).or_default();
    *count += 1;
    if *count == 1 || shortened == name {
        return shortened;
    }
    let mark = format!("~{count}");
    let kept = width.saturating_sub(mark.chars().count());
    shortened.chars().take(kept).collect::<String>() + &mark
}

fn within(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let tail = width.saturating_sub(1) / 2;
    let head = width.saturating_sub(1) - tail;
    let begin: String = name.chars().take(head).collect();
    let end: String = name.chars().skip(length - tail).collect();
    format!("{begin}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_names_stay_apart() {
        let mut seen = BTreeMap::new();
        let mut show = |name: &str| short(name, 9, &mut seen);
        assert_eq!([show("search"), show("mail.send.all")], ["search", "mail….all"]);
        assert_eq!([show("mail.read.all"), show("mail.copy.all")], ["mail….a~2", "mail….a~3"]);
        assert_eq!([show("search"), show("x")], ["search", "x"], "the same tool of another session");
    }

    #[test]
    fn lines_are_cut_at_the_edge_and_escapes_are_not() {
        assert_eq!(cut("\x1b[1mabcdef\x1b[0m", 3), "\x1b[1mabc\x1b[0m");
        assert_eq!(cut("äöü", 2), "äö");
    }

    #[test]
    fn numbers_keep_to_their_columns() {
        let shown = [0, 99_999, 100_000, 9_999_999, 10_000_000, u64::from(u32::MAX)].map(number);
        assert_eq!(shown, ["0", "99999", "100k", "9999k", "10M", "4294M"]);
        assert_eq!([percent(0, 0), percent(1, 3), percent(5, 5)], ["-", "33.3%", "100.0%"]);
    }
}
