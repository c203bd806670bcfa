//! `obol sidecar`: keeps `obol tqs` and `obol authenticator` up. It holds no keys and reads no setting; it starts what ended
//! again, with a pause that grows, and passes on what it is told.
//!
//! It has no sandbox of its own, since it runs programs: this one, and nothing else.

use core::time::Duration;
use std::process::ExitStatus;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep_until, timeout};

use crate::exit::{Exit, Failure, Outcome};
use crate::log_lines;
use crate::role::sandbox;
use crate::settings::args::Cli;
use crate::settings::args::authenticator::SidecarArgs;
use crate::signals::shutdown_signal;

/// The pause before what ended is started again; twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After so long the next end counts as the first.
const IS_UP_AFTER: Duration = Duration::from_secs(60);
/// How long both may take to end. The sidecar drains for five seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is nothing more to do.
enum Over {
    /// Somebody said so: by a signal, or to the sidecar, by its operator.
    Told,
    /// One cannot run at all as things are.
    Wrong(Failure),
}

/// One of the two.
struct Role {
    name: &'static str,
    arguments: Vec<std::ffi::OsString>,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    /// When it is started again, while it is down.
    due: Instant,
}

/// Runs until SIGTERM or SIGINT, or until the sidecar's operator drains it.
pub(crate) fn run(args: &SidecarArgs, cli: &Cli) -> Outcome {
    let mut hardening = obol_sandbox::harden_process();
    hardening.push(sandbox::switched_off("this role restarts the others"));
    obol_sandbox::report(&hardening, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    log_lines::begin()?;
    runtime.block_on(async {
        let mut shutdown = core::pin::pin!(shutdown_signal()?);
        let mut hangup = signal(SignalKind::hangup())?;
        let mut roles = [Role::new("tqs", args, cli), Role::new("authenticator", args, cli)];
        for role in &mut roles {
            role.start()?;
        }
        let over = loop {
            let [tqs, authenticator] = &mut roles;
            tokio::select! {
                () = &mut shutdown => break Over::Told,
                _ = hangup.recv() => roles.iter().for_each(|role| role.signal(Signal::HUP)),
                ended = tqs.wait() => if let Some(over) = tqs.goes_on(ended) { break over },
                ended = authenticator.wait() => if let Some(over) = authenticator.goes_on(ended) { break over },
            }
        };
        stop(&mut roles).await;
        match over {
            Over::Told => Ok(()),
            Over::Wrong(failure) => Err(failure),
        }
    })
}

/// Ends both in good order, the authenticator first: it has nothing to give to a sidecar that drains.
async fn stop(roles: &mut [Role; 2]) {
    tracing::info!("ending both");
    roles.iter().rev().for_each(|role| role.signal(Signal::TERM));
    for role in roles {
        let Some(child) = &mut role.child else { continue };
        match timeout(STOP_PATIENCE, child.wait()).await {
            Ok(Ok(status)) => tracing::info!(role = role.name, %status, "ended"),
            Ok(Err(error)) => tracing::error!(role = role.name, %error, "its end cannot be observed"),
            Err(_) => {
                tracing::error!(role = role.name, "it did not end in time and is killed");
                // Ours by its handle.
                let _ended_meanwhile = child.kill().await;
            }
        }
    }
}

/// What a wait came to.
enum Waited {
    Ended(std::io::Result<ExitStatus>),
    /// It was down, and its pause is over.
    Due,
}

impl Role {
    fn new(name: &'static str, args: &SidecarArgs, cli: &Cli) -> Self {
        let mut arguments: Vec<std::ffi::OsString> = vec!["--end-with-parent".into()];
        let mut flag = |name: &str, value: Option<std::ffi::OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        flag("--config", cli.config.clone().map(Into::into));
        flag("--log", cli.log.as_ref().and_then(written));
        flag("--log-format", cli.log_format.as_ref().and_then(written));
        arguments.push(name.into());
        let mut flag = |name: &str, value: &Option<std::ffi::OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value.clone()]);
            }
        };
        flag("--socket", &args.sockets.socket);
        flag("--control-socket", &args.sockets.control_socket);
        if name == "authenticator" {
            flag("--auth-socket", &args.auth_socket);
        }
        let now = Instant::now();
        Self { name, arguments, child: None, started: now, pause: FIRST_PAUSE, due: now }
    }

    fn start(&mut self) -> Outcome {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&self.arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        // Signals from a terminal come to us, and we end both in order.
        command.process_group(0).env_remove("NOTIFY_SOCKET");
        let child = command.spawn().map_err(Failure::other)?;
        tracing::info!(role = self.name, pid = child.id(), "started");
        (self.child, self.started) = (Some(child), Instant::now());
        Ok(())
    }

    /// Waits for its end; or, while it is down, until it is time to start it again.
    async fn wait(&mut self) -> Waited {
        match &mut self.child {
            Some(child) => Waited::Ended(child.wait().await),
            None => {
                sleep_until(self.due.into()).await;
                Waited::Due
            }
        }
    }

    /// Starts it again when it is time; or says why not.
    fn goes_on(&mut self, waited: Waited) -> Option<Over> {
        let status = match waited {
            Waited::Due => return self.start().err().map(Over::Wrong),
            Waited::Ended(Ok(status)) => status,
            Waited::Ended(Err(error)) => return Some(Over::Wrong(Failure::other(error))),
        };
        self.child = None;
        if status.success() {
            tracing::info!(role = self.name, "it was told to end, so the other ends too");
            return Some(Over::Told);
        }
        if status.code() == Some(Exit::Usage as i32) {
            return Some(Over::Wrong(Failure::usage(format_args!(
                "obol {} cannot run with its configuration; see its message above",
                self.name
            ))));
        }
        if self.started.elapsed() >= IS_UP_AFTER {
            self.pause = FIRST_PAUSE;
        }
        tracing::error!(role = self.name, %status, again_in = ?self.pause, "it ended by itself");
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ended_meanwhile = kill_process(pid, signal);
        }
    }
}

/// A flag's value as it is written.
fn written(value: &impl clap::ValueEnum) -> Option<std::ffi::OsString> {
    value.to_possible_value().map(|value| value.get_name().into())
}
