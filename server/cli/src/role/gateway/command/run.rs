//! One run of a program that prints a credential: bounded in time and size, without a shell, and with little of an environment.

use core::time::Duration;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use obol_gateway::MAX_SECRET_BYTES;
use obol_secret::wipe::Wiped;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long a program may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The most that it may print, with the end of its line.
pub(super) const MAX_PRINTED_BYTES: usize = MAX_SECRET_BYTES + 2;
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// What a program sees of the environment. Others of ours may be secrets.
const KEPT: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "CREDENTIALS_DIRECTORY"];

/// What a program sees of the environment.
pub(super) fn environment() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)))
}

/// The program that runs, if one does, for whoever has to end it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    group: Option<Pid>,
    is_over: bool,
}

impl Running {
    /// Starts a program, unless it is over.
    fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut state = self.0.lock();
        if state.is_over {
            return Err(io::Error::other("the gateway no longer waits for it"));
        }
        let child = command.spawn()?;
        state.group = Pid::from_raw(child.id().cast_signed());
        Ok(child)
    }

    /// Ends a program, and what it started. To be called before it is waited for: until then its number is its own.
    fn end(&self) {
        if let Some(group) = self.0.lock().group.take() {
            let _ended_already = kill_process_group(group, Signal::KILL);
        }
    }

    /// Ends what runs, for good.
    pub(super) fn end_for_good(&self) {
        self.0.lock().is_over = true;
        self.end();
    }
}

/// What a program prints. No error repeats any of it; what it complains about is nobody's to read.
pub(crate) fn printed(command: &[String], running: &Running) -> Result<Wiped, String> {
    printed_within(PATIENCE, command, running)
}

fn printed_within(patience: Duration, command: &[String], running: &Running) -> Result<Wiped, String> {
    let (program, arguments) = command.split_first().ok_or("there is no command")?;
    let deadline = Instant::now() + patience;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment()).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child =
        running.start(&mut command).map_err(|error| format!("{program} does not run: {error}"))?;
    let read = read_within(deadline, &mut child);
    let ended = match &read {
        // One that prints too much may go on for ever.
        Some(Ok(text)) if text.len() <= MAX_PRINTED_BYTES => wait_within(deadline, &child),
        _ => false,
    };
    running.end();
    let status = child.wait().map_err(|error| format!("{program} cannot be waited for: {error}"))?;
    match (read, ended) {
        (Some(Ok(text)), _) if text.len() > MAX_PRINTED_BYTES => {
            Err(format!("{program} printed more than {MAX_PRINTED_BYTES} bytes"))
        }
        (Some(Ok(text)), true) => checked(program, text, status),
        (Some(Err(error)), _) => Err(format!("the output of {program} cannot be read: {error}")),
        (None, _) | (_, false) => {
            Err(format!("{program} took longer than {} s and was killed", patience.as_secs()))
        }
    }
}

fn checked(program: &str, text: Wiped, status: ExitStatus) -> Result<Wiped, String> {
    match status.success() {
        true => Ok(text),
        false => Err(format!("{program} ended with {status}")),
    }
}

/// All that it prints, or a little more than it may; `None` where that takes too long. Something that a program started may hold its end
/// for as long as it likes, and nothing here waits for it longer than for the program.
fn read_within(deadline: Instant, child: &mut Child) -> Option<io::Result<Wiped>> {
    read_all(deadline, &mut child.stdout.take()?).transpose()
}

