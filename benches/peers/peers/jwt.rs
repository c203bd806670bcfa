//! JSON Web Tokens with `jsonwebtoken`.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};

use super::paseto::{ED25519_PUBLIC, ED25519_SEED};
use super::{Claims, Peer, Verified};

/// What stands before the seed in a PKCS #8 document of an Ed25519 key.
const PKCS8_HEADER: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

pub struct Jwt {
    name: &'static str,
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl Jwt {
    pub fn hs256() -> Self {
        let (signing, verifying) = (EncodingKey::from_secret(&[1; 32]), DecodingKey::from_secret(&[1; 32]));
        Self::new("jsonwebtoken, HS256", Algorithm::HS256, signing, verifying)
    }

    pub fn eddsa() -> Self {
        let private = [PKCS8_HEADER.as_slice(), &ED25519_SEED].concat();
        let (signing, verifying) =
            (EncodingKey::from_ed_der(&private), DecodingKey::from_ed_der(&ED25519_PUBLIC));
        Self::new("jsonwebtoken, EdDSA", Algorithm::EdDSA, signing, verifying)
    }

    fn new(name: &'static str, algorithm: Algorithm, signing: EncodingKey, verifying: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        // These claims are compared for every peer by the same code; the clock stands still.
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { name, header: Header::new(algorithm), signing, verifying, validation }
    }
}

impl Peer for Jwt {
    fn name(&self) -> &str {
        self.name
    }

    fn mint(&self, number: u64) -> Vec<u8> {
        encode(&self.header, &Claims::new(number), &self.signing).expect("claims are JSON").into_bytes()
    }

    fn verify(&self, token: &[u8]) -> Option<Verified> {
        decode::<Claims>(token, &self.verifying, &self.validation).ok()?.claims.check()
    }
}
