//! The server: a process that is started, spoken to and ended.

use core::time::Duration;
use std::ffi::OsString;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use super::lines::Sink;
use crate::exit::{Failure, Outcome};
use crate::signals::shutdown_signal;

/// How long the server may take to end once nobody speaks to it any more, or it was told to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// A server that runs. It is ended when this is dropped.
pub(super) struct Server {
    child: Arc<Mutex<Child>>,
    pub(super) input: Arc<Sink<ChildStdin>>,
}

impl Server {
    /// Starts a command. What it says on standard error goes where this process's goes.
    pub(super) fn start(command: &[OsString]) -> Outcome<(Self, ChildStdout)> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| Failure::usage("put the server's command after --"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            Failure::unavailable(format_args!("cannot start {}: {error}", program.display()))
        })?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| Failure::other("the server has no pipes"))?;
        let input = Arc::new(Sink::new(input));
        Ok((Self { child: Arc::new(Mutex::new(child)), input }, output))
    }

    /// Ends it when this process is told to end: first it is told as well, then it is killed.
    pub(super) fn end_on_signal(&self, runtime: &Runtime) -> Outcome {
        let (child, _inside) = (Arc::clone(&self.child), runtime.enter());
        let told = shutdown_signal()?;
        runtime.spawn(async move {
            told.await;
            let deadline = Instant::now() + PATIENCE;
            tell(&child);
            while !has_ended(&child) && Instant::now() < deadline {
                tokio::time::sleep(LOOK).await;
            }
            let _ended_already = child.lock().kill();
        });
        Ok(())
    }

    /// To be called once it says nothing more, or nobody hears it: waits for it to end, and ends it if it does not.
    pub(super) fn end(&self) -> Outcome {
        self.input.close();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.lock().try_wait()?;
            match ended {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(Failure::other(format_args!("the server ended: {status}"))),
                None if Instant::now() >= deadline => break,
                None => std::thread::sleep(LOOK),
            }
        }
        tell(&self.child);
        std::thread::sleep(PATIENCE / 10);
        let mut child = self.child.lock();
        let _ended_already = child.kill();
        child.wait()?;
        Err(Failure::other("the server did not end when its input was closed, and was killed"))
    }
}

fn has_ended(child: &Mutex<Child>) -> bool {
    !matches!(child.lock().try_wait(), Ok(None))
}

/// SIGTERM, to a process that is still ours: it was not waited for.
fn tell(child: &Mutex<Child>) {
    let mut child = child.lock();
    if let (Ok(None), Some(pid)) = (child.try_wait(), Pid::from_raw(child.id().cast_signed())) {
        let _ended_already = kill_process(pid, Signal::TERM);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        let _ended_already = child.kill();
        let _ended_already = child.wait();
    }
}
