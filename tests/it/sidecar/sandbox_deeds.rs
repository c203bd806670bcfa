//! The sandbox, deed by deed: each is tried in a process that entered it, and, as the control, in one that did not.
//!
//! Two lists. One is the very table that the filter is made from: every line of it is tried. The other is what somebody who
//! took a process over would really do, with real files, sockets and processes.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown, fchown, lchown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;

use obol_deeds::attempt;
use obol_sandbox::calls::{ClosedCall, Then, When};
use obol_sandbox::{Measure, Sandbox, harden_process};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::process::{Pid, Resource, Signal};
use rustix::thread::{CapabilitySets, Uid};

const SIGSYS: i32 = 31;
/// Tells a copy of this test program what to try, where, and whether inside.
const PROBE: &str = "OBOL_TEST_DEED";
const FOLDER: &str = "OBOL_TEST_DEED_FOLDER";
const INSIDE: &str = "OBOL_TEST_DEED_INSIDE";
const VICTIM: &str = "OBOL_TEST_DEED_VICTIM";
const PORT: &str = "OBOL_TEST_DEED_PORT";
/// How a probe says what a call answered: the number of its error, or 0, beyond this.
const ANSWERED: i32 = 1;

/// Where a probe does its deeds.
struct Site {
    mine: PathBuf,
    others: PathBuf,
    /// A file of the others that was open before.
    open: File,
    victim: Pid,
    port: u16,
    /// Never bound to, so that it can be sent from.
    datagrams: UnixDatagram,
}

impl Site {
    fn find() -> Self {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let number = |name: &str| std::env::var(name).unwrap().parse::<u32>().unwrap();
        let others = folder.join("others");
        Self {
            mine: folder.join("mine"),
            open: File::open(others.join("there")).unwrap(),
            others,
            victim: Pid::from_raw(number(VICTIM).try_into().unwrap()).unwrap(),
            port: number(PORT).try_into().unwrap(),
            datagrams: UnixDatagram::unbound().unwrap(),
        }
    }

    fn there(&self) -> PathBuf {
        self.others.join("there")
    }

    fn abstract_name(&self) -> SocketAddr {
        SocketAddr::from_abstract_name(self.others.as_os_str().as_encoded_bytes()).unwrap()
    }
}

