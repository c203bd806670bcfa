//! `obol install` and `obol uninstall`: the sidecar and its authenticator, an Authentication Service, a resource server or a gateway as
//! services of this machine, as a user of their own.
//!
//! Both are a list of steps that is made first and then carried out or, with `--dry-run`, only told. With `--prefix` files
//! are laid out in another folder, as packagers do, and what changes the running machine is left out, in the open.

mod layout;
mod server;
mod step;

use std::path::Path;

use self::layout::{Layout, Service};
use self::server::{Follows, Kind, Server};
use self::step::{Stage, Step};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::{InstallArgs, InstallPlace, InstallRole, UninstallArgs};

/// Where systemd runs, this is there (`sd_booted(3)`).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// `obol install`.
pub(crate) fn install(args: &InstallArgs) -> Outcome {
    if args.place.role != InstallRole::Sidecar {
        return install_server(args);
    }
    if args.agent_user.is_empty() || args.audience.is_some() {
        return Err(Failure::usage(
            "a sidecar needs --agent-user, the user that agents run as, and takes no --audience; --role as, --role rs and --role gateway set up other servers",
        ));
    }
    let stage = stage(&args.place, "install")?;
    let layout = Layout::new(args.place.name.as_deref())?;
    let agents = layout.agents(&args.agent_user)?;
    let ca_file = args.ca_file.as_deref();
    let service = args.service.as_deref().map(|pin| Service::new(pin, ca_file)).transpose()?;
    let steps = layout.install(&agents, service.as_ref(), &std::env::current_exe()?);
    carry_out(&stage, &steps)?;
    output::line(&layout.next(&agents, service.as_ref()));
    Ok(())
}

fn install_server(args: &InstallArgs) -> Outcome {
    if !args.agent_user.is_empty() {
        return Err(Failure::usage(
            "--agent-user is only for a sidecar; agents do not connect to this server's sockets",
        ));
    }
    let stage = stage(&args.place, "install")?;
    let service =
        args.service.as_deref().map(|pin| Service::new(pin, args.ca_file.as_deref())).transpose()?;
    let (kind, follows) = match (args.place.role, &args.audience, &service) {
        (InstallRole::Gateway, ..) if !cfg!(feature = "gateway") => {
            return Err(Failure::usage("this program was built without the gateway"));
        }
        (InstallRole::Rs, Some(audience), Some(service)) => {
            (Kind::Resource, Some(Follows::new(audience, service)?))
        }
        (InstallRole::Gateway, Some(audience), Some(service)) => {
            (Kind::Gateway, Some(Follows::new(audience, service)?))
        }
        (InstallRole::Rs | InstallRole::Gateway, ..) => {
            return Err(Failure::usage(
                "a server that accepts tokens needs --audience URI, and --as ORIGIN#KEY as `obol as key --pin` prints it",
            ));
        }
        (_, None, None) => (Kind::Authority, None),
        _ => {
            return Err(Failure::usage(
                "--as and --audience are only for a resource server: --role rs or --role gateway",
            ));
        }
    };
    let server = Server::new(kind, args.place.name.as_deref())?;
    carry_out(&stage, &server.install(follows.as_ref(), &std::env::current_exe()?))?;
    output::line(&server.next(follows.as_ref()));
    Ok(())
}

/// `obol uninstall`.
pub(crate) fn uninstall(args: &UninstallArgs) -> Outcome {
    let stage = stage(&args.place, "uninstall")?;
    let kind = match args.place.role {
        InstallRole::Sidecar => None,
        InstallRole::As => Some(Kind::Authority),
        InstallRole::Rs => Some(Kind::Resource),
        InstallRole::Gateway => Some(Kind::Gateway),
    };
    if let Some(kind) = kind {
        let server = Server::new(kind, args.place.name.as_deref())?;
        return carry_out(&stage, &server.uninstall());
    }
    let layout = Layout::new(args.place.name.as_deref())?;
    carry_out(&stage, &layout.uninstall())
}

fn stage(place: &InstallPlace, command: &str) -> Outcome<Stage> {
    if place.prefix.is_none() && !place.dry_run {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::usage(format_args!(
                "only root can do this; run `sudo obol {command} …`, or add --dry-run to see what it would do"
            )));
        }
        if !Path::new(SYSTEMD_RUNS).exists() {
            return Err(Failure::usage(
                "this machine does not run systemd; --prefix DIR writes the files to another place, and --dry-run shows what would be done",
            ));
        }
    }
    Ok(Stage::new(place.prefix.clone(), place.dry_run))
}

/// One after the other; a failure says how far it got, and doing it again is safe.
fn carry_out(stage: &Stage, steps: &[Step]) -> Outcome {
    for step in steps {
        let told = stage.carry_out(step).map_err(|error| Failure::other(format_args!("{step}: {error}")))?;
        output::line(&told);
    }
    Ok(())
}
