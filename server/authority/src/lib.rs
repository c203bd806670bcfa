//! The Authentication Service: registers agents that a human approves, opens their sessions by a mutual handshake, decides
//! what each session grants, and ends what must end.
//!
//! | part | what it is |
//! |---|---|
//! | [`directory`] | what must not be forgotten; each method is one transaction |
//! | [`Authority`] | what each message and each request of an operator brings about; no sockets |
//! | [`Decider`] | who decides what is granted; [`policy`] decides it by Cedar |
//! | `stream` | who follows the events, and how far each has come |
//! | `attest` | signed words of others that stand in for a human when an agent registers |
//! | `remote` | operators elsewhere: who is let in, by which key, until when |
//! | `ssf` | what others say of humans, and what follows for their agents |
//! | `mail` | e-mail about what waits for a human, and about alarms |
//! | [`http`](mod@http) | the routes for agents and resource servers, bounded, with TLS or on loopback alone |
//!
//! What it promises is in `docs/authority.md`. It must not know: what a token is used for, or how policy is written.

#![cfg_attr(not(feature = "people"), allow(dead_code, reason = "what only the pages for people call"))]

#[cfg(feature = "people")]
mod asking;
mod attest;
mod authority;
mod decider;
pub mod directory;
pub mod http;
pub mod id;
#[cfg(feature = "people")]
pub mod identity;
mod issuer_keys;
mod jws;
mod mail;
mod notices;
mod numbers;
mod outbound;
pub mod policy;
mod refused;
mod remote;
mod settings;
mod ssf;
mod stream;

pub use attest::{AttestorSettings, AttestorSettingsError, AttestorStatus, Attestors};
pub use authority::{
    AskedApproval, Authority, Confirmed, Copy, Holder, Invited, KillReport, Now, Parts, Preview, Rejected,
    Review, Sidecar,
};
pub use decider::{Decided, Decider, Moment, PerCall, Route, Undecided, Verdict};
pub use mail::{Mail, MailError, MailSettings};
pub use outbound::Outbound;
pub use refused::Refused;
pub use remote::{LiveLogin, Of, Operator, SaidOfLogin};
pub use settings::{Settings, SettingsError};
pub use ssf::{EventSettings, EventSettingsError, Events, OutletStatus, TransmitterStatus, Trial, trial};
