//! How a server is told to end.

use core::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Outcome;

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
