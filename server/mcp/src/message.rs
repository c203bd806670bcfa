//! `tools/call` and what travels in its `_meta` (TBAC r41, sections 4.2 and 10.1).

use core::fmt;

use obol_resource::{EncField, PopField, PopProof, SealedMessage};
use obol_secret::json::{self, Bounds};
use obol_verify::Denial;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::result::ToolResult;
use crate::{EXTENSION, TOKEN_FORMAT};

/// A token as it travels. Not printed, and wiped when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct TokenText(String);

impl TokenText {
    /// Takes base64url without padding. What it is worth is up to whoever verifies it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token. It must not end up in a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText([redacted])")
    }
}

/// The extension's part of a request's `_meta`.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestMeta {
    token: TokenText,
    format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pop: Option<PopField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enc: Option<EncField>,
}

impl RequestMeta {
    /// What a client sends with a token.
    pub fn new(token: TokenText) -> Self {
        Self { token, format: TOKEN_FORMAT.to_owned(), pop: None, enc: None }
    }

    /// With a proof of possession.
    #[must_use]
    pub fn with_proof(mut self, proof: &PopProof) -> Self {
        self.pop = Some(PopField::new(proof));
        self
    }

    /// With sealed arguments: the JSON of `params.arguments`, which is then the empty object.
    #[must_use]
    pub fn with_sealed_arguments(mut self, arguments: &SealedMessage) -> Self {
        self.enc = Some(EncField::new(arguments));
        self
    }

    /// Puts this into a request's `_meta`.
    pub fn attach(&self, meta: &mut Map<String, Value>) {
        meta.insert(EXTENSION.to_owned(), json!(self));
    }

    /// Takes this out of a request's `_meta`, so that it goes no further. `None` where the client sent none, and where what
    /// it sent is empty.
    ///
    /// # Errors
    ///
    /// A denial if the extension's part is malformed. It is taken away all the same.
    pub fn take(meta: &mut Map<String, Value>) -> Result<Option<Self>, Denial> {
        let value = meta.remove(EXTENSION).unwrap_or_default();
        match &value {
            Value::Null => return Ok(None),
            Value::Object(fields) if fields.is_empty() => return Ok(None),
            Value::Object(_) => {}
            _ => return Err(Denial::malformed_request("the extension's _meta is not an object")),
        }
        // The error of serde could repeat what it found.
        let read: Self = json::read_part(value).ok_or_else(|| {
            Denial::malformed_request("a field of the extension's _meta is missing or wrong")
        })?;
        if read.format != TOKEN_FORMAT {
            return Err(Denial::malformed_request("the token's format is not \"opaque\""));
        }
        Ok(Some(read))
    }

    /// The token.
    pub fn token(&self) -> &TokenText {
        &self.token
    }

    /// The proof of possession, if there is one.
    ///
    /// # Errors
    ///
    /// A denial if its algorithm is not Ed25519, or the signature is not 64 bytes in base64url.
    pub fn proof(&self) -> Result<Option<PopProof>, Denial> {
        self.pop.as_ref().map(PopField::proof).transpose()
    }

    /// The sealed arguments, if they are sealed.
    ///
    /// # Errors
    ///
    /// A denial if the algorithm is unknown, a field is not base64url, or the message has an impossible length.
    pub fn sealed_arguments(&self) -> Result<Option<SealedMessage>, Denial> {
        self.enc.as_ref().map(EncField::message).transpose()
    }
}

/// A `tools/call`, for servers that have no SDK.
#[derive(Debug)]
pub struct ToolsCall {
    id: Value,
    /// The tool.
    pub name: String,
    /// `params.arguments`; empty where absent.
    pub arguments: Map<String, Value>,
    /// `params._meta`; empty where absent.
    pub meta: Map<String, Value>,
}

/// Why bytes are no `tools/call`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CallReadError {
    /// It is another method, which is somebody else's to answer.
    OtherMethod,
    /// It is no JSON-RPC request, or not one with these parameters. The text repeats nothing of it.
    Malformed(String),
}

impl fmt::Display for CallReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMethod => f.write_str("the method is not tools/call"),
            Self::Malformed(problem) => write!(f, "no tools/call: {problem}"),
        }
    }
}

impl core::error::Error for CallReadError {}

impl ToolsCall {
    pub(crate) const METHOD: &str = "tools/call";

