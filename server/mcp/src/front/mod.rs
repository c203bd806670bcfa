//! The server's side of the extension, for servers that know nothing of it: line by line, without a socket.
//!
//! [`Front`] is shown each line that a client and its server say to each other, and says what becomes of it.
//!
//! | line | what becomes of it |
//! |---|---|
//! | `tools/call` | goes on once its token is spent, without the extension; else it is refused by a result |
//! | a method that the rules guard | the same, refused by an error |
//! | any other method of MCP, and what the rules let pass | goes on, without a token that may be in it |
//! | anything else | is refused: what nobody knows here, the server may know |
//! | an answer to `initialize`, `server/discover` | names the extension |
//! | an answer to `tools/list` | without what no session was granted, if the rules say so |
//! | an answer to a call with sealed arguments | sealed, or an error in its place |
//!
//! Client and server must not read one line in two ways. So a line of the client is JSON to the letter, without a name that
//! stands twice anywhere, and no member is the same as one that counts but for its case. What was checked is what goes on:
//! arguments are written anew. And no sign is left in a line that some reader takes for the end of it.

mod answers;
mod waiting;

use core::fmt;
use std::sync::Arc;

use obol_resource::Gate;
use obol_resource::fold::same_but_for_case;
use obol_secret::json::{self, Bounds};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::waiting::{Waiting, WaitingTable};
use crate::EXTENSION;
use crate::guard::{Admitted, ToolGuard};
use crate::jsonrpc::{
    self, DISCOVER, INITIALIZE, INVALID_PARAMS, INVALID_REQUEST, Id, Kind, METHOD_NOT_FOUND, PARSE_ERROR,
    REFUSED, TOOLS_CALL, TOOLS_LIST,
};
use crate::raw::{RawObject, quoted};
use crate::result::ToolResult;
use crate::rules::Rules;

/// What counts among the parameters of a request here.
const COUNTS: [&str; 3] = ["name", "arguments", "_meta"];

/// What becomes of a line of the client.
#[derive(PartialEq, Eq, Debug)]
pub enum FromClient {
    /// This goes to the server.
    Send(String),
    /// It goes no further; this is the answer to the client.
    Answer(String),
    /// It goes no further, and has no answer.
    Drop,
}

/// What becomes of a line of the server.
#[derive(PartialEq, Eq, Debug)]
pub enum FromServer {
    /// It goes on as it is.
    Pass,
    /// This goes on in its place.
    Tell(String),
    /// It goes no further: it cannot be read, and may hold what must not leave in the clear.
    Drop,
}

/// Whether some session was granted a tool.
pub type Granted = dyn Fn(&str) -> bool + Send + Sync;

/// What stands in front of a server that knows nothing of the extension: what one connection says to it.
pub struct Front {
    shared: Arc<Shared>,
    waiting: Mutex<WaitingTable>,
}

/// What is the same for all connections.
struct Shared {
    guard: ToolGuard,
    rules: Rules,
    granted: Box<Granted>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("guard", &self.shared.guard)
            .field("rules", &self.shared.rules)
            .finish_non_exhaustive()
    }
}

/// A document that is read only to see whether it can be.
#[derive(Deserialize)]
struct Whole {}

