//! The secrets that tokens are made with, as types: no `Clone`, no revealing `Debug`, wiped when dropped, compared in
//! constant time.

use obol_secret::secret;
use zeroize::Zeroizing;

use crate::kdf::{expand, hkdf_zero_salt};
use crate::names::{Audience, SessionId};
use crate::suite::Suite;

secret! {
    /// What a handshake leaves with the agent's side and the Authentication Service. No resource server ever gets it:
    /// each gets the keys derived for its own audience (see [`SessionSecret::for_audience`]).
    SessionSecret
}
secret! {
    /// `K_session`: the key that one session shares with one resource server. Whoever has it can mint.
    SessionKey
}
secret! {
    /// `verifier_secret`: proves to the resource server that the minter knows what the handshake gave it.
    VerifierSecret
}
secret! {
    /// `mutual_auth`: proves that the minter took part in the handshake.
    MutualAuth
}
secret! {
    /// `response_key`: seed of one token's channel keys. Travels only inside the sealed body.
    ResponseKey
}

/// What one session shares with one resource server.
#[derive(Debug)]
pub struct AudienceSecrets {
    /// `K_session`.
    pub session_key: SessionKey,
    /// `verifier_secret`.
    pub verifier_secret: VerifierSecret,
    /// `mutual_auth`.
    pub mutual_auth: MutualAuth,
}

impl SessionSecret {
    /// The keys for one resource server, bound to the suite, the session and the audience. A resource server that is
    /// taken over learns nothing about the keys of another, and so can forge tokens for itself only.
    ///
    /// HKDF-SHA-256 with a salt of 32 zero bytes and info `obol-sN-audience-v1` ‖ session id as u64 BE ‖
    /// SHA-256(audience); the 96 bytes are K_session, verifier_secret and mutual_auth, in this order.
    pub fn for_audience(&self, suite: Suite, session_id: SessionId, audience: &Audience) -> AudienceSecrets {
        let mut keys = Zeroizing::new([[0; 32]; 3]);
        let info = [suite.labels().audience, &session_id.as_u64().to_be_bytes(), &audience.hash()];
        expand(&hkdf_zero_salt(&self.0), &info, keys.as_flattened_mut());
        let [session_key, verifier_secret, mutual_auth] = *keys;
        AudienceSecrets {
            session_key: SessionKey(session_key),
            verifier_secret: VerifierSecret(verifier_secret),
            mutual_auth: MutualAuth(mutual_auth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(suite: Suite, session: u64, audience: &str) -> [u8; 32] {
        let secret = SessionSecret::from_bytes([7; 32]);
        *secret
            .for_audience(suite, SessionId::from_u64(session), &Audience::new(audience).unwrap())
            .session_key
            .expose()
    }

    #[test]
    fn each_suite_session_and_audience_has_keys_of_its_own() {
        let all = [
            key(Suite::Tbac, 1, "https://a"),
            key(Suite::AesGcm, 1, "https://a"),
            key(Suite::ChaCha20Poly1305, 1, "https://a"),
            key(Suite::HybridAesGcm, 1, "https://a"),
            key(Suite::AesGcm, 2, "https://a"),
            key(Suite::AesGcm, 1, "https://b"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(key(Suite::AesGcm, 1, "https://a"), all[1]);
    }

    #[test]
    fn the_three_secrets_of_an_audience_differ() {
        let secret = SessionSecret::from_bytes([7; 32]);
        let keys =
            secret.for_audience(Suite::AesGcm, SessionId::from_u64(1), &Audience::new("https://a").unwrap());
        assert!(!keys.verifier_secret.matches(keys.session_key.expose()));
        assert!(!keys.mutual_auth.matches(keys.session_key.expose()));
        assert!(!keys.mutual_auth.matches(keys.verifier_secret.expose()));
        assert!(!format!("{secret:?}{keys:?}").contains('7'));
    }
}
