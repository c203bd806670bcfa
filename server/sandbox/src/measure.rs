//! One measure and what became of it.

use core::fmt;

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

    /// One that is not in force, and why.
    pub fn off(name: &'static str, why: impl fmt::Display) -> Self {
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
}

/// Says in one line of the log what is in force and what is missing, which makes it a warning. `form` is whatever else
/// decides what these measures are worth.
pub fn report(measures: &[Measure], form: Option<&str>) {
    let told = |of: fn(&Measure) -> Option<&String>| {
        let told = measures.iter().filter_map(|measure| Some(format!("{}: {}", measure.name, of(measure)?)));
        told.collect::<Vec<_>>().join("; ")
    };
    let in_force = told(|measure| measure.outcome.as_ref().ok());
    let missing = told(|measure| measure.outcome.as_ref().err());
    if missing.is_empty() {
        tracing::info!(form, in_force, "hardening");
    } else {
        tracing::warn!(form, in_force, missing, "hardening");
    }
}
