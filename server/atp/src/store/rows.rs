//! What is kept, one row for each thing, named by what it is about, so that none can be moved to another's place: `k/` and a key's
//! name, `t/` and a token's id, `r/` and a revoked id, `o/` and whose secrets it tells of.

use obol_atp::jwt::Algorithm;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::owners::Owner;

#[cfg(feature = "redis")]
use super::tokens::OVERLAP_SECS;
use super::tokens::Record;
#[cfg(feature = "redis")]
use crate::keys;

/// What is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Row {
    /// A JWT key.
    Key { kid: String, algorithm: Algorithm, hex: SecretHex, created: u64 },
    /// A master's token.
    Token(Record),
    /// A revoked id, and until when that matters.
    Revoked { id: String, until: u64 },
    /// What is remembered of somebody's secrets.
    Owner(Owner),
}

/// 64 hex digits of a key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretHex(pub(crate) Zeroizing<String>);

/// A key's bytes as they are kept.
pub(crate) fn secret_hex(bytes: &[u8]) -> SecretHex {
    SecretHex(Zeroizing::new(obol_secret::text::to_hex(bytes)))
}

impl core::fmt::Debug for SecretHex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SecretHex([redacted])")
    }
}

impl Row {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Key { kid, .. } => format!("k/{kid}"),
            Self::Token(record) => format!("t/{}", record.id),
            Self::Revoked { id, .. } => format!("r/{id}"),
            Self::Owner(owner) => format!("o/{}", owner.name),
        }
    }

    /// Until when it matters, in Unix seconds.
    #[cfg(feature = "redis")]
    pub(crate) fn ends(&self) -> u64 {
        match self {
            Self::Key { created, .. } => keys::ends(*created),
            Self::Token(record) => record.ends.saturating_add(OVERLAP_SECS),
            Self::Revoked { until, .. } => until.saturating_add(OVERLAP_SECS),
            Self::Owner(_) => u64::MAX,
        }
    }

    /// As it is sealed.
    pub(crate) fn plain(&self) -> Option<Zeroizing<Vec<u8>>> {
        serde_json::to_vec(self).ok().map(Zeroizing::new)
    }
}
