//! The gateway's side of its helper.

use core::fmt;
use core::pin::Pin;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use obol_gateway::Origin;
use obol_secret::wipe::Wiped;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::run::{PATIENCE, environment};
use super::wire::{self, Answer};
use crate::exit::{Failure, Outcome};

/// How much longer than a program the helper may take.
const SLACK: Duration = Duration::from_secs(10);
/// This very program, also after it was replaced on disk.
const OURSELVES: &str = "/proc/self/exe";
const GONE: &str = "the helper that runs the programs has ended; restart the gateway";

/// The helper, started and told which programs there are.
pub(crate) struct Helper {
    child: Child,
    socket: UnixStream,
}

impl Helper {
    /// Starts it. To be called before the sandbox.
    pub(crate) fn start(commands: &[Vec<String>]) -> Outcome<Self> {
        let (mut socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(OURSELVES);
        command.args(["gateway", "credential-helper"]).env_clear().envs(environment());
        // What ends the gateway from a terminal must not end it first.
        command.process_group(0).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| {
            Failure::unavailable(format_args!(
                "cannot start the helper that runs programs for credentials: {error}"
            ))
        })?;
        wire::write_commands(&mut socket, commands)?;
        Ok(Self { child, socket })
    }

    /// Has a program run, and waits for what it prints.
    pub(crate) fn ask(&mut self, number: u16) -> Answer {
        let gone = |_| GONE.to_owned();
        self.socket.set_read_timeout(Some(PATIENCE + SLACK)).map_err(gone)?;
        wire::write_number(&mut self.socket, number).map_err(gone)?;
        let answer = wire::read_answer(&mut self.socket).map_err(gone)?;
        self.socket.set_read_timeout(None).map_err(gone)?;
        answer
    }

    /// Where no program is to be run any more.
    pub(crate) fn end(self) -> Outcome {
        let Self { mut child, socket } = self;
        drop(socket);
        child.wait()?;
        Ok(())
    }

    /// From now on asked by those who serve. A thread hears what it says, and that it is gone.
    pub(crate) fn link(self) -> Outcome<Arc<Link>> {
        let Self { mut child, socket } = self;
        let waiting: Waiting = Arc::default();
        let mut heard = socket.try_clone()?;
        let who_waits = Arc::clone(&waiting);
        std::thread::Builder::new().name("obol-helper".to_owned()).spawn(move || {
            while let Ok(answer) = wire::read_answer(&mut heard) {
                let Some(waits) = who_waits.lock().take() else { break };
                let _nobody_waits_any_more = waits.send(answer);
            }
            tracing::error!("{GONE}: credentials that programs print stay as they are until then");
            let _they_hear_that_it_is_gone = heard.shutdown(std::net::Shutdown::Both);
            drop(who_waits.lock().take());
            let _its_end_is_all_there_is_to_know = child.wait();
        })?;
        Ok(Arc::new(Link { waiting, socket: tokio::sync::Mutex::new(socket) }))
    }
}

type Waiting = Arc<Mutex<Option<oneshot::Sender<Answer>>>>;

/// What programs are asked by, one at a time.
pub(crate) struct Link {
    waiting: Waiting,
    socket: tokio::sync::Mutex<UnixStream>,
}

impl Link {
    async fn ask(&self, number: u16) -> Answer {
        let gone = || GONE.to_owned();
        let mut socket = self.socket.lock().await;
        let (sender, answer) = oneshot::channel();
        *self.waiting.lock() = Some(sender);
        // Two bytes, to who reads whatever comes.
        let asked = wire::write_number(&mut *socket, number);
        let answered = match asked {
            Ok(()) => timeout(PATIENCE + SLACK, answer).await,
            Err(_) => return Err(gone()),
        };
        match answered {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_) => {
                // Its answer, should it come, would be taken for that to another question.
                let _gone_already = socket.shutdown(std::net::Shutdown::Both);
                Err(gone())
            }
        }
    }
}

/// One of the programs.
pub(crate) struct Program {
    pub(crate) link: Arc<Link>,
    pub(crate) number: u16,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.number)
    }
}

impl Origin for Program {
    fn secret(&self) -> Pin<Box<dyn Future<Output = Result<Wiped, String>> + Send + '_>> {
        Box::pin(self.link.ask(self.number))
    }
}
