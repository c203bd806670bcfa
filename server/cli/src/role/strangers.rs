//! Servers with a port for strangers that decide as `obol rs` does: the gateway, and the guard over HTTP.

use core::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use obol_ipc::RS_CONTROL_SOCKET_VARIABLE;
use obol_probe::contract::Address;
use obol_probe::front::{Grip, Options, Run, Serve};
use obol_probe::stop::Stop;
use obol_probe::tls::{Certificate, Protocols, TLS12_AND_13};
use obol_resource::Gate;
use obol_sandbox::Sandbox;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::rs::{Control, Opened, operator_door};
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::environment;
use crate::role::operator_door::OperatorDoor;
use crate::role::sandbox;
use crate::settings::args::RsArgs;
use crate::signals::{LAST_WAIT, shutdown_signal};

/// What flags say of the port.
pub(crate) struct Port<'a> {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) certificate: Option<(&'a PathBuf, &'a PathBuf)>,
    /// What is offered inside TLS.
    pub(crate) protocols: Protocols,
    pub(crate) allow_remote: bool,
    /// Where those ask who watch it.
    pub(crate) http: Option<SocketAddr>,
}

impl Port<'_> {
    pub(crate) fn options(&self) -> Outcome<Options> {
        let mut options = self.listen.map_or_else(Options::nowhere, Options::new);
        if let Some((chain, key)) = self.certificate {
            let certificate =
                Certificate::load_for(chain, key, TLS12_AND_13, self.protocols).map_err(Failure::usage)?;
            options = options.certificate(Arc::new(certificate));
        }
        if self.allow_remote {
            options = options.allow_remote();
        }
        Ok(match self.http {
            Some(address) => options.http_at(address),
            None => options,
        })
    }

    /// What the port needs beside what a resource server does: where it is watched, and the certificate, which a reload reads.
    pub(crate) fn reach(&self, sandbox: Sandbox) -> Sandbox {
        let sandbox = self.http.iter().fold(sandbox, |sandbox, address| sandbox.serve_tcp(address.port()));
        let files = self.certificate.into_iter().flat_map(|(chain, key)| [chain, key]);
        files.fold(sandbox, |sandbox, file| sandbox::reread(sandbox, file))
    }
}

/// Where the operator is answered, if somewhere was named: there may be many such servers on one machine.
pub(crate) fn named_operator_door(own: &RsArgs) -> Outcome<Option<OperatorDoor>> {
    let is_named = own.rs_control_socket.is_some()
        || environment(RS_CONTROL_SOCKET_VARIABLE).is_some_and(|url| !url.is_empty());
    if is_named { operator_door(own) } else { Ok(None) }
}

/// Serves until SIGTERM or SIGINT. SIGHUP reads the sessions and the certificate again. `name` is what the server calls itself to its
/// operator.
pub(crate) fn serve<S>(
    options: Options,
    name: &str,
    operator: Option<OperatorDoor>,
    opened: Opened,
    served: impl FnOnce(Gate, &Control) -> Outcome<S>,
) -> Outcome
where
    S: Serve,
    S::Service: Run,
{
    let Opened { gate, control, follower, reloader } = opened;
    log_lines::begin()?;
    let (served, has_port) = (served(gate, &control)?, options.has_port());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let service = options.bind(served).await.map_err(Failure::unavailable)?;
        let grip = service.grip();
        for address in grip.addresses().iter().filter_map(Address::tcp).take(usize::from(has_port)) {
            tracing::info!(%address, "listening");
        }
        let reload = tokio::spawn(reloader.read_on(signal(SignalKind::hangup())?));
        let certificate = tokio::spawn(reload_certificate(grip, signal(SignalKind::hangup())?));
        let stop = Stop::new();
        if let Some(follower) = follower {
            tokio::spawn(follower.run(stop.clone()));
        }
        let operated = operator.map(|door| door.serve(control, name, stop.clone())).transpose()?;
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

async fn reload_certificate(grip: Grip, mut asked: Signal) {
    while asked.recv().await.is_some() {
        if let Err(error) = grip.reload_certificate() {
            tracing::error!(%error, "the certificate stays as it was");
        }
    }
}
