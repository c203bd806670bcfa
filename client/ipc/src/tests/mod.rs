//! The blocking clients against daemons that follow a script, over real sockets.

pub(crate) mod daemon;

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread;

use obol_ipc::Endpoint;
use obol_ipc::codec::{Codec, RequestId};
use obol_ipc::control::{
    AllowResult, ControlProtocol, ControlReply, ControlRequest, DeniedTool, DenyResult, FlushResult,
    FlushScope, HealthResult, HoldStatus, ProvisionResult, ResumeResult, StatusResult,
};
use obol_ipc::frame::EncodeError;
use obol_ipc::hello::{HelloError, HelloRefusal, HelloRefusalCode, ServerHello};
use obol_ipc::message::{
    AgentProtocol, AgentReply, AgentRequest, Empty, SessionInfoResult, TokenStatusResult,
};
use obol_ipc::names::{AgentInstanceId, Audience, EventKind, PeerName, Reason, SessionId, ToolName};
use obol_ipc::numbers::AlgorithmSuite;
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_ipc::secret::SessionDocumentText;
use obol_ipc::time::UtcTime;

use self::daemon::{Conversation, Daemon, dequeued, options, tool};
use crate::client::{CallError, Client, ControlClient, dequeue_params};
use crate::connect::{ConnectError, ConnectOptions, Lost};

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

#[test]
fn every_method_of_the_agents_socket_returns_what_the_daemon_answers() {
    for codec in [Codec::Json, Codec::Bincode] {
        let daemon = Daemon::new();
        let endpoint = daemon.endpoint();
        let script = thread::spawn(move || {
            let mut agent = daemon.accept();
            let AgentRequest::DequeueToken(params) = agent.answer(&Ok(dequeued("dG9rMQ"))) else { panic!() };
            assert_eq!((params.tool, params.wait_ms.as_millis(), params.audience), (tool(), 1_500, None));
            let AgentRequest::DequeueToken(params) = agent.answer(&Ok(dequeued("dG9rMg"))) else { panic!() };
            assert_eq!(params.audience.unwrap().as_str(), "https://api");
            let AgentRequest::TokenStatus(params) = agent.answer(&Ok(status(3))) else { panic!() };
            assert_eq!(params.tool, Some(tool()));
            agent.answer(&Ok(AgentReply::SessionInfo(SessionInfoResult {
                session_id: SessionId::from_u64(1),
                agent_instance_id: AgentInstanceId::new("agent").unwrap(),
                established_at: UtcTime::from_unix_seconds(10),
                algorithm_suite: AlgorithmSuite::new(1).unwrap(),
                expires_at: UtcTime::from_unix_seconds(20),
            })));
        });
        let mut client = Client::connect(endpoint, ConnectOptions { codec, ..options() }).unwrap();
        let drawn = client.dequeue_token(&tool(), Duration::from_millis(1_500)).unwrap();
        assert_eq!(drawn.token.expose(), "dG9rMQ");
        let audience = Audience::new("https://api").unwrap();
        let drawn = client.dequeue_token_for(&tool(), &audience, Duration::ZERO).unwrap();
        assert_eq!(drawn.token.expose(), "dG9rMg");
        assert_eq!(client.token_status(Some(&tool())).unwrap().queue_depth, 3);
        assert_eq!(client.session_info().unwrap().expires_at.unix_seconds(), 20);
        script.join().unwrap();
    }
}

/// One page of status; `next` is where the next one begins.
fn control_status(denied: &str, next: Option<u64>) -> ControlReply {
    let denied = DeniedTool { tool: ToolName::new(denied).unwrap(), by_operator: true, by_policy: false };
    ControlReply::Status(StatusResult {
        version: "0.1.0".to_owned(),
        pid: 7,
        uid: 1000,
        agent_users: Vec::new(),
        uptime_seconds: 8,
        sessions: Vec::new(),
        tools: Vec::new(),
        denials: BTreeMap::new(),
        next,
        hold: None,
        denied: vec![denied],
    })
}

fn flushed() -> FlushResult {
    FlushResult {
        sessions_ended: 1,
        partitions: 2,
        tokens_discarded: 3,
        sessions: vec![SessionId::from_u64(5)],
        held: true,
    }
}

