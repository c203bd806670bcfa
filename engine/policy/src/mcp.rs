//! A first catalogue from what an MCP server says of its tools (`tools/list`).
//!
//! The result is a draft for its owner to narrow: one offer a tool, for everything the tool does. What the server hints at
//! decides nothing but the risk that is written down, and the worst is assumed where it does not.

use core::fmt;
use core::fmt::Write as _;
use std::collections::BTreeSet;

use obol_secret::json::{self, JsonError};
use obol_secret::text::is_plain;
use obol_session::limits::{is_audience, is_name};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::catalogue::{Catalogue, Risk};
use crate::limits::{MAX_DESCRIPTION_BYTES, MAX_TOOLS};
use crate::problem::LoadError;

/// The longest list that is read, in bytes.
const MAX_LIST_BYTES: usize = 8 << 20;

/// Why there is no catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum McpError {
    /// The list is too long.
    TooLong,
    /// The list is not what `tools/list` answers with.
    Json(JsonError),
    /// It has no tools.
    NoTools,
    /// A tool's name cannot stand in a token.
    Name(String),
    /// A tool is there twice.
    Twice(String),
    /// The audience cannot be one.
    Audience,
    /// What came out is not a catalogue.
    Catalogue(LoadError),
}

impl fmt::Display for McpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the list of tools is longer than {MAX_LIST_BYTES} bytes"),
            Self::Json(error) => write!(f, "not the result of an MCP server's tools/list: {error}"),
            Self::NoTools => f.write_str("the list has no tools"),
            Self::Name(name) => {
                write!(f, "the tool {name:?} cannot be named in tokens: 1 to 256 bytes of visible ASCII")
            }
            Self::Twice(name) => write!(f, "the tool {name:?} is in the list twice"),
            Self::Audience => f.write_str("the audience must be 1 to 2048 bytes without control characters"),
            Self::Catalogue(error) => {
                let problems: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
                write!(f, "the catalogue that came out is not valid: {}", problems.join("; "))
            }
        }
    }
}

impl core::error::Error for McpError {}

/// `tools/list`'s result, bare or within an answer of JSON-RPC.
#[derive(Deserialize)]
struct Answer {
    result: Option<List>,
    tools: Option<Vec<McpTool>>,
}

#[derive(Deserialize)]
struct List {
    tools: Vec<McpTool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct McpTool {
    name: String,
    description: Option<String>,
    #[serde(default)]
    annotations: Hints,
    #[serde(default, rename = "inputSchema")]
    input: Input,
}

#[derive(Deserialize, Default)]
struct Input {
    #[serde(default)]
    properties: std::collections::BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Hints {
    read_only_hint: Option<bool>,
    destructive_hint: Option<bool>,
}

impl Hints {
    /// MCP's own defaults: not read-only, and destructive.
    fn risk(&self) -> Risk {
        match (self.read_only_hint, self.destructive_hint) {
            (Some(true), _) => Risk::Low,
            (_, Some(false)) => Risk::Medium,
            _ => Risk::High,
        }
    }
}

/// Writes a catalogue for the tools that an MCP server lists, at an audience.
///
/// # Errors
///
/// [`McpError`].
pub fn catalogue_from_mcp(list: &[u8], audience: &str, org: Option<&str>) -> Result<String, McpError> {
    if list.len() > MAX_LIST_BYTES {
        return Err(McpError::TooLong);
    }
    if !is_audience(audience) {
        return Err(McpError::Audience);
    }
    let answer: Answer = json::parse(list).map_err(McpError::Json)?;
    let tools = answer.result.map(|list| list.tools).or(answer.tools).unwrap_or_default();
    if tools.is_empty() || tools.len() > MAX_TOOLS {
        return Err(McpError::NoTools);
    }
    let mut names = BTreeSet::new();
    let mut text = String::new();
    if let Some(org) = org {
        let _memory_takes_it = writeln!(text, "org = {}\n", quoted(org));
    }
    for tool in &tools {
        if !is_name(&tool.name) {
            return Err(McpError::Name(tool.name.clone()));
        }
        if !names.insert(tool.name.as_str()) {
            return Err(McpError::Twice(tool.name.clone()));
        }
        write_tool(&mut text, tool, audience);
    }
    Catalogue::from_toml(&text).map_err(McpError::Catalogue)?;
    Ok(text)
}

fn write_tool(text: &mut String, tool: &McpTool, audience: &str) {
    let risk = tool.annotations.risk();
    let mut lines = vec![
        "[[tool]]".to_owned(),
        format!("name = {}", quoted(&tool.name)),
        format!("audience = {}", quoted(audience)),
        format!("risk = \"{risk}\""),
    ];
    if let Some(description) = tool.description.as_deref().map(one_line).filter(|text| !text.is_empty()) {
        lines.push(format!("description = {}", quoted(&description)));
    }
    let arguments: Vec<_> = tool.input.properties.keys().map(|name| one_line(name)).collect();
    lines.extend([
        "  [[tool.offer]]".to_owned(),
        "  name = \"all\"".to_owned(),
        "  action = \"call\"".to_owned(),
        "  resource = \"**\"".to_owned(),
        "  ttl = 60".to_owned(),
    ]);
    if !arguments.is_empty() {
        lines.push(format!(
            "  # its arguments, to limit with constraints.allowed_parameters: {}",
            arguments.join(", ")
        ));
    }
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text.push('\n');
}

/// Text of a stranger on one line, without what does not show, and not too long.
fn one_line(text: &str) -> String {
    let words = text
        .split_whitespace()
        .map(|word| word.chars().filter(|letter| is_plain(*letter)).collect::<String>());
    let mut line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let end = line
        .char_indices()
        .map(|(at, letter)| at + letter.len_utf8())
        .take_while(|end| *end <= MAX_DESCRIPTION_BYTES);
    line.truncate(end.last().unwrap_or(0));
    line
}

/// A string of TOML. What JSON escapes, TOML does in the same way; the rest is plain.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|letter| is_plain(*letter)).collect();
    serde_json::Value::String(plain).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIENCE: &str = "https://mcp.example";

