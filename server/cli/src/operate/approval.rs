//! `obol approval request`: one yes for several calls, as an agent asks for it.

use core::time::Duration;
use std::path::Path;

use obol_agent::{ApprovalRequest, ApprovedCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::exit::{Failure, Outcome};
use crate::operate::fetch::builder;
use crate::output;
use crate::settings::args::approval::{ApprovalArgs, ApprovalCommand, ApprovalRequestArgs};

/// The longest file of calls, in bytes: 16 of them, each with two texts of 4 KiB.
const MAX_CALLS_BYTES: usize = 256 << 10;

/// A call in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCall {
    tool: String,
    audience: Option<String>,
    #[serde(default)]
    action: Actions,
    resource: Option<String>,
    constraints: Option<Map<String, Value>>,
    arguments: Option<Map<String, Value>>,
    count: Option<u64>,
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Actions {
    One(String),
    Several(Vec<String>),
}

impl Default for Actions {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// `obol approval`.
pub(crate) fn run(args: &ApprovalArgs) -> Outcome {
    match &args.command {
        ApprovalCommand::Request(args) => request(args),
    }
}

fn request(args: &ApprovalRequestArgs) -> Outcome {
    let mut asked = ApprovalRequest::new(calls(args)?).timeout(Duration::from_secs(args.timeout));
    if let Some(purpose) = &args.purpose {
        asked = asked.purpose(purpose);
    }
    if let Some(seconds) = args.lifetime {
        asked = asked.lifetime(Duration::from_secs(seconds));
    }
    if let Some(count) = args.count {
        asked = asked.count(count);
    }
    output::must_be_open()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let approved = runtime.block_on(async {
        let agent = builder(&args.sockets).connect().await?;
        Ok::<_, Failure>(agent.request_approval(&asked).await?)
    });
    runtime.shutdown_background();
    let approved = approved?;
    if args.output.json {
        output::json(&json!({
            "approvalId": approved.approval_id, "calls": approved.calls, "expiresAt": approved.expires_at,
        }));
    } else {
        approved.calls.iter().for_each(|call| output::line(call));
    }
    Ok(())
}

fn calls(args: &ApprovalRequestArgs) -> Outcome<Vec<ApprovedCall>> {
    if let Some(file) = &args.calls {
        return read(file);
    }
    let mut call = ApprovedCall::new(args.tool.clone().unwrap_or_default());
    if let Some(audience) = &args.audience {
        call = call.audience(audience);
    }
    if let Some(resource) = &args.resource {
        call = call.resource(resource);
    }
    if let Some(constraints) = &args.constraints {
        call = call.constraints(constraints);
    }
    if let Some(arguments) = &args.arguments {
        call = call.arguments(arguments);
    }
    Ok(vec![args.action.iter().fold(call, ApprovedCall::action)])
}

fn read(file: &Path) -> Outcome<Vec<ApprovedCall>> {
    let text = obol_secret::file::read_public(file, MAX_CALLS_BYTES)?;
    let read: Vec<FileCall> = obol_secret::json::parse(&text)
        .map_err(|error| Failure::usage(format_args!("the calls in {}: {error}", file.display())))?;
    Ok(read.into_iter().map(FileCall::call).collect())
}

impl FileCall {
    fn call(self) -> ApprovedCall {
        let mut call = ApprovedCall::new(self.tool);
        if let Some(audience) = self.audience {
            call = call.audience(audience);
        }
        if let Some(resource) = self.resource {
            call = call.resource(resource);
        }
        if let Some(constraints) = self.constraints {
            call = call.constraints(Value::Object(constraints).to_string());
        }
        if let Some(arguments) = self.arguments {
            call = call.arguments(Value::Object(arguments).to_string());
        }
        if let Some(count) = self.count {
            call = call.count(count);
        }
        match self.action {
            Actions::One(action) => call.action(action),
            Actions::Several(actions) => actions.into_iter().fold(call, ApprovedCall::action),
        }
    }
}
