//! Results that come sealed.

use obol_resource::EncField;
use obol_secret::json;

use super::call::{Call, Channel};
use super::failed;
use crate::EXTENSION;
use crate::jsonrpc;
use crate::raw::RawObject;

/// The answer to a call whose arguments were sealed, as the client reads it. Errors of the protocol pass, whoever makes them;
/// a result that was not sealed for this call is not believed.
pub(super) fn opened(message: &RawObject<'_>, channel: &dyn Channel, call: &Call) -> String {
    let mut message = message.clone();
    message.set("id", call.client_id().to_string());
    let Some(result) = message.object("result") else { return message.write() };
    let opened = open(&result, channel).unwrap_or_else(|| {
        let text = "The result is not sealed for this call, and is not believed; the call may have been made";
        failed(text, call.is_stateless())
    });
    jsonrpc::answer(call.client_id(), &opened)
}

fn open(result: &RawObject<'_>, channel: &dyn Channel) -> Option<String> {
    let mut meta = result.object("_meta")?;
    let field = RawObject::read(meta.get(EXTENSION)?)?.get("enc")?.to_owned();
    let sealed = json::parse::<EncField>(field.as_bytes()).ok()?.message().ok()?;
    let plain = String::from_utf8(channel.open(&sealed)?).ok()?;
    let plain = RawObject::read(&plain)?;
    meta.remove(EXTENSION);
    let rest = (!meta.is_empty()).then(|| meta.write());
    let mut result = result.clone();
    result.set("content", plain.get("content")?.to_owned());
    match plain.get("structuredContent") {
        Some(structured) => result.set("structuredContent", structured.to_owned()),
        None => drop(result.remove("structuredContent")),
    }
    match rest {
        Some(rest) => result.set("_meta", rest),
        None => drop(result.remove("_meta")),
    }
    Some(result.write())
}
