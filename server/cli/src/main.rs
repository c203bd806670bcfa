//! One binary for every role: `obol demo`, the sidecar, the resource server, and the tools around them.
//!
//! Data goes to standard output, logs and errors to standard error; exit codes are in [`exit`].

mod errors;
mod exit;
mod install;
mod log_lines;
mod man;
mod operate;
mod output;
mod peer;
mod places;
#[cfg(feature = "authority")]
mod policy;
mod role;
mod routes;
mod sessions;
mod settings;
mod signals;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::Outcome;
use crate::settings::args::authenticator::AuthenticatorCommand;
#[cfg(feature = "authority")]
use crate::settings::args::authority::{AsCommand, AuthorityCommand};
#[cfg(feature = "gateway")]
use crate::settings::args::gateway::GatewayCommand;
use crate::settings::args::mcp::McpCommand;
use crate::settings::args::{
    AuditCommand, Cli, Command, ConfigCommand, LogFormat, PolicyCommand, RsCommand, RsRoleArgs, TokenCommand,
};
use crate::settings::config::{Config, Origin};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    start_logging(&cli);
    end(run(&cli).and_then(|()| output::finish()))
}

fn end(outcome: Outcome) -> ExitCode {
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if wants_json() {
                log_lines::line(&failure.to_json());
            } else {
                log_lines::line(&format!("obol: {failure}"));
                failure.details().iter().for_each(|detail| log_lines::line(&format!("  {detail}")));
            }
            failure.code()
        }
    };
    log_lines::end();
    code
}

/// A command line that makes no sense; or one that asks for help, which is printed like anything else.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && wants_json() {
        return end(Err(exit::Failure::usage(error.to_string().trim_end())));
    }
    match error.print() {
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)),
        Err(unprinted) => end(Err(unprinted.into())),
    }
}

/// Whether the command line asks for JSON, also where it makes no sense otherwise.
fn wants_json() -> bool {
    std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

fn run(cli: &Cli) -> Outcome {
    if cli.end_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(exit::Failure::other)?;
    }
    let config = || Config::load(cli.config.as_deref());
    match &cli.command {
        #[cfg(feature = "authority")]
        Command::Demo(output) => role::demo::run(*output),
        Command::Rs(args) => rs(args, config),
        #[cfg(feature = "authority")]
        Command::Authority(command) => authority(command, config),
        #[cfg(feature = "gateway")]
        Command::Gateway(args) => match &args.command {
            None => role::gateway::run(&args.server, &config()?),
            Some(GatewayCommand::Add(args)) => role::gateway::add(args),
            Some(GatewayCommand::Check(args)) => role::gateway::check(args),
            Some(GatewayCommand::Rules(args)) => role::gateway::write_rules(args),
            Some(GatewayCommand::CredentialHelper) => role::gateway::help(),
        },
        Command::Proxy(args) => role::proxy::run(args),
        Command::Tqs(args) => {
            args.warning().iter().for_each(|warning| tracing::warn!("{warning}"));
            role::tqs::run(&args.args(), config()?, Origin { file: cli.config.clone(), log: cli.log })
        }
        Command::Authenticator(command) => authenticator(command, cli),
        Command::Dequeue(args) => operate::dequeue::run(args),
        Command::Fetch(args) => operate::fetch::run(args),
        Command::Approval(args) => operate::approval::run(args),
        Command::Status(args) => operate::status::run(args),
        Command::Session(args) => operate::session::run(args),
        Command::Flush(args) => operate::flush::flush(args),
        Command::Resume(args) => operate::flush::resume(args),
        Command::Policy(args) => policies(&args.command),
        Command::Token(args) => match &args.command {
            TokenCommand::Inspect { token, output } => operate::inspect::run(token, *output),
        },
        Command::Mcp(args) => match &args.command {
            McpCommand::Wrap(args) => role::mcp::wrap(args),
            McpCommand::Guard(args) => role::mcp::guard(args, &config()?),
        },
        Command::Atp(args) => operate::atp::run(&args.command, config),
        Command::Audit(args) => match &args.command {
            AuditCommand::Verify(args) => operate::audit_verify::run(args, &config()?),
        },
        Command::Config(args) => match &args.command {
            ConfigCommand::Check(args) => operate::config_check::run(args, cli.config.as_deref()),
            ConfigCommand::Sample => {
                output::line(settings::sample().trim_end());
                Ok(())
            }
        },
        #[cfg(feature = "authority")]
        Command::Dev(args) => role::dev::run(args),
        Command::Install(args) => install::install(args),
        Command::Uninstall(args) => install::uninstall(args),
        Command::Completions { shell } => completions(*shell),
        Command::Man { folder } => man::run(folder.as_deref()),
        Command::Errors => {
            output::line(errors::page().trim_end());
            Ok(())
        }
        Command::Verify(_) => {
            obol_conformance::run(std::io::stdin().lock(), std::io::BufWriter::new(std::io::stdout().lock()))
                .map_err(exit::Failure::other)
        }
    }
}

