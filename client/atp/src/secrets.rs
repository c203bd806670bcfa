//! Where the secret for a host comes from. It is read afresh for each request, so that a rotation needs no restart.

use obol_atp::{Host, Secret};
use obol_secret::file::PrivateFile;
use std::path::Path;

use crate::error::AtpError;
use crate::state::State;

/// The documented variable; for one host, two underscores and its name behind it.
const VARIABLE: &str = "AGENTDOM_ATP_SECRET";
/// The longest file with a secret, in bytes.
const MAX_FILE_BYTES: usize = 4 << 10;

/// The secret for a host.
pub(crate) fn find(
    host: &Host,
    file: Option<&Path>,
    listed: &[Host],
    state: &State,
) -> Result<Secret, AtpError> {
    if let Some(file) = file {
        let text = PrivateFile::read(file, MAX_FILE_BYTES)?;
        let text =
            text.strip_suffix(b"\n").map_or(text.as_slice(), |text| text.strip_suffix(b"\r").unwrap_or(text));
        return Secret::new(text).map_err(AtpError::Secret);
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let own = host.to_string().to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if let Some(text) = variable(&format!("{VARIABLE}__{own}")) {
        warn();
        return Secret::new(text.as_bytes()).map_err(AtpError::Secret);
    }
    let Some(text) = variable(VARIABLE) else {
        return Err(AtpError::NoSecret(format!(
            "there is no secret for {host}: name its file, or set {VARIABLE}__{own}"
        )));
    };
    warn();
    if !listed.contains(host) {
        let bound = state.plain_secret_host(host)?;
        if bound != host.to_string() {
            return Err(AtpError::NoSecret(format!(
                "{VARIABLE} is used for {bound}; who has one provider's secret must not have another's. To use it for {host} all the \
                 same, list that host"
            )));
        }
    }
    Secret::new(text.as_bytes()).map_err(AtpError::Secret)
}

fn warn() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::warn!("the secret comes from the environment, which other programs of this user can read; a file is safer");
    });
}