/// Answers each of the control socket's methods once, in the order in which the test below calls them.
fn answer_an_operator(operator: &mut Conversation<ControlProtocol>) {
    let provisioned = ProvisionResult { session_id: SessionId::from_u64(1), grants: 4 };
    let request = operator.answer(&Ok(ControlReply::Provision(provisioned)));
    let ControlRequest::Provision(params) = request else { panic!() };
    assert_eq!(params.session.expose(), r#"{"key":"c2VjcmV0"}"#);
    let request = operator.answer(&Ok(ControlReply::Flush(flushed())));
    assert!(matches!(request, ControlRequest::Flush(params) if params.scope == FlushScope::All));
    operator.answer(&Ok(ControlReply::SecurityEvent(flushed())));
    let request = operator.answer(&Ok(ControlReply::Policy(Empty {})));
    let ControlRequest::Policy(params) = request else { panic!() };
    assert_eq!((params.epoch, params.denied_tools), (9, vec![tool()]));
    operator.answer(&Ok(control_status("pay", None)));
    let reason = Some("store failed".to_owned());
    operator.answer(&Ok(ControlReply::Health(HealthResult { ready: false, reason })));
    operator.answer(&Ok(ControlReply::Drain(Empty {})));
    let since = UtcTime::from_unix_seconds(9);
    let hold = HoldStatus { since, scope: "all".to_owned(), reason: "key leaked".to_owned() };
    operator.answer(&Ok(ControlReply::Resume(ResumeResult { hold: Some(hold) })));
    let denied = operator.answer(&Ok(ControlReply::Deny(DenyResult { granted: true })));
    assert!(matches!(denied, ControlRequest::Deny(params) if params.tool == tool()));
    let allowed = AllowResult { was_denied: true, denied_by_policy: false };
    let allowed = operator.answer(&Ok(ControlReply::Allow(allowed)));
    assert!(matches!(allowed, ControlRequest::Allow(params) if params.tool == tool()));
}

#[test]
fn every_method_of_the_control_socket_returns_what_the_daemon_answers() {
    for codec in [Codec::Json, Codec::Bincode] {
        let daemon = Daemon::new();
        let endpoint = daemon.endpoint();
        let script = thread::spawn(move || answer_an_operator(&mut daemon.accept_operator()));
        let mut client = ControlClient::connect(endpoint, ConnectOptions { codec, ..options() }).unwrap();
        let reason = || Reason::new("key leaked").unwrap();
        let session = SessionDocumentText::new(r#"{"key":"c2VjcmV0"}"#).unwrap();
        assert_eq!(client.provision(session).unwrap().grants, 4);
        assert_eq!(client.flush(FlushScope::All, reason()).unwrap(), flushed());
        let kind = EventKind::new("session-revoked").unwrap();
        assert_eq!(client.security_event(kind, FlushScope::Tool(tool()), reason()).unwrap(), flushed());
        client.policy(9, vec![tool()]).unwrap();
        assert_eq!(client.status().unwrap().pid, 7);
        assert!(!client.health().unwrap().ready);
        client.drain().unwrap();
        assert_eq!(client.resume().unwrap().hold.unwrap().scope, "all");
        assert!(client.deny(tool()).unwrap().granted);
        assert!(client.allow(tool()).unwrap().was_denied);
        script.join().unwrap();
    }
}

#[test]
fn a_status_in_pages_is_put_together_and_each_page_is_asked_for_where_the_last_one_said() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut operator = daemon.accept_operator();
        let pages = [("a", None, Some(4)), ("b", Some(4), Some(9)), ("c", Some(9), None)];
        for (denied, from, next) in pages {
            let request = operator.answer(&Ok(control_status(denied, next)));
            assert!(matches!(request, ControlRequest::Status(params) if params.from == from));
        }
    });
    let mut client = ControlClient::connect(endpoint, options()).unwrap();
    let status = client.status().unwrap();
    let denied: Vec<_> = status.denied.iter().map(|denied| denied.tool.as_str()).collect();
    assert_eq!((denied, status.next), (vec!["a", "b", "c"], None));
    script.join().unwrap();
}

#[test]
fn a_refusal_arrives_with_its_code_and_the_connection_stays() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.answer(&Err(Refusal::queue_empty(true, Duration::from_millis(250))));
        agent.answer(&Ok(status(1)));
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    let code = error.refusal().unwrap().code();
    assert_eq!(code, ErrorCode::QueueEmpty { renewal_pending: true, retry_after_ms: 250 });
    assert_eq!(code.retry_after(), Some(Duration::from_millis(250)));
    client.token_status(None).unwrap();
    script.join().unwrap();
}

