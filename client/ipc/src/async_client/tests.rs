//! The shared client against daemons that follow a script, over real sockets.

use std::collections::HashSet;
use std::io::Write;
use std::thread;

use obol_ipc::codec::{Codec, Request};
use obol_ipc::hello::{HelloRefusal, HelloRefusalCode};
use obol_ipc::names::MAX_AUDIENCE_BYTES;
use obol_ipc::refusal::{ErrorCode, Refusal};
use tokio::task::JoinSet;

use super::*;
use crate::tests::daemon::{Conversation, Daemon, dequeued, options, tool};

/// The longest wait: calls that use it do not time out while a test runs.
const WAIT: Duration = Duration::from_secs(30);

/// Runs out in a test, and yet leaves a busy machine the time for a hello.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

fn status(queue_depth: u64) -> AgentReply {
    let (session_active, renewal_pending) = (true, false);
    AgentReply::TokenStatus(TokenStatusResult {
        queue_depth,
        ttl: 5,
        session_active,
        renewal_pending,
        retry_after_ms: None,
        tools: None,
        next: None,
        sealed: false,
    })
}

fn take(agent: &mut Conversation<AgentProtocol>, count: usize) -> Vec<Request<AgentProtocol>> {
    (0..count).map(|_| agent.request().unwrap()).collect()
}

/// Waits for the script without holding up the runtime, which still has connections to close.
async fn ended<T: Send + 'static>(script: thread::JoinHandle<T>) -> T {
    spawn_blocking(move || script.join().unwrap()).await.unwrap()
}

fn spawn_dequeues(client: &AsyncClient, count: usize) -> JoinSet<Result<DequeueTokenResult, CallError>> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let client = client.clone();
        calls.spawn(async move { client.dequeue_token(&tool(), WAIT).await });
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_any_order_reach_their_askers() {
    for codec in [Codec::Json, Codec::Bincode] {
        let daemon = Daemon::new();
        let endpoint = daemon.endpoint();
        let script = thread::spawn(move || {
            let mut agent = daemon.accept();
            let mut requests = take(&mut agent, 50);
            requests.reverse();
            for Request { id, call } in requests {
                let AgentRequest::DequeueToken(params) = call else { panic!() };
                // The tool's name is the token: each asker can tell whether it got its own.
                agent.send(&id, &Ok(dequeued(params.tool.as_str()))).unwrap();
            }
            assert!(agent.request().is_none());
        });
        let client = AsyncClient::connect(endpoint, ConnectOptions { codec, ..options() }).await.unwrap();
        let mut calls = JoinSet::new();
        for number in 0..50 {
            let client = client.clone();
            calls.spawn(async move {
                let name = format!("tool-{number}");
                let drawn = client.dequeue_token(&ToolName::new(name.clone()).unwrap(), WAIT).await.unwrap();
                assert_eq!(drawn.token.expose(), name);
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        drop(client);
        ended(script).await;
    }
}

#[tokio::test]
async fn every_method_returns_what_the_daemon_answers() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        let AgentRequest::DequeueToken(params) = agent.answer(&Ok(dequeued("dG9r"))) else { panic!() };
        assert_eq!(params.audience.unwrap().as_str(), "https://api");
        agent.answer(&Ok(status(3)));
        let AgentRequest::TokenStatus(params) = agent.answer(&Ok(status(2))) else { panic!() };
        assert_eq!(
            (params.tool, params.audience),
            (Some(tool()), Some(Audience::new("https://api").unwrap()))
        );
        agent.answer(&Err(Refusal::no_session()));
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    let audience = Audience::new("https://api").unwrap();
    let drawn = client.dequeue_token_for(&tool(), &audience, Duration::ZERO).await.unwrap();
    assert_eq!(drawn.token.expose(), "dG9r");
    assert_eq!(client.token_status(None).await.unwrap().queue_depth, 3);
    assert_eq!(client.token_status_for(&tool(), &audience).await.unwrap().queue_depth, 2);
    let error = client.session_info().await.unwrap_err();
    assert_eq!(error.refusal().unwrap().code(), ErrorCode::NoSession);
    ended(script).await;
}

#[tokio::test]
async fn dequeues_whose_answers_are_lost_are_reported_and_never_repeated() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        let requests = take(&mut agent, 10);
        agent.send(&requests[4].id, &Ok(dequeued("dG9r"))).unwrap();
        drop(agent);
        daemon
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    let mut answered = 0;
    let mut calls = spawn_dequeues(&client, 10);
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            Ok(_) => answered += 1,
            Err(CallError::MayHaveBeenHandedOut(Lost::Closed)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(answered, 1);
    assert!(!ended(script).await.has_caller(), "the client connected again");
}

#[tokio::test]
async fn a_restarted_daemon_with_a_recreated_socket_is_found_again() {
    let mut daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.answer(&Ok(dequeued("YQ")));
        drop(agent);
        daemon.restart();
        daemon
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    client.dequeue_token(&tool(), Duration::ZERO).await.unwrap();
    let daemon = ended(script).await;
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        let requests = take(&mut agent, 20);
        for request in &requests {
            agent.send(&request.id, &Ok(dequeued("Yg"))).unwrap();
        }
        daemon
    });
    // All of them find the old connection gone; one opens the new one, and all use it.
    let mut calls = spawn_dequeues(&client, 20);
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap().unwrap().token.expose(), "Yg");
    }
    assert!(!ended(script).await.has_caller());
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_an_error_that_says_nothing_was_sent() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        drop(daemon.accept());
        daemon.stop()
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    let _directory = ended(script).await;
    let error = client.dequeue_token(&tool(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(ConnectError::NotListening { .. })), "{error}");
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let (all_taken, taken) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        let requests = take(&mut agent, MAX_IN_FLIGHT);
        all_taken.send(()).unwrap();
        may_go_on.recv().unwrap();
        for request in &requests {
            agent.send(&request.id, &Ok(dequeued("dG9r"))).unwrap();
        }
        agent.answer(&Ok(status(0)));
    });
    let options = ConnectOptions { answer_timeout: SHORT_PATIENCE, ..options() };
    let client = AsyncClient::connect(endpoint, options).await.unwrap();
    let mut calls = spawn_dequeues(&client, MAX_IN_FLIGHT);
    taken.await.unwrap();
    let error = client.token_status(None).await.unwrap_err();
    assert!(matches!(error, CallError::TooManyInFlight), "{error}");
    go_on.send(()).unwrap();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    client.token_status(None).await.unwrap();
    ended(script).await;
}

