//! Who says that an end has reached it, who does not, and until when those accept tokens.

use obol_ipc::as_control::{ConfirmationsResult, DisableResult, HoldingServer};

use crate::output::{self, Table};

/// Tells it.
pub(super) fn tell(done: &DisableResult, confirmed: &ConfirmationsResult, next: &[String]) {
    for sidecar in &confirmed.sidecars {
        output::line(match (sidecar.confirmed, sidecar.follows) {
            (true, _) => "its sidecar has destroyed what was minted ahead",
            (false, true) => {
                "its sidecar was told, and has not confirmed that what was minted ahead is destroyed"
            }
            (false, false) => {
                "its authenticator does not follow: what was minted ahead can be drawn until it does, and is refused where the end \
                 is known"
            }
        });
    }
    for copy in confirmed.copies.iter().filter(|copy| copy.confirmed) {
        output::line(&format!("{} accepts their tokens no more ({})", copy.audience, copy.copy_id));
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
        "These have not confirmed it. Each accepts tokens of the sessions until then at the latest, and those issued",
    );
    output::line("last for a token's life longer:");
    table.print();
    if more > 0 {
        output::line(&format!("and {more} more"));
    }
    output::line("On each of them, to end it at once:");
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
