//! `obol rs`: a resource server that verifies tokens over HTTP, and whose operator can revoke sessions.
//!
//! As with the sidecar, the process is closed to others before a key is loaded, and the sandbox entered while there is one
//! thread.

mod control;
mod reload;

use core::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use obol_ipc::{Endpoint, RS_CONTROL_SOCKET_VARIABLE};
use obol_probe::contract::Address;
use obol_probe::stop::Stop;
use obol_resource::Gate;
use obol_resource::provision::{Follower, LeasedTable};
use obol_resource::service::{Options, Service};
use obol_sandbox::Sandbox;
use obol_token::Audience;
use obol_verify::{
    CascadeLimits, Clock as _, ResourceHalf, SessionStore, SessionTable, SystemClock, Templates, Verifier,
};
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use self::control::Control;
use self::reload::Reloader;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::environment;
use crate::role::audit;
use crate::role::followed::Followed;
use crate::role::operator_door::OperatorDoor;
use crate::role::sandbox;
use crate::role::stores;
use crate::role::templates::{self, ServerTemplates};
use crate::sessions::files;
use crate::settings::args::RsArgs;
use crate::settings::config::Config;
use crate::settings::paths;
use crate::signals::{LAST_WAIT, shutdown_signal};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8700);

/// What it calls itself to its operator.
const NAME: &str = concat!("obol-rs/", env!("CARGO_PKG_VERSION"));

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions again.
pub(crate) fn run(args: &RsArgs, config: &Config) -> Outcome {
    let mut hardening = obol_sandbox::harden_process();
    let files = sessions(args, config);
    let followed = followed(args, config, &files)?;
    let halves = files::resource_halves(&files)?;
    let templates = Arc::new(ServerTemplates::open(config)?);
    let audience = audience(args.audience.as_ref().or(config.rs.audience.as_ref()), &halves)?;
    let options = listen(args, config)?;
    // Outside the sandbox: whether a socket that is there is dead is found out by connecting to it.
    let operator = operator_door(args)?;
    // While there is one thread: each table that is opened has some of its own.
    let sandbox = match config.rs.sandbox {
        Some(false) => None,
        _ => Some(reach(args, config, operator.as_ref(), &files)?),
    };
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    let clock = Arc::new(SystemClock::new());
    let sessions = stores::sessions(args, config, &audience, &clock)?;
    templates::warn_of(&halves, config, max_ttl(config));
    stores::import(&*sessions, &halves, clock.now())?;
    let (table, follower) = under_lease(followed, &audience, &sessions, &clock);
    let verifier =
        verifier(args, config, audience, table, Arc::<ServerTemplates>::clone(&templates), &clock)?;
    let mut gate = Gate::new(verifier).log_lines_dropped(log_lines::dropped());
    let audit = audit::open_for_rs(args, config)?;
    if let Some(log) = &audit {
        gate = gate.audited(Arc::clone(log));
    }
    let reloader = Arc::new(Reloader {
        files,
        sessions: Arc::clone(&sessions),
        templates,
        clock: Arc::clone(&clock),
        reading: Mutex::default(),
    });
    let kept = stores::how_sessions_last(args, config)?;
    let control = Control {
        sessions,
        kept,
        reloader: Arc::clone(&reloader),
        gate: gate.clone(),
        clock,
        audit,
        following: follower.as_ref().map(Follower::following),
    };

    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let service = options.bind(gate).await.map_err(Failure::unavailable)?;
        for address in service.handle().addresses().iter().filter_map(Address::tcp) {
            tracing::info!(%address, "listening");
        }
        let reload = tokio::spawn(reloader.read_on(signal(SignalKind::hangup())?));
        serve(service, operator, control, follower).await?;
        reload.abort();
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// The service that sessions come from, if they come from one. From somewhere they must come.
fn followed(args: &RsArgs, config: &Config, files: &[PathBuf]) -> Outcome<Option<Followed>> {
    let followed = Followed::find(args, config, files)?;
    let has_store = args.session_store.is_some() || config.rs.session_store.is_some();
    if files.is_empty() && !has_store && followed.is_none() {
        return Err(Failure::usage(
            "--sessions FILE is needed, which `obol session create` makes; or --authority, after `obol rs join`",
        ));
    }
    Ok(followed)
}

/// What is left to the process.
fn reach(
    args: &RsArgs,
    config: &Config,
    operator: Option<&OperatorDoor>,
    files: &[PathBuf],
) -> Outcome<Sandbox> {
    let socket = operator.map(OperatorDoor::path);
    sandbox::of_resource_server(args, config, address(args, config), socket, files)
}

/// What tokens are looked up in, and what follows the service that sessions come from, where they come from one.
fn under_lease(
    followed: Option<Followed>,
    audience: &Audience,
    sessions: &Arc<dyn SessionStore>,
    clock: &Arc<SystemClock>,
) -> (Arc<dyn SessionTable>, Option<Follower>) {
    let kept = Arc::clone(sessions);
    let Some(followed) = followed else { return (kept, None) };
    let lease = followed.lease(clock);
    let table = LeasedTable::new(Arc::clone(sessions), Arc::clone(&lease));
    (Arc::new(table), Some(followed.follower(audience.clone(), kept, lease, clock)))
}

/// Takes the operator's socket, if there is to be one. Where none was named and the usual place cannot be used, or another
/// server has it, the server does without and says so: what was named is meant, and what is usual is a convenience.
fn operator_door(args: &RsArgs) -> Outcome<Option<OperatorDoor>> {
    let named = args.rs_control_socket.as_deref();
    if named.is_some_and(|named| named == "off") {
        return Ok(None);
    }
    let is_named =
        named.is_some() || environment(RS_CONTROL_SOCKET_VARIABLE).is_some_and(|url| !url.is_empty());
    let endpoint = Endpoint::rs_control(named, environment).map_err(Failure::usage)?;
    match OperatorDoor::open(&endpoint)? {
        Ok(door) => Ok(Some(door)),
        Err(error) if is_named => {
            Err(Failure::unavailable(format_args!("{error}; --rs-control-socket names one for this server")))
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "there is no operator's socket, so `obol rs revoke` does not reach this server; name one with \
                 --rs-control-socket"
            );
            Ok(None)
        }
    }
}

