//! Single-use tokens: the wire format of MCP TBAC (revision 2026-04-21-r41, format `opaque`), Obol's own suites
//! beside it, its scope language, and minting and opening under a session's keys.
//!
//! What lives here: bytes in, bytes out. The crate does no I/O, reads no clock, draws no randomness and holds
//! no `unsafe`; whoever mints passes the time and the random seeds in. That is what makes it cheap to test and
//! to fuzz.
//!
//! What it promises:
//! - only canonical bytes are produced, and only canonical bytes are accepted (see [`scope`]);
//! - a token's body is decrypted only by [`SessionMaterial::open`], which checks the signature first, where the suite
//!   has one, and the AEAD's tag always;
//! - keys have no `Clone`, print as `[redacted]` and are wiped when dropped;
//! - no input, however long or odd, makes a function here panic or take more than linear space.
//!
//! What it must not know: where sessions come from, what was already spent, what time it is.

pub mod aead;
mod channel;
pub mod delegation;
mod envelope;
mod keys;
mod mint;
mod open;
pub mod pattern;
mod possession;
mod schnorr;
pub mod scope;
mod secret;
mod suite;
pub mod text;
mod tlv;

pub use channel::{ChannelError, ChannelKeys};
pub use envelope::{
    Audience, Envelope, FramingError, Jti, MAX_BODY_BYTES, MAX_TOKEN_BYTES, MAX_TOKEN_TEXT, SessionId,
};
pub use keys::{Nonces, SessionMaterial, TokenKeys};
pub use mint::{MintError, Minter, TokenSeed, Validity};
pub use open::{Body, OpenError};
pub use possession::transcript as possession_transcript;
pub use scope::{Constraints, Scope, ScopeError};
pub use secret::{AudienceSecrets, MutualAuth, ResponseKey, SessionKey, SessionSecret, VerifierSecret};
pub use suite::Suite;
