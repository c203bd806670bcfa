//! Obol's handshake against snow, another implementation of the Noise framework: every message that one writes, the
//! other must read, in both directions, and both must end with the same transcript and transport keys. Then the
//! service's side of both is timed, in turns, on one core.
//!
//! snow parses no name with ML-KEM-768, so this holds for suites 1 to 3; suite 4 has known answers and a second
//! implementation in `tests/it/handshake`.

use std::time::Instant;

use obol_benches::rows::{self, Row, Unit};
use obol_handshake::{
    AuthoritySecret, CookieRing, Header, IdentityKey, Initiator, SuiteOffer, Pending, Prologue, Proof, Purpose,
    Random, Responder, reply,
};
use obol_token::Suite;

const ORIGIN: &str = "https://as.example";
const NOW: u64 = 1_767_225_600;
const SAMPLES: usize = 3_000;

struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("randomness");
    }
}

struct World {
    suite: Suite,
    service: AuthoritySecret,
    service_private: [u8; 32],
    agent: IdentityKey,
    header: Header,
}

impl World {
    fn new(suite: Suite) -> Self {
        let mut service_private = [0; 32];
        System.fill(&mut service_private);
        let service = AuthoritySecret::from_bytes(&service_private);
        let header = Header {
            purpose: Purpose::Session,
            suite,
            offer: SuiteOffer::of(&Suite::ALL),
            authority_key: service.key().id(),
        };
        Self { suite, service, service_private, agent: IdentityKey::generate(&mut System), header }
    }

    /// As `docs/handshake.md` has it, written once more.
    fn prologue(&self) -> Vec<u8> {
        let length = u16::try_from(ORIGIN.len()).expect("short").to_be_bytes();
        [b"obol-handshake-v1\0", &self.header.to_bytes()[..], &length, ORIGIN.as_bytes()].concat()
    }

    fn snow(&self, private: &[u8; 32]) -> SnowBuilder {
        let name = match self.suite {
            Suite::ChaCha20Poly1305 => "Noise_XK_25519_ChaChaPoly_SHA256",
            _ => "Noise_XK_25519_AESGCM_SHA256",
        };
        SnowBuilder { name, prologue: self.prologue(), private: *private }
    }

    fn snow_service(&self) -> snow::HandshakeState {
        self.snow(&self.service_private).build(None)
    }

    fn snow_agent(&self) -> snow::HandshakeState {
        self.snow(self.agent.expose()).build(Some(&self.service.key().0))
    }
}

struct SnowBuilder {
    name: &'static str,
    prologue: Vec<u8>,
    private: [u8; 32],
}

impl SnowBuilder {
    fn build(&self, remote: Option<&[u8; 32]>) -> snow::HandshakeState {
        let builder = snow::Builder::new(self.name.parse().expect("a name snow knows"))
            .prologue(&self.prologue)
            .and_then(|builder| builder.local_private_key(&self.private))
            .expect("good parameters");
        match remote {
            Some(key) => builder.remote_public_key(key).and_then(snow::Builder::build_initiator),
            None => builder.build_responder(),
        }
        .expect("a state")
    }
}

fn write(state: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 65_535];
    let length = state.write_message(payload, &mut out).expect("snow writes");
    out.truncate(length);
    out
}

fn read(state: &mut snow::HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 65_535];
    let length = state.read_message(message, &mut out).expect("snow reads what Obol wrote");
    out.truncate(length);
    out
}

/// An agent of ours and a service of snow's.
fn ours_to_snow(world: &World) {
    let mut service = world.snow_service();
    let prologue = Prologue::new(world.header, ORIGIN).expect("good");
    let (waiting, hello) = Initiator::start(&prologue, &world.service.key(), &mut System).expect("starts");
    assert_eq!(read(&mut service, &hello[Header::BYTES..]), b"");
    let second = write(&mut service, b"from the service");
    let (ready, payload) = waiting.read(&reply(b"", &second).expect("short")).expect("Obol reads snow");
    assert_eq!(payload.as_slice(), b"from the service");
    let (mut established, proof) = ready.prove(&world.agent, b"from the agent").expect("proves");
    assert_eq!(read(&mut service, Proof::read(&proof).expect("framed").message), b"from the agent");
    assert_eq!(service.get_remote_static(), Some(&world.agent.public().0[..]));
    assert_eq!(service.get_handshake_hash(), established.hash.0);

    let mut transport = service.into_transport_mode().expect("finished");
    let mut out = vec![0; 65_535];
    let sealed = established.send.seal(b"up").expect("seals");
    let length = transport.read_message(&sealed, &mut out).expect("snow opens");
    assert_eq!(&out[..length], b"up");
    let length = transport.write_message(b"down", &mut out).expect("snow seals");
    assert_eq!(established.receive.open(&out[..length]).expect("Obol opens").as_slice(), b"down");
}

