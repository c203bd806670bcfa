//! The Authentication Service: registers agents that a human approves, opens their sessions by a mutual handshake, decides
//! what each session grants, and ends what must end.
//!
//! | part | what it is |
//! |---|---|
//! | [`directory`] | what must not be forgotten; each method is one transaction |
//! | [`authority`] | what each message and each request of an operator brings about; no sockets |
//! | [`decider`] | who decides what is granted; [`policy`] decides it by Cedar |
//! | [`http`](mod@http) | the routes for agents and resource servers, bounded, with TLS or on loopback alone |
//!
//! What it promises is in `docs/authority.md`. It must not know: what a token is used for, or how policy is written.

pub mod authority;
pub mod decider;
pub mod directory;
pub mod http;
pub mod id;
mod numbers;
pub mod policy;
mod refused;
pub mod settings;

pub use authority::Authority;
pub use decider::Decider;
pub use directory::{Directory, MemoryDirectory, RedbDirectory};
pub use refused::Refused;
pub use settings::Settings;
