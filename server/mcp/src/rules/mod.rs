//! What a guard is told about a server that it knows nothing else of: a file that says what a call of each tool stands for.
//!
//! ```toml
//! open = ["list_allowed_directories"]     # needs no token
//! guard = ["resources/read"]              # a method that needs one, as a tool of its own
//! hide_not_granted = true                 # of tools/list, what no session was granted
//!
//! [tool.read_file]
//! action = "read"
//! resource = "{*path}"
//!
//! [tool.read_multiple_files]
//! action = "read"
//! resource = "{*paths[]}"
//! ```
//!
//! A tool that is not in it needs a token for its name, of any action and resource.

use std::collections::{BTreeMap, BTreeSet};

use obol_resource::ToolCall;
use obol_resource::template::TextTemplate;
use obol_verify::Denial;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::guard::ToolGuard;
use crate::jsonrpc::{DISCOVER, INITIALIZE, TOOLS_CALL, TOOLS_LIST};

/// What a client may ask a server for, in all revisions of MCP, and what passes if nothing else is said.
const METHODS: [&str; 19] = [
    INITIALIZE,
    DISCOVER,
    "ping",
    TOOLS_LIST,
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "subscriptions/listen",
    "tasks/get",
    "tasks/result",
    "tasks/list",
    "tasks/cancel",
    "tasks/update",
];
/// What has to pass for a connection to come about.
const ALWAYS_PASS: [&str; 3] = [INITIALIZE, DISCOVER, "ping"];

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default)]
    open: BTreeSet<String>,
    #[serde(default)]
    guard: BTreeSet<String>,
    #[serde(default)]
    pass: BTreeSet<String>,
    #[serde(default)]
    hide_not_granted: bool,
    #[serde(default)]
    tool: BTreeMap<String, ToolRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolRule {
    #[serde(default)]
    action: Option<TextTemplate>,
    #[serde(default)]
    resource: Option<TextTemplate>,
    /// What an argument is taken for that is absent.
    #[serde(default)]
    default: BTreeMap<String, String>,
}

impl Rules {
    /// What is wrong with what the file says, if anything.
    ///
    /// # Errors
    ///
    /// One sentence for people.
    pub fn check(&self) -> Result<(), String> {
        if let Some(tool) = self.open.iter().find(|tool| self.tool.contains_key(*tool)) {
            return Err(format!("`{tool}` is open, and there is a rule for it; one of both is too much"));
        }
        if let Some(method) =
            self.guard.iter().find(|method| ALWAYS_PASS.contains(&method.as_str()) || *method == TOOLS_CALL)
        {
            return Err(format!(
                "guard: `{method}` cannot be; tools are guarded anyway, and connections begin with the rest"
            ));
        }
        if let Some(method) = self.guard.intersection(&self.pass).next() {
            return Err(format!("`{method}` is both in guard and in pass; one of both is too much"));
        }
        if self.pass.contains(TOOLS_CALL) {
            return Err("pass: tools/call never passes; tools that need no token are `open`".to_owned());
        }
        let several = |rule: &ToolRule| rule.action.as_ref().is_some_and(TextTemplate::is_of_each);
        match self.tool.iter().find(|(_, rule)| several(rule)) {
            Some((tool, _)) => {
                Err(format!("[tool.{tool}] action: it is one, and cannot come from each of a list"))
            }
            None => Ok(()),
        }
    }

    /// A guard with these rules.
    #[must_use]
    pub fn tell(&self, guard: ToolGuard) -> ToolGuard {
        let guard = self.open.iter().fold(guard, ToolGuard::open_tool);
        self.tool.iter().fold(guard, |guard, (name, rule)| {
            let (tool, rule) = (name.clone(), rule.clone());
            guard.tool_with_each(name, move |arguments| rule.calls(&tool, arguments))
        })
    }

    /// Tools that need no token.
    pub fn open_tools(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(String::as_str)
    }

