//! The mutual handshake between whoever talks to the Authentication Service and the service itself: Noise XK for
//! suites 1 to 3, XKhfs with ML-KEM-768 for suite 4.
//!
//! What lives here: bytes in, bytes out. The crate does no I/O and reads no clock; randomness is passed in as
//! [`Random`], so that known answers are exact. Each state of a handshake is a type of its own and is consumed by the
//! step that leaves it:
//!
//! ```text
//! agent       Initiator::start ─A→            AwaitsReply::read ─→ ReadyToProve::prove ─C→ Established
//! authority        Responder::accept ─→ Pending::seal ─B→   (no state)   Pending::open, finish ─→ Proven
//! ```
//!
//! What it promises:
//! - version, purpose, suite, the client's whole offer, the service's key and its name are in the transcript: a message
//!   that differs in one bit of them, or reaches another service or another route, is refused at the first tag;
//! - the service keeps nothing between A and C: its state travels in the cookie, sealed under keys that live in its
//!   memory for a minute ([`CookieRing`]);
//! - both sides end with the same [`SessionSecret`](obol_token::SessionSecret), which never crosses the wire;
//! - no input makes a function here panic; every length is checked before anything is computed.
//!
//! What it must not know: sockets, HTTP, time, who may register, what a session may do.

mod cookie;
mod error;
mod header;
mod initiator;
mod kem;
mod keys;
mod message;
mod pattern;
mod responder;
mod schedule;
mod sek;
mod symmetric;
#[cfg(feature = "system")]
mod system;
mod transport;

pub use cookie::{COOKIE_BYTES, CookieError, CookieRing, KEY_LIFE_SECS, VALIDITY_SECS};
pub use error::HandshakeError;
pub use header::{Header, MAX_ORIGIN_BYTES, Prologue, Purpose, SuiteOffer};
pub use initiator::{AwaitsReply, Initiator, ReadyToProve};
pub use keys::{
    AuthorityKey, AuthoritySecret, IdentityKey, IdentityPublic, KeyId, Random, SharedSecret, StaticAgreement,
    words,
};
pub use message::{MAX_MESSAGE_BYTES, Proof, reply};
pub use pattern::{hello_bytes, reply_overhead_bytes};
pub use responder::{Pending, Proven, Responder};
pub use schedule::{ChainSecret, Established, HandshakeHash};
pub use sek::{SEK_PROOF_BYTES, SekKey, SekPublic, verify_sek_proof};
#[cfg(feature = "system")]
pub use system::SystemRandom;
pub use transport::{Opener, Sealer, TransportError, open_answer, seal_answer};
