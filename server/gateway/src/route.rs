//! Which requests are calls of which tool: the routes of an API.
//!
//! ```toml
//! [[route]]
//! method = "POST"
//! path = "/repos/{owner}/{repo}/issues"
//! tool = "github_issues"
//! action = "write"
//! resource = "repo/{owner}/{repo}"
//! ```
//!
//! In a path, `{name}` is one segment that is not empty, `*` any one, and `{*name}` or `**` at the end any number. The first route
//! that a request fits is the one that counts.

use std::collections::BTreeMap;

use http::Method;
use obol_resource::ToolCall;
use obol_resource::template::TextTemplate;
use obol_verify::Denial;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::target::Target;

/// In a route's `query`: any parameters.
const ANY: &str = "*";
/// In templates: what is in the query, and what is in the body.
const QUERY: &str = "query";
const BODY: &str = "body";

/// What the body of a request is to the gateway.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Body {
    /// A JSON object, the arguments of the call, or nothing. It is read, checked, and sent on written anew.
    #[default]
    Json,
    /// Anything, which is passed on unread. Tokens that limit arguments are refused.
    Stream,
    /// Nothing.
    None,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Methods {
    One(String),
    Several(Vec<String>),
}

/// One route, as a file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiRoute {
    method: Methods,
    path: Pattern,
    tool: String,
    #[serde(default)]
    action: Option<TextTemplate>,
    #[serde(default)]
    resource: Option<TextTemplate>,
    /// What a template's argument is taken for that is absent.
    #[serde(default)]
    default: BTreeMap<String, String>,
    /// Parameters that the query may have.
    #[serde(default)]
    query: Vec<String>,
    #[serde(default)]
    body: Body,
    /// Whether the request may open a WebSocket.
    #[serde(default)]
    websocket: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    One(Option<String>),
    Rest(Option<String>),
}

/// A path with places.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Vec<Part>);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?}: {why}");
        let rest = text.strip_prefix('/').ok_or_else(|| wrong("a path begins with a slash"))?;
        let mut parts = Vec::new();
        for segment in rest.split('/') {
            parts.push(part(segment).ok_or_else(|| {
                wrong("a segment is text, {name}, {*name}, * or **; `query` and `body` name no segment")
            })?);
        }
        let inner = parts.len().saturating_sub(1);
        if parts.iter().take(inner).any(|part| matches!(part, Part::Rest(_))) {
            return Err(wrong("{*name} and ** stand at the end"));
        }
        let mut names: Vec<_> = parts.iter().filter_map(Part::name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one.eq_ignore_ascii_case(other))) {
            return Err(wrong("a name stands there twice"));
        }
        Ok(Self(parts))
    }
}

fn part(segment: &str) -> Option<Part> {
    let name = |name: &str| {
        let is_sound =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_free = !name.eq_ignore_ascii_case(QUERY) && !name.eq_ignore_ascii_case(BODY);
        (is_sound && is_free).then(|| name.to_owned())
    };
    match segment {
        "*" => return Some(Part::One(None)),
        "**" => return Some(Part::Rest(None)),
        _ => {}
    }
    if let Some(inside) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return match inside.strip_prefix('*') {
            Some(rest) => name(rest).map(|name| Part::Rest(Some(name))),
            None => name(inside).map(|name| Part::One(Some(name))),
        };
    }
    (!segment.contains(['{', '}', '*', '%', '?', '#'])).then(|| Part::Text(segment.to_owned()))
}

impl Part {
    fn name(&self) -> Option<&str> {
        match self {
            Self::One(name) | Self::Rest(name) => name.as_deref(),
            Self::Text(_) => None,
        }
    }
}

impl Pattern {
    /// What stands in its places, if a path fits.
    fn read(&self, segments: &[String]) -> Option<Map<String, Value>> {
        let (mut found, mut left) = (Map::new(), segments);
        let mut put = |name: &Option<String>, text: String| {
            if let Some(name) = name {
                found.insert(name.clone(), Value::String(text));
            }
        };
        for part in &self.0 {
            if let Part::Rest(name) = part {
                if name.is_some() && left.iter().all(String::is_empty) {
                    return None;
                }
                put(name, left.join("/"));
                left = &[];
                continue;
            }
            let (segment, rest) = left.split_first()?;
            match part {
                Part::Text(text) if text == segment => {}
                Part::One(name) if !segment.is_empty() => put(name, segment.clone()),
                _ => return None,
            }
            left = rest;
        }
        left.is_empty().then_some(found)
    }
}

