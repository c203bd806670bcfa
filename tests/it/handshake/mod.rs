//! The handshake between agent and Authentication Service: both sides agree, nothing that was changed, moved or made by
//! somebody else goes on, and a second implementation reaches the same secrets.

mod second;
mod vectors;

use obol_handshake::{
    AuthorityKey, AuthoritySecret, CookieError, CookieRing, Established, HandshakeError, Header, IdentityKey,
    Initiator, MAX_MESSAGE_BYTES, Pending, Prologue, Proof, Proven, Purpose, Random, Responder, SekKey,
    SuiteOffer, hello_bytes, open_answer, reply, reply_overhead_bytes, seal_answer, verify_sek_proof,
};
use obol_token::Suite;
use sha2::{Digest, Sha256};

const ORIGIN: &str = "https://as.example";
const NOW: u64 = 1_767_225_600;

/// Bytes that differ in every call and are the same in every run.
struct Seeded(u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            self.0 += 1;
            let length = chunk.len();
            chunk.copy_from_slice(&Sha256::digest(self.0.to_be_bytes())[..length]);
        }
    }
}

/// A service and an agent that know each other.
struct Both {
    service: AuthoritySecret,
    agent: IdentityKey,
    ring: CookieRing,
    rng: Seeded,
}

/// The three messages of one handshake, as they go over the wire, and what both ends have after it.
struct Run {
    hello: Vec<u8>,
    reply: Vec<u8>,
    proof: Vec<u8>,
    client: Established,
    server: Proven,
}

impl Both {
    fn new() -> Self {
        let mut rng = Seeded(0);
        Self {
            service: AuthoritySecret::generate(&mut rng),
            agent: IdentityKey::generate(&mut rng),
            ring: CookieRing::new(NOW, &mut rng),
            rng,
        }
    }

    fn header(&self, suite: Suite, purpose: Purpose) -> Header {
        Header { purpose, suite, offer: SuiteOffer::of(&Suite::ALL), authority_key: self.service.key().id() }
    }

    /// The service's part of message B, at its own origin.
    fn answer(&mut self, hello: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (pending, message) =
            Responder::accept(ORIGIN, &self.service, hello, b"the service", &mut self.rng)?;
        reply(&pending.seal(&self.ring, NOW, &mut self.rng), &message)
    }

    /// The service's part of message C, on the route of `purpose`.
    fn finish(&self, purpose: Purpose, proof: &[u8]) -> Result<Proven, Refused> {
        let proof = Proof::read(proof).map_err(Refused::Handshake)?;
        let pending = Pending::open(proof.cookie, purpose, &self.ring, NOW).map_err(Refused::Cookie)?;
        pending.finish(proof.message).map_err(Refused::Handshake)
    }

    fn run(&mut self, suite: Suite, purpose: Purpose) -> Run {
        let prologue = Prologue::new(self.header(suite, purpose), ORIGIN).unwrap();
        let (waiting, hello) = Initiator::start(&prologue, &self.service.key(), &mut self.rng).unwrap();
        let reply = self.answer(&hello).unwrap();
        let (ready, payload) = waiting.read(&reply).unwrap();
        assert_eq!(payload.as_slice(), b"the service");
        let (client, proof) = ready.prove(&self.agent, b"the agent").unwrap();
        let server = self.finish(purpose, &proof).unwrap();
        Run { hello, reply, proof, client, server }
    }
}

#[derive(Debug, PartialEq)]
enum Refused {
    Handshake(HandshakeError),
    Cookie(CookieError),
}

#[test]
fn both_sides_end_with_the_same_secrets_in_every_suite_and_for_every_purpose() {
    let mut both = Both::new();
    let mut hashes = std::collections::BTreeSet::new();
    for suite in Suite::ALL {
        for purpose in Purpose::ALL {
            let Run { hello, reply, client, server, .. } = both.run(suite, purpose);
            assert_eq!(hello.len(), hello_bytes(suite));
            assert!(reply.len() > reply_overhead_bytes(suite));
            assert_eq!(server.payload.as_slice(), b"the agent");
            assert_eq!(server.identity, both.agent.public());
            assert_eq!(server.header, both.header(suite, purpose));
            let (mut client, mut server) = (client, server.established);
            assert_eq!(client.hash, server.hash);
            assert_eq!(client.secret.expose(), server.secret.expose());
            assert_eq!(client.chain.expose(), server.chain.expose());
            assert_ne!(client.secret.expose(), client.chain.expose());
            assert!(hashes.insert(client.hash.0), "every handshake has a transcript of its own");

            let answer = seal_answer(&mut server.send, b"a session").unwrap();
            assert_eq!(open_answer(&mut client.receive, &answer, 100).unwrap().as_slice(), b"a session");
            let ack = client.send.seal(b"ack").unwrap();
            assert_eq!(server.receive.open(&ack).unwrap().as_slice(), b"ack");
            assert!(server.receive.open(&ack).is_err(), "a repeated message does not open");
        }
    }
}

