//! Single-use tokens: the wire format of MCP TBAC (revision 2026-04-21-r41, format `opaque`), Obol's own suites,
//! the scope language, and minting and opening under a session's keys.
//!
//! What lives here: bytes in, bytes out. The crate does no I/O, reads no clock, draws no randomness and contains no
//! `unsafe`; the minter passes in the time and the random seeds. That makes the crate cheap to test and to fuzz.
//!
//! What it promises:
//! - it produces and accepts only canonical bytes (see [`Scope`]);
//! - only [`SessionMaterial::open`] decrypts a token's body; it first checks the signature, if the suite has one, and
//!   always checks the AEAD's tag;
//! - keys have no `Clone`, print as `[redacted]` and are wiped when dropped;
//! - no input, however long or odd, makes a function here panic or take more than linear space.
//!
//! Without the default feature `tokens` the crate contains only its names, for programs that handle sessions and tools
//! and never look into a token.
//!
//! What it must not know: where sessions come from, what was already spent, what time it is.

#[cfg(feature = "tokens")]
pub mod aead;
#[cfg(feature = "tokens")]
mod channel;
#[cfg(feature = "tokens")]
pub mod delegation;
#[cfg(feature = "tokens")]
mod envelope;
#[cfg(feature = "tokens")]
mod kdf;
#[cfg(feature = "tokens")]
mod keys;
#[cfg(feature = "tokens")]
mod mint;
mod names;
#[cfg(feature = "tokens")]
mod open;
#[cfg(feature = "tokens")]
pub mod pattern;
#[cfg(feature = "tokens")]
mod possession;
#[cfg(feature = "tokens")]
mod schnorr;
#[cfg(feature = "tokens")]
mod scope;
#[cfg(feature = "tokens")]
mod secret;
#[cfg(feature = "tokens")]
mod suite;
#[cfg(feature = "tokens")]
pub mod text;
#[cfg(feature = "tokens")]
mod tlv;

pub use names::{
    AgentInstanceId, Audience, MAX_AUDIENCE_BYTES, MAX_NAME_BYTES, SessionId, Text, ToolName, ValueError,
    deserialize_text, is_name, is_not_control, is_visible_ascii,
};

#[cfg(feature = "tokens")]
pub use {
    channel::{ChannelError, ChannelKeys},
    envelope::{Envelope, FramingError, Jti, MAX_BODY_BYTES, MAX_TOKEN_BYTES, MAX_TOKEN_TEXT},
    keys::{Nonces, SessionMaterial, TokenKeys},
    mint::{MintError, Minter, TokenSeed, Validity},
    open::{Body, BodyOpenError},
    possession::transcript as possession_transcript,
    scope::{Constraints, MAX_INTENT_BYTES, Scope, ScopeError, one_or_many},
    secret::{AudienceSecrets, MutualAuth, ResponseKey, SessionKey, SessionSecret, VerifierSecret},
    suite::Suite,
};
