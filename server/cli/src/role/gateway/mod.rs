//! `obol gateway`: APIs that know nothing of Obol, behind single-use tokens. What decides is what `obol rs` decides with.
//!
//! Programs that print a credential run first, and certificate authorities are read. Then the process is closed to others and enters the sandbox, as every server.

mod apis;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use obol_gateway::{Behind, Gateway, Options};
use obol_ipc::RS_CONTROL_SOCKET_VARIABLE;
use obol_probe::contract::Address;
use obol_probe::stop::Stop;
use obol_probe::tls::{Certificate, TLS12_AND_13};
use obol_sandbox::Sandbox;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::apis::{add, check};
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::{environment, place};
use crate::role::operator_door::OperatorDoor;
use crate::role::rs::{Opened, Prepared, operator_door};
use crate::role::sandbox;
use crate::settings::args::gateway::GatewayArgs;
use crate::settings::config::Config;
use crate::signals::{LAST_WAIT, shutdown_signal};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8730);
/// What it calls itself to its operator.
const NAME: &str = concat!("obol-gateway/", env!("CARGO_PKG_VERSION"));

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions and the certificate again.
pub(crate) fn run(args: &GatewayArgs, config: &Config) -> Outcome {
    let mut own = args.server.clone();
    let found = apis::read_all(&apis::folder(&args.apis))?;
    let targets: Vec<_> = found.iter().flat_map(|(_, api)| api.hosts_and_ports()).collect();
    let found = apis::with_secrets(&args.apis, found)?;
    // Certificate authorities are read here too: the sandbox has none of them.
    let behind = found.into_iter().map(|(name, api, secret)| {
        Behind::new(&name, api, &secret).map_err(|why| Failure::usage(format_args!("{name}: {why}")))
    });
    let behind = behind.collect::<Outcome<Vec<_>>>()?;
    let mut hardening = obol_sandbox::harden_process();
    let prepared = Prepared::read(&own, config)?;
    if own.spent.is_none() && config.rs.spent.is_none() {
        // A resource server may run beside it, and each file has one owner.
        own.spent = Some(place(None, "gateway-spent.redb")?);
    }
    let listen = own.listen.unwrap_or(DEFAULT_LISTEN);
    let mut options = Options::new(listen);
    if let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let certificate = Certificate::load(chain, key, TLS12_AND_13).map_err(Failure::usage)?;
        options = options.certificate(Arc::new(certificate));
    }
    if own.allow_remote {
        options = options.allow_remote();
    }
    if let Some(address) = args.http {
        options = options.http_at(address);
    }
    let operator = operator(&mut own)?;
    let sandbox = match config.rs.sandbox {
        Some(false) => None,
        _ => Some(reach(prepared.reach(&own, config, Some(listen), operator.as_ref())?, args, &targets)),
    };
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    serve(options, operator, behind, prepared.open(&own, config)?)
}

/// What the gateway needs beside what a resource server does: the APIs, and the certificate, which a reload reads.
fn reach(sandbox: Sandbox, args: &GatewayArgs, targets: &[(String, u16)]) -> Sandbox {
    let sandbox = targets.iter().fold(sandbox.look_up_names(), |sandbox, (_, port)| sandbox.reach_tcp(*port));
    let sandbox = args.http.map_or(sandbox.clone(), |address| sandbox.serve_tcp(address.port()));
    [&args.tls_cert, &args.tls_key]
        .into_iter()
        .flatten()
        .fold(sandbox, |sandbox, file| sandbox::reread(sandbox, file))
}

/// Where the operator is answered, if somewhere was named: a resource server may run beside it.
fn operator(own: &mut crate::settings::args::RsArgs) -> Outcome<Option<OperatorDoor>> {
    let is_named = own.rs_control_socket.is_some()
        || environment(RS_CONTROL_SOCKET_VARIABLE).is_some_and(|url| !url.is_empty());
    if is_named { operator_door(own) } else { Ok(None) }
}

fn serve(options: Options, operator: Option<OperatorDoor>, behind: Vec<Behind>, opened: Opened) -> Outcome {
    let Opened { gate, control, follower, reloader } = opened;
    let gateway = Gateway::new(gate, behind);
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let service = options.bind(gateway).await.map_err(Failure::unavailable)?;
        let handle = service.handle();
        for address in handle.addresses().iter().filter_map(Address::tcp).take(1) {
            tracing::info!(%address, "listening");
        }
        let reload = tokio::spawn(reloader.read_on(signal(SignalKind::hangup())?));
        let mut asked = signal(SignalKind::hangup())?;
        let certificate = tokio::spawn(async move {
            while asked.recv().await.is_some() {
                if let Err(error) = handle.reload_certificate() {
                    tracing::error!(%error, "the certificate stays as it was");
                }
            }
        });
        let stop = Stop::new();
        if let Some(follower) = follower {
            tokio::spawn(follower.run(stop.clone()));
        }
        let operated = operator.map(|door| door.serve(control, NAME, stop.clone())).transpose()?;
        let shutdown = shutdown_signal()?;
        let _said_in_the_log = service.run(shutdown).await;
        stop.say();
        if let Some(operated) = operated {
            let _panicked = tokio::task::block_in_place(|| operated.join());
        }
        reload.abort();
        certificate.abort();
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}
