//! `obol as events`: who is listened to and who is told, and a trial of the way from an event to those who refuse.

use obol_ipc::as_control::TestEventParams;

use super::agents::report;
use super::{connect, json, label};
use crate::exit::{Failure, Outcome};
use crate::output::{self, Table};
use crate::settings::args::authority::{AsOperatorArgs, EventsCommand, TestEventArgs};

/// `obol as events …`.
pub(crate) fn events(command: &EventsCommand) -> Outcome {
    match command {
        EventsCommand::Status(args) => status(args),
        EventsCommand::Test(args) => test(args),
    }
}

fn status(args: &AsOperatorArgs) -> Outcome {
    let known = connect(args)?.events()?;
    if args.output.json {
        return json(&known);
    }
    if known.transmitters.is_empty() {
        output::line("no transmitter of events is configured; name a file of transmitters in as.events");
    } else {
        let mut table =
            Table::new(&["listens to", "keys", "taken", "again", "unknown", "refused", "last heard"]);
        for one in &known.transmitters {
            let heard_at = one.heard_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            let counts = [one.taken, one.again, one.unknown, one.refused].map(|count| count.to_string());
            let [taken, again, unknown, refused] = counts;
            table.row([one.issuer.clone(), one.keys.to_string(), taken, again, unknown, refused, heard_at]);
        }
        table.print();
        for one in &known.transmitters {
            if let Some(error) = &one.error {
                output::line(&format!("{}: its keys could not be fetched: {error}", one.issuer));
            }
        }
    }
    if known.outlets.is_empty() {
        return Ok(());
    }
    output::line("");
    let mut table = Table::new(&["tells", "as", "waiting", "sent", "dropped", "error"]);
    for one in &known.outlets {
        let [waiting, sent, dropped] = [one.waiting, one.sent, one.dropped].map(|count| count.to_string());
        let error = one.error.clone().unwrap_or_else(|| "-".to_owned());
        table.row([one.name.clone(), one.kind.clone(), waiting, sent, dropped, error]);
    }
    table.print();
    Ok(())
}

/// What is said in the trial is carried out.
fn test(args: &TestEventArgs) -> Outcome {
    let mut client = connect(&args.operator)?;
    let named = |name: &Option<String>| name.as_deref().map(label).transpose();
    let done = client.test_event(TestEventParams {
        agent: named(&args.agent)?,
        user: named(&args.user)?,
        issuer: named(&args.issuer)?,
        event: label(&args.event)?,
    })?;
    if !done.matched {
        let who = args.agent.as_ref().or(args.user.as_ref()).map_or("nobody", String::as_str);
        return Err(Failure::other(format_args!(
            "the event was accepted but concerns no agent: {who} does not own one; `obol agent list` shows owners"
        )));
    }
    let said = format!("{}: signed, checked, remembered and carried out", args.event);
    let back = (args.event != "session-revoked").then(|| "obol agent enable NAME".to_owned());
    report(&mut client, &done, args.wait, &args.operator, &said, back.as_deref())
}
