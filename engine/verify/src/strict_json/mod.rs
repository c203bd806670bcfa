//! Reading JSON that may hold secrets: errors name the field and what was expected there, and never repeat what was
//! found. A key in the wrong place would otherwise end up in a log, or in an answer.

use core::fmt;
use serde::Deserialize;

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

impl std::error::Error for JsonError {}

/// Reads one document and nothing behind it. What is unknown is refused where `T` says so.
pub fn parse<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
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
        Some((_, expected)) if repeats_input => format!("expected {expected}"),
        None if repeats_input => "unexpected".to_owned(),
        _ => message.to_owned(),
    }
}
