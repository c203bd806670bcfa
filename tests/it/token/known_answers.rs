//! The token format against known answers: our own vectors always, the published ones of TBAC r41 where they
//! are at hand.

use std::path::PathBuf;

use curve25519_dalek::{RistrettoPoint, Scalar};
use obol_token::text::{bytes_from_hex, from_hex, to_hex};
use obol_token::{
    Audience, Envelope, Jti, Minter, MutualAuth, ResponseKey, Scope, SessionId, SessionKey, SessionMaterial,
    Suite, TokenSeed, Validity, VerifierSecret,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Inputs and expected values of one token, in the shape of `tests/vectors/`.
#[derive(Deserialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) session: Session,
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) jti_random: [u8; 16],
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) iv: [u8; 12],
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) response_key: [u8; 32],
    nonce_seed: Option<String>,
    pub(crate) issued_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) scope: Scope,
    pub(crate) expected: Expected,
}

#[derive(Deserialize)]
pub(crate) struct Session {
    #[serde(default = "suite_1")]
    pub(crate) suite: u8,
    pub(crate) session_id: SessionId,
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) session_key: [u8; 32],
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) verifier_secret: [u8; 32],
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) mutual_auth: [u8; 32],
    #[serde(with = "obol_token::text::hex_array")]
    pub(crate) sek_public: [u8; 32],
}

fn suite_1() -> u8 {
    1
}

#[derive(Deserialize, serde::Serialize, PartialEq, Debug, Default)]
#[serde(default)]
pub(crate) struct Expected {
    pub(crate) audience_hash: String,
    pub(crate) token_encryption_key: String,
    /// Suite 1 alone signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signing_scalar_le: Option<String>,
    pub(crate) privilege_key: String,
    pub(crate) privilege_signature: String,
    pub(crate) request_key: String,
    pub(crate) response_key: String,
    pub(crate) response_iv: String,
    pub(crate) scope_tlv: String,
    pub(crate) token: String,
}

impl Vector {
    pub(crate) fn suite(&self) -> Suite {
        Suite::from_number(self.session.suite).unwrap()
    }

    pub(crate) fn material(&self) -> SessionMaterial {
        SessionMaterial::new(
            self.session.session_id,
            self.suite(),
            SessionKey::from_bytes(self.session.session_key),
            VerifierSecret::from_bytes(self.session.verifier_secret),
            MutualAuth::from_bytes(self.session.mutual_auth),
            self.session.sek_public,
        )
    }

    fn compute(&self) -> Expected {
        let material = self.material();
        let jti = Jti::from_random(self.jti_random);
        let keys = material.token_keys(&jti);
        let scope_tlv = self.scope.to_tlv().unwrap();
        let channel = material.channel_keys(&jti, &ResponseKey::from_bytes(self.response_key));
        let seed = TokenSeed {
            jti,
            iv: self.iv,
            response_key: ResponseKey::from_bytes(self.response_key),
            nonce: self.nonce_seed.as_deref().map(|hex| Zeroizing::new(from_hex(hex).unwrap())),
        };
        let validity = Validity { issued_at: self.issued_at, expires_at: self.expires_at };
        let tokens =
            Minter::new(&material, &self.scope, self.policy_epoch).unwrap().mint(validity, &[seed]).unwrap();
        Expected {
            audience_hash: to_hex(&Audience::new(self.scope.aud.as_str()).unwrap().hash()),
            token_encryption_key: to_hex(keys.encryption()),
            signing_scalar_le: self
                .suite()
                .is_signed()
                .then(|| to_hex(keys.signing_scalar_bytes().as_slice())),
            privilege_key: to_hex(material.privilege_key(self.policy_epoch).as_slice()),
            privilege_signature: to_hex(&material.privilege_signature(self.policy_epoch, &scope_tlv)),
            request_key: to_hex(channel.request_key()),
            response_key: to_hex(channel.response_key()),
            response_iv: to_hex(channel.response_iv()),
            scope_tlv: to_hex(&scope_tlv),
            token: to_hex(&tokens[0]),
        }
    }
}

pub(crate) fn vectors_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

