//! Which Authentication Service is meant, and the key that it must have: one text, or address and key from a file.

use std::path::{Path, PathBuf};

use obol_secret::file::read_public;
use obol_uplink::Pinned;

use crate::exit::{Failure, Outcome};

/// The longest file with a pin, in bytes.
const MAX_PIN_BYTES: usize = 1 << 10;

/// The service that a section's settings name: in `key`, and in `pin_file`.
pub(crate) fn find(
    section: &str,
    key: &str,
    url: Option<&String>,
    file: Option<&PathBuf>,
) -> Outcome<Pinned> {
    let read = file.map(|file| read_pin(section, file)).transpose()?;
    let text = match (url, read) {
        (None, None) => {
            return Err(Failure::usage(format_args!(
                "{section}.{key} is needed: the Authentication Service and its key, https://host#KEY, as `obol as` prints them"
            )));
        }
        (Some(url), None) => url.clone(),
        (None, Some(pin)) => pin,
        (Some(url), Some(pin)) if !url.contains('#') && !pin.contains('#') => format!("{url}#{pin}"),
        (Some(url), Some(pin))
            if pin == *url || pin.split_once('#').is_some_and(|(origin, _)| origin == url) =>
        {
            pin
        }
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format_args!(
                "{section}.{key} and {section}.pin_file name two services or two keys; leave one of them out"
            )));
        }
    };
    Pinned::parse(&text).map_err(|error| Failure::usage(format_args!("{section}.{key}: {error}")))
}

fn read_pin(section: &str, file: &Path) -> Outcome<String> {
    let wrong = |why: &dyn core::fmt::Display| Failure::usage(format_args!("{section}.pin_file: {why}"));
    let bytes = read_public(file, MAX_PIN_BYTES).map_err(|error| wrong(&error))?;
    let text = core::str::from_utf8(&bytes).map_err(|error| wrong(&error))?;
    Ok(text.trim().to_owned())
}
