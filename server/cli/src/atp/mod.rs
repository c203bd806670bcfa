//! `obol atp`: both sides of the Agent Token Protocol.

pub(crate) mod args;
mod secret;
mod serve;
mod sign;

use crate::atp::args::AtpCommand;
use crate::config::Config;
use crate::exit::Outcome;

/// Runs one of the commands.
pub(crate) fn run(command: &AtpCommand, config: impl FnOnce() -> Outcome<Config>) -> Outcome {
    match command {
        AtpCommand::Serve(args) => serve::run(args, &config()?.atp_serve),
        AtpCommand::Secret(args) => secret::run(&args.command),
        AtpCommand::Sign(args) => sign::run(args),
    }
}