pub(crate) fn own_vectors(suite: Suite) -> Vec<Vector> {
    let text = std::fs::read_to_string(vectors_path(&format!("token-suite{suite}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Writes what the code computes now into the vectors of `name`; the diff then shows what a change did to the format.
pub(crate) fn bless<T>(name: &str, vectors: &[T], compute: impl Fn(&T) -> serde_json::Value) {
    let path = vectors_path(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (entry, vector) in document.as_array_mut().unwrap().iter_mut().zip(vectors) {
        entry["expected"] = compute(vector);
    }
    std::fs::write(path, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
}

/// Whether vectors are to be written, and not compared: `OBOL_BLESS=1`.
pub(crate) fn blessing() -> bool {
    std::env::var_os("OBOL_BLESS").is_some()
}

#[test]
fn own_vectors_are_reproduced_and_open() {
    for suite in Suite::ALL {
        if blessing() {
            bless(&format!("token-suite{suite}.json"), &own_vectors(suite), |vector| {
                serde_json::to_value(vector.compute()).unwrap()
            });
        }
        let vectors = own_vectors(suite);
        assert!(vectors.len() >= 3);
        for vector in vectors {
            assert_eq!(vector.suite(), suite);
            assert_eq!(vector.compute(), vector.expected, "suite {suite}: {}", vector.name);
            let token = bytes_from_hex(&vector.expected.token).unwrap();
            let body = vector.material().open(&Envelope::parse(&token).unwrap()).unwrap();
            assert_eq!(body.scope().unwrap(), vector.scope, "suite {suite}: {}", vector.name);
        }
    }
}

/// Where the published vectors are: `OBOL_TBAC_VECTORS`, or `shared/vectors/tbac-r41` beside the checkout.
pub(crate) fn published_vectors() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/tbac-r41");
    let path = std::env::var_os("OBOL_TBAC_VECTORS").map_or(beside, PathBuf::from);
    if path.join("expected.json").is_file() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: the published TBAC r41 vectors are not at {}. Copy `test-vectors/v1` of the TBAC reference \
         implementation somewhere and set OBOL_TBAC_VECTORS to that folder.",
        path.display()
    );
    None
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn big_endian_scalar(hex: &str) -> Scalar {
    let mut bytes: [u8; 32] = from_hex(hex).unwrap();
    bytes.reverse();
    Scalar::from_canonical_bytes(bytes).unwrap()
}

#[test]
fn published_vectors_are_reproduced_byte_for_byte() {
    let Some(folder) = published_vectors() else { return };
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    let (inputs, expected) = (read("inputs.json"), read("expected.json"));
    let text = |name: &str| inputs[name].as_str().unwrap();

    let sek = RistrettoPoint::mul_base(&big_endian_scalar(text("SEK_scalar_hex"))).compress();
    let nonce = sha256("conformance-vector-rtok-seed-v1");
    let vector = Vector {
        name: "published".to_owned(),
        session: Session {
            suite: 1,
            session_id: SessionId::parse(text("session_id_hex")).unwrap(),
            session_key: from_hex(text("K_session_hex")).unwrap(),
            verifier_secret: sha256(text("verifier_secret_src")),
            mutual_auth: sha256(text("mutual_auth_src")),
            sek_public: sek.to_bytes(),
        },
        jti_random: core::array::from_fn(|i| u8::try_from(i).unwrap()),
        iv: from_hex(text("token_iv_hex")).unwrap(),
        response_key: sha256(text("response_key_src")),
        nonce_seed: Some(to_hex(&nonce).repeat(2)),
        issued_at: inputs["iat"].as_u64().unwrap(),
        expires_at: inputs["exp"].as_u64().unwrap(),
        policy_epoch: inputs["policy_epoch"].as_u64().unwrap(),
        scope: serde_json::from_value(inputs["scope"].clone()).unwrap(),
        expected: Expected::default(),
    };
    assert_eq!(Jti::from_random(vector.jti_random).as_str(), text("jti"));

    let computed = vector.compute();
    let signing =
        Scalar::from_canonical_bytes(from_hex(computed.signing_scalar_le.as_deref().unwrap()).unwrap())
            .unwrap();
    assert_eq!(signing, big_endian_scalar(expected["tqs_sk_hex"].as_str().unwrap()));
    assert_eq!(to_hex(RistrettoPoint::mul_base(&signing).compress().as_bytes()), expected["TQS_PK_hex"]);
    for (name, value) in [
        ("aud_hash_hex", &computed.audience_hash),
        ("K_tok_enc_hex", &computed.token_encryption_key),
        ("K_priv_hex", &computed.privilege_key),
        ("priv_sig_hex", &computed.privilege_signature),
        ("K_req_hex", &computed.request_key),
        ("K_resp_hex", &computed.response_key),
        ("IV_resp_hex", &computed.response_iv),
        ("scope_tlv_hex", &computed.scope_tlv),
        ("token_hex", &computed.token),
    ] {
        assert_eq!(*value, expected[name], "{name}");
    }
}
