//! The service with a directory in memory and a client made of the handshake alone.

use std::collections::BTreeMap;

use obol_handshake::{
    Established, IdentityKey, Initiator, Prologue, SekKey, SuiteOffer, VALIDITY_SECS, open_answer,
};
use obol_secret::text::to_hex;
use obol_session::{AgentHalf, AgentIdentity, Establish, Grant, PopKey, SessionId, Suite};
use serde::Deserialize;

use super::*;
use crate::decider::{Decided, Moment, Undecided, Verdict};
use crate::directory::{
    Agent, AgentStatus, ClonePolicy, EndScope, Human, MemoryDirectory, OwnerEnd, Person, PolicyText, Polled,
    Unharmed, Wanted,
};
use crate::id::{AgentId, Bearer, RegistrationId, UserCode};

mod alarms;
mod ending;
mod opening;
mod organisations;
mod registering;
mod remote;

const ORIGIN: &str = "https://as.example";
const START: u64 = 1_780_000_000;

fn at(secs: u64) -> Now {
    Now { ms: secs * 1_000 }
}

/// Grants by role, and lets everybody approve everything but the role `root`.
#[derive(Debug, Default)]
struct ByRole(BTreeMap<&'static str, Vec<Grant>>);

impl Decider for ByRole {
    fn decide(&self, agent: &Agent, _owner: &Person, _moment: Moment) -> Result<Decided, Undecided> {
        if agent.roles.iter().any(|role| role == "undecided") {
            return Err(Undecided("the rule does not evaluate".to_owned()));
        }
        let of = |role: &String| self.0.get(role.as_str()).cloned().unwrap_or_default();
        Ok(Decided { grants: agent.roles.iter().flat_map(of).collect(), ..Decided::default() })
    }

    fn may_register(
        &self,
        _human: &Person,
        _class: &str,
        roles: &[String],
        _flow: &str,
        _days: u64,
    ) -> Result<bool, Undecided> {
        Ok(!roles.iter().any(|role| role == "root"))
    }

    fn may_operate(&self, _human: &Person, _verb: &str) -> Result<Verdict, Undecided> {
        Ok(Verdict { allowed: true, decided_by: Vec::new() })
    }
}

fn grant(tool: &str, audience: &str) -> Grant {
    serde_json::from_value(json!({
        "tool": tool, "aud": audience, "action": "call", "resource": "**", "trust_level": 2,
    }))
    .unwrap()
}

fn authority_with(settings: Settings) -> Authority {
    let rules = BTreeMap::from([
        ("dev", vec![grant("search", "https://a"), grant("pay", "https://b")]),
        ("reader", vec![grant("search", "https://a")]),
    ]);
    let parts = Parts {
        settings,
        directory: Arc::new(MemoryDirectory::new()),
        decider: Arc::new(ByRole(rules)),
        key: AuthoritySecret::generate(&mut SystemRandom),
        code_key: [3; 32],
        audit: None,
    };
    Authority::new(parts, at(START)).unwrap()
}

fn authority() -> Authority {
    authority_with(Settings::new(ORIGIN, "example").unwrap())
}

/// An agent: its keys, and what its last session left.
struct Client {
    identity: IdentityKey,
    sek: SekKey,
    chain: Vec<String>,
}

/// A third message, and what opens its answer.
struct Sent {
    proof: Vec<u8>,
    established: Established,
}

/// What a service may answer inside message D.
#[derive(Debug, Deserialize)]
struct Session {
    session_id: SessionId,
    suite: u8,
    agent_instance_id: String,
    org_id: String,
    iss: String,
    sub: String,
    established_at: u64,
    expires_at: u64,
    policy_epoch: u64,
    audiences: Vec<String>,
    grants: Vec<Grant>,
}

impl Client {
    fn new() -> Self {
        let rng = &mut SystemRandom;
        Self { identity: IdentityKey::generate(rng), sek: SekKey::generate(rng), chain: Vec::new() }
    }

    /// Goes through the handshake up to message C, with the payload that `make` gives for this transcript.
    fn send(
        &self,
        authority: &Authority,
        (purpose, suite): (Purpose, Suite),
        now: Now,
        make: impl FnOnce(&Self, &obol_handshake::HandshakeHash) -> Value,
    ) -> Result<Sent, Rejected> {
        let header = Header {
            purpose,
            suite,
            offer: SuiteOffer::of(&Suite::ALL),
            authority_key: authority.key().id(),
        };
        let prologue = Prologue::new(header, ORIGIN).unwrap();
        let (waiting, hello) = Initiator::start(&prologue, &authority.key(), &mut SystemRandom).unwrap();
        let reply = authority.accept(&hello, now)?;
        let (ready, greeting) = waiting.read(&reply).unwrap();
        let greeting: Value = serde_json::from_slice(&greeting).unwrap();
        assert_eq!(greeting["now"], now.secs());
        let payload = make(self, &ready.hash()).to_string();
        let (established, proof) = ready.prove(&self.identity, payload.as_bytes()).unwrap();
        Ok(Sent { proof, established })
    }

    fn sek_fields(&self, hash: &obol_handshake::HandshakeHash) -> Value {
        json!({
            "sek_pk": to_hex(&self.sek.public().0),
            "sek_proof": to_hex(&self.sek.prove(hash, &mut SystemRandom)),
        })
    }

    fn register(&self, authority: &Authority, name: &str, extra: Value, now: Now) -> Value {
        let sent = self.send(authority, (Purpose::Register, Suite::HybridAesGcm), now, |client, hash| {
            let mut request = client.sek_fields(hash);
            request["wanted"] = json!({"name": name, "class": "coding", "roles": ["dev"], "host": "h"});
            merge(&mut request, extra);
            request
        });
        let sent = sent.unwrap();
        let answer = authority.prove(Purpose::Register, &sent.proof, "192.0.2.1", now).unwrap();
        read(sent, &answer)
    }

    /// A registered and approved agent.
    fn approved(authority: &Authority, name: &str, roles: &[&str]) -> (Self, Agent) {
        let client = Self::new();
        let told = client.register(authority, name, json!({}), at(START));
        let review = authority.review(&code_of(&told), at(START)).unwrap();
        let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
        let agent = authority.approve(&review, &roles, None, Human::local("anna"), at(START)).unwrap();
        (client, agent)
    }

    fn session_request(&self, hash: &obol_handshake::HandshakeHash, now: Now, extra: Value) -> Value {
        let mut request = self.sek_fields(hash);
        request["chain"] = json!(self.chain);
        request["now"] = json!(now.secs());
        merge(&mut request, extra);
        request
    }

    fn ask(&self, authority: &Authority, suite: Suite, extra: Value, now: Now) -> Sent {
        let sent = self.send(authority, (Purpose::Session, suite), now, |client, hash| {
            client.session_request(hash, now, extra)
        });
        sent.unwrap()
    }

    /// Asks for a session, and gives the answer, whatever it is.
    fn open(&mut self, authority: &Authority, suite: Suite, extra: Value, now: Now) -> Value {
        let sent = self.ask(authority, suite, extra, now);
        let chain = to_hex(sent.established.chain.expose());
        let answer = authority.prove(Purpose::Session, &sent.proof, "192.0.2.1", now).unwrap();
        let told = read(sent, &answer);
        if told.get("error").is_none() {
            self.chain = vec![chain];
        }
        told
    }

    fn refused(&mut self, authority: &Authority, now: Now) -> String {
        let told = self.open(authority, Suite::HybridAesGcm, json!({}), now);
        code(&told)
    }
}

fn activate(authority: &Authority, digest: &str, by: &Human) -> crate::directory::PolicyVersion {
    let decider = authority.deciding.read().decider.clone();
    let text = PolicyText { digest: digest.to_owned(), text: "who may what".to_owned() };
    authority.activate_policy(text, decider, Unharmed::new(), by, at(START)).unwrap()
}

fn code(told: &Value) -> String {
    told["error"]["code"].as_str().unwrap_or_else(|| panic!("not refused: {told}")).to_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn merge(into: &mut Value, extra: Value) {
    for (name, value) in extra.as_object().unwrap().clone() {
        into[name] = value;
    }
}

fn read(mut sent: Sent, answer: &[u8]) -> Value {
    serde_json::from_slice(&open_answer(&mut sent.established.receive, answer, 1 << 20).unwrap()).unwrap()
}

fn code_of(told: &Value) -> UserCode {
    UserCode::parse(told["user_code"].as_str().unwrap()).unwrap()
}

fn session(told: &Value) -> Session {
    serde_json::from_value(told.clone()).unwrap_or_else(|error| panic!("{error}: {told}"))
}
