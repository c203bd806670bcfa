//! What may come with a token: a proof of possession, and arguments sealed under its channel keys. The JSON form is
//! that of TBAC r41, sections 3.5 and 10.1; MCP and `/v1/verify` share it.

use core::fmt;

use obol_token::text::{from_base64url, to_base64url};
use obol_verify::Denial;
use serde::{Deserialize, Serialize};

/// The only algorithm of proofs.
const POP_ALGORITHM: &str = "Ed25519";
/// The algorithm of sealed messages in the published suite, and the one of Obol's suite 3. Which of them it must be follows
/// from the session.
const SEAL_ALGORITHMS: [&str; 2] = ["AES-256-GCM", "ChaCha20-Poly1305"];
const SIGNATURE_BYTES: usize = 64;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// The longest sealed message, in bytes of plaintext; requests and responses alike.
pub const MAX_SEALED_BYTES: usize = 1 << 20;

/// An Ed25519 signature that proves possession of the session's key. Nothing secret: it is good for one token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PopProof([u8; SIGNATURE_BYTES]);

impl PopProof {
    /// Takes the signature's bytes.
    pub fn from_bytes(signature: [u8; SIGNATURE_BYTES]) -> Self {
        Self(signature)
    }

    /// Reads base64url without padding.
    ///
    /// # Errors
    ///
    /// A denial if it is not 64 bytes in base64url without padding.
    pub fn from_text(text: &[u8]) -> Result<Self, Denial> {
        let bytes = from_base64url(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            Denial::malformed_request("a proof of possession is 64 bytes in base64url without padding")
        })
    }

    /// base64url without padding.
    pub fn to_text(&self) -> String {
        to_base64url(&self.0)
    }

    /// The signature's bytes.
    pub fn as_bytes(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.0
    }
}

/// A message under a token's channel keys: nonce, ciphertext and tag.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedMessage {
    /// Where the message says so.
    algorithm: Option<&'static str>,
    iv: [u8; IV_BYTES],
    ciphertext: Vec<u8>,
}

impl SealedMessage {
    /// Puts the parts together. `ciphertext` ends with the tag. Refused are a message without a whole tag, and one
    /// whose plaintext is longer than [`MAX_SEALED_BYTES`].
    ///
    /// # Errors
    ///
    /// A denial if the message is too short or too long.
    pub fn new(iv: [u8; IV_BYTES], ciphertext: Vec<u8>) -> Result<Self, Denial> {
        match ciphertext.len().checked_sub(TAG_BYTES) {
            Some(0..=MAX_SEALED_BYTES) => Ok(Self { algorithm: None, iv, ciphertext }),
            Some(_) => Err(Denial::malformed_request("the sealed message is too long")),
            None => Err(Denial::malformed_request("the sealed message is too short")),
        }
    }

    /// The same message, saying what it was sealed by: [`obol_token::ChannelKeys::algorithm`].
    #[must_use]
    pub fn of_algorithm(self, algorithm: &'static str) -> Self {
        Self { algorithm: Some(algorithm), ..self }
    }

    /// What the message says it was sealed by. It opens only where that is so.
    pub fn algorithm(&self) -> Option<&'static str> {
        self.algorithm
    }

    /// Reads nonce, ciphertext and tag, one behind the other.
    ///
    /// # Errors
    ///
    /// A denial if the message is too short or too long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Denial> {
        let (iv, ciphertext) = bytes
            .split_first_chunk()
            .ok_or_else(|| Denial::malformed_request("the sealed message is too short"))?;
        Self::new(*iv, ciphertext.to_vec())
    }

    /// Nonce, ciphertext and tag, one behind the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.iv[..], &self.ciphertext].concat()
    }

    /// The nonce.
    pub fn iv(&self) -> &[u8; IV_BYTES] {
        &self.iv
    }

    /// Ciphertext and tag.
    pub fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }
}

impl fmt::Debug for SealedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedMessage").field("bytes", &self.ciphertext.len()).finish_non_exhaustive()
    }
}

/// `{"alg":"Ed25519","sig":"…"}`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopField {
    alg: String,
    sig: String,
}

impl PopField {
    /// The field for a proof.
    pub fn new(proof: &PopProof) -> Self {
        Self { alg: POP_ALGORITHM.to_owned(), sig: proof.to_text() }
    }

