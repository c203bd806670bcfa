//! An agent's name: a hash of machine and user. Anyone who knows these can compute it: it is a name, never a proof.

use core::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use obol_secret::text::{from_hex, to_hex};
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// What a keyed agent id is derived for.
const KEYED_LABEL: &[u8] = b"obol-atp-agent-id";

/// 32 bytes; as text 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId([u8; 32]);

impl AgentId {
    /// Reads 64 lower-case hex digits; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The documented formula: SHA-256 of host name, user name and machine id, one behind the other. White space around
    /// the machine id is cut; nothing else is changed.
    pub fn from_machine(hostname: &str, username: &str, machine_id: &str) -> Self {
        let hash =
            Sha256::new().chain_update(hostname).chain_update(username).chain_update(machine_id.trim());
        Self(hash.finalize().into())
    }

    /// A name for one host only: HMAC-SHA256 with the machine id as key. Two providers cannot tell that they serve the same
    /// agent, and the machine id stays private.
    pub fn keyed(machine_id: &str, host: &str) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(machine_id.trim().as_bytes())
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(KEYED_LABEL);
        mac.update(host.as_bytes());
        Self(mac.finalize().into_bytes().into())
    }

    /// From random bytes, for machines without a machine id.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({self})")
    }
}

impl Serialize for AgentId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(&self.0))
    }
}
