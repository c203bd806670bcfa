//! `obol rs`: a resource server that verifies tokens over HTTP, and whose operator can revoke sessions.
//!
//! As with the sidecar, the process is closed to others before a key is loaded, and the sandbox entered while there is one
//! thread.

mod control;
mod opened;
mod reload;
mod spend_door;

use core::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use obol_ipc::{Endpoint, RS_CONTROL_SOCKET_VARIABLE};
use obol_probe::contract::Address;
use obol_probe::stop::Stop;
use obol_resource::provision::Follower;
use obol_resource::service::{Options, Service};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::control::Control;
pub(crate) use self::opened::{Opened, Prepared, check_audience};
use self::spend_door::SpendDoor;
pub(crate) use self::spend_door::socket as spend_socket;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::environment;
use crate::role::operator_door::OperatorDoor;
use crate::role::sandbox;
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
    let prepared = Prepared::read(args, config)?;
    let options = listen(args, config)?;
    // Outside the sandbox: whether a socket that is there is dead is found out by connecting to it.
    let operator = operator_door(args)?;
    let spend = SpendDoor::open(args, config)?;
    // While there is one thread: each table that is opened has some of its own.
    let sandbox = match config.rs.sandbox {
        Some(false) => None,
        _ => {
            let reach = prepared.reach(args, config, Some(address(args, config)), operator.as_ref())?;
            Some(spend.iter().fold(reach, |reach, door| door.within(reach)))
        }
    };
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    let Opened { gate, control, follower, reloader } = prepared.open(args, config)?;

    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let service = options.bind(gate).await.map_err(Failure::unavailable)?;
        for address in service.handle().addresses().iter().filter_map(Address::tcp) {
            tracing::info!(%address, "listening");
        }
        let reload = tokio::spawn(reloader.read_on(signal(SignalKind::hangup())?));
        serve(service, Doors { operator, spend }, control, follower).await?;
        reload.abort();
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// Takes the operator's socket, if there is to be one. Where none was named and the usual place cannot be used, or another
/// server has it, the server does without and says so: what was named is meant, and what is usual is a convenience.
pub(crate) fn operator_door(args: &RsArgs) -> Outcome<Option<OperatorDoor>> {
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

/// The sockets beside the port.
struct Doors {
    operator: Option<OperatorDoor>,
    spend: Option<SpendDoor>,
}

/// Serves callers, and on the sockets that there are, until it is told to stop.
async fn serve(service: Service, doors: Doors, control: Control, follower: Option<Follower>) -> Outcome {
    let stop = Stop::new();
    if let Some(follower) = follower {
        tokio::spawn(follower.run(stop.clone()));
    }
    let shutdown = shutdown_signal()?;
    let Doors { operator, spend } = doors;
    let (gate, clock) = (control.gate.clone(), Arc::clone(&control.clock));
    let spending = spend.map(|door| door.serve(gate, clock, stop.clone())).transpose()?;
    let operated = operator.map(|door| door.serve(control, NAME, stop.clone())).transpose()?;
    let stopped = async {
        shutdown.await;
        stop.say();
    };
    let _said_in_the_log = service.run(stopped).await;
    for thread in [operated, spending].into_iter().flatten() {
        let _panicked = tokio::task::block_in_place(|| thread.join());
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
