//! One measure and what became of it.

use std::fmt;

/// One measure and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measure {
    name: &'static str,
    outcome: Result<String, String>,
}

impl Measure {
    pub(crate) fn on(name: &'static str, how: impl fmt::Display) -> Self {
        Self { name, outcome: Ok(how.to_string()) }
    }

    pub(crate) fn off(name: &'static str, why: impl fmt::Display) -> Self {
        Self { name, outcome: Err(why.to_string()) }
    }

    pub(crate) fn of<E: fmt::Display>(name: &'static str, how: &str, outcome: Result<(), E>) -> Self {
        match outcome {
            Ok(()) => Self::on(name, how),
            Err(error) => Self::off(name, error),
        }
    }

    /// Whether it is in force.
    pub fn is_on(&self) -> bool {
        self.outcome.is_ok()
    }

    /// What it is about.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Says it in the log: a warning where it is missing.
    pub fn log(&self) {
        match &self.outcome {
            Ok(how) => tracing::info!(measure = self.name, how, "hardening"),
            Err(why) => tracing::warn!(measure = self.name, why, "hardening: not in force"),
        }
    }
}
