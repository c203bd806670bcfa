//! `obol session`: the session in use, one made by hand, and one given to a running sidecar.

use std::path::Path;

use obol_ipc::secret::SessionDocumentText;

use crate::exit::{Failure, Outcome};
use crate::output::{self, Table, text};
use crate::sessions::{create, files};
use crate::settings::args::{Output, SessionArgs, SessionCommand, Sockets};

/// `obol session`.
pub(crate) fn run(args: &SessionArgs) -> Outcome {
    match &args.command {
        None => show(&args.sockets, args.output),
        Some(SessionCommand::Create(args)) => create::run(args),
        Some(SessionCommand::Provision { file, resume }) => {
            provision(&args.sockets, args.output, file, *resume)
        }
    }
}

fn show(sockets: &Sockets, output: Output) -> Outcome {
    let session = sockets.agent()?.session_info()?;
    if output.json {
        output::json(&serde_json::to_value(&session).map_err(Failure::other)?);
        return Ok(());
    }
    let mut table = Table::new(&["session", "agent", "suite", "established", "expires"]);
    table.row([
        session.session_id.to_string(),
        session.agent_instance_id.to_string(),
        session.algorithm_suite.to_string(),
        text(&session.established_at)?,
        text(&session.expires_at)?,
    ]);
    table.print();
    Ok(())
}

/// `obol session provision`.
fn provision(sockets: &Sockets, output: Output, file: &Path, resume: bool) -> Outcome {
    let document = files::read_one(file)?;
    let text = core::str::from_utf8(&document)
        .map_err(|_| Failure::usage(format_args!("{} is not UTF-8", file.display())))?;
    let document = SessionDocumentText::new(text).map_err(Failure::usage)?;
    let mut control = sockets.control()?;
    let done = if resume { control.provision_and_resume(document)? } else { control.provision(document)? };
    if output.json {
        output::json(&serde_json::to_value(&done).map_err(Failure::other)?);
    } else {
        output::line(&format!("session {} provisioned with {} grants", done.session_id, done.grants));
    }
    Ok(())
}