type Refused = (i32, &'static str);

impl Front {
    /// For one connection. `granted` is asked for each tool of `tools/list`, where the rules hide what is not.
    pub fn new(guard: ToolGuard, rules: Rules, granted: Box<Granted>) -> Self {
        let shared = Shared { guard: rules.tell(guard), rules, granted };
        Self { shared: Arc::new(shared), waiting: Mutex::default() }
    }

    /// The same for another connection.
    #[must_use]
    pub fn for_another(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), waiting: Mutex::default() }
    }

    /// The gate, for its counts.
    pub fn gate(&self) -> &Gate {
        self.shared.guard.gate()
    }

    /// Says that no answer is expected any more to a line that was sent, for transports that know that. One that must not leave in the
    /// clear is waited for all the same.
    pub fn give_up(&self, line: &str) {
        let message = RawObject::read(line);
        if let Some(Kind::Request(id, _)) = message.as_ref().and_then(jsonrpc::kind) {
            self.waiting.lock().forget(&id);
        }
    }

    /// Looks at a line of the client, without its end. Needs a tokio runtime with time enabled.
    pub async fn from_client(&self, line: &[u8]) -> FromClient {
        match self.looked_at(line).await {
            // It may repeat a name of the client's.
            FromClient::Answer(answer) => FromClient::Answer(one_line(answer)),
            other => other,
        }
    }

    async fn looked_at(&self, line: &[u8]) -> FromClient {
        if line.iter().all(u8::is_ascii_whitespace) {
            return FromClient::Drop;
        }
        let Ok(text) = str::from_utf8(line) else {
            return FromClient::Answer(jsonrpc::error(None, PARSE_ERROR, "The line is not UTF-8", None));
        };
        if let Err(error) = json::parse_within::<Whole>(line, Bounds::REQUEST) {
            let message = format!("The line is not one message that can be read one way only: {error}");
            return FromClient::Answer(jsonrpc::error(None, PARSE_ERROR, &message, None));
        }
        let message = RawObject::read(text).unwrap_or_default();
        match jsonrpc::kind(&message) {
            Some(Kind::Request(id, method)) => {
                let answer = self.request(text, &message, &id, &method).await;
                answer.unwrap_or_else(|(code, why)| {
                    FromClient::Answer(jsonrpc::error(Some(&id), code, why, None))
                })
            }
            Some(Kind::Notification(method)) => notification(text, &message, &method),
            Some(Kind::Answer(_)) => FromClient::Send(one_line(text.to_owned())),
            None => {
                let why = "The line is not one message of JSON-RPC 2.0, or can be read in two ways";
                let id = message.get("id").and_then(Id::read);
                FromClient::Answer(jsonrpc::error(id.as_ref(), INVALID_REQUEST, why, None))
            }
        }
    }

    /// Whether one more request may wait, under this number.
    fn has_room(&self, id: &Id) -> Result<(), Refused> {
        let waits = self.waiting.lock();
        if waits.holds(id) {
            return Err((INVALID_REQUEST, "The number is that of a request which waits for its answer"));
        }
        if waits.is_full() {
            return Err((INVALID_REQUEST, "Too many requests wait for an answer"));
        }
        Ok(())
    }

    async fn request(
        &self,
        text: &str,
        message: &RawObject<'_>,
        id: &Id,
        method: &str,
    ) -> Result<FromClient, Refused> {
        self.has_room(id)?;
        let parameters = Parameters::read(message)?;
        let stateless = jsonrpc::is_stateless(Some(&parameters.params));
        if method == TOOLS_CALL {
            return self.call_tool(message, id, parameters, stateless).await;
        }
        if self.shared.rules.guards(method) {
            let sent = self.guarded_method(message, id, method, parameters).await?;
            self.expect(id, method, stateless);
            return Ok(sent);
        }
        if !self.shared.rules.lets_pass(method) {
            return Err((METHOD_NOT_FOUND, "The guard lets no such method pass"));
        }
        self.expect(id, method, stateless);
        Ok(FromClient::Send(one_line(if parameters.extension.is_none() {
            text.to_owned()
        } else {
            parameters.write(message)
        })))
    }

    /// Notes what is to be done with the answer.
    fn expect(&self, id: &Id, method: &str, stateless: bool) {
        let waiting = match method {
            INITIALIZE => Waiting::Initialize,
            DISCOVER => Waiting::Discover,
            TOOLS_LIST if self.shared.rules.hides() => Waiting::List,
            _ => return,
        };
        self.waiting.lock().insert(id.clone(), waiting, stateless);
    }

    async fn call_tool(
        &self,
        message: &RawObject<'_>,
        id: &Id,
        mut parameters: Parameters<'_>,
        stateless: bool,
    ) -> Result<FromClient, Refused> {
        let name = parameters.params.text("name").ok_or((INVALID_PARAMS, "The tool has no name"))?;
        let arguments = parameters.arguments()?;
        if self.shared.guard.is_open(&name) {
            return Ok(FromClient::Send(one_line(parameters.write(message))));
        }
        let mut meta = parameters.take_extension();
        match self.shared.guard.admit(&name, arguments, &mut meta).await {
            Ok(admitted) => {
                parameters.set_arguments(&admitted);
                let line = one_line(parameters.write(message));
                if admitted.is_sealed() {
                    let waiting = Waiting::Sealed(Box::new(admitted));
                    self.waiting.lock().insert(id.clone(), waiting, stateless);
                }
                Ok(FromClient::Send(line))
            }
            Err(refusal) => {
                Ok(FromClient::Answer(jsonrpc::answer(id, &jsonrpc::result_text(&refusal, stateless))))
            }
        }
    }

    /// A method that the rules guard is a tool of its own name. Its arguments are its parameters.
    async fn guarded_method(
        &self,
        message: &RawObject<'_>,
        id: &Id,
        method: &str,
        mut parameters: Parameters<'_>,
    ) -> Result<FromClient, Refused> {
        let mut meta = parameters.take_extension();
        let sealed = meta.get(EXTENSION).and_then(|meta| meta.get("enc")).is_some_and(|enc| !enc.is_null());
        if sealed {
            return Err((INVALID_PARAMS, "Only the arguments of tools can be sealed"));
        }
        let arguments = parameters.all()?;
        match self.shared.guard.admit(method, arguments, &mut meta).await {
            Ok(admitted) => {
                Ok(FromClient::Send(one_line(parameters.write_all(message, admitted.arguments()))))
            }
            Err(refusal) => Ok(FromClient::Answer(refused(id, &refusal))),
        }
    }

    /// Looks at a line of the server, without its end.
    pub fn from_server(&self, line: &[u8]) -> FromServer {
        let mut waits = self.waiting.lock();
        if waits.is_empty() {
            return FromServer::Pass;
        }
        let message = str::from_utf8(line).ok().and_then(RawObject::read);
        let id = message.as_ref().and_then(jsonrpc::answered);
        let Some((message, id)) = message.as_ref().zip(id) else {
            // A request or a notification of the server has a method.
            let is_other = message.is_some_and(|message| message.text("method").is_some());
            let harmless = is_other || !waits.holds_sealed() || line.iter().all(u8::is_ascii_whitespace);
            return if harmless { FromServer::Pass } else { FromServer::Drop };
        };
        let Some((waiting, stateless)) = waits.take(&id) else { return FromServer::Pass };
        drop(waits);
        let told = match waiting {
            Waiting::Initialize => answers::advertising(message, self.shared.guard.gate().verifier(), false),
            Waiting::Discover => answers::advertising(message, self.shared.guard.gate().verifier(), true),
            Waiting::List => {
                let shown = |tool: &str| self.shared.guard.is_open(tool) || (self.shared.granted)(tool);
                answers::without_hidden(message, &shown)
            }
            Waiting::Sealed(admitted) => Some(answers::sealed(message, &id, &admitted, stateless)),
        };
        told.map_or(FromServer::Pass, FromServer::Tell)
    }
}

