//! `obol atp refresh`: keeps tokens fresh until told to stop; `obol atp status`: how it stands with them.

use obol_atp_client::{Client, HostStatus};
use obol_probe::health::Health;
use obol_probe::stop::Stop;
use serde_json::json;

use super::agent::{client, run as finish};
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::output;
use crate::role::atp::watched;
use crate::settings::args::atp::{AgentArgs, RefreshArgs};
use crate::settings::config::Atp;
use crate::signals::shutdown_signal;

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(args: &RefreshArgs, config: &Atp) -> Outcome {
    let client = client(&args.settings, config)?;
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = Stop::new();
        let watched = watched(args.http.as_ref(), Refreshing(client.clone()), stop.clone())?;
        let refresher = client.refresh_in_background();
        tracing::info!("tokens are kept fresh");
        shutdown_signal()?.await;
        drop(refresher);
        stop.say();
        let _panicked = watched.await;
        Ok(())
    })
}

/// What is said of the process to those who watch it.
struct Refreshing(Client);

impl Health for Refreshing {
    /// It waits for nothing; how it stands with each token is in the metrics.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> String {
        self.0.metrics()
    }
}

pub(super) fn status(args: &AgentArgs, config: &Atp) -> Outcome {
    let client = client(&args.settings, config)?;
    let all = finish(client.status())?;
    if args.output.json {
        let hosts: serde_json::Map<_, _> = all
            .iter()
            .map(|(host, status)| Ok((host.to_string(), serde_json::to_value(status)?)))
            .collect::<Result<_, serde_json::Error>>()
            .map_err(Failure::other)?;
        output::json(&json!({ "hosts": hosts }));
        return Ok(());
    }
    for (host, status) in &all {
        output::line(&format!("{host}  {}", describe(status)));
    }
    Ok(())
}

fn describe(status: &HostStatus) -> String {
    let seconds = |time: Option<u64>| time.map(|time| time / 1_000);
    let mut text = match (seconds(status.expires_at), seconds(status.due_at)) {
        (Some(end), Some(due)) => format!("ends {end}, refreshed {due} (Unix seconds)"),
        _ => "no token".to_owned(),
    };
    if let Some(last) = &status.last_failure {
        let times =
            if status.failures == 1 { "once".to_owned() } else { format!("{} times", status.failures) };
        text.push_str(&format!(
            "; failed {times} in a row, last {} (Unix seconds): {}",
            last.at / 1_000,
            last.why
        ));
    }
    if let Some(why) = &status.ended {
        text.push_str(&format!("; not refreshed until it is requested again: {why}"));
    }
    if status.to_be_revoked {
        text.push_str("; a revocation has not reached the provider yet");
    }
    text
}
