//! Who says that an end has reached it, who does not, and until when those accept tokens.

use obol_ipc::as_control::{ConfirmationsResult, DisableResult, HoldingServer};

use crate::output::{self, Table};

/// Tells it.
pub(super) fn tell(done: &DisableResult, confirmed: &ConfirmationsResult, next: &[String]) {
    for sidecar in &confirmed.sidecars {
        output::line(match (sidecar.confirmed, sidecar.follows) {
            (true, _) => "its sidecar has destroyed the tokens minted ahead",
            (false, true) => {
                "its sidecar was told, but has not confirmed that it destroyed the tokens minted ahead"
            }
            (false, false) => {
                "its authenticator is not connected: tokens minted ahead can still be drawn, and are refused by servers that know of the end"
            }
        });
    }
    for copy in confirmed.copies.iter().filter(|copy| copy.confirmed) {
        output::line(&format!("{} no longer accepts their tokens ({})", copy.audience, copy.copy_id));
    }
    let mut table = Table::new(&["resource server", "copy", "sessions", "until"]);
    let mut open = 0;
    for server in &done.servers {
        for [copy, until] in unconfirmed(server, confirmed) {
            open += 1;
            table.row([server.audience.clone(), copy, server.sessions.to_string(), until]);
        }
    }
    let more = confirmed.more_copies + done.more_servers;
    if open == 0 && more == 0 {
        return;
    }
    output::line("");
    output::line(
        "These have not confirmed it. Each accepts the sessions' tokens until the time shown at the latest; tokens issued",
    );
    output::line("last for a token's life longer:");
    table.print();
    if more > 0 {
        output::line(&format!("and {more} more"));
    }
    output::line("To end it at once, run on each of them:");
    next.iter().for_each(|command| output::line(&format!("  {command}")));
}

/// Copies of a resource server that have not confirmed, and until when each may accept tokens: to the end of its lease, or of
/// the sessions, whichever comes first. One without any copy that has joined has its sessions from elsewhere.
fn unconfirmed(server: &HoldingServer, confirmed: &ConfirmationsResult) -> Vec<[String; 2]> {
    let mut copies = confirmed.copies.iter().filter(|copy| copy.audience == server.audience).peekable();
    if copies.peek().is_none() {
        return vec![["none has joined".to_owned(), server.until.to_string()]];
    }
    let open = copies.filter(|copy| !copy.confirmed);
    open.map(|copy| [copy.copy_id.clone(), copy.lease_ends_at.min(server.until).to_string()]).collect()
}
