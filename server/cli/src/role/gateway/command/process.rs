//! The helper itself: a process that runs programs when it is asked to, and ends with who started it.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};

use super::run::{Running, printed};
use super::wire::{read_commands, read_number, write_answer};
use crate::exit::{Failure, Outcome};

/// Runs until the other end of standard input is gone, whatever runs then.
pub(crate) fn help() -> Outcome {
    // What this process holds, it holds for a moment; the log says what the gateway's own hardening is.
    let _measures = obol_sandbox::harden_process();
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut socket = UnixStream::from(input);
    let other = || Failure::usage("obol gateway starts this itself");
    let commands = read_commands(&mut socket).map_err(|_| other())?;
    let (running, answers) = (Running::default(), socket.try_clone()?);
    let (ask, asked) = sync_channel::<u16>(1);
    let runs = running.clone();
    std::thread::Builder::new()
        .name("obol-run".to_owned())
        .spawn(move || answer(&commands, &asked, &runs, answers))?;
    while let Ok(number) = read_number(&mut socket) {
        // One at a time is asked for.
        if ask.try_send(number).is_err() {
            break;
        }
    }
    running.end_for_good();
    Ok(())
}

fn answer(commands: &[Vec<String>], asked: &Receiver<u16>, running: &Running, mut socket: UnixStream) {
    for number in asked {
        let command = commands.get(usize::from(number)).map(Vec::as_slice).unwrap_or_default();
        // What it says on standard error may be of its secret; nobody knows what it would be in the gateway's log.
        let printed = printed(command, running);
        if write_answer(&mut socket, &printed).is_err() {
            return;
        }
    }
}
