//! Handshakes that were really made, one for each suite, for the targets that try to get in with something else.

use std::sync::OnceLock;

use obol_handshake::{
    AuthoritySecret, AwaitsReply, CookieRing, Header, IdentityKey, Initiator, Prologue, Purpose, Random,
    Responder, SuiteOffer, reply,
};
use obol_token::Suite;
use sha2::{Digest, Sha256};

/// Where the service of this world is.
pub const ORIGIN: &str = "https://as.example";
/// When all of it happens, in Unix seconds.
pub const NOW: u64 = 1_767_225_600;

/// Bytes that differ in every call and are the same in every run.
pub struct Seeded(pub u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            self.0 += 1;
            let length = chunk.len();
            chunk.copy_from_slice(&Sha256::digest(self.0.to_be_bytes())[..length]);
        }
    }
}

/// The messages of one handshake.
pub struct Messages {
    /// Message A.
    pub hello: Vec<u8>,
    /// Message B.
    pub reply: Vec<u8>,
    /// Message C.
    pub proof: Vec<u8>,
    /// The cookie in B and C.
    pub cookie: Vec<u8>,
    /// The header of A.
    pub header: Header,
    /// What the client's randomness began with.
    seed: u64,
}

/// A service, and the handshakes that it took part in.
pub struct Genuine {
    /// The service's static key.
    pub service: AuthoritySecret,
    /// The service's cookie keys.
    pub ring: CookieRing,
    /// One handshake for each suite.
    pub messages: Vec<Messages>,
}

impl Genuine {
    /// The one world, made at first use.
    pub fn get() -> &'static Self {
        static GENUINE: OnceLock<Genuine> = OnceLock::new();
        GENUINE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let mut rng = Seeded(1_000_000);
        let service = AuthoritySecret::generate(&mut rng);
        let ring = CookieRing::new(NOW, &mut rng);
        let agent = IdentityKey::generate(&mut rng);
        let mut world = Self { service, ring, messages: Vec::new() };
        for (number, suite) in (0..).zip(Suite::ALL) {
            let header = Header {
                purpose: Purpose::Session,
                suite,
                offer: SuiteOffer::of(&Suite::ALL),
                authority_key: world.service.key().id(),
            };
            let seed = 10_000 * number;
            let (waiting, hello) = world.start(&header, seed);
            let (pending, message) =
                Responder::accept(ORIGIN, &world.service, &hello, b"{}", &mut rng).expect("a genuine hello");
            let cookie = pending.seal(&world.ring, NOW, &mut rng);
            let reply = reply(&cookie, &message).expect("short enough");
            let (ready, _) = waiting.read(&reply).expect("a genuine reply");
            let (_, proof) = ready.prove(&agent, b"{\"client\":\"x\"}").expect("short enough");
            world.messages.push(Messages { hello, reply, proof, cookie, header, seed });
        }
        world
    }

    fn start(&self, header: &Header, seed: u64) -> (AwaitsReply, Vec<u8>) {
        let prologue = Prologue::new(*header, ORIGIN).expect("a good prologue");
        Initiator::start(&prologue, &self.service.key(), &mut Seeded(seed)).expect("a good key")
    }

    /// The client of `messages`, as it was when it had sent its first.
    pub fn client(&self, messages: &Messages) -> AwaitsReply {
        self.start(&messages.header, messages.seed).0
    }
}
