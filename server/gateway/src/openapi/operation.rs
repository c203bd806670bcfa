//! One operation of a document as a route.

use std::collections::BTreeSet;

use http::HeaderName;
use serde_json::{Map, Value};

use super::document::{Document, text};
use super::notes::shown;
use super::path::Path;
use super::security::Credential;
use super::toml::{line, list, quoted};
use super::{Actions, RuleWishes};
use crate::headers;
use crate::route::Body;

/// The most parameters of one operation that are looked at.
const MAX_PARAMETERS: usize = 512;
/// The longest name of one that a query may have, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// The most kinds of body that are told.
const MAX_KINDS: usize = 120;

/// One route, and what it does not cover.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: Path,
    pub(super) method: &'static str,
    pub(super) tool: String,
    action: String,
    query: BTreeSet<String>,
    pub(super) headers: Vec<HeaderName>,
    body: Body,
    pub(super) notes: Vec<String>,
}

impl Route {
    /// Of an operation, and the path that it stands at.
    pub(super) fn read(
        document: &Document,
        (item, operation): (&Value, &Value),
        (path, method): (Path, &'static str),
        wishes: &RuleWishes,
        credential: &Credential,
    ) -> Self {
        let tool = tool(operation, &path, wishes);
        let (query, headers) = (BTreeSet::new(), Vec::new());
        let (body, action, notes) = (Body::None, action(method).to_owned(), Vec::new());
        let mut route = Self { path, method, tool, action, query, headers, body, notes };
        if wishes.actions == Actions::Operation {
            route.name_action(operation);
        }
        route.read_parameters(document, item, operation, credential);
        if let Some(body) = operation.get("requestBody") {
            route.read_body(document, body);
        }
        route
    }

    fn name_action(&mut self, operation: &Value) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte);
        let id = text(operation, "operationId")
            .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(is_plain));
        match id {
            Some(id) => id.clone_into(&mut self.action),
            None => self.notes.push(format!("its operationId as an action: it is \"{}\"", self.action)),
        }
    }

    fn read_parameters(
        &mut self,
        document: &Document,
        item: &Value,
        operation: &Value,
        credential: &Credential,
    ) {
        // Those of the operation stand in place of those of its path.
        let all = document.list(operation, "parameters").chain(document.list(item, "parameters"));
        let mut known = BTreeSet::new();
        for (number, parameter) in all.enumerate() {
            if number >= MAX_PARAMETERS {
                self.notes.push("more parameters than are looked at".to_owned());
                return;
            }
            let parameter = match document.resolve(parameter) {
                Ok(parameter) => parameter,
                Err(why) => {
                    self.notes.push(format!("a parameter: {why}"));
                    continue;
                }
            };
            let (name, place) =
                (text(parameter, "name").unwrap_or_default(), text(parameter, "in").unwrap_or_default());
            if name.len() > MAX_NAME_BYTES {
                self.notes.push(format!("the parameter \"{}\": its name is too long", shown(name, 60)));
                continue;
            }
            if !known.insert((name, place)) {
                continue;
            }
            match place {
                "query" => self.read_query(document, parameter, name, credential),
                "header" => self.read_header(document, name, credential),
                "path" => {}
                _ => self.notes.push(format!("the parameter {}: cookies are not passed on", shown(name, 60))),
            }
        }
    }

    fn read_query(&mut self, document: &Document, parameter: &Value, name: &str, credential: &Credential) {
        for name in self.names(document, parameter, name) {
            if credential.is_parameter(&name) {
                continue;
            }
            // "*" would let any through.
            match name.is_empty()
                || name == "*"
                || name.len() > MAX_NAME_BYTES
                || name.chars().any(char::is_control)
            {
                true => {
                    self.notes.push(format!("the parameter \"{}\": no query may have it", shown(&name, 60)));
                }
                false if document.keeps_one() => drop(self.query.insert(name)),
                false => return,
            }
        }
    }

    /// The names that one parameter has in a query: an object's members stand there one by one. One that may be an object or something
    /// plain has its own name too.
    fn names(&mut self, document: &Document, parameter: &Value, name: &str) -> Vec<String> {
        let style = text(parameter, "style").unwrap_or("form");
        let is_deep = style == "deepObject";
        let explodes = parameter.get("explode").and_then(Value::as_bool).unwrap_or(style == "form");
        let Some(schema) = parameter.get("schema").filter(|_| is_deep || (style == "form" && explodes))
        else {
            return vec![name.to_owned()];
        };
        let shape = Shape::of(document, schema);
        if !(shape.is_object || is_deep && shape.is_array) {
            return vec![name.to_owned()];
        }
        if shape.is_open || (shape.is_array && is_deep) {
            let shown = shown(name, 60);
            self.notes.push(format!("members of the parameter \"{shown}\" that the document does not name"));
        }
        // What is too long is told, and that much of it is enough.
        let member = |member: &&str| match is_deep {
            true => format!("{name}[{}]", beginning(member)),
            false => beginning(member).to_owned(),
        };
        // In a form a list has the name itself.
        let is_plain = shape.is_plain || (shape.is_array && !is_deep);
        let own = is_plain.then(|| name.to_owned()).into_iter();
        let each = (is_deep && shape.is_array).then(|| format!("{name}[]"));
        own.chain(shape.members.iter().map(member)).chain(each).collect()
    }

    fn read_header(&mut self, document: &Document, name: &str, credential: &Credential) {
        let known: Result<HeaderName, _> = name.parse();
        match known {
            // OpenAPI has other places for these.
            Ok(name) if ["accept", "content-type", "authorization"].contains(&name.as_str()) => {}
            Ok(name) if credential.is_header(&name) || headers::is_usual(&name) => {}
            Ok(name) if headers::check_passed(&name).is_ok() => {
                self.headers.extend(document.keeps_one().then_some(name));
            }
            _ => self.notes.push(format!("the header {}: it is never passed on", shown(name, 60))),
        }
    }

    fn read_body(&mut self, document: &Document, body: &Value) {
        let content = document.resolve(body).ok().and_then(|body| body.get("content")?.as_object());
        let Some(content) = content.filter(|content| !content.is_empty()) else {
            self.body = Body::Stream;
            return self.notes.push("what its body is: the document does not say".to_owned());
        };
        let is_json = |name: &str| {
            let kind = name.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        };
        let json = document.each(content).find(|(name, _)| is_json(name));
        let is_object = json.is_some_and(|(_, media)| {
            media.get("schema").is_none_or(|schema| Shape::of(document, schema).may_be_object)
        });
        self.body = if is_object { Body::Json } else { Body::Stream };
        if is_object && content.len() > 1 {
            let others = document.each(content.keys()).filter(|name| !is_json(name)).take(MAX_KINDS);
            let others: Vec<_> = others.map(|name| shown(name, 40)).collect();
            self.notes.push(format!("a body that is {}", others.join(", ")));
        }
    }

    /// As the file has it.
    pub(super) fn write(&self, text: &mut String) {
        text.push_str("\n[[route]]\n");
        line(text, "method", &quoted(self.method));
        line(text, "path", &quoted(&self.path.pattern()));
        line(text, "tool", &quoted(&self.tool));
        line(text, "action", &quoted(&self.action));
        line(text, "resource", &quoted(&self.path.resource()));
        if !self.query.is_empty() {
            line(text, "query", &list(self.query.iter().map(String::as_str)));
        }
        let body = match self.body {
            Body::Json => "json",
            Body::Stream => "stream",
            Body::None => "none",
        };
        line(text, "body", &quoted(body));
    }
}

