//! What a route does.

use obol_secret::json::ReadArguments;
use obol_verify::{Arguments, Request};
use serde_json::{Map, Value};

use crate::sealed::{PopProof, SealedMessage};

/// The tool call that a request stands for. Made by the server, never from what the token says.
#[derive(Clone, Debug)]
pub struct ToolCall {
    tool: String,
    action: Option<String>,
    resource: Option<String>,
    arguments: CallArguments,
    rounded: bool,
    proof: Option<PopProof>,
}

#[derive(Clone, Debug)]
enum CallArguments {
    Unseen,
    Plain(Map<String, Value>),
    Sealed(SealedMessage),
}

impl ToolCall {
    /// A call of `tool`. Without more, tokens for every action and resource of the tool are accepted, and tokens that
    /// limit the arguments are refused, since nobody here can see them.
    pub fn new(tool: impl Into<String>) -> Self {
        let arguments = CallArguments::Unseen;
        Self { tool: tool.into(), action: None, resource: None, arguments, rounded: false, proof: None }
    }

    /// What the tool does: the token must name this action.
    #[must_use]
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.action = Some(action.into());
        self
    }

    /// What it does it to: the token must cover this resource. Patterns are compared as they stand, so a resource that
    /// some reader takes for another one, as with a segment `..`, could be covered by a pattern that it leads out of;
    /// such calls are refused.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// The arguments, all of them; an empty map where there are none.
    #[must_use]
    pub fn arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.arguments = CallArguments::Plain(arguments);
        self
    }

    /// The arguments, all of them, where the tool acts on the document that they were read from and not on what was read.
    #[must_use]
    pub fn read_arguments(mut self, arguments: ReadArguments) -> Self {
        self.rounded = arguments.rounded;
        self.arguments(arguments.map)
    }

    /// The arguments, all of them, sealed under the token's channel keys. They are opened on the way; see
    /// [`crate::SpentToken::opened_arguments`]. A token that does not ask for channel encryption is refused with
    /// them (TBAC r41, section 10.2).
    #[must_use]
    pub fn sealed_arguments(mut self, arguments: SealedMessage) -> Self {
        self.arguments = CallArguments::Sealed(arguments);
        self
    }

    /// The proof of possession that came with the request.
    #[must_use]
    pub fn proof(mut self, proof: PopProof) -> Self {
        self.proof = Some(proof);
        self
    }

    /// The tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// The action, where it is told apart from others.
    pub fn requested_action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// The resource, where it is told apart from others.
    pub fn requested_resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    pub(crate) fn as_request(&self) -> Request<'_> {
        Request {
            tool: &self.tool,
            action: self.action.as_deref(),
            resource: self.resource.as_deref(),
            arguments: match &self.arguments {
                CallArguments::Unseen => Arguments::Unseen,
                CallArguments::Plain(map) => Arguments::Plain(Some(map)),
                CallArguments::Sealed(message) => {
                    let (algorithm, iv) = (message.algorithm(), message.iv());
                    Arguments::Sealed { algorithm, iv, ciphertext: message.ciphertext() }
                }
            },
            rounded: self.rounded,
            proof: self.proof.as_ref().map(|proof| &proof.as_bytes()[..]),
        }
    }
}