#[test]
fn a_dequeue_whose_answer_is_lost_is_reported_and_never_repeated() {
    for codec in [Codec::Json, Codec::Bincode] {
        let daemon = Daemon::new();
        let endpoint = daemon.endpoint();
        let script = thread::spawn(move || {
            let mut agent = daemon.accept();
            let request = agent.request().unwrap();
            assert!(matches!(request.call, AgentRequest::DequeueToken(_)));
            drop(agent);
            daemon
        });
        let mut client = Client::connect(endpoint, ConnectOptions { codec, ..options() }).unwrap();
        let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
        assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::Closed)), "{error}");
        assert!(error.to_string().contains("may have been handed out"), "{error}");
        assert!(!script.join().unwrap().has_caller(), "the client connected again");
    }
}

#[test]
fn a_dequeue_answered_in_part_is_reported_and_never_repeated() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        let id = agent.request().unwrap().id;
        let frame = agent.codec.encode_response::<AgentProtocol>(Some(&id), Ok(&dequeued("dG9r"))).unwrap();
        let bytes = frame.as_bytes();
        agent.stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
        drop(agent);
        daemon
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::Closed)), "{error}");
    assert!(!script.join().unwrap().has_caller());
}

#[test]
fn other_requests_whose_answer_is_lost_are_not_repeated_either() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut operator = daemon.accept_operator();
        operator.request().unwrap();
        drop(operator);
        daemon
    });
    let mut client = ControlClient::connect(endpoint, options()).unwrap();
    let error = client.flush(FlushScope::All, Reason::new("test").unwrap()).unwrap_err();
    assert!(matches!(error, CallError::Unanswered(Lost::Closed)), "{error}");
    assert!(!script.join().unwrap().has_caller());
}

#[test]
fn a_restarted_daemon_with_a_recreated_socket_is_found_again() {
    let mut daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.answer(&Ok(dequeued("YQ")));
        drop(agent);
        daemon.restart();
        daemon
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    assert_eq!(client.dequeue_token(&tool(), Duration::ZERO).unwrap().token.expose(), "YQ");
    let daemon = script.join().unwrap();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.answer(&Ok(dequeued("Yg")));
        daemon
    });
    assert_eq!(client.dequeue_token(&tool(), Duration::ZERO).unwrap().token.expose(), "Yg");
    assert!(!script.join().unwrap().has_caller());
}

#[test]
fn a_daemon_that_is_gone_is_an_error_that_says_nothing_was_sent() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        drop(daemon.accept());
        daemon.stop()
    });
    let mut client = Client::connect(endpoint.clone(), options()).unwrap();
    let _directory = script.join().unwrap();
    for _ in 0..2 {
        let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
        assert!(matches!(error, CallError::NotSent(ConnectError::NotListening { .. })), "{error}");
    }
    std::fs::remove_file(endpoint.path()).unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, CallError::NotSent(ConnectError::NoSocket { .. })), "{error}");
    assert!(error.to_string().contains("obol tqs"), "{error}");
}

#[test]
fn an_answer_that_comes_too_late_never_meets_the_next_request() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut silent = daemon.accept();
        let late = silent.request().unwrap();
        let mut agent = daemon.accept();
        let _ = silent.send(&late.id, &Ok(dequeued("bGF0ZQ")));
        agent.answer(&Ok(dequeued("bmV4dA")));
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    client.set_answer_timeout(Duration::from_millis(50));
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::TimedOut)), "{error}");
    client.set_answer_timeout(Duration::from_secs(10));
    assert_eq!(client.dequeue_token(&tool(), Duration::ZERO).unwrap().token.expose(), "bmV4dA");
    script.join().unwrap();
}

#[test]
fn an_answer_to_another_request_is_not_taken() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.request().unwrap();
        agent.send(&RequestId::Number(u64::MAX), &Ok(dequeued("dG9r"))).unwrap();
        let mut agent = daemon.accept();
        let request = agent.request().unwrap();
        agent.send(&request.id, &Ok(dequeued("dG9r"))).unwrap();
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::Answer(_))), "{error}");
    // The method does not fit either.
    let error = client.token_status(None).unwrap_err();
    assert!(matches!(error, CallError::Unanswered(Lost::Answer(_))), "{error}");
    script.join().unwrap();
}

#[test]
fn a_refusal_without_an_id_belongs_to_the_only_request_there_is() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.request().unwrap();
        let refusal = Refusal::new(ErrorCode::ParseError, "not JSON");
        let frame = agent.codec.encode_response::<AgentProtocol>(None, Err(&refusal)).unwrap();
        agent.stream.write_all(frame.as_bytes()).unwrap();
        agent.request().unwrap();
        let frame = agent.codec.encode_response::<AgentProtocol>(None, Ok(&dequeued("dG9r"))).unwrap();
        agent.stream.write_all(frame.as_bytes()).unwrap();
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert_eq!(error.refusal().unwrap().code(), ErrorCode::ParseError);
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::Answer(_))), "{error}");
    script.join().unwrap();
}

