//! `obol token inspect`: what a token's clear header says.

use std::io::Read;

use obol_token::text::{from_base64url, to_hex};
use obol_token::{Envelope, MAX_TOKEN_TEXT};
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::Output;

/// Shows the header of a token given as text, or read from standard input.
pub(crate) fn run(token: &str, output: Output) -> Outcome {
    let text = if token == "-" { read_standard_input()? } else { Zeroizing::new(token.to_owned()) };
    let bytes = Zeroizing::new(from_base64url(text.trim().as_bytes()).map_err(Failure::usage)?);
    let envelope =
        Envelope::parse(&bytes).map_err(|error| Failure::usage(format_args!("not a token: {error}")))?;
    let fields = [
        ("suite", json!(envelope.suite().number())),
        ("alg_id", json!(format!("{:02x}", envelope.suite().alg_id()))),
        ("primitives", json!(envelope.suite().primitives())),
        ("session_id", json!(envelope.session_id())),
        ("jti", json!(envelope.jti().as_str())),
        ("issued_at", json!(envelope.issued_at())),
        ("expires_at", json!(envelope.expires_at())),
        ("policy_epoch", json!(envelope.policy_epoch())),
        ("audience_hash", json!(to_hex(&envelope.audience_hash()))),
        ("iv", json!(to_hex(&envelope.iv()))),
        ("bytes", json!(bytes.len())),
        ("verified", json!(false)),
    ];
    if output.json {
        output::json(&fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        return Ok(());
    }
    let mut table = output::Table::new(&["field", "value (not verified)"]);
    for (name, value) in fields.into_iter().filter(|(name, _)| *name != "verified") {
        table.row([name.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]);
    }
    table.print();
    Ok(())
}

fn read_standard_input() -> Outcome<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    // One more than a token and its line end may have: what is longer is refused, not cut off.
    let limit = u64::try_from(MAX_TOKEN_TEXT + 3).unwrap_or(u64::MAX);
    std::io::stdin().lock().take(limit).read_to_string(&mut text)?;
    Ok(text)
}
