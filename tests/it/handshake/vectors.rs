//! Known answers of the handshake, `tests/vectors/handshake-suite*.json`, for this implementation and the second one.

use obol_handshake::{
    AuthoritySecret, CookieRing, Header, IdentityKey, Initiator, Pending, Prologue, Proof, Purpose, Random,
    Responder, SekKey, SuiteOffer, reply,
};
use obol_token::Suite;
use obol_token::text::{bytes_from_hex, to_hex};
use serde::{Deserialize, Serialize};

use super::second::{self, Inputs, Outcome};
use super::{NOW, Seeded};
use crate::token::known_answers::{bless, blessing, vectors_path};

#[derive(Deserialize)]
struct Vector {
    suite: u8,
    purpose: u8,
    /// One bit for each suite, the lowest for suite 1.
    offer: u8,
    origin: String,
    authority_private: String,
    identity_private: String,
    initiator_ephemeral: String,
    responder_ephemeral: String,
    /// d, then z of FIPS 203. In suites 1 to 3 not used.
    kem_seed: String,
    /// m of FIPS 203.
    kem_message: String,
    reply_payload: String,
    proof_payload: String,
    sek_private: String,
    /// Reduced to the nonce of the proof.
    sek_nonce_seed: String,
    expected: Expected,
}

#[derive(Deserialize, Serialize, PartialEq, Debug, Default)]
#[serde(default)]
struct Expected {
    authority_public: String,
    subject: String,
    hello: String,
    reply: String,
    proof: String,
    handshake_hash: String,
    session_secret: String,
    chain: String,
    first_empty_message_to_service: String,
    first_empty_message_to_client: String,
    sek_public: String,
    sek_proof: String,
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    bytes_from_hex(hex).unwrap().try_into().unwrap()
}

/// Exactly the bytes of a vector, one piece for each call.
struct Scripted(Vec<Vec<u8>>);

impl Random for Scripted {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.remove(0));
    }
}

fn vectors(suite: Suite) -> Vec<Vector> {
    let path = vectors_path(&format!("handshake-suite{suite}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Vector {
    fn inputs(&self) -> Inputs {
        Inputs {
            suite: self.suite,
            purpose: self.purpose,
            offer: self.offer,
            origin: self.origin.clone(),
            authority: bytes(&self.authority_private),
            identity: bytes(&self.identity_private),
            initiator_ephemeral: bytes(&self.initiator_ephemeral),
            responder_ephemeral: bytes(&self.responder_ephemeral),
            kem_seed: bytes(&self.kem_seed),
            kem_message: bytes(&self.kem_message),
            reply_payload: bytes_from_hex(&self.reply_payload).unwrap(),
            proof_payload: bytes_from_hex(&self.proof_payload).unwrap(),
        }
    }

    fn header(&self, service: &AuthoritySecret) -> Header {
        let suites: Vec<Suite> =
            Suite::ALL.into_iter().filter(|suite| self.offer >> (suite.number() - 1) & 1 == 1).collect();
        Header {
            purpose: Purpose::from_number(self.purpose).unwrap(),
            suite: Suite::from_number(self.suite).unwrap(),
            offer: SuiteOffer::of(&suites),
            authority_key: service.key().id(),
        }
    }

    /// The handshake by the crate.
    fn compute(&self) -> Expected {
        let service = AuthoritySecret::from_bytes(&bytes(&self.authority_private));
        let identity = IdentityKey::from_bytes(&bytes(&self.identity_private));
        let sek = SekKey::from_bytes(&bytes(&self.sek_private)).unwrap();
        let raw = |hex: &str| bytes_from_hex(hex).unwrap();
        let header = self.header(&service);

        let prologue = Prologue::new(header, &self.origin).unwrap();
        let mut client_rng = Scripted(vec![raw(&self.initiator_ephemeral), raw(&self.kem_seed)]);
        let (waiting, hello) = Initiator::start(&prologue, &service.key(), &mut client_rng).unwrap();
        let mut server_rng = Scripted(vec![raw(&self.responder_ephemeral), raw(&self.kem_message)]);
        let (pending, message) =
            Responder::accept(&self.origin, &service, &hello, &raw(&self.reply_payload), &mut server_rng)
                .unwrap();
        let ring = CookieRing::new(NOW, &mut Seeded(1));
        let cookie = pending.seal(&ring, NOW, &mut Seeded(2));
        let (ready, _) = waiting.read(&reply(&cookie, &message).unwrap()).unwrap();
        let sek_proof = sek.prove(&ready.hash(), &mut Scripted(vec![raw(&self.sek_nonce_seed)]));
        let (mut client, proof) = ready.prove(&identity, &raw(&self.proof_payload)).unwrap();
        let proof = Proof::read(&proof).unwrap();
        let pending = Pending::open(proof.cookie, header.purpose, &ring, NOW).unwrap();
        let mut server = pending.finish(proof.message).unwrap().established;
        assert_eq!(client.secret.expose(), server.secret.expose());

        Expected {
            authority_public: to_hex(&service.key().0),
            subject: identity.public().subject(),
            hello: to_hex(&hello),
            reply: to_hex(&message),
            proof: to_hex(proof.message),
            handshake_hash: to_hex(&client.hash.0),
            session_secret: to_hex(client.secret.expose()),
            chain: to_hex(client.chain.expose()),
            first_empty_message_to_service: to_hex(&client.send.seal(b"").unwrap()),
            first_empty_message_to_client: to_hex(&server.send.seal(b"").unwrap()),
            sek_public: to_hex(&sek.public().0),
            sek_proof: to_hex(&sek_proof),
        }
    }
}

#[test]
fn own_handshakes_are_reproduced() {
    for suite in Suite::ALL {
        let vectors = vectors(suite);
        if blessing() {
            let name = format!("handshake-suite{suite}.json");
            bless(&name, &vectors, |vector| serde_json::to_value(vector.compute()).unwrap());
            continue;
        }
        assert!(vectors.len() >= 2, "suite {suite}");
        for vector in vectors {
            assert_eq!(vector.suite, suite.number());
            assert_eq!(vector.compute(), vector.expected);
        }
    }
}

#[test]
fn a_second_implementation_reaches_the_same_messages_and_secrets() {
    for suite in Suite::ALL {
        for vector in vectors(suite) {
            let Outcome { hello, reply, proof, hash, secret, chain, to_service, to_client } =
                second::handshake(&vector.inputs());
            let expected = &vector.expected;
            for (what, ours, theirs) in [
                ("hello", &expected.hello, to_hex(&hello)),
                ("reply", &expected.reply, to_hex(&reply)),
                ("proof", &expected.proof, to_hex(&proof)),
                ("hash", &expected.handshake_hash, to_hex(&hash)),
                ("secret", &expected.session_secret, to_hex(&secret)),
                ("chain", &expected.chain, to_hex(&chain)),
                ("to the service", &expected.first_empty_message_to_service, to_hex(&to_service)),
                ("to the client", &expected.first_empty_message_to_client, to_hex(&to_client)),
            ] {
                assert_eq!(*ours, theirs, "suite {suite}: {what}");
            }
        }
    }
}
