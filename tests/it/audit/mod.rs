//! The audit logs of real daemons: what is in them, what they cost, and what becomes of one that cannot be written.

mod denials;
mod full;
pub(crate) mod resource;
mod sidecar;
