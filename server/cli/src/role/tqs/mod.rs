//! `obol tqs`: the Token Queue Service.
//!
//! The order of the start matters: the process is closed to others before a key is loaded; what lies outside the
//! sandbox (listeners, the key's source, the service manager) is taken before it is entered; and it is entered while
//! there is one thread, before anybody can connect or a session is read.

mod reload;
pub(crate) mod sockets;

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event};
use obol_probe::notify::Notifier;
use obol_queue::{MasterKey, ProvisionError, Queue, SessionId};
use obol_sidecar::{Options, PeerLimits};

use self::reload::Reloader;
use self::sockets::Sockets;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::{environment, place};
use crate::role::audit;
use crate::role::master_key::Sources;
use crate::role::sandbox;
use crate::sessions::files::{self, FoundHalf};
use crate::settings::args::TqsArgs;
use crate::settings::config::{Config, Origin};
use crate::settings::paths;
use crate::signals::{LAST_WAIT, service_manager, shutdown_signal};

/// Runs until SIGTERM, SIGINT or the operator's `drain`.
pub(crate) fn run(args: &TqsArgs, config: Config, origin: Origin) -> Outcome {
    reload::apply_log_level(&config, &origin);
    let mut hardening = obol_sandbox::harden_process();
    let notifier = service_manager();
    let store = place(args.store.as_ref().or(config.tqs.store.as_ref()), "tokens.redb")?;
    let master_key = master_key(args, &config, &store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sockets = {
        let _inside = runtime.enter();
        Sockets::bind(args, &config)?
    };
    let sessions = sessions(args, &config);
    files::answer(&sessions)?;
    let sandbox = (!args.no_sandbox && config.tqs.sandbox != Some(false)).then(|| {
        let log = audit::file(args, &config);
        sandbox::of_sidecar(&store, log, sockets.folders(), &sessions, &origin)
    });
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, Some(form(&config)));
    log_lines::begin()?;
    let audit_key = audit::chain_key(&master_key);
    let queue = Arc::new(open_queue(&config, store.clone(), master_key)?);
    let audit = audit::open(args, &config, &store, audit_key, &queue)?;
    provision(&queue, audit.as_deref(), &sessions)?;
    let ended = runtime.block_on(serve(sockets, queue, audit, notifier, sessions, config, origin));
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// The master key, wherever it is.
fn master_key(args: &TqsArgs, config: &Config, store: &Path) -> Outcome<MasterKey> {
    let mut sealed = vec![store.to_owned(), store.with_added_extension("keys")];
    sealed.extend(audit::sealed(args, config, store));
    let sources = Sources {
        named: args.master_key.as_deref(),
        credential: "obol-master-key",
        keychain: config.tqs.keychain.as_deref(),
        set: config.tqs.master_key.as_ref(),
        usual: "master.key",
        sealed: &sealed.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
    };
    sources.load().map(MasterKey::from)
}

/// Whether agents and daemon are one user, which decides what all else is worth.
fn form(config: &Config) -> &'static str {
    if config.tqs.agent_users.is_some() { "two users" } else { "one user" }
}

async fn serve(
    sockets: Sockets,
    queue: Arc<Queue>,
    audit: Option<Arc<AuditLog>>,
    notifier: Notifier,
    sessions: Vec<PathBuf>,
    config: Config,
    origin: Origin,
) -> Outcome {
    let mut options = Options::new(sockets.agent, sockets.control)
        .limits(limits(&config))
        .notify(notifier)
        .log_lines_dropped(log_lines::dropped());
    if let Some(http) = sockets.http {
        options = options.http(http);
    }
    if let Some(audit) = &audit {
        options = options.audit(Arc::clone(audit));
    }
    let service = options.bind(Arc::clone(&queue)).await.map_err(Failure::unavailable)?;
    let handle = service.handle();
    let reloader = Reloader::new(config, origin, sessions, handle, queue, audit)?;
    let shutdown = shutdown_signal()?;
    tokio::select! {
        _said_in_the_log = service.run(shutdown) => Ok(()),
        never = reloader.run() => match never {},
    }
}

