//! `obol rs list` and `obol rs remove`: the resource servers that the service knows, and their copies.

use obol_ipc::as_control::CopyStatus;

use super::{connect, json, label};
use crate::exit::{Failure, Outcome};
use crate::operate::flush::listed;
use crate::output::{self, Table};
use crate::settings::args::authority::{AsOperatorArgs, RemoveCopyArgs};

/// What shows all of them.
const LIST: &str = "obol rs list";

/// `obol rs list`.
pub(crate) fn servers(args: &AsOperatorArgs) -> Outcome {
    let known = connect(args)?.servers()?;
    if args.output.json {
        return json(&known);
    }
    let mut table = Table::new(&["resource server", "suites"]);
    for server in &known.servers {
        let suites: Vec<_> = server.suites.iter().map(ToString::to_string).collect();
        table.row([server.audience.clone(), suites.join(" ")]);
    }
    table.print();
    output::line("");
    if known.copies.is_empty() {
        output::line("no copy has joined; `obol rs invite AUDIENCE` prints a code to join with");
    } else {
        copies_table(&known.copies).print();
    }
    if known.more > 0 {
        output::line(&format!("and {} more", known.more));
    }
    Ok(())
}

fn copies_table(copies: &[CopyStatus]) -> Table {
    let mut table = Table::new(&["copy", "resource server", "state", "accepts tokens until"]);
    for copy in copies {
        let state = match (copy.follows, copy.confirmed) {
            (true, true) => "follows",
            (true, false) => "follows, behind",
            (false, _) => "away",
        };
        let until = if copy.follows { "-".to_owned() } else { copy.lease_ends_at.to_string() };
        table.row([copy.copy_id.clone(), copy.audience.clone(), state.to_owned(), until]);
    }
    table
}

/// `obol rs remove`.
pub(crate) fn remove_copy(args: &RemoveCopyArgs) -> Outcome {
    let mut client = connect(&args.operator)?;
    let done = client.remove_copy(label(&args.copy)?)?;
    if !done.matched {
        let known = client.servers()?;
        let there_is = listed("copies", &copies_table(&known.copies), LIST);
        let why = format!("nothing was removed: there is no copy {}", args.copy);
        return Err(Failure::other(why).with_details(there_is.lines()));
    }
    if args.operator.output.json {
        return json(&done);
    }
    output::line(&format!(
        "removed: {} no longer follows, and its identity can never join again; it accepts the sessions that it knows until its lease ends",
        args.copy
    ));
    Ok(())
}
