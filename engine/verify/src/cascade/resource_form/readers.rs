//! Readers of resources, as servers, proxies and file systems have them, in every order: whatever a name that is let
//! through becomes in their hands, it stays within the pattern that covers it.
//!
//! Written without a look at the list of what is allowed, and slow.

use std::collections::BTreeSet;

use obol_token::pattern::resource_allows;
use proptest::prelude::*;

use super::check;

/// One habit of a reader.
type Habit = fn(&[char]) -> Vec<char>;

const HABITS: [Habit; 11] = [
    percent_decoded,
    wide_escapes_decoded,
    overlong_decoded,
    |text| in_segments(text, |segment| segment.split(|c| *c == ';').next().unwrap_or_default().to_vec()),
    |text| text.split(|c| matches!(c, '?' | '#')).next().unwrap_or_default().to_vec(),
    |text| text.split(|c| *c == '\0').next().unwrap_or_default().to_vec(),
    |text| text.iter().copied().filter(|c| !c.is_control() && !is_ignorable(*c)).collect(),
    |text| in_segments(text, trimmed),
    |text| replaced(text, &['\\', '\u{ff0f}', '\u{2215}', '\u{2044}', '\u{ff3c}'], '/'),
    |text| replaced(text, &['\u{ff0e}', '\u{2024}', '\u{3002}'], '.'),
    |text| replaced(text, &['+', '\u{a0}', '\u{3000}'], ' '),
];

/// The most habits of one reader.
const MAX_HABITS: usize = 4;

