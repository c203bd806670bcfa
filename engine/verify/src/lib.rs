//! Offline verification of single-use tokens, suites 1 to 4 of TBAC (revision 2026-04-21-r41).
//!
//! # What lives here
//!
//! - [`Unverified`] → [`Opened`] → [`Verified`] → [`Spent`]: a token on its way through the cascade. Each step consumes
//!   the one before, so no code can act on a token that was not verified, or on one that was verified but not spent. A
//!   server opens a token before it reads the rest of the request, so that junk costs it little.
//! - [`Verifier`]: what the cascade needs to know: this server's audience, its sessions ([`SessionTable`]), what was
//!   spent ([`SpentSet`]), what policy allows ([`Templates`]), and the time ([`Clock`]).
//! - [`Denial`]: every refusal, with its stable code and check.
//!
//! # What it promises
//!
//! - The steps run in the published order, cheap before expensive; the body is decrypted only after its signature was
//!   verified.
//! - A token is accepted at most once, and only after the spent set says that the mark can no longer be lost.
//! - A refusal before the last step never burns the token. A forged token never causes a write and never makes
//!   anything here grow.
//! - Nothing fails open: if the spent set or the session table cannot answer, the token is refused.
//! - Revoking a session also refuses those of its tokens that are being verified at that moment.
//!
//! # What it must not know about
//!
//! No sockets, no HTTP, no runtime: [`Spending`] is a future that any runtime can drive, and a plain thread can
//! [`wait`](Spending::wait) for it.
//!
//! # Where it is stricter than the reference implementation
//!
//! - Spent marks outlive the token, not the moment of its spending (see [`KEEP_MARGIN_SECS`]).
//! - Delegation compares every limiting field (see [`obol_token::delegation::check_attenuation`]).
//! - A token without a limit is refused under a ceiling on that limit (see [`Ceiling`]).
//! - Arguments that the server cannot see are not assumed to be absent (see [`Arguments`]).
//! - A signature scalar that is not reduced, R = identity, and bytes that are not canonical are refused.

mod approvals;
mod cascade;
mod denial;
mod limits;
mod parts;
pub mod receipt;
#[cfg(feature = "redb")]
mod redb_file;
mod request;
mod session;
mod spent;
mod token;
mod verifier;

pub use obol_session::clock::{Clock, SystemClock};
pub use obol_session::{AgentIdentity, DocumentError, Grant, ResourceHalf, Window};

pub use approvals::{Approvals, KnownApproval};
pub use cascade::parents::ConsumedParents;
pub use cascade::possession::arguments_hash;
pub use cascade::template::{Ceiling, Template, TemplateTable, Templates};
pub use denial::{Code, Denial, FailedCheck};
pub use limits::{
    CascadeLimits, DEFAULT_CLOCK_SKEW_SECS, DEFAULT_MAX_DELEGATION_DEPTH, DEFAULT_MAX_TTL_SECS,
};
pub use request::{Arguments, Request};
pub use session::error::SessionStoreError;
pub use session::file::{SessionFileError, parse_sessions, read_session_file, read_session_halves};
#[cfg(feature = "redb")]
pub use session::redb::RedbSessionTable;
#[cfg(feature = "sealed")]
pub use session::seal::{SessionSealError, SessionSealKey};
pub use session::store::{SessionChange, SessionStore};
pub use session::table::{MemorySessionTable, SessionTable, SessionTableUnavailable};
pub use session::{InvalidPopKey, Session};
pub use spent::{
    KEEP_MARGIN_SECS, MAX_LIVE_MARKS, Mark, MemorySpentSet, SpendError, SpendTicket, Spender, SpentSet, inbox,
};
#[cfg(feature = "redb")]
pub use spent::{NewFile, OpenSpentSetError, RedbSpentSet, RedbSpentSetOptions};
pub use token::{Opened, Spending, Spent, Unverified, Verified};
pub use verifier::{ConfigError, Verifier, VerifierBuilder};
