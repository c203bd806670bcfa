//! What a call ends with: `CallToolResult`, refusals included (TBAC r41, sections 5, 6 and 10.2).

use obol_resource::{EncField, SealedMessage, ToolCall};
use obol_token::ChannelKeys;
use obol_verify::{Code, Denial};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::EXTENSION;

/// MCP's `CallToolResult`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// What the tool says, as content blocks.
    #[serde(default)]
    pub content: Vec<Value>,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured_content: Option<Value>,
    /// Whether it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// What extensions add.
    #[serde(default, rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

/// Why a call was refused, for programs: the extension's part of a result's `_meta`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Denied {
    /// True.
    pub denied: bool,
    /// The code, as in [`obol_verify::Code`].
    pub reason: String,
    /// The check that failed, as in [`obol_verify::FailedCheck`].
    pub failed_check: String,
    /// Where there was no token: the tool that one is needed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// And the action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// and the resource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Denied {
    /// The refusal of a call. Which token would have been needed is said only where there was none: whoever holds a
    /// token for something else learns nothing about this.
    pub fn new(denial: &Denial, call: &ToolCall) -> Self {
        let absent = denial.code == Code::TbacRequired;
        let told = |text: Option<&str>| text.filter(|_| absent).map(str::to_owned);
        Self {
            denied: true,
            reason: denial.code.as_str().to_owned(),
            failed_check: denial.failed_check.as_str().to_owned(),
            tool: told(Some(call.tool())),
            action: told(call.requested_action()),
            resource: told(call.requested_resource()),
            hint: told(Some("Draw a token for this tool from the local token queue and call again")),
        }
    }

    /// The refusal in a result, as a client reads it. `None` if the result is not a refusal.
    pub fn of(result: &ToolResult) -> Option<Self> {
        let denied: Self = obol_secret::json::read_part(result.meta.as_ref()?.get(EXTENSION)?)?;
        (denied.denied && result.is_error == Some(true)).then_some(denied)
    }
}

impl ToolResult {
    /// A result of one text.
    pub fn text(text: impl Into<String>) -> Self {
        let content = vec![json!({"type": "text", "text": text.into()})];
        Self { content, is_error: Some(false), ..Self::default() }
    }

    /// A failure in one text.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: Some(true), ..Self::text(text) }
    }

    /// A refusal.
    pub fn refusal(denied: &Denied) -> Self {
        let mut result = Self::error(format!("The call is refused: {}", denied.reason));
        result.meta = Some(Map::from_iter([(EXTENSION.to_owned(), json!(denied))]));
        result
    }

    /// What is sealed of a result: everything that the tool says (section 10.2).
    pub(crate) fn to_plaintext(&self) -> Vec<u8> {
        let is_error = Some(self.is_error.unwrap_or(false));
        json!(Self { is_error, meta: None, ..self.clone() }).to_string().into_bytes()
    }

    /// This result with its contents under seal. `isError` and what other extensions added stay as they are.
    pub(crate) fn under_seal(self, sealed: &SealedMessage) -> Self {
        let mut meta = self.meta.unwrap_or_default();
        meta.insert(EXTENSION.to_owned(), json!({"enc": EncField::new(sealed)}));
        Self {
            content: vec![json!({"type": "text", "text": "encrypted"})],
            structured_content: None,
            is_error: Some(self.is_error.unwrap_or(false)),
            meta: Some(meta),
        }
    }

    /// What a client reads from a sealed result, under the nonce that the server took for it, be it random or the token's
    /// own (section 10.4). Whether the call failed is told by the result itself (section 10.2).
    ///
    /// # Errors
    ///
    /// A denial if the result is not sealed for this token, or was changed.
    pub fn open(self, keys: &ChannelKeys) -> Result<Self, Denial> {
        let unreadable = || Denial::malformed_request("the result is not sealed for this token");
        let mut meta = self.meta.unwrap_or_default();
        let sealed = meta.remove(EXTENSION).and_then(|mut meta| meta.get_mut("enc").map(Value::take));
        let sealed: EncField = sealed.and_then(obol_secret::json::read_part).ok_or_else(unreadable)?;
        let sealed = sealed.message()?;
        if sealed.algorithm() != Some(keys.algorithm()) {
            return Err(unreadable());
        }
        let plaintext = keys.open_response(sealed.iv(), sealed.ciphertext()).map_err(|_| unreadable())?;
        let opened: Self = obol_secret::json::parse(&plaintext).map_err(|_| unreadable())?;
        let meta = (!meta.is_empty()).then_some(meta);
        Ok(Self { is_error: self.is_error, meta, ..opened })
    }
}
