//! A list of everything: a resource server that knows nothing yet is told of a hundred thousand sessions.
//!
//! The sessions are put into the directory's file while the service does not run, since it opens no more than sixteen for an
//! agent, and a human approves no more than twenty agents in an hour.

use core::sync::atomic::{AtomicU64, Ordering};
use std::path::Path;
use std::time::Instant;

use obol_authority::directory::{
    Agent, Carried, ClonePolicy, Directory as _, Flow, Handshake, Human, Invitation, MAX_LIVE_SESSIONS,
    NewRegistration, RedbDirectory, Registered, SessionPlan, SessionRow, Wanted,
};
use obol_authority::id::{AgentId, RegistrationId, SystemRandom};
use obol_benches::rows::{self, Row, Target, Unit};
use obol_handshake::{HandshakeHash, IdentityPublic, SekPublic};
use obol_probe::stop::Stop;
use obol_secret::key::Key32;
use obol_session::{AgentIdentity, Establish, Grant};
use obol_token::{SessionId, SessionSecret, Suite};
use obol_verify::SessionStore as _;
use obol_world::now;
use tokio::runtime::Runtime;

use super::{AUDIENCE, LOOK, Plan, Service, resident_bytes};

/// What each session grants at the resource server.
const GRANTS: usize = 3;
/// Who writes at the same time: one sync of the disk pays for all of them.
const WRITERS: usize = 64;
/// What an agent's next session must present.
const CHAIN: [u8; 32] = [7; 32];
/// The invitation that its agents come by.
const TICKET: [u8; 32] = [9; 32];
const LIFETIME_SECS: u64 = 3_600;

/// How long a resource server waits that is told of everything, and what the service holds in memory for that.
pub(super) fn snapshot(plan: Plan) {
    let mut service = Service::start(GRANTS);
    let origin = service.process.origin();
    assert_eq!(service.process.terminate(), Some(0), "it ends in good order");
    let begun = Instant::now();
    fill(&service.home.path().join(".local/state/obol"), &origin, plan.listed);
    println!("{} sessions were put into the directory in {:.0?}", plan.listed, begun.elapsed());
    service.process.start_again();
    rows::count_as_ours(service.process.pid());
    let mut operator = service.operator();
    Runtime::new().expect("a runtime").block_on(async {
        let (follower, sessions) = service.joined(&mut operator).await;
        let following = follower.following();
        let (service_before, before) = (resident_bytes(service.process.pid()), resident_bytes(std::process::id()));
        let begun = Instant::now();
        tokio::spawn(follower.run(Stop::new()));
        while following.cursor().is_none() {
            tokio::time::sleep(LOOK).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(sessions.list().len(), plan.listed, "all of them");
        let service_more = resident_bytes(service.process.pid()) - service_before;
        let each = (resident_bytes(std::process::id()) - before) / plan.listed as f64;
        println!(
            "a list of {} sessions with {GRANTS} grants each: {took:.2} s; the service holds {:.1} MB more, the resource server \
             {each:.0} bytes for each",
            plan.listed,
            service_more / 1e6,
        );
        Row::new("authority", format!("a list of {} sessions", plan.listed), Unit::Nanoseconds, took * 1e9)
            .wants(Target::AtMost(3e9))
            .record();
        Row::new("authority", "memory of the service for that list", Unit::Bytes, service_more).record();
        Row::new("authority", "memory of the resource server for a session of it", Unit::Bytes, each).record();
    });
}

/// Puts so many live sessions into the directory of a service that does not run.
fn fill(state: &Path, origin: &str, sessions: usize) {
    let master = Key32::load(state.join("as-master.key")).expect("the service's master key");
    let directory = RedbDirectory::open(&state.join("authority.redb"), &master).expect("its directory");
    let epoch = directory.policy().expect("it answers").map_or(0, |policy| policy.epoch);
    let agents = sessions.div_ceil(MAX_LIVE_SESSIONS);
    let invitation = Invitation {
        class: "bench".to_owned(),
        roles: vec!["dev".to_owned()],
        max_agents: u32::try_from(agents).expect("not that many"),
        used: 0,
        expires_at: now() + LIFETIME_SECS,
        approval_secs: 86_400,
        by: Human::local("bench"),
    };
    directory.invite(TICKET, invitation).expect("it answers").expect("it is taken");
    // As the service numbers them: by the time, so that those it opens later are higher.
    let next =
        AtomicU64::new(directory.last_session().expect("it answers").as_u64().max((now() * 1_000) << 22));
    let (next, directory) = (&next, &directory);
    let write = |writer: usize| {
        for agent in (writer..agents).step_by(WRITERS) {
            let of_agent = MAX_LIVE_SESSIONS.min(sessions - agent * MAX_LIVE_SESSIONS);
            let agent = registered(directory, agent as u64);
            for number in 0..of_agent {
                let presented: &[_] = if number > 0 { &[CHAIN] } else { &[] };
                open(directory, &agent, origin, epoch, presented, next);
            }
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || write(writer));
        }
    });
}

