//! The service without its sockets: what each message of a handshake and each request of an operator brings about, given a
//! directory, a decider, the time and random numbers.
//!
//! Nothing about a stranger is kept before the third message. Nothing is opened, approved or ended without a place in the
//! audit log, where there is one.

mod alarms;
mod audit;
mod calls;
mod following;
mod hear;
mod keys;
mod open;
mod operate;
mod payload;
mod people;
mod reach;
mod register;
mod remote;
mod small;
#[cfg(test)]
mod tests;

use core::fmt;
use std::sync::Arc;

use obol_audit::AuditLog;
use obol_handshake::{
    AuthorityKey, AuthoritySecret, CookieError, CookieRing, HandshakeError, Header, Pending, Proof, Proven,
    Purpose, Random, Responder, SekPublic, reply, seal_answer, verify_sek_proof,
};
use obol_probe::metrics::Audit;
use obol_session::clock::{Clock as _, SystemClock};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use self::alarms::Alarms;
use self::audit::Auditor;
pub use self::calls::AskedApproval;
pub(crate) use self::following::{Begun, HEARTBEAT_SECS, NotTaken, Started};
pub use self::following::{Copy, Sidecar};
pub use self::operate::{Holder, Invited, KillReport, Preview, Review};
pub use self::people::Confirmed;
pub(crate) use self::remote::Asked;
use crate::attest::Attestors;
use crate::decider::Decider;
use crate::directory::{ATTESTED, Answer, Carried, Directory, Handshake, Seal, Unavailable};
use crate::id::SystemRandom;
use crate::jws::KeyRing;
use crate::notices::Notices;
use crate::numbers::SessionNumbers;
use crate::refused::Refused;
use crate::remote::{Answers, Logins};
use crate::settings::Settings;
use crate::stream::Hub;

/// How often a handshake is decided anew because what it was decided by changed meanwhile.
const MAX_TRIES: usize = 4;

/// What a service is put together from.
#[derive(Debug)]
pub struct Parts {
    /// What an operator sets.
    pub settings: Settings,
    /// What must not be forgotten.
    pub directory: Arc<dyn Directory>,
    /// Who decides what is granted: by the policy that the directory says is in force.
    pub decider: Arc<dyn Decider>,
    /// The service's static key.
    pub key: AuthoritySecret,
    /// What codes are hashed under.
    pub code_key: [u8; 32],
    /// Where it is written what was done.
    pub audit: Option<Arc<AuditLog>>,
}

/// The service.
pub struct Authority {
    settings: Settings,
    directory: Arc<dyn Directory>,
    deciding: RwLock<Deciding>,
    key: AuthoritySecret,
    code_key: [u8; 32],
    ring: Mutex<CookieRing>,
    numbers: SessionNumbers,
    auditor: Auditor,
    alarms: Alarms,
    hub: Hub,
    /// Which life of the directory the events' numbers belong to.
    incarnation: [u8; 16],
    /// When this service was put together, in Unix seconds.
    began_at: u64,
    /// What it signs with for others, once that was needed.
    signing_keys: Mutex<Option<Arc<KeyRing>>>,
    notices: Notices,
    attestors: Attestors,
    logins: Logins,
    answers: Answers,
}

/// Who decides, and the policy epoch since which that is so: held together, so that nothing is decided by one policy and
/// opened under the epoch of another.
#[derive(Clone)]
struct Deciding {
    decider: Arc<dyn Decider>,
    epoch: u64,
}

/// When something happens: the edge reads the clock, once for each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds since 1970.
    pub ms: u64,
}

impl Now {
    /// What the machine's clock shows.
    pub fn read() -> Self {
        Self { ms: SystemClock::new().now_ms() }
    }

    /// Unix seconds.
    pub fn secs(self) -> u64 {
        self.ms / 1_000
    }
}

/// Why a message got no answer that the handshake protects. It is answered in clear, coarsely.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// It is not a message of a handshake with this service.
    Malformed(HandshakeError),
    /// It names a key that the service does not have.
    UnknownKey,
    /// It is of a suite that the service does not speak; these it does.
    Suite(Vec<u8>),
    /// The cookie is too old. Begin anew.
    CookieExpired,
    /// The cookie served another third message. Begin anew.
    Used,
    /// It cannot be done now. Ask again.
    Unavailable(Unavailable),
}

impl From<HandshakeError> for Rejected {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::UnknownAuthorityKey => Self::UnknownKey,
            error => Self::Malformed(error),
        }
    }
}

