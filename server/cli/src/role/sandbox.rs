//! What each role still needs once everything is open, and nothing else is left to it.

use core::net::SocketAddr;
use std::path::{Path, PathBuf};

use obol_sandbox::{Measure, Sandbox};
use obol_secret::file::folders_of_links;
use obol_uplink::Pinned;
use obol_verify_redis::Server;

use crate::exit::Outcome;
use crate::places::{environment, folder_of, place};
use crate::role::stores::{self, Kept};
use crate::role::templates;
use crate::role::{audit, followed};
use crate::settings::args::RsArgs;
use crate::settings::args::atp::ServeArgs;
use crate::settings::config::{self, AtpServe, Config, Origin};

/// Enters a sandbox for good, if there is to be one; what came of it.
pub(crate) fn enter(sandbox: Option<&Sandbox>) -> Vec<Measure> {
    sandbox.map_or_else(|| vec![switched_off("the sandbox is switched off")], Sandbox::enter)
}

/// That there is none, and what follows from it.
pub(crate) fn switched_off(why: &str) -> Measure {
    Measure::off(
        "sandbox",
        format_args!("{why}: this process can read any file of its user and run programs"),
    )
}

/// The sidecar: the store, the audit log, the sockets, should they have to be made again, and what a reload reads.
pub(crate) fn of_sidecar<'a>(
    store: &Path,
    audit_log: Option<&Path>,
    sockets: impl Iterator<Item = &'a Path>,
    sessions: &[PathBuf],
    origin: &Origin,
) -> Sandbox {
    let mut sandbox = Sandbox::new().serve_unix().write(folder_of(store));
    for folder in sockets {
        sandbox = sandbox.write(folder);
    }
    if let Some(log) = audit_log {
        sandbox = sandbox.write(folder_of(log));
    }
    // Whose control group a process is in that connects: shares go by it.
    sandbox = sandbox.read("/proc");
    let settings = config::places(origin.file.as_deref());
    settings.iter().chain(sessions).fold(sandbox, |sandbox, file| reread(sandbox, file))
}

/// The authenticator: the service's port, its identity's folder, the sockets, should they have to be made again, and what a
/// reload reads; and the audit log with its key, where there is one. No port of its own choice, and nothing that the sidecar keeps.
pub(crate) fn of_authenticator(
    identity: &Path,
    service: &Pinned,
    sockets: Vec<PathBuf>,
    audit: Option<&(PathBuf, PathBuf)>,
    origin: &Origin,
) -> Sandbox {
    // A port that the system chooses, while a browser is to bring a human's yes.
    let sandbox = Sandbox::new().serve_unix().reach_unix().serve_tcp(0).write(folder_of(identity));
    let mut sandbox = reach(sandbox, service);
    for file in audit.iter().flat_map(|(log, key)| [log, key]) {
        sandbox = sandbox.write(folder_of(file));
    }
    sandbox = sockets.into_iter().fold(sandbox, Sandbox::write);
    // Whose control group a process is in that connects: shares go by it.
    sandbox = sandbox.read("/proc");
    config::places(origin.file.as_deref()).iter().fold(sandbox, |sandbox, file| reread(sandbox, file))
}

/// Lets a service be reached.
fn reach(sandbox: Sandbox, service: &Pinned) -> Sandbox {
    let Some((host, port)) = service.host_and_port() else { return sandbox };
    let sandbox = sandbox.reach_tcp(port);
    if host.parse::<core::net::IpAddr>().is_ok() { sandbox } else { sandbox.look_up_names() }
}

/// The resource server: its port, what it keeps and where, the operator's socket, should it have to be made again, and the
/// sessions, which a reload reads.
pub(crate) fn of_resource_server(
    args: &RsArgs,
    config: &Config,
    listen: Option<SocketAddr>,
    operator: Option<&Path>,
    sessions: &[PathBuf],
) -> Outcome<Sandbox> {
    let (named, settings) =
        (|named: &Option<PathBuf>, set: &Option<PathBuf>| named.clone().or(set.clone()), &config.rs);
    let mut sandbox = Sandbox::new();
    if let Some(listen) = listen {
        sandbox = sandbox.serve_tcp(listen.port());
    }
    if let Some(service) = followed::service(&args.service, config)? {
        sandbox = reach(sandbox, &service);
    }
    if let Some(socket) = operator {
        sandbox = sandbox.serve_unix().write(folder_of(socket));
    }
    let session_store = named(&args.session_store, &settings.session_store);
    let spent = named(&args.spent, &settings.spent);
    sandbox = keep(sandbox, &stores::where_kept(spent.as_ref(), "spent.redb")?);
    sandbox = keep(sandbox, &stores::where_kept_if(session_store.as_ref())?);
    if session_store.is_some() {
        let key = place(named(&args.session_key, &settings.session_key).as_ref(), stores::SESSION_KEY)?;
        sandbox = sandbox.write(folder_of(&key));
    }
    if let Some(log) = named(&args.audit.audit_log, &settings.audit_log) {
        let key = place(named(&args.audit.audit_key, &settings.audit_key).as_ref(), audit::RS_KEY)?;
        sandbox = sandbox.write(folder_of(&log)).write(folder_of(&key));
    }
    let read = sessions.iter().cloned().chain(settings.redis_password_file.clone());
    let read = read.chain(templates::file(config).map(Path::to_owned));
    Ok(read.fold(sandbox, |sandbox, file| reread(sandbox, &file)))
}

