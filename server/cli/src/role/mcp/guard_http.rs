//! `obol mcp guard --url`: the guard in front of a server that is reached over HTTP.
//!
//! Certificate authorities are read first. Then the process is closed to others and enters the sandbox, as every server.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use obol_mcp::Rules;
use obol_mcp_http::{Handle, Options, Proxy, Remote};
use obol_probe::contract::Address;
use obol_probe::stop::Stop;
use obol_probe::tls::{Certificate, TLS12_AND_13};
use obol_sandbox::Sandbox;
use tokio::signal::unix::{SignalKind, signal};

use super::guard::{NAME, enter, front};
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::role::operator_door::OperatorDoor;
use crate::role::rs::Opened;
use crate::role::sandbox;
use crate::settings::args::mcp::McpGuardArgs;
use crate::settings::config::Config;
use crate::signals::{LAST_WAIT, shutdown_signal};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8740);

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions and the certificate again.
pub(super) fn run(args: &McpGuardArgs, url: &str, rules: Rules, config: &Config) -> Outcome {
    let mut own = args.server.clone();
    let remote = Remote::new(url, args.plain).map_err(Failure::usage)?;
    let hardening = obol_sandbox::harden_process();
    let listen = own.listen.unwrap_or(DEFAULT_LISTEN);
    let options = options(args, listen)?;
    let reach = |sandbox| reach(sandbox, args, &remote);
    let (opened, operator) = enter(hardening, &mut own, config, Some(listen), reach)?;
    serve(options, remote, rules, opened, operator)
}

fn options(args: &McpGuardArgs, listen: SocketAddr) -> Outcome<Options> {
    let mut options = Options::new(listen);
    if let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let certificate = Certificate::load(chain, key, TLS12_AND_13).map_err(Failure::usage)?;
        options = options.certificate(Arc::new(certificate));
    }
    if args.server.allow_remote {
        options = options.allow_remote();
    }
    Ok(match args.http {
        Some(address) => options.http_at(address),
        None => options,
    })
}

/// What it needs besides what a resource server does: the server, and the certificate, which a reload reads.
fn reach(sandbox: Sandbox, args: &McpGuardArgs, remote: &Remote) -> Sandbox {
    let (host, port) = remote.host_and_port();
    let mut sandbox = sandbox.reach_tcp(port);
    if host.parse::<IpAddr>().is_err() {
        sandbox = sandbox.look_up_names();
    }
    if let Some(address) = args.http {
        sandbox = sandbox.serve_tcp(address.port());
    }
    let files = [&args.tls_cert, &args.tls_key];
    files.into_iter().flatten().fold(sandbox, |sandbox, file| sandbox::reread(sandbox, file))
}

fn serve(
    options: Options,
    remote: Remote,
    rules: Rules,
    opened: Opened,
    operator: Option<OperatorDoor>,
) -> Outcome {
    let Opened { gate, control, follower, reloader } = opened;
    let proxy = Proxy::new(front(gate, rules, Arc::clone(&control.sessions)), remote);
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let service = options.bind(proxy).await.map_err(Failure::unavailable)?;
        let handle = service.handle();
        for address in handle.addresses().iter().filter_map(Address::tcp).take(1) {
            tracing::info!(%address, "listening");
        }
        let reload = tokio::spawn(reloader.read_on(signal(SignalKind::hangup())?));
        let certificate = tokio::spawn(reload_certificate(handle, signal(SignalKind::hangup())?));
        let stop = Stop::new();
        if let Some(follower) = follower {
            tokio::spawn(follower.run(stop.clone()));
        }
        let operated = operator.map(|door| door.serve(control, NAME, stop.clone())).transpose()?;
        let _said_in_the_log = service.run(shutdown_signal()?).await;
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

async fn reload_certificate(handle: Handle, mut asked: tokio::signal::unix::Signal) {
    while asked.recv().await.is_some() {
        if let Err(error) = handle.reload_certificate() {
            tracing::error!(%error, "the certificate stays as it was");
        }
    }
}