type Deed = (&'static str, fn(&Site) -> io::Result<()>);

fn done<T>(outcome: Result<T, impl Into<io::Error>>) -> io::Result<()> {
    outcome.map(drop).map_err(Into::into)
}

fn unshare(name_space: libc::c_int) -> io::Result<i64> {
    attempt(libc::SYS_unshare, [u64::from(name_space.cast_unsigned()), 0, 0, 0, 0, 0])
}

fn now() -> Timestamps {
    let moment = Timespec { tv_sec: 1, tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}

/// What is tried on real things. All of it works for root outside.
const DEEDS: &[Deed] = &[
    ("connect to a socket's path", |site| done(UnixStream::connect(site.others.join("stream")))),
    ("connect to an abstract socket", |site| done(UnixStream::connect_addr(&site.abstract_name()))),
    ("send to a socket's path", |site| done(site.datagrams.send_to(b"x", site.others.join("datagram")))),
    ("connect a socket that was there before", |site| {
        done(site.datagrams.connect(site.others.join("datagram")))
    }),
    ("connect by TCP", |site| done(TcpStream::connect(("127.0.0.1", site.port)))),
    ("take a TCP port", |_| done(TcpListener::bind("127.0.0.1:0"))),
    ("send by UDP", |_| done(UdpSocket::bind("127.0.0.1:0"))),
    ("open a file outside for reading", |site| done(File::open(site.there()))),
    ("open a file outside for writing", |site| done(File::options().append(true).open(site.there()))),
    ("list a folder outside", |site| done(fs::read_dir(&site.others))),
    ("make a file outside", |site| done(File::create_new(site.others.join("new")))),
    ("chmod", |site| fs::set_permissions(site.there(), Permissions::from_mode(0o777))),
    ("fchmod", |site| site.open.set_permissions(Permissions::from_mode(0o777))),
    ("chmod of what is one's own", |site| {
        fs::set_permissions(site.mine.join("there"), Permissions::from_mode(0o666))
    }),
    ("fchmodat", |site| done(rustix::fs::chmodat(CWD, site.there(), Mode::RWXO, AtFlags::empty()))),
    ("chown", |site| chown(site.there(), Some(1), None)),
    ("lchown", |site| lchown(site.there(), Some(1), None)),
    ("fchown", |site| fchown(&site.open, Some(1), None)),
    ("utimensat", |site| done(rustix::fs::utimensat(CWD, site.there(), &now(), AtFlags::empty()))),
    ("futimens", |site| done(rustix::fs::futimens(&site.open, &now()))),
    ("setxattr", |site| done(rustix::fs::setxattr(site.there(), "trusted.x", b"x", XattrFlags::empty()))),
    ("removexattr", |site| done(rustix::fs::removexattr(site.there(), "trusted.there"))),
    ("truncate", |site| done(File::options().write(true).truncate(true).open(site.there()))),
    ("link", |site| fs::hard_link(site.there(), site.mine.join("link"))),
    ("link into the outside", |site| fs::hard_link(site.mine.join("there"), site.others.join("link"))),
    ("rename", |site| fs::rename(site.there(), site.others.join("renamed"))),
    ("rename into the outside", |site| fs::rename(site.mine.join("there"), site.others.join("renamed"))),
    ("symlink", |site| symlink("/", site.others.join("symlink"))),
    ("mknod", |site| done(rustix::fs::mknodat(CWD, site.others.join("fifo"), FileType::Fifo, Mode::RUSR, 0))),
    ("mkdir", |site| fs::create_dir(site.others.join("folder"))),
    ("unlink", |site| fs::remove_file(site.there())),
    ("rmdir", |site| fs::remove_dir(site.others.join("empty"))),
    ("run a program", |_| Err(Command::new("/bin/true").exec())),
    ("kill another process", |site| done(rustix::process::kill_process(site.victim, Signal::USR1))),
    ("limit another process", |site| {
        let limit = rustix::process::getrlimit(Resource::Core);
        done(rustix::process::prlimit(Some(site.victim), Resource::Core, limit))
    }),
    ("become another user", |_| done(rustix::thread::set_thread_uid(Uid::from_raw(1)))),
    ("change rights", |_| {
        let rights = rustix::thread::capabilities(None)?;
        let set = CapabilitySets { inheritable: rights.permitted, ..rights };
        done(rustix::thread::set_capabilities(None, set))
    }),
    ("another root", |site| done(rustix::process::chroot(&site.mine))),
    ("another name space of mounts", |_| done(unshare(libc::CLONE_NEWNS))),
    ("another name space of hosts' names", |_| done(unshare(libc::CLONE_NEWUTS))),
    ("another network", |_| done(unshare(libc::CLONE_NEWNET))),
    ("a new process", |_| {
        done(attempt(libc::SYS_clone, [u64::from(libc::SIGCHLD.cast_unsigned()), 0, 0, 0, 0, 0]))
    }),
];

/// What it comes to, and how the probe tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Worked,
    Failed(i32),
    Died(i32),
}

impl Outcome {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(ANSWERED), _) => Self::Worked,
            (Some(code), _) if code > ANSWERED => Self::Failed(code - ANSWERED),
            (_, Some(signal)) => Self::Died(signal),
            // A deed that became another program, which ended well.
            _ => Self::Worked,
        }
    }

    fn is_denied(self) -> bool {
        // Landlock says EXDEV of a file that may not change folders.
        matches!(self, Self::Failed(libc::EPERM | libc::EACCES | libc::EXDEV) | Self::Died(SIGSYS))
    }
}

/// The others: files, sockets and a process that a probe has no business with.
struct Others {
    folder: tempfile::TempDir,
    victim: Child,
    tcp: TcpListener,
    _sockets: (UnixListener, UnixListener, UnixDatagram),
}