    /// The proof in the field.
    ///
    /// # Errors
    ///
    /// A denial if the algorithm is not Ed25519, or the signature is not 64 bytes in base64url.
    pub fn proof(&self) -> Result<PopProof, Denial> {
        if self.alg != POP_ALGORITHM {
            return Err(Denial::malformed_request("the proof of possession is not of algorithm Ed25519"));
        }
        PopProof::from_text(self.sig.as_bytes())
    }
}

/// `{"alg":"AES-256-GCM","iv":"…","ct":"…"}`, or with the algorithm of another suite.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncField {
    alg: String,
    iv: String,
    ct: String,
}

impl EncField {
    /// The field for a message.
    pub fn new(message: &SealedMessage) -> Self {
        Self {
            alg: message.algorithm.unwrap_or(SEAL_ALGORITHMS[0]).to_owned(),
            iv: to_base64url(message.iv()),
            ct: to_base64url(message.ciphertext()),
        }
    }

    /// The message in the field.
    ///
    /// # Errors
    ///
    /// A denial if the algorithm is unknown, a field is not base64url, or the message has an impossible length.
    pub fn message(&self) -> Result<SealedMessage, Denial> {
        let known = SEAL_ALGORITHMS.into_iter().find(|known| *known == self.alg);
        let algorithm = known
            .ok_or_else(|| Denial::malformed_request("the sealed message names an unknown algorithm"))?;
        let malformed = || Denial::malformed_request("the sealed message is not base64url without padding");
        let iv = from_base64url(self.iv.as_bytes()).map_err(|_| malformed())?;
        let iv = iv.try_into().map_err(|_| Denial::malformed_request("the nonce is not 12 bytes long"))?;
        let message = SealedMessage::new(iv, from_base64url(self.ct.as_bytes()).map_err(|_| malformed())?)?;
        Ok(message.of_algorithm(algorithm))
    }
}

impl fmt::Debug for EncField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncField").field("characters", &self.ct.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail<T: fmt::Debug>(result: Result<T, Denial>) -> String {
        result.unwrap_err().detail.into_owned()
    }

    #[test]
    fn messages_survive_both_forms() {
        let message = SealedMessage::new([7; 12], vec![9; 40]).unwrap();
        assert_eq!(SealedMessage::from_bytes(&message.to_bytes()), Ok(message.clone()));
        assert_eq!(EncField::new(&message).message(), Ok(message.of_algorithm("AES-256-GCM")));
        let proof = PopProof::from_bytes([5; 64]);
        assert_eq!(PopField::new(&proof).proof(), Ok(proof));
    }

    #[test]
    fn messages_have_a_tag_and_a_bound() {
        assert!(detail(SealedMessage::from_bytes(&[0; 27])).contains("too short"));
        assert!(SealedMessage::from_bytes(&[0; 28]).is_ok());
        assert!(SealedMessage::from_bytes(&[]).is_err());
        assert!(SealedMessage::new([0; 12], vec![0; MAX_SEALED_BYTES + TAG_BYTES]).is_ok());
        assert!(
            detail(SealedMessage::new([0; 12], vec![0; MAX_SEALED_BYTES + TAG_BYTES + 1])).contains("long")
        );
    }

    #[test]
    fn other_algorithms_and_encodings_are_refused() {
        let pop = |json: serde_json::Value| serde_json::from_value::<PopField>(json).unwrap().proof();
        let sig = to_base64url(&[5; 64]);
        assert!(detail(pop(serde_json::json!({"alg": "ed25519", "sig": sig}))).contains("algorithm"));
        for sig in ["", "AAAA", &format!("{sig}=="), &to_base64url(&[5; 65])] {
            assert!(detail(pop(serde_json::json!({"alg": "Ed25519", "sig": sig}))).contains("64 bytes"));
        }
        let enc = |alg: &str, iv: &str, ct: &str| {
            EncField { alg: alg.to_owned(), iv: iv.to_owned(), ct: ct.to_owned() }.message()
        };
        let (iv, ct) = (to_base64url(&[1; 12]), to_base64url(&[2; 16]));
        assert!(enc("AES-256-GCM", &iv, &ct).is_ok());
        assert_ne!(enc("ChaCha20-Poly1305", &iv, &ct), enc("AES-256-GCM", &iv, &ct));
        assert!(enc("none", &iv, &ct).is_err());
        assert!(enc("AES-256-GCM", &to_base64url(&[1; 13]), &ct).is_err());
        assert!(enc("AES-256-GCM", &iv, &format!("{ct}=")).is_err());
    }
}
