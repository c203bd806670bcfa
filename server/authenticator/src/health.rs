//! `/livez`, `/readyz` and `/metrics`: whether there is a session to mint from, and what is counted.

use std::sync::Arc;

use obol_probe::health;
use obol_probe::metrics::{Kind, Page};
use obol_probe::stop::Stop;
use obol_sidecar::SocketHealth;

use crate::known::{NOT_READY, Shared};

/// What is known about the daemon.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: SocketHealth,
    pub(crate) stop: Stop,
}

impl Health {
    fn check(&self) -> Option<(&'static str, String)> {
        if self.stop.is_said() {
            return Some(("stopping", "stopping".to_owned()));
        }
        if self.socket.is_lost() {
            return Some(("socket", "the socket was removed or replaced".to_owned()));
        }
        if let Err(suspended) = self.shared.auditor.health() {
            return Some(("audit_log", suspended.to_string()));
        }
        self.shared.known.lock().not_ready()
    }
}

impl health::Health for Health {
    fn ready(&self) -> Result<(), String> {
        self.check().map_or(Ok(()), |(_, why)| Err(why))
    }

    fn metrics(&self) -> String {
        let (mut page, shared) = (Page::new(), &self.shared);
        let reason = self.check().map(|(name, _)| name);
        page.readiness("Whether the sidecar has a session from here.", &NOT_READY, reason);
        page.audit(shared.auditor.seen());
        let connections = u64::try_from(self.socket.connections()).unwrap_or(u64::MAX);
        page.number(
            "obol_connections",
            Kind::Gauge,
            "Connections on the authenticator's socket.",
            connections,
        );
        let opened = "Sessions that were opened and given to the sidecar.";
        page.number("obol_auth_sessions_opened_total", Kind::Counter, opened, shared.opened.get());
        let failed = "Attempts to open a session that failed.";
        page.number("obol_auth_failures_total", Kind::Counter, failed, shared.failed.get());
        let stolen = "How often an agent reported that someone else spent one of its tokens.";
        page.number("obol_auth_stolen_tokens_total", Kind::Counter, stolen, shared.stolen.said.get());
        let known = shared.known.lock();
        if let Some(session) = &known.session {
            let help = "When the session ends, in Unix seconds.";
            let end = session.expires_at.unix_seconds();
            page.number("obol_session_expires_timestamp_seconds", Kind::Gauge, help, end);
        }
        if let Some(skew) = known.skew {
            let help = "How far this machine's clock was ahead of the service's.";
            page.series("obol_auth_clock_skew_seconds", Kind::Gauge, help).value(&[], skew);
        }
        page.into_text()
    }
}
