//! How this program names itself to the daemons that it connects to.

use obol_client::ConnectOptions;
use obol_ipc::names::PeerName;

use crate::exit::{Failure, Outcome};

/// Its name and version, and the usual patience.
pub(crate) fn options() -> Outcome<ConnectOptions> {
    let name = PeerName::new(concat!("obol-cli/", env!("CARGO_PKG_VERSION"))).map_err(Failure::other)?;
    Ok(ConnectOptions::new(name))
}
