//! Agents that send requests by the SDK, with everything around them real: one authentication for a crowd, and nothing lost or done
//! twice when what is around them is killed.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::process::Stdio;
use std::sync::{Arc, Weak};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::any;
use obol_agent::{Agent, CallOptions, Code};
use obol_authority::Authority;
use obol_world::home::command;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::{GATEWAY, Server, World};
use crate::end_to_end::api;

/// An API that takes the service's tokens, behind the gateway that the session names.
struct Api {
    runtime: Runtime,
    shared: Arc<Shared>,
}

struct Shared {
    server: Server,
    authority: Mutex<Weak<Authority>>,
    runs: AtomicUsize,
    refusals: Mutex<Vec<String>>,
}

impl Api {
    /// Listens, and makes the session's routes lead there. Before the world, which is then told of it.
    fn start() -> Self {
        let shared = Arc::new(Shared {
            server: Server::new(),
            authority: Mutex::default(),
            runs: AtomicUsize::new(0),
            refusals: Mutex::default(),
        });
        let runtime = Runtime::new().unwrap();
        let routes = Router::new().fallback(any(handle)).with_state(Arc::clone(&shared));
        let address = runtime.block_on(api::listen(routes));
        GATEWAY.set(format!("http://{address}/gate")).unwrap();
        Self { runtime, shared }
    }

    /// Takes tokens of this world's service.
    fn serve(&self, world: &World) {
        *self.shared.authority.lock() = Arc::downgrade(&world.service.as_ref().unwrap().authority);
    }

    fn runs(&self) -> usize {
        self.shared.runs.load(Ordering::SeqCst)
    }
}

async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> StatusCode {
    let token = headers["authorization"].to_str().unwrap().strip_prefix("TBAC ").unwrap().to_owned();
    let presented = tokio::task::spawn_blocking({
        let shared = Arc::clone(&shared);
        move || {
            let authority = shared.authority.lock().upgrade();
            shared.server.present(authority.as_deref(), &token, "search")
        }
    });
    match presented.await.unwrap() {
        Ok(_) => {
            shared.runs.fetch_add(1, Ordering::SeqCst);
            StatusCode::OK
        }
        Err(code) => {
            shared.refusals.lock().push(code);
            StatusCode::FORBIDDEN
        }
    }
}

fn builder(world: &World) -> obol_agent::AgentBuilder {
    let folder = world.path().join("run/obol");
    Agent::builder().socket(folder.join("agent.sock")).auth_socket(folder.join("auth.sock"))
}

fn request(method: &str) -> Request<&'static str> {
    Request::builder().method(method).uri("https://a/v1/query?q=rain").body("").unwrap()
}

/// As many calls at the same moment, each with a client's patience.
async fn together(agent: &Agent, count: usize) -> Vec<u16> {
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let agent = agent.clone();
            let options = CallOptions::new().timeout(Duration::from_secs(50));
            tokio::spawn(async move { agent.fetch_with(request("POST"), &options).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap().unwrap().status().as_u16());
    }
    statuses
}

/// Has nobody in a session any more, and lets one be opened again; how many there have been.
fn flushed(world: &World) -> usize {
    let before = world.sessions().len();
    assert!(world.obol(&["flush", "--all", "--reason", "a drill"]).status.success());
    assert!(world.obol(&["resume"]).status.success());
    before
}

#[test]
fn a_thousand_calls_at_once_take_one_authentication_and_a_token_each() {
    let api = Api::start();
    let world = World::new(900);
    api.serve(&world);
    let (_tqs, _authenticator) = (world.tqs(), world.authenticator());
    world.register();
    let before = flushed(&world);
    api.runtime.block_on(async {
        let agent = builder(&world).connect().await.unwrap();
        let statuses = together(&agent, 1_000).await;
        assert!(statuses.iter().all(|status| *status == 200), "{:?}", api.shared.refusals.lock());
    });
    assert_eq!(api.runs(), 1_000);
    assert_eq!(*api.shared.refusals.lock(), Vec::<String>::new(), "no token was shown twice");
    assert_eq!(world.sessions().len(), before + 1, "one authentication");
}

