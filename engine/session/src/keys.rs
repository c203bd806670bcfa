//! The keys that a session shares with one resource server.

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use obol_secret::text::hex_array;
use obol_token::{Audience, MutualAuth, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{DocumentError, refuse};
use crate::limits::{MAX_AUDIENCE_BYTES, is_audience};

obol_secret::secret! {
    /// The Ed25519 seed that proofs of possession are made with. The agent's half alone holds it.
    PopKey
}

impl PopKey {
    /// The public key, for the resource servers' halves.
    pub fn public(&self) -> [u8; 32] {
        SigningKey::from_bytes(self.expose()).verifying_key().to_bytes()
    }

    /// Proves possession for one call: plain Ed25519 over what [`obol_token::possession_transcript`] gives.
    pub fn sign(&self, transcript: &[u8; 32]) -> [u8; 64] {
        SigningKey::from_bytes(self.expose()).sign(transcript).to_bytes()
    }
}

/// Whether this is an Ed25519 public key, and none of small order, under which some signature fits every message.
pub(crate) fn is_pop_pub(public: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(public).is_ok_and(|key| !key.is_weak())
}

/// The audience of this name.
pub(crate) fn audience(name: &str) -> Result<Audience, DocumentError> {
    Audience::new(name).or_else(|error| refuse("aud", error.to_string()))
}

/// What one session shares with one resource server. Either half holds the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerKeys {
    /// The resource server.
    pub aud: String,
    /// `K_session`.
    #[serde(rename = "K_session")]
    pub session_key: SessionKey,
    /// `verifier_secret`.
    pub verifier_secret: VerifierSecret,
    /// `mutual_auth`.
    pub mutual_auth: MutualAuth,
    /// `SEK_PK`: the public half of the session's ephemeral key.
    #[serde(rename = "SEK_PK", with = "hex_array")]
    pub sek_public: [u8; 32],
}

impl ServerKeys {
    /// The material that tokens of a session are minted and verified with.
    pub fn material(&self, session_id: SessionId, suite: Suite) -> SessionMaterial {
        SessionMaterial::new(
            session_id,
            suite,
            SessionKey::from_bytes(*self.session_key.expose()),
            VerifierSecret::from_bytes(*self.verifier_secret.expose()),
            MutualAuth::from_bytes(*self.mutual_auth.expose()),
            self.sek_public,
        )
    }

    /// The resource server.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] where the keys were made by hand and `aud` cannot be an audience.
    pub fn audience(&self) -> Result<Audience, DocumentError> {
        audience(&self.aud)
    }

    pub(crate) fn check(&self, field: &str) -> Result<(), DocumentError> {
        if is_audience(&self.aud) {
            return Ok(());
        }
        refuse(
            format!("{field}.aud"),
            format!("must be 1 to {MAX_AUDIENCE_BYTES} bytes without control characters"),
        )
    }

    /// Writes the fields of these keys into an object.
    pub(crate) fn write<S: serde::ser::SerializeStruct>(&self, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("aud", &self.aud)?;
        to.serialize_field("K_session", &Hex(self.session_key.expose()))?;
        to.serialize_field("verifier_secret", &Hex(self.verifier_secret.expose()))?;
        to.serialize_field("mutual_auth", &Hex(self.mutual_auth.expose()))?;
        to.serialize_field("SEK_PK", &Hex(&self.sek_public))
    }
}

impl Serialize for ServerKeys {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("ServerKeys", 5)?;
        self.write(&mut object)?;
        object.end()
    }
}

/// Bytes as hex, written digit by digit: no text is left behind that would have to be wiped.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8; 32]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
