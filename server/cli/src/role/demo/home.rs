//! The processes of the demo. Each is `obol` itself, in a home that sees none of this machine's settings and is gone at the
//! end.

use core::time::Duration;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use obol_ipc::Endpoint;
use obol_secret::file::create_folder;

use crate::exit::{Failure, Outcome};

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often something is looked at that is there in a moment, and that takes a while: daemons bound how often they are
/// asked.
pub(crate) const SOON: Duration = Duration::from_millis(2);
pub(crate) const LATER: Duration = Duration::from_millis(50);

/// A folder that is home to all of them.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Outcome<Self> {
        let closed = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("obol-demo-").permissions(closed).tempdir()?;
        create_folder(&folder.path().join("run"))?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self, name: &str) -> Outcome<Endpoint> {
        Endpoint::at(self.path().join("run/obol").join(name)).map_err(Failure::other)
    }

    fn command(&self) -> Outcome<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear().env("HOME", self.path()).env("XDG_RUNTIME_DIR", self.path().join("run"));
        command.current_dir(self.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts a role and waits until it answers.
    pub(crate) fn start(
        &self,
        role: &'static str,
        arguments: &[&str],
        answers: impl Fn() -> bool,
    ) -> Outcome<Process> {
        let log = self.path().join(format!("{role}.log"));
        let written = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = self.command()?;
        command.args(["--end-with-parent", "--log", "info", role]).args(arguments);
        let child = command.stdout(Stdio::null()).stderr(written).spawn()?;
        let mut process = Process { role, child, log };
        let mut ended = None;
        let answered = wait_for("an answer", SOON, || {
            ended = process.child.try_wait()?;
            Ok(ended.is_some() || answers())
        });
        match (answered, ended) {
            (Ok(()), None) => Ok(process),
            (_, Some(status)) => Err(process.failed(&format!("ended with {status}"))),
            (Err(_), None) => Err(process.failed("does not answer")),
        }
    }

    /// What a command says.
    pub(crate) fn say(&self, arguments: &[&str]) -> Outcome<String> {
        let output = self.command()?.args(arguments).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Failure::other(format_args!("obol {}: {why}", arguments.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A running role; killed when dropped.
pub(crate) struct Process {
    role: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Ends it as hard as a process can end.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn failed(&self, how: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        Failure::unavailable(format_args!("obol {} {how}:\n{log}", self.role))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ours by its handle; that it has ended already is fine.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Waits until something is so, and looks so often.
pub(crate) fn wait_for(what: &str, every: Duration, mut is: impl FnMut() -> Outcome<bool>) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !is()? {
        if Instant::now() > deadline {
            return Err(Failure::unavailable(format_args!("waited too long for {what}")));
        }
        std::thread::sleep(every);
    }
    Ok(())
}
