//! The promises under the worst: power cuts, kills, full disks, slow disks, and work at random against a model.
//!
//! `scripts/soak` runs the long forms.

mod companions;
mod file_limit;
mod growth;
mod kills;
mod model;
mod power_loss;
mod raw_scan;
mod slow_disk;

/// A number that the environment may set.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
