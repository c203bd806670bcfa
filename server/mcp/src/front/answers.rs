//! Answers of the server that are changed on their way. `None`: the answer stays as it is.

use obol_secret::json;
use obol_verify::Verifier;
use serde_json::Value;

use crate::EXTENSION;
use crate::capability::{Capability as _, Position, ServerCapability};
use crate::guard::Admitted;
use crate::jsonrpc::{self, Id};
use crate::raw::{RawObject, elements};
use crate::result::ToolResult;

/// The answer with the extension among the server's capabilities. Revisions of MCP that know no `extensions` know `experimental`;
/// where the server has the one, it is taken.
pub(super) fn advertising(message: &RawObject<'_>, verifier: &Verifier, stateless: bool) -> Option<String> {
    let mut result = message.object("result")?;
    let mut capabilities = result.object("capabilities")?;
    let place = match stateless || capabilities.get("extensions").is_some() {
        true => Position::Extensions,
        false => Position::Experimental,
    };
    let mut extensions = match capabilities.get(place.key()) {
        Some(extensions) => RawObject::read(extensions)?,
        None => RawObject::default(),
    };
    extensions.set(EXTENSION, Value::Object(ServerCapability::of(verifier).to_object()).to_string());
    let extensions = extensions.write();
    capabilities.set(place.key(), extensions);
    let capabilities = capabilities.write();
    result.set("capabilities", capabilities);
    let result = result.write();
    Some(with_result(message, result))
}

/// The list of tools without those that are not to be shown.
pub(super) fn without_hidden(message: &RawObject<'_>, is_shown: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut result = message.object("result")?;
    let tools = elements(result.get("tools")?)?;
    let shown = |tool: &&str| {
        let name = RawObject::read(tool).and_then(|tool| tool.text("name"));
        name.is_some_and(|name| is_shown(&name))
    };
    let left: Vec<&str> = tools.into_iter().filter(shown).collect();
    let left = format!("[{}]", left.join(","));
    result.set("tools", left);
    let result = result.write();
    Some(with_result(message, result))
}

/// The answer under seal. Only a whole result can be: a task, a question back to the client or an error of the protocol would
/// say in the clear what the call was about.
pub(super) fn sealed(message: &RawObject<'_>, id: &Id, admitted: &Admitted, stateless: bool) -> String {
    let result = match (message.object("result"), message.object("error")) {
        (Some(result), None) => whole(&result, message.get("result")),
        (None, Some(error)) => ToolResult::error(error.text("message").unwrap_or_default()),
        _ => ToolResult::error("The tool did not answer in one piece"),
    };
    jsonrpc::answer(id, &jsonrpc::result_text(&admitted.finish(result), stateless))
}

fn whole(result: &RawObject<'_>, text: Option<&str>) -> ToolResult {
    let is_complete = result.text("resultType").is_none_or(|kind| kind == "complete");
    let is_whole = is_complete && result.get("content").is_some() && result.get("task").is_none();
    let read = text.filter(|_| is_whole).and_then(|text| json::parse(text.as_bytes()).ok());
    read.unwrap_or_else(|| ToolResult::error("The tool did not answer in one piece"))
}

fn with_result(message: &RawObject<'_>, result: String) -> String {
    let mut message = message.clone();
    message.set("result", result);
    message.write()
}
