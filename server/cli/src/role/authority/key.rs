//! `obol as key`: the key that agents pin.

use std::path::Path;

use obol_authority::directory::Directory;
use obol_client::AsControlClient;
use obol_handshake::{AuthorityKey, AuthoritySecret, IdentityPublic};
use obol_ipc::Endpoint;
use obol_secret::key::Key32;
use obol_secret::text::to_hex;
use serde_json::json;

use super::setup;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::peer::options;
use crate::places::environment;
use crate::role::companions;
use crate::settings::args::authority::{AsArgs, AsKeyArgs};
use crate::settings::config::As;

/// The service's key, if there is one. A directory that is gone beside it has forgotten what was ended, and is not begun
/// anew.
pub(super) fn load(file: &Path, directory: &Path) -> Outcome<Option<AuthoritySecret>> {
    if std::fs::symlink_metadata(file).is_err() {
        return Ok(None);
    }
    if !companions::holds_something(directory) {
        return Err(Failure::usage(format_args!(
            "the directory {} is missing or empty, but the service's key {} is there: agents and keys that were ended would be \
             forgotten. Put the directory back; if it is lost, move the key away too, and have every agent pin a new key",
            directory.display(),
            file.display()
        )));
    }
    let key = Key32::load(file).map_err(Failure::usage)?;
    Ok(Some(AuthoritySecret::from_bytes(key.expose())))
}

/// Makes the service's key, at the first start. Beside a directory in which something happened it is not made anew: every
/// agent has pinned the old one.
pub(super) fn create(file: &Path, directory: &dyn Directory) -> Outcome<AuthoritySecret> {
    if directory.last_event().map_err(Failure::unavailable)? > 0 {
        return Err(Failure::usage(format_args!(
            "the service's key {} is missing, and every agent has pinned it; put the key back, or move the directory away to \
             start afresh",
            file.display()
        )));
    }
    let key = Key32::create(file).map_err(Failure::usage)?;
    Ok(AuthoritySecret::from_bytes(key.expose()))
}

/// The service with its key, as agents pin it.
pub(super) fn pin(origin: &str, key: &AuthorityKey) -> String {
    format!("{origin}#{}", to_hex(&key.0))
}

/// The key in words that people can say and compare.
pub(super) fn words(key: &AuthorityKey) -> String {
    IdentityPublic(key.0).words()
}

/// What the service with this key is known as that runs on this machine, if it answers: it may have been told by its command line.
fn running(key: &AuthorityKey) -> Option<String> {
    let endpoint = Endpoint::as_control_to_connect(None, environment).ok()?;
    let status = AsControlClient::connect(endpoint, options().ok()?).ok()?.status().ok()?;
    let (origin, theirs) = status.pin.rsplit_once('#')?;
    (theirs == to_hex(&key.0)).then(|| origin.to_owned())
}

/// `obol as key`.
pub(crate) fn show(args: &AsKeyArgs, config: &As) -> Outcome {
    let named = args.identity_key.as_ref().or(config.identity_key.as_ref());
    let file = setup::identity_key(named)?;
    if std::fs::symlink_metadata(&file).is_err() {
        return Err(Failure::usage(format_args!(
            "there is no key at {}; `obol as` makes one at its first start",
            file.display()
        )));
    }
    let key = AuthoritySecret::from_bytes(Key32::load(&file).map_err(Failure::usage)?.expose()).key();
    let named = args.origin.as_deref().or(config.origin.as_deref());
    let running = if named.is_some() { None } else { running(&key) };
    let has_tls = config.tls_cert.is_some();
    let origin = match running {
        Some(origin) => origin,
        None => setup::origin(named, setup::listen(&AsArgs::default(), config), has_tls)?,
    };
    let (pin, words) = (pin(&origin, &key), words(&key));
    if args.output.json {
        output::json(&json!({ "origin": origin, "key": to_hex(&key.0), "words": words, "pin": pin }));
    } else if args.pin {
        output::line(&pin);
    } else {
        output::line(&format!("words  {words}"));
        output::line(&format!("pin    {pin}"));
        output::line(
            "Give the pin to agents over a channel that nobody else can write to, such as configuration management;",
        );
        output::line("to compare by voice, use the words.");
    }
    Ok(())
}
