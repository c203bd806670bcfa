//! The spent set: what makes a token single-use (TBAC r41, section 4.4).
//!
//! # What a mark is, and how long it lives
//!
//! Spending a token leaves a mark: 16 bytes of a hash over the session's number and the token's `jti`. The mark is
//! filed under the token's own `exp`, which is signed, so the same token always leads to the same place, whatever
//! this server's settings are today; it is looked for under every `exp`, so that a `jti` is good once even if two tokens
//! were made with it. It must outlive the token: a token is accepted until `exp` plus clock skew, so
//! the mark stays until `exp` plus skew plus a margin. (The specification's "token life plus 60 s from now" is too
//! short: a token issued 60 s in the future would be accepted twice.)
//!
//! # What the clock can do to it
//!
//! Marks are forgotten by the wall clock, and wall clocks step. Two rules keep that safe:
//!
//! - Forgetting moves the *horizon*, and the horizon never moves back. A token whose `exp` lies before it is refused
//!   whatever the clock says ([`SpendError::Forgotten`]), so nothing forgotten is ever accepted again: not after the
//!   clock steps back, and not when somebody spends a token that was verified long ago.
//! - A reading counts for forgetting only when the clock has not stepped back behind it for 30 seconds of monotonic
//!   time. A clock that jumps ahead and is put right at once therefore costs nothing. One that stays wrong for
//!   longer makes live tokens be refused until time catches up: the set fails closed.
//!
//! # What it must not do
//!
//! Never fail open: a set that cannot write, or that is full, refuses. Never grow for a forged token: only what has
//! passed the whole cascade gets here.

pub mod inbox;
mod index;
mod memory;
#[cfg(feature = "redb")]
mod redb;
mod ticket;

use core::fmt;
use std::borrow::Cow;

use obol_token::{Jti, SessionId};
use sha2::{Digest, Sha256};

pub use index::MAX_LIVE_MARKS;
pub use memory::MemorySpentSet;
#[cfg(feature = "redb")]
pub use redb::{NewFile, OpenSpentSetError, RedbSpentSet, RedbSpentSetOptions};
pub(crate) use ticket::block_on;
pub use ticket::{SpendTicket, Spender};

/// Seconds that a mark stays beyond the last moment its token could be accepted.
pub const KEEP_MARGIN_SECS: u64 = 60;

/// One token, as the spent set knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    id: [u8; 16],
    expires_at: u64,
}

impl Mark {
    /// The mark of a token: its session, its name, and its `exp` in Unix seconds.
    pub fn new(session_id: SessionId, jti: &Jti, expires_at: u64) -> Self {
        let hash = Sha256::new().chain_update(session_id.as_u64().to_be_bytes()).chain_update(jti.as_bytes());
        Self { id: first_half(hash), expires_at }
    }

    /// The mark of something else that may be used once: what it is, and its bytes. The first 16 bytes of
    /// SHA-256(label ‖ 00 ‖ bytes), filed under `expires_at` in Unix seconds.
    pub fn labelled(label: &[u8], bytes: &[u8], expires_at: u64) -> Self {
        let hash = Sha256::new().chain_update(label).chain_update([0]).chain_update(bytes);
        Self { id: first_half(hash), expires_at }
    }

    /// What it is known by.
    pub fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// The token's `exp`, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(hash.finalize()).for_each(|(place, byte)| *place = byte);
    half
}

/// Why a token was not spent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpendError {
    /// It was spent before.
    AlreadySpent,
    /// The set no longer knows about tokens this old, so it may have been spent before.
    Forgotten,
    /// The set cannot be written, or is full. The text is for the log.
    Unavailable(Cow<'static, str>),
}

impl fmt::Display for SpendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadySpent => {
                f.write_str("the token was spent before, or the human's yes that it stands on was")
            }
            Self::Forgotten => f.write_str("the token is older than the spent set's memory"),
            Self::Unavailable(why) => write!(f, "the spent set is unavailable: {why}"),
        }
    }
}

impl core::error::Error for SpendError {}

/// Remembers which tokens were spent. Shared by all who verify for one audience.
///
/// Implementations must be linearizable: of any number of calls to [`spend`](SpentSet::spend) with one mark, at any
/// time and from any process that shares the set, exactly one resolves to `Ok`, and only once the mark can no
/// longer be lost.
pub trait SpentSet: Send + Sync + fmt::Debug {
    /// Whether the token is known to be spent (cascade step 10). A look that costs little: it may answer `false`
    /// where only [`spend`](SpentSet::spend) can tell. It must not write and must not wait for a disk.
    ///
    /// # Errors
    ///
    /// [`SpendError::Forgotten`], [`SpendError::Unavailable`].
    fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError>;

    /// Spends the token (cascade step 15). The ticket resolves to `Ok` for exactly one caller.
    fn spend(&self, mark: Mark) -> SpendTicket {
        self.spend_with(mark, None)
    }

    /// Spends the token together with what it stands on, in one step: both, or neither. It is refused where either was spent
    /// before, also by two at the same time.
    fn spend_with(&self, mark: Mark, with: Option<Mark>) -> SpendTicket;

    /// Tokens issued at or before this time (Unix seconds) may have been spent unseen, and are refused. `None` if
    /// nothing was ever lost. It may rise while the set is in use, and then rises before any spend that was decided
    /// without the lost marks resolves to `Ok`: it is asked again once the ticket has resolved.
    fn fence(&self) -> Option<u64>;

    /// How many seconds after `exp` a mark is still there. At least clock skew plus [`KEEP_MARGIN_SECS`].
    fn keep_after_expiry(&self) -> u64;

    /// Whether spending works, as far as is known. A server that cannot spend is not ready.
    ///
    /// # Errors
    ///
    /// [`SpendError::Unavailable`].
    fn health(&self) -> Result<(), SpendError>;

    /// How many marks are held, where that is known.
    fn marks(&self) -> Option<usize>;
}