#[tokio::test]
async fn a_daemon_that_reads_late_gets_every_request_once() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        may_go_on.recv().unwrap();
        let mut seen = HashSet::new();
        for request in take(&mut agent, MAX_IN_FLIGHT) {
            assert!(seen.insert(request.id.clone()));
            agent.send(&request.id, &Ok(dequeued("dG9r"))).unwrap();
        }
        assert!(agent.request().is_none());
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    // More than a socket buffers, so that frames are left in the backlog, one of them in part.
    let audience = Audience::new("a".repeat(MAX_AUDIENCE_BYTES)).unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..MAX_IN_FLIGHT {
        let (client, audience) = (client.clone(), audience.clone());
        calls.spawn(async move { client.dequeue_token_for(&tool(), &audience, WAIT).await });
    }
    tokio::task::yield_now().await;
    go_on.send(()).unwrap();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    drop(client);
    ended(script).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_disturbs_no_other() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let (taken, given_up_may_follow) = tokio::sync::oneshot::channel();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        let given_up = agent.request().unwrap();
        taken.send(()).unwrap();
        let other = agent.request().unwrap();
        agent.send(&given_up.id, &Ok(dequeued("bG9zdA"))).unwrap();
        agent.send(&other.id, &Ok(dequeued("bmV4dA"))).unwrap();
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    let doomed = tokio::spawn({
        let client = client.clone();
        async move { client.dequeue_token(&tool(), WAIT).await }
    });
    given_up_may_follow.await.unwrap();
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    assert_eq!(client.dequeue_token(&tool(), WAIT).await.unwrap().token.expose(), "bmV4dA");
    ended(script).await;
}

#[tokio::test]
async fn after_silence_the_next_call_uses_a_new_connection() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut silent = daemon.accept();
        silent.request().unwrap();
        let mut agent = daemon.accept();
        agent.answer(&Ok(dequeued("bmV4dA")));
        // The old connection is closed, because nobody waits on it any more.
        assert!(silent.request().is_none());
    });
    let options = ConnectOptions { answer_timeout: SHORT_PATIENCE, ..options() };
    let client = AsyncClient::connect(endpoint, options).await.unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::TimedOut)), "{error}");
    assert_eq!(client.dequeue_token(&tool(), WAIT).await.unwrap().token.expose(), "bmV4dA");
    ended(script).await;
}

#[tokio::test]
async fn an_answer_that_is_none_ends_the_connection_for_all() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        for answer in [&b"\x00\x00\x00\x05hello"[..], b"\xff\xff\xff\xff"] {
            let mut agent = daemon.accept();
            take(&mut agent, 2);
            agent.stream.write_all(answer).unwrap();
            assert!(agent.request().is_none());
        }
        let mut agent = daemon.accept();
        take(&mut agent, 1);
        let refusal = Refusal::new(ErrorCode::ParseError, "no such codec");
        let frame = agent.codec.encode_response::<AgentProtocol>(None, Err(&refusal)).unwrap();
        agent.stream.write_all(frame.as_bytes()).unwrap();
    });
    let client = AsyncClient::connect(endpoint, options()).await.unwrap();
    for _ in 0..2 {
        let mut calls = spawn_dequeues(&client, 2);
        while let Some(call) = calls.join_next().await {
            let error = call.unwrap().unwrap_err();
            assert!(
                matches!(error, CallError::MayHaveBeenHandedOut(Lost::Answer(_) | Lost::Frame(_))),
                "{error}"
            );
        }
    }
    let error = client.token_status(None).await.unwrap_err();
    assert!(error.to_string().contains("no such codec"), "{error}");
    ended(script).await;
}

#[tokio::test]
async fn a_client_that_is_turned_away_says_why() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut caller = Conversation::<AgentProtocol>::ungreeted(&daemon);
        caller.read(|_| ()).unwrap();
        let refusal = HelloRefusal::new(HelloRefusalCode::Unavailable, "the daemon is stopping");
        caller.stream.write_all(refusal.encode().unwrap().as_bytes()).unwrap();
    });
    let error = AsyncClient::connect(endpoint, options()).await.unwrap_err();
    assert!(error.to_string().contains("the daemon is stopping"), "{error}");
    ended(script).await;
}
