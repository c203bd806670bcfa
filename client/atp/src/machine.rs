//! This machine's agent id.

use std::path::Path;

use obol_atp::{AgentId, Host};
use obol_secret::file::read_public;
use rustix::process::getuid;

use crate::error::AtpError;

/// The longest file that is read here, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// The system's machine id: the first of its files that holds 32 hex digits.
fn machine_id() -> Option<String> {
    MACHINE_ID_FILES.iter().find_map(|file| {
        let text = read_public(Path::new(file), MAX_FILE_BYTES).ok()?;
        let id = core::str::from_utf8(&text).ok()?.trim();
        (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

/// The name of this process's user, or the number where it has none.
fn user_name() -> String {
    let uid = getuid().as_raw().to_string();
    let users = read_public(Path::new("/etc/passwd"), MAX_FILE_BYTES).unwrap_or_default();
    let users = String::from_utf8_lossy(&users);
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}

/// Computes the agent id from what this machine says about itself; at random where it has no machine id. An agent computes it once and
/// keeps it, as [`Client::agent_id`](crate::Client::agent_id) does.
///
/// # Errors
/// [`AtpError::System`] if the system's random number generator failed.
pub fn generate_agent_id() -> Result<AgentId, AtpError> {
    if let Some(machine) = machine_id() {
        let names = rustix::system::uname();
        return Ok(AgentId::from_machine(&names.nodename().to_string_lossy(), &user_name(), &machine));
    }
    random_agent_id()
}

/// Computes the agent id for one provider, by the machine id as a key: another name for each, and the machine id stays private. At
/// random where this machine has none.
///
/// # Errors
/// [`AtpError::System`] if the system's random number generator failed.
pub(crate) fn generate_keyed_agent_id(host: &Host) -> Result<AgentId, AtpError> {
    match machine_id() {
        Some(machine) => Ok(AgentId::keyed(&machine, &host.to_string())),
        None => random_agent_id(),
    }
}

fn random_agent_id() -> Result<AgentId, AtpError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| AtpError::System(error.to_string()))?;
    Ok(AgentId::from_random(random))
}
