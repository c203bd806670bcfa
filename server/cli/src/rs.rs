//! `obol rs`: a resource server that verifies tokens over HTTP.
//!
//! As with the sidecar, the process is closed to others before a key is loaded, and the sandbox entered while there is one
//! thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use obol_resource::Guard;
use obol_resource::service::Options;
use obol_sandbox::Measure;
use obol_token::Audience;
use obol_verify::{
    Clock as _, Limits, ResourceHalf, SessionStore, SystemClock, Templates, Verifier, read_session_halves,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::RsArgs;
use crate::audit;
use crate::config::Config;
use crate::exit::{Failure, Outcome};
use crate::stores;
use crate::templates;
use crate::tqs::{LAST_WAIT, shutdown_signal};
use crate::{log_lines, sandbox};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8700);

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions again.
pub(crate) fn run(args: &RsArgs, config: &Config) -> Outcome {
    obol_sandbox::harden_process().iter().for_each(Measure::log);
    let sessions_file = args.sessions.clone().or_else(|| config.rs.sessions.clone());
    let halves = match &sessions_file {
        Some(file) => read_session_halves(file).map_err(Failure::usage)?,
        None if args.session_store.is_some() || config.rs.session_store.is_some() => Vec::new(),
        None => {
            return Err(Failure::usage("--sessions FILE is needed; `obol session create` makes such a file"));
        }
    };
    let templates = templates::open(config)?;
    let audience = audience(args.audience.as_ref().or(config.rs.audience.as_ref()), &halves)?;
    let listen = args.listen.or(config.rs.listen).unwrap_or(DEFAULT_LISTEN);
    // While there is one thread: each table that is opened has some of its own.
    if config.rs.sandbox == Some(false) {
        sandbox::switched_off();
    } else {
        sandbox::enter(&sandbox::of_resource_server(args, config, listen)?);
    }
    let clock = Arc::new(SystemClock::new());
    let sessions = stores::sessions(args, config, &audience, &clock)?;
    templates::warn_of(&halves, config, max_ttl(config));
    stores::import(&*sessions, &halves, clock.now())?;
    let verifier = verifier(args, config, audience, &sessions, templates, &clock)?;
    let mut guard = Guard::new(verifier).log_lines_dropped(log_lines::dropped());
    if let Some(log) = audit::open_for_rs(args, config)? {
        guard = guard.audited(log);
    }

    let mut options = Options::new(listen);
    if args.allow_remote {
        options = options.allow_remote();
    }
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let service = options.bind(guard).await.map_err(Failure::unavailable)?;
        tracing::info!(address = %service.local_addr(), "listening");
        let reload = tokio::spawn(reload(signal(SignalKind::hangup())?, sessions_file, sessions, clock));
        service.run(shutdown_signal()?).await;
        reload.abort();
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// The audience that was named, or the one that all sessions agree on.
fn audience(named: Option<&String>, halves: &[ResourceHalf]) -> Outcome<Audience> {
    if let Some(named) = named {
        return Ok(Audience::new(named.as_str()));
    }
    let mut audiences = halves.iter().map(|half| &half.keys.aud);
    match audiences.next() {
        Some(first) if audiences.all(|other| other == first) => Ok(Audience::new(first.as_str())),
        _ => Err(Failure::usage(
            "the sessions do not all name one audience; name this server's with --audience",
        )),
    }
}

fn max_ttl(config: &Config) -> u64 {
    config.rs.max_ttl.unwrap_or(Limits::default().max_ttl)
}

fn verifier(
    args: &RsArgs,
    config: &Config,
    audience: Audience,
    sessions: &Arc<dyn SessionStore>,
    templates: Arc<dyn Templates>,
    clock: &Arc<SystemClock>,
) -> Outcome<Verifier> {
    let mut limits = Limits::default();
    limits.clock_skew = config.rs.clock_skew.unwrap_or(limits.clock_skew);
    limits.max_ttl = max_ttl(config);
    let spent = stores::spent_set(args, config, &audience, limits.clock_skew, clock)?;
    Verifier::builder(audience, Arc::<dyn SessionStore>::clone(sessions), spent)
        .clock(Arc::<SystemClock>::clone(clock))
        .templates(templates)
        .limits(limits)
        .policy_epoch(config.rs.policy_epoch.unwrap_or(0))
        .build()
        .map_err(Failure::usage)
}

/// Reads the sessions again whenever asked to. A file that is wrong changes nothing.
async fn reload(
    mut asked: Signal,
    file: Option<PathBuf>,
    sessions: Arc<dyn SessionStore>,
    clock: Arc<SystemClock>,
) {
    while asked.recv().await.is_some() {
        let Some(file) = &file else {
            tracing::warn!("there is no file of sessions to read again");
            continue;
        };
        // A file may be slow to read, and a kept table writes, and waits for its disk or its network.
        let imported = tokio::task::block_in_place(|| {
            let halves = read_session_halves(file).map_err(Failure::usage)?;
            stores::import(&*sessions, &halves, clock.now())?;
            Ok::<_, Failure>(halves.len())
        });
        match imported {
            Ok(sessions) => tracing::info!(sessions, "sessions read again"),
            Err(failure) => tracing::error!(%failure, "the sessions stay as they were"),
        }
    }
}
