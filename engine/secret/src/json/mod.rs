//! Reading JSON that may hold secrets: errors name the field and what was expected there, and never repeat what was
//! found. A key in the wrong place would otherwise end up in a log, or in an answer.
//!
//! It is also read to the letter. An object is an object and no list of its fields, and a name stands in it once, at every
//! level: of arguments with `{"a":1,"a":2}` one reader might check the second `a` and another act on the first.
//!
//! What strangers send is read [within bounds](parse_within) of values and depth, not of bytes alone.

#[cfg(feature = "canonical")]
mod arguments;
mod objects;
mod outline;

use core::fmt;

use serde::{Deserialize, Deserializer};

#[cfg(feature = "canonical")]
pub use self::arguments::{ReadArguments, canonical};
use self::objects::Objects;
pub use self::outline::{Bounds, find_texts};

/// A document that was not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// Where, as in `sessions[3].K_session`.
    pub field: String,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong, without the value.
    pub problem: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (line {})", self.field, self.problem, self.line)
    }
}

impl core::error::Error for JsonError {}

/// Reads one document and nothing behind it. What is unknown is refused where `T` says so.
///
/// # Errors
///
/// [`JsonError`] names the field and the line, and repeats no value: the document is not well-formed, has a name twice, does
/// not fit `T`, or something follows it.
pub fn parse<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    match T::deserialize(Objects(&mut reader)).and_then(|read| reader.end().map(|()| read)) {
        Ok(read) => Ok(read),
        // Keeping track of the place costs more than reading does; it is read again to say where.
        Err(_) => parse_and_tell(json),
    }
}

/// As [`parse`], of an object that a stranger sends: its values and its depth are bounded, and looked at first.
///
/// # Errors
///
/// As [`parse`], and where a bound is exceeded.
pub fn parse_within<'de, T: Deserialize<'de>>(json: &'de [u8], bounds: Bounds) -> Result<T, JsonError> {
    outline::check(json, bounds)?;
    parse(json)
}

/// Reads a part of a document that is read already, such as a `Value` of one: objects are objects in it too. `None` where it
/// does not fit `T`; the reader of the whole knows where it was.
pub fn read_part<'de, T: Deserialize<'de>>(part: impl Deserializer<'de>) -> Option<T> {
    T::deserialize(Objects(part)).ok()
}

#[cold]
fn parse_and_tell<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(Objects(&mut reader)).map_err(|error| {
        let field = without_long_names(&error.path().to_string());
        let inner = error.into_inner();
        JsonError { field, line: inner.line(), problem: without_values(&inner) }
    })?;
    reader.end().map_err(|error| JsonError {
        field: WHOLE.to_owned(),
        line: error.line(),
        problem: "something follows the document".to_owned(),
    })?;
    Ok(parsed)
}

const WHOLE: &str = "the document";

/// A path as `serde` writes it. The name of an unknown field is part of it, and helps where it is a typing error; a
/// name longer than any that this project uses may be a misplaced key.
fn without_long_names(path: &str) -> String {
    const LONGEST_NAME: usize = 24;
    let short = |name| if str::len(name) > LONGEST_NAME { "(unknown field)" } else { name };
    match path {
        // Nothing was entered yet, or the library cannot tell.
        "." | "?" => WHOLE.to_owned(),
        path => path.split('.').map(short).collect::<Vec<_>>().join("."),
    }
}

/// What `serde` says went wrong, without what it found. Its messages have the form `…, expected …`, where the first
/// part repeats the input and the second comes from the program.
fn without_values(error: &serde_json::Error) -> String {
    const REPEAT_INPUT: [&str; 4] = ["invalid type:", "invalid value:", "invalid length", "unknown "];
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let repeats_input = REPEAT_INPUT.iter().any(|start| message.starts_with(start));
    match message.rsplit_once("expected ") {
        // The name of a type means nothing to whoever wrote the document.
        Some((_, expected)) if repeats_input && expected.starts_with("struct ") => {
            "expected an object".to_owned()
        }
        Some((_, expected)) if repeats_input => format!("expected {expected}"),
        None if repeats_input => "unexpected".to_owned(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value, json};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        any: Map<String, Value>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        #[serde(default)]
        number: u64,
    }

    fn read(json: &str) -> Result<Outer, String> {
        parse(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_well_formed_is_read_as_it_stands() {
        let text = r#"{"name":"\u00e9","inner":{"number":18446744073709551615,"else":[1.5,null]},
            "list":[{"number":1},{}],"any":{"a":[{"b":1},{"b":2}],"\u0062":-1,"c":1e3}}"#;
        let read = read(text).unwrap();
        assert_eq!((read.name.as_str(), read.inner), ("\u{e9}", Some(Inner { number: u64::MAX })));
        assert_eq!(read.list, [Inner { number: 1 }, Inner { number: 0 }]);
        assert_eq!(Value::Object(read.any), json!({"a": [{"b": 1}, {"b": 2}], "b": -1, "c": 1000.0}));
        assert_eq!(parse::<Outer>(br#"{"name":"x","inner":null}"#).unwrap().inner, None);
    }

    #[test]
    fn a_list_is_no_object() {
        for (text, place) in [
            (r#"["x"]"#, "the document"),
            (r#"{"name":"x","inner":[1]}"#, "inner"),
            (r#"{"name":"x","inner":[]}"#, "inner"),
            (r#"{"name":"x","list":[[1]]}"#, "list[0]"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("{place}: expected an object (")), "{text}: {error}");
        }
    }

    #[test]
    fn in_a_part_of_a_document_a_list_is_no_object_either() {
        let whole = json!({"list": [["x"]], "object": {"name": "x", "inner": {"number": 1}}, "inside": {"name": "x", "inner": [1]}});
        let read = read_part::<Outer>(&whole["object"]).unwrap();
        assert_eq!((read.name.as_str(), read.inner), ("x", Some(Inner { number: 1 })));
        assert!(serde_json::from_value::<Outer>(whole["inside"].clone()).is_ok(), "otherwise it is one");
        for part in ["list", "inside"] {
            assert_eq!(read_part::<Outer>(&whole[part]), None, "{part}");
            assert_eq!(read_part::<Outer>(whole[part].clone()), None, "{part}");
        }
        assert!(
            read_part::<Vec<Inner>>(json!([[1]])).is_none() && read_part::<Vec<Inner>>(json!([{}])).is_some()
        );
    }

    #[test]
    fn a_name_stands_once_in_an_object_at_every_level_and_is_not_repeated_in_the_error() {
        let secret = "ab".repeat(32);
        for text in [
            r#"{"name":"x","name":"x"}"#.to_owned(),
            r#"{"name":"x","n\u0061me":"y"}"#.to_owned(),
            r#"{"name":"x","any":{"a":1,"a":1}}"#.to_owned(),
            r#"{"name":"x","any":{"a":[{"b":{"c":1,"\u0063":2}}]}}"#.to_owned(),
            r#"{"name":"x","inner":{"else":{"a":1,"a":2}}}"#.to_owned(),
            r#"{"name":"x","inner":{"else":1,"else":2}}"#.to_owned(),
            format!(r#"{{"name":"x","any":{{"{secret}":1,"{secret}":2}}}}"#),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains("duplicate field") && !error.contains(&secret), "{text}: {error}");
        }
    }
}
