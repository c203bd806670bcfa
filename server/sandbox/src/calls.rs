//! The system calls that are closed: one table, from which the filter is made and which the tests go through line by line.
//!
//! It is a list of what is denied, not of what is allowed: what a C library, an allocator or a runtime calls differs between
//! versions and machines, and a daemon that dies of an update protects nobody. Denied is what someone who took the process
//! over would want: to run a program, to look into other processes, to reach other sockets, to change what is outside, to
//! mount, to load. What nothing here has a reason to do at all ends the process; the rest fails.

use libc::c_long;

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClosedCall {
    /// The call's name.
    pub name: &'static str,
    /// Its number on this machine.
    pub number: c_long,
    /// Which uses of it are closed.
    pub when: When,
    /// What becomes of who makes it.
    pub then: Then,
}

/// Which uses of a call are closed, by one of its arguments, counted from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// All.
    Always,
    /// Those in which the argument has any of these bits.
    AnyBit(u8, Vec<u64>),
    /// Those in which the argument lacks this bit.
    WithoutBit(u8, u64),
    /// Those in which the argument is none of these.
    NoneOf(u8, Vec<u64>),
    /// Those in which the argument, under the mask, is one of these.
    OneOf(u8, u64, Vec<u64>),
    /// Those in which the argument, an address, is given.
    Given(u8),
}

/// What becomes of who makes a call that is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// The process ends.
    Dies,
    /// The call fails: `EPERM`.
    Fails,
    /// The call fails as one that the kernel does not know: `ENOSYS`. Callers then take an older one, whose arguments a
    /// filter can see.
    IsUnknown,
}

/// What a process still needs of what is closed to most.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Needs {
    /// New Unix sockets.
    pub(crate) unix_sockets: bool,
    /// New TCP sockets.
    pub(crate) tcp_sockets: bool,
    /// Connecting a socket.
    pub(crate) connect: bool,
    /// Asking the name service, which is done by UDP.
    pub(crate) names: bool,
    /// Signals to processes that it started.
    pub(crate) signals: bool,
}

/// `ioctl`s that type on a terminal in its user's place.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541C;

const SOCKET_TYPES: u64 = 0xf;
/// The old way to whole packets.
const SOCK_PACKET: libc::c_int = 10;

/// Flags of `clone` that ask for a name space. `CLONE_NEWTIME` is none of them there: its bit is a signal's.
const NAME_SPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), calls!(@number $name))),*] };
    (@number $name:ident) => { libc::$name };
}

type Call = (&'static str, c_long);

/// Nothing here has a reason to make these: a program is run, or another process looked into.
const DEADLY: &[Call] = calls! {
    SYS_execve SYS_execveat SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev
};

/// What nobody here needs, whatever the arguments.
const DENIED: &[Call] = calls! {
    // Other name spaces and other roots.
    SYS_chroot SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree
    SYS_pivot_root SYS_setns SYS_umount2 SYS_unshare
    // The kernel and the machine.
    SYS_acct SYS_adjtimex SYS_bpf SYS_clock_adjtime SYS_clock_settime SYS_delete_module SYS_finit_module SYS_init_module
    SYS_kexec_file_load SYS_kexec_load SYS_perf_event_open SYS_quotactl SYS_quotactl_fd SYS_reboot SYS_setdomainname
    SYS_sethostname SYS_settimeofday SYS_swapoff SYS_swapon SYS_syslog SYS_userfaultfd SYS_vhangup
    // Ways around what is checked elsewhere.
    SYS_fanotify_init SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_name_to_handle_at
    SYS_open_by_handle_at SYS_personality
    // What others see of files: their modes, owners, times and attributes.
    SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr
    SYS_lremovexattr SYS_fremovexattr
    // Messages to sockets named in memory that a filter cannot see.
    SYS_sendmsg
    // Other processes, and what is shared with them.
    SYS_kcmp SYS_move_pages SYS_migrate_pages SYS_pidfd_getfd SYS_pidfd_open SYS_process_madvise SYS_process_mrelease
    SYS_shmget SYS_shmat SYS_shmctl SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_semget SYS_semtimedop SYS_semctl
    SYS_mq_open SYS_mq_unlink
    // Other users, and more rights.
    SYS_capset SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
    SYS_setuid
    // The kernel's keys; ours was read before.
    SYS_add_key SYS_keyctl SYS_request_key
};

/// The same on machines that have them.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[Call] = calls! {
    SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat
    SYS_fork SYS_vfork
    SYS_iopl SYS_ioperm SYS_modify_ldt
};
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[Call] = &[];

