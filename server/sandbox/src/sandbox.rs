//! What the process gives up once it has what it needs: files and ports that are none of its business (Landlock), and
//! system calls that it never makes (seccomp, by [the table](crate::calls)).
//!
//! Both hold for threads that are started later; so the sandbox is entered while there is one thread.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::calls::{self, ClosedCall, Needs};
use crate::filter;
use crate::measure::Measure;

/// The newest rights that were tried out here. Older kernels enforce those of them that they know.
const RIGHTS: ABI = ABI::V6;

/// Where the name service answers by TCP what does not fit a datagram.
const NAME_SERVICE_PORT: u16 = 53;
/// What the name service reads. Where it is asked through a link, its target's folder has to be readable as well.
const NAME_SERVICE: [&str; 7] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/run/systemd/resolve",
];

/// What the process may still do.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sandbox {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    remove: Vec<PathBuf>,
    remove_empty: Vec<PathBuf>,
    listen: Vec<u16>,
    reach: Vec<u16>,
    reaches_all: bool,
    needs: Needs,
}

impl Sandbox {
    /// A sandbox with no files and no new sockets at all. What is open already stays open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets this file, or what is in this folder, be read. Nothing at this path is not an error: there is nothing to read.
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

    /// Lets files and folders below this folder be removed.
    #[must_use]
    pub fn remove(mut self, folder: impl Into<PathBuf>) -> Self {
        self.remove.push(folder.into());
        self
    }

    /// Lets folders in this one be removed, if nothing is in them.
    #[must_use]
    pub fn remove_empty(mut self, folder: impl Into<PathBuf>) -> Self {
        self.remove_empty.push(folder.into());
        self
    }

    /// Lets Unix sockets be bound.
    #[must_use]
    pub fn serve_unix(mut self) -> Self {
        self.needs.unix_sockets = true;
        self
    }

    /// Lets this TCP port be bound.
    #[must_use]
    pub fn serve_tcp(mut self, port: u16) -> Self {
        self.listen.push(port);
        self.needs.tcp_sockets = true;
        self
    }

    /// Lets this TCP port be connected to, on every machine: the kernel's rule knows no addresses.
    #[must_use]
    pub fn reach_tcp(mut self, port: u16) -> Self {
        self.reach.push(port);
        self.needs.tcp_sockets = true;
        self.needs.connect = true;
        self
    }

    /// Lets every TCP port be connected to, for who learns only later where.
    #[must_use]
    pub fn reach_any_tcp(mut self) -> Self {
        self.reaches_all = true;
        self.needs.tcp_sockets = true;
        self.needs.connect = true;
        self
    }

    /// Lets Unix sockets be connected to: all of them, the kernel has no rule for paths.
    #[must_use]
    pub fn reach_unix(mut self) -> Self {
        self.needs.unix_sockets = true;
        self.needs.connect = true;
        self
    }

    /// Lets the name service be asked, by UDP, to wherever.
    #[must_use]
    pub fn look_up_names(mut self) -> Self {
        self.needs.names = true;
        self.reach.push(NAME_SERVICE_PORT);
        self.needs.connect = true;
        self.read.extend(NAME_SERVICE.map(PathBuf::from));
        self
    }

    /// Lets processes be signalled that this user may signal.
    #[must_use]
    pub fn signal(mut self) -> Self {
        self.needs.signals = true;
        self
    }

    /// All system calls that are closed inside.
    pub fn closed_calls(&self) -> Vec<ClosedCall> {
        calls::closed(self.needs)
    }

    /// Enters it, for good. To be called while there is one thread.
    pub fn enter(&self) -> Vec<Measure> {
        let files = match self.landlock() {
            Ok(status) => self.describe(&status),
            Err(error) => Measure::off("landlock", error),
        };
        vec![files, self.seccomp()]
    }

    fn landlock(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut scope = Scope::from_all(RIGHTS);
        if self.needs.signals {
            scope.remove(Scope::Signal);
        }
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(RIGHTS))?
            .handle_access(self.handled_ports())?
            .scope(scope)?
            .create()?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let change = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::RemoveFile;
        let create = AccessFs::MakeReg | AccessFs::MakeSock;
        for (paths, rights) in [
            (&self.read, read),
            (&self.write, read | change | create),
            (&self.remove, AccessFs::ReadDir | AccessFs::RemoveFile | AccessFs::RemoveDir),
            (&self.remove_empty, AccessFs::RemoveDir.into()),
        ] {
            for path in paths {
                ruleset = allow(ruleset, path, rights)?;
            }
        }
        let reach: &[u16] = if self.reaches_all { &[] } else { &self.reach };
        for (ports, right) in [(self.listen.as_slice(), AccessNet::BindTcp), (reach, AccessNet::ConnectTcp)] {
            for port in ports {
                ruleset = ruleset.add_rule(NetPort::new(*port, right))?;
            }
        }
        ruleset.restrict_self()
    }

    /// Of what is done with ports, that which is closed unless it is allowed.
    fn handled_ports(&self) -> BitFlags<AccessNet> {
        if self.reaches_all { AccessNet::BindTcp.into() } else { AccessNet::from_all(RIGHTS) }
    }

    fn describe(&self, status: &RestrictionStatus) -> Measure {
        const NAME: &str = "landlock";
        let ports = |word: &str, ports: &[u16]| match ports {
            [] => String::new(),
            ports => format!(", {word} {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")),
        };
        let reached = match self.reaches_all {
            true => ", connecting to any port".to_owned(),
            false => ports("connecting to", &self.reach),
        };
        let tcp = match (ports("listening on", &self.listen), reached) {
            (listen, reach) if listen.is_empty() && reach.is_empty() => "no TCP".to_owned(),
            (listen, reach) => format!("TCP{listen}{reach}"),
        };
        match status.ruleset {
            RulesetStatus::FullyEnforced => {
                Measure::on(NAME, format_args!("files: only those needed; {tcp}"))
            }
            RulesetStatus::PartiallyEnforced => Measure::on(
                NAME,
                format_args!("files: only those needed; {tcp}; the kernel is too old for some of it"),
            ),
            RulesetStatus::NotEnforced => Measure::off(
                NAME,
                "the kernel has no Landlock, or it is not switched on (CONFIG_SECURITY_LANDLOCK, kernel parameter lsm=)",
            ),
        }
    }

    fn seccomp(&self) -> Measure {
        const NAME: &str = "seccomp";
        let closed = self.closed_calls();
        let installed = filter::programs(&closed).map_err(|error| error.to_string()).and_then(|programs| {
            programs
                .iter()
                .try_for_each(|program| seccompiler::apply_filter_all_threads(program))
                .map_err(|error| error.to_string())
        });
        match installed {
            Ok(()) => Measure::on(NAME, format_args!("{} uses of system calls closed", closed.len())),
            Err(error) => Measure::off(NAME, error),
        }
    }
}

fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // What is not there cannot be allowed, and stays out of reach.
    let Ok(place) = PathFd::new(path) else { return Ok(ruleset) };
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(RIGHTS) };
    ruleset.add_rule(PathBeneath::new(place, rights))
}
