//! Where the secret for a host comes from. It is read afresh for each request, so that a rotation needs no restart.

use std::path::Path;

use obol_atp::{Host, Secret};
use obol_secret::file::PrivateFile;
use zeroize::Zeroizing;

use crate::error::AtpError;
use crate::keychain::Keychain;
use crate::options::Options;
use crate::state::State;

/// The documented variable; for one host, two underscores and its name behind it.
const VARIABLE: &str = "AGENTDOM_ATP_SECRET";
/// The account of a host's secret in the keychain, before its name.
const ACCOUNT: &str = "__atp_secret__:";
/// The longest file with a secret, in bytes.
const MAX_FILE_BYTES: usize = 4 << 10;

/// The text of a file, without one line end.
pub(crate) fn from_file(file: &Path) -> Result<Zeroizing<Vec<u8>>, AtpError> {
    let mut text = PrivateFile::read(file, MAX_FILE_BYTES)?;
    let kept =
        text.strip_suffix(b"\n").map_or(text.len(), |text| text.strip_suffix(b"\r").unwrap_or(text).len());
    text.truncate(kept);
    Ok(text)
}

/// Keeps a host's secret in the keychain; says where.
pub(crate) async fn keep(host: &Host, secret: &[u8], keychain: &Keychain) -> Result<&'static str, AtpError> {
    let secret = Secret::new(secret).map_err(AtpError::Secret)?;
    keychain.set_secret(&format!("{ACCOUNT}{host}"), secret.expose()).await
}

/// The secret for a host: of the file, the keychain, the host's own variable, the plain variable.
pub(crate) async fn find(
    host: &Host,
    options: &Options,
    keychain: &Keychain,
    state: &State,
) -> Result<Secret, AtpError> {
    if let Some(file) = &options.secret_file {
        return Secret::new(&from_file(file)?).map_err(AtpError::Secret);
    }
    if let Some(kept) = keychain.secret(&format!("{ACCOUNT}{host}")).await? {
        return Secret::new(&kept).map_err(AtpError::Secret);
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let own = host.to_string().to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if let Some(text) = variable(&format!("{VARIABLE}__{own}")) {
        warn();
        return Secret::new(text.as_bytes()).map_err(AtpError::Secret);
    }
    let Some(text) = variable(VARIABLE) else {
        return Err(AtpError::NoSecret(format!(
            "there is no secret for {host}: name its file, or keep it in the keychain with `obol atp keep-secret {host}`"
        )));
    };
    warn();
    if !options.hosts.contains(host) {
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
