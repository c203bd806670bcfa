//! What MCP's framing means, read again: a slow reader of event streams, and what a message is once the extension is out of it.

use serde_json::{Value, json};

const EXTENSION: &str = "io.modelcontextprotocol/tbac";

/// What the events of a stream say that have ended, as the HTML standard has it: lines are decoded one after another, and an
/// empty one ends an event.
pub fn said(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix("\u{feff}".as_bytes()).unwrap_or(stream);
    let (mut said, mut data): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut line = Vec::new();
    let mut signs = stream.iter().copied().peekable();
    while let Some(sign) = signs.next() {
        if sign != b'\r' && sign != b'\n' {
            line.push(sign);
            continue;
        }
        if sign == b'\r' && signs.peek() == Some(&b'\n') {
            signs.next();
        }
        if line.is_empty() {
            if data.pop().is_some() {
                said.push(core::mem::take(&mut data));
            }
        } else if let Some(value) = data_of(&line) {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        line.clear();
    }
    said
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    if line == b"data" {
        return Some(b"");
    }
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// A message without the extension.
pub fn without_extension(mut message: Value) -> Value {
    let Some(params) = message.get_mut("params").and_then(Value::as_object_mut) else { return message };
    let is_empty = params.get_mut("_meta").and_then(Value::as_object_mut).is_some_and(|meta| {
        let was_there = meta.remove(EXTENSION).is_some();
        was_there && meta.is_empty()
    });
    if is_empty {
        params.remove("_meta");
    }
    message
}

/// Whether any reader could take a message for the call of a tool, however it reads names.
pub fn could_be_a_call(message: &Value) -> bool {
    let members = message.as_object().into_iter().flatten();
    members.into_iter().any(|(name, value)| name.to_lowercase() == "method" && value == "tools/call")
}

/// Conversations of client and server, and streams of events.
pub fn seeds() -> Vec<Vec<u8>> {
    let call = |meta: Value| {
        let params = json!({"name": "search", "arguments": {"q": "x"}, "_meta": meta});
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}).to_string()
    };
    let token = json!({"token": "AAAA", "format": "opaque"});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}
    }});
    let opened = json!({"jsonrpc": "2.0", "id": 1, "result": {
        "protocolVersion": "2025-11-25", "capabilities": {"experimental": {EXTENSION: {}}}, "serverInfo": {}
    }});
    let refused = json!({"jsonrpc": "2.0", "id": 2, "result": {"content": [], "isError": true,
        "_meta": {EXTENSION: {"denied": true, "reason": "TBAC_REQUIRED"}}
    }});
    let stateless = json!({"jsonrpc": "2.0", "id": "a", "method": "server/discover", "params": {
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    }});
    let list = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list","params":{"_meta":{"a":1,"io.modelcontextprotocol/tbac":{}}}}"#;
    let lines = |lines: &[String]| lines.join("\n").into_bytes();
    let talk = lines(&[initialize.to_string(), opened.to_string(), call(json!({})), refused.to_string()]);
    let more = lines(&[stateless.to_string(), list.to_owned(), call(json!({EXTENSION: token}))]);
    let odd = "{\"jsonrpc\":\"2.0\",\r\"method\":\"notifications/x\",\"params\":{\"t\":\"\u{2028}\"}}\n{\"ID\":1}\n[]\n\n{\"a\":1,\"a\":2}";
    let events = "\u{feff}: hello\n\nid: 1\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\ndata:\"id\":1,\"result\":{}}\r\n\r\nretry: 5\rdata\r\r";
    let texts = [talk, more, odd.as_bytes().to_vec(), events.as_bytes().to_vec(), b"data: lost".to_vec()];
    texts.into_iter().map(|text| [&[6][..], &text].concat()).collect()
}
