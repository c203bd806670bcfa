//! What a transport over HTTP says of a message in headers of its own, from MCP 2026-07-28 on, and whether that is what the message
//! says: whoever routes, limits or allows by headers must not be told another call than the server reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::jsonrpc::{self, CANCELLED, Kind, PROTOCOL_VERSION, TOOLS_CALL};
use crate::raw::RawObject;

/// The header with the revision.
pub const VERSION_HEADER: &str = "mcp-protocol-version";
/// The header with the method.
pub const METHOD_HEADER: &str = "mcp-method";
/// The header with the name of the tool, of the prompt, or the address of the resource.
pub const NAME_HEADER: &str = "mcp-name";

/// The first revision whose requests say by themselves what they speak.
const FIRST_STATELESS: &str = "2026-07-28";
/// A date and nothing else.
const DATE_BYTES: usize = 10;
const ENCODED_BEGINS: &str = "=?base64?";
const ENCODED_ENDS: &str = "?=";

/// What of a message counts for a transport.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outline {
    /// The number of a request, as JSON.
    pub request: Option<String>,
    /// The number of the request that this answers, as JSON.
    pub answers: Option<String>,
    /// The code of the error that this answers with.
    pub error: Option<i32>,
    /// The revision that an answer to `initialize` agrees to.
    pub agreed: Option<String>,
    /// The method of a request or a notification.
    pub method: Option<String>,
    /// The revision that a request says it speaks.
    pub version: Option<String>,
    /// Which tool, prompt or resource it is about.
    pub name: Option<String>,
    /// The number of the request that a notification cancels, as JSON.
    pub cancels: Option<String>,
}

impl Outline {
    /// Reads a message. `None` for what is none.
    pub fn of(text: &str) -> Option<Self> {
        let message = RawObject::read(text)?;
        let mut outline = Self::default();
        match jsonrpc::kind(&message)? {
            Kind::Answer(id) => {
                outline.answers = Some(id.to_string());
                let error = message.object("error");
                outline.error = error.and_then(|error| error.get("code")?.parse().ok());
                outline.agreed = message.object("result").and_then(|result| result.text("protocolVersion"));
            }
            Kind::Notification(method) => outline.method = Some(method),
            Kind::Request(id, method) => {
                outline.request = Some(id.to_string());
                outline.method = Some(method);
            }
        }
        let params = message.object("params").unwrap_or_default();
        let method = outline.method.as_deref().unwrap_or_default();
        outline.version = params.object("_meta").and_then(|meta| meta.text(PROTOCOL_VERSION));
        outline.name = named_by(method).and_then(|member| params.text(member));
        if method == CANCELLED {
            outline.cancels = params.get("requestId").and_then(jsonrpc::Id::read).map(|id| id.to_string());
        }
        Some(outline)
    }

    /// Whether it says by itself what it speaks.
    pub fn is_stateless(&self) -> bool {
        self.version.is_some()
    }

    /// Whether headers say what the message says. `None` for one that is absent.
    ///
    /// # Errors
    ///
    /// Which one does not, in words.
    pub fn check(
        &self,
        version: Option<&str>,
        method: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), &'static str> {
        let needed = self.is_stateless() && self.request.is_some();
        if self.version.as_deref().is_some_and(|own| version != Some(own)) {
            return Err("the header MCP-Protocol-Version is not what the request says of itself in _meta");
        }
        if self.version.is_none() && self.request.is_some() && version.is_some_and(is_stateless_version) {
            return Err(
                "the header MCP-Protocol-Version names a revision that the request does not name in _meta",
            );
        }
        if (needed || method.is_some()) && method != self.method.as_deref() {
            return Err("the header Mcp-Method is not the method of the message");
        }
        let has_name = self.method.as_deref().and_then(named_by).is_some();
        let decoded = name.map(decoded);
        match decoded {
            None if needed && self.name.is_some() && is_required(self.method.as_deref()) => {
                Err("the header Mcp-Name is missing")
            }
            Some(decoded) if has_name && decoded != self.name => {
                Err("the header Mcp-Name is not what the request names")
            }
            _ => Ok(()),
        }
    }
}

/// Whether a revision is one whose requests say by themselves what they speak.
fn is_stateless_version(version: &str) -> bool {
    version.len() == DATE_BYTES && version >= FIRST_STATELESS
}

/// A name as it stands in a header: as it is, or encoded where that would not survive.
pub fn header_value(name: &str) -> String {
    let is_safe = name.bytes().all(|byte| matches!(byte, b' '..=b'~')) && name.trim() == name;
    if is_safe && !(name.starts_with(ENCODED_BEGINS) && name.ends_with(ENCODED_ENDS)) {
        return name.to_owned();
    }
    format!("{ENCODED_BEGINS}{}{ENCODED_ENDS}", STANDARD.encode(name))
}

