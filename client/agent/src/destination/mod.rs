//! Where a request may go with a token, and with which: the routes of the session decide, and nothing else does.
//!
//! A URL is looked at before a token is drawn for it. What some server might read otherwise than it was compared here is
//! refused ([`url`]).

mod url;

use core::fmt;

use http::Method;
use obol_ipc::auth::Route;
use obol_ipc::names::{Audience, ToolName};

use self::url::Origin;
pub(crate) use self::url::{Url, is_loopback};
use crate::error::{Code, Error};

/// The most tools that an error names.
const MAX_NAMED: usize = 8;

/// A part of a route's path.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    /// This segment.
    Text(String),
    /// Any one that is not empty.
    One,
    /// Any number.
    Many,
}

/// One route, ready to be compared with.
#[derive(Clone, Debug)]
struct Entry {
    named: Route,
    origin: Origin,
    /// The segments that its paths lie under.
    base: Vec<String>,
    pattern: Option<Vec<Part>>,
    via: Option<Url>,
}

impl Entry {
    fn of(named: Route) -> Result<Self, Error> {
        let base = read_base(named.url.as_deref().unwrap_or(named.audience.as_str()))?;
        let mut segments: Vec<String> = base.segments().into_iter().map(str::to_owned).collect();
        // A slash at the end means nothing.
        segments.pop_if(|last| last.is_empty());
        let pattern = named.path.as_deref().map(parts).transpose()?;
        let via = named.via.as_deref().map(read_base).transpose()?;
        Ok(Self { named, origin: base.origin, base: segments, pattern, via })
    }

    /// Whether a request could be a call of one of its tools.
    fn takes(&self, url: &Url, segments: &[&str], method: &Method) -> bool {
        let lies_under = segments.get(..self.base.len()).is_some_and(|front| front == self.base);
        self.origin == url.origin
            && lies_under
            && self.named.method.as_ref().is_none_or(|named| named == method.as_str())
            && self.pattern.as_ref().is_none_or(|pattern| fits(pattern, segments))
    }

    /// Where such a request is sent: behind the gateway, if there is one.
    fn gated(&self, url: &Url) -> Url {
        let Some(via) = &self.via else { return url.clone() };
        let front = via.path.strip_suffix('/').unwrap_or(&via.path);
        Url { origin: via.origin.clone(), path: format!("{front}{}", url.path), query: url.query.clone() }
    }
}

/// Reads a URL from text as strictly as requests are looked at, into the one form that is sent: for text from elsewhere. The
/// usual parser of [`http::Uri`] is laxer here and stricter there.
///
/// # Errors
///
/// [`Code::InvalidArgument`] says what is wrong with it.
pub fn read_url(text: &str) -> Result<http::Uri, Error> {
    Url::read(text)?.uri()
}

/// A URL that others lie under.
fn read_base(text: &str) -> Result<Url, Error> {
    let url = Url::read(text)?;
    match url.query.is_empty() {
        true => Ok(url),
        false => Err(Error::new(Code::InvalidArgument, "the URL of a route has no query")),
    }
}

fn parts(path: &str) -> Result<Vec<Part>, Error> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let url = Url::read(&format!("https://pattern/{path}"))?;
    let part = |segment: &str| match segment {
        "*" => Part::One,
        "**" => Part::Many,
        text => Part::Text(text.to_owned()),
    };
    Ok(url.segments().into_iter().map(part).collect())
}

/// Whether a path is one of a pattern's. `reached[i]`: the parts so far take the first `i` segments.
fn fits(parts: &[Part], segments: &[&str]) -> bool {
    let mut reached = vec![false; segments.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for part in parts {
        if *part == Part::Many {
            let mut any = false;
            for place in &mut reached {
                any |= *place;
                *place = any;
            }
            continue;
        }
        let takes = |segment: &str| match part {
            Part::Text(text) => text == segment,
            _ => !segment.is_empty(),
        };
        let steps = reached.iter().zip(segments).map(|(before, segment)| *before && takes(segment));
        reached = core::iter::once(false).chain(steps).collect();
    }
    reached.last().copied().unwrap_or(false)
}

/// What a caller says of a request beside its URL.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) tool: Option<&'a ToolName>,
    pub(crate) audience: Option<&'a Audience>,
}

/// Where a request goes, and for what a token is drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    pub(crate) tool: ToolName,
    pub(crate) audience: Audience,
    /// As it is sent.
    pub(crate) send: Url,
}

/// All routes of a session that name destinations.
#[derive(Clone, Default, Debug)]
pub(crate) struct Destinations(Vec<Entry>);

impl Destinations {
    /// Of a session. A route that is not understood names no destination; nor does one whose audience is not a URL and that has
    /// none beside it.
    pub(crate) fn of_session(routes: Vec<Route>) -> Self {
        Self(routes.into_iter().filter_map(|route| Entry::of(route).ok()).collect())
    }