#[test]
fn fifty_processes_on_one_sidecar_take_one_authentication() {
    let api = Api::start();
    let world = World::new(900);
    api.serve(&world);
    let (_tqs, _authenticator) = (world.tqs(), world.authenticator());
    world.register();
    let before = flushed(&world);
    let processes: Vec<_> = (0..50)
        .map(|_| {
            let mut fetch = command(world.path());
            fetch.args(["fetch", "https://a/v1/query", "--method", "POST", "--timeout", "50", "--json"]);
            fetch.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for process in processes {
        let ended = process.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!((api.runs(), api.shared.refusals.lock().len()), (50, 0));
    assert_eq!(world.sessions().len(), before + 1, "one authentication");
}

#[test]
fn calls_wait_for_what_is_restarted_and_none_is_lost_or_carried_out_twice() {
    let api = Api::start();
    let mut world = World::new(900);
    api.serve(&world);
    let (tqs, authenticator) = (world.tqs(), world.authenticator());
    world.register();
    let over = Arc::new(AtomicBool::new(false));
    let agent = api.runtime.block_on(builder(&world).connect()).unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (agent, over) = (agent.clone(), Arc::clone(&over));
            api.runtime.spawn(async move {
                let mut done = 0;
                while !over.load(Ordering::SeqCst) {
                    let options = CallOptions::new().timeout(Duration::from_secs(40));
                    let answer = agent.fetch_with(request("POST"), &options).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    done += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                done
            })
        })
        .collect();
    let pause = || std::thread::sleep(Duration::from_millis(400));
    pause();
    tqs.kill();
    pause();
    let _tqs = world.tqs();
    pause();
    authenticator.kill();
    pause();
    let _authenticator = world.authenticator();
    pause();
    world.stop_service();
    pause();
    world.start_service();
    api.serve(&world);
    pause();
    // A session that begins now has to be asked for by somebody.
    api.runtime.block_on(agent.authenticate()).unwrap();
    pause();
    over.store(true, Ordering::SeqCst);
    let done: usize = callers.into_iter().map(|caller| api.runtime.block_on(caller).unwrap()).sum();
    assert!(done > 100, "{done}");
    assert_eq!((api.runs(), api.shared.refusals.lock().len()), (done, 0));
}

#[test]
fn a_call_that_needs_the_service_waits_while_it_is_away_and_is_carried_out_once() {
    let api = Api::start();
    let mut world = World::new(900);
    api.serve(&world);
    let (_tqs, _authenticator) = (world.tqs(), world.authenticator());
    world.register();
    let agent = api.runtime.block_on(builder(&world).connect()).unwrap();
    assert_eq!(api.runtime.block_on(together(&agent, 1)), [200]);
    let before = world.sessions().len();
    assert!(world.obol(&["flush", "--all", "--reason", "a drill"]).status.success());
    world.stop_service();
    assert!(world.obol(&["resume"]).status.success());

    // Without the service nothing is sent, and who cannot wait is told why.
    let hasty = CallOptions::new().timeout(Duration::from_millis(700));
    let refused = api.runtime.block_on(agent.fetch_with(request("POST"), &hasty)).unwrap_err();
    assert!(matches!(refused.code(), Code::AuthorityUnreachable | Code::Timeout), "{refused}");
    let calls = api.runtime.spawn({
        let agent = agent.clone();
        async move { together(&agent, 20).await }
    });
    std::thread::sleep(Duration::from_secs(1));
    assert!(!calls.is_finished() && api.runs() == 1, "they wait");
    {
        // No token is presented before the API knows of the service that is there now.
        let mut known = api.shared.authority.lock();
        world.start_service();
        *known = Arc::downgrade(&world.service.as_ref().unwrap().authority);
    }
    assert_eq!(api.runtime.block_on(calls).unwrap(), [200; 20]);
    assert_eq!((api.runs(), api.shared.refusals.lock().len()), (21, 0));
    assert_eq!(world.sessions().len(), before + 1, "one authentication");
}

/// A number among the metrics of a daemon.
fn number(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().unwrap()
}

/// How often somebody was told by the sidecar that there is no session.
fn without_a_session(world: &World) -> u64 {
    number(&crate::sidecar::get(world.path(), "/metrics").1, "obol_requests_total{outcome=\"NO_SESSION\"}")
}

#[test]
fn a_crowd_that_calls_while_sessions_are_renewed_meets_no_gap_and_opens_no_session() {
    let api = Api::start();
    let world = World::new(9);
    api.serve(&world);
    let (_tqs, _authenticator) = (world.tqs(), world.authenticator());
    assert!(!world.obol(&["dequeue", "search", "--wait", "0"]).status.success());
    assert_eq!(without_a_session(&world), 1, "it is counted");
    world.register();
    let agent = api.runtime.block_on(builder(&world).connect()).unwrap();
    let end = tokio::time::Instant::from_std(std::time::Instant::now() + Duration::from_secs(20));
    let callers: Vec<_> = (0..300)
        .map(|number| {
            let (agent, shared) = (agent.clone(), Arc::clone(&api.shared));
            api.runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(5 * number)).await;
                let mut done = 0;
                while tokio::time::Instant::now() < end {
                    let answer = agent.fetch(request("POST")).await.unwrap();
                    assert_eq!(answer.status(), 200, "{:?}", shared.refusals.lock());
                    done += 1;
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                }
                done
            })
        })
        .collect();
    let done: usize = callers.into_iter().map(|caller| api.runtime.block_on(caller).unwrap()).sum();
    assert!(done > 1_000, "{done}");
    assert_eq!((api.runs(), api.shared.refusals.lock().len()), (done, 0));
    assert_eq!(without_a_session(&world), 1, "nobody met a gap");
    // Renewed on time, and by nobody of the crowd.
    let metrics = super::audit::get(world.path(), "/metrics").1;
    let opened = number(&metrics, "obol_auth_sessions_opened_total");
    assert!((3..=10).contains(&opened), "{opened}");
    assert!(!world.agent().clone_suspected);
}

