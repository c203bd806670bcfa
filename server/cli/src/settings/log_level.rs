//! The log's level, which can be changed while the program runs.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, reload};

use crate::settings::args::LogLevel;

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// A filter for the log. The one made first is the one that [`set`] changes.
pub(crate) fn filter(level: LogLevel) -> reload::Layer<LevelFilter, Registry> {
    let (filter, handle) = reload::Layer::new(level.filter());
    let _made_before = LEVEL.set(handle);
    filter
}

/// Puts another level in force.
pub(crate) fn set(level: LogLevel) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(level.filter())
    {
        tracing::warn!(%error, "the log level was not changed");
    }
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}
