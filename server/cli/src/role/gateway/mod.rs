//! `obol gateway`: APIs that know nothing of Obol, behind single-use tokens. What decides is what `obol rs` decides with.
//!
//! Programs that print a credential run first, with the helper that runs them again, and certificate authorities are read. Then the process is closed to others and enters the sandbox, as every server.

mod apis;
mod command;
mod rules;
mod unix;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use obol_gateway::{Behind, Gateway};
use obol_probe::tls::HTTP2_AND_1;
use obol_sandbox::Sandbox;

pub(crate) use self::apis::{add, check};
pub(crate) use self::command::help;
use self::command::{Helper, Program};
pub(crate) use self::rules::write_rules;
use self::unix::UnixDoor;
use crate::exit::{Failure, Outcome};
use crate::places::place;
use crate::role::rs::Prepared;
use crate::role::sandbox;
use crate::role::strangers::{Port, named_operator_door, serve};
use crate::settings::args::gateway::GatewayArgs;
use crate::settings::config::Config;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8730);
/// What it calls itself to its operator.
const NAME: &str = concat!("obol-gateway/", env!("CARGO_PKG_VERSION"));

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions and the certificate again.
pub(crate) fn run(args: &GatewayArgs, config: &Config) -> Outcome {
    let mut own = args.server.clone();
    let found = apis::read_all(&apis::folder(&args.apis))?;
    let targets: Vec<_> = found.iter().flat_map(|(_, api)| api.hosts_and_ports()).collect();
    let (found, helper) = apis::with_secrets(&args.apis, found)?;
    // Certificate authorities are read here too: the sandbox has none of them.
    let behind = found.into_iter().map(|apis::WithSecret { name, api, secret, program }| {
        let behind = Behind::new(&name, api, &secret);
        Ok((behind.map_err(|why| Failure::usage(format_args!("{name}: {why}")))?, program))
    });
    let behind = behind.collect::<Outcome<Vec<_>>>()?;
    let mut hardening = obol_sandbox::harden_process();
    let prepared = Prepared::read(&own, config)?;
    if own.spent.is_none() && config.rs.spent.is_none() {
        // A resource server may run beside it, and each file has one owner.
        own.spent = Some(place(None, "gateway-spent.redb")?);
    }
    let port = Port {
        listen: own.listen.or_else(|| args.unix.is_none().then_some(DEFAULT_LISTEN)),
        certificate: args.tls_cert.as_ref().zip(args.tls_key.as_ref()),
        protocols: HTTP2_AND_1,
        allow_remote: own.allow_remote,
        http: args.http,
    };
    let options = port.options()?;
    let operator = named_operator_door(&own)?;
    let door = UnixDoor::open(args)?;
    let sandbox = match config.rs.sandbox {
        Some(false) => None,
        _ => {
            let sandbox =
                reach(prepared.reach(&own, config, port.listen, operator.as_ref())?, &port, &targets);
            Some(door.iter().fold(sandbox, |sandbox, door| door.within(sandbox)))
        }
    };
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    let link = helper.map(Helper::link).transpose()?;
    let behind = behind.into_iter().map(|(behind, program)| match (program, &link) {
        (Some(number), Some(link)) => {
            behind.renewed_from(Arc::new(Program { link: Arc::clone(link), number }))
        }
        _ => behind,
    });
    let behind = behind.collect();
    let mut beside = None;
    let served = serve(options, NAME, operator, prepared.open(&own, config)?, |gate, _| {
        let gateway = Gateway::new(gate, behind);
        beside = door.map(|door| door.serve(gateway.clone())).transpose()?;
        Ok(gateway)
    });
    // Where the service did not even begin, nobody says that it is over.
    if let Some(thread) = beside.filter(|_| served.is_ok()) {
        let _panicked = thread.join();
    }
    served
}

/// What the gateway needs beside what a resource server does: its port, and the APIs.
fn reach(sandbox: Sandbox, port: &Port<'_>, targets: &[(String, u16)]) -> Sandbox {
    let sandbox = targets.iter().fold(sandbox.look_up_names(), |sandbox, (_, port)| sandbox.reach_tcp(*port));
    port.reach(sandbox)
}