fn is_ignorable(sign: char) -> bool {
    matches!(sign, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{3164}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

fn replaced(text: &[char], these: &[char], by: char) -> Vec<char> {
    text.iter().map(|sign| if these.contains(sign) { by } else { *sign }).collect()
}

fn in_segments(text: &[char], read: impl Fn(&[char]) -> Vec<char>) -> Vec<char> {
    let segments: Vec<Vec<char>> = text.split(|c| *c == '/').map(read).collect();
    segments.join(&'/')
}

fn trimmed(segment: &[char]) -> Vec<char> {
    segment.iter().collect::<String>().trim().chars().collect()
}

/// The number behind the place, of so many hex digits.
fn hex(text: &[char], from: usize, digits: usize) -> Option<u32> {
    let text: String = text.get(from..from + digits)?.iter().collect();
    u32::from_str_radix(&text, 16).ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Generous: what is not an escape stays, and what is not UTF-8 becomes the sign of that number.
fn percent_decoded(text: &[char]) -> Vec<char> {
    let mut bytes = Vec::new();
    let mut place = 0;
    while place < text.len() {
        match hex(text, place + 1, 2).filter(|_| text[place] == '%') {
            Some(byte) => {
                bytes.push(u8::try_from(byte).unwrap());
                place += 3;
            }
            None => {
                bytes.extend_from_slice(text[place].to_string().as_bytes());
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).chars().collect()
}

fn wide_escapes_decoded(text: &[char]) -> Vec<char> {
    let mut read = Vec::new();
    let mut place = 0;
    while place < text.len() {
        let escape =
            hex(text, place + 2, 4).filter(|_| text[place] == '%' && matches!(text[place + 1], 'u' | 'U'));
        match escape.and_then(char::from_u32) {
            Some(sign) => {
                read.push(sign);
                place += 6;
            }
            None => {
                read.push(text[place]);
                place += 1;
            }
        }
    }
    read
}

/// Takes `%c0%ae` for the dot it stands for in UTF-8 of more bytes than needed.
fn overlong_decoded(text: &[char]) -> Vec<char> {
    let mut read = Vec::new();
    let mut place = 0;
    while place < text.len() {
        let lead = hex(text, place + 1, 2).filter(|lead| text[place] == '%' && matches!(lead, 0xc0 | 0xc1));
        let next = hex(text, place + 4, 2).filter(|_| text.get(place + 3) == Some(&'%'));
        match lead.zip(next).and_then(|(lead, next)| char::from_u32((lead & 1) << 6 | next & 0x3f)) {
            Some(sign) => {
                read.push(sign);
                place += 6;
            }
            None => {
                read.push(text[place]);
                place += 1;
            }
        }
    }
    read
}

/// What file systems make of it: empty segments and `.` vanish, `..` leads up.
fn resolved(text: &[char]) -> Vec<String> {
    let mut path = Vec::new();
    for segment in text.split(|c| *c == '/') {
        match segment.iter().collect::<String>().as_str() {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            name => path.push(name.to_owned()),
        }
    }
    path
}

/// Every way in which the readers read it.
fn readings(resource: &str) -> BTreeSet<Vec<char>> {
    let mut known = BTreeSet::from([resource.chars().collect::<Vec<_>>()]);
    for _ in 0..MAX_HABITS {
        let more: Vec<_> = known.iter().flat_map(|text| HABITS.iter().map(|habit| habit(text))).collect();
        known.extend(more);
    }
    known
}

type Within = fn(&[String]) -> bool;

/// Patterns, and whether a path lies within: the rules of TBAC r41, section 3.2, for these few.
const PATTERNS: [(&str, Within); 5] = [
    ("docs/**", |path| path.first().is_some_and(|first| first == "docs")),
    ("docs/*", |path| path.len() == 2 && path[0] == "docs"),
    ("docs/*/a", |path| path.len() == 3 && path[0] == "docs" && path[2] == "a"),
    ("/docs/**", |path| path.first().is_some_and(|first| first == "docs")),
    ("docs", |path| path.first().is_some_and(|first| first == "docs")),
];

/// A reading that lies outside of the pattern which covers the name as it stands.
fn escape(resource: &str) -> Option<(&'static str, String)> {
    let covering = PATTERNS.iter().filter(|(pattern, _)| resource_allows(pattern, resource));
    let mut readings = covering.flat_map(|(pattern, within)| {
        let outside = readings(resource).into_iter().find(|text| !within(&resolved(text)));
        outside.map(|text| (*pattern, text.into_iter().collect::<String>()))
    });
    readings.next()
}

/// Bricks of names and of disguises.
const BRICKS: &[&str] = &[
    "/",
    "/",
    "/",
    "/",
    "a",
    "b",
    ".",
    ".",
    "..",
    "..",
    "...",
    ";",
    ";a=1",
    "?",
    "#",
    "%",
    "%2e",
    "%2E",
    "%252e",
    "%25",
    "%2f",
    "%252f",
    "%5c",
    "\\",
    "%00",
    "\0",
    "\t",
    "%09",
    "\n",
    "%0a",
    "\r",
    " ",
    "%20",
    "+",
    "%2b",
    "%3b",
    "%3f",
    "%23",
    "%c0%ae",
    "%c0%af",
    "%u002e",
    "%u002f",
    "%uff0e",
    "\u{ff0e}",
    "\u{ff0f}",
    "\u{2215}",
    "\u{2024}",
    "\u{200b}",
    "\u{ad}",
    "\u{feff}",
    "\u{a0}",
    "\u{3164}",
    "%e3%85%a4",
    "\u{fe0f}",
    "%ef%bc%8e",
    ":",
    "*",
    "**",
    "=",
    ",",
    "&",
    "(",
    "~",
    "é",
    "%c3%a9",
    "%e9",
    "docs",
];

fn brick() -> impl Strategy<Value = &'static str> {
    prop::sample::select(BRICKS)
}

#[test]
fn the_readers_find_the_disguises() {
    for resource in [
        "docs/../p",
        "docs/%2e%2e/p",
        "docs/..;/p",
        "docs/%252e%252e/p",
        "docs/.\t./p",
        "docs/..%00/p",
        "docs/a/../../?x",
        "docs/%c0%ae%c0%ae/p",
        "docs/..%20/p",
        "docs/..+/p",
        "docs/%u002e%u002e/p",
        "docs/\u{ff0e}\u{ff0e}/p",
        "docs/..\u{200b}/p",
        "docs/..\\..\\p",
        "docs/..%5c..%5cp",
        "docs/a%2f..%2f..%2fp",
        "docs/..%3bx/p",
    ] {
        assert!(escape(resource).is_some(), "{resource:?}");
        assert!(check(resource).is_err(), "{resource:?}");
    }
    for (resource, pattern) in [("docs/%20/a", "docs/*/a"), ("docs/;x", "docs/*"), ("docs/a%2fb", "docs/*")] {
        assert_eq!(escape(resource).map(|(pattern, _)| pattern), Some(pattern), "{resource:?}");
        assert!(check(resource).is_err(), "{resource:?}");
    }
    for resource in ["docs/a", "docs/a/", "docs/.../x", "docs/a%20b/c", "docs/é", "docs/v1..2/x"] {
        assert_eq!((escape(resource), check(resource)), (None, Ok(())), "{resource:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_reader_leaves_the_pattern_with_a_name_that_is_let_through(
        lead in prop::sample::select(vec!["docs/", "docs/", "/docs/", "docs", "docs/a/", "docs/b/"]),
        bricks in prop::collection::vec(brick(), 1..7),
    ) {
        let resource = format!("{lead}{}", bricks.concat());
        if check(&resource).is_ok() {
            prop_assert_eq!(escape(&resource), None, "{:?}", resource);
        }
    }
}