/// Newer than the list of names: the number is the same on every machine.
const SYS_FCHMODAT2: c_long = 452;
const SYS_SETXATTRAT: c_long = 463;
const SYS_REMOVEXATTRAT: c_long = 466;
const SYS_OPEN_TREE_ATTR: c_long = 467;
const SYS_FILE_SETATTR: c_long = 469;

/// All that is closed to a process with these needs.
pub(crate) fn closed(needs: Needs) -> Vec<ClosedCall> {
    let always = |then| move |(name, number): &Call| line(name, *number, When::Always, then);
    let mut closed: Vec<_> = DEADLY.iter().map(always(Then::Dies)).collect();
    closed.extend(DENIED.iter().chain(DENIED_HERE).map(always(Then::Fails)));
    for (name, number) in [
        ("SYS_fchmodat2", SYS_FCHMODAT2),
        ("SYS_setxattrat", SYS_SETXATTRAT),
        ("SYS_removexattrat", SYS_REMOVEXATTRAT),
        ("SYS_open_tree_attr", SYS_OPEN_TREE_ATTR),
        ("SYS_file_setattr", SYS_FILE_SETATTR),
    ] {
        closed.push(line(name, number, When::Always, Then::Fails));
    }
    closed.extend(processes(needs));
    closed.extend(sockets(needs));
    let typing = When::OneOf(1, u64::from(u32::MAX), vec![TIOCSTI, TIOCLINUX]);
    closed.push(line("SYS_ioctl", libc::SYS_ioctl, typing, Then::Fails));
    closed
}

/// New processes, name spaces, and what is done to other processes. Threads are left.
fn processes(needs: Needs) -> Vec<ClosedCall> {
    let bits = NAME_SPACES.map(bits_of).to_vec();
    let own = u64::from(std::process::id());
    let others = || When::NoneOf(0, vec![own]);
    let mut closed = vec![
        line("SYS_clone3", libc::SYS_clone3, When::Always, Then::IsUnknown),
        line("SYS_clone", libc::SYS_clone, When::AnyBit(0, bits), Then::Fails),
        line("SYS_clone", libc::SYS_clone, When::WithoutBit(0, bits_of(libc::CLONE_THREAD)), Then::Fails),
        line("SYS_prlimit64", libc::SYS_prlimit64, When::NoneOf(0, vec![0, own]), Then::Fails),
    ];
    if !needs.signals {
        closed.push(line("SYS_kill", libc::SYS_kill, others(), Then::Fails));
    }
    closed.extend([
        line("SYS_tgkill", libc::SYS_tgkill, others(), Then::Fails),
        line("SYS_tkill", libc::SYS_tkill, When::Always, Then::Fails),
        line("SYS_rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, others(), Then::Fails),
        line("SYS_rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo, others(), Then::Fails),
        line("SYS_pidfd_send_signal", libc::SYS_pidfd_send_signal, When::Always, Then::Fails),
    ]);
    closed
}

/// What reaches other sockets than those that are connected already.
fn sockets(needs: Needs) -> Vec<ClosedCall> {
    let families = [
        (needs.unix_sockets, libc::AF_UNIX),
        (needs.tcp_sockets || needs.names, libc::AF_INET),
        (needs.tcp_sockets || needs.names, libc::AF_INET6),
    ];
    let allowed = families.iter().filter(|(needed, _)| *needed).map(|(_, family)| bits_of(*family)).collect();
    let mut kinds = vec![libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET];
    if !needs.names {
        kinds.push(libc::SOCK_DGRAM);
    }
    let kinds: Vec<_> = kinds.into_iter().map(bits_of).collect();
    let kind = || When::OneOf(1, SOCKET_TYPES, kinds.clone());
    let mut closed = vec![
        line("SYS_socket", libc::SYS_socket, When::NoneOf(0, allowed), Then::Fails),
        line("SYS_socket", libc::SYS_socket, kind(), Then::Fails),
        // A pair of datagram sockets could be connected to others afterwards.
        line("SYS_socketpair", libc::SYS_socketpair, kind(), Then::Fails),
        line("SYS_sendto", libc::SYS_sendto, When::Given(4), Then::Fails),
    ];
    if !needs.connect {
        closed.push(line("SYS_connect", libc::SYS_connect, When::Always, Then::Fails));
    }
    if !needs.names {
        closed.push(line("SYS_sendmmsg", libc::SYS_sendmmsg, When::Always, Then::Fails));
    }
    closed
}

const fn line(name: &'static str, number: c_long, when: When, then: Then) -> ClosedCall {
    ClosedCall { name, number, when, then }
}

/// A number of the C library as the kernel sees it in a register.
fn bits_of(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}
