//! The document: read whole, within bounds, and followed by references that stay inside it.

use obol_secret::json::{self, Bounds};
use serde_json::{Map, Value};

use super::yaml;

/// How much a document may hold. The largest that are known have under a million values.
const BOUNDS: Bounds = Bounds { values: 2_000_000, depth: 100 };
/// The most references in a row.
const MAX_REFERENCES: usize = 16;

/// A document of OpenAPI 3.0 or 3.1.
#[derive(Debug)]
pub(super) struct Document(Value);

impl Document {
    /// Reads JSON, or YAML.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let whole: Value = match text.trim_start().starts_with('{') {
            true => json::parse_within(text.as_bytes(), BOUNDS).map_err(|error| error.to_string())?,
            false => yaml::read(text, BOUNDS)?,
        };
        let version = whole.get("openapi").and_then(Value::as_str).unwrap_or_default();
        let is_of = |known: &str| {
            version.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !is_of("3.0") && !is_of("3.1") {
            return Err(
                "it is not a document of OpenAPI 3.0 or 3.1; convert one of Swagger 2.0 first".to_owned()
            );
        }
        Ok(Self(whole))
    }

    /// A member of the outermost object.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// What an object is, where a reference may stand in its place.
    ///
    /// # Errors
    ///
    /// The reference leads out of the document, to nothing, or round in a circle.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> Result<&'a Value, &'static str> {
        let mut value = value;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            let place = reference.strip_prefix('#').ok_or("a reference leads out of the document")?;
            let place = unescaped(place).ok_or("a reference cannot be read")?;
            value = self.0.pointer(&place).ok_or("a reference leads to nothing")?;
        }
        Err("references lead on and on")
    }

    /// A member that is an object, of one that may be a reference.
    pub(super) fn object<'a>(&'a self, value: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
        self.resolve(value).ok()?.get(name)?.as_object()
    }

    /// A member that is a list, of one that may be a reference.
    pub(super) fn list<'a>(&'a self, value: &'a Value, name: &str) -> &'a [Value] {
        let list = self.resolve(value).ok().and_then(|value| value.get(name)?.as_array());
        list.map(Vec::as_slice).unwrap_or_default()
    }
}

/// A member that is a text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// A JSON pointer as it stands in a fragment.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