    /// Reads a JSON-RPC request.
    ///
    /// # Errors
    ///
    /// [`CallReadError::OtherMethod`] for requests that are somebody else's to answer, otherwise [`CallReadError::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, CallReadError> {
        #[derive(Deserialize)]
        struct Head {
            jsonrpc: String,
            id: Value,
            method: String,
            #[serde(default)]
            params: Value,
        }
        #[derive(Deserialize)]
        struct Params {
            name: String,
            #[serde(default)]
            arguments: Option<Map<String, Value>>,
            #[serde(default, rename = "_meta")]
            meta: Option<Map<String, Value>>,
        }
        let malformed = |problem: &str| CallReadError::Malformed(problem.to_owned());
        let head: Head = json::parse_within(bytes, Bounds::REQUEST)
            .map_err(|error| CallReadError::Malformed(error.to_string()))?;
        if head.jsonrpc != "2.0" || !(head.id.is_string() || head.id.is_i64() || head.id.is_u64()) {
            return Err(malformed("no JSON-RPC 2.0 request with a string or an integer for an id"));
        }
        if head.method != Self::METHOD {
            return Err(CallReadError::OtherMethod);
        }
        let params: Params =
            json::read_part(head.params).ok_or_else(|| malformed("a parameter is missing or wrong"))?;
        Ok(Self {
            id: head.id,
            name: params.name,
            arguments: params.arguments.unwrap_or_default(),
            meta: params.meta.unwrap_or_default(),
        })
    }

    /// The answer to this request, with its own id.
    pub fn answer(&self, result: &ToolResult) -> Value {
        json!({"jsonrpc": "2.0", "id": self.id, "result": result})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(meta: &Value) -> Result<Option<RequestMeta>, Denial> {
        RequestMeta::take(&mut json!({EXTENSION: meta, "other": 1}).as_object().unwrap().clone())
    }

    #[test]
    fn what_a_client_attaches_a_server_reads_and_takes_away() {
        let mut meta = json!({"progressToken": 1}).as_object().unwrap().clone();
        let proof = PopProof::from_bytes([1; 64]);
        let sealed = SealedMessage::new([2; 12], vec![3; 20]).unwrap();
        let sent = RequestMeta::new(TokenText::new("abc")).with_proof(&proof).with_sealed_arguments(&sealed);
        sent.attach(&mut meta);
        assert_eq!(meta[EXTENSION]["format"], "opaque");
        assert_eq!(meta[EXTENSION]["pop"]["alg"], "Ed25519");
        let read = RequestMeta::take(&mut meta).unwrap().unwrap();
        assert_eq!(read.token().expose(), "abc");
        assert_eq!(read.proof(), Ok(Some(proof)));
        assert_eq!(read.sealed_arguments(), Ok(Some(sealed.of_algorithm("AES-256-GCM"))));
        assert_eq!(Value::Object(meta), json!({"progressToken": 1}));
        assert!(!format!("{read:?}").contains("abc"));
    }

    #[test]
    fn absent_is_not_malformed() {
        assert!(RequestMeta::take(&mut Map::new()).unwrap().is_none());
        for empty in [Value::Null, json!({})] {
            assert!(read(&empty).unwrap().is_none(), "{empty}");
        }
        for meta in [
            json!("secret"),
            json!([]),
            json!(false),
            json!({"token": "secret"}),
            json!({"token": ["secret"], "format": "opaque"}),
            json!({"token": "secret", "format": "jose"}),
            json!({"token": "secret", "format": "opaque", "pop": "secret"}),
            json!({"token": "secret", "format": "opaque", "enc": {"alg": "AES-256-GCM", "iv": "secret"}}),
        ] {
            let denial = read(&meta).unwrap_err();
            assert_eq!(denial.code.as_str(), "MALFORMED_REQUEST", "{meta}");
            assert!(!denial.detail.contains("secret"));
        }
    }

    #[test]
    fn a_call_is_answered_under_its_own_id() {
        for id in [json!(7), json!("seven"), json!(-1)] {
            let request =
                json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "search"}});
            let call = ToolsCall::from_json(request.to_string().as_bytes()).unwrap();
            assert_eq!((call.name.as_str(), call.arguments.len(), call.meta.len()), ("search", 0, 0));
            let answer = call.answer(&ToolResult::text("done"));
            assert_eq!(answer["id"], id);
            assert_eq!(answer["result"]["content"][0]["text"], "done");
        }
    }

    #[test]
    fn other_messages_are_no_calls() {
        let read = |request: Value| ToolsCall::from_json(request.to_string().as_bytes()).unwrap_err();
        let other = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        assert_eq!(read(other), CallReadError::OtherMethod);
        for request in [
            json!([]),
            json!({"jsonrpc": "1.0", "id": 1, "method": "tools/call", "params": {"name": "a"}}),
            json!({"jsonrpc": "2.0", "id": null, "method": "tools/call", "params": {"name": "a"}}),
            json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a"}}),
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}),
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "arguments": [1]}}),
        ] {
            assert!(matches!(read(request.clone()), CallReadError::Malformed(_)), "{request}");
        }
    }
}
