//! What a route does.

use obol_verify::{Arguments, Request};
use serde_json::{Map, Value};

/// The tool call that a request stands for. Made by the server, never from what the token says.
#[derive(Clone, Debug)]
pub struct ToolCall {
    tool: String,
    action: Option<String>,
    resource: Option<String>,
    arguments: Option<Map<String, Value>>,
}

impl ToolCall {
    /// A call of `tool`. Without more, tokens for every action and resource of the tool are accepted, and tokens that
    /// limit the arguments are refused, since nobody here can see them.
    pub fn new(tool: impl Into<String>) -> Self {
        Self { tool: tool.into(), action: None, resource: None, arguments: None }
    }

    /// What the tool does: the token must name this action.
    #[must_use]
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.action = Some(action.into());
        self
    }

    /// What it does it to: the token must cover this resource.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// The arguments, all of them; an empty map where there are none.
    #[must_use]
    pub fn arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.arguments = Some(arguments);
        self
    }

    pub(crate) fn as_request(&self) -> Request<'_> {
        Request {
            tool: &self.tool,
            action: self.action.as_deref(),
            resource: self.resource.as_deref(),
            arguments: self.arguments.as_ref().map_or(Arguments::Unseen, |map| Arguments::Plain(Some(map))),
            proof: None,
        }
    }
}