#[test]
fn an_agent_goes_where_the_session_says_and_the_shell_does_too() {
    let api = Api::start();
    let world = World::new(900);
    api.serve(&world);
    let (_tqs, _authenticator) = (world.tqs(), world.authenticator());
    world.register();
    api.runtime.block_on(async {
        let agent = builder(&world).connect().await.unwrap();
        assert_eq!(agent.fetch(request("GET")).await.unwrap().status(), 200);
        // Of three tools two have no routes: they are the audience's own, which nobody listens at.
        let pay = agent.fetch(Request::get("https://elsewhere.example/").body(()).unwrap()).await;
        assert_eq!(pay.unwrap_err().code(), Code::UnknownDestination);
        let mut signed = Request::get("https://a/v1/query").body(()).unwrap();
        agent.sign(&mut signed).await.unwrap();
        assert!(signed.uri().to_string().ends_with("/gate/v1/query"), "{}", signed.uri());
        assert!(signed.headers()["authorization"].is_sensitive());
        assert!(!format!("{signed:?}").contains("TBAC"), "{signed:?}");
    });
    let fetched = world.obol(&["fetch", "https://a/v1/query?q=1", "--include"]);
    assert!(fetched.status.success(), "{fetched:?}");
    assert!(String::from_utf8_lossy(&fetched.stdout).starts_with("HTTP/1.1 200 OK\r\n"));
    for (arguments, exit, code) in [
        (&["https://elsewhere.example/"][..], 2, "UNKNOWN_DESTINATION"),
        (&["https://a/../x"], 2, "INVALID_ARGUMENT"),
        (&["http://a/v1"], 2, "INVALID_ARGUMENT"),
        (&["https://b/v1", "--tool", "search"], 2, "UNKNOWN_DESTINATION"),
        (&["https://a/v1", "-H", "Authorization: Bearer x"], 2, "INVALID_ARGUMENT"),
    ] {
        let refused = world.obol(&[&["fetch", "--json"], arguments].concat());
        let told: serde_json::Value = serde_json::from_slice(&refused.stderr).unwrap();
        assert_eq!(
            (refused.status.code(), told["error"]["code"].as_str()),
            (Some(exit), Some(code)),
            "{arguments:?}"
        );
        assert!(refused.stdout.is_empty());
    }
    assert_eq!(api.runs(), 2);
}
