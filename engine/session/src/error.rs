//! Why a document was refused. Names the field and what was expected there, and repeats nothing that could be a key.

use core::fmt;

use obol_secret::json::JsonError;

/// Why a session document was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DocumentError {
    /// The document is longer than so many bytes.
    TooLong(usize),
    /// The document says, in the field of this name, that it is of another format than 1.
    Version(&'static str, u64),
    /// A field is missing, unknown, repeated or has the wrong form.
    Json(JsonError),
    /// A field has the right form and the wrong contents.
    Rule {
        /// Where, as in `sessions[3].window`.
        field: String,
        /// What is wrong, without what could be a key.
        problem: String,
    },
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session document is not valid: ")?;
        match self {
            Self::TooLong(limit) => write!(f, "it is longer than {limit} bytes"),
            Self::Version(name, found) => write!(f, "{name} is {found}, this build reads 1"),
            Self::Json(error) => error.fmt(f),
            Self::Rule { field, problem } => write!(f, "{field}: {problem}"),
        }
    }
}

impl core::error::Error for DocumentError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            _ => None,
        }
    }
}

impl From<JsonError> for DocumentError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// So many hex digits in a row may be a key, or half of one that was cut in two.
const KEY_LIKE_DIGITS: usize = 32;

/// Refuses a document. A problem may repeat a name, and a key may stand in its place: long rows of digits are left out.
pub(crate) fn refuse<T>(field: impl Into<String>, problem: impl AsRef<str>) -> Result<T, DocumentError> {
    Err(DocumentError::Rule { field: field.into(), problem: without_keys(problem.as_ref()) })
}

fn without_keys(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for part in message.split_inclusive(|letter: char| !letter.is_ascii_hexdigit()) {
        let digits = part.trim_end_matches(|letter: char| !letter.is_ascii_hexdigit());
        if digits.len() < KEY_LIKE_DIGITS {
            shown.push_str(part);
        } else {
            shown.push_str("(not shown)");
            shown.push_str(part.get(digits.len()..).unwrap_or_default());
        }
    }
    shown
}
