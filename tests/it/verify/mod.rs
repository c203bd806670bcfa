//! Verification: the cascade, and the sets of spent tokens.

mod cascade;
mod opened_tokens;
mod scope_rules;
pub(crate) mod shared_spent_set;
mod spent_set;
mod strictness;