impl ApiRoute {
    /// What is wrong with what a file says, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("the route of {:?}: {why}", self.tool));
        if self.tool.is_empty()
            || self.tool.len() > 256
            || !self.tool.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return wrong("`tool` has 1 to 256 visible characters");
        }
        let is_method = |method: &String| {
            let is_refused = matches!(method.as_str(), "CONNECT" | "TRACE");
            !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()) && !is_refused
        };
        let methods = self.methods();
        if methods.is_empty() || !methods.iter().all(is_method) {
            return wrong("`method` is GET, POST and the like, one or a list");
        }
        let is_of_each =
            |template: &Option<TextTemplate>| template.as_ref().is_some_and(TextTemplate::is_of_each);
        if is_of_each(&self.action) || is_of_each(&self.resource) {
            return wrong("action and resource are one each, and cannot come from each of a list");
        }
        if self.websocket && (self.body != Body::None || methods != ["GET"]) {
            return wrong("a WebSocket is opened by GET, with body = \"none\"");
        }
        Ok(())
    }

    fn methods(&self) -> &[String] {
        match &self.method {
            Methods::One(method) => core::slice::from_ref(method),
            Methods::Several(methods) => methods,
        }
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods().iter().any(|named| named == method.as_str())
    }

    pub(crate) fn tool(&self) -> &str {
        &self.tool
    }

    pub(crate) fn body(&self) -> Body {
        self.body
    }

    pub(crate) fn opens_websocket(&self) -> bool {
        self.websocket
    }

    /// Whether a query may have these parameters.
    pub(crate) fn allows_query(&self, target: &Target) -> bool {
        let is_any = self.query.iter().any(|name| name == ANY);
        is_any || target.names().all(|name| self.query.iter().any(|allowed| allowed == name))
    }

    /// The whole call, with what stands in path, query and body.
    pub(crate) fn call(
        &self,
        mut found: Map<String, Value>,
        target: &Target,
        body: Option<&Map<String, Value>>,
        call: ToolCall,
    ) -> Result<ToolCall, Denial> {
        if self.action.is_none() && self.resource.is_none() {
            return Ok(call);
        }
        found.insert(QUERY.to_owned(), Value::Object(target.parameters()));
        if let Some(body) = body {
            found.insert(BODY.to_owned(), Value::Object(body.clone()));
        }
        let text = |template: &TextTemplate| template.text(&found, &self.default);
        let call = match &self.action {
            Some(action) => call.action(text(action)?),
            None => call,
        };
        Ok(match &self.resource {
            Some(resource) => call.resource(text(resource)?),
            None => call,
        })
    }
}

/// What a request is, or is not, among routes.
#[derive(Debug)]
pub(crate) enum Found {
    /// A call: the number of its route, and what stands in its path.
    Route(usize, Map<String, Value>),
    /// Its path is there, for other methods.
    OtherMethod,
    Nothing,
}