impl From<Unavailable> for Rejected {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

impl From<CookieError> for Rejected {
    fn from(error: CookieError) -> Self {
        match error {
            CookieError::Expired => Self::CookieExpired,
            CookieError::Forged => Self::Malformed(HandshakeError::Tag),
        }
    }
}

impl Authority {
    /// Puts a service together.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where the directory cannot be read.
    pub fn new(parts: Parts, now: Now) -> Result<Self, Unavailable> {
        let Parts { settings, directory, decider, key, code_key, audit } = parts;
        let numbers = SessionNumbers::above(directory.last_session()?, settings.node);
        let auditor = Auditor::new(audit);
        let ring = Mutex::new(CookieRing::new(now.secs(), &mut SystemRandom));
        let epoch = directory.policy()?.map_or(0, |policy| policy.epoch);
        let deciding = RwLock::new(Deciding { decider, epoch });
        let mut fresh = [0; 16];
        SystemRandom.fill(&mut fresh);
        let incarnation = directory.incarnation(fresh)?;
        let hub = Hub::new(directory.last_event()?);
        let began_at = now.secs();
        Ok(Self {
            settings,
            directory,
            deciding,
            key,
            code_key,
            ring,
            numbers,
            auditor,
            alarms: Alarms::default(),
            hub,
            incarnation,
            began_at,
            signing_keys: Mutex::default(),
            notices: Notices::default(),
            attestors: Attestors::default(),
            logins: Logins::default(),
            answers: Answers::default(),
        })
    }

    /// The static key that clients pin.
    pub fn key(&self) -> AuthorityKey {
        self.key.key()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The streams that are open.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// What is told to those who want to hear of alarms, and of what waits for a human.
    pub(crate) fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Who may say of an agent what a human would have to say otherwise.
    pub fn attestors(&self) -> &Attestors {
        &self.attestors
    }

    /// The directory.
    pub fn directory(&self) -> &dyn Directory {
        &*self.directory
    }

    /// The audit log, where there is one.
    pub(crate) fn audit_log(&self) -> Option<&AuditLog> {
        self.auditor.log()
    }

    /// Whether sessions can be opened and ended.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn health(&self) -> Result<(), String> {
        self.directory.health().map_err(|error| error.to_string())?;
        self.auditor.health()
    }

