//! What the process gives up once it has what it needs: files that are none of its business (Landlock), and system
//! calls that it never makes (seccomp).
//!
//! The list of system calls is one of what is denied, not of what is allowed: what a C library, an allocator or a
//! runtime calls differs between versions and machines, and a daemon that dies of an update protects nobody. Denied is
//! what someone who took the process over would want: to run a program, to look into other processes, to mount, to
//! load, to reach the network. The first two end the process, the others fail.
//!
//! Both hold for threads that are started later; so the sandbox is entered while there is one thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::harden::Measure;

/// The newest rights that were tried out here. Older kernels enforce those of them that they know.
const RIGHTS: ABI = ABI::V6;

/// Calls that end the process: nothing here has a reason to make them.
const DEADLY: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
];

/// Calls that fail with `EPERM`.
const DENIED: &[libc::c_long] = &[
    // Other name spaces and other roots.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // The kernel and the machine.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    // Ways around what is checked elsewhere.
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    // Other processes and other users.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // The kernel's keys; ours was read before.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
];

/// What the process may still do with files.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sandbox {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl Sandbox {
    /// A sandbox with no files at all. What is open already stays open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets this file, or what is in this folder, be read. Nothing at this path is no error: there is nothing to read.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// Lets what is in this folder be read, written, created and removed. Must exist.
    #[must_use]
    pub fn write(mut self, folder: impl Into<PathBuf>) -> Self {
        self.write.push(folder.into());
        self
    }

    /// Enters it, for good. To be called while there is one thread.
    pub fn enter(&self) -> Vec<Measure> {
        let files = match self.landlock() {
            Ok(status) => describe(&status),
            Err(error) => Measure::off("landlock", error),
        };
        vec![files, filter_calls()]
    }

    fn landlock(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(RIGHTS))?
            // No connection goes out by TCP, and no port is taken: a listener is bound before.
            .handle_access(AccessNet::from_all(RIGHTS))?
            .scope(Scope::from_all(RIGHTS))?
            .create()?;
        for path in &self.read {
            let rights = AccessFs::ReadFile | AccessFs::ReadDir;
            ruleset = add(ruleset, path, rights)?;
        }
        for path in &self.write {
            let rights = AccessFs::ReadFile
                | AccessFs::ReadDir
                | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::MakeSock
                | AccessFs::RemoveFile;
            ruleset = add(ruleset, path, rights)?;
        }
        ruleset.restrict_self()
    }
}

fn add(
    ruleset: landlock::RulesetCreated,
    path: &Path,
    rights: landlock::BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    // What is not there cannot be allowed, and stays out of reach.
    let Ok(place) = PathFd::new(path) else { return Ok(ruleset) };
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(RIGHTS) };
    ruleset.add_rule(PathBeneath::new(place, rights))
}

fn describe(status: &RestrictionStatus) -> Measure {
    const NAME: &str = "landlock";
    match status.ruleset {
        RulesetStatus::FullyEnforced => Measure::on(NAME, "files: state, sockets, settings; no TCP"),
        RulesetStatus::PartiallyEnforced => {
            Measure::on(NAME, "files: state, sockets, settings; the kernel is too old for the rest")
        }
        RulesetStatus::NotEnforced => Measure::off(
            NAME,
            "the kernel has no Landlock, or it is not switched on (CONFIG_SECURITY_LANDLOCK, kernel parameter lsm=)",
        ),
    }
}

fn filter_calls() -> Measure {
    const NAME: &str = "seccomp";
    let installed = programs().and_then(|programs| {
        programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter_all_threads(program))
            .map_err(|error| error.to_string())
    });
    match installed {
        Ok(()) => Measure::on(NAME, "no programs, no other processes, no mounts, no keys, Unix sockets only"),
        Err(error) => Measure::off(NAME, error),
    }
}

fn programs() -> Result<[BpfProgram; 2], String> {
    let text = |error: seccompiler::BackendError| error.to_string();
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    let mut denied: BTreeMap<_, _> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    denied.insert(libc::SYS_socket, vec![other_than_unix().map_err(text)?]);
    let eperm = u32::try_from(libc::EPERM).unwrap_or(1);
    Ok([
        compile(denied, SeccompAction::Errno(eperm)).map_err(text)?,
        compile(deadly, SeccompAction::KillProcess).map_err(text)?,
    ])
}

fn other_than_unix() -> Result<SeccompRule, seccompiler::BackendError> {
    let unix = u64::try_from(libc::AF_UNIX).unwrap_or_default();
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unix)?])
}

fn compile(
    calls: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    action: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(calls, SeccompAction::Allow, action, machine)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_on_this_machine() {
        let [denied, deadly] = programs().unwrap();
        assert!(denied.len() > DENIED.len() && deadly.len() > DEADLY.len());
    }
}