/// What a client is told whose line is longer than that.
pub fn too_long(most_bytes: usize) -> String {
    let message = format!("The line is longer than {most_bytes} bytes");
    jsonrpc::error(None, INVALID_REQUEST, &message, None)
}

/// A notification passes if it is one of MCP's kind. One that calls something by not asking for an answer does not.
fn notification(text: &str, message: &RawObject<'_>, method: &str) -> FromClient {
    if !method.starts_with("notifications/") {
        tracing::warn!("dropped a notification that MCP does not define");
        return FromClient::Drop;
    }
    match Parameters::read(message) {
        Ok(parameters) if parameters.extension.is_none() => FromClient::Send(one_line(text.to_owned())),
        Ok(parameters) => FromClient::Send(one_line(parameters.write(message))),
        Err(_) => FromClient::Drop,
    }
}

/// The refusal of a request that has no result to say it in.
fn refused(id: &Id, refusal: &ToolResult) -> String {
    let denied = refusal.meta.as_ref().and_then(|meta| meta.get(EXTENSION));
    let reason = denied.and_then(|denied| denied.get("reason")).and_then(Value::as_str).unwrap_or_default();
    let data = refusal.meta.as_ref().map(|meta| Value::Object(meta.clone()).to_string());
    jsonrpc::error(Some(id), REFUSED, &format!("The request is refused: {reason}"), data.as_deref())
}

/// What a request says, and the extension's part of it, taken out.
struct Parameters<'a> {
    there: bool,
    params: RawObject<'a>,
    extension: Option<String>,
}

