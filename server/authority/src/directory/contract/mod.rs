//! What every directory promises, as tests that take one. Whatever implements [`Directory`] must pass [`all`].

use std::sync::Arc;

use obol_handshake::{HandshakeHash, IdentityPublic, SekPublic};
use obol_session::{Grant, ResourceHalf, SessionId};
use obol_token::{SessionSecret, Suite};

use super::*;
use crate::id::SystemRandom;

mod calls;
mod ends;
mod events;
mod follows;
mod hands;
mod kept;
mod people;
mod registers;
mod sessions;

pub(crate) const NOW: u64 = 1_780_000_000;
pub(crate) const MONTH: u64 = 30 * 86_400;

/// Makes an empty directory.
pub(crate) type Make<'a> = &'a dyn Fn() -> Arc<dyn Directory>;

/// Runs every test of the contract, each with a directory of its own.
pub(crate) fn all(make: Make<'_>) {
    for test in registers::TESTS
        .iter()
        .chain(sessions::TESTS)
        .chain(ends::TESTS)
        .chain(events::TESTS)
        .chain(follows::TESTS)
        .chain(kept::TESTS)
        .chain(people::TESTS)
        .chain(calls::TESTS)
        .chain(hands::TESTS)
    {
        let (name, test) = test;
        println!("contract: {name}");
        test(&*make());
    }
}

pub(crate) type Test = (&'static str, fn(&dyn Directory));

/// Names the functions it lists.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(super) const TESTS: &[super::Test] = &[$((stringify!($name), $name)),+];
    };
}
pub(crate) use tests;

/// A handshake that never was before.
pub(crate) fn handshake(number: u64) -> Handshake {
    let hash = |salt: u8| {
        let mut bytes = [salt; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        HandshakeHash(bytes)
    };
    Handshake { before: hash(1), hash: hash(2) }
}

/// An answer that says whether it was done, and can be told apart by its number.
pub(crate) fn seal<T: 'static>(number: u64) -> Seal<T> {
    Box::new(move |outcome: &Result<T, Refused>| {
        let word = outcome.as_ref().map_or_else(Refused::code, |_| "done");
        format!("{number} {word}").into_bytes()
    })
}

pub(crate) fn key(number: u64) -> IdentityPublic {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    IdentityPublic(bytes)
}

pub(crate) fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.to_owned(),
        class: "coding".to_owned(),
        roles: vec!["dev".to_owned()],
        tools: Vec::new(),
        host: "host".to_owned(),
        user: "user".to_owned(),
        software: "obol/1".to_owned(),
    }
}

/// A registration of this key under this name.
pub(crate) fn new_registration(number: u64, name: &str) -> NewRegistration {
    NewRegistration {
        id: RegistrationId::generate(&mut SystemRandom),
        agent: AgentId::generate(&mut SystemRandom),
        wanted: wanted(name),
        identity: key(number),
        sek: SekPublic([9; 32]),
        source: format!("192.0.2.{}", number % 200),
        poll_hash: key(number ^ 0xF000).0,
        code_hash: key(number ^ 0x0F00_0000).0,
        ticket_hash: None,
        attested: None,
        reached: None,
        flow: Flow::Local,
    }
}

pub(crate) fn done<T: fmt::Debug>(carried: Carried<T>) -> T {
    match carried {
        Carried::Now(Ok(done), _) => done,
        other => panic!("not carried out: {other:?}"),
    }
}

