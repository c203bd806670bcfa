//! What a line between a client and a server is: a request, a notification, or an answer.

use core::fmt;

use obol_secret::json;

use crate::raw::{RawObject, quoted};
use crate::result::ToolResult;

/// The method that calls a tool.
pub(crate) const TOOLS_CALL: &str = "tools/call";
pub(crate) const INITIALIZE: &str = "initialize";
pub(crate) const DISCOVER: &str = "server/discover";
pub(crate) const TOOLS_LIST: &str = "tools/list";
pub(crate) const CANCELLED: &str = "notifications/cancelled";

/// In `_meta` of each request, from MCP 2026-07-28 on.
pub(crate) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The same.
pub(crate) const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// Codes of JSON-RPC.
pub(crate) const PARSE_ERROR: i32 = -32700;
pub(crate) const INVALID_REQUEST: i32 = -32600;
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// A request of another method than `tools/call` that is refused. Outside of what JSON-RPC and MCP reserve.
pub(crate) const REFUSED: i32 = 403;

/// The number of a request. Texts and numbers are never the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Id {
    Text(String),
    Number(i128),
}

impl Id {
    /// Reads a text or a whole number.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.starts_with('"') {
            return json::parse(text.as_bytes()).ok().map(Self::Text);
        }
        text.parse::<i128>().ok().filter(|_| !text.starts_with('+')).map(Self::Number)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// What a message is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Request(Id, String),
    Notification(String),
    Answer(Id),
}

/// The kind of a message; `None` for what is no message of JSON-RPC, or could be taken for two kinds of it.
pub(crate) fn kind(message: &RawObject<'_>) -> Option<Kind> {
    let is_known = |name: &str| matches!(name, "jsonrpc" | "id" | "method" | "params" | "result" | "error");
    if message.text("jsonrpc")? != "2.0" || !message.names().all(is_known) {
        return None;
    }
    let id = match message.get("id") {
        Some(id) => Some(Id::read(id)?),
        None => None,
    };
    let answers = [message.get("result"), message.get("error")].into_iter().flatten().count();
    match (id, message.get("method"), answers) {
        (Some(id), Some(_), 0) => Some(Kind::Request(id, message.text("method")?)),
        (None, Some(_), 0) => Some(Kind::Notification(message.text("method")?)),
        (Some(id), None, 1) if message.get("params").is_none() => Some(Kind::Answer(id)),
        _ => None,
    }
}

/// The number of what can only be an answer, be it well-formed otherwise or not.
pub(crate) fn answered(message: &RawObject<'_>) -> Option<Id> {
    message.get("id").filter(|_| message.get("method").is_none()).and_then(Id::read)
}

/// An answer with this result.
pub(crate) fn answer(id: &Id, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

/// An answer with an error. `id` is absent where it could not be read.
pub(crate) fn error(id: Option<&Id>, code: i32, message: &str, data: Option<&str>) -> String {
    let id = id.map_or_else(|| "null".to_owned(), ToString::to_string);
    let data = data.map_or_else(String::new, |data| format!(",\"data\":{data}"));
    let message = quoted(message);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}{data}}}}}")
}

/// Whether a request says by itself what it speaks, as from MCP 2026-07-28 on. Results then name their type.
pub(crate) fn is_stateless(params: Option<&RawObject<'_>>) -> bool {
    params.and_then(|params| params.object("_meta")).is_some_and(|meta| meta.get(PROTOCOL_VERSION).is_some())
}

/// A tool's result as it stands in an answer. Its type is named where the request speaks MCP 2026-07-28 or later; older ones must
/// not be sent it.
pub(crate) fn result_text(result: &ToolResult, stateless: bool) -> String {
    let text = serde_json::json!(result).to_string();
    let Some(mut result) = RawObject::read(&text).filter(|_| stateless) else { return text };
    result.set("resultType", quoted("complete"));
    result.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Kind> {
        kind(&RawObject::read(text)?)
    }

    #[test]
    fn each_message_is_of_one_kind() {
        assert_eq!(
            of(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
            Some(Kind::Request(Id::Number(1), "ping".to_owned()))
        );
        assert_eq!(
            of(r#"{"id":"1","method":"p\u0069ng","params":{},"jsonrpc":"2.0"}"#),
            Some(Kind::Request(Id::Text("1".to_owned()), "ping".to_owned()))
        );
        assert_eq!(of(r#"{"jsonrpc":"2.0","method":"a"}"#), Some(Kind::Notification("a".to_owned())));
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":-7,"result":{}}"#), Some(Kind::Answer(Id::Number(-7))));
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":7,"error":{}}"#), Some(Kind::Answer(Id::Number(7))));
    }

    #[test]
    fn what_two_readers_could_take_for_two_things_is_none() {
        for text in [
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":["ping"]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","ID":2}"#,
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn answers_keep_the_number_they_are_for() {
        for (id, text) in [("7", "7"), ("\"a\\\"b\"", "\"a\\\"b\""), ("-1", "-1")] {
            let id = Id::read(id).unwrap();
            assert_eq!(answer(&id, "{}"), format!("{{\"jsonrpc\":\"2.0\",\"id\":{text},\"result\":{{}}}}"));
        }
        assert_ne!(Id::read("1"), Id::read("\"1\""));
        let said = error(None, PARSE_ERROR, "no", Some("{}"));
        assert_eq!(said, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no","data":{}}}"#);
    }
}
