//! `obol atp`: both sides of the Agent Token Protocol.

mod agent;
mod refresh;
mod secret;
mod sign;

pub(crate) use self::agent::check;
use crate::exit::Outcome;
use crate::role;
use crate::settings::args::atp::AtpCommand;
use crate::settings::config::Config;

/// Runs one of the commands.
pub(crate) fn run(command: &AtpCommand, config: impl FnOnce() -> Outcome<Config>) -> Outcome {
    match command {
        AtpCommand::Serve(args) => role::atp::run(args, &config()?.atp_serve),
        AtpCommand::Secret(args) => secret::run(&args.command),
        AtpCommand::Sign(args) => sign::run(args),
        AtpCommand::Request(args) => agent::request(args, &config()?.atp),
        AtpCommand::Verify(args) => agent::verify(args, &config()?.atp),
        AtpCommand::Revoke(args) => agent::revoke(args, &config()?.atp),
        AtpCommand::AgentId(args) => agent::agent_id(args, &config()?.atp),
        AtpCommand::Refresh(args) => refresh::run(args, &config()?.atp),
        AtpCommand::Status(args) => refresh::status(args, &config()?.atp),
        AtpCommand::KeepSecret(args) => agent::keep_secret(args, &config()?.atp),
    }
}
