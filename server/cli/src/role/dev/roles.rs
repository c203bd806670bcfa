//! The processes of `obol dev`, each a role as it would be elsewhere. They end with this one, however that ends.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::exit::{Failure, Outcome};
use crate::log_lines;

/// How long a role may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// How much is shown of the log of a role that did not start, in bytes.
const MAX_LOG_BYTES: u64 = 16 << 10;

/// A role's process.
struct Role {
    name: &'static str,
    child: Child,
}

/// All of them, in the order in which they were started.
pub(super) struct Roles(Vec<Role>);

impl Roles {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Starts one.
    pub(super) fn start(&mut self, name: &'static str, mut command: Command) -> Outcome {
        // A process group of its own: Ctrl-C comes to us, and we end the roles in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.0.push(Role { name, child: command.spawn()? });
        Ok(())
    }

    /// From now on their logs are on our standard error, each line marked whose it is.
    pub(super) fn pass_on_logs(&mut self) {
        for role in &mut self.0 {
            let (name, Some(log)) = (role.name, role.child.stderr.take()) else { continue };
            std::thread::spawn(move || {
                for line in BufReader::new(log).lines().map_while(Result::ok) {
                    log_lines::line(&format!("{name} | {line}"));
                }
            });
        }
    }

    /// An error if one has ended.
    pub(super) fn check(&mut self) -> Outcome {
        for role in &mut self.0 {
            let Some(status) = role.child.try_wait()? else { continue };
            let mut log = String::new();
            if let Some(unread) = role.child.stderr.take() {
                let _as_far_as_it_is_text = unread.take(MAX_LOG_BYTES).read_to_string(&mut log);
            }
            return Err(Failure::unavailable(format_args!(
                "obol {} ended ({status}); see its log: {log}",
                role.name
            )));
        }
        Ok(())
    }

    /// Ends all of them in good order, the last first: nobody misses what it still needs.
    pub(super) fn stop(&mut self) {
        for role in self.0.iter().rev() {
            let _ended = rustix::process::kill_process(
                rustix::process::Pid::from_child(&role.child),
                rustix::process::Signal::TERM,
            );
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        for role in &mut self.0 {
            while Instant::now() < deadline && matches!(role.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        for role in &mut self.0 {
            // Ours by its handle; ended already is fine.
            let _ended = role.child.kill();
            let _ended = role.child.wait();
        }
    }
}

/// `obol`, which sees none of this machine's own settings and ends with us.
pub(super) fn obol(folder: &Path) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--end-with-parent");
    command.env_clear().env("HOME", folder).current_dir(folder);
    Ok(command)
}

/// Has a command read a text and carry it out.
pub(super) fn say(mut command: Command, text: &str) -> Outcome {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::other(String::from_utf8_lossy(&output.stderr).trim()))
}
