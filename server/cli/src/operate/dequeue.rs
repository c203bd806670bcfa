//! `obol dequeue`: one token, as an agent.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use obol_ipc::names::{Audience, ToolName};
use obol_ipc::numbers::WaitMs;
use obol_ipc::proof::ArgumentsHash;
use obol_secret::json::ReadArguments;
use serde_json::json;

use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::DequeueArgs;

/// `obol dequeue`. The wait is for the socket as well as for the token.
pub(crate) fn run(args: &DequeueArgs) -> Outcome {
    let tool = ToolName::new(args.tool.as_str()).map_err(Failure::usage)?;
    let wait = WaitMs::new(args.wait).map_err(Failure::usage)?.as_duration();
    let audience = args.audience.as_deref().map(Audience::new).transpose().map_err(Failure::usage)?;
    let arguments = args.arguments.as_deref().map(hash_of).transpose()?;
    let deadline = Instant::now() + wait;
    output::must_be_open()?;
    let mut client = args.sockets.agent_until(deadline)?;
    let wait = deadline.saturating_duration_since(Instant::now());
    let drawn = match (&audience, arguments) {
        (audience, Some(arguments)) => {
            client.dequeue_token_with_proof(&tool, audience.as_ref(), arguments, wait)?
        }
        (None, None) => client.dequeue_token(&tool, wait)?,
        (Some(audience), None) => client.dequeue_token_for(&tool, audience, wait)?,
    };
    if args.output.json {
        let mut shown =
            json!({"token": drawn.token.expose(), "tool": drawn.tool, "expiresAt": drawn.expires_at});
        if let (Some(fields), Some(proof)) = (shown.as_object_mut(), &drawn.pop) {
            fields.insert("pop".to_owned(), json!(proof));
        }
        return output::token(&format!("{shown:#}"));
    }
    match &drawn.pop {
        Some(proof) => output::token(&format!("{}\n{}", drawn.token.expose(), proof.sig)),
        None => output::token(drawn.token.expose()),
    }
}

/// What a proof of possession is asked over: the arguments that a file holds.
fn hash_of(file: &Path) -> Outcome<ArgumentsHash> {
    const MAX_BYTES: u64 = 1 << 20;
    let wrong = |why: &dyn core::fmt::Display| {
        Failure::usage(format_args!("the arguments in {}: {why}", file.display()))
    };
    let mut text = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut text),
        _ => File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text)),
    };
    read.map_err(|error| wrong(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(&format_args!("longer than {MAX_BYTES} bytes")));
    }
    let read: ReadArguments = obol_secret::json::parse(&text).map_err(|error| wrong(&error))?;
    let hash = obol_verify::arguments_hash(Some(&read.map)).filter(|_| !read.rounded);
    hash.map(ArgumentsHash::from_bytes).ok_or_else(|| {
        wrong(&"a number is beyond 2^53 or is rounded when read, so no proof can cover it; send it as text")
    })
}
