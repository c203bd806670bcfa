//! A resource or an action, made of a call's arguments: `repo/{owner}/{name}`.
//!
//! | in the text | stands for |
//! |---|---|
//! | `{name}` | one argument, as one segment: a text without a slash, a whole number, or `true` and `false` |
//! | `{*name}` | the same, with slashes |
//! | `{a.b}` | what is in an object |
//! | `{a[]}`, `{a[].b}` | each of a list; the token must be good for every one |
//! | `{{`, `}}` | a brace |
//!
//! A reader of JSON that does not tell upper from lower case would take another member for the argument than this one does.
//! So where a name stands twice but for its case, the call is refused.

use std::collections::BTreeMap;

use obol_verify::Denial;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::fold::same_but_for_case;

/// The most that one list of a call may name.
const MAX_EACH: usize = 64;

/// A text with places for arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct TextTemplate(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Argument { path: Vec<Step>, slashes: bool },
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    each: bool,
}

impl TryFrom<String> for TextTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?}: {why}");
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut signs = text.chars().peekable();
        while let Some(sign) = signs.next() {
            match sign {
                '{' | '}' if signs.next_if_eq(&sign).is_some() => plain.push(sign),
                '}' => return Err(wrong("a brace that nothing opens; write }} for one")),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match signs.next() {
                            Some('}') => break,
                            Some(sign) => name.push(sign),
                            None => return Err(wrong("a brace that nothing closes; write {{ for one")),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(core::mem::take(&mut plain)));
                    }
                    parts.push(
                        argument(&name).ok_or_else(|| {
                            wrong("an argument is {name}, {*name}, {object.name} or {list[]}")
                        })?,
                    );
                }
                sign => plain.push(sign),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let template = Self(parts);
        if template.lists() > 1 {
            return Err(wrong("more than one list"));
        }
        Ok(template)
    }
}

fn argument(name: &str) -> Option<Part> {
    let (name, slashes) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
    let step = |step: &str| {
        let (name, each) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        let sound = !name.is_empty() && !name.contains(['{', '[', ']', '*', ' ']);
        sound.then(|| Step { name: name.to_owned(), each })
    };
    let path = name.split('.').map(step).collect::<Option<Vec<_>>>()?;
    Some(Part::Argument { path, slashes })
}

impl TextTemplate {
    fn lists(&self) -> usize {
        let steps = self.0.iter().filter_map(|part| match part {
            Part::Argument { path, .. } => Some(path.iter().filter(|step| step.each).count()),
            Part::Text(_) => None,
        });
        steps.sum()
    }

    /// Whether it makes as many texts as a list has elements.
    pub fn is_of_each(&self) -> bool {
        self.lists() > 0
    }

    /// The one text of these arguments; what is absent is taken from `default`.
    ///
    /// # Errors
    ///
    /// The denial that says which argument makes no text.
    pub fn text(
        &self,
        arguments: &Map<String, Value>,
        default: &BTreeMap<String, String>,
    ) -> Result<String, Denial> {
        let mut texts = self.texts(arguments, default)?;
        texts.pop().ok_or_else(|| Denial::malformed_request("the arguments name nothing"))
    }

