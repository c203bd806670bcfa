//! From the name of a tool to a spent token.

use core::fmt;
use std::collections::BTreeMap;

use obol_resource::{Gate, SpentToken, ToolCall};
use obol_verify::Denial;
use serde_json::{Map, Value};

use crate::message::RequestMeta;
use crate::result::{Denied, ToolResult};

type Arguments = Map<String, Value>;
type CallsOf = dyn Fn(&Arguments) -> Result<Vec<ToolCall>, Denial> + Send + Sync;

/// Admits calls of tools. A tool that it was told nothing about needs a token for its name, of any action and resource.
pub struct ToolGuard {
    gate: Gate,
    tools: BTreeMap<String, Rule>,
}

enum Rule {
    Open,
    Fixed(ToolCall),
    Of(Box<CallsOf>),
}

impl fmt::Debug for ToolGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolGuard").field("tools", &self.tools.keys()).finish_non_exhaustive()
    }
}

/// A call that may run now: its token is spent.
#[derive(Debug)]
pub struct Admitted {
    token: SpentToken,
    arguments: Arguments,
    sealed: bool,
}

impl ToolGuard {
    /// Guards every tool.
    pub fn new(gate: Gate) -> Self {
        Self { gate, tools: BTreeMap::new() }
    }

    /// What a call of one tool stands for: its action and resource. The arguments are added to it.
    #[must_use]
    pub fn tool(mut self, call: ToolCall) -> Self {
        self.tools.insert(call.tool().to_owned(), Rule::Fixed(call));
        self
    }

    /// What a call of one tool stands for, where that follows from the arguments. An `Err` refuses the call.
    #[must_use]
    pub fn tool_with(
        self,
        name: impl Into<String>,
        call: impl Fn(&Arguments) -> Result<ToolCall, Denial> + Send + Sync + 'static,
    ) -> Self {
        self.tool_with_each(name, move |arguments| Ok(vec![call(arguments)?]))
    }

    /// The same for a tool that touches several resources in one call: its token must be good for each of them.
    #[must_use]
    pub fn tool_with_each(
        mut self,
        name: impl Into<String>,
        calls: impl Fn(&Arguments) -> Result<Vec<ToolCall>, Denial> + Send + Sync + 'static,
    ) -> Self {
        self.tools.insert(name.into(), Rule::Of(Box::new(calls)));
        self
    }

    /// A tool that needs no token.
    #[must_use]
    pub fn open_tool(mut self, name: impl Into<String>) -> Self {
        self.tools.insert(name.into(), Rule::Open);
        self
    }

    /// Whether a tool needs no token.
    pub fn is_open(&self, name: &str) -> bool {
        matches!(self.tools.get(name), Some(Rule::Open))
    }

    /// The gate, for its counts.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Verifies the token in a request's `_meta` for this tool and these arguments, and spends it. The extension's part
    /// of `_meta` is taken away. An `Err` is the whole answer. Needs a tokio runtime with time enabled.
    ///
    /// # Errors
    ///
    /// The result to answer with, which says why in its `_meta`. The token may be spent or not; a refused call was not made.
    pub async fn admit(
        &self,
        name: &str,
        arguments: Arguments,
        meta: &mut Map<String, Value>,
    ) -> Result<Admitted, ToolResult> {
        let shown = match self.tools.get(name) {
            Some(Rule::Fixed(call)) => call.clone(),
            _ => ToolCall::new(name),
        };
        let refused = |denial: &Denial| ToolResult::refusal(&Denied::new(denial, &shown));
        let read = match RequestMeta::take(meta) {
            Ok(Some(read)) => read,
            Ok(None) => return Err(refused(&self.gate.refuse(Denial::token_absent()))),
            Err(denial) => return Err(refused(&self.gate.refuse(denial))),
        };
        self.decide(name, arguments, &read).await.map_err(|denial| refused(&denial))
    }