    /// Given by hand. What is meant as a destination and is not understood is an error.
    pub(crate) fn by_hand(routes: Vec<Route>) -> Result<Self, Error> {
        let entry = |route: Route| {
            let is_meant =
                route.url.is_some() || route.audience.as_str().to_ascii_lowercase().starts_with("http");
            match Entry::of(route) {
                Err(error) if is_meant => Some(Err(error)),
                entry => entry.ok().map(Ok),
            }
        };
        routes.into_iter().filter_map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The routes, as they were named.
    pub(crate) fn named(&self) -> Vec<Route> {
        self.0.iter().map(|entry| entry.named.clone()).collect()
    }

    /// Where a request goes; `None` where nothing matches.
    pub(crate) fn choose(
        &self,
        url: &Url,
        method: &Method,
        wanted: Wanted<'_>,
    ) -> Result<Option<Chosen>, Error> {
        let mut pairs: Vec<(&Entry, &ToolName)> = Vec::new();
        for entry in self.candidates(url, method) {
            let of_audience = wanted.audience.is_none_or(|audience| *audience == entry.named.audience);
            for tool in entry.named.tools.iter().filter(|_| of_audience) {
                let is_known = pairs
                    .iter()
                    .any(|(known, of)| *of == tool && known.named.audience == entry.named.audience);
                if !is_known && wanted.tool.is_none_or(|wanted| wanted == tool) {
                    pairs.push((entry, tool));
                }
            }
        }
        match pairs.as_slice() {
            [] => Ok(None),
            [(entry, tool)] => Ok(Some(Chosen {
                tool: ToolName::clone(tool),
                audience: entry.named.audience.clone(),
                send: entry.gated(url),
            })),
            several => Err(ambiguous(several)),
        }
    }

    /// The routes that a request could be a call of: those that lie deepest, and of these those that say more.
    fn candidates(&self, url: &Url, method: &Method) -> Vec<&Entry> {
        let segments = url.segments();
        let mut found: Vec<_> = self.0.iter().filter(|entry| entry.takes(url, &segments, method)).collect();
        let deepest = found.iter().map(|entry| entry.base.len()).max();
        found.retain(|entry| Some(entry.base.len()) == deepest);
        if found.iter().any(|entry| entry.pattern.is_some()) {
            found.retain(|entry| entry.pattern.is_some());
        }
        found
    }
}

/// That nothing matches.
pub(crate) fn unknown(url: &Url) -> Error {
    let message = format!(
        "no token goes to {}: the session does not name this destination, or not for this path, method and tool; ask for a grant, or name it with `routes` if the session was made by hand",
        url.origin
    );
    Error::new(Code::UnknownDestination, message)
}

fn ambiguous(pairs: &[(&Entry, &ToolName)]) -> Error {
    struct Names<'a>(&'a [(&'a Entry, &'a ToolName)]);

    impl fmt::Display for Names<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (number, (entry, tool)) in self.0.iter().take(MAX_NAMED).enumerate() {
                let comma = if number == 0 { "" } else { ", " };
                write!(f, "{comma}{} ({})", tool.as_str(), entry.named.audience.as_str())?;
            }
            Ok(())
        }
    }
    let message = format!("several tools are granted there; name one with `tool`: {}", Names(pairs));
    Error::new(Code::ToolRequired, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Group {
        what: String,
        routes: Vec<Route>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        #[serde(default)]
        method: Option<String>,
        url: String,
        #[serde(default)]
        tool: Option<String>,
        #[serde(default)]
        audience: Option<String>,
        #[serde(default)]
        to: Option<To>,
        #[serde(default)]
        error: Option<String>,
    }

    #[derive(Deserialize)]
    struct To {
        url: String,
        audience: String,
        tool: String,
    }

    fn outcome(all: &Destinations, case: &Case) -> Result<(String, String, String), Error> {
        let url = Url::read(&case.url)?;
        let method = case.method.as_deref().unwrap_or("GET").parse().unwrap();
        let tool = case.tool.as_deref().map(|tool| ToolName::new(tool).unwrap());
        let audience = case.audience.as_deref().map(|audience| Audience::new(audience).unwrap());
        let wanted = Wanted { tool: tool.as_ref(), audience: audience.as_ref() };
        let chosen = all.choose(&url, &method, wanted)?.ok_or_else(|| unknown(&url))?;
        Ok((chosen.send.to_string(), chosen.audience.to_string(), chosen.tool.as_str().to_owned()))
    }

    #[test]
    fn a_request_goes_where_the_session_says_and_nowhere_else() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/sdk/destinations.json");
        let groups: Vec<Group> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut count = 0;
        for group in groups {
            let all = Destinations::by_hand(group.routes).unwrap();
            for case in group.cases {
                let expected = match (&case.to, &case.error) {
                    (Some(to), None) => Ok((to.url.clone(), to.audience.clone(), to.tool.clone())),
                    (None, Some(code)) => Err(code.clone()),
                    _ => panic!("{}: {} has no outcome", group.what, case.url),
                };
                let found = outcome(&all, &case).map_err(|error| error.code().as_str().to_owned());
                assert_eq!(found, expected, "{}: {:?}", group.what, case.url);
                count += 1;
            }
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn what_is_meant_as_a_destination_and_is_none_is_an_error_by_hand_and_nowhere_of_a_session() {
        let route = |fields: serde_json::Value| -> Route { serde_json::from_value(fields).unwrap() };
        for wrong in [
            serde_json::json!({"audience": "http://api.example", "tools": ["x"]}),
            serde_json::json!({"audience": "https://a", "tools": ["x"], "via": "http://gw.example"}),
            serde_json::json!({"audience": "https://a", "tools": ["x"], "via": "https://gw.example/?q"}),
            serde_json::json!({"audience": "https://a", "tools": ["x"], "path": "/a/../b"}),
            serde_json::json!({"audience": "api", "url": "api.example", "tools": ["x"]}),
        ] {
            assert!(Destinations::by_hand(vec![route(wrong.clone())]).is_err(), "{wrong}");
            assert!(Destinations::of_session(vec![route(wrong)]).named().is_empty());
        }
        let nowhere = route(serde_json::json!({"audience": "internal", "tools": ["x"]}));
        assert!(Destinations::by_hand(vec![nowhere]).unwrap().named().is_empty());
    }
}