impl Others {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let others = folder.path().join("others");
        for place in [&others, &folder.path().join("mine")] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("there"), "text").unwrap();
        }
        fs::create_dir(others.join("empty")).unwrap();
        let _as_root_only =
            rustix::fs::setxattr(others.join("there"), "trusted.there", b"x", XattrFlags::empty());
        let name = SocketAddr::from_abstract_name(others.as_os_str().as_encoded_bytes()).unwrap();
        let sockets = (
            UnixListener::bind(others.join("stream")).unwrap(),
            UnixListener::bind_addr(&name).unwrap(),
            UnixDatagram::bind(others.join("datagram")).unwrap(),
        );
        let victim = Command::new("sleep").arg("600").spawn().unwrap();
        Self { folder, victim, tcp: TcpListener::bind("127.0.0.1:0").unwrap(), _sockets: sockets }
    }

    /// Tries a deed in a process of its own.
    fn see(test: &str, probe: &str, inside: bool) -> Outcome {
        let others = Self::new();
        let tried = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("sidecar::sandbox_deeds::{test}"), "--test-threads=1", "--nocapture"])
            .env(PROBE, probe)
            .env(INSIDE, if inside { "yes" } else { "" })
            .env(FOLDER, others.folder.path())
            .env(VICTIM, others.victim.id().to_string())
            .env(PORT, others.tcp.local_addr().unwrap().port().to_string())
            .output()
            .unwrap();
        let outcome = Outcome::of(tried.status);
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(!said.contains("panicked"), "{probe}: {said}");
        outcome
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        // Ours by its handle; that it has ended already is fine.
        let _ended = self.victim.kill();
        let _ended = self.victim.wait();
    }
}

/// In the copy: enters the sandbox, if it is to be inside, does the deed, and tells by its exit code.
fn probe(sandbox: impl FnOnce(&Site) -> Sandbox, deed: impl FnOnce(&Site) -> io::Result<()>) -> ! {
    let site = Site::find();
    // Hanging up a terminal is one of the deeds.
    let _is_leader = rustix::process::setsid();
    if std::env::var_os(INSIDE).is_some_and(|inside| !inside.is_empty()) {
        harden_process();
        let measures = sandbox(&site).enter();
        assert!(measures.iter().all(Measure::is_on), "{measures:?}");
    }
    let code = match deed(&site) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(200),
    };
    std::process::exit(ANSWERED + code);
}

/// What a probe is asked for, if this process is one.
fn asked_for() -> Option<String> {
    std::env::var(PROBE).ok()
}