/// Hashes that nothing else has.
fn hash(kind: u8, number: u64) -> [u8; 32] {
    let mut bytes = [kind; 32];
    bytes.iter_mut().zip(number.to_be_bytes()).for_each(|(place, byte)| *place = byte);
    bytes
}

fn handshake(kind: u8, number: u64) -> Handshake {
    let of = |half| HandshakeHash(hash(kind + half, number));
    Handshake { before: of(0), hash: of(1) }
}

fn registered(directory: &RedbDirectory, number: u64) -> Agent {
    let new = NewRegistration {
        id: RegistrationId::generate(&mut SystemRandom),
        agent: AgentId::generate(&mut SystemRandom),
        wanted: Wanted {
            name: format!("agent-{number}"),
            class: "bench".to_owned(),
            roles: vec!["dev".to_owned()],
            tools: Vec::new(),
            host: "host".to_owned(),
            user: "user".to_owned(),
            software: "bench".to_owned(),
        },
        identity: IdentityPublic(hash(1, number)),
        sek: SekPublic([9; 32]),
        source: "192.0.2.1".to_owned(),
        poll_hash: hash(2, number),
        code_hash: hash(3, number),
        ticket_hash: Some(TICKET),
        attested: None,
        reached: None,
        flow: Flow::Local,
    };
    let seal = Box::new(|_: &_| Vec::new());
    match directory.register(handshake(10, number), new, now(), seal).expect("it answers") {
        Carried::Now(Ok(Registered::Active(agent)), _) => *agent,
        other => unreachable!("an invited agent: {other:?}"),
    }
}

/// Opens a session. Others may have taken a higher number meanwhile; then it takes another.
fn open(
    directory: &RedbDirectory,
    agent: &Agent,
    origin: &str,
    epoch: u64,
    presented: &[[u8; 32]],
    next: &AtomicU64,
) {
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst) + 1;
        let plan = plan(agent, origin, epoch, presented.to_vec(), SessionId::from_u64(number));
        let seal = Box::new(|_: &_| Vec::new());
        match directory.open_session(handshake(20, number), plan, now(), seal).expect("it answers") {
            Carried::Now(Ok(_), _) => return,
            Carried::Stale => {}
            other => unreachable!("a session: {other:?}"),
        }
    }
}

fn plan(agent: &Agent, origin: &str, epoch: u64, presented: Vec<[u8; 32]>, id: SessionId) -> SessionPlan {
    let grant = |number: usize| Grant {
        tool: format!("tool-{number}"),
        aud: AUDIENCE.to_owned(),
        action: vec!["read".to_owned()],
        resource: "docs/**".to_owned(),
        constraints: None,
        delegation_depth: 0,
        require_pop: false,
        trust_level: 2,
        approval: obol_session::ApprovalRule::None,
        purpose: None,
        ttl: 60,
    };
    let grants: Vec<Grant> = (0..GRANTS).map(grant).collect();
    let (established_at, tools) = (now(), grants.iter().map(|grant| grant.tool.clone()).collect());
    let establish = Establish {
        session_id: id,
        suite: Suite::HybridAesGcm,
        agent: AgentIdentity {
            agent_instance_id: agent.id.to_string(),
            iss: origin.to_owned(),
            sub: agent.identity.subject(),
        },
        org_id: "example".to_owned(),
        lifetime_secs: LIFETIME_SECS,
        policy_epoch: epoch,
        sek_public: [9; 32],
        pop_key: None,
    };
    let secret = SessionSecret::from_bytes(hash(4, id.as_u64()));
    let (_, halves) = establish.from_secret(&secret, &[AUDIENCE], grants, established_at).expect("a session");
    SessionPlan {
        row: SessionRow {
            id,
            agent: agent.id.clone(),
            suite: Suite::HybridAesGcm.number(),
            established_at,
            expires_at: established_at + LIFETIME_SECS,
            policy_epoch: epoch,
            audiences: vec![AUDIENCE.to_owned()],
            tools,
            closes_at: None,
            ended: None,
        },
        agent_version: agent.version,
        presented,
        previous: None,
        chain: CHAIN,
        clones: ClonePolicy::Alert,
        halves,
    }
}
