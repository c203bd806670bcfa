//! `obol install` and `obol uninstall`: the sidecar, and its authenticator, as services of this machine, as a user of their own.
//!
//! Both are a list of steps that is made first and then carried out or, with `--dry-run`, only told. With `--prefix` files
//! are laid out in another folder, as packagers do, and what changes the running machine is left out, in the open.

mod layout;
mod step;

use std::path::Path;

use self::layout::{Layout, Service};
use self::step::{Stage, Step};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::{InstallArgs, InstallPlace, UninstallArgs};

/// Where systemd runs, this is there (`sd_booted(3)`).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// `obol install`.
pub(crate) fn install(args: &InstallArgs) -> Outcome {
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

/// `obol uninstall`.
pub(crate) fn uninstall(args: &UninstallArgs) -> Outcome {
    let stage = stage(&args.place, "uninstall")?;
    let layout = Layout::new(args.place.name.as_deref())?;
    carry_out(&stage, &layout.uninstall())
}

fn stage(place: &InstallPlace, command: &str) -> Outcome<Stage> {
    if place.prefix.is_none() && !place.dry_run {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::usage(format_args!(
                "only root can do this; run `sudo obol {command} …`, or see with --dry-run what it would do"
            )));
        }
        if !Path::new(SYSTEMD_RUNS).exists() {
            return Err(Failure::usage(
                "this machine does not run systemd; --prefix DIR lays the files out, and --dry-run tells what is to be done",
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