fn action(method: &str) -> &'static str {
    if matches!(method, "GET" | "HEAD" | "OPTIONS") { "read" } else { "write" }
}

fn tool(operation: &Value, path: &Path, wishes: &RuleWishes) -> String {
    if let Some(tool) = &wishes.tool {
        return tool.clone();
    }
    let tag = operation.get("tags").and_then(|tags| tags.get(0)?.as_str());
    let named = [tag, path.first_text()].into_iter().flatten().map(plain).find(|name| !name.is_empty());
    let name = named.unwrap_or_else(|| "api".to_owned());
    wishes.prefix.as_ref().map_or(name.clone(), |prefix| format!("{prefix}_{name}"))
}

/// A name of small letters, digits and `_`.
fn plain(text: &str) -> String {
    let signs = text
        .chars()
        .take(64)
        .map(|sign| if sign.is_ascii_alphanumeric() { sign.to_ascii_lowercase() } else { ' ' });
    let signs: String = signs.collect();
    signs.split_whitespace().collect::<Vec<_>>().join("_")
}

/// As much of a name as shows that it is too long, if it is.
fn beginning(name: &str) -> &str {
    name.char_indices().nth(MAX_NAME_BYTES + 1).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

/// What a schema says of the kind of a value, one level deep.
#[derive(Default)]
struct Shape<'a> {
    is_object: bool,
    is_array: bool,
    /// It may be a text, a number or the like.
    is_plain: bool,
    /// It may have other members than those that are named.
    is_open: bool,
    may_be_object: bool,
    members: BTreeSet<&'a str>,
}

impl<'a> Shape<'a> {
    fn of(document: &'a Document, schema: &'a Value) -> Self {
        let Ok(schema) = document.resolve(schema) else {
            return Self { may_be_object: true, ..Self::default() };
        };
        let mut shape = Self::default();
        shape.add(document, schema);
        for several in ["allOf", "anyOf", "oneOf"] {
            let parts = document.list(schema, several).take(MAX_PARAMETERS);
            parts.filter_map(|part| document.resolve(part).ok()).for_each(|part| shape.add(document, part));
        }
        let is_told = shape.is_object || shape.is_array || schema.get("type").is_some();
        shape.may_be_object = shape.is_object || !is_told;
        shape
    }

    fn add(&mut self, document: &'a Document, schema: &'a Value) {
        let is = |wanted: fn(&str) -> bool| match schema.get("type") {
            Some(Value::String(kind)) => wanted(kind),
            Some(Value::Array(kinds)) => document.each(kinds).filter_map(Value::as_str).any(wanted),
            // One of a few values, which are texts or numbers where nothing else is said.
            None => wanted("") && ["enum", "const"].iter().any(|name| schema.get(name).is_some()),
            Some(_) => false,
        };
        let members: Option<&Map<String, Value>> = schema.get("properties").and_then(Value::as_object);
        self.is_array |= is(|kind| kind == "array");
        if is(|kind| kind == "object") || members.is_some() {
            self.is_object = true;
            let more = schema.get("additionalProperties");
            self.is_open |= members.is_none() || more.is_some_and(|more| *more != Value::Bool(false));
            let members = members.into_iter().flatten().take(MAX_PARAMETERS);
            self.members.extend(document.each(members).map(|(name, _)| name.as_str()));
        }
        self.is_plain |= is(|kind| !["object", "array", "null"].contains(&kind));
    }
}
