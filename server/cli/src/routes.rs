//! Files of routes, for sessions that were made by hand.

use std::path::Path;

use obol_agent::Route;

use crate::exit::{Failure, Outcome};

/// The longest file of routes, in bytes.
const MAX_ROUTES_BYTES: usize = 1 << 20;

/// Where requests may go, as a file says it.
pub(crate) fn routes(file: &Path) -> Outcome<Vec<Route>> {
    let text = obol_secret::file::read_public(file, MAX_ROUTES_BYTES)?;
    obol_secret::json::parse(&text)
        .map_err(|error| Failure::usage(format_args!("the routes in {}: {error}", file.display())))
}