impl<'a> Parameters<'a> {
    fn read(message: &'a RawObject<'_>) -> Result<Self, Refused> {
        let there = message.get("params");
        let Some(text) = there else {
            return Ok(Self { there: false, params: RawObject::default(), extension: None });
        };
        let mut params = RawObject::read(text)
            .ok_or((INVALID_PARAMS, "The parameters are no object, or a very large one"))?;
        let is_disguised =
            |name: &str| COUNTS.iter().any(|counts| name != *counts && same_but_for_case(name, counts));
        if params.names().any(is_disguised) {
            return Err((INVALID_PARAMS, "A parameter is called like one that counts but for its case"));
        }
        let mut extension = None;
        if let Some(text) = params.get("_meta").filter(|meta| *meta != "null").map(str::to_owned) {
            let mut meta =
                RawObject::read(&text).ok_or((INVALID_PARAMS, "_meta is no object, or a very large one"))?;
            if meta.names().any(|name| name != EXTENSION && same_but_for_case(name, EXTENSION)) {
                return Err((INVALID_PARAMS, "_meta has the extension's name in another case"));
            }
            extension = meta.remove(EXTENSION).map(std::borrow::Cow::into_owned);
            match (&extension, meta.is_empty()) {
                (None, _) => {}
                (Some(_), true) => drop(params.remove("_meta")),
                (Some(_), false) => params.set("_meta", meta.write()),
            }
        }
        Ok(Self { there: true, params, extension })
    }

    /// The arguments of a tool.
    fn arguments(&self) -> Result<Map<String, Value>, Refused> {
        let text = self.params.get("arguments").filter(|text| *text != "null").unwrap_or("{}");
        json::parse(text.as_bytes()).map_err(|_| (INVALID_PARAMS, "The arguments are no object"))
    }

    /// All parameters but `_meta`.
    fn all(&self) -> Result<Map<String, Value>, Refused> {
        let mut params = self.params.clone();
        params.remove("_meta");
        json::parse(params.write().as_bytes()).map_err(|_| (INVALID_PARAMS, "The parameters are no object"))
    }

    /// The extension's part as the guard reads it.
    fn take_extension(&mut self) -> Map<String, Value> {
        let value =
            self.extension.take().map(|text| json::parse(text.as_bytes()).unwrap_or(Value::Bool(true)));
        value.map(|value| (EXTENSION.to_owned(), value)).into_iter().collect()
    }

    /// What was checked is what goes on. Arguments that were absent stay so.
    fn set_arguments(&mut self, admitted: &Admitted) {
        if self.params.get("arguments").is_some() || !admitted.arguments().is_empty() {
            self.params.set("arguments", written(admitted.arguments()));
        }
    }

    /// The message without the extension.
    fn write(&self, message: &RawObject<'_>) -> String {
        let mut message = message.clone();
        if self.there {
            message.set("params", self.params.write());
        }
        message.write()
    }

    /// The message with these parameters, and without the extension.
    fn write_all(&self, message: &RawObject<'_>, params: &Map<String, Value>) -> String {
        let mut message = message.clone();
        if self.there {
            let text = written(params);
            let mut params = RawObject::read(&text).unwrap_or_default();
            if let Some(meta) = self.params.get("_meta") {
                params.set("_meta", meta);
            }
            let params = params.write();
            message.set("params", params);
        }
        message.write()
    }
}

fn written(map: &Map<String, Value>) -> String {
    let members = map.iter().map(|(name, value)| format!("{}:{value}", quoted(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// The line without signs that end it for some readers: a carriage return among the blanks, and in texts what other scripts
/// have for a new line.
fn one_line(line: String) -> String {
    const ENDS: [char; 4] = ['\r', '\u{85}', '\u{2028}', '\u{2029}'];
    if !line.contains(ENDS) {
        return line;
    }
    let escaped = |sign: char| match sign {
        '\r' => " ".to_owned(),
        sign if ENDS.contains(&sign) => format!("\\u{:04x}", u32::from(sign)),
        sign => sign.to_string(),
    };
    line.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sign_is_left_that_ends_a_line_for_some_reader() {
        let line = "{\"a\":\r{\"b\":\"x\u{2028}y\u{2029}\u{85}\u{e9}\"}}";
        let clean = one_line(line.to_owned());
        assert_eq!(clean, "{\"a\": {\"b\":\"x\\u2028y\\u2029\\u0085\u{e9}\"}}");
        let meant: Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&clean).unwrap(), meant);
        assert_eq!(one_line("{\"a\" : 1}".to_owned()), "{\"a\" : 1}");
    }

    #[test]
    fn a_parameter_that_is_like_one_but_for_its_case_is_refused() {
        for params in [
            r#"{"name":"a","Name":"b"}"#,
            r#"{"ARGUMENTS":{}}"#,
            r#"{"argument\u017f":{}}"#,
            r#"{"_Meta":{}}"#,
        ] {
            let text = format!("{{\"params\":{params}}}");
            assert!(Parameters::read(&RawObject::read(&text).unwrap()).is_err(), "{params}");
        }
    }
}
