//! `obol proxy`: a local address that programs take as the base URL of an API; each request gets a token and goes on.
//!
//! It holds no key. Sockets are taken first, then the sandbox is entered, and only then the sidecar is connected to.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use obol_agent::Agent;
use obol_probe::contract::Address;
use obol_proxy::{Door, Looked, Options, Owners, Proxy, Service, Targets};
use obol_sandbox::Sandbox;
use obol_sidecar::HttpListener;

use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::{environment, folder_of};
use crate::role::agents::{access, listener};
use crate::role::sandbox;
use crate::routes::routes;
use crate::settings::args::proxy::ProxyArgs;
use crate::signals::{LAST_WAIT, service_manager, shutdown_signal};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8740);
/// What it calls itself to the sidecar.
const NAME: &str = concat!("obol-proxy/", env!("CARGO_PKG_VERSION"));
/// Where systems keep the certificate authorities that they trust.
const CERTIFICATES: [&str; 6] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/lib/ssl",
];

/// What it listens on.
struct Doors {
    tcp: Option<Looked>,
    unix: Option<HttpListener>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &ProxyArgs) -> Outcome {
    let mut hardening = obol_sandbox::harden_process();
    let notifier = service_manager();
    let targets = Targets::read(&args.to).map_err(|error| Failure::usage(format_args!("--to {error}")))?;
    let mut builder = Agent::builder().name(NAME);
    if let Some(socket) = &args.socket {
        builder = builder.socket(socket);
    }
    if let Some(socket) = &args.auth_socket {
        builder = builder.auth_socket(socket);
    }
    if let Some(file) = &args.ca_file {
        builder = builder.ca_file(std::path::absolute(file)?);
    }
    if let Some(file) = &args.routes {
        builder = builder.routes(routes(file)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let doors = {
        let _inside = runtime.enter();
        Doors::open(args)?
    };
    let sandbox = (!args.no_sandbox).then(|| reach(args, &doors));
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    log_lines::begin()?;
    let ended = runtime.block_on(async {
        let agent = builder.connect().await?;
        let mut proxy = Proxy::new(agent, targets).silence(Duration::from_secs(args.timeout));
        if args.drop_credentials {
            proxy = proxy.drop_credentials();
        }
        let shutdown = shutdown_signal()?;
        let service = doors.options().bind(proxy).await.map_err(Failure::unavailable)?;
        notifier.ready();
        serve(service, shutdown).await;
        notifier.stopping();
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

impl Doors {
    fn open(args: &ProxyArgs) -> Outcome<Self> {
        let access = access(&args.agent_user)?;
        let listen = args.listen.or_else(|| args.unix.is_none().then_some(DEFAULT_LISTEN));
        let tcp = listen.map(|address| {
            let failed = |error| Failure::unavailable(format_args!("cannot listen on {address}: {error}"));
            let admitted = access.clone();
            let owners = Owners::open().map_err(failed)?;
            let admits = move |uid| admitted.admits_user(uid);
            Looked::bind(address, owners, Arc::new(admits)).map_err(Failure::unavailable)
        });
        let unix = args.unix.as_ref().map(|socket| listener(socket, access.clone()));
        Ok(Self { tcp: tcp.transpose()?, unix: unix.transpose()? })
    }

    fn options(self) -> Options {
        let unix = self.unix.and_then(|unix| Some(Door::admitted(unix.address()?, unix)));
        Options::new(self.tcp.map(Door::from).into_iter().chain(unix))
    }
}

/// Serves until it is told to stop.
async fn serve(service: Service, shutdown: impl Future<Output = ()>) {
    for address in service.handle().addresses() {
        match address {
            Address::Tcp(address) => tracing::info!(%address, "listening"),
            Address::Unix(path) => tracing::info!(socket = %path.display(), "listening"),
        }
    }
    let _said_in_the_log = service.run(shutdown).await;
}

/// Gateways are wherever the session's routes lead; so every port may be reached. No port is taken any more, no program run, and no
/// file written but the socket.
fn reach(args: &ProxyArgs, doors: &Doors) -> Sandbox {
    let mut sandbox = Sandbox::new().look_up_names().reach_unix().reach_any_tcp();
    let own = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(environment).map(PathBuf::from);
    for place in CERTIFICATES.into_iter().map(PathBuf::from).chain(own).chain(args.ca_file.clone()) {
        sandbox = sandbox.read(place);
    }
    match doors.unix.as_ref().and_then(HttpListener::path) {
        Some(path) => sandbox.serve_unix().write(folder_of(path)),
        None => sandbox,
    }
}