    fn read(list: &str) -> Result<Catalogue, McpError> {
        catalogue_from_mcp(list.as_bytes(), AUDIENCE, Some("example"))
            .map(|text| Catalogue::from_toml(&text).unwrap())
    }

    #[test]
    fn each_tool_becomes_one_offer_and_the_worst_risk_is_assumed() {
        let list = r#"{"jsonrpc": "2.0", "id": 1, "result": {"tools": [
            {"name": "search", "description": "Finds\n\"things\"\u202e.", "annotations": {"readOnlyHint": true},
             "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}, "limit": {}}}},
            {"name": "note", "annotations": {"destructiveHint": false}},
            {"name": "erase", "title": "Erase", "inputSchema": {"type": "object"}}
        ]}}"#;
        let catalogue = read(list).unwrap();
        let risks: Vec<_> = catalogue.tools().iter().map(|tool| (&*tool.name, tool.risk)).collect();
        assert_eq!(risks, [("search", Risk::Low), ("note", Risk::Medium), ("erase", Risk::High)]);
        assert_eq!(catalogue.org(), Some("example"));
        let search = catalogue.tool("search", AUDIENCE).unwrap();
        assert_eq!(search.description.as_deref(), Some("Finds \"things\"."));
        let grant = &search.offers[0].grant;
        assert_eq!(
            (grant.action.as_slice(), grant.resource.as_str()),
            (["call".to_owned()].as_slice(), "**")
        );
    }

    #[test]
    fn a_bare_result_is_read_as_well_and_nothing_else_is() {
        assert!(read(r#"{"tools": [{"name": "a"}], "nextCursor": "x"}"#).is_ok());
        for (list, why) in [
            ("[]", "expected an object"),
            ("{}", "no tools"),
            (r#"{"tools": []}"#, "no tools"),
            (r#"{"tools": [{"title": "x"}]}"#, "name"),
            (r#"{"tools": [{"name": "two words"}]}"#, "visible ASCII"),
            (r#"{"tools": [{"name": "a"}, {"name": "a"}]}"#, "twice"),
        ] {
            let error = read(list).unwrap_err().to_string();
            assert!(error.contains(why), "{list}: {error}");
        }
        assert_eq!(catalogue_from_mcp(b"{}", "a\nb", None), Err(McpError::Audience));
    }

    #[test]
    fn what_a_server_says_of_itself_cannot_write_keys_of_its_own() {
        let list = serde_json::json!({"tools": [{
            "name": "a\"b\\c",
            "description": "x\"\nrisk = \"low\"\n[[tool]]",
            "inputSchema": {"properties": {"q\nttl = 1": {}, "\u{2028}risk": {}}},
        }]});
        let catalogue = read(&list.to_string()).unwrap();
        assert_eq!(catalogue.tools().len(), 1);
        let tool = &catalogue.tools()[0];
        assert_eq!((&*tool.name, tool.risk, tool.offers[0].grant.ttl), ("a\"b\\c", Risk::High, 60));
    }
}