fn read_all(deadline: Instant, output: &mut ChildStdout) -> io::Result<Option<Wiped>> {
    ioctl_fionbio(&*output, true)?;
    // As much room as is ever read: growing would leave copies behind.
    let mut bytes = Wiped::new(vec![0; MAX_PRINTED_BYTES + 1]);
    let mut length = 0;
    loop {
        let room = bytes.get_mut(length..).filter(|room| !room.is_empty());
        let Some(room) = room else { return Ok(Some(bytes)) };
        match output.read(room) {
            Ok(0) => {
                bytes.truncate(length);
                return Ok(Some(bytes));
            }
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !has_more_within(deadline, output)? {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is more to read, or nobody left who could print it.
fn has_more_within(deadline: Instant, output: &ChildStdout) -> io::Result<bool> {
    let mut looked_at = [PollFd::new(output, PollFlags::IN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        match poll(&mut looked_at, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether it ends in time. It stays to be waited for.
fn wait_within(deadline: Instant, child: &Child) -> bool {
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else { return false };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(pid), look) {
            Ok(Some(_)) => return true,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(patience: u64, script: &str) -> Result<Vec<u8>, String> {
        run_for(Duration::from_secs(patience), script)
    }

    fn run_for(patience: Duration, script: &str) -> Result<Vec<u8>, String> {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let printed = printed_within(patience, &command, &Running::default());
        printed.map(|text| text.to_vec())
    }

    #[test]
    fn a_program_prints_a_line_and_nothing_of_it_is_in_an_error() {
        assert_eq!(run(30, "echo a-secret"), Ok(b"a-secret\n".to_vec()));
        for (patience, script, why) in [
            (30, "echo a-secret; exit 3", "ended with exit status: 3"),
            (30, "echo a-secret; kill -9 $$", "ended with signal: 9"),
            (30, "while :; do echo a-secret; done", "printed more than 16386 bytes"),
            (3_600, "yes a-secret; sleep 3600", "printed more than 16386 bytes"),
            (1, "echo a-secret; sleep 1000", "took longer than 1 s"),
            (1, "echo a-secret; exec >&-; sleep 1000", "took longer than 1 s"),
        ] {
            let error = run(patience, script).unwrap_err();
            assert!(error.contains(why) && !error.contains("a-secret"), "{script}: {error}");
        }
        let missing = printed(&["/nowhere".to_owned()], &Running::default()).unwrap_err();
        assert!(missing.contains("does not run"), "{missing}");
    }

    #[test]
    fn a_program_sees_little_and_leaves_nothing_behind() {
        let seen = String::from_utf8(run(30, "env").unwrap()).unwrap();
        assert!(!seen.contains("CARGO"), "{seen}");
        let folder = tempfile::tempdir().unwrap();
        let (pid, told) = (folder.path().join("pid"), folder.path().display().to_string());
        let script = format!("sleep 1000 & echo $! > {told}/new && mv {told}/new {told}/pid; echo a-secret");
        let error = run(1, &script).unwrap_err();
        assert!(error.contains("took longer"), "what it started holds its output: {error}");
        let left: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let ends = Instant::now() + PATIENCE;
        let is_there =
            || std::fs::read_to_string(format!("/proc/{left}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while is_there() {
            assert!(Instant::now() < ends, "{left} still runs");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_run_whose_output_somebody_else_keeps_open_leaves_no_thread_and_no_descriptor_behind() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().display().to_string();
        // A session of its own, which ending the program's group does not end.
        let script = format!("setsid sh -c 'echo $$ >> {told}/pids; exec sleep 1000' & echo a-secret; wait");
        let held = |folder| std::fs::read_dir(format!("/proc/self/{folder}")).unwrap().count();
        let before = ["task", "fd"].map(held);
        let runs = 24;
        let pids = || std::fs::read_to_string(folder.path().join("pids")).unwrap_or_default();
        for run in 1..=runs {
            let mut patience = Duration::from_millis(200);
            // On a busy machine it may be ended before it did anything.
            while pids().lines().count() < run {
                let error = run_for(patience, &script).unwrap_err();
                assert!(error.contains("took longer") && !error.contains("a-secret"), "{error}");
                patience *= 2;
            }
        }
        let after = ["task", "fd"].map(held);
        let left: Vec<i32> = pids().lines().map(|pid| pid.parse().unwrap()).collect();
        let live = left
            .iter()
            .filter(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.is_ok_and(|stat| stat.contains("(sleep)") || stat.contains("(sh)"))
            })
            .count();
        for pid in &left {
            let _ended_already = rustix::process::kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
        }
        assert!(live >= runs, "they do keep it open: {live}");
        for (kind, (before, after)) in ["threads", "descriptors"].iter().zip(before.iter().zip(&after)) {
            assert!(*after < before + runs / 2, "{kind}: {before} before, {after} after");
        }
    }
}