/// What the Authentication Service needs.
#[cfg(feature = "authority")]
#[derive(Debug)]
pub(crate) struct AuthorityReach<'a> {
    /// Ports that it listens on.
    pub(crate) ports: Vec<u16>,
    /// Files that it writes, and makes others beside.
    pub(crate) written: Vec<&'a Path>,
    /// Files and folders that it reads again.
    pub(crate) read: Vec<&'a Path>,
    /// Ports of others that it connects to.
    pub(crate) reached: Vec<u16>,
}

/// The Authentication Service: its ports, what it keeps, and what a reload reads.
#[cfg(feature = "authority")]
pub(crate) fn of_authority(reach: &AuthorityReach<'_>) -> Sandbox {
    let ports =
        reach.ports.iter().fold(Sandbox::new().serve_unix(), |sandbox, port| sandbox.serve_tcp(*port));
    let written = reach.written.iter().fold(ports, |sandbox, file| sandbox.write(folder_of(file)));
    let written = match reach.reached.as_slice() {
        [] => written,
        ports => ports.iter().fold(written.look_up_names(), |sandbox, port| sandbox.reach_tcp(*port)),
    };
    // By these a user's number has a name: who an operator is.
    let named = written.read("/etc/passwd").read("/etc/nsswitch.conf");
    reach.read.iter().fold(named, |sandbox, file| reread(sandbox, file))
}

/// A provider of the Agent Token Protocol: its ports, what it keeps and where, what describes it, and the secrets and the
/// certificate, which a reload reads.
pub(crate) fn of_provider(
    args: &ServeArgs,
    config: &AtpServe,
    ports: impl Iterator<Item = u16>,
) -> Outcome<Sandbox> {
    let named = |named: &Option<PathBuf>, set: &Option<PathBuf>| named.clone().or(set.clone());
    let mut sandbox = ports.fold(Sandbox::new(), Sandbox::serve_tcp);
    let store = stores::where_kept(named(&args.store, &config.store).as_ref(), stores::ATP_TOKENS)?;
    if !matches!(store, Kept::InMemory) {
        let key = place(named(&args.key, &config.key).as_ref(), stores::ATP_KEY)?;
        sandbox = sandbox.write(folder_of(&key));
    }
    let spent = stores::where_kept(named(&args.spent, &config.spent).as_ref(), stores::ATP_SPENT)?;
    sandbox = keep(keep(sandbox, &store), &spent);
    if let Some(log) = named(&args.audit.audit_log, &config.audit_log) {
        let key = place(named(&args.audit.audit_key, &config.audit_key).as_ref(), audit::ATP_KEY)?;
        sandbox = sandbox.write(folder_of(&log)).write(folder_of(&key));
    }
    if let Some(file) = named(&args.discovery, &config.discovery) {
        sandbox = sandbox.read(file);
    }
    let read = [
        named(&args.secrets, &config.secrets),
        named(&args.tls_cert, &config.tls_cert),
        named(&args.tls_key, &config.tls_key),
        config.redis_password_file.clone(),
    ];
    Ok(read.iter().flatten().fold(sandbox, |sandbox, file| reread(sandbox, file)))
}

/// Lets be written and reached what is kept there.
fn keep(sandbox: Sandbox, kept: &Kept) -> Sandbox {
    match kept {
        Kept::InMemory => sandbox,
        Kept::InFile(file) => sandbox.write(folder_of(file)),
        Kept::AtServer(Server::Unix(_)) => sandbox.reach_unix(),
        Kept::AtServer(Server::Tcp { host, port }) => {
            let is_address = host.parse::<core::net::IpAddr>().is_ok();
            let sandbox = sandbox.reach_tcp(*port);
            if is_address { sandbox } else { sandbox.look_up_names() }
        }
    }
}

/// `obol dev` itself: its roles, to ask whether they answer and to end them, and its folder, to remove it.
#[cfg(feature = "authority")]
pub(crate) fn of_dev(resource_server: SocketAddr, temporary: Option<&Path>) -> Sandbox {
    let sandbox = Sandbox::new().reach_tcp(resource_server.port()).reach_unix().signal();
    match temporary {
        Some(folder) => sandbox.remove(folder).remove_empty(folder_of(folder)),
        None => sandbox,
    }
}

/// Lets a file be read again, or the files of a folder. One that is replaced is another file, so its folder is what has to
/// be readable; unless that would be all that the user has. Then a reload reads the file only as long as it is the same. Nor
/// is the folder the same that a link leads to once it was swapped, as Kubernetes does.
pub(crate) fn reread(sandbox: Sandbox, file: &Path) -> Sandbox {
    let is_folder = file.is_dir();
    let around = if is_folder { file.to_owned() } else { folder_of(file).to_owned() };
    let sandbox = if is_folder { sandbox } else { sandbox.read(file) };
    let folders = folders_of_links(file).into_iter().chain([around]);
    folders.filter(|folder| !holds_a_home(folder)).fold(sandbox, Sandbox::read)
}

/// Whether this folder is the user's home or above it.
fn holds_a_home(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let home = environment("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok());
    folder == Path::new("/") || home.is_some_and(|home| home.starts_with(&folder))
}