fn authenticator(command: &AuthenticatorCommand, cli: &Cli) -> Outcome {
    match command {
        AuthenticatorCommand::Authenticator(args) => {
            let origin = Origin { file: cli.config.clone(), log: cli.log };
            role::authenticator::run(args, &Config::load(cli.config.as_deref())?, &origin)
        }
        AuthenticatorCommand::Sidecar(args) => role::sidecar::run(args, cli),
        AuthenticatorCommand::Register(args) => operate::auth::register(args),
        AuthenticatorCommand::Authenticate(args) => operate::auth::authenticate(args),
        AuthenticatorCommand::Auth(args) => operate::auth::auth(args),
    }
}

fn rs(args: &RsRoleArgs, config: impl Fn() -> Outcome<Config>) -> Outcome {
    match &args.command {
        None => role::rs::run(&args.server, &config()?),
        Some(RsCommand::Revoke(args)) => operate::rs::revoke(args),
        Some(RsCommand::Status(args)) => operate::rs::status(args),
        Some(RsCommand::Reload(args)) => operate::rs::reload(args),
        Some(RsCommand::Join(args)) => operate::join::run(args, &config()?),
        #[cfg(feature = "authority")]
        Some(RsCommand::Invite(args)) => operate::authority::invite_server(args),
        #[cfg(feature = "authority")]
        Some(RsCommand::List(args)) => operate::authority::servers(args),
        #[cfg(feature = "authority")]
        Some(RsCommand::Remove(args)) => operate::authority::remove_copy(args),
    }
}

#[cfg(feature = "authority")]
fn authority(command: &AuthorityCommand, config: impl Fn() -> Outcome<Config>) -> Outcome {
    match command {
        AuthorityCommand::As(args) => match &args.command {
            None => role::authority::run(&args.server, &config()?.authority),
            Some(AsCommand::Key(args)) => role::authority::key(args, &config()?.authority),
            Some(AsCommand::Status(args)) => operate::authority::status(args),
            Some(AsCommand::Events { command }) => operate::authority::events(command),
        },
        AuthorityCommand::Registrations(args) => operate::authority::registrations(args),
        AuthorityCommand::Approvals(args) => operate::authority::approvals(args),
        AuthorityCommand::Approve(args) => operate::authority::approve(args),
        AuthorityCommand::Deny(args) => operate::authority::deny(args),
        AuthorityCommand::Agent(args) => operate::authority::agent(&args.command),
        AuthorityCommand::Login(args) => operate::afar::login(args),
        AuthorityCommand::Logout(args) => operate::afar::logout(args),
        AuthorityCommand::Logins(args) => operate::authority::logins(args),
    }
}

fn policies(command: &PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Deny(args) => operate::flush::deny(args),
        PolicyCommand::Allow(args) => operate::flush::allow(args),
        #[cfg(feature = "authority")]
        PolicyCommand::Activate(args) => operate::authority::activate(args),
        #[cfg(feature = "authority")]
        PolicyCommand::History(args) => operate::authority::history(args),
        #[cfg(feature = "authority")]
        PolicyCommand::Folder(command) => policy::run(command),
    }
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "obol", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

/// Flags, then the configuration, then the command's own default. A configuration that cannot be read is reported by the
/// commands that need it.
fn start_logging(cli: &Cli) {
    let config = Config::load(cli.config.as_deref()).unwrap_or_default().log;
    let level = cli.log.or(config.level).unwrap_or_else(|| cli.command.default_log_level());
    let format = cli.log_format.or(config.format).unwrap_or_default();
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    log_lines::allow_colour(colour);
    let log = tracing_subscriber::registry().with(settings::log_level::filter(level));
    if cli.command.serves() {
        log_lines::hold();
    }
    let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(log_lines::Writer);
    match format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json().with_span_list(false).flatten_event(true)).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
