//! What the process does to itself before it holds a key.
//!
//! Each measure is reported: what is in force, and what the system does not have. Nothing here is ever silently absent,
//! and none of it is needed to serve, so a system that lacks a measure runs without it, in the open.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::CapabilitySet;

use crate::measure::Measure;

/// What a daemon opens at most, should the system allow more.
const MOST_DESCRIPTORS: u64 = 1 << 16;

/// Closes the process to others: no core dumps, no debugger of the same user, no readable files, no swapped keys. To be
/// called first, before a key is loaded and before there is a second thread.
pub fn harden_process() -> Vec<Measure> {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    vec![
        Measure::on("umask", "077"),
        Measure::of("core dumps", "none", rustix::process::setrlimit(Resource::Core, none)),
        Measure::of(
            "dumpable",
            "no, nor can others of this user read its memory",
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
        lock_memory(),
        raise_descriptors(),
    ]
}

/// Locks all memory, as it comes into use. Under a limit that would make the next allocation fail once the limit is
/// reached, and end the daemon; so it is done where there is none.
fn lock_memory() -> Measure {
    const NAME: &str = "locked memory";
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let mut unlimited = limit.current.is_none();
    if !unlimited && limit.maximum.is_none() {
        let raised = Rlimit { current: None, maximum: None };
        unlimited = rustix::process::setrlimit(Resource::Memlock, raised).is_ok();
    }
    let privileged = rustix::thread::capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::IPC_LOCK));
    if !unlimited && !privileged {
        let swap = if swaps() { "keys may reach the swap space" } else { "there is no swap space now" };
        let limit = limit.current.unwrap_or_default() >> 10;
        return Measure::off(
            NAME,
            format_args!(
                "only {limit} KiB may be locked, {swap}; set LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`"
            ),
        );
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Measure::of(NAME, "all", mlockall(flags))
}

fn swaps() -> bool {
    // One line is the heading. Unreadable counts as yes.
    fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

/// Connections need descriptors; the soft limit is low for the sake of programs that use `select`.
fn raise_descriptors() -> Measure {
    const NAME: &str = "descriptors";
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Measure::on(NAME, format_args!("{wanted} or more"));
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    Measure::of(NAME, "as many as the system allows", rustix::process::setrlimit(Resource::Nofile, raised))
}