/// The name that a header's value stands for. `None` for what nobody writes so.
fn decoded(value: &str) -> Option<String> {
    let inside = value.strip_prefix(ENCODED_BEGINS).and_then(|rest| rest.strip_suffix(ENCODED_ENDS));
    let Some(inside) = inside else { return Some(value.to_owned()) };
    String::from_utf8(STANDARD.decode(inside).ok()?).ok()
}

/// The parameter that names what a request is about.
fn named_by(method: &str) -> Option<&'static str> {
    match method {
        TOOLS_CALL | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => Some("taskId"),
        _ => None,
    }
}

/// Whether the name must stand in a header. With tasks, which are an extension, not all clients do so.
fn is_required(method: Option<&str>) -> bool {
    matches!(method, Some(TOOLS_CALL | "prompts/get" | "resources/read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = "2026-07-28";

    fn outline(version: Option<&str>, method: &str, params: &str) -> Outline {
        let meta = version.map(|version| format!("\"_meta\":{{\"{PROTOCOL_VERSION}\":\"{version}\"}},"));
        let meta = meta.unwrap_or_default();
        let text =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"{method}\",\"params\":{{{meta}{params}}}}}");
        Outline::of(&text).unwrap()
    }

    #[test]
    fn headers_must_say_what_a_stateless_request_says() {
        let call = outline(Some(MODERN), TOOLS_CALL, "\"name\":\"pay\"");
        assert!(call.is_stateless() && call.request.as_deref() == Some("7"));
        assert_eq!(call.check(Some(MODERN), Some(TOOLS_CALL), Some("pay")), Ok(()));
        assert_eq!(call.check(Some(MODERN), Some(TOOLS_CALL), Some("=?base64?cGF5?=")), Ok(()));
        for (version, method, name) in [
            (None, Some(TOOLS_CALL), Some("pay")),
            (Some("2025-11-25"), Some(TOOLS_CALL), Some("pay")),
            (Some(MODERN), None, Some("pay")),
            (Some(MODERN), Some("ping"), Some("pay")),
            (Some(MODERN), Some("Tools/call"), Some("pay")),
            (Some(MODERN), Some(TOOLS_CALL), None),
            (Some(MODERN), Some(TOOLS_CALL), Some("add")),
            (Some(MODERN), Some(TOOLS_CALL), Some("Pay")),
            (Some(MODERN), Some(TOOLS_CALL), Some("=?base64?cGF5")),
            (Some(MODERN), Some(TOOLS_CALL), Some("=?base64?cGF=?=")),
        ] {
            assert!(call.check(version, method, name).is_err(), "{version:?} {method:?} {name:?}");
        }
        let list = outline(Some(MODERN), "tools/list", "\"cursor\":\"a\"");
        assert_eq!(list.check(Some(MODERN), Some("tools/list"), None), Ok(()));
    }

    #[test]
    fn headers_of_an_older_request_may_be_absent_and_must_not_be_wrong() {
        let call = outline(None, TOOLS_CALL, "\"name\":\"pay\"");
        assert_eq!(call.check(None, None, None), Ok(()));
        assert_eq!(call.check(Some("2025-11-25"), None, None), Ok(()));
        assert_eq!(call.check(Some("2025-11-25"), Some(TOOLS_CALL), Some("pay")), Ok(()));
        assert!(call.check(Some(MODERN), Some(TOOLS_CALL), Some("pay")).is_err());
        assert!(call.check(None, Some("ping"), None).is_err());
        assert!(call.check(None, None, Some("add")).is_err());
    }

    #[test]
    fn names_survive_a_header() {
        for name in ["pay", "a b", " a", "a ", "é", "=?base64?YQ==?=", "a\r\nb: c", ""] {
            let value = header_value(name);
            assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{value}");
            assert_eq!(decoded(&value).as_deref(), Some(name), "{value}");
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let answer = Outline::of(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#).unwrap();
        assert_eq!((answer.answers.as_deref(), answer.request), (Some("\"a\""), None));
        let answer = Outline::of(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601}}"#).unwrap();
        assert_eq!((answer.error, answer.agreed), (Some(-32_601), None));
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#;
        assert_eq!(Outline::of(answer).unwrap().agreed.as_deref(), Some("2025-11-25"));
        let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
        assert_eq!(Outline::of(cancel).unwrap().cancels.as_deref(), Some("3"));
        for none in ["", "[]", "{}", r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#] {
            assert_eq!(Outline::of(none), None, "{none}");
        }
    }
}
