//! Algorithm suites: which primitives protect a token.

use core::fmt;

/// The algorithm suite of a session, and so of every token minted under it.
///
/// A session negotiates exactly one suite; a token whose `alg_id` names another is refused, so that nobody can
/// move a session to a weaker one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suite {
    /// TBAC r41 as published: HKDF-SHA-256, Schnorr over ristretto255, AES-256-GCM.
    Tbac,
}

impl Suite {
    /// The number that `sessionInfo` reports (1 to 4).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tbac => 1,
        }
    }

    /// The suite with this number, if this build has it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Tbac),
            _ => None,
        }
    }

    /// The `alg_id` byte at offset 1 of a token.
    pub const fn alg_id(self) -> u8 {
        match self {
            Self::Tbac => 0x01,
        }
    }

    /// The suite that an `alg_id` byte names.
    pub const fn from_alg_id(alg_id: u8) -> Option<Self> {
        match alg_id {
            0x01 => Some(Self::Tbac),
            _ => None,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}
