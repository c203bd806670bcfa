//! What ends an agent: an operator's flush at the sidecar, the service, a clock that is wrong.

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use std::sync::{Arc, Mutex};

use obol_authenticator::{Identity, service};
use obol_authority::directory::AgentStatus;
use obol_ipc::Endpoint;
use obol_ipc::auth::AuthState;
use obol_ipc::control::{
    ControlProtocol, ControlReply, ControlRequest, FlushResult, FlushScope, PopKeyResult,
    ProvisionPartParams, ProvisionPartResult, ProvisionResult, SecurityEventParams, SessionState,
    SessionStatus, StatusResult,
};
use obol_ipc::message::Empty;
use obol_ipc::names::{AgentInstanceId, PeerName};
use obol_ipc::numbers::AlgorithmSuite;
use obol_ipc::proof::PopPublic;
use obol_ipc::refusal::Refusal;
use obol_ipc::time::UtcTime;
use obol_probe::stop::Stop;
use obol_session::AgentHalf;
use obol_session::clock::{Clock, SystemClock};
use obol_sidecar::{Answer, Answerer, OperatorSocket, Requester};
use obol_uplink::{Pinned, UplinkOptions};
use obol_world::home::wait_until;
use tokio::runtime::Runtime;

use super::World;

#[test]
fn an_operators_flush_is_noticed_and_no_session_is_opened_before_resume() {
    let world = World::new(6);
    let tqs = world.tqs();
    let authenticator = world.authenticator();
    world.register();
    let flushed = world.obol(&["flush", "--all", "--reason", "a drill"]);
    assert!(flushed.status.success(), "{flushed:?}");
    let held = world.wait_for("it is noticed", |status| status.state == AuthState::Held);
    assert_eq!(held.hold.unwrap().reason, "a drill");
    assert_eq!(held.session, None);
    let opened = || world.authority().directory().last_session().unwrap();
    let before = opened();
    for arguments in [&["authenticate", "--json"][..], &["authenticate", "--if-needed", "--json"]] {
        let refused = world.obol(arguments);
        assert_eq!(refused.status.code(), Some(5), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("SESSION_FLUSHED") && told.contains("obol resume"), "{told}");
    }
    // Longer than the session would have lived; a restart forgets nothing of it either.
    std::thread::sleep(Duration::from_secs(4));
    authenticator.kill();
    let _authenticator = world.authenticator();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(opened(), before, "the service was not even asked");
    assert!(world.draw(&mut tqs.client()).is_err());

    // The service heard of it, and holds the agent too: both have to let it in.
    assert_eq!(world.agent().status, AgentStatus::Suspended);
    assert!(world.obol(&["resume"]).status.success());
    world.wait_for("it is not held here", |status| status.hold.is_none());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(opened(), before);
    world.enable();
    world.wait_for("a session again", |status| status.state == AuthState::Authenticated);
    let token = world.draw(&mut tqs.client()).unwrap();
    assert!(world.present(&token).is_ok());
    assert_ne!(opened(), before);
}

#[test]
fn a_flush_of_a_session_or_an_agent_holds_too_and_one_of_a_tool_does_not() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let _authenticator = world.authenticator();
    let id = world.register().session.unwrap().session_id;
    let flush = |what: &str, name: &str| {
        let flushed = world.obol(&["flush", what, name, "--reason", "test"]);
        assert!(flushed.status.success(), "{flushed:?}");
    };
    flush("--tool", "search");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.status().session.unwrap().session_id, id);
    flush("--session", &id.to_string());
    world.wait_for("it is noticed", |status| status.state == AuthState::Held);
    wait_until("the service hears of it", || world.agent().status == AgentStatus::Suspended);
    assert!(world.obol(&["resume"]).status.success());
    world.enable();
    let next = world.wait_for("a session again", |status| status.session.is_some());
    assert_ne!(next.session.unwrap().session_id, id);
    flush("--agent", &world.agent().id.to_string());
    world.wait_for("it is noticed", |status| status.state == AuthState::Held);
}

