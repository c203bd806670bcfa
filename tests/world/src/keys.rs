//! Sessions whose keys are fixed, as plain bytes.

use obol_token::{MutualAuth, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret};

/// The session of most tests, in suite 1.
pub const KEYS: Keys = Keys {
    session_id: 0x00C0_FFEE_0000_0001,
    suite: Suite::Tbac,
    session_key: [0x11; 32],
    verifier_secret: [0x22; 32],
    mutual_auth: [0x33; 32],
    sek_public: [0x44; 32],
};

/// The number of [`KEYS`].
pub const SESSION: SessionId = SessionId::from_u64(KEYS.session_id);

/// The keys of one session. Two sessions of different suites may have the same keys: that is one of the attacks.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub session_id: u64,
    pub suite: Suite,
    pub session_key: [u8; 32],
    pub verifier_secret: [u8; 32],
    pub mutual_auth: [u8; 32],
    pub sek_public: [u8; 32],
}

impl Keys {
    /// One of a few sessions of each suite. `number` is below 15.
    pub fn of(suite: Suite, number: u64) -> Self {
        let byte = 16 * u8::try_from(number).expect("few sessions");
        Self {
            session_id: u64::from(suite.number()) << 8 | number,
            suite,
            session_key: [byte + 1; 32],
            verifier_secret: [byte + 2; 32],
            mutual_auth: [byte + 3; 32],
            sek_public: [byte + 4; 32],
        }
    }

    /// The same keys in a session of another suite.
    pub fn in_suite(self, suite: Suite) -> Self {
        Self { suite, ..self }
    }

    pub fn material(&self) -> SessionMaterial {
        SessionMaterial::new(
            SessionId::from_u64(self.session_id),
            self.suite,
            SessionKey::from_bytes(self.session_key),
            VerifierSecret::from_bytes(self.verifier_secret),
            MutualAuth::from_bytes(self.mutual_auth),
            self.sek_public,
        )
    }
}
