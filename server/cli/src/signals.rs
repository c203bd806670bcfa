//! How a server is told to end, and tells its service manager how it is.

use core::time::Duration;

use obol_probe::notify::Notifier;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Outcome;
use crate::places::environment;

/// How long a file that is still being read may keep the process from ending.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(1);

/// Ends with SIGTERM or SIGINT. From here on SIGUSR1 and SIGUSR2, which would end the process, do nothing: a handler
/// stays for as long as the process.
pub(crate) fn shutdown_signal() -> Outcome<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _nobody_listens = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The service manager, if there is one that can be reached. To be called before the sandbox is entered.
pub(crate) fn service_manager() -> Notifier {
    Notifier::from_environment(environment).unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager at NOTIFY_SOCKET cannot be reached; it gets no messages");
        Notifier::default()
    })
}
