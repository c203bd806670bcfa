//! What a resource may look like.
//!
//! Patterns are compared as text, and whoever serves the resource reads that text in its own way: decodes it once or
//! twice, drops parameters, a query or control characters, takes `\` for `/`. A name that some reader takes for another
//! one could lead out of the pattern that covered it. So only names that all readers read alike are let through. That is
//! a list of what is allowed, not one of disguises:
//!
//! - letters and digits of any script, `-._~`, `!$&'()*+,=:@`, and blanks inside a segment;
//! - `%` and two hex digits for one of these, in UTF-8;
//! - no segment that is `.` or `..`, also where it ends at one of the signs above (`..:x`), and no empty one but for a
//!   slash at the beginning, one at the end, and the two behind a scheme.
//!
//! `readers.rs` has readers of many kinds, and holds this list to them.

#[cfg(test)]
mod readers;

use std::borrow::Cow;

const DOTS: &str = "has a segment that is . or .., or can be taken for it";
const EMPTY: &str = "has an empty segment";
const BLANK: &str = "has a segment that begins or ends with a blank";
const ESCAPE: &str =
    "has a % that does not stand for one sign of a name; write names plain, or encode them once";
const SIGN: &str =
    "has a sign that no name may have; a resource is a path, without query, fragment or parameters";

/// Whether every reader takes this resource for what it says. The error is what is wrong with it, to go behind "the
/// resource". The empty text names nothing, and passes.
pub(crate) fn check(resource: &str) -> Result<(), &'static str> {
    if resource.is_empty() || is_plain(resource) {
        return Ok(());
    }
    check_sign_by_sign(resource)
}

fn check_sign_by_sign(resource: &str) -> Result<(), &'static str> {
    let plain = decoded(resource).ok_or(ESCAPE)?;
    let path = without_scheme(&plain);
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(());
    }
    path.strip_suffix('/').unwrap_or(path).split('/').try_for_each(check_segment)
}

/// Whether it is as most resources are: words between slashes, of letters and digits of ASCII and `-._~` alone. Asked of
/// every call, so it looks at bytes, once; the rest of the list decides about whatever else there is.
fn is_plain(resource: &str) -> bool {
    let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let mut segments = resource.as_bytes().split(|byte| *byte == b'/');
    segments.all(|segment| !matches!(segment, b"" | b"." | b"..") && segment.iter().all(belongs))
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    // Some readers take a plus for a blank, and drop blanks.
    if segment.trim_matches([' ', '+']).is_empty() {
        return Err(EMPTY);
    }
    if segment.starts_with(' ') || segment.ends_with(' ') {
        return Err(BLANK);
    }
    if !segment.chars().all(|sign| belongs_to_word(sign) || "!$&'()*+,=:@ ".contains(sign)) {
        return Err(SIGN);
    }
    // Whoever cuts a segment at a sign must not be left with dots either.
    match segment.split(|sign| !belongs_to_word(sign)).any(|word| matches!(word, "." | "..")) {
        true => Err(DOTS),
        false => Ok(()),
    }
}

fn belongs_to_word(sign: char) -> bool {
    // Letters of the Hangul script that show nothing, and that some readers drop.
    const FILLERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];
    sign.is_ascii_alphanumeric()
        || "-._~".contains(sign)
        || (!sign.is_ascii() && sign.is_alphanumeric() && !FILLERS.contains(&sign))
}

/// What stands behind `scheme://`, or all of it.
fn without_scheme(resource: &str) -> &str {
    let Some((scheme, rest)) = resource.split_once("://") else { return resource };
    let sound = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if sound && !rest.is_empty() { rest } else { resource }
}

