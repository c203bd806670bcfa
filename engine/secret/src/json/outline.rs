//! What can be said of a JSON text before it is read: how many values it holds, how deep they lie, and what a member of
//! the outermost object says.
//!
//! A tree of values takes many times the room and the time of its text. This takes one pass, and stops where there is too
//! much of either; so a server need not grow a tree for somebody who has shown nothing yet. It does not check the text: what
//! passes here may still be malformed, and is to be [parsed](super::parse) before anything in it counts.

use std::borrow::Cow;

use memchr::memchr2;

use super::JsonError;

/// How much a text may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Objects, lists and what is in them. Members that are empty count as two.
    pub values: usize,
    /// Objects and lists inside each other.
    pub depth: usize,
}

impl Bounds {
    /// For what a stranger sends: far more than a call of a tool has, and little enough that reading it costs no more
    /// than some milliseconds.
    pub const REQUEST: Self = Self { values: 32_768, depth: 64 };
}

/// Checks the bounds of an object, and finds the text of some members of it; `None` for those that are absent or null.
///
/// # Errors
///
/// A text that is not an object, holds more than the bounds allow, or has something else than a text where one is looked for.
pub fn find_texts<'a, const N: usize>(
    json: &'a [u8],
    names: [&str; N],
    bounds: Bounds,
) -> Result<[Option<Cow<'a, str>>; N], JsonError> {
    let mut found = [const { None }; N];
    walk(json, bounds, |name, value| {
        for (place, wanted) in found.iter_mut().zip(names) {
            if is_name(name, wanted) && place.is_none() {
                *place = Some(value);
            }
        }
    })?;
    let mut texts = [const { None }; N];
    for ((place, value), name) in texts.iter_mut().zip(found).zip(names) {
        *place = value.map(|value| text(value, name)).transpose()?.flatten();
    }
    Ok(texts)
}

/// Checks the bounds of an object.
pub(super) fn check(json: &[u8], bounds: Bounds) -> Result<(), JsonError> {
    walk(json, bounds, |_, _| {})
}

/// Goes through the text, and shows each member of the outermost object, its name in quotes and the start of its value.
fn walk<'a>(
    json: &'a [u8],
    bounds: Bounds,
    mut member: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<(), JsonError> {
    let odd = |at, problem: &str| Err(error(json, at, problem));
    let start = skip_blanks(json, 0);
    if json.get(start) != Some(&b'{') {
        return odd(start, "expected an object");
    }
    let (mut at, mut depth, mut values) = (start, 0_usize, 0_usize);
    // The name that was read last in the outermost object, and whether the next text there is one.
    let (mut name, mut name_next): (Option<&[u8]>, bool) = (None, true);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let Some(end) = end_of_text(json, at) else { return odd(at, "a text without an end") };
                if depth == 1 && name_next {
                    (name, name_next) = (json.get(at..end), false);
                }
                at = end;
                continue;
            }
            b':' if depth == 1 => {
                if let Some(name) = name.take() {
                    member(name, json.get(skip_blanks(json, at + 1)..).unwrap_or_default());
                }
            }
            b',' => {
                values += 1;
                name_next |= depth == 1;
            }
            b'{' | b'[' => {
                values += 1;
                depth += 1;
                if depth > bounds.depth {
                    return odd(at, "more objects and lists inside each other than are read");
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    let after = skip_blanks(json, at + 1);
                    return if after == json.len() {
                        Ok(())
                    } else {
                        odd(after, "something follows the document")
                    };
                }
            }
            _ => {}
        }
        if values > bounds.values {
            return odd(at, "more values than are read");
        }
        at += 1;
    }
    odd(at, "the text ends before the object does")
}

