//! The file of an API from its OpenAPI document: shown, or written where nothing is yet.

use obol_gateway::{Actions, Api, MAX_DOCUMENT_BYTES, RuleWishes, rules};
use obol_secret::file::{PrivateFile, create_folder, read_public};

use super::apis::MAX_FILE_BYTES;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::places::folder_of;
use crate::settings::args::gateway::{ActionOf, RulesArgs};

/// Shows the file, or writes it. It is never written over another one.
pub(crate) fn write_rules(args: &RulesArgs) -> Outcome {
    let document = read_public(&args.openapi, MAX_DOCUMENT_BYTES)?;
    let wrong = |why: String| Failure::usage(format_args!("{}: {why}", args.openapi.display()));
    let text = rules(&document, &wishes(args)).map_err(wrong)?;
    if text.len() > MAX_FILE_BYTES {
        return Err(wrong(format!(
            "its file would be longer than the {MAX_FILE_BYTES} bytes that are read; take a part of it with --tag"
        )));
    }
    // What is written here is what `obol gateway check` would take.
    let api: Api = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    api.check().map_err(wrong)?;
    let Some(file) = &args.out else {
        output::line(text.trim_end());
        return Ok(());
    };
    create_folder(folder_of(file))?;
    PrivateFile::create_whole(file, text.as_bytes()).map_err(|error| match file.exists() {
        true => Failure::usage(format_args!("{} already exists and was not changed", file.display())),
        false => error.into(),
    })?;
    output::line(&format!(
        "wrote {}, {} routes; its beginning says what is not covered",
        file.display(),
        api.count()
    ));
    Ok(())
}

fn wishes(args: &RulesArgs) -> RuleWishes {
    RuleWishes {
        tool: args.tool.clone(),
        prefix: args.prefix.clone(),
        actions: match args.action {
            ActionOf::Method => Actions::Method,
            ActionOf::Operation => Actions::Operation,
        },
        server: args.server.clone(),
        scheme: args.scheme.clone(),
        client_id: args.client_id.clone(),
        tags: args.tags.clone(),
    }
}