    /// The texts of these arguments: one, or one for each of a list, and never none.
    ///
    /// # Errors
    ///
    /// As [`text`](Self::text).
    pub fn texts(
        &self,
        arguments: &Map<String, Value>,
        default: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Denial> {
        let mut texts = vec![String::new()];
        for part in &self.0 {
            let ends = match part {
                Part::Text(text) => vec![text.clone()],
                Part::Argument { path, slashes } => argument_texts(arguments, path, *slashes, default)?,
            };
            texts =
                texts.iter().flat_map(|text| ends.iter().map(move |end| format!("{text}{end}"))).collect();
        }
        Ok(texts)
    }
}

fn argument_texts(
    arguments: &Map<String, Value>,
    path: &[Step],
    slashes: bool,
    default: &BTreeMap<String, String>,
) -> Result<Vec<String>, Denial> {
    let shown = path.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(".");
    let wrong = |why: &str| Denial::malformed_request(format!("the argument `{shown}` {why}"));
    let (first, rest) = path.split_first().ok_or_else(|| wrong("has no name"))?;
    let mut found = match member(arguments, &first.name).map_err(&wrong)? {
        None => match default.get(&shown) {
            Some(text) => return Ok(vec![text.clone()]),
            None => return Err(wrong("is missing")),
        },
        Some(value) => each(value, first.each).ok_or_else(|| wrong("is not a list of at most 64"))?,
    };
    for step in rest {
        let mut next = Vec::new();
        for value in found {
            let inside = value.as_object().ok_or_else(|| wrong("is not in an object"))?;
            let value = match (member(inside, &step.name).map_err(&wrong)?, default.get(&shown)) {
                (Some(value), _) => value,
                (None, Some(text)) if !path.iter().any(|step| step.each) => return Ok(vec![text.clone()]),
                (None, _) => return Err(wrong("is missing")),
            };
            next.extend(each(value, step.each).ok_or_else(|| wrong("is not a list of at most 64"))?);
        }
        found = next;
    }
    if found.is_empty() {
        return Err(wrong("names nothing"));
    }
    found.into_iter().map(|value| segment(value, slashes).map_err(wrong)).collect()
}

/// A member, if no other one could be taken for it. Null counts as absent.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Value>, &'static str> {
    if object.keys().any(|own| own != name && same_but_for_case(own, name)) {
        return Err("stands there in another case");
    }
    Ok(object.get(name).filter(|value| !value.is_null()))
}

fn each(value: &Value, each: bool) -> Option<Vec<&Value>> {
    if !each {
        return Some(vec![value]);
    }
    value.as_array().filter(|list| list.len() <= MAX_EACH).map(|list| list.iter().collect())
}

fn segment(value: &Value, slashes: bool) -> Result<String, &'static str> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
        _ => return Err("is neither a text nor a whole number"),
    };
    match text.contains('/') && !slashes {
        true => Err("has a slash"),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value where it is used")]
    fn made(template: &str, arguments: Value) -> Result<Vec<String>, String> {
        let template = TextTemplate::try_from(template.to_owned())?;
        template
            .texts(arguments.as_object().unwrap(), &BTreeMap::new())
            .map_err(|denial| denial.detail.into_owned())
    }

    #[test]
    fn arguments_stand_in_their_places() {
        let arguments = json!({"owner": "a", "n": 7, "yes": true, "path": "/x/y", "in": {"side": "b"},
                               "list": [{"p": "1/2"}, {"p": "3"}]});
        let one = |text: &str| Ok(vec![text.to_owned()]);
        assert_eq!(made("repo/{owner}/{n}", arguments.clone()), one("repo/a/7"));
        assert_eq!(made("{*path}", arguments.clone()), one("/x/y"));
        assert_eq!(made("{{{in.side}}}-{yes}", arguments.clone()), one("{b}-true"));
        assert_eq!(made("plain", arguments.clone()), one("plain"));
        assert_eq!(made("d/{*list[].p}", arguments), Ok(vec!["d/1/2".to_owned(), "d/3".to_owned()]));
    }

    #[test]
    fn what_is_not_one_name_is_refused() {
        for (template, arguments, why) in [
            ("{a}", json!({}), "missing"),
            ("{a}", json!({"a": null}), "missing"),
            ("{a}", json!({"a": "x/y"}), "slash"),
            ("{a}", json!({"a": 1.5}), "whole number"),
            ("{a}", json!({"a": ["x"]}), "whole number"),
            ("{a}", json!({"a": "x", "A": "y"}), "another case"),
            ("{mask}", json!({"mask": "x", "ma\u{17f}\u{212a}": "y"}), "another case"),
            ("{a.b}", json!({"a": "x"}), "not in an object"),
            ("{a.b}", json!({"a": {"b": "x", "B": "y"}}), "another case"),
            ("{a[]}", json!({"a": []}), "names nothing"),
            ("{a[]}", json!({"a": "x"}), "list"),
            ("{a[]}", json!({"a": vec!["x"; 65]}), "64"),
        ] {
            let said = made(template, arguments.clone()).unwrap_err();
            assert!(said.contains(why), "{template} of {arguments}: {said}");
        }
    }

    #[test]
    fn templates_that_make_no_sense_are_not_read() {
        for template in
            ["{", "}", "{a", "a}", "{}", "{a[]}{b[]}", "{a..b}", "{[]}", "{a b}", "{a{b}", "{a[0]}"]
        {
            assert!(TextTemplate::try_from(template.to_owned()).is_err(), "{template}");
        }
    }
}