    /// Why sessions can be neither opened nor ended, if they cannot: `directory` or `audit_log`.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        if self.directory.health().is_err() {
            return Some("directory");
        }
        self.auditor.health().is_err().then_some("audit_log")
    }

    /// How the audit log is, where there is one.
    pub(crate) fn audit_seen(&self) -> Option<Audit> {
        self.audit_log().map(|log| {
            let totals = log.totals();
            Audit { is_suspended: log.health().is_err(), refused: totals.refused, dropped: totals.dropped }
        })
    }

    /// What is told to everybody at `/.well-known/obol-configuration`.
    pub fn configuration(&self) -> Value {
        json!({
            "issuer": self.settings.origin,
            "handshake": 1,
            "suites": payload::numbers(&self.settings.suites),
            "as_keys": [payload::key(&self.key())],
            "endpoints": {
                "handshake": "/v1/handshake",
                "session": "/v1/sessions",
                "register": "/v1/agents",
                "registration": "/v1/agents/registrations/{id}",
                "rotate_key": "/v1/agents/rotate",
                "deregister": "/v1/agents/deregister",
                "approvals": "/v1/approvals",
                "approval": "/v1/approvals/{id}",
                "join": "/v1/resource-servers",
                "agent_stream": "/v1/agents/stream",
                "resource_server_stream": "/v1/resource-servers/stream",
                "words": "/v1/stream/words",
                "login": "/v1/operators/login",
                "operate": "/v1/operators",
            },
            "stream": { "lease_sec": self.settings.lease_secs, "heartbeat_sec": HEARTBEAT_SECS },
            "registration": { "flows": self.flows() },
        })
    }

    fn flows(&self) -> Vec<&'static str> {
        let mut flows = vec!["local", "invite"];
        if !self.attestors.is_empty() {
            flows.push(ATTESTED);
        }
        if self.settings.has_pages {
            flows.extend(["loopback", "code"]);
        }
        flows
    }

    /// Answers message A with message B. Keeps nothing.
    ///
    /// # Errors
    ///
    /// [`Rejected`].
    pub fn accept(&self, hello: &[u8], now: Now) -> Result<Vec<u8>, Rejected> {
        let header = hello.first_chunk().ok_or(HandshakeError::Length)?;
        let header = Header::read(header)?;
        if !self.settings.suites.contains(&header.suite) {
            return Err(Rejected::Suite(payload::numbers(&self.settings.suites)));
        }
        let greeting = payload::greeting(self, now.secs());
        let rng = &mut SystemRandom;
        let (pending, message) = Responder::accept(&self.settings.origin, &self.key, hello, &greeting, rng)?;
        let cookie = {
            let mut ring = self.ring.lock();
            ring.turn(now.secs(), rng);
            pending.seal(&ring, now.secs(), rng)
        };
        Ok(reply(&cookie, &message)?)
    }

    /// Answers message C, on the route of `purpose`, with message D: the sealed answer. `source` is where it comes from.
    ///
    /// # Errors
    ///
    /// [`Rejected`].
    pub fn prove(&self, purpose: Purpose, proof: &[u8], source: &str, now: Now) -> Result<Vec<u8>, Rejected> {
        for _ in 0..MAX_TRIES {
            match self.carry_out(purpose, proof, source, now)? {
                Outcome::Answer(answer) => return Ok(answer),
                Outcome::Used => return Err(Rejected::Used),
                Outcome::Stale => {}
            }
        }
        Err(Rejected::Unavailable(Unavailable::new("what is granted changes too fast; ask again")))
    }

    fn carry_out(&self, purpose: Purpose, proof: &[u8], source: &str, now: Now) -> Result<Outcome, Rejected> {
        let proven = self.open_proof(purpose, proof, now)?;
        let outcome = match purpose {
            Purpose::Login => return self.login(proven, source, now),
            Purpose::Session => self.open_session(proven, now),
            Purpose::Register => self.register(proven, source, now),
            Purpose::Join => self.join(proven, now),
            Purpose::RotateKey => self.rotate_key(proven, now),
            Purpose::Deregister => self.deregister(proven, now),
            Purpose::Approval => self.ask_approval(proven, now),
            // These have routes of their own.
            Purpose::AgentStream | Purpose::ResourceStream | Purpose::Operate => {
                return Err(Rejected::Malformed(HandshakeError::Purpose(purpose.number())));
            }
        };
        outcome.map_err(Rejected::from)
    }

    fn open_proof(&self, purpose: Purpose, proof: &[u8], now: Now) -> Result<Proven, Rejected> {
        let proof = Proof::read(proof)?;
        let pending = {
            let mut ring = self.ring.lock();
            ring.turn(now.secs(), &mut SystemRandom);
            Pending::open(proof.cookie, purpose, &ring, now.secs())?
        };
        Ok(pending.finish(proof.message)?)
    }

    /// Answers with a refusal that was decided before the directory was asked.
    fn refuse(&self, proven: Proven, why: Refused, now: Now) -> Answer<Outcome> {
        let handshake = handshake_of(&proven);
        self.auditor.refused(&proven.identity, &why);
        let seal = seal_with(proven, |()| json!({}));
        Ok(answered(self.directory.refuse(handshake, why, now.secs(), seal)?))
    }

    fn random(&self) -> impl Random {
        SystemRandom
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What became of a third message.
enum Outcome {
    Answer(Vec<u8>),
    Used,
    Stale,
}

fn answered<T>(carried: Carried<T>) -> Outcome {
    match carried {
        Carried::Now(_, answer) | Carried::Again(answer) => Outcome::Answer(answer),
        Carried::Used => Outcome::Used,
        Carried::Stale => Outcome::Stale,
    }
}

fn handshake_of(proven: &Proven) -> Handshake {
    Handshake { before: proven.hash_before_proof, hash: proven.established.hash }
}

/// Seals the answer that `tell` makes of a result, or the refusal. The handshake's other secrets are gone after this.
fn seal_with<T: 'static>(proven: Proven, tell: impl FnOnce(&T) -> Value + Send + 'static) -> Seal<T> {
    let mut sealer = proven.established.send;
    Box::new(move |outcome| {
        let answer = match outcome {
            Ok(done) => tell(done),
            Err(refused) => refused.to_json(),
        };
        // The key is fresh, so it cannot be used up; an empty answer opens as none.
        seal_answer(&mut sealer, answer.to_string().as_bytes()).unwrap_or_default()
    })
}

/// Seals an answer that is decided already. The handshake's other secrets are gone after this.
fn seal_answer_of(proven: Proven, told: &[u8]) -> Vec<u8> {
    let mut sealer = proven.established.send;
    seal_answer(&mut sealer, told).unwrap_or_default()
}

/// Whether whoever proved its identity holds the SEK that it names.
fn holds_sek(proven: &Proven, sek: &SekPublic, proof: &[u8; 64]) -> bool {
    verify_sek_proof(sek, &proven.hash_before_proof, proof)
}