#[test]
fn messages_have_the_sizes_of_the_pattern() {
    assert_eq!([hello_bytes(Suite::AesGcm), hello_bytes(Suite::HybridAesGcm)], [12 + 48, 12 + 1_248]);
    assert_eq!([reply_overhead_bytes(Suite::Tbac), reply_overhead_bytes(Suite::HybridAesGcm)], [48, 1_152]);
}

/// `message` with one bit turned, for every bit.
fn flips(message: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..message.len() * 8).map(|bit| {
        let mut other = message.to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        (bit, other)
    })
}

#[test]
fn a_first_message_with_any_bit_turned_is_refused() {
    let mut both = Both::new();
    for suite in [Suite::Tbac, Suite::ChaCha20Poly1305, Suite::HybridAesGcm] {
        let hello = both.run(suite, Purpose::Session).hello;
        for (bit, other) in flips(&hello) {
            assert!(both.answer(&other).is_err(), "suite {suite}, bit {bit}");
        }
        assert!(both.answer(&hello).is_ok(), "control: unchanged");
    }
}

#[test]
fn a_second_message_with_any_bit_turned_ends_the_handshake() {
    let mut both = Both::new();
    for suite in [Suite::Tbac, Suite::ChaCha20Poly1305, Suite::HybridAesGcm] {
        let prologue = Prologue::new(both.header(suite, Purpose::Session), ORIGIN).unwrap();
        let key = both.service.key();
        let seed = both.rng.0;
        let (_, hello) = Initiator::start(&prologue, &key, &mut Seeded(seed)).unwrap();
        let reply = both.answer(&hello).unwrap();
        let cookie = 3..3 + obol_handshake::COOKIE_BYTES;
        // The client cannot see the cookie's bits, and a turned one costs a decapsulation to find: every bit without
        // the ML-KEM ciphertext's middle, which one tag covers as a whole.
        let step = if suite == Suite::HybridAesGcm { 13 } else { 1 };
        for (bit, other) in flips(&reply).step_by(step).chain(core::iter::once((usize::MAX, reply.clone()))) {
            let (waiting, _) = Initiator::start(&prologue, &key, &mut Seeded(seed)).unwrap();
            let proof = waiting.read(&other).and_then(|(ready, _)| ready.prove(&both.agent, b""));
            let ended = match proof {
                Err(_) => true,
                // Only the cookie, which the service sees again.
                Ok((_, proof)) if cookie.contains(&(bit / 8)) => {
                    both.finish(Purpose::Session, &proof).is_err()
                }
                Ok(_) => false,
            };
            assert_eq!(ended, bit != usize::MAX, "suite {suite}, bit {bit}");
        }
    }
}

#[test]
fn a_third_message_with_any_bit_turned_is_refused() {
    let mut both = Both::new();
    for suite in Suite::ALL {
        let proof = both.run(suite, Purpose::Register).proof;
        for (bit, other) in flips(&proof) {
            assert!(both.finish(Purpose::Register, &other).is_err(), "suite {suite}, bit {bit}");
        }
        assert!(both.finish(Purpose::Register, &proof).is_ok(), "control: unchanged");
    }
}

#[test]
fn messages_that_are_cut_or_too_long_are_refused() {
    let mut both = Both::new();
    let Run { hello, proof, .. } = both.run(Suite::HybridAesGcm, Purpose::Session);
    for length in 0..hello.len() {
        assert!(both.answer(&hello[..length]).is_err(), "{length}");
    }
    for length in 0..proof.len() {
        assert!(both.finish(Purpose::Session, &proof[..length]).is_err(), "{length}");
    }
    assert_eq!(both.answer(&[&hello[..], &[0]].concat()).unwrap_err(), HandshakeError::Length);
    let long = [&proof[..], &vec![0; MAX_MESSAGE_BYTES]].concat();
    assert_eq!(both.finish(Purpose::Session, &long).unwrap_err(), Refused::Handshake(HandshakeError::Length));
}

#[test]
fn a_proof_for_one_purpose_is_refused_on_every_other_route() {
    let mut both = Both::new();
    for purpose in Purpose::ALL {
        let proof = both.run(Suite::AesGcm, purpose).proof;
        for route in Purpose::ALL.into_iter().filter(|route| *route != purpose) {
            let refused = both.finish(route, &proof).unwrap_err();
            assert_eq!(refused, Refused::Cookie(CookieError::Forged), "{purpose:?} at {route:?}");
        }
    }
}

