//! `obol status --watch`: what the sidecar does, second by second.
//!
//! On a terminal one screen is drawn over and over, on the terminal's second screen, which goes away at the end as if it
//! had never been there. Elsewhere a table comes out each time, or one line of JSON. A sidecar that goes away is said and
//! waited for.
//!
//! [`view`] has what is known, [`screen`] shows it. No library draws: what is used of a terminal is seven escape sequences
//! and its size.

mod format;
mod screen;
mod view;

use core::time::Duration;
use std::io;
use std::time::Instant;

use obol_client::ControlClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::screen::Screen;
use self::view::{Seen, View};
use crate::exit::Outcome;
use crate::settings::args::{Sockets, StatusArgs};

/// `obol status --watch`.
pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(args))
}

async fn watch(args: &StatusArgs) -> Outcome {
    let interval = Duration::from_secs_f64(args.interval);
    let mut seen = look_again_and_again(args.sockets.clone(), interval);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut screen = Screen::open(args.output.json);
    let mut view = View::default();
    loop {
        tokio::select! {
            Some(next) = seen.recv() => view.update(next, Instant::now()),
            _ = resized.recv() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
        if let Err(error) = screen.show(&view) {
            // Who read our output has seen enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
    }
}

/// Asks for the status at every interval, on a thread of its own, because asking may take long.
fn look_again_and_again(sockets: Sockets, interval: Duration) -> mpsc::Receiver<Seen> {
    let (send, receive) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut client = None;
        loop {
            let seen = look(&sockets, &mut client);
            if seen.is_err() {
                client = None;
            }
            if send.blocking_send(seen).is_err() {
                return;
            }
            std::thread::sleep(interval);
        }
    });
    receive
}

fn look(sockets: &Sockets, client: &mut Option<ControlClient>) -> Seen {
    let mut connected = match client.take() {
        Some(client) => client,
        None => sockets.control().map_err(|failure| failure.to_string())?,
    };
    let status = connected.status().map_err(|error| error.to_string())?;
    *client = Some(connected);
    Ok(status)
}