/// An agent of snow's and a service of ours.
fn snow_to_ours(world: &World) {
    let mut agent = world.snow_agent();
    let ring = CookieRing::new(NOW, &mut System);
    let first = write(&mut agent, b"");
    let hello = [&world.header.to_bytes()[..], &first].concat();
    let (pending, second) =
        Responder::accept(ORIGIN, &world.service, &hello, b"from the service", &mut System)
            .expect("Obol reads snow");
    let cookie = pending.seal(&ring, NOW, &mut System);
    assert_eq!(read(&mut agent, &second), b"from the service");
    let third = write(&mut agent, b"from the agent");
    let pending = Pending::open(&cookie, Purpose::Session, &ring, NOW).expect("the cookie opens");
    let proven = pending.finish(&third).expect("Obol reads snow");
    assert_eq!(proven.payload.as_slice(), b"from the agent");
    assert_eq!(proven.identity, world.agent.public());
    assert_eq!(agent.get_handshake_hash(), proven.established.hash.0);
}

fn ours(world: &World, ring: &CookieRing) -> f64 {
    let prologue = Prologue::new(world.header, ORIGIN).expect("good");
    let (waiting, hello) = Initiator::start(&prologue, &world.service.key(), &mut System).expect("starts");
    let begin = Instant::now();
    let (pending, second) =
        Responder::accept(ORIGIN, &world.service, &hello, b"{}", &mut System).expect("reads");
    let answer = reply(&pending.seal(ring, NOW, &mut System), &second).expect("short");
    let first = begin.elapsed().as_nanos() as f64;
    let (_, proof) =
        waiting.read(&answer).and_then(|(ready, _)| ready.prove(&world.agent, b"{}")).expect("proves");
    let begin = Instant::now();
    let proof = Proof::read(&proof).expect("framed");
    let pending = Pending::open(proof.cookie, Purpose::Session, ring, NOW).expect("opens");
    pending.finish(proof.message).expect("finishes");
    first + begin.elapsed().as_nanos() as f64
}

fn snows(world: &World) -> f64 {
    let mut agent = world.snow_agent();
    let first = write(&mut agent, b"");
    let mut out = vec![0; 1_024];
    let begin = Instant::now();
    let mut service = world.snow_service();
    service.read_message(&first, &mut out).expect("reads");
    let length = service.write_message(b"{}", &mut out).expect("writes");
    let spent = begin.elapsed().as_nanos() as f64;
    read(&mut agent, &out[..length]);
    let third = write(&mut agent, b"{}");
    let begin = Instant::now();
    service.read_message(&third, &mut out).expect("reads");
    spent + begin.elapsed().as_nanos() as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    rows::begin();
    for suite in [Suite::Tbac, Suite::AesGcm, Suite::ChaCha20Poly1305] {
        let world = World::new(suite);
        for _ in 0..20 {
            ours_to_snow(&world);
            snow_to_ours(&world);
        }
        println!("suite {suite}: Obol and snow agree, in both directions");
    }
    let world = World::new(Suite::Tbac);
    let ring = CookieRing::new(NOW, &mut System);
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        mine.push(ours(&world, &ring));
        theirs.push(snows(&world));
    }
    let row = Row::new(
        "handshake_peers",
        "the service's side, suite 1, with a cookie, p50",
        Unit::Nanoseconds,
        median(mine),
    )
    .beside("snow, with its state in memory", median(theirs));
    println!("{:<48} {:>12.0}  ratio {:.2}", row.what, row.measured, row.ratio().unwrap_or_default());
    row.record();
}
