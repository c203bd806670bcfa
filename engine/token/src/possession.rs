//! What a proof of possession signs (TBAC r41, section 3.5).

use sha2::{Digest, Sha256};

use crate::envelope::Jti;
use crate::names::SessionId;

const LABEL: &[u8] = b"tbac-pop-v1";

/// What a proof of possession signs, with plain Ed25519: 32 bytes, SHA-256 over label, session, token and the SHA-256 of the
/// call's arguments in canonical form (RFC 8785).
pub fn transcript(session_id: SessionId, jti: &Jti, arguments_hash: &[u8; 32]) -> [u8; 32] {
    const JTI_LENGTH: u16 = 22;
    Sha256::new()
        .chain_update(LABEL)
        .chain_update(session_id.as_u64().to_be_bytes())
        .chain_update(JTI_LENGTH.to_be_bytes())
        .chain_update(jti.as_bytes())
        .chain_update(arguments_hash)
        .finalize()
        .into()
}