/// Looks a request up.
pub(crate) fn find(routes: &[ApiRoute], method: &Method, target: &Target) -> Found {
    let mut seen = Found::Nothing;
    for (number, route) in routes.iter().enumerate() {
        match route.path.read(target.segments()) {
            Some(found) if route.takes(method) => return Found::Route(number, found),
            Some(_) => seen = Found::OtherMethod,
            None => {}
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn routes(json: Value) -> Vec<ApiRoute> {
        serde_json::from_value(json).unwrap()
    }

    fn target(text: &str) -> Target {
        Target::read(&text.parse().unwrap()).unwrap()
    }

    fn found(routes: &[ApiRoute], method: &str, path: &str) -> Option<(usize, Value)> {
        match find(routes, &method.parse().unwrap(), &target(path)) {
            Found::Route(number, found) => Some((number, Value::Object(found))),
            Found::OtherMethod | Found::Nothing => None,
        }
    }

    #[test]
    fn the_first_route_that_fits_counts() {
        let routes = routes(json!([
            {"method": "GET", "path": "/repos/{owner}/{repo}/issues", "tool": "a"},
            {"method": ["GET", "HEAD"], "path": "/repos/{owner}/{repo}/contents/{*path}", "tool": "b"},
            {"method": "GET", "path": "/user", "tool": "c"},
            {"method": "GET", "path": "/repos/*/x/**", "tool": "d"},
        ]));
        assert_eq!(found(&routes, "GET", "/repos/a/b/issues"), Some((0, json!({"owner": "a", "repo": "b"}))));
        let contents = json!({"owner": "a", "repo": "b", "path": "c/d"});
        assert_eq!(found(&routes, "HEAD", "/repos/a/b/contents/c/d"), Some((1, contents)));
        assert_eq!(found(&routes, "GET", "/repos/a/x"), Some((3, json!({}))));
        for (method, path) in [
            ("POST", "/repos/a/b/issues"),
            ("get", "/user"),
            ("GET", "/User"),
            ("GET", "/user/"),
            ("GET", "/"),
            ("GET", "/repos/a/b/contents"),
            ("GET", "/repos/a/b/contents/"),
            ("GET", "/repos/a/b/issues/1"),
        ] {
            assert!(found(&routes, method, path).is_none(), "{method} {path}");
        }
        assert!(matches!(find(&routes, &Method::POST, &target("/user")), Found::OtherMethod));
        assert!(matches!(find(&routes, &Method::POST, &target("/users")), Found::Nothing));
    }

    #[test]
    fn a_call_is_made_of_path_query_and_body() {
        let routes = routes(json!([
            {"method": "POST", "path": "/c/{id}", "tool": "t", "action": "{body.how}", "resource": "c/{id}/{query.in}",
             "default": {"body.how": "read"}, "query": ["in"]}
        ]));
        let route = &routes[0];
        let call = |text: &str, body: Value| {
            let target = target(text);
            let Found::Route(_, found) = find(&routes, &Method::POST, &target) else { panic!("{text}") };
            let call = route.call(found, &target, body.as_object(), ToolCall::new("t"));
            call.map(|call| format!("{:?} {:?}", call.requested_action(), call.requested_resource()))
                .map_err(|denial| denial.detail.into_owned())
        };
        assert_eq!(call("/c/7?in=x", json!({"how": "write"})).unwrap(), r#"Some("write") Some("c/7/x")"#);
        assert_eq!(call("/c/7?in=x", json!({})).unwrap(), r#"Some("read") Some("c/7/x")"#);
        assert!(call("/c/7", json!({})).unwrap_err().contains("query.in"));
        assert!(call("/c/7?in=x&in=y", json!({})).is_err());
        assert!(call("/c/7?in=x%2Fy", json!({})).unwrap_err().contains("slash"));
        assert!(route.allows_query(&target("/c/7?in=x")) && !route.allows_query(&target("/c/7?In=x")));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (wrong, why) in [
            (json!({"method": "get", "path": "/", "tool": "a"}), "method"),
            (json!({"method": "TRACE", "path": "/", "tool": "a"}), "method"),
            (json!({"method": [], "path": "/", "tool": "a"}), "method"),
            (json!({"method": "GET", "path": "/", "tool": "a b"}), "tool"),
            (json!({"method": "GET", "path": "/", "tool": "a", "resource": "{body.x[]}"}), "one each"),
            (json!({"method": "GET", "path": "/", "tool": "a", "websocket": true}), "none"),
        ] {
            let route: ApiRoute = serde_json::from_value(wrong.clone()).unwrap();
            let said = route.check().unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
        for path in ["a", "/{a", "/{}", "/{a}/{A}", "/**/a", "/{*a}/b", "/a*", "/{query}", "/%61"] {
            assert!(Pattern::try_from(path.to_owned()).is_err(), "{path}");
        }
    }
}
