//! A second implementation of the handshake, written from `docs/handshake.md` and sharing no code with the crate: only
//! the primitives are the same libraries, behind other interfaces where they have one.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use ml_kem::kem::{Decapsulate, KeyExport, TryKeyInit};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use sha2::{Digest, Sha256};

/// All that is random or private, on both sides.
pub(super) struct Inputs {
    pub(super) suite: u8,
    pub(super) purpose: u8,
    pub(super) offer: u8,
    pub(super) origin: String,
    pub(super) authority: [u8; 32],
    pub(super) identity: [u8; 32],
    pub(super) initiator_ephemeral: [u8; 32],
    pub(super) responder_ephemeral: [u8; 32],
    pub(super) kem_seed: [u8; 64],
    pub(super) kem_message: [u8; 32],
    pub(super) reply_payload: Vec<u8>,
    pub(super) proof_payload: Vec<u8>,
}

/// What comes of them. The messages are those of the Noise pattern, without cookie and framing.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) hello: Vec<u8>,
    pub(super) reply: Vec<u8>,
    pub(super) proof: Vec<u8>,
    pub(super) hash: [u8; 32],
    pub(super) secret: [u8; 32],
    pub(super) chain: [u8; 32],
    /// The first transport message of each direction, with an empty text: a tag.
    pub(super) to_service: Vec<u8>,
    pub(super) to_client: Vec<u8>,
}

struct Noise {
    suite: u8,
    ck: [u8; 32],
    h: [u8; 32],
    k: [u8; 32],
    n: u64,
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

/// Noise's HKDF is that of RFC 5869 with the chaining key as salt and no info.
fn hkdf<const N: usize>(ck: &[u8; 32], input: &[u8]) -> [[u8; 32]; N] {
    let mut out = vec![0; 32 * N];
    Hkdf::<Sha256>::new(Some(ck), input).expand(&[], &mut out).unwrap();
    core::array::from_fn(|i| out[32 * i..32 * (i + 1)].try_into().unwrap())
}

fn dh(private: &[u8; 32], public: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(*private, *public)
}

fn public(private: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(*private, x25519_dalek::X25519_BASEPOINT_BYTES)
}

fn seal(suite: u8, k: &[u8; 32], n: u64, aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let mut iv = [0; 12];
    let payload = Payload { msg, aad };
    if suite == 3 {
        iv[4..].copy_from_slice(&n.to_le_bytes());
        ChaCha20Poly1305::new(k.into()).encrypt(&iv.into(), payload).unwrap()
    } else {
        iv[4..].copy_from_slice(&n.to_be_bytes());
        Aes256Gcm::new(k.into()).encrypt(&iv.into(), payload).unwrap()
    }
}

impl Noise {
    fn mix_hash(&mut self, data: &[u8]) {
        self.h = sha256(&[&self.h, data]);
    }

    fn mix_key(&mut self, input: &[u8; 32]) {
        [self.ck, self.k] = hkdf(&self.ck, input);
        self.n = 0;
    }

    fn encrypt(&mut self, text: &[u8]) -> Vec<u8> {
        let sealed = seal(self.suite, &self.k, self.n, &self.h, text);
        self.n += 1;
        self.mix_hash(&sealed);
        sealed
    }
}

/// The whole handshake, seen from above: both private halves are at hand, so each message is written once.
pub(super) fn handshake(inputs: &Inputs) -> Outcome {
    let hybrid = inputs.suite == 4;
    let name = match inputs.suite {
        1 | 2 => "Noise_XK_25519_AESGCM_SHA256",
        3 => "Noise_XK_25519_ChaChaPoly_SHA256",
        _ => "Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256",
    };
    let start = if name.len() > 32 {
        sha256(&[name.as_bytes()])
    } else {
        let mut padded = [0; 32];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        padded
    };
    let mut noise = Noise { suite: inputs.suite, ck: start, h: start, k: [0; 32], n: 0 };

    let service = public(&inputs.authority);
    let mut header = vec![1, inputs.purpose, inputs.suite, inputs.offer];
    header.extend_from_slice(&sha256(&[&service])[..8]);
    let length = u16::try_from(inputs.origin.len()).unwrap().to_be_bytes();
    noise.mix_hash(&[b"obol-handshake-v1\0", &header[..], &length, inputs.origin.as_bytes()].concat());
    noise.mix_hash(&service);

    // A: e, es, (e1), empty payload
    let client_e = public(&inputs.initiator_ephemeral);
    noise.mix_hash(&client_e);
    noise.mix_key(&dh(&inputs.initiator_ephemeral, &service));
    let mut hello = [&header[..], &client_e].concat();
    let kem = DecapsulationKey::from_seed(inputs.kem_seed.into());
    let kem_public = kem.encapsulation_key().to_bytes();
    if hybrid {
        hello.extend(noise.encrypt(&kem_public));
    }
    hello.extend(noise.encrypt(b""));

    // B: e, ee, (ekem1), payload
    let service_e = public(&inputs.responder_ephemeral);
    noise.mix_hash(&service_e);
    noise.mix_key(&dh(&inputs.responder_ephemeral, &client_e));
    let mut reply = service_e.to_vec();
    if hybrid {
        let (ciphertext, secret) = EncapsulationKey::new_from_slice(&kem_public)
            .unwrap()
            .encapsulate_deterministic(&inputs.kem_message.into());
        assert_eq!(secret, kem.decapsulate(&ciphertext));
        reply.extend(noise.encrypt(&ciphertext));
        noise.mix_key(&secret.into());
    }
    reply.extend(noise.encrypt(&inputs.reply_payload));

    // C: s, se, payload
    let mut proof = noise.encrypt(&public(&inputs.identity));
    noise.mix_key(&dh(&inputs.identity, &service_e));
    proof.extend(noise.encrypt(&inputs.proof_payload));

    let [to_service, to_client, x]: [[u8; 32]; 3] = hkdf(&noise.ck, &[]);
    let exporter = Hkdf::<Sha256>::new(Some(&noise.h), &x);
    let export = |what: &str| {
        let mut out = [0; 32];
        exporter.expand(format!("obol-s{}-{what}-v1", inputs.suite).as_bytes(), &mut out).unwrap();
        out
    };
    Outcome {
        hello,
        reply,
        proof,
        hash: noise.h,
        secret: export("session"),
        chain: export("chain"),
        to_service: seal(inputs.suite, &to_service, 0, &[], &[]),
        to_client: seal(inputs.suite, &to_client, 0, &[], &[]),
    }
}