/// Tries each, several at a time, inside and outside.
fn see_all(test: &str, probes: &[String]) -> Vec<(String, Outcome, Outcome)> {
    let (next, seen) = (Mutex::new(probes.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(probe) = next.lock().unwrap().next() else { return };
                    let both =
                        (probe.clone(), Others::see(test, probe, true), Others::see(test, probe, false));
                    seen.lock().unwrap().push(both);
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The sidecar's: files of its own, sockets to bind, and nothing else.
fn sidecars(site: &Site) -> Sandbox {
    Sandbox::new().write(&site.mine).read(site.others.join("nothing here")).serve_unix()
}

#[test]
fn what_somebody_who_took_the_process_over_would_do_is_denied_and_works_outside() {
    if let Some(asked) = asked_for() {
        let deed = DEEDS.iter().find(|(name, _)| *name == asked).unwrap().1;
        probe(sidecars, deed);
    }
    let names: Vec<_> = DEEDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (name, inside, outside) in
        see_all("what_somebody_who_took_the_process_over_would_do_is_denied_and_works_outside", &names)
    {
        assert!(inside.is_denied(), "{name}: {inside:?}");
        match outside {
            Outcome::Worked => {}
            _ if !is_root() => {
                eprintln!("NOTE: {name}: only root can do that outside, so less is shown ({outside:?})");
            }
            _ => panic!("{name} does not work outside either: {outside:?}"),
        }
    }
}

/// A provider of tokens: its port and its files, and a Redis, by its port, where it shares what it keeps.
fn providers(form: &str, site: &Site) -> Sandbox {
    let sandbox = Sandbox::new().serve_tcp(1).write(&site.mine).read(site.others.join("nothing here"));
    if form == "with Redis" { sandbox.reach_tcp(site.port) } else { sandbox }
}

#[test]
fn whoever_takes_a_provider_over_reaches_its_redis_and_nothing_else() {
    if let Some(asked) = asked_for() {
        let (form, deed) = asked.split_once(": ").unwrap();
        let deed = DEEDS.iter().find(|(name, _)| *name == deed).unwrap().1;
        probe(|site| providers(form, site), deed);
    }
    // The second one has to have been open before the sandbox was entered, and a provider opens none of its kind.
    let works = ["with Redis: connect by TCP", "with Redis: connect a socket that was there before"];
    let probes =
        ["alone", "with Redis"].map(|form| DEEDS.iter().map(move |(name, _)| format!("{form}: {name}")));
    let probes: Vec<_> = probes.into_iter().flatten().collect();
    for (probe, inside, _) in
        see_all("whoever_takes_a_provider_over_reaches_its_redis_and_nothing_else", &probes)
    {
        if works.contains(&probe.as_str()) {
            assert_eq!(inside, Outcome::Worked, "{probe}");
        } else {
            assert!(inside.is_denied(), "{probe}: {inside:?}");
        }
    }
}

/// One use of a call that a line of the table closes, as text, so that a probe can be asked for it.
fn uses(call: &ClosedCall) -> Vec<String> {
    // Where nothing else is said: no descriptor, no address, no process, no flag that anybody knows.
    let nothing = if call.name == "SYS_clone" { [0; 6] } else { [u64::MAX; 6] };
    let with = |argument: u8, value: u64| {
        let mut arguments = nothing;
        arguments[usize::from(argument)] = value;
        arguments
    };
    let uses = match &call.when {
        When::Always | When::Given(_) | When::NoneOf(..) => vec![nothing],
        When::AnyBit(argument, bits) => bits.iter().map(|bit| with(*argument, *bit)).collect(),
        When::WithoutBit(argument, bit) => {
            vec![with(*argument, u64::from(libc::SIGCHLD.cast_unsigned()) & !bit)]
        }
        When::OneOf(argument, _, values) => values.iter().map(|value| with(*argument, *value)).collect(),
    };
    let text = |arguments: [u64; 6]| arguments.map(|argument| argument.to_string()).join(" ");
    uses.into_iter().map(|arguments| format!("{} {} {}", call.name, call.number, text(arguments))).collect()
}

fn make(asked: &str) -> io::Result<()> {
    let numbers: Vec<u64> = asked.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    let number = numbers[0].try_into().unwrap();
    done(attempt(number, numbers[1..].try_into().unwrap()))
}

#[test]
fn every_line_of_the_table_is_in_force_and_makes_the_difference() {
    if let Some(asked) = asked_for() {
        probe(sidecars, |_| make(&asked));
    }
    let table = Sandbox::new().serve_unix().closed_calls();
    assert!(table.len() > 100, "the table has shrunk to {} lines", table.len());
    let mut wanted = std::collections::HashMap::new();
    for call in &table {
        for used in uses(call) {
            wanted.insert(used, call.then);
        }
    }
    let asked: Vec<_> = wanted.keys().cloned().collect();
    let mut alike = BTreeSet::new();
    for (used, inside, outside) in
        see_all("every_line_of_the_table_is_in_force_and_makes_the_difference", &asked)
    {
        let closed = match wanted[&used] {
            Then::Dies => Outcome::Died(SIGSYS),
            Then::Fails => Outcome::Failed(libc::EPERM),
            Then::IsUnknown => Outcome::Failed(libc::ENOSYS),
        };
        assert_eq!(inside, closed, "{used}");
        if outside == inside {
            alike.insert(used);
        }
    }
    // The kernel itself may refuse a call, for want of rights or of the call.
    for used in &alike {
        eprintln!("NOTE: this machine denies {used} to everybody, so less is shown");
    }
    assert!(!is_root() || alike.len() * 10 < asked.len(), "outside much is denied as well: {alike:?}");
}

/// x86-64 only: the same calls by other numbers.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_numbers_of_the_32_bit_way_into_the_kernel_are_closed() {
    if asked_for().is_some() {
        probe(sidecars, |_| done(attempt(libc::SYS_getpid | 0x4000_0000, [0; 6])));
    }
    let see = |inside| Others::see("the_numbers_of_the_32_bit_way_into_the_kernel_are_closed", "x32", inside);
    assert_eq!(see(true), Outcome::Died(SIGSYS));
    assert!(matches!(see(false), Outcome::Worked | Outcome::Failed(libc::ENOSYS)));
}

#[test]
fn a_sandbox_lets_through_what_it_is_told_to_and_nothing_beside_it() {
    if let Some(asked) = asked_for() {
        let (needs, deed) = asked.split_once(": ").unwrap();
        let needed = |site: &Site| match needs {
            "serves TCP" => sidecars(site).serve_tcp(0),
            "reaches TCP" => Sandbox::new().reach_tcp(site.port),
            "reaches another port" => Sandbox::new().reach_tcp(site.port ^ 1),
            "reaches Unix" => Sandbox::new().reach_unix(),
            "looks up names" => Sandbox::new().look_up_names(),
            "signals" => Sandbox::new().signal(),
            "removes" => Sandbox::new().remove(&site.others),
            "removes what is empty" => Sandbox::new().remove_empty(&site.others),
            other => panic!("{other}"),
        };
        probe(needed, DEEDS.iter().find(|(name, _)| *name == deed).unwrap().1);
    }
    let see = |probe: &str| {
        Others::see("a_sandbox_lets_through_what_it_is_told_to_and_nothing_beside_it", probe, true)
    };
    for works in [
        "serves TCP: take a TCP port",
        "reaches TCP: connect by TCP",
        "reaches Unix: connect to a socket's path",
        "looks up names: send by UDP",
        "signals: kill another process",
        "removes: unlink",
        "removes: rmdir",
        "removes what is empty: rmdir",
    ] {
        assert_eq!(see(works), Outcome::Worked, "{works}");
    }
    for denied in [
        "serves TCP: connect by TCP",
        "serves TCP: send by UDP",
        "reaches TCP: take a TCP port",
        "reaches TCP: send by UDP",
        "reaches TCP: connect to a socket's path",
        "reaches another port: connect by TCP",
        "reaches Unix: connect to an abstract socket",
        "reaches Unix: connect by TCP",
        "looks up names: connect to a socket's path",
        "signals: limit another process",
        "removes: open a file outside for reading",
        "removes: make a file outside",
        "removes what is empty: unlink",
    ] {
        assert!(see(denied).is_denied(), "{denied}: {:?}", see(denied));
    }
}

/// What the sidecar goes on doing inside, in a process that is as closed as it.
const NEEDED: &[Deed] = &[
    ("files of one's own", |site| {
        fs::write(site.mine.join("new"), "text")?;
        fs::rename(site.mine.join("new"), site.mine.join("newer"))?;
        File::options().write(true).open(site.mine.join("newer"))?.set_len(1)?;
        File::open(&site.mine)?.sync_all()?;
        fs::remove_file(site.mine.join("newer"))
    }),
    ("a socket, bound again", |site| {
        for _ in 0..2 {
            drop(UnixListener::bind(site.mine.join("socket"))?);
            fs::remove_file(site.mine.join("socket"))?;
        }
        Ok(())
    }),
    ("threads", |_| {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| ())).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread failed")))
    }),
    ("a pair of sockets", |_| done(UnixStream::pair())),
    ("to end by a signal of one's own", |_| {
        done(rustix::process::kill_process(rustix::process::getpid(), Signal::URG))
    }),
];

#[test]
fn what_a_daemon_needs_it_can_do_inside() {
    if let Some(asked) = asked_for() {
        probe(sidecars, NEEDED.iter().find(|(name, _)| *name == asked).unwrap().1);
    }
    for (name, _) in NEEDED {
        assert_eq!(
            Others::see("what_a_daemon_needs_it_can_do_inside", name, true),
            Outcome::Worked,
            "{name}"
        );
    }
}
