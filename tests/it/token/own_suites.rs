//! Suites 2 to 4: a second implementation, written from the tables in `docs/protocol.md` and sharing no code with the
//! crate, against the vectors; and what must not pass from one suite to another.

use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::ChaCha20Poly1305;
use obol_token::text::{bytes_from_hex, to_hex};
use obol_token::{
    Audience, Jti, Minter, MutualAuth, ResponseKey, SessionId, SessionKey, SessionMaterial, SessionSecret,
    Suite, TokenSeed, Validity, VerifierSecret,
};
use obol_verify::{Mark, MemorySpentSet, Session, SpendError, SpendTicket, SpentSet, Unverified};
use obol_world::ManualClock;
use obol_world::forge::tlv;
use obol_world::scope::{parsed, scope_json, scope_with};
use obol_world::server::{Server, names, reading, session_of};
use obol_world::{AUDIENCE, KEYS, NOW, ORG, SESSION};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::token::known_answers::{Vector, bless, blessing, own_vectors, vectors_path};

const OWN: [Suite; 3] = [Suite::AesGcm, Suite::ChaCha20Poly1305, Suite::HybridAesGcm];

/// RFC 2104.
fn hmac(key: &[u8; 32], message: &[&[u8]]) -> [u8; 32] {
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).unwrap_or(&0) ^ byte).collect() };
    let inner = Sha256::digest([&pad(0x36)[..], &message.concat()].concat());
    Sha256::digest([&pad(0x5C)[..], &inner[..]].concat()).into()
}

/// RFC 5869, HKDF-Expand.
fn expand(key: &[u8; 32], info: &[&[u8]], length: usize) -> Vec<u8> {
    let (info, mut out, mut block) = (info.concat(), Vec::new(), Vec::new());
    for counter in 1..=u8::try_from(length.div_ceil(32)).unwrap() {
        block = hmac(key, &[&block, &info, &[counter]]).to_vec();
        out.extend_from_slice(&block);
    }
    out.truncate(length);
    out
}

fn key(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap()
}

/// The key schedule, as `docs/protocol.md` gives it.
struct Schedule {
    token: [u8; 32],
    privilege: [u8; 32],
    channel: Vec<u8>,
}

fn schedule(vector: &Vector) -> Schedule {
    let number = vector.session.suite;
    let label = |name: &str| format!("obol-s{number}-{name}-v1").into_bytes();
    let session_id = vector.session.session_id.as_u64().to_be_bytes();
    let jti = Jti::from_random(vector.jti_random);
    let extracted = hmac(&[0; 32], &[&vector.session.session_key]);
    let root = key(&expand(&extracted, &[&label("root"), &session_id, &vector.session.sek_public], 32));
    let response = hmac(&[0; 32], &[&vector.response_key]);
    Schedule {
        token: key(&expand(&root, &[&label("token"), jti.as_bytes()], 32)),
        privilege: key(&expand(&root, &[&label("privilege"), &vector.policy_epoch.to_be_bytes()], 32)),
        channel: expand(&response, &[&label("channel"), &session_id], 76),
    }
}

fn header(vector: &Vector) -> Vec<u8> {
    let alg_id = match vector.session.suite {
        2 => 0xF2,
        3 => 0xF3,
        4 => 0xF4,
        other => panic!("suite {other}"),
    };
    [
        &[0x03, alg_id, 0x03, 0x00][..],
        &vector.session.session_id.as_u64().to_be_bytes(),
        &vector.iv,
        &vector.issued_at.to_be_bytes(),
        &vector.expires_at.to_be_bytes(),
        &vector.policy_epoch.to_be_bytes(),
        &Sha256::digest(&vector.scope.aud),
        Jti::from_random(vector.jti_random).as_bytes(),
        &[0, 0],
    ]
    .concat()
}

