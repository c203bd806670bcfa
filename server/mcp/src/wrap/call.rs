//! A call on its way: what a token is drawn for, and how it is put on.

use core::fmt;

use obol_resource::{PopProof, SealedMessage};

use super::{failed, stateless_advertising};
use crate::EXTENSION;
use crate::jsonrpc::{self, Id, TOOLS_CALL};
use crate::message::{RequestMeta, TokenText};
use crate::raw::RawObject;

/// What was drawn for a call.
#[derive(Debug)]
pub struct Drawn {
    /// The token.
    pub token: TokenText,
    /// The proof of possession, where the token asks for one.
    pub proof: Option<PopProof>,
    /// What seals the arguments and opens the result, where the token asks for that.
    pub channel: Option<Box<dyn Channel>>,
}

/// The channel of one token.
pub trait Channel: Send {
    /// Seals the arguments. `None` where they cannot be sealed.
    fn seal(&self, arguments: &[u8]) -> Option<SealedMessage>;
    /// Opens the result. `None` where it is not sealed for this token.
    fn open(&self, sealed: &SealedMessage) -> Option<Vec<u8>>;
}

impl fmt::Debug for dyn Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel([redacted])")
    }
}

/// What a call became.
#[derive(Debug)]
pub enum Sent {
    /// This goes to the server.
    ToServer(String),
    /// This goes back to the client.
    ToClient(String),
}

/// A call that may carry a token.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number that the server sees.
    id: Id,
    /// The client's own.
    client_id: Id,
    line: String,
    method: String,
    tool: String,
    arguments: String,
    stateless: bool,
    again: bool,
    /// What the server said to it the first time.
    refusal: Option<String>,
}

pub(super) struct Carried {
    pub(super) line: String,
    pub(super) channel: Option<Box<dyn Channel>>,
}

impl Call {
    /// Reads a request. `None` for one that carries the extension itself, or that no token can be put on.
    pub(super) fn of(line: &str, message: &RawObject<'_>, id: &Id, method: &str) -> Option<Self> {
        let params = message.get("params").unwrap_or("{}").to_owned();
        let mut params = RawObject::read(&params)?;
        if params.object("_meta").is_some_and(|meta| meta.get(EXTENSION).is_some()) {
            return None;
        }
        let stateless = jsonrpc::is_stateless(Some(&params));
        let (tool, arguments) = if method == TOOLS_CALL {
            let arguments = params.get("arguments").filter(|arguments| *arguments != "null").unwrap_or("{}");
            (params.text("name")?, arguments.to_owned())
        } else {
            params.remove("_meta");
            (method.to_owned(), params.write())
        };
        Some(Self {
            id: id.clone(),
            client_id: id.clone(),
            line: line.to_owned(),
            method: method.to_owned(),
            tool,
            arguments,
            stateless,
            again: false,
            refusal: None,
        })
    }

    /// The tool that a token is to be drawn for.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// The arguments as the client wrote them, which a proof is asked over.
    pub fn arguments(&self) -> &str {
        &self.arguments
    }

    pub(super) fn id(&self) -> &Id {
        &self.id
    }

    pub(super) fn client_id(&self) -> &Id {
        &self.client_id
    }

    pub(super) fn line(&self) -> &str {
        &self.line
    }

    pub(super) fn method(&self) -> &str {
        &self.method
    }

    pub(super) fn is_stateless(&self) -> bool {
        self.stateless
    }

    /// The same, to be made once more after a refusal.
    pub(super) fn again(self, refusal: String) -> Self {
        Self { again: true, refusal: Some(refusal), ..self }
    }

    pub(super) fn is_again(&self) -> bool {
        self.again
    }

    pub(super) fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    pub(super) fn renumber(&mut self, id: Id) {
        self.id = id;
    }

    /// The bytes that are kept for it.
    pub(super) fn kept_bytes(&self) -> usize {
        self.line.len() + self.arguments.len()
    }

    /// What the client is told where nothing was sent.
    pub(super) fn answer_with_error(&self, text: &str) -> String {
        if self.method == TOOLS_CALL {
            return jsonrpc::answer(&self.client_id, &failed(text, self.stateless));
        }
        jsonrpc::error(Some(&self.client_id), jsonrpc::REFUSED, text, None)
    }

    /// The request with a token on it. The error says why there is none.
    pub(super) fn carrying(&self, drawn: Drawn) -> Result<Carried, String> {
        let Drawn { token, proof, channel } = drawn;
        let mut meta = RequestMeta::new(token);
        if let Some(proof) = &proof {
            meta = meta.with_proof(proof);
        }
        if let Some(channel) = &channel {
            if self.method != TOOLS_CALL {
                return Err(format!(
                    "the grant for {} asks for sealed arguments, which only tools have",
                    self.method
                ));
            }
            let sealed = channel.seal(self.arguments.as_bytes());
            let sealed =
                sealed.ok_or("its arguments cannot be sealed: they are no object of at most 1 MiB")?;
            meta = meta.with_sealed_arguments(&sealed);
        }
        let line = self.with(&meta, channel.is_some()).ok_or("it cannot be read a second time")?;
        Ok(Carried { line, channel })
    }

    fn with(&self, meta: &RequestMeta, sealed: bool) -> Option<String> {
        let mut message = RawObject::read(&self.line)?;
        let params = message.get("params").unwrap_or("{}").to_owned();
        // Capabilities stand in `_meta` of each request, or nowhere.
        let params = stateless_advertising(&RawObject::read(&params)?).unwrap_or(params);
        let mut params = RawObject::read(&params)?;
        let own = params.get("_meta").filter(|meta| *meta != "null").unwrap_or("{}").to_owned();
        let mut own = RawObject::read(&own)?;
        own.set(EXTENSION, serde_json::to_string(meta).ok()?);
        params.set("_meta", own.write());
        if sealed {
            params.set("arguments", "{}");
        }
        message.set("params", params.write());
        message.set("id", self.id.to_string());
        Some(message.write())
    }
}