/// Serves callers, and the operator where there is a socket for that, until it is told to stop.
async fn serve(
    service: Service,
    operator: Option<OperatorDoor>,
    control: Control,
    follower: Option<Follower>,
) -> Outcome {
    let stop = Stop::new();
    if let Some(follower) = follower {
        tokio::spawn(follower.run(stop.clone()));
    }
    let shutdown = shutdown_signal()?;
    let operated = operator.map(|door| door.serve(control, NAME, stop.clone())).transpose()?;
    let stopped = async {
        shutdown.await;
        stop.say();
    };
    let _said_in_the_log = service.run(stopped).await;
    if let Some(operated) = operated {
        let _panicked = tokio::task::block_in_place(|| operated.join());
    }
    Ok(())
}

/// The files and folders of sessions that flags or settings name.
pub(crate) fn sessions(args: &RsArgs, config: &Config) -> Vec<PathBuf> {
    paths::named(&args.sessions, config.rs.sessions.as_ref())
}

fn address(args: &RsArgs, config: &Config) -> SocketAddr {
    args.listen.or(config.rs.listen).unwrap_or(DEFAULT_LISTEN)
}

/// Where to listen, if that may be.
pub(crate) fn listen(args: &RsArgs, config: &Config) -> Outcome<Options> {
    let mut options = Options::new(address(args, config));
    if args.allow_remote {
        options = options.allow_remote();
    }
    options.check().map_err(Failure::unavailable)?;
    Ok(options)
}

/// The audience that was named, or the one that all sessions agree on.
fn audience(named: Option<&String>, halves: &[ResourceHalf]) -> Outcome<Audience> {
    if let Some(named) = named {
        return Audience::new(named.as_str()).map_err(Failure::usage);
    }
    let mut audiences = halves.iter().map(|half| &half.keys.aud);
    match audiences.next() {
        Some(first) if audiences.all(|other| other == first) => {
            Audience::new(first.as_str()).map_err(Failure::usage)
        }
        None => Err(Failure::usage("no session says which resource server this is; name it with --audience")),
        _ => Err(Failure::usage(
            "the sessions do not all name one audience; name this server's with --audience",
        )),
    }
}

fn max_ttl(config: &Config) -> u64 {
    config.rs.max_ttl.unwrap_or(CascadeLimits::default().max_ttl)
}

fn verifier(
    args: &RsArgs,
    config: &Config,
    audience: Audience,
    sessions: Arc<dyn SessionTable>,
    templates: Arc<dyn Templates>,
    clock: &Arc<SystemClock>,
) -> Outcome<Verifier> {
    let mut limits = CascadeLimits::default();
    limits.clock_skew = config.rs.clock_skew.unwrap_or(limits.clock_skew);
    limits.max_ttl = max_ttl(config);
    let spent = stores::spent_set(args, config, &audience, limits.clock_skew, clock)?;
    Verifier::builder(audience, sessions, spent)
        .clock(Arc::<SystemClock>::clone(clock))
        .templates(templates)
        .limits(limits)
        .policy_epoch(config.rs.policy_epoch.unwrap_or(0))
        .build()
        .map_err(Failure::usage)
}
