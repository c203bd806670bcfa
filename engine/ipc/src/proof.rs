//! Proofs of possession on their way through the sockets: what one is asked over, the proof, and the public half of the key
//! that it is made with. None is a secret: a hash of the call's arguments, a signature that is good for one token and these
//! arguments, and a public key.

use core::fmt;

use obol_secret::text::{from_base64url, to_base64url};
use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};

use crate::binary::{Binary, BinaryError, Input, Output, binary_enum};
use crate::frame::EncodeError;
use crate::names::{Text, ValueError, deserialize_text};

macro_rules! base64url_bytes {
    ($(#[$doc:meta])* $type:ident, $bytes:literal, $name:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $type([u8; $bytes]);

        impl $type {
            /// Takes the bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Reads base64url without padding.
            ///
            /// # Errors
            ///
            /// [`ValueError`] when it is not that, or of another length.
            pub fn parse(text: &str) -> Result<Self, ValueError> {
                let bytes = from_base64url(text.as_bytes(), $bytes * 2).ok().and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or(ValueError::new($name, $rule))
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl Text for $type {
            const NAME: &'static str = $name;
            const RULE: &'static str = $rule;

            fn check(text: String) -> Result<Self, ValueError> {
                Self::parse(&text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_base64url(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                output.plain(&self.to_string())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                Ok(Self::parse(&String::take(input)?)?)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_text(deserializer)
            }
        }
    };
}

base64url_bytes! {
    /// What a proof is asked over: SHA-256 of the call's arguments in canonical form (RFC 8785), absent ones being `{}`.
    ArgumentsHash, 32, "popFor", "32 bytes in base64url without padding, SHA-256 of the canonical arguments"
}

base64url_bytes! {
    /// The public half of a key for proofs, Ed25519.
    PopPublic, 32, "popPub", "32 bytes in base64url without padding, an Ed25519 public key"
}

base64url_bytes! {
    /// An Ed25519 signature.
    ProofSignature, 64, "sig", "64 bytes in base64url without padding"
}

/// The algorithm of proofs: there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ProofAlgorithm {
    /// Plain Ed25519 (RFC 8032).
    Ed25519,
}

binary_enum! {
    ProofAlgorithm "algorithm of a proof" { Ed25519 = 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_32_bytes_of_unpadded_base64url() {
        let hash = ArgumentsHash::from_bytes([7; 32]);
        assert_eq!(ArgumentsHash::parse(&hash.to_string()), Ok(hash));
        assert_eq!(serde_json::from_value::<ArgumentsHash>(serde_json::json!(hash)).unwrap(), hash);
        let text = hash.to_string();
        for wrong in
            ["", "AA", &format!("{text}="), &text[..42], &format!("{text}A"), &text.replace('c', "+")]
        {
            assert_eq!(ArgumentsHash::parse(wrong).unwrap_err().name(), "popFor", "{wrong:?}");
        }
    }
}