pub(crate) fn refused<T: fmt::Debug>(carried: Carried<T>) -> Refused {
    match carried {
        Carried::Now(Err(refused), _) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn approval(registration: &RegistrationId, by: &str) -> Approval {
    Approval {
        registration: registration.clone(),
        agent: AgentId::generate(&mut SystemRandom),
        by: Human::local(by),
        roles: vec!["dev".to_owned()],
        secs: MONTH,
        flow: "local",
        reached: None,
    }
}

/// Of one agent for a while, by this human.
pub(crate) fn invitation(by: Human) -> Invitation {
    Invitation {
        class: "coding".to_owned(),
        roles: vec!["dev".to_owned()],
        max_agents: 1,
        used: 0,
        expires_at: NOW + 100,
        approval_secs: 500,
        by,
    }
}

/// Registers a key under a name, and approves it.
pub(crate) fn agent(directory: &dyn Directory, number: u64, name: &str) -> Agent {
    agent_at(directory, number, name, NOW)
}

/// The same at this time, for a service that runs: it forgets what is over.
pub(crate) fn agent_at(directory: &dyn Directory, number: u64, name: &str, now: u64) -> Agent {
    let carried = directory
        .register(handshake(1 << 32 | number), new_registration(number, name), now, seal(number))
        .unwrap();
    let Registered::Waits(id) = done(carried) else { panic!("nobody was invited") };
    directory.approve(approval(&id, &format!("human-{number}")), now).unwrap().unwrap()
}

pub(crate) fn grant(tool: &str, audience: &str) -> Grant {
    Grant {
        tool: tool.to_owned(),
        aud: audience.to_owned(),
        action: vec!["call".to_owned()],
        resource: "**".to_owned(),
        constraints: None,
        delegation_depth: 0,
        require_pop: false,
        trust_level: 2,
        approval: obol_session::ApprovalRule::None,
        purpose: None,
        ttl: 60,
    }
}

/// A session for an agent, with one tool at each of two resource servers.
pub(crate) fn plan(agent: &Agent, number: u64, epoch: u64) -> SessionPlan {
    let grants = vec![grant("search", "https://a"), grant("pay", "https://b")];
    let establish = obol_session::Establish {
        session_id: SessionId::from_u64(number),
        suite: Suite::HybridAesGcm,
        agent: obol_session::AgentIdentity {
            agent_instance_id: agent.id.to_string(),
            iss: "https://as.example".to_owned(),
            sub: agent.identity.subject(),
        },
        org_id: "example".to_owned(),
        lifetime_secs: 900,
        policy_epoch: epoch,
        sek_public: [9; 32],
        pop_key: None,
    };
    let secret = SessionSecret::from_bytes(key(number).0);
    let (_, halves) = establish.from_secret(&secret, &["https://a", "https://b"], grants, NOW).unwrap();
    SessionPlan {
        row: SessionRow {
            id: SessionId::from_u64(number),
            agent: agent.id.clone(),
            suite: 4,
            established_at: NOW,
            expires_at: NOW + 900,
            policy_epoch: epoch,
            audiences: vec!["https://a".to_owned(), "https://b".to_owned()],
            tools: vec!["pay".to_owned(), "search".to_owned()],
            closes_at: None,
            ended: None,
        },
        agent_version: agent.version,
        presented: Vec::new(),
        previous: None,
        chain: key(number ^ 0xCC).0,
        clones: ClonePolicy::Alert,
        halves,
    }
}

/// Opens it, presenting what the agent's last session left.
pub(crate) fn open(directory: &dyn Directory, agent: &Agent, number: u64) -> Opened {
    let agent = directory.agent(agent.id.as_str()).unwrap().unwrap();
    let mut plan = plan(&agent, number, epoch(directory));
    plan.presented = agent.chain.into_iter().collect();
    done(directory.open_session(handshake(number), plan, NOW, seal(number)).unwrap())
}

pub(crate) fn epoch(directory: &dyn Directory) -> u64 {
    directory.policy().unwrap().map_or(0, |policy| policy.epoch)
}

pub(crate) fn policy(digest: &str) -> PolicyText {
    PolicyText { digest: digest.to_owned(), text: format!("the text of {digest}") }
}

/// Every event there is; they must be numbered from 1 without a gap.
pub(crate) fn events(directory: &dyn Directory) -> Vec<Happening> {
    let events = directory.events(0).unwrap().unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=directory.last_event().unwrap()).collect::<Vec<_>>());
    events.into_iter().map(|event| event.what).collect()
}

pub(crate) fn half_of(directory: &dyn Directory, number: u64, audience: &str) -> Option<ResourceHalf> {
    directory.half(SessionId::from_u64(number), audience).unwrap()
}

#[test]
fn memory_keeps_the_contract() {
    all(&|| Arc::new(MemoryDirectory::new()));
}

#[test]
fn redb_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = core::cell::Cell::new(0);
    let master = obol_secret::key::Key32::generate().unwrap();
    all(&|| {
        count.set(count.get() + 1);
        let path = folder.path().join(format!("{}.redb", count.get()));
        Arc::new(RedbDirectory::open(&path, &master).unwrap())
    });
}
