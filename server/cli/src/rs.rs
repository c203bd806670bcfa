//! `obol rs`: a resource server that verifies tokens over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_resource::Guard;
use obol_resource::service::Options;
use obol_token::Audience;
use obol_verify::{Limits, MemorySessionTable, Session, SystemClock, Verifier, read_session_file};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::RsArgs;
use crate::config::Config;
use crate::exit::{Failure, Outcome};
use crate::stores;
use crate::tqs::shutdown_signal;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8700);

/// Runs until SIGTERM or SIGINT. SIGHUP reads the sessions again.
pub(crate) fn run(args: &RsArgs, config: &Config) -> Outcome {
    let sessions_file = args.sessions.clone().or_else(|| config.rs.sessions.clone()).ok_or_else(|| {
        Failure::usage("--sessions FILE is needed; `obol session create` makes such a file")
    })?;
    let sessions = read_session_file(&sessions_file).map_err(Failure::usage)?;
    let audience = audience(args.audience.as_ref().or(config.rs.audience.as_ref()), &sessions)?;
    let table = Arc::new(MemorySessionTable::new());
    table.replace_all(sessions).map_err(Failure::usage)?;
    let verifier = verifier(args, config, audience, &table)?;

    let mut options = Options::new(args.listen.or(config.rs.listen).unwrap_or(DEFAULT_LISTEN));
    if args.allow_remote {
        options = options.allow_remote();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = options.bind(Guard::new(verifier)).await.map_err(Failure::unavailable)?;
        tracing::info!(address = %service.local_addr(), "listening");
        let reload = tokio::spawn(reload(signal(SignalKind::hangup())?, sessions_file, table));
        service.run(shutdown_signal()?).await;
        reload.abort();
        Ok(())
    })
}

/// The audience that was named, or the one that all sessions agree on.
fn audience(named: Option<&String>, sessions: &[Session]) -> Outcome<Audience> {
    if let Some(named) = named {
        return Ok(Audience::new(named.as_str()));
    }
    let mut audiences = sessions.iter().map(Session::audience);
    match audiences.next() {
        Some(first) if audiences.all(|other| other == first) => Ok(first.clone()),
        _ => Err(Failure::usage(
            "the sessions do not all name one audience; name this server's with --audience",
        )),
    }
}

fn verifier(
    args: &RsArgs,
    config: &Config,
    audience: Audience,
    table: &Arc<MemorySessionTable>,
) -> Outcome<Verifier> {
    let mut limits = Limits::default();
    limits.clock_skew = config.rs.clock_skew.unwrap_or(limits.clock_skew);
    limits.max_ttl = config.rs.max_ttl.unwrap_or(limits.max_ttl);
    let clock = Arc::new(SystemClock::new());
    let spent = stores::spent_set(args, config, &audience, limits.clock_skew, &clock)?;
    Verifier::builder(audience, table.clone(), spent)
        .clock(clock)
        .limits(limits)
        .policy_epoch(config.rs.policy_epoch.unwrap_or(0))
        .build()
        .map_err(Failure::usage)
}

/// Reads the sessions again whenever asked to. A file that is wrong changes nothing.
async fn reload(mut asked: Signal, file: PathBuf, table: Arc<MemorySessionTable>) {
    while asked.recv().await.is_some() {
        match read_again(&file, &table) {
            Ok(sessions) => tracing::info!(sessions, "sessions read again"),
            Err(failure) => tracing::error!(%failure, "the sessions stay as they were"),
        }
    }
}

fn read_again(file: &Path, table: &MemorySessionTable) -> Outcome<usize> {
    let sessions = read_session_file(file).map_err(Failure::usage)?;
    let count = sessions.len();
    table.replace_all(sessions).map_err(Failure::usage)?;
    Ok(count)
}
