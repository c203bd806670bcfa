//! PASETO version 4 with `pasetors`.

use pasetors::keys::{AsymmetricPublicKey, AsymmetricSecretKey, SymmetricKey};
use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, PublicToken, V4};
use pasetors::{Local, Public};

use super::{Claims, Peer, Verified};

/// The first key pair of RFC 8032, section 7.1.
pub const ED25519_SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
    0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
pub const ED25519_PUBLIC: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
    0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

fn payload(number: u64) -> Vec<u8> {
    serde_json::to_vec(&Claims::new(number)).expect("claims are JSON")
}

fn read(payload: &str) -> Option<Verified> {
    serde_json::from_str::<Claims>(payload).ok()?.check()
}

pub struct PasetoLocal(SymmetricKey<V4>);

impl PasetoLocal {
    pub fn new() -> Self {
        Self(SymmetricKey::from(&[1; 32]).expect("32 bytes are a key"))
    }
}

impl Peer for PasetoLocal {
    fn name(&self) -> &str {
        "pasetors, v4.local"
    }

    fn mint(&self, number: u64) -> Vec<u8> {
        LocalToken::encrypt(&self.0, &payload(number), None, None).expect("the payload is short").into_bytes()
    }

    fn verify(&self, token: &[u8]) -> Option<Verified> {
        let token = UntrustedToken::<Local, V4>::try_from(str::from_utf8(token).ok()?).ok()?;
        read(LocalToken::decrypt(&self.0, &token, None, None).ok()?.payload())
    }
}

pub struct PasetoPublic {
    signing: AsymmetricSecretKey<V4>,
    verifying: AsymmetricPublicKey<V4>,
}

impl PasetoPublic {
    pub fn new() -> Self {
        let both = [ED25519_SEED, ED25519_PUBLIC].concat();
        Self {
            signing: AsymmetricSecretKey::from(&both).expect("a key pair"),
            verifying: AsymmetricPublicKey::from(&ED25519_PUBLIC).expect("a public key"),
        }
    }
}

impl Peer for PasetoPublic {
    fn name(&self) -> &str {
        "pasetors, v4.public"
    }

    fn mint(&self, number: u64) -> Vec<u8> {
        PublicToken::sign(&self.signing, &payload(number), None, None)
            .expect("the payload is short")
            .into_bytes()
    }

    fn verify(&self, token: &[u8]) -> Option<Verified> {
        let token = UntrustedToken::<Public, V4>::try_from(str::from_utf8(token).ok()?).ok()?;
        read(PublicToken::verify(&self.verifying, &token, None, None).ok()?.payload())
    }
}
