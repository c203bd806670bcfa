//! Seals a body of any bytes under a session's own keys, by the offsets of the specification: what an issuer that has
//! gone wrong would send, and the only way past signature and encryption.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use curve25519_dalek::{RistrettoPoint, Scalar};
use obol_token::Jti;
use sha2::{Digest, Sha256, Sha512};

use crate::world::{AUDIENCE, ISSUED_AT, Keys, LIFE};

/// A token whose body decrypts to `plaintext`, in a session of suite 1, 2 or 4.
pub fn seal(keys: &Keys, plaintext: &[u8]) -> Vec<u8> {
    let jti = Jti::from_random([9; 16]);
    let iv = [9; 12];
    let mut token = vec![0x03, keys.suite.alg_id(), 0x03, 0x00];
    token.extend_from_slice(&keys.session_id.to_be_bytes());
    token.extend_from_slice(&iv);
    for number in [ISSUED_AT, ISSUED_AT + LIFE, 1] {
        token.extend_from_slice(&number.to_be_bytes());
    }
    token.extend_from_slice(&Sha256::digest(AUDIENCE));
    token.extend_from_slice(jti.as_bytes());
    token.extend_from_slice(&[0, 0]);

    let derived = keys.material().token_keys(&jti);
    let cipher = Aes256Gcm::new(derived.encryption().into());
    let payload = Payload { msg: plaintext, aad: &token };
    let sealed = cipher.encrypt(&iv.into(), payload).expect("the body is short");
    let (ciphertext, tag) = sealed.split_at(plaintext.len());

    if !keys.suite.is_signed() {
        return [token.as_slice(), tag, ciphertext].concat();
    }

    let signing = Scalar::from_bytes_mod_order(*derived.signing_scalar_bytes());
    let public = RistrettoPoint::mul_base(&signing).compress();
    let nonce = Scalar::from(7_u64);
    let point = RistrettoPoint::mul_base(&nonce).compress();
    let challenge = Scalar::from_bytes_mod_order_wide(
        &Sha512::new()
            .chain_update(point.as_bytes())
            .chain_update(public.as_bytes())
            .chain_update(keys.sek_public)
            .chain_update(keys.verifier_secret)
            .chain_update(tag)
            .chain_update(ciphertext)
            .chain_update(&token)
            .finalize()
            .into(),
    );
    token.extend_from_slice(point.as_bytes());
    token.extend_from_slice(tag);
    token.extend_from_slice((nonce + challenge * signing).as_bytes());
    token.extend_from_slice(ciphertext);
    token
}