#[test]
fn a_changed_offer_ends_the_handshake_at_the_first_tag() {
    let mut both = Both::new();
    let hello = both.run(Suite::AesGcm, Purpose::Session).hello;
    // Somebody on the path takes suite 4 out of what the client offers.
    let mut stripped = hello.clone();
    stripped[3] &= 0b0111;
    assert_ne!(stripped, hello);
    assert_eq!(both.answer(&stripped).unwrap_err(), HandshakeError::Tag);
    // Control: had the client not hashed what it offers, but what arrives, nobody would notice.
    let unhashed =
        Header { offer: SuiteOffer::of(&Suite::ALL[..3]), ..both.header(Suite::AesGcm, Purpose::Session) };
    let prologue = Prologue::new(unhashed, ORIGIN).unwrap();
    let (_, mut hello) = Initiator::start(&prologue, &both.service.key(), &mut both.rng).unwrap();
    hello[3] = stripped[3];
    assert!(both.answer(&hello).is_ok(), "control: the offer is not part of the prologue");
}

#[test]
fn whoever_gets_both_long_lived_keys_later_reads_no_handshake_that_was_recorded() {
    for suite in Suite::ALL {
        let mut both = Both::new();
        let recorded = both.run(suite, Purpose::Session);
        let message = Proof::read(&recorded.proof).unwrap().message.to_vec();
        // The service's key, and a new life of the service: it answers the first message with keys of its own, and the third
        // belongs to others.
        for _ in 0..3 {
            let (pending, _) =
                Responder::accept(ORIGIN, &both.service, &recorded.hello, b"the service", &mut both.rng)
                    .unwrap();
            assert_eq!(pending.finish(&message).unwrap_err(), HandshakeError::Tag, "{suite:?}");
        }
        // The agent's key: what it would need is the ephemeral one of that moment.
        let prologue = Prologue::new(both.header(suite, Purpose::Session), ORIGIN).unwrap();
        let (waiting, _) = Initiator::start(&prologue, &both.service.key(), &mut both.rng).unwrap();
        assert_eq!(waiting.read(&recorded.reply).unwrap_err(), HandshakeError::Tag, "{suite:?}");
        // The cookie holds it, and its key is gone two turns later, or with the process.
        let opened = |ring: &CookieRing, now| {
            let proof = Proof::read(&recorded.proof).unwrap();
            Pending::open(proof.cookie, Purpose::Session, ring, now)
        };
        let kept = opened(&both.ring, NOW + 1).unwrap().finish(&message).unwrap();
        let secret = recorded.server.established.secret.expose();
        assert_eq!(kept.established.secret.expose(), secret, "control: with the cookie's key it is read");
        both.ring.turn(NOW + 60, &mut both.rng);
        both.ring.turn(NOW + 120, &mut both.rng);
        assert_eq!(opened(&both.ring, NOW + 1).unwrap_err(), CookieError::Expired, "whatever the clock says");
    }
}

#[test]
fn a_client_that_knows_the_service_by_another_name_or_key_is_refused() {
    let mut both = Both::new();
    let header = both.header(Suite::AesGcm, Purpose::Session);
    let elsewhere = Prologue::new(header, "https://as.example.org").unwrap();
    let (_, hello) = Initiator::start(&elsewhere, &both.service.key(), &mut both.rng).unwrap();
    assert_eq!(both.answer(&hello).unwrap_err(), HandshakeError::Tag);

    let other = AuthoritySecret::generate(&mut both.rng).key();
    let header = Header { authority_key: other.id(), ..header };
    let (_, hello) =
        Initiator::start(&Prologue::new(header, ORIGIN).unwrap(), &other, &mut both.rng).unwrap();
    assert_eq!(both.answer(&hello).unwrap_err(), HandshakeError::UnknownAuthorityKey);
}

