//! The token format: known answers, and implementations that share no code with ours.

pub(crate) mod known_answers;
mod own_suites;
