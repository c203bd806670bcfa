//! The document: read whole, within bounds, and followed by references that stay inside it.
//!
//! References let a short document say the same thing again and again: a million paths can be one item, and each of its methods the same
//! parameters. So what is looked at is counted over all of it, and beyond a bound nothing more is.

use core::cell::Cell;

use obol_secret::json::{self, Bounds};
use serde_json::{Map, Value};

use super::yaml;

/// How much a document may hold. The largest that are known have under a million values.
const BOUNDS: Bounds = Bounds { values: 2_000_000, depth: 100 };
/// The most references in a row.
const MAX_REFERENCES: usize = 16;
/// The longest of them, in bytes, and how many of these count as much as looking at one part.
const MAX_REFERENCE_BYTES: usize = 4_096;
const REFERENCE_BYTES: usize = 64;
/// The most parts that are looked at, the same one each time that it is. The largest documents that are known need a tenth.
pub(super) const MAX_LOOKS: usize = 4_000_000;
/// What one that is kept for the file counts.
const KEPT: usize = 16;

/// A document of OpenAPI 3.0 or 3.1.
#[derive(Debug)]
pub(super) struct Document {
    whole: Value,
    /// How much was looked at.
    looks: Cell<usize>,
}

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
        Ok(Self { whole, looks: Cell::new(0) })
    }

    /// Whether so much more may be looked at; it counts as looked at then.
    fn looks_at(&self, cost: usize) -> bool {
        self.looks.set(self.looks.get().saturating_add(cost));
        !self.is_over()
    }

    /// Whether another name may be kept for the file.
    pub(super) fn keeps_one(&self) -> bool {
        self.looks_at(KEPT)
    }

    /// Whether more was to be looked at than is. What was found then is not all that there is.
    pub(super) fn is_over(&self) -> bool {
        self.looks.get() > MAX_LOOKS
    }

    /// How much was looked at.
    #[cfg(test)]
    pub(super) fn looks(&self) -> usize {
        self.looks.get()
    }

    /// These, as long as more may be looked at.
    pub(super) fn each<'a, T>(
        &'a self,
        parts: impl IntoIterator<Item = T> + 'a,
    ) -> impl Iterator<Item = T> + 'a {
        parts.into_iter().take_while(|_| self.looks_at(1))
    }

    /// A member of the outermost object.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.whole.get(name)
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
            let cost = 1 + reference.len() / REFERENCE_BYTES;
            if reference.len() > MAX_REFERENCE_BYTES || !self.looks_at(cost) {
                return Err("a reference cannot be read");
            }
            let place = reference.strip_prefix('#').ok_or("a reference leads out of the document")?;
            let place = unescaped(place).ok_or("a reference cannot be read")?;
            value = self.whole.pointer(&place).ok_or("a reference leads to nothing")?;
        }
        Err("references lead on and on")
    }

    /// A member that is an object, of one that may be a reference.
    pub(super) fn object<'a>(&'a self, value: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
        self.resolve(value).ok()?.get(name)?.as_object()
    }

    /// Those of a member that is a list, of one that may be a reference.
    pub(super) fn list<'a>(&'a self, value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
        let list = self.resolve(value).ok().and_then(|value| value.get(name)?.as_array());
        self.each(list.map(Vec::as_slice).unwrap_or_default())
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