fn skip_blanks(json: &[u8], from: usize) -> usize {
    let rest = json.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// Where the text that begins at `start` is over. A few bytes are looked at one by one: most texts are short, and in one
/// that is full of escapes a search that has to begin again and again would cost more.
fn end_of_text(json: &[u8], start: usize) -> Option<usize> {
    const ONE_BY_ONE: usize = 32;
    let mut at = start + 1;
    loop {
        let rest = json.get(at..)?;
        let near = rest.iter().take(ONE_BY_ONE).position(|byte| matches!(byte, b'"' | b'\\'));
        at += match near {
            Some(near) => near,
            None => ONE_BY_ONE + memchr2(b'"', b'\\', rest.get(ONE_BY_ONE..)?)?,
        };
        match json.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Whether a name as it stands there, quotes included, is this one. Escapes are a way to write it, too.
fn is_name(raw: &[u8], name: &str) -> bool {
    const LONGEST_ESCAPE: usize = 6;
    let plain = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if plain == name.as_bytes() {
        return true;
    }
    plain.contains(&b'\\')
        && plain.len() <= name.len() * LONGEST_ESCAPE
        && serde_json::from_slice::<String>(raw).is_ok_and(|read| read == name)
}

/// The text that begins here, or `None` where there is `null`.
fn text<'a>(value: &'a [u8], name: &str) -> Result<Option<Cow<'a, str>>, JsonError> {
    let wrong = || JsonError { field: name.to_owned(), line: 1, problem: "expected a string".to_owned() };
    if value.starts_with(b"null") {
        return Ok(None);
    }
    let raw =
        value.starts_with(b"\"").then(|| value.get(..end_of_text(value, 0)?)).flatten().ok_or_else(wrong)?;
    let read = match serde_json::from_slice::<&str>(raw) {
        Ok(borrowed) => Cow::Borrowed(borrowed),
        Err(_) => Cow::Owned(serde_json::from_slice(raw).map_err(|_| wrong())?),
    };
    Ok(Some(read))
}

fn error(json: &[u8], at: usize, problem: &str) -> JsonError {
    let before = json.get(..at).unwrap_or(json);
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    JsonError { field: super::WHOLE.to_owned(), line, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn token(json: &str) -> Result<Option<String>, String> {
        let [token] = find_texts(json.as_bytes(), ["token"], Bounds { values: 100, depth: 8 })
            .map_err(|error| error.to_string())?;
        Ok(token.map(Cow::into_owned))
    }

    #[test]
    fn a_member_of_the_outermost_object_is_found_wherever_it_stands_and_however_it_is_written() {
        for text in [
            r#"{"token":"abc"}"#,
            r#" { "token" : "abc" } "#,
            r#"{"arguments":{"token":"no","a":["token",{"token":"no"}]},"token":"abc","z":1}"#,
            r#"{"arguments":["}","]","\"token\":\"no\"","\\"],"token":"abc"}"#,
            r#"{"x":"token","token":"abc"}"#,
            r#"{"x":[],"y":{},"\u0074oken":"ab\u0063"}"#,
        ] {
            assert_eq!(token(text), Ok(Some("abc".to_owned())), "{text}");
            assert_eq!(serde_json::from_str::<Value>(text).unwrap()["token"], "abc");
        }
        for text in
            [r#"{}"#, r#"{"token":null}"#, r#"{"a":{"token":"no"}}"#, r#"{"a":"token"}"#, r#"{"Token":"no"}"#]
        {
            assert_eq!(token(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn several_members_are_found_in_one_pass() {
        let text = r#"{"tool":"search","arguments":{},"token":"abc"}"#;
        let [token, tool, pop] =
            find_texts(text.as_bytes(), ["token", "tool", "pop"], Bounds::REQUEST).unwrap();
        assert_eq!((token.as_deref(), tool.as_deref(), pop), (Some("abc"), Some("search"), None));
    }

    #[test]
    fn what_is_no_object_or_has_no_end_is_refused_without_being_repeated() {
        for text in [
            "",
            " ",
            "[]",
            "\"secret\"",
            "null",
            "{",
            "{\"secret",
            "{\"secret\\",
            "{\"a\":[1}",
            "{} secret",
            "{\"token\":1}",
            "{\"token\":[\"secret\"]}",
            "{\"token\":\"\\u00\"}",
        ] {
            let error = token(text).err();
            // Brackets that do not match are for the parser to find; what matters is that there is an end.
            assert!(
                error.as_ref().is_some_and(|error| !error.contains("secret")) || text.contains("[1}"),
                "{text}"
            );
        }
    }

    #[test]
    fn values_and_depth_are_bounded_and_what_is_within_the_bounds_passes() {
        let within = |text: &str, values, depth| check(text.as_bytes(), Bounds { values, depth }).is_ok();
        let list = format!("{{\"a\":[{}]}}", vec!["0"; 50].join(","));
        assert!(within(&list, 51, 2));
        assert!(!within(&list, 50, 2) && !within(&list, 51, 1));
        let names = json!({"a": {"b": 1, "c": 2, "d": {}}}).to_string();
        assert!(within(&names, 5, 3) && !within(&names, 4, 3));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
        assert!(within(&deep, 64, 64) && !within(&deep, 64, 63));
    }

    #[test]
    fn a_member_that_a_parser_finds_is_found_here_too() {
        // Every document of a small grammar, up to a size.
        let parts = ["{", "}", "[", "]", ",", ":", "\"token\"", "\"a\\\"\"", "1", " "];
        let mut texts = vec![String::new()];
        for _ in 0..6 {
            texts = texts.iter().flat_map(|text| parts.map(|part| format!("{text}{part}"))).collect();
            texts.retain(|text| text.trim_start().starts_with('{'));
            for text in &texts {
                let Ok(Value::Object(read)) = serde_json::from_str::<Value>(text) else { continue };
                let expected = match read.get("token") {
                    None => Ok(None),
                    Some(Value::String(found)) => Ok(Some(found.clone())),
                    Some(_) => Err(()),
                };
                // Of a name that stands twice the parser of the tests takes the last; ours refuses it.
                if text.matches("\"token\":").count() <= 1 {
                    assert_eq!(token(text).map_err(drop), expected, "{text}");
                }
            }
        }
    }
}
