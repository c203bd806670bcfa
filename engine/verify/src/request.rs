//! What a token is presented for.

use serde_json::{Map, Value};

/// What the holder of a token wants to do. Made by the server from what it is about to execute, never from what the
/// token says.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The tool that is about to run.
    pub tool: &'a str,
    /// What it does. `None` where the server does not tell actions apart: whatever the token names is allowed.
    pub action: Option<&'a str>,
    /// What it does it to. `None` where the server does not tell resources apart.
    pub resource: Option<&'a str>,
    /// The tool's arguments.
    pub arguments: Arguments<'a>,
    /// Whether a number among the arguments was rounded when they were read ([`obol_secret::json::ReadArguments`]). They have no
    /// canonical form then, and a token that asks for a proof is refused. False where the tool acts on these very
    /// arguments, and on no document that it reads itself.
    pub rounded: bool,
    /// The 64 bytes of the Ed25519 signature that proves possession, where the request carries one.
    pub proof: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// A call of `tool` of which nothing else is known.
    pub fn new(tool: &'a str) -> Self {
        Self { tool, action: None, resource: None, arguments: Arguments::Unseen, rounded: false, proof: None }
    }
}

/// A tool's arguments, as the server knows them at the time it verifies.
#[derive(Clone, Copy, Debug)]
pub enum Arguments<'a> {
    /// The server that verifies cannot see them, as where a proxy asks. A token that limits its arguments, or asks
    /// for proof of possession or channel encryption, is refused: its limits could not be kept.
    Unseen,
    /// They came in the clear; `None` is a call without arguments.
    Plain(Option<&'a Map<String, Value>>),
    /// They came encrypted under the token's channel keys, and the server has opened them.
    Opened(Option<&'a Map<String, Value>>),
    /// They came encrypted and are opened on the way, after the token's own checks (TBAC r41, section 10.3). The
    /// outcome is in [`crate::Verified::opened_arguments`].
    Sealed {
        /// What the request says they are sealed by; `None` where it does not say. It must be the session's.
        algorithm: Option<&'a str>,
        /// The nonce that came with them.
        iv: &'a [u8; 12],
        /// Ciphertext and tag. Their plaintext is a JSON object.
        ciphertext: &'a [u8],
    },
}
