//! `obol tqs`: the Token Queue Service.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use obol_ipc::Endpoint;
use obol_queue::{MasterKey, ProvisionError, Queue, SessionDocument};
use obol_sidecar::{Limits, Options};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::TqsArgs;
use crate::client::{environment, read_session_file};
use crate::config::{self, Config};
use crate::exit::{Failure, Outcome};

/// Runs until SIGTERM, SIGINT or the operator's `drain`.
pub(crate) fn run(args: &TqsArgs, config: &Config) -> Outcome {
    let agent = Endpoint::agent(args.sockets.socket.as_deref(), environment).map_err(Failure::usage)?;
    let control = Endpoint::control(args.sockets.control_socket.as_deref(), &agent, environment)
        .map_err(Failure::usage)?;
    let queue = Arc::new(open_queue(args, config)?);
    for file in &args.session {
        provision(&queue, file)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = Options { agent, control }.bind(queue).map_err(Failure::unavailable)?;
        service.handle().set_limits(limits(config));
        let shutdown = shutdown_signal()?;
        service.run(shutdown).await.map_err(Failure::other)
    })
}

fn limits(config: &Config) -> Limits {
    let (tqs, default) = (&config.tqs, Limits::default());
    Limits {
        connections: tqs.connections.unwrap_or(default.connections),
        connection_rate: tqs.connection_rate.unwrap_or(default.connection_rate),
        user_rate: tqs.user_rate.unwrap_or(default.user_rate),
        idle: tqs.idle.map_or(default.idle, Duration::from_secs),
    }
}

/// Ends with SIGTERM or SIGINT.
pub(crate) fn shutdown_signal() -> Outcome<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn open_queue(args: &TqsArgs, config: &Config) -> Outcome<Queue> {
    let tqs = &config.tqs;
    let store = place(args.store.as_ref().or(tqs.store.as_ref()), "tokens.redb")?;
    let key_file = place(args.master_key.as_ref().or(tqs.master_key.as_ref()), "master.key")?;
    let master_key = MasterKey::load_or_create(&key_file).map_err(Failure::usage)?;
    let mut builder = Queue::builder();
    if let Some(batch) = tqs.batch {
        builder = builder.batch(batch);
    }
    if let Some(max_ready) = tqs.max_ready {
        builder = builder.max_ready(max_ready);
    }
    if let Some(max_depth) = tqs.max_depth {
        builder = builder.max_depth(max_depth);
    }
    if let Some(min_life) = tqs.min_life {
        builder = builder.min_life(Duration::from_secs(min_life));
    }
    builder.open(store, master_key).map_err(Failure::unavailable)
}

/// The path that was named, or a file in the state folder, which is created closed to others.
pub(crate) fn place(named: Option<&PathBuf>, name: &str) -> Outcome<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(path) = named {
        return Ok(path.clone());
    }
    let folder = config::state_folder();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| Failure::unavailable(format_args!("cannot create {}: {error}", folder.display())))?;
    Ok(folder.join(name))
}

/// Provisions a session from a file. One that is known already is left alone: the daemon was restarted.
fn provision(queue: &Queue, file: &Path) -> Outcome {
    let text = read_session_file(file)?;
    let document = SessionDocument::from_json(&text)
        .map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
    match queue.provision(document) {
        Ok(_) => Ok(()),
        Err(error @ ProvisionError::Exists(_)) => {
            tracing::info!(file = %file.display(), %error, "not provisioned again");
            Ok(())
        }
        Err(error @ ProvisionError::Unavailable(_)) => Err(Failure::unavailable(error)),
        Err(error) => Err(Failure::usage(format_args!("{}: {error}", file.display()))),
    }
}
