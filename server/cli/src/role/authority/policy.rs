//! The policy of a service that runs, from the folder that settings name: at the first start, and on SIGHUP.

use std::path::Path;
use std::sync::Arc;

use obol_authority::directory::Human;
use obol_authority::policy::{Activated, Policies};
use obol_authority::{Now, Refused};
use obol_ipc::user::name_of;
use obol_policy::PolicyVersion;

use crate::exit::{Failure, Outcome};
use crate::policy::folder;

/// Puts the folder's version in force where none is yet. Where one is, a restart changes nothing, and says so if the folder
/// holds another.
pub(super) fn begin(policies: &Policies, folder: Option<&Path>, undecided: Option<&str>) -> Outcome {
    match (policies.in_force(), folder) {
        (None, Some(folder)) => {
            let version = Arc::new(folder::version(folder)?);
            let activated = activate(policies, version).map_err(Failure::unavailable)?;
            told(&activated);
        }
        (None, None) => {
            let why = undecided.unwrap_or("no policy is in force");
            tracing::warn!("no agent can be approved or granted anything: {why}");
        }
        (Some(in_force), Some(folder)) => match folder::version(folder) {
            Ok(version) if version.digest() == in_force.digest() => {}
            Ok(_) => tracing::warn!(
                folder = %folder.display(), in_force = %in_force.digest(),
                "the folder holds another version of the policy; the one in force stays; SIGHUP or `obol policy activate` puts the folder's version in force"
            ),
            Err(failure) => tracing::warn!(%failure, "the policy in force stays"),
        },
        (Some(in_force), None) => tracing::info!(version = %in_force.digest(), "the policy is unchanged"),
    }
    Ok(())
}

/// Reads the folder again. What is wrong, or takes away too much, changes nothing.
pub(super) fn reload(policies: &Policies, folder: Option<&Path>) {
    let Some(folder) = folder else {
        return tracing::info!("no policy folder is named, so there is nothing to read again");
    };
    match folder::version(folder) {
        Err(failure) => {
            tracing::error!(%failure, "the policy stays as it was");
            failure.details().iter().for_each(|detail| tracing::error!(detail, "in the policy"));
        }
        Ok(version) => match activate(policies, Arc::new(version)) {
            Ok(activated) => told(&activated),
            Err(Refused::PolicyInForce) => tracing::info!("the policy was read again and is unchanged"),
            Err(refused) => tracing::error!(%refused, "the policy stays as it was"),
        },
    }
}

/// Whoever runs this process answers for what is in its folder.
fn activate(policies: &Policies, version: Arc<PolicyVersion>) -> Result<Activated, Refused> {
    let by = Human::local(name_of(rustix::process::geteuid().as_raw()));
    policies.activate(version, &by, false, Now::read())
}

fn told(activated: &Activated) {
    for warning in &activated.warnings {
        tracing::warn!(warning, "the policy is in force, and this may be a mistake");
    }
}
