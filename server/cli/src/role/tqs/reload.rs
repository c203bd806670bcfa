//! Reading settings again on SIGHUP, without a connection lost.
//!
//! What changes at once: the limits, the log's level, and session files that are new, also in a folder. Everything else is named and
//! waits for the next start. Settings that cannot be read change nothing.

use core::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use obol_audit::AuditLog;
use obol_queue::Queue;
use obol_sidecar::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{limits, provision};
use crate::exit::{Failure, Outcome};
use crate::settings::Tqs;
use crate::settings::args::LogLevel;
use crate::settings::config::{Config, Origin};
use crate::settings::log_level;

/// Waits for SIGHUP.
#[derive(Debug)]
pub(super) struct Reloader {
    hangup: Signal,
    config: Config,
    origin: Origin,
    sessions: Vec<PathBuf>,
    handle: Handle,
    queue: Arc<Queue>,
    audit: Option<Arc<AuditLog>>,
}

impl Reloader {
    pub(super) fn new(
        config: Config,
        origin: Origin,
        sessions: Vec<PathBuf>,
        handle: Handle,
        queue: Arc<Queue>,
        audit: Option<Arc<AuditLog>>,
    ) -> Outcome<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, config, origin, sessions, handle, queue, audit })
    }

    pub(super) async fn run(mut self) -> Infallible {
        loop {
            if self.hangup.recv().await.is_none() {
                core::future::pending::<()>().await;
            }
            self.handle.reloading();
            self.reload().await;
            self.handle.reloaded();
        }
    }

    async fn reload(&mut self) {
        // Off the loop: whoever reads a file may have to wait for it.
        let named = self.origin.file.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(named.as_deref()));
        match loaded.await.unwrap_or_else(|error| Err(Failure::other(error))) {
            Ok(config) => {
                self.handle.reload(limits(&config));
                apply_log_level(&config, &self.origin);
                if fixed(&config.tqs) != fixed(&self.config.tqs) {
                    tracing::warn!(
                        "settings other than the limits and the log level changed; they wait for a restart"
                    );
                }
                tracing::info!(limits = ?limits(&config), "settings were read again");
                self.config = config;
            }
            Err(error) => tracing::error!(%error, "the previous settings stay in force"),
        }
        let (queue, audit, sessions) = (Arc::clone(&self.queue), self.audit.clone(), self.sessions.clone());
        let provisioned = tokio::task::spawn_blocking(move || {
            provision(&queue, audit.as_deref(), &sessions).map_err(|error| error.to_string())
        });
        if let Ok(Err(error)) = provisioned.await {
            tracing::error!(%error, "the session was not provisioned");
        }
    }
}

/// The settings that a reload does not change.
fn fixed(tqs: &Tqs) -> Tqs {
    Tqs { connections: None, connection_rate: None, user_rate: None, idle: None, ..tqs.clone() }
}

/// A flag goes before the file.
pub(super) fn apply_log_level(config: &Config, origin: &Origin) {
    log_level::set(origin.log.or(config.log.level).unwrap_or(LogLevel::Info));
}