#[test]
fn a_forbidden_frame_ends_the_connection() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = daemon.accept();
        agent.request().unwrap();
        agent.stream.write_all(&[0xff; 8]).unwrap();
        assert!(agent.request().is_none());
    });
    let mut client = Client::connect(endpoint, options()).unwrap();
    let error = client.dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, CallError::MayHaveBeenHandedOut(Lost::Frame(_))), "{error}");
    script.join().unwrap();
}

#[test]
fn what_cannot_be_asked_is_refused_before_anything_is_sent() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut operator = daemon.accept_operator();
        assert!(operator.request().is_none());
    });
    let mut client = ControlClient::connect(endpoint, options()).unwrap();
    let document = SessionDocumentText::new(format!("{{\"key\":\"{}\"}}", "k".repeat(65_536))).unwrap();
    let error = client.provision(document).unwrap_err();
    assert!(matches!(error, CallError::Encode(EncodeError::TooLong)), "{error}");
    drop(client);
    script.join().unwrap();
    let error = dequeue_params(&tool(), None, None, Duration::from_secs(31)).unwrap_err();
    assert!(error.to_string().contains("waitMs must be"), "{error}");
}

#[test]
fn a_client_that_is_turned_away_says_why() {
    for before_reading in [true, false] {
        let daemon = Daemon::new();
        let endpoint = daemon.endpoint();
        let script = thread::spawn(move || {
            let mut caller = Conversation::<AgentProtocol>::ungreeted(&daemon);
            if !before_reading {
                caller.read(|_| ()).unwrap();
            }
            let refusal = HelloRefusal::new(HelloRefusalCode::Overloaded, "too many connections; try later");
            caller.stream.write_all(refusal.encode().unwrap().as_bytes()).unwrap();
        });
        let error = Client::connect(endpoint, options()).unwrap_err();
        let ConnectError::Hello(HelloError::Refused { code, message }) = error else { panic!("{error}") };
        assert_eq!((&*code, &*message), ("OVERLOADED", "too many connections; try later"));
        script.join().unwrap();
    }
}

#[test]
fn what_is_no_daemon_is_recognised() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut caller = Conversation::<AgentProtocol>::ungreeted(&daemon);
        caller.read(|_| ()).unwrap();
        caller.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        drop(caller);
        let mut caller = Conversation::<AgentProtocol>::ungreeted(&daemon);
        caller.read(|_| ()).unwrap();
        drop(caller);
    });
    let error = Client::connect(endpoint.clone(), options()).unwrap_err();
    assert!(matches!(error, ConnectError::NoHello(Lost::Frame(_))), "{error}");
    let error = Client::connect(endpoint, options()).unwrap_err();
    assert!(matches!(error, ConnectError::NoHello(Lost::Closed)), "{error}");
    script.join().unwrap();
}

#[test]
fn the_daemons_choice_of_codec_counts() {
    let daemon = Daemon::new();
    let endpoint = daemon.endpoint();
    let script = thread::spawn(move || {
        let mut agent = Conversation::<AgentProtocol>::ungreeted(&daemon);
        agent.read(|_| ()).unwrap();
        let hello = ServerHello { codec: Codec::Json, server: PeerName::new("obol/0").unwrap() };
        agent.stream.write_all(hello.encode().unwrap().as_bytes()).unwrap();
        agent.answer(&Ok(status(1)));
    });
    let options = ConnectOptions { codec: Codec::Bincode, ..options() };
    let mut client = Client::connect(endpoint, options).unwrap();
    assert_eq!(client.token_status(None).unwrap().queue_depth, 1);
    script.join().unwrap();
}

#[test]
fn a_daemon_that_accepts_nobody_does_not_hold_the_client_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let options = ConnectOptions { answer_timeout: Duration::from_millis(20), ..options() };
    let endpoint = Endpoint::at(&path).unwrap();
    // There is room for one, who waits for a hello in vain, and for no more.
    let error = Client::connect(endpoint.clone(), options.clone()).unwrap_err();
    assert!(matches!(error, ConnectError::NoHello(Lost::TimedOut)), "{error}");
    let error = Client::connect(endpoint, options).unwrap_err();
    assert!(matches!(error, ConnectError::NotAccepted { .. }), "{error}");
}