#[test]
fn a_disabled_agents_tokens_are_destroyed_and_an_enabled_one_comes_back() {
    let world = World::new(900);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    let first = world.register().session.unwrap().session_id;
    world.draw(&mut tqs.client()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    world.disable();
    // It is heard at once, and not with the next session.
    world.wait_for("it stops", |status| status.state == AuthState::Stopped);
    let refused = world.obol(&["authenticate", "--json"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SUSPENDED"), "{refused:?}");
    let stopped = world.wait_for("it stops", |status| status.state == AuthState::Stopped);
    assert_eq!(stopped.session, None);
    assert_eq!(stopped.problem.unwrap().code, "SUSPENDED");
    let drawn = world.obol(&["dequeue", "search", "--wait", "100", "--json"]);
    assert!(String::from_utf8_lossy(&drawn.stderr).contains("SESSION_FLUSHED"), "{drawn:?}");
    let seen = tqs.control().status().unwrap();
    assert!(seen.hold.is_none(), "whoever ended it decides whether it comes back");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.sessions().iter().filter(|session| session.ended.is_none()).count(), 0);

    world.enable();
    wait_until("a session", || world.obol(&["authenticate"]).status.success());
    let next = world.wait_for("a session again", |status| status.state == AuthState::Authenticated);
    assert_ne!(next.session.unwrap().session_id, first);
    let token = world.draw(&mut tqs.client()).unwrap();
    assert!(world.present(&token).is_ok());
}

/// How often the sidecar below does not hear of an end.
const DEAF_FOR: usize = 3;

/// A sidecar's operator's socket that takes sessions, and does not hear the first times that one ended.
#[derive(Debug)]
struct HardOfHearing {
    sessions: Mutex<Vec<SessionStatus>>,
    deaf_for: AtomicUsize,
    heard: Mutex<Vec<SecurityEventParams>>,
    /// How often it was told that the service was heard, and how often since it was told of an end for the first time.
    leases: AtomicUsize,
    leases_since: AtomicUsize,
    leases_when_it_heard: AtomicUsize,
}

impl HardOfHearing {
    fn taken(&self, part: &ProvisionPartParams) -> ProvisionPartResult {
        let half = AgentHalf::from_json(part.text.expose().as_bytes()).unwrap();
        self.sessions.lock().unwrap().push(SessionStatus {
            session_id: half.session_id,
            agent_instance_id: AgentInstanceId::new(half.agent.agent_instance_id.as_str()).unwrap(),
            algorithm_suite: AlgorithmSuite::new(half.suite.number()).unwrap(),
            expires_at: UtcTime::from_unix_seconds(half.expires_at),
            state: SessionState::Active,
            lease_ends_at: None,
        });
        let session = ProvisionResult { session_id: half.session_id, grants: half.grants.len() as u64 };
        ProvisionPartResult { received: part.text.expose().len() as u64, session: Some(session) }
    }
}

impl Answerer<ControlProtocol> for HardOfHearing {
    fn answer(self: &Arc<Self>, call: ControlRequest, _requester: &Requester) -> Answer<ControlProtocol> {
        Answer::Now(match call {
            ControlRequest::PopKey(_) => {
                let public = obol_session::PopKey::from_bytes([7; 32]).public();
                Ok(ControlReply::PopKey(PopKeyResult { pop_pub: PopPublic::from_bytes(public) }))
            }
            ControlRequest::ProvisionPart(part) => Ok(ControlReply::ProvisionPart(self.taken(&part))),
            ControlRequest::SecurityEvent(event) => {
                let hears = self.deaf_for.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1)).is_err();
                if self.deaf_for.load(SeqCst) + 1 == DEAF_FOR && !hears {
                    self.leases_since.store(0, SeqCst);
                }
                if hears {
                    self.leases_when_it_heard.store(self.leases_since.load(SeqCst), SeqCst);
                    self.sessions.lock().unwrap().clear();
                    self.heard.lock().unwrap().push(event);
                    Ok(ControlReply::SecurityEvent(FlushResult::default()))
                } else {
                    Err(Refusal::unavailable("the store failed"))
                }
            }
            ControlRequest::Lease(_) => {
                self.leases.fetch_add(1, SeqCst);
                self.leases_since.fetch_add(1, SeqCst);
                Ok(ControlReply::Lease(Empty {}))
            }
            ControlRequest::Status(_) => Ok(ControlReply::Status(StatusResult {
                version: "test".into(),
                pid: 1,
                uid: 1,
                agent_users: Vec::new(),
                uptime_seconds: 1,
                sessions: self.sessions.lock().unwrap().clone(),
                tools: Vec::new(),
                denials: std::collections::BTreeMap::new(),
                next: None,
                hold: None,
                denied: Vec::new(),
            })),
            other => Err(Refusal::invalid_argument(format_args!("{other:?}"))),
        })
    }

    fn span(&self, _requester: &Requester) -> tracing::Span {
        tracing::Span::none()
    }
}