    async fn decide(&self, name: &str, arguments: Arguments, meta: &RequestMeta) -> Result<Admitted, Denial> {
        let refuse = |denial| self.gate.refuse(denial);
        let token = meta.token().expose().as_bytes();
        let proof = meta.proof().map_err(refuse)?;
        let with_proof = |call: ToolCall| match proof {
            Some(proof) => call.proof(proof),
            None => call,
        };
        let Some(sealed) = meta.sealed_arguments().map_err(refuse)? else {
            let calls = self.calls(name, &arguments).map_err(refuse)?;
            let calls = calls.into_iter().map(|call| with_proof(call.arguments(arguments.clone())));
            let token = self.admit_all(token, calls.collect()).await?;
            return Ok(Admitted { token, arguments, sealed: false });
        };
        if !arguments.is_empty() {
            let detail = "there are arguments in the clear beside sealed ones";
            return Err(refuse(Denial::malformed_request(detail)));
        }
        let seal = |call| with_proof(call).sealed_arguments(sealed.clone());
        let calls = self.calls_of_sealed(name, token, &seal)?.into_iter().map(seal).collect();
        let token = self.admit_all(token, calls).await?;
        let arguments = token.opened_arguments().cloned().unwrap_or_default();
        Ok(Admitted { token, arguments, sealed: true })
    }

    /// Spends the token for the last call, if it is good for all of them.
    async fn admit_all(&self, token: &[u8], mut calls: Vec<ToolCall>) -> Result<SpentToken, Denial> {
        let nothing = || self.gate.refuse(Denial::malformed_request("the arguments name nothing"));
        let last = calls.pop().ok_or_else(nothing)?;
        for call in calls {
            self.gate.check(token, &call)?;
        }
        self.gate.admit(token, &last).await
    }

    fn calls(&self, name: &str, arguments: &Arguments) -> Result<Vec<ToolCall>, Denial> {
        match self.tools.get(name) {
            Some(Rule::Fixed(call)) => Ok(vec![call.clone()]),
            Some(Rule::Of(calls_of)) => {
                calls_of(arguments)?.into_iter().map(|call| same_tool(name, call)).collect()
            }
            Some(Rule::Open) | None => Ok(vec![ToolCall::new(name)]),
        }
    }

    /// Where the call follows from arguments that are sealed, the token is verified once to open them, and then again
    /// for what they ask.
    fn calls_of_sealed(
        &self,
        name: &str,
        token: &[u8],
        seal: &dyn Fn(ToolCall) -> ToolCall,
    ) -> Result<Vec<ToolCall>, Denial> {
        if !matches!(self.tools.get(name), Some(Rule::Of(_))) {
            return self.calls(name, &Arguments::new());
        }
        let arguments = self.gate.open_arguments(token, &seal(ToolCall::new(name)))?;
        self.calls(name, &arguments).map_err(|denial| self.gate.refuse(denial))
    }
}

/// A rule must not lend one tool's tokens to another.
fn same_tool(name: &str, call: ToolCall) -> Result<ToolCall, Denial> {
    if call.tool() == name {
        return Ok(call);
    }
    Err(Denial::malformed_request("the rule of this tool is for another"))
}

impl Admitted {
    /// What the token allows. The tool must keep the limits that only it can keep.
    pub fn token(&self) -> &SpentToken {
        &self.token
    }

    /// The arguments, opened where they came sealed. The tool must use these and no others.
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }

    /// Whether the result will be sealed, and so must come in one piece.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The result as it may be sent: sealed where the arguments were. A result that cannot be sealed is replaced by an
    /// error that says nothing of it.
    pub fn finish(&self, result: ToolResult) -> ToolResult {
        if !self.sealed {
            return result;
        }
        match self.token.seal_response(&result.to_plaintext()) {
            Ok(sealed) => result.under_seal(&sealed),
            Err(error) => {
                tracing::error!(%error, "the result of a sealed call is not sent");
                ToolResult::error("The result could not be sealed")
            }
        }
    }
}
