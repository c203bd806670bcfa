//! `obol logins`: the operators of other machines who are logged in.

use super::{connect, json, label};
use crate::exit::{Failure, Outcome};
use crate::output::{self, Table};
use crate::settings::args::authority::{LoginsArgs, LoginsCommand};

/// `obol logins`.
pub(crate) fn logins(args: &LoginsArgs) -> Outcome {
    match &args.command {
        None => list(args),
        Some(LoginsCommand::End { login, operator }) => {
            let ended = connect(operator)?.end_login(label(login)?)?;
            if ended.ended == 0 {
                return Err(Failure::other(format_args!(
                    "nothing was ended: there is no login {login}; `obol logins` shows them"
                )));
            }
            output::line(&format!("ended: {} of {login}", ended.ended));
            Ok(())
        }
    }
}

fn list(args: &LoginsArgs) -> Outcome {
    let found = connect(&args.operator)?.logins()?;
    if args.operator.output.json {
        return json(&found);
    }
    let mut table = Table::new(&["login", "who", "machine", "from", "since", "until"]);
    for login in &found.logins {
        table.row([
            login.login_id.clone(),
            login.human.clone(),
            format!("{}@{}", login.user, login.host),
            login.source.clone(),
            login.since.to_string(),
            login.until.to_string(),
        ]);
    }
    table.print();
    Ok(())
}
