//! Reading a catalogue: unknown keys, names that stand twice and whatever could not become a grant are refused, with the
//! line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use obol_session::limits::{DEFAULT_TTL_SECS, MAX_AUDIENCE_BYTES, is_audience, is_name};
use obol_session::{AgentIdentity, ApprovalRule, DocumentError, Grant};
use obol_token::Constraints;
use obol_token::one_or_many;
use serde::Deserialize;
use toml::Spanned;

use super::{Catalogue, Offer, Risk, Route, TRUST_LEVEL, Tool};
use crate::cases::DENY;
use crate::limits::{
    MAX_CATALOGUE_BYTES, MAX_DESCRIPTION_BYTES, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_OFFERS, MAX_PER_TOOL,
    MAX_TOOLS,
};
use crate::problem::{Lines, LoadError, Problems};
use crate::source::CATALOGUE_FILE;
use crate::vocabulary::is_id;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    org: Option<Spanned<String>>,
    #[serde(default)]
    tool: Vec<ToolText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolText {
    name: Spanned<String>,
    audience: String,
    description: Option<String>,
    #[serde(default)]
    sets: Vec<String>,
    risk: Risk,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    offer: Vec<OfferText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfferText {
    name: Spanned<String>,
    #[serde(with = "one_or_many")]
    action: Vec<String>,
    resource: String,
    constraints: Option<Constraints>,
    #[serde(default)]
    delegation_depth: u64,
    #[serde(default)]
    require_pop: bool,
    purpose: Option<String>,
    #[serde(default = "default_ttl")]
    ttl: u64,
}

fn default_ttl() -> u64 {
    DEFAULT_TTL_SECS
}

impl Catalogue {
    /// Reads and checks a catalogue.
    ///
    /// # Errors
    ///
    /// [`LoadError`], which names all lines at fault.
    pub fn from_toml(text: &str) -> Result<Self, LoadError> {
        let mut problems = Problems::default();
        if text.len() > MAX_CATALOGUE_BYTES {
            problems.add(CATALOGUE_FILE, None, format!("it is longer than {MAX_CATALOGUE_BYTES} bytes"));
            return problems.none_or(Self { org: None, tools: Vec::new() });
        }
        let lines = Lines::of(text);
        let read: Text = match toml::from_str(text) {
            Ok(read) => read,
            Err(error) => {
                let line = error.span().map(|span| lines.at(span.start));
                problems.add(CATALOGUE_FILE, line, error.message());
                return problems.none_or(Self { org: None, tools: Vec::new() });
            }
        };
        let mut reader = Reader { lines, problems, seen: BTreeMap::new() };
        let catalogue = reader.catalogue(read);
        reader.problems.none_or(catalogue)
    }
}

struct Reader {
    lines: Lines,
    problems: Problems,
    /// Tools and their audiences, with their lines.
    seen: BTreeMap<(String, String), usize>,
}

impl Reader {
    fn wrong(&mut self, line: usize, message: impl Into<String>) {
        self.problems.add(CATALOGUE_FILE, Some(line), message);
    }

    fn line<T>(&self, at: &Spanned<T>) -> usize {
        self.lines.at(at.span().start)
    }

    fn catalogue(&mut self, read: Text) -> Catalogue {
        let org = read.org.map(|org| {
            if !is_id(org.get_ref(), MAX_NAME_BYTES) {
                let line = self.line(&org);
                self.wrong(
                    line,
                    format!("org must be 1 to {MAX_NAME_BYTES} bytes without control characters"),
                );
            }
            org.into_inner()
        });
        let offers: usize = read.tool.iter().map(|tool| tool.offer.len()).sum();
        if read.tool.len() > MAX_TOOLS {
            self.problems.add(CATALOGUE_FILE, None, format!("it has more than {MAX_TOOLS} tools"));
        } else if offers > MAX_OFFERS {
            let more = format!("it has {offers} offers; at most {MAX_OFFERS} can be decided for a session");
            self.problems.add(CATALOGUE_FILE, None, more);
        } else {
            let tools = read.tool.into_iter().map(|tool| self.tool(tool)).collect();
            return Catalogue { org, tools };
        }
        Catalogue { org, tools: Vec::new() }
    }

    fn tool(&mut self, read: ToolText) -> Tool {
        let line = self.line(&read.name);
        self.check_tool(line, &read);
        let (name, audience) = (Arc::from(read.name.into_inner()), Arc::from(read.audience));
        let mut names = BTreeSet::new();
        let mut offers = Vec::with_capacity(read.offer.len());
        for offer in read.offer {
            let line = self.line(&offer.name);
            if !names.insert(offer.name.get_ref().clone()) {
                let twice = format!(
                    "tool {name:?} has two offers {:?}; each needs a name of its own",
                    offer.name.get_ref()
                );
                self.wrong(line, twice);
            }
            offers.push(self.offer(line, &name, &audience, offer));
        }
        Tool {
            name,
            audience,
            description: read.description,
            sets: read.sets.into_iter().collect(),
            risk: read.risk,
            routes: read.routes,
            offers,
        }
    }

    fn check_tool(&mut self, line: usize, read: &ToolText) {
        let name = read.name.get_ref();
        if !is_name(name) {
            let bounds = obol_session::limits::MAX_NAME_BYTES;
            self.wrong(line, format!("a tool's name must be 1 to {bounds} bytes of visible ASCII"));
        }
        if !is_audience(&read.audience) {
            let bounds = format!("must be 1 to {MAX_AUDIENCE_BYTES} bytes without control characters");
            self.wrong(line, format!("tool {name:?}: the audience {bounds}"));
        }
        if let Some(first) = self.seen.insert((name.clone(), read.audience.clone()), line) {
            let twice = "put all its offers into one [[tool]]";
            self.wrong(
                line,
                format!("tool {name:?} is there for this audience already, in line {first}; {twice}"),
            );
        }
        if read.offer.is_empty() {
            self.wrong(line, format!("tool {name:?} has no offers; add a [[tool.offer]]"));
        }
        if read.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION_BYTES) {
            self.wrong(
                line,
                format!("tool {name:?}: the description is longer than {MAX_DESCRIPTION_BYTES} bytes"),
            );
        }
        if read.sets.len() > MAX_PER_TOOL || read.routes.len() > MAX_PER_TOOL {
            self.wrong(line, format!("tool {name:?} has more than {MAX_PER_TOOL} sets or routes"));
        }
        if let Some(set) = read.sets.iter().find(|set| !is_id(set, MAX_NAME_BYTES)) {
            let bounds = format!("1 to {MAX_NAME_BYTES} bytes without control characters");
            self.wrong(line, format!("tool {name:?}: the set {set:?} is not a name of {bounds}"));
        }
        for route in &read.routes {
            if let Err(problem) = check_route(route) {
                self.wrong(line, format!("tool {name:?}: {problem}"));
            }
        }
    }

    fn offer(&mut self, line: usize, tool: &Arc<str>, audience: &Arc<str>, read: OfferText) -> Offer {
        let name = read.name.into_inner();
        let grant = Grant {
            tool: tool.to_string(),
            aud: audience.to_string(),
            action: read.action,
            resource: read.resource,
            constraints: read.constraints,
            delegation_depth: read.delegation_depth,
            require_pop: read.require_pop,
            trust_level: TRUST_LEVEL,
            approval: ApprovalRule::None,
            purpose: read.purpose,
            ttl: read.ttl,
        };
        if !is_id(&name, MAX_NAME_BYTES) {
            let bounds = format!("must be 1 to {MAX_NAME_BYTES} bytes without control characters");
            self.wrong(line, format!("tool {tool:?}: an offer's name {bounds}"));
        }
        if name == DENY {
            self.wrong(
                line,
                format!("tool {tool:?}: an offer cannot be named {DENY:?}, which means none in cases"),
            );
        }
        if let Err(problem) = check_grant(&grant) {
            self.wrong(line, format!("offer {name:?}: {problem}"));
        }
        Offer { name: Arc::from(name), grant: Arc::new(grant) }
    }
}