/// The files and folders of sessions that flags or settings name.
pub(crate) fn sessions(args: &TqsArgs, config: &Config) -> Vec<PathBuf> {
    paths::named(&args.session, config.tqs.sessions.as_ref())
}

/// What is wrong with the settings, as far as that can be said without opening anything.
pub(crate) fn check(args: &TqsArgs, config: &Config) -> Outcome {
    let agent = obol_ipc::Endpoint::agent(args.sockets.socket.as_deref(), environment);
    sockets::access(config)?;
    // A socket that is wrong is said elsewhere.
    let Ok(agent) = agent else { return Ok(()) };
    match sockets::http_address(args, config, &agent)? {
        Some(address) => address.check().map_err(Failure::unavailable),
        None => Ok(()),
    }
}

fn limits(config: &Config) -> PeerLimits {
    let (tqs, default) = (&config.tqs, PeerLimits::default());
    PeerLimits {
        connections: tqs.connections.unwrap_or(default.connections),
        connection_rate: tqs.connection_rate.unwrap_or(default.connection_rate),
        user_rate: tqs.user_rate.unwrap_or(default.user_rate),
        idle: tqs.idle.map_or(default.idle, Duration::from_secs),
    }
}

fn open_queue(config: &Config, store: PathBuf, master_key: MasterKey) -> Outcome<Queue> {
    let tqs = &config.tqs;
    let mut builder = Queue::builder();
    if let Some(batch) = tqs.batch {
        builder = builder.batch(batch);
    }
    if let Some(max_ready) = tqs.max_ready {
        builder = builder.max_ready(max_ready);
    }
    if let Some(max_depth) = tqs.max_depth {
        builder = builder.max_depth(max_depth);
    }
    if let Some(min_life) = tqs.min_life {
        builder = builder.min_life(Duration::from_secs(min_life));
    }
    builder.open(store, master_key).map_err(Failure::unavailable)
}

/// Provisions the sessions of these files and folders, once all of them were read. The first that is refused is told;
/// those after it are provisioned all the same.
fn provision(queue: &Queue, audit: Option<&AuditLog>, named: &[PathBuf]) -> Outcome {
    let mut outcome = Ok(());
    for found in files::agent_halves(named)? {
        let provisioned = provision_one(queue, audit, found);
        match (&outcome, provisioned) {
            (Ok(()), provisioned) => outcome = provisioned,
            (Err(_), Err(failure)) => tracing::error!(%failure, "a session was not provisioned"),
            (Err(_), Ok(())) => {}
        }
    }
    outcome
}

/// One that is known already is left alone: the daemon was restarted.
fn provision_one(queue: &Queue, audit: Option<&AuditLog>, found: FoundHalf) -> Outcome {
    let FoundHalf { half, file, in_folder } = found;
    match queue.provision(half) {
        Ok(id) => {
            if let Some(audit) = audit {
                note_session(queue, audit, id);
            }
            Ok(())
        }
        Err(error @ ProvisionError::Exists(_)) => {
            tracing::info!(file = %file.display(), %error, "already provisioned");
            Ok(())
        }
        // The daemon serves all the same: the operator's own orders do not keep it from starting.
        Err(error @ ProvisionError::Held(_)) => {
            tracing::warn!(file = %file.display(), %error, "not provisioned");
            Ok(())
        }
        // A folder keeps what is over until somebody tidies it.
        Err(error @ ProvisionError::Expired) if in_folder => {
            tracing::warn!(file = %file.display(), %error, "not provisioned");
            Ok(())
        }
        Err(error @ ProvisionError::Unavailable(_)) => Err(Failure::unavailable(error)),
        Err(error) => Err(Failure::usage(format_args!("{}: {error}", file.display()))),
    }
}

fn note_session(queue: &Queue, audit: &AuditLog, id: SessionId) {
    let session = queue.sessions().into_iter().find(|session| session.session_id == id);
    audit.note(Entry {
        decision: Some(Decision::Allow),
        session: Some(id.as_u64()),
        agent: session.map(|session| session.agent_instance_id.into()),
        reason: Some("named at the start".into()),
        ..Entry::new(Event::SessionStart)
    });
}
