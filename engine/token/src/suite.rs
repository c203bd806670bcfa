//! Algorithm suites: which primitives protect a token.
//!
//! Suite 1 is TBAC r41 as published. Suites 2 to 4 are Obol's own, with `alg_id` values for private use. Both keys
//! of a suite 1 token come from the same session key, so its signature adds cost and no authority: whoever can
//! decrypt can sign. The others leave it out and rest on the AEAD alone.
//!
//! No key of one suite is ever a key of another: every label names its suite, and so does the header that the AEAD
//! covers.

use core::fmt;

/// Bytes of a token that are covered as additional data by the AEAD, and by the signature: alike in every suite.
pub(crate) const AAD_BYTES: usize = 104;

/// The algorithm suite of a session, and so of every token minted under it.
///
/// A session negotiates exactly one suite; a token whose `alg_id` names another is refused, so that nobody can
/// move a session to a weaker one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suite {
    /// TBAC r41 as published: HKDF-SHA-256, Schnorr over ristretto255, AES-256-GCM.
    Tbac,
    /// HKDF-SHA-256 and AES-256-GCM alone.
    AesGcm,
    /// HKDF-SHA-256 and ChaCha20-Poly1305, for machines without AES instructions.
    ChaCha20Poly1305,
    /// As [`Suite::AesGcm`], in sessions whose keys come from the hybrid handshake (X25519 and ML-KEM-768).
    HybridAesGcm,
}

/// Where in the key schedule a suite's own labels stand. Suite 1 has those of TBAC r41 instead, and of these only
/// `audience`.
pub(crate) struct Labels {
    pub(crate) audience: &'static [u8],
    pub(crate) root: &'static [u8],
    pub(crate) token: &'static [u8],
    pub(crate) privilege: &'static [u8],
    pub(crate) channel: &'static [u8],
    pub(crate) request_aad: &'static [u8],
    pub(crate) response_aad: &'static [u8],
}

macro_rules! labels {
    ($number:literal) => {
        const {
            &Labels {
                audience: concat!("obol-s", $number, "-audience-v1").as_bytes(),
                root: concat!("obol-s", $number, "-root-v1").as_bytes(),
                token: concat!("obol-s", $number, "-token-v1").as_bytes(),
                privilege: concat!("obol-s", $number, "-privilege-v1").as_bytes(),
                channel: concat!("obol-s", $number, "-channel-v1").as_bytes(),
                request_aad: concat!("obol-s", $number, "-request-v1").as_bytes(),
                response_aad: concat!("obol-s", $number, "-response-v1").as_bytes(),
            }
        }
    };
}

impl Suite {
    /// Every suite, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Tbac, Self::AesGcm, Self::ChaCha20Poly1305, Self::HybridAesGcm];

    /// The number that `sessionInfo` reports (1 to 4).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tbac => 1,
            Self::AesGcm => 2,
            Self::ChaCha20Poly1305 => 3,
            Self::HybridAesGcm => 4,
        }
    }

    /// The suite with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Tbac),
            2 => Some(Self::AesGcm),
            3 => Some(Self::ChaCha20Poly1305),
            4 => Some(Self::HybridAesGcm),
            _ => None,
        }
    }

    /// The `alg_id` byte at offset 1 of a token. Suite 1's is the specification's; the others' are private-use
    /// values, far from those that the specification counts up.
    pub const fn alg_id(self) -> u8 {
        match self {
            Self::Tbac => 0x01,
            Self::AesGcm => 0xF2,
            Self::ChaCha20Poly1305 => 0xF3,
            Self::HybridAesGcm => 0xF4,
        }
    }

    /// The suite that an `alg_id` byte names.
    pub const fn from_alg_id(alg_id: u8) -> Option<Self> {
        match alg_id {
            0x01 => Some(Self::Tbac),
            0xF2 => Some(Self::AesGcm),
            0xF3 => Some(Self::ChaCha20Poly1305),
            0xF4 => Some(Self::HybridAesGcm),
            _ => None,
        }
    }

    /// What protects a token of this suite, in words.
    pub const fn primitives(self) -> &'static str {
        match self {
            Self::Tbac => "HKDF-SHA-256, Schnorr over ristretto255, AES-256-GCM",
            Self::AesGcm | Self::HybridAesGcm => "HKDF-SHA-256, AES-256-GCM",
            Self::ChaCha20Poly1305 => "HKDF-SHA-256, ChaCha20-Poly1305",
        }
    }

    /// Whether tokens carry a Schnorr signature: 64 bytes, R and σ.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Tbac)
    }

    /// Bytes of a token before its ciphertext: 184 where it is signed, 120 otherwise.
    pub const fn header_bytes(self) -> usize {
        const TAG_BYTES: usize = 16;
        const SIGNATURE_BYTES: usize = 64;
        if self.is_signed() { AAD_BYTES + TAG_BYTES + SIGNATURE_BYTES } else { AAD_BYTES + TAG_BYTES }
    }

    pub(crate) const fn labels(self) -> &'static Labels {
        match self {
            Self::Tbac => labels!("1"),
            Self::AesGcm => labels!("2"),
            Self::ChaCha20Poly1305 => labels!("3"),
            Self::HybridAesGcm => labels!("4"),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_alg_ids_name_one_suite_each() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_number(suite.number()), Some(suite));
            assert_eq!(Suite::from_alg_id(suite.alg_id()), Some(suite));
        }
        let known = |byte: &u8| Suite::from_alg_id(*byte).is_some();
        assert_eq!((0..=u8::MAX).filter(known).collect::<Vec<_>>(), [0x01, 0xF2, 0xF3, 0xF4]);
        assert_eq!((0..=u8::MAX).filter(|number| Suite::from_number(*number).is_some()).count(), 4);
    }

    #[test]
    fn no_two_keys_share_a_label() {
        let labels: Vec<&[u8]> = Suite::ALL
            .iter()
            .flat_map(|suite| {
                let Labels { audience, root, token, privilege, channel, request_aad, response_aad } =
                    suite.labels();
                [audience, root, token, privilege, channel, request_aad, response_aad]
            })
            .copied()
            .collect();
        let distinct: BTreeSet<&[u8]> = labels.iter().copied().collect();
        assert_eq!(distinct.len(), 4 * 7);
        // Labels are followed by other data: none may be the beginning of another.
        for label in &labels {
            assert_eq!(labels.iter().filter(|other| other.starts_with(label)).count(), 1);
        }
    }
}