/// Percent-decoded, once. `None` where an escape is not one, stands for a slash or another `%`, or is no UTF-8.
fn decoded(resource: &str) -> Option<Cow<'_, str>> {
    if !resource.contains('%') {
        return Some(Cow::Borrowed(resource));
    }
    let mut bytes = Vec::with_capacity(resource.len());
    let mut rest = resource.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        let byte = u8::try_from(high? * 16 + low?).ok().filter(|byte| !matches!(byte, b'/' | b'%'))?;
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_let_through_at_a_look_is_let_through_sign_by_sign(resource in "[ab.~%/: é;+-]{0,10}") {
            prop_assert!(!is_plain(&resource) || check_sign_by_sign(&resource).is_ok(), "{resource}");
        }
    }

    #[test]
    fn disguised_dot_segments_are_refused() {
        for resource in [
            "..",
            ".",
            "docs/..",
            "docs/../p",
            "docs/./a",
            "../docs",
            "docs/%2e%2E/a",
            "docs/.%2e",
            "a%2f..%2Fb",
            "a\\..\\b",
            "a%5C..",
            "docs/..;/p",
            "docs/..;v=1/p",
            "docs/%252e%252e/p",
            "docs/%25252e%25252e/p",
            "docs/.\t./p",
            "docs/\t../p",
            "docs/..\n/p",
            "docs/..\r/p",
            "docs/..\r\n",
            "docs/..%00/p",
            "docs/..%09/p",
            "docs/..%0a/p",
            "docs/..%0d/p",
            "docs/a/..?x",
            "docs/a/..#x",
            "docs/a/..%3fx",
            "docs/a/..%23x",
            "docs/.. /p",
            "docs/..%20/p",
            "docs/ ../p",
            "docs/%20../p",
            "docs/..+/p",
            "docs/+../p",
            "docs/%c0%ae%c0%ae/p",
            "docs/%e0%80%ae%e0%80%ae/p",
            "docs/%u002e%u002e/p",
            "docs/%uff0e%uff0e/p",
            "docs/..\0/p",
            "docs/..:/p",
            "docs/..::$INDEX_ALLOCATION/p",
            "docs/..*/p",
            "docs/.*",
            "docs/..,x/p",
            "docs/..=/p",
            "docs/(..)/p",
            "docs/\u{ff0e}\u{ff0e}/p",
            "docs/\u{2025}/p",
            "docs/\u{2024}\u{2024}/p",
            "docs/..\u{200b}/p",
            "docs/.\u{ad}./p",
            "docs/..\u{a0}/p",
            "docs/..\u{fe0f}/p",
            "docs/.\u{3164}./p",
            "docs\u{2215}..\u{2215}p",
            "docs\u{ff0f}..\u{ff0f}p",
            "docs/%ef%bc%8e%ef%bc%8e/p",
            "docs/..\u{2028}/p",
            "docs/..%e2%80%a8/p",
            "https://api.example/docs/../p",
            "/docs/../p",
            "/..",
            "file:///..",
            "docs/../",
        ] {
            assert!(check(resource).is_err(), "{resource:?}");
        }
    }

    #[test]
    fn what_readers_read_in_more_than_one_way_is_refused() {
        for resource in [
            "docs//p",
            "//docs",
            "docs//",
            "///",
            "a://",
            "1a://docs",
            "x y://docs",
            "docs/ ",
            " docs",
            "docs /p",
            "docs/p%20",
            "docs/a;v=1",
            "docs/a?b=c",
            "docs/a#b",
            "docs/a%3Bb",
            "docs/a%2Fb",
            "docs/100%",
            "docs/%",
            "docs/%2",
            "docs/%zz",
            "docs/a%00",
            "docs/a\0",
            "docs/a\tb",
            "docs/%ff",
            "docs/%c3",
            "docs/a|b",
            "docs/<a>",
            "docs/\"a\"",
            "docs/`a`",
            "docs/{a}",
            "docs/^",
            "docs/[a]",
            "docs/a\u{202e}b",
            "docs/\u{e000}",
            "docs/a\u{7f}",
            "docs/a%7f",
        ] {
            assert!(check(resource).is_err(), "{resource:?}");
        }
    }

    #[test]
    fn ordinary_names_pass() {
        for resource in [
            "",
            "/",
            "docs",
            "docs/a",
            "docs/a/",
            "/v1/items/",
            "docs/a.b/c",
            "docs/v1..2/x",
            "docs/.../x",
            "docs/..a/x",
            "docs/.hidden",
            "docs/..-x",
            "a.b/.well-known/x",
            "%2e%2e%2e",
            "docs/v1%2e2",
            "billing-api/invoices/2025-Q3",
            "docs/Annual report (final).pdf",
            "docs/Annual%20report",
            "docs/Grüße",
            "docs/Gr%C3%BC%C3%9Fe",
            "docs/日本語/資料",
            "https://api.example:8443/v1/x",
            "db+pg://host/table",
            "file:///srv/data",
            "urn:isbn:0451450523",
            "table:users",
            "users/o'brien@example.org",
            "items/$metadata",
            "items/a,b=c&d!",
            "docs/*",
            "**",
            "*",
            "~a/b_c",
        ] {
            assert_eq!(check(resource), Ok(()), "{resource:?}");
        }
    }
}
