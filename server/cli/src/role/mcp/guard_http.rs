//! `obol mcp guard --url`: the guard in front of a server that is reached over HTTP.
//!
//! Certificate authorities are read first. Then the process is closed to others and enters the sandbox, as every server.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use obol_mcp::Rules;
use obol_mcp_http::{Proxy, Remote};
use obol_probe::tls::HTTP1;
use obol_sandbox::Sandbox;

use super::guard::{NAME, enter, front};
use crate::exit::{Failure, Outcome};
use crate::role::strangers::{Port, serve};
use crate::settings::args::mcp::McpGuardArgs;
use crate::settings::config::Config;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8750);

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions and the certificate again.
pub(super) fn run(args: &McpGuardArgs, url: &str, rules: Rules, config: &Config) -> Outcome {
    let mut own = args.server.clone();
    let remote = Remote::new(url, args.plain).map_err(Failure::usage)?;
    let hardening = obol_sandbox::harden_process();
    let port = Port {
        listen: Some(own.listen.unwrap_or(DEFAULT_LISTEN)),
        certificate: args.tls_cert.as_ref().zip(args.tls_key.as_ref()),
        protocols: HTTP1,
        allow_remote: own.allow_remote,
        http: args.http,
    };
    let options = port.options()?;
    let reach = |sandbox| reach(sandbox, &port, &remote);
    let (opened, operator) = enter(hardening, &mut own, config, port.listen, reach)?;
    serve(options, NAME, operator, opened, |gate, control| {
        Ok(Proxy::new(front(gate, rules, Arc::clone(&control.sessions)), remote))
    })
}

/// What it needs besides what a resource server does: its port, and the server.
fn reach(sandbox: Sandbox, port: &Port<'_>, remote: &Remote) -> Sandbox {
    let (host, number) = remote.host_and_port();
    let sandbox = sandbox.reach_tcp(number);
    let is_name = host.parse::<IpAddr>().is_err();
    port.reach(if is_name { sandbox.look_up_names() } else { sandbox })
}
