//! YAML, as much of it as documents of APIs are written in.
//!
//! It is read to the letter, as JSON is here: a name stands once in an object, and what an alias repeats counts like what is
//! written. Numbers stay texts; nothing that is made of a document counts with them. There are no merge keys, no tags of
//! somebody's own, and no second document.

use std::collections::BTreeMap;

use obol_secret::json::Bounds;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The most bytes of texts, counted again wherever an alias repeats them.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// Reads one document.
///
/// # Errors
///
/// What is wrong with it, and in which line.
pub(super) fn read(text: &str, bounds: Bounds) -> Result<Value, String> {
    let mut reader =
        Reader { bounds, values: 0, bytes: 0, open: Vec::new(), anchors: BTreeMap::new(), whole: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("it is no YAML: {error}"))?;
        reader.take(event).map_err(|why| format!("line {}: {why}", span.start.line()))?;
    }
    reader.whole.ok_or_else(|| "there is nothing in it".to_owned())
}

struct Reader {
    bounds: Bounds,
    values: usize,
    bytes: usize,
    open: Vec<Open>,
    /// What an alias may repeat, with its values and bytes.
    anchors: BTreeMap<usize, (Value, usize, usize)>,
    whole: Option<Value>,
}

/// A list or an object whose end has not come.
struct Open {
    anchor: usize,
    /// What had been counted before it.
    before: (usize, usize),
    kind: Kind,
}

enum Kind {
    List(Vec<Value>),
    Object(Map<String, Value>, Option<String>),
}

impl Reader {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) if self.whole.is_some() => Err("a second document begins".to_owned()),
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), &["map"])?;
                self.begin(anchor, Kind::Object(Map::new(), None))
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), &["seq"])?;
                self.begin(anchor, Kind::List(Vec::new()))
            }
            Event::MappingEnd | Event::SequenceEnd => self.end(),
            Event::Alias(anchor) => {
                let known =
                    self.anchors.get(&anchor).ok_or("an alias of nothing, or of what it stands in")?;
                let (value, values, bytes) = known.clone();
                self.count(values, bytes)?;
                self.put(value)
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), &["str", "null", "bool", "int", "float"])?;
                self.count(1, text.len())?;
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                let key = self.awaits_name();
                let value = if is_text || key { Value::String(text.into_owned()) } else { plain(&text) };
                let bytes = value.as_str().map_or(0, str::len);
                self.remember(anchor, &value, 1, bytes)?;
                self.put(value)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, kind: Kind) -> Result<(), String> {
        if self.awaits_name() {
            return Err("a name in an object is a text".to_owned());
        }
        if self.open.len() >= self.bounds.depth {
            return Err("more objects and lists inside each other than are read".to_owned());
        }
        let before = (self.values, self.bytes);
        self.count(1, 0)?;
        self.open.push(Open { anchor, before, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { anchor, before, kind }) = self.open.pop() else {
            return Err("an end of nothing".to_owned());
        };
        let value = match kind {
            Kind::List(items) => Value::Array(items),
            Kind::Object(members, _) => Value::Object(members),
        };
        self.remember(anchor, &value, self.values - before.0, self.bytes - before.1)?;
        self.put(value)
    }

    /// Keeps what has an anchor. The copy counts, too.
    fn remember(&mut self, anchor: usize, value: &Value, values: usize, bytes: usize) -> Result<(), String> {
        if anchor != 0 {
            self.count(values, bytes)?;
            self.anchors.insert(anchor, (value.clone(), values, bytes));
        }
        Ok(())
    }

    fn count(&mut self, values: usize, bytes: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > self.bounds.values || self.bytes > MAX_TEXT_BYTES {
            return Err("there is more in it than is read, with what aliases repeat".to_owned());
        }
        Ok(())
    }

    fn awaits_name(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Object(_, None), .. }))
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.whole = Some(value),
            Some(Kind::List(items)) => items.push(value),
            Some(Kind::Object(members, name)) => match name.take() {
                Some(name) => drop(members.insert(name, value)),
                None => *name = Some(name_of(value, members)?),
            },
        }
        Ok(())
    }
}

fn name_of(value: Value, members: &Map<String, Value>) -> Result<String, String> {
    let Value::String(name) = value else { return Err("a name in an object is a text".to_owned()) };
    if name == "<<" {
        return Err("merge keys (<<) are not read; write out what they stand for".to_owned());
    }
    match members.contains_key(&name) {
        true => Err("a name stands there twice".to_owned()),
        false => Ok(name),
    }
}

/// A scalar without quotes, by the core schema, but for numbers.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text => Value::String(text.to_owned()),
    }
}

fn check_tag(tag: Option<&saphyr_parser::Tag>, known: &[&str]) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str())) => {
            Err("a tag that is none of YAML's own".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BOUNDS: Bounds = Bounds { values: 1_000, depth: 10 };

    #[test]
    fn it_is_read_as_it_stands() {
        let text = "openapi: 3.1.0\n# a note\non: [yes, \"true\", true, ~, 0x1]\n'200':\n  folded: >-\n    a\n    b\n  \
                    tagged: !!str null\nbase: &base {a: b}\nagain: *base\n";
        let expected = json!({
            "openapi": "3.1.0", "on": ["yes", "true", true, null, "0x1"], "200": {"folded": "a b", "tagged": "null"},
            "base": {"a": "b"}, "again": {"a": "b"}
        });
        assert_eq!(read(text, BOUNDS), Ok(expected));
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_without_end_is_refused() {
        let bomb = (1..9).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
            let before = level - 1;
            format!("{text}a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "))
        });
        let (deep, long) =
            ("[".repeat(11), format!("a: &a \"{}\"\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(80)));
        for (text, why) in [
            ("a: 1\na: 2", "twice"),
            ("a: 1\n\"a\": 2", "twice"),
            ("a: &a {b: *a}", "line 1: "),
            ("a: *b", "line 1"),
            ("{a: 1}: 2", "a text"),
            ("a: {<<: {b: c}}", "merge"),
            ("a: !own b", "tag"),
            ("a: 1\n---\nb: 2", "second"),
            ("", "nothing"),
            ("a: [", "no YAML"),
            (bomb.as_str(), "more in it"),
            (long.as_str(), "more in it"),
            (deep.as_str(), "inside each other"),
        ] {
            let error = read(text, BOUNDS).unwrap_err();
            assert!(error.contains(why), "{}: {error}", text.get(..40).unwrap_or(text));
        }
    }
}