fn token(vector: &Vector, schedule: &Schedule) -> Vec<u8> {
    let aad = header(vector);
    let scope = bytes_from_hex(&vector.expected.scope_tlv).unwrap();
    let body = tlv(&[
        (1, &scope),
        (2, &hmac(&schedule.privilege, &[&scope])),
        (3, &vector.response_key),
        (4, &vector.session.mutual_auth),
        (5, &vector.session.verifier_secret),
    ]);
    let payload = Payload { msg: &body, aad: &aad };
    let sealed = if vector.session.suite == 3 {
        ChaCha20Poly1305::new((&schedule.token).into()).encrypt((&vector.iv).into(), payload)
    } else {
        aes_gcm::Aes256Gcm::new((&schedule.token).into()).encrypt((&vector.iv).into(), payload)
    }
    .unwrap();
    let (ciphertext, tag) = sealed.split_at(sealed.len() - 16);
    [&aad, tag, ciphertext].concat()
}

#[test]
fn a_second_implementation_from_the_documentation_agrees_byte_for_byte() {
    for vector in OWN.into_iter().flat_map(own_vectors) {
        let schedule = schedule(&vector);
        let expected = &vector.expected;
        assert_eq!(to_hex(&schedule.token), expected.token_encryption_key, "{}", vector.name);
        assert_eq!(to_hex(&schedule.privilege), expected.privilege_key, "{}", vector.name);
        let (request, rest) = schedule.channel.split_at(32);
        let (response, iv) = rest.split_at(32);
        assert_eq!(to_hex(request), expected.request_key, "{}", vector.name);
        assert_eq!(to_hex(response), expected.response_key, "{}", vector.name);
        assert_eq!(to_hex(iv), expected.response_iv, "{}", vector.name);
        assert_eq!(to_hex(&token(&vector, &schedule)), expected.token, "{}", vector.name);
    }
}

#[derive(Deserialize)]
struct AudienceVector {
    #[serde(with = "obol_token::text::hex_array")]
    session_secret: [u8; 32],
    session_id: SessionId,
    suite: u8,
    aud: String,
    expected: Value,
}

impl AudienceVector {
    fn compute(&self) -> Value {
        let keys = SessionSecret::from_bytes(self.session_secret).for_audience(
            Suite::from_number(self.suite).unwrap(),
            self.session_id,
            &Audience::new(self.aud.as_str()).unwrap(),
        );
        json!({
            "K_session": to_hex(keys.session_key.expose()),
            "verifier_secret": to_hex(keys.verifier_secret.expose()),
            "mutual_auth": to_hex(keys.mutual_auth.expose()),
        })
    }

    /// From the documentation.
    fn again(&self) -> Value {
        let info = [
            format!("obol-s{}-audience-v1", self.suite).as_bytes(),
            &self.session_id.as_u64().to_be_bytes(),
            &Sha256::digest(&self.aud),
        ]
        .concat();
        let keys = expand(&hmac(&[0; 32], &[&self.session_secret]), &[&info], 96);
        json!({
            "K_session": to_hex(&keys[..32]),
            "verifier_secret": to_hex(&keys[32..64]),
            "mutual_auth": to_hex(&keys[64..]),
        })
    }
}

#[test]
fn the_keys_of_an_audience_are_the_documented_ones() {
    const NAME: &str = "audience-keys.json";
    let read = || -> Vec<AudienceVector> {
        serde_json::from_str(&std::fs::read_to_string(vectors_path(NAME)).unwrap()).unwrap()
    };
    if blessing() {
        bless(NAME, &read(), AudienceVector::compute);
    }
    let vectors = read();
    assert!(vectors.len() >= Suite::ALL.len());
    for vector in vectors {
        assert_eq!(vector.compute(), vector.expected, "{} in suite {}", vector.aud, vector.suite);
        assert_eq!(vector.again(), vector.expected, "{} in suite {}", vector.aud, vector.suite);
    }
}

fn minted(material: &SessionMaterial, number: u8, scope: &Value) -> Vec<u8> {
    let seed = TokenSeed {
        jti: Jti::from_random([number; 16]),
        iv: [number; 12],
        response_key: ResponseKey::from_bytes([number; 32]),
        nonce: None,
    };
    let validity = Validity { issued_at: NOW, expires_at: NOW + 60 };
    let minted = Minter::new(material, &parsed(scope), 1).unwrap().mint(validity, &[seed]).unwrap();
    minted.into_iter().next().unwrap()
}

