//! Refusals, as a client reads them: in the result of a tool, or in the error of another method.

use obol_secret::json;
use serde::Deserialize;

use crate::EXTENSION;
use crate::raw::{RawObject, elements, quoted};

/// Why a call was refused.
#[derive(Deserialize)]
pub(super) struct Denial {
    denied: bool,
    pub(super) reason: String,
}

impl Denial {
    /// The refusal in an answer, if it is one.
    pub(super) fn of(message: &RawObject<'_>) -> Option<Self> {
        let said = match (message.object("result"), message.object("error")) {
            (Some(result), _) if result.get("isError") == Some("true") => {
                result.object("_meta")?.get(EXTENSION)?.to_owned()
            }
            (_, Some(error)) => error.object("data")?.get(EXTENSION)?.to_owned(),
            _ => return None,
        };
        let denial: Self = json::parse(said.as_bytes()).ok()?;
        denial.denied.then_some(denial)
    }
}

/// A refusal for the lack of a token, with why there is none.
pub(super) fn explained(refusal: &str, why: &str) -> String {
    let text = format!("No token could be drawn for it: {why}");
    let told = RawObject::read(refusal).and_then(|mut message| {
        if let Some(mut result) = message.object("result") {
            let mut content =
                elements(result.get("content")?)?.into_iter().map(str::to_owned).collect::<Vec<_>>();
            content.push(format!("{{\"type\":\"text\",\"text\":{}}}", quoted(&text)));
            result.set("content", format!("[{}]", content.join(",")));
            let result = result.write();
            message.set("result", result);
        } else {
            let mut error = message.object("error")?;
            let said = error.text("message").unwrap_or_default();
            error.set("message", quoted(&format!("{said}. {text}")));
            let error = error.write();
            message.set("error", error);
        }
        Some(message.write())
    });
    told.unwrap_or_else(|| refusal.to_owned())
}
