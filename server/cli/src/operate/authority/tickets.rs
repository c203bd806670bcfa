//! What lets others in without a human who looks at each: `obol agent invite` and `obol rs invite`.

use obol_ipc::as_control::{InviteParams, InviteServerParams, TicketResult};
use obol_ipc::names::Audience;

use super::{connect, json, label, labels};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::authority::{AsOperatorArgs, InviteArgs, InviteServerArgs};

/// `obol agent invite`.
pub(super) fn invite(args: &InviteArgs) -> Outcome {
    output::must_be_open()?;
    let params = InviteParams {
        class: label(&args.class)?,
        roles: labels(&args.role)?,
        max_agents: args.max,
        lifetime_seconds: args.expires,
    };
    print(&connect(&args.operator)?.invite(params)?, &args.operator)
}

/// `obol rs invite`.
pub(crate) fn invite_server(args: &InviteServerArgs) -> Outcome {
    output::must_be_open()?;
    let audience = Audience::new(args.audience.as_str()).map_err(Failure::usage)?;
    let params = InviteServerParams { audience, suites: args.suites.clone() };
    print(&connect(&args.operator)?.invite_server(params)?, &args.operator)
}

/// Prints what is gone for good if it does not arrive.
fn print(made: &TicketResult, args: &AsOperatorArgs) -> Outcome {
    if args.output.json {
        return json(made);
    }
    output::token(made.ticket.expose())?;
    tracing::warn!("good until {}; it is not shown again", made.expires_at);
    Ok(())
}
