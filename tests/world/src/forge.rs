//! An independent minter that can get every single thing wrong: what an issuer that has gone wrong would send, and the
//! only way past signature and encryption. Written by the offsets of the specification, not with the token library's own
//! minter.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use curve25519_dalek::{RistrettoPoint, Scalar};
use obol_token::{Jti, SessionMaterial, TokenKeys};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use crate::scope::{parsed, scope_json};
use crate::{AUDIENCE, KEYS, Keys, LIFE_SECS, NOW};

/// What a token is made of, in suites 1, 2 and 4. Every field can be wrong.
#[derive(Clone)]
pub struct Forge {
    pub keys: Keys,
    pub session_id: u64,
    pub jti: [u8; 16],
    pub issued_at: u64,
    pub expires_at: u64,
    pub policy_epoch: u64,
    /// The epoch whose privilege key signs the scope.
    pub signed_epoch: u64,
    /// The audience that the header names.
    pub audience: String,
    pub scope_tlv: Vec<u8>,
    /// What the body says.
    pub mutual_auth: [u8; 32],
    pub verifier_secret: [u8; 32],
    pub response_key: [u8; 32],
    /// The whole body, instead of the five fields.
    pub body: Option<Vec<u8>>,
    /// Flips a bit of the AEAD tag before signing.
    pub bad_tag: bool,
    /// Flips a bit of the signature.
    pub bad_signature: bool,
    /// The Schnorr nonce.
    pub nonce: Scalar,
}

impl Forge {
    /// A token in good order. `number` tells it from others.
    pub fn new(number: u64, scope: &Value) -> Self {
        let mut jti = [0; 16];
        jti[..8].copy_from_slice(&number.to_be_bytes());
        Self {
            keys: KEYS,
            session_id: KEYS.session_id,
            jti,
            issued_at: NOW,
            expires_at: NOW + LIFE_SECS,
            policy_epoch: 1,
            signed_epoch: 1,
            audience: AUDIENCE.to_owned(),
            scope_tlv: parsed(scope).to_tlv().unwrap(),
            mutual_auth: KEYS.mutual_auth,
            verifier_secret: KEYS.verifier_secret,
            response_key: [0x55; 32],
            body: None,
            bad_tag: false,
            bad_signature: false,
            nonce: Scalar::from_bytes_mod_order_wide(&Sha512::digest(jti).into()),
        }
    }

    /// A token of the standard scope.
    pub fn standard(number: u64) -> Self {
        Self::new(number, &scope_json())
    }

    /// A token of another session whose body decrypts to `plaintext`.
    pub fn sealing(keys: Keys, plaintext: &[u8]) -> Self {
        let body = Some(plaintext.to_vec());
        Self { keys, session_id: keys.session_id, jti: [9; 16], body, ..Self::standard(9) }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn jti(&self) -> Jti {
        Jti::from_random(self.jti)
    }

    pub fn text(&self) -> String {
        obol_token::text::to_base64url(&self.token())
    }

    pub fn token(&self) -> Vec<u8> {
        let material = self.keys.material();
        let keys = material.token_keys(&self.jti());
        let header = self.header();
        let sealed = Aes256Gcm::new(keys.encryption().into())
            .encrypt((&self.iv()).into(), Payload { msg: &self.body(&material), aad: &header })
            .expect("the body is short");
        let (ciphertext, tag) = sealed.split_at(sealed.len() - 16);
        let mut tag = tag.to_vec();
        tag[0] ^= u8::from(self.bad_tag);
        if self.keys.suite.is_signed() {
            let (point, signature) = self.signature(&keys, &header, &tag, ciphertext);
            [&header[..], &point, &tag, &signature, ciphertext].concat()
        } else {
            [&header[..], &tag, ciphertext].concat()
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![0x03, self.keys.suite.alg_id(), 0x03, 0x00];
        header.extend_from_slice(&self.session_id.to_be_bytes());
        header.extend_from_slice(&self.iv());
        for number in [self.issued_at, self.expires_at, self.policy_epoch] {
            header.extend_from_slice(&number.to_be_bytes());
        }
        header.extend_from_slice(&Sha256::digest(&self.audience));
        header.extend_from_slice(self.jti().as_bytes());
        header.extend_from_slice(&[0, 0]);
        header
    }

    /// A Schnorr signature, as its point and its scalar.
    fn signature(
        &self,
        keys: &TokenKeys,
        header: &[u8],
        tag: &[u8],
        ciphertext: &[u8],
    ) -> ([u8; 32], [u8; 32]) {
        let signing = Scalar::from_bytes_mod_order(*keys.signing_scalar_bytes());
        let point = RistrettoPoint::mul_base(&self.nonce).compress().to_bytes();
        let challenge = Scalar::from_bytes_mod_order_wide(
            &Sha512::new()
                .chain_update(point)
                .chain_update(RistrettoPoint::mul_base(&signing).compress().as_bytes())
                .chain_update(self.keys.sek_public)
                .chain_update(self.keys.verifier_secret)
                .chain_update(tag)
                .chain_update(ciphertext)
                .chain_update(header)
                .finalize()
                .into(),
        );
        let mut signature = (self.nonce + challenge * signing).to_bytes();
        signature[0] ^= u8::from(self.bad_signature);
        (point, signature)
    }

    fn iv(&self) -> [u8; 12] {
        self.jti[..12].try_into().unwrap()
    }

    fn body(&self, material: &SessionMaterial) -> Vec<u8> {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let privilege_signature = material.privilege_signature(self.signed_epoch, &self.scope_tlv);
        tlv(&[
            (1, &self.scope_tlv),
            (2, &privilege_signature),
            (3, &self.response_key),
            (4, &self.mutual_auth),
            (5, &self.verifier_secret),
        ])
    }
}

pub fn tlv(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in fields {
        out.push(*tag);
        match u16::try_from(value.len()).unwrap() {
            short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
            long => out.extend_from_slice(&(long | 0x8000).to_be_bytes()),
        }
        out.extend_from_slice(value);
    }
    out
}