#[test]
fn nobody_without_the_services_key_can_answer_for_it() {
    let mut both = Both::new();
    let prologue = Prologue::new(both.header(Suite::HybridAesGcm, Purpose::Session), ORIGIN).unwrap();
    let (waiting, hello) = Initiator::start(&prologue, &both.service.key(), &mut both.rng).unwrap();
    // An impostor with a key of its own, who says that it is the one the client means.
    struct Impostor(AuthoritySecret, AuthorityKey);
    impl obol_handshake::StaticAgreement for Impostor {
        fn public(&self, _: obol_handshake::KeyId) -> Option<AuthorityKey> {
            Some(self.1)
        }
        fn agree(
            &self,
            _: obol_handshake::KeyId,
            peer: &[u8; 32],
        ) -> Result<obol_handshake::SharedSecret, HandshakeError> {
            self.0.agree(self.0.key().id(), peer)
        }
    }
    let impostor = Impostor(AuthoritySecret::generate(&mut both.rng), both.service.key());
    let refused = Responder::accept(ORIGIN, &impostor, &hello, b"", &mut both.rng);
    assert_eq!(refused.unwrap_err(), HandshakeError::Tag, "it cannot even read the first message");
    // Nor does the recorded answer to somebody else serve.
    let recorded = both.run(Suite::HybridAesGcm, Purpose::Session).reply;
    assert_eq!(waiting.read(&recorded).unwrap_err(), HandshakeError::Tag);
}

#[test]
fn a_stolen_service_key_does_not_let_its_thief_play_an_agent_to_it() {
    // Key compromise impersonation: the thief knows the service's private half and the agent's public half.
    let mut both = Both::new();
    let prologue = Prologue::new(both.header(Suite::AesGcm, Purpose::Session), ORIGIN).unwrap();
    let (waiting, hello) = Initiator::start(&prologue, &both.service.key(), &mut both.rng).unwrap();
    let reply = both.answer(&hello).unwrap();
    let (ready, _) = waiting.read(&reply).unwrap();
    let thief = IdentityKey::generate(&mut both.rng);
    let (_, proof) = ready.prove(&thief, b"").unwrap();
    let proven = both.finish(Purpose::Session, &proof).unwrap();
    assert_ne!(proven.identity, both.agent.public(), "the thief is seen as who it is");
}

#[test]
fn low_order_points_are_refused_wherever_the_peer_can_place_one() {
    let mut both = Both::new();
    let mut hello = both.run(Suite::AesGcm, Purpose::Session).hello;
    hello[12..44].fill(0);
    assert_eq!(both.answer(&hello).unwrap_err(), HandshakeError::WeakKey);

    let header =
        Header { authority_key: AuthorityKey([0; 32]).id(), ..both.header(Suite::AesGcm, Purpose::Session) };
    let prologue = Prologue::new(header, ORIGIN).unwrap();
    let started = Initiator::start(&prologue, &AuthorityKey([0; 32]), &mut both.rng);
    assert_eq!(started.unwrap_err(), HandshakeError::WeakKey);
}

#[test]
fn a_cookie_is_good_for_half_a_minute_at_the_service_that_made_it() {
    let mut both = Both::new();
    let proof = both.run(Suite::HybridAesGcm, Purpose::Session).proof;
    let parts = Proof::read(&proof).unwrap();
    let open = |ring: &CookieRing, now| Pending::open(parts.cookie, Purpose::Session, ring, now);
    assert!(open(&both.ring, NOW + 30).is_ok());
    assert_eq!(open(&both.ring, NOW + 31).unwrap_err(), CookieError::Expired);
    let restarted = CookieRing::new(NOW, &mut Seeded(99));
    assert_eq!(open(&restarted, NOW).unwrap_err(), CookieError::Forged);
}

#[test]
fn the_proof_of_the_session_key_belongs_to_its_handshake() {
    let mut both = Both::new();
    let sek = SekKey::generate(&mut both.rng);
    let prologue = Prologue::new(both.header(Suite::Tbac, Purpose::Session), ORIGIN).unwrap();
    let prove = |both: &mut Both| {
        let (waiting, hello) = Initiator::start(&prologue, &both.service.key(), &mut both.rng).unwrap();
        let reply = both.answer(&hello).unwrap();
        let (ready, _) = waiting.read(&reply).unwrap();
        let sek_proof = sek.prove(&ready.hash(), &mut both.rng);
        let (_, proof) = ready.prove(&both.agent, b"").unwrap();
        (sek_proof, both.finish(Purpose::Session, &proof).unwrap())
    };
    let (first, proven) = prove(&mut both);
    let (second, other) = prove(&mut both);
    assert!(verify_sek_proof(&sek.public(), &proven.hash_before_proof, &first));
    assert!(verify_sek_proof(&sek.public(), &other.hash_before_proof, &second));
    assert!(!verify_sek_proof(&sek.public(), &other.hash_before_proof, &first));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let mut both = Both::new();
    let run = both.run(Suite::AesGcm, Purpose::Session);
    let text = format!("{:?} {:?} {:?}", run.client, run.server, both.ring);
    assert!(text.contains("[redacted]"), "{text}");
    for secret in [run.client.secret.expose(), run.client.chain.expose()] {
        assert!(!text.contains(&format!("{secret:?}")) && !text.contains(&obol_token::text::to_hex(secret)));
    }
}
