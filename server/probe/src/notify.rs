//! Telling a service manager how a daemon is: systemd's notification protocol, `sd_notify(3)`.

use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long a manager that does not read holds the daemon up when its state changes. It must not be missed: systemd ends a
/// service that it never heard to be ready.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Where a service manager listens, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Finds the manager by `NOTIFY_SOCKET`, and how often it wants to hear by `WATCHDOG_USEC` and `WATCHDOG_PID`;
    /// `environment` looks up a variable. To be called before the sandbox is entered.
    ///
    /// # Errors
    ///
    /// Where there is a manager that cannot be reached.
    pub fn from_environment(environment: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let Some(path) = environment("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(Self::default());
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(&path)?)?;
        // A manager that does not read must not hold the daemon up for long.
        socket.set_nonblocking(true)?;
        let number = |name| environment(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog =
            number("WATCHDOG_USEC").filter(|period| ours && *period > 0).map(Duration::from_micros);
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// How often to say that all is well: twice in the time after which the manager takes the daemon for dead.
    fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// The daemon serves.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// The daemon reads its settings again; [`ready`](Self::ready) ends this.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000) + now.tv_nsec / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Tells the manager that all is well for as long as it is: this loop turns, and `check` comes to an end that is good.
    /// Returns at once where no manager wants to hear it.
    pub async fn watch_over<C>(&self, check: impl Fn() -> C)
    where
        C: Future<Output = Result<(), String>>,
    {
        let Some(period) = self.watchdog() else { return };
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            ticks.tick().await;
            let answer = timeout(period, check()).await;
            let ailment = match answer.unwrap_or_else(|_| Err("the store does not answer".to_owned())) {
                Ok(()) => {
                    if !core::mem::replace(&mut well, true) {
                        self.ready();
                    }
                    self.alive();
                    continue;
                }
                Err(ailment) => ailment,
            };
            if core::mem::take(&mut well) {
                tracing::error!(ailment, "the service manager is no longer told that all is well");
                self.ailing(&ailment);
            }
        }
    }

    /// The daemon is well. It is said again soon, so nothing waits for it to be read.
    fn alive(&self) {
        if let Some(socket) = &self.socket {
            note(socket.send(b"WATCHDOG=1"));
        }
    }

    /// The daemon is not well; in words, for `systemctl status`.
    fn ailing(&self, why: &str) {
        self.say(&format!("STATUS=not well: {}", why.replace('\n', " ")));
    }

    /// The daemon drains and ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    /// Says what has changed.
    fn say(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let mut sent = socket.send(message.as_bytes());
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let mut room = [PollFd::new(socket, PollFlags::OUT)];
            let _the_send_will_tell = poll(&mut room, Some(&PATIENCE));
            sent = socket.send(message.as_bytes());
        }
        note(sent);
    }
}

fn note(sent: io::Result<usize>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// A path, or a name without one where the first byte is `@`.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> io::Result<Notifier> {
        Notifier::from_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
        })
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        let silent = notifier(&[("WATCHDOG_USEC", "1000")]).unwrap();
        silent.ready();
        assert!(silent.watchdog().is_none(), "a watchdog needs somebody who listens");
    }

    #[test]
    fn a_manager_hears_and_its_watchdog_is_fed_twice_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let pid = std::process::id().to_string();
        let at = path.to_str().unwrap();
        let ours = [("NOTIFY_SOCKET", at), ("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", pid.as_str())];
        let notifier = notifier(&ours).unwrap();
        assert_eq!(notifier.watchdog(), Some(Duration::from_secs(1)));
        notifier.ailing("two\nlines");
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"STATUS=not well: two lines");
    }

    #[test]
    fn a_change_waits_for_a_manager_that_is_behind_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        // More than any system keeps for one who does not read.
        (0..10_000).for_each(|_| notifier.alive());
        let began = Instant::now();
        notifier.ready();
        assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());

        manager.set_nonblocking(true).unwrap();
        let mut heard = [0; 64];
        while manager.recv(&mut heard).is_ok() {}
        notifier.stopping();
        assert!(manager.recv(&mut heard).is_ok() && heard.starts_with(b"STOPPING=1"));
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let at = path.to_str().unwrap();
        let other = [("NOTIFY_SOCKET", at), ("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")];
        assert!(notifier(&other).unwrap().watchdog().is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "/nobody/listens")]).is_err());
    }
}