fn server(suite: Suite) -> Server {
    Server::with_session(session_of(suite), |builder| builder)
}

fn present(server: &Server, token: &[u8]) -> (&'static str, &'static str) {
    names(Unverified::from_bytes(token.to_vec()).and_then(|token| {
        let verified = token.verify(&server.verifier, &reading())?;
        verified.spend().wait()
    }))
}

const FRAMING: (&str, &str) = ("MALFORMED_TOKEN", "FRAMING_CHECK");

#[test]
fn a_token_of_every_suite_is_accepted_once() {
    for suite in Suite::ALL {
        let server = server(suite);
        let token = minted(&KEYS.in_suite(suite).material(), 1, &scope_json());
        assert_eq!(token.len(), header_bytes(suite) + body_bytes(), "suite {suite}");
        assert_eq!(present(&server, &token), ("ok", "ok"), "suite {suite}");
        assert_eq!(present(&server, &token), ("TOKEN_REPLAYED", "REPLAY_CONSUME"), "suite {suite}");
    }
}

/// As documented: 64 bytes of signature are left out.
fn header_bytes(suite: Suite) -> usize {
    if suite == Suite::Tbac { 184 } else { 120 }
}

fn body_bytes() -> usize {
    let field = [0; 32];
    tlv(&[(1, &parsed(&scope_json()).to_tlv().unwrap()), (2, &field), (3, &field), (4, &field), (5, &field)])
        .len()
}

#[test]
fn a_token_of_another_suite_is_refused_whatever_its_header_says() {
    for minting in Suite::ALL {
        for verifying in Suite::ALL.into_iter().filter(|verifying| *verifying != minting) {
            let server = server(verifying);
            let mut token = minted(&KEYS.in_suite(minting).material(), 1, &scope_json());
            assert_eq!(present(&server, &token), FRAMING, "{minting} to {verifying}");
            // The header can be changed by anyone; what it covers and the keys do not follow.
            token[1] = verifying.alg_id();
            let (code, _) = present(&server, &token);
            let refused = ["INVALID_SIGNATURE", "DECRYPTION_FAILED", "MALFORMED_TOKEN"].contains(&code);
            assert!(refused, "{minting} renamed to {verifying}: {code}");
        }
    }
}

#[test]
fn the_suite_is_asked_for_after_the_session_and_before_everything_else() {
    let token = minted(&KEYS.in_suite(Suite::AesGcm).material(), 1, &scope_json());
    let signed = server(Suite::Tbac);
    let mut elsewhere = token.clone();
    elsewhere[4] ^= 1;
    assert_eq!(present(&signed, &elsewhere), ("SESSION_NOT_FOUND", "SESSION_LOOKUP"));
    signed.clock.set(NOW + 100_000);
    assert_eq!(present(&signed, &token), FRAMING, "not STALE_TIMESTAMP");
    signed.sessions.revoke(SESSION);
    assert_eq!(present(&signed, &token), FRAMING, "not SESSION_EXPIRED");
    let own = server(Suite::AesGcm);
    own.sessions.revoke(SESSION);
    assert_eq!(present(&own, &token), ("SESSION_EXPIRED", "SESSION_VALIDITY"));
}

/// Counts what the cascade asks it.
#[derive(Debug)]
struct Watched {
    inner: MemorySpentSet,
    asked: core::sync::atomic::AtomicUsize,
}

impl Watched {
    fn asked(&self) -> usize {
        self.asked.load(core::sync::atomic::Ordering::SeqCst)
    }

    fn note(&self) {
        self.asked.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
    }
}

impl SpentSet for Watched {
    fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError> {
        self.note();
        self.inner.is_spent(mark)
    }

    fn spend_with(&self, mark: Mark, with: Option<Mark>) -> SpendTicket {
        self.note();
        self.inner.spend_with(mark, with)
    }

    fn fence(&self) -> Option<u64> {
        self.inner.fence()
    }

