//! Many agents, sessions and registrations with hostile names, put straight into the directory: nobody waits for hundreds of handshakes.

use core::ops::Range;

use obol_authority::Refused;
use obol_authority::directory::{
    Agent, Approval, Carried, ClonePolicy, Flow, Handshake, Human, NewCallApproval, NewRegistration,
    NewReplica, Registered, ResourceServer, Seal, SessionPlan, SessionRow, Wanted,
};
use obol_authority::id::{AgentId, ApprovalId, RegistrationId, ReplicaId, SystemRandom};
use obol_handshake::{HandshakeHash, IdentityPublic, SekPublic};
use obol_session::SessionId;
use obol_world::now;

use super::World;

/// What the longest and worst names have in them.
pub(super) fn hostile(number: u64) -> String {
    let name = format!("<script>alert({number})</script>\u{202e}\"'&\u{200b}\u{5d0}\u{5d1}");
    format!("{name}{}", "W".repeat(200 - name.chars().count()))
}

fn bytes(number: u64, salt: u8) -> [u8; 32] {
    let mut bytes = [salt; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn handshake(number: u64) -> Handshake {
    Handshake { before: HandshakeHash(bytes(number, 1)), hash: HandshakeHash(bytes(number, 2)) }
}

fn seal<T: 'static>() -> Seal<T> {
    Box::new(|_: &Result<T, Refused>| Vec::new())
}

/// Somebody asks to be an agent.
pub(super) fn registration(world: &World, number: u64, name: &str) -> RegistrationId {
    registered(world, (number, number), name, Flow::Local)
}

/// The agent with this number asks to be approved again, on the machine of the browser.
pub(super) fn again(world: &World, number: u64, name: &str) -> RegistrationId {
    registered(world, (1 << 41 | number, number), name, Flow::Loopback(9))
}

fn registered(world: &World, (unique, number): (u64, u64), name: &str, flow: Flow) -> RegistrationId {
    let text = hostile(number);
    let new = NewRegistration {
        id: RegistrationId::generate(&mut SystemRandom),
        agent: AgentId::generate(&mut SystemRandom),
        wanted: Wanted {
            name: name.to_owned(),
            class: "coding".to_owned(),
            roles: vec!["dev".to_owned()],
            tools: Vec::new(),
            host: text.clone(),
            user: text.clone(),
            software: text,
        },
        identity: IdentityPublic(bytes(number, 7)),
        sek: SekPublic([9; 32]),
        source: format!("192.0.{}.{}", number / 200, number % 200),
        flow,
        poll_hash: bytes(unique, 3),
        code_hash: bytes(unique, 4),
        ticket_hash: None,
        attested: None,
        reached: None,
    };
    match world.authority.directory().register(handshake(unique), new, now(), seal()).unwrap() {
        Carried::Now(Ok(Registered::Waits(id)), _) => id,
        other => panic!("{other:?}"),
    }
}

/// An agent that somebody approved.
pub(super) fn agent(world: &World, number: u64, name: &str) -> Agent {
    let roles = (0..12).map(|role| format!("role-{role}")).collect();
    agent_of(world, number, name, Human::local(hostile(number)), roles)
}

/// An agent that this human approved, who has these roles.
pub(super) fn agent_of(world: &World, number: u64, name: &str, by: Human, roles: Vec<String>) -> Agent {
    let approval = Approval {
        registration: registration(world, number, name),
        agent: AgentId::generate(&mut SystemRandom),
        by,
        roles,
        secs: 86_400,
        flow: "local",
        reached: None,
    };
    world.authority.directory().approve(approval, now()).unwrap().unwrap()
}

/// A session of an agent.
pub(super) fn session(world: &World, number: u64, agent: &Agent) -> SessionRow {
    let tools: Vec<String> = (0..20).map(|tool| format!("tool-{tool}")).collect();
    let plan = SessionPlan {
        row: SessionRow {
            id: SessionId::from_u64(number),
            agent: agent.id.clone(),
            suite: 4,
            established_at: now(),
            expires_at: now() + 900,
            policy_epoch: 0,
            audiences: vec!["https://a".to_owned()],
            tools,
            closes_at: None,
            ended: None,
        },
        agent_version: agent.version,
        presented: Vec::new(),
        previous: None,
        chain: [0; 32],
        clones: ClonePolicy::Alert,
        halves: Vec::new(),
    };
    let carried = world.authority.directory().open_session(handshake(1 << 40 | number), plan, now(), seal());
    match carried.unwrap() {
        Carried::Now(Ok(opened), _) => opened.session,
        other => panic!("{other:?}"),
    }
}

/// A copy of a resource server that has joined, and does not follow.
pub(super) fn copy(world: &World, number: u64, audience: &str) {
    let (directory, code_hash) = (world.authority.directory(), bytes(number, 5));
    let server = ResourceServer { audience: audience.to_owned(), suites: vec![4], added_at: now() };
    directory.add_resource_server(server, code_hash, now() + 60).unwrap().unwrap();
    let id = ReplicaId::generate(&mut SystemRandom);
    let new = NewReplica { id, identity: IdentityPublic(bytes(number, 8)), code_hash };
    let joined = directory.join(handshake(1 << 43 | number), new, now(), seal()).unwrap();
    assert!(matches!(joined, Carried::Now(Ok(_), _)), "{joined:?}");
}

/// So many requests like one that an agent made, which wait as long.
pub(super) fn calls(world: &World, like: &str, count: u64) {
    let asked = world.authority.directory().call_approval(&ApprovalId::parse(like).unwrap());
    calls_of(world, &asked.unwrap().unwrap().agent, like, 0..count, 0);
}

/// Requests of an agent like one that was made, which wait for so many seconds longer.
pub(super) fn calls_of(world: &World, agent: &AgentId, like: &str, numbers: Range<u64>, longer: u64) {
    let directory = world.authority.directory();
    let like = directory.call_approval(&ApprovalId::parse(like).unwrap()).unwrap().unwrap();
    let version = directory.agent(agent.as_str()).unwrap().unwrap().version;
    let epoch = directory.policy().unwrap().map_or(0, |policy| policy.epoch);
    for number in numbers {
        let mut approval = like.clone();
        (approval.agent, approval.expires_at) = (agent.clone(), like.expires_at + longer);
        approval.id = ApprovalId::generate(&mut SystemRandom);
        let new = NewCallApproval { approval, decided_by: (version, epoch), per_hour: 1_000 };
        let asked = directory.ask_approval(handshake(1 << 42 | number), new, now(), seal()).unwrap();
        assert!(matches!(asked, Carried::Now(Ok(_), _)), "{asked:?}");
    }
}