/// Whether a session with this grant could be made and tokens minted, for whatever agent.
fn check_grant(grant: &Grant) -> Result<(), String> {
    grant.check_minted_ahead("offer").map_err(|error| match error {
        DocumentError::Rule { problem, .. } => problem,
        other => other.to_string(),
    })?;
    let mut actions = BTreeSet::new();
    if let Some(twice) = grant.action.iter().find(|action| !actions.insert(*action)) {
        return Err(format!("tool {:?}: action {twice:?} is there twice", grant.tool));
    }
    let longest = || "x".repeat(MAX_ID_BYTES);
    let agent = AgentIdentity { agent_instance_id: longest(), iss: longest(), sub: longest() };
    match grant.scope(&agent, &longest()).to_tlv() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("tool {:?}: {error}", grant.tool)),
    }
}

fn check_route(route: &Route) -> Result<(), String> {
    const LONGEST: usize = MAX_AUDIENCE_BYTES;
    let path = &route.path;
    if !path.starts_with('/') || !is_id(path, LONGEST) {
        return Err(format!("the route's path {path:?} must begin with / and have at most {LONGEST} bytes"));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) || path.contains(['?', '#', '%', '\\']) {
        return Err(format!(
            "the route's path {path:?} must be plain: no dot segments, escapes, query or fragment"
        ));
    }
    let is_method =
        |method: &String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if let Some(method) = route.method.as_ref().filter(|method| method.len() > 32 || !is_method(method)) {
        return Err(format!("the route's method {method:?} must be in capitals, such as GET"));
    }
    let is_origin = |via: &String| {
        let rest = via.strip_prefix("https://").or_else(|| via.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && !via.contains(['?', '#', '@'])
    };
    if let Some(url) = route.url.as_ref().filter(|url| !is_id(url, LONGEST) || !is_origin(url)) {
        return Err(format!("the route's URL {url:?} must be an origin such as https://api.example/v1"));
    }
    if let Some(via) = route.via.as_ref().filter(|via| !is_id(via, LONGEST) || !is_origin(via)) {
        return Err(format!(
            "the route's gateway {via:?} must be an origin such as https://gateway.example/api"
        ));
    }
    Ok(())
}