    /// Methods that pass without a token.
    pub fn passing(&self) -> impl Iterator<Item = &str> {
        let usual = METHODS.into_iter().filter(|method| !self.guard.contains(*method));
        let more = self.pass.iter().map(String::as_str).filter(|method| !METHODS.contains(method));
        usual.chain(more)
    }

    /// Whether what no session was granted is left out of `tools/list`.
    pub(crate) fn hides(&self) -> bool {
        self.hide_not_granted
    }

    pub(crate) fn guards(&self, method: &str) -> bool {
        self.guard.contains(method)
    }

    pub(crate) fn lets_pass(&self, method: &str) -> bool {
        self.passing().any(|passing| passing == method)
    }
}

impl ToolRule {
    fn calls(&self, tool: &str, arguments: &Map<String, Value>) -> Result<Vec<ToolCall>, Denial> {
        let call = ToolCall::new(tool);
        let call = match &self.action {
            Some(action) => call.action(action.text(arguments, &self.default)?),
            None => call,
        };
        let Some(resource) = &self.resource else { return Ok(vec![call]) };
        let resources = resource.texts(arguments, &self.default)?;
        Ok(resources.into_iter().map(|resource| call.clone().resource(resource)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(json: Value) -> Rules {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_call_stands_for_what_its_arguments_say() {
        let rules = rules(json!({"tool": {"move": {"action": "write", "resource": "{*paths[]}"},
                                          "do": {"action": "{how}", "default": {"how": "read"}}}}));
        rules.check().unwrap();
        let of = |tool: &str, arguments: Value| {
            let calls =
                rules.tool[tool].calls(tool, arguments.as_object().unwrap()).map_err(|denial| denial.detail);
            calls.map(|calls| {
                let shown = |call: &ToolCall| {
                    (call.requested_action().map(str::to_owned), call.requested_resource().map(str::to_owned))
                };
                calls.iter().map(shown).collect::<Vec<_>>()
            })
        };
        let pair =
            |action: &str, resource: Option<&str>| (Some(action.to_owned()), resource.map(str::to_owned));
        assert_eq!(
            of("move", json!({"paths": ["/a", "/b"]})),
            Ok(vec![pair("write", Some("/a")), pair("write", Some("/b"))])
        );
        assert!(of("move", json!({"paths": []})).unwrap_err().contains("paths"));
        assert_eq!(of("do", json!({})), Ok(vec![pair("read", None)]));
        assert_eq!(of("do", json!({"how": "write"})), Ok(vec![pair("write", None)]));
        assert!(of("do", json!({"How": "write"})).unwrap_err().contains("how"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (wrong, why) in [
            (json!({"open": ["a"], "tool": {"a": {}}}), "`a` is open"),
            (json!({"guard": ["tools/call"]}), "tools/call"),
            (json!({"guard": ["initialize"]}), "initialize"),
            (json!({"guard": ["x/y"], "pass": ["x/y"]}), "x/y"),
            (json!({"pass": ["tools/call"]}), "never passes"),
            (json!({"tool": {"a": {"action": "{x[]}"}}}), "[tool.a] action"),
        ] {
            let said = rules(wrong.clone()).check().unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
        for unknown in [
            json!({"opne": []}),
            json!({"tool": {"a": {"resources": "x"}}}),
            json!({"tool": {"a": {"resource": "{"}}}),
        ] {
            assert!(serde_json::from_value::<Rules>(unknown.clone()).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_method_passes_by_its_own_name_alone() {
        let rules = rules(json!({"guard": ["resources/read"], "pass": ["vendor/x"]}));
        for method in ["initialize", "ping", "prompts/get", "vendor/x"] {
            assert!(rules.lets_pass(method) && !rules.guards(method), "{method}");
        }
        for method in ["resources/read", "tools/call", "Tools/Call", "tools/call ", "vendor/y", ""] {
            assert!(!rules.lets_pass(method), "{method}");
        }
    }
}