    fn keep_after_expiry(&self) -> u64 {
        self.inner.keep_after_expiry()
    }

    fn health(&self) -> Result<(), SpendError> {
        self.inner.health()
    }

    fn marks(&self) -> Option<usize> {
        self.inner.marks()
    }
}

fn watched(suite: Suite) -> (Server, Arc<Watched>) {
    let clock = Arc::new(ManualClock::new(NOW));
    let inner = MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<_>, 60);
    let spent = Arc::new(Watched { inner, asked: 0.into() });
    let server =
        Server::with_spent_set(session_of(suite), clock, Arc::clone(&spent) as Arc<_>, |builder| builder);
    (server, spent)
}

#[test]
fn every_flipped_bit_is_refused_before_the_spent_set_is_asked() {
    for suite in OWN {
        let (server, spent) = watched(suite);
        let token = minted(&KEYS.in_suite(suite).material(), 1, &scope_json());
        for bit in 0..token.len() * 8 {
            let mut forged = token.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(present(&server, &forged).0, "ok", "suite {suite}, bit {bit}");
        }
        for cut in 1..token.len() {
            assert_ne!(present(&server, &token[..cut]).0, "ok", "suite {suite}, cut to {cut}");
        }
        assert_ne!(present(&server, &[&token[..], &[0]].concat()).0, "ok");
        assert_eq!((spent.asked(), spent.marks()), (0, Some(0)), "suite {suite}");
        assert_eq!(present(&server, &token), ("ok", "ok"), "a refusal burned it: suite {suite}");
    }
}

#[test]
fn tokens_open_in_their_own_session_alone() {
    for suite in OWN {
        let token = minted(&KEYS.in_suite(suite).material(), 1, &scope_json());
        let with = |change: fn(&mut [[u8; 32]; 4])| {
            let mut keys = [KEYS.session_key, KEYS.verifier_secret, KEYS.mutual_auth, KEYS.sek_public];
            change(&mut keys);
            let [session_key, verifier_secret, mutual_auth, sek_public] = keys;
            let material = SessionMaterial::new(
                SESSION,
                suite,
                SessionKey::from_bytes(session_key),
                VerifierSecret::from_bytes(verifier_secret),
                MutualAuth::from_bytes(mutual_auth),
                sek_public,
            );
            let session = Session::new(material, Audience::new(AUDIENCE).unwrap(), ORG);
            present(&Server::with_session(session, |builder| builder), &token).0
        };
        assert_eq!(with(|_| {}), "ok", "suite {suite}");
        assert_eq!(with(|keys| keys[0][0] ^= 1), "DECRYPTION_FAILED", "suite {suite}");
        assert_eq!(with(|keys| keys[1][0] ^= 1), "VERIFIER_SECRET_MISMATCH", "suite {suite}");
        assert_eq!(with(|keys| keys[2][0] ^= 1), "MUTUAL_AUTH_MISMATCH", "suite {suite}");
        assert_eq!(with(|keys| keys[3][0] ^= 1), "DECRYPTION_FAILED", "suite {suite}");
    }
}

#[test]
fn the_same_scope_rules_hold_in_every_suite() {
    for suite in Suite::ALL {
        let server = server(suite);
        let material = KEYS.in_suite(suite).material();
        let cases = [
            (json!({"tool": "pay"}), ("INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION")),
            (json!({"org_id": "other"}), ("ORG_ID_MISMATCH", "ORG_ID_VALIDATION")),
            (json!({"resource": "private/**"}), ("INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION")),
            (json!({"require_pop": true}), ("POP_REQUIRED", "POP_MISSING")),
            (
                json!({"constraints": {"require_channel_encryption": true}}),
                ("CHANNEL_ENCRYPTION_REQUIRED", "CHANNEL_ENCRYPTION_MISSING"),
            ),
        ];
        for (number, (fields, refusal)) in (1..).zip(cases) {
            let token = minted(&material, number, &scope_with(fields));
            assert_eq!(present(&server, &token), refusal, "suite {suite}");
        }
    }
}