#[test]
fn a_sidecar_that_did_not_hear_that_its_agent_was_ended_is_told_until_it_does() {
    let world = World::new(900);
    let runtime = Runtime::new().unwrap();
    let sidecar = Arc::new(HardOfHearing {
        sessions: Mutex::default(),
        deaf_for: AtomicUsize::new(DEAF_FOR),
        heard: Mutex::default(),
        leases: AtomicUsize::new(0),
        leases_since: AtomicUsize::new(0),
        leases_when_it_heard: AtomicUsize::new(usize::MAX),
    });
    let (stop, name) = (Stop::new(), PeerName::new("test/1").unwrap());
    let at = Endpoint::at(world.path().join("run/obol/control.sock")).unwrap();
    let socket = runtime.block_on(async { OperatorSocket::bind(&at) }).unwrap();
    let (answers, said) = (Arc::clone(&sidecar), stop.clone());
    let serving = runtime.spawn(async move { socket.serve(answers, name, &said).await });
    let _authenticator = world.authenticator();
    let session = world.register().session.unwrap();
    std::thread::sleep(Duration::from_secs(3));
    world.disable();
    assert_eq!(world.obol(&["authenticate"]).status.code(), Some(3));
    assert!(sidecar.leases.load(SeqCst) > 0, "it was told that the service was heard");
    wait_until("it is told", || !sidecar.heard.lock().unwrap().is_empty());
    let told = sidecar.leases_when_it_heard.load(SeqCst);
    assert_eq!(told, 0, "nothing prolongs a lease while an end is owed");
    let heard = sidecar.heard.lock().unwrap().clone();
    assert_eq!(heard[0].subject, FlushScope::Agent(session.agent_instance_id));
    assert!(heard[0].kind.as_str().contains("suspended"), "{heard:?}");
    assert_eq!(sidecar.deaf_for.load(SeqCst), 0);
    assert_eq!(world.status().state, AuthState::Stopped);
    // Once is enough.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sidecar.heard.lock().unwrap().len(), 1);
    stop.say();
    runtime.block_on(serving).unwrap();
}

/// A clock that is wrong by this much.
#[derive(Debug)]
struct Skewed(i64);

impl Clock for Skewed {
    fn now(&self) -> u64 {
        SystemClock::new().now().saturating_add_signed(self.0)
    }

    fn monotonic(&self) -> u64 {
        SystemClock::new().monotonic()
    }
}

#[test]
fn a_clock_that_is_wrong_gives_the_sidecar_nothing_and_is_told_by_how_much() {
    let world = World::new(900);
    let tqs = world.tqs();
    {
        let _authenticator = world.authenticator();
        world.register();
    }
    assert!(world.obol(&["flush", "--all", "--reason", "test"]).status.success());
    assert!(world.obol(&["resume"]).status.success());
    let folder = world.path().join(".local/state/obol/authenticator");
    for skew in [-3_600, 3_600, 10] {
        let identity =
            Identity::open_or_create(&folder.join("agent.identity"), &folder.join("identity.key")).unwrap();
        let pinned = Pinned::parse(&world.pinned()).unwrap();
        let authenticator =
            obol_authenticator::Authenticator::new(pinned, identity, &UplinkOptions::new()).unwrap();
        let at = |name: &str| Endpoint::at(world.path().join("run/obol").join(name)).unwrap();
        let runtime = Runtime::new().unwrap();
        let options =
            service::Options::new(at("auth.sock"), at("control.sock")).clock(Arc::new(Skewed(skew)));
        let service = runtime.block_on(options.bind(authenticator)).unwrap();
        let handle = service.handle();
        let running = runtime.spawn(service.run(core::future::pending()));
        let before = tqs.control().status().unwrap().sessions.len();
        if skew.abs() > 30 {
            let status = world.wait_for("it is told", |status| status.problem.is_some());
            assert_eq!(status.problem.as_ref().unwrap().code, "CLOCK_SKEW");
            assert!(status.problem.unwrap().message.contains("clock is 3"), "{skew}");
            assert!(status.skew_seconds.unwrap().abs_diff(skew) <= 1);
            assert_eq!((status.session, status.state), (None, AuthState::Registered));
            assert!(world.auth().authenticate().is_err());
            assert_eq!(tqs.control().status().unwrap().sessions.len(), before);
        } else {
            let status = world.wait_for("a session", |status| status.session.is_some());
            assert!(status.skew_seconds.unwrap().abs_diff(skew) <= 1);
        }
        handle.stop();
        let _ended = runtime.block_on(running).unwrap();
    }
}
