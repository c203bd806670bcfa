//! What holds for both codecs and both protocols.

use core::fmt::Debug;
use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::*;
use crate::auth_control::*;
use crate::control::*;
use crate::frame::MAX_BODY_BYTES;
use crate::message::*;
use crate::names::*;
use crate::numbers::*;
use crate::proof::{ArgumentsHash, ProofAlgorithm, ProofSignature};
use crate::rs_control::*;
use crate::secret::{ChannelText, SessionDocumentText, TokenText};
use crate::time::UtcTime;

const CODECS: [Codec; 2] = [Codec::Json, Codec::Bincode];

fn tool() -> impl Strategy<Value = ToolName> {
    "[!-~]{1,40}".prop_map(|text| ToolName::new(text).unwrap())
}

fn audience() -> impl Strategy<Value = Audience> {
    "[ -~\u{e9}\u{4e2d}]{1,60}".prop_map(|text| Audience::new(text).unwrap())
}

fn agent() -> impl Strategy<Value = AgentInstanceId> {
    "[!-~]{1,40}".prop_map(|text| AgentInstanceId::new(text).unwrap())
}

fn reason() -> impl Strategy<Value = Reason> {
    "[ -~\u{e9}]{1,60}".prop_map(|text| Reason::new(text).unwrap())
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<u64>().prop_map(SessionId::from_u64)
}

fn time() -> impl Strategy<Value = UtcTime> {
    any::<u64>().prop_map(UtcTime::from_unix_seconds)
}

fn suite() -> impl Strategy<Value = AlgorithmSuite> {
    (1_u8..=4).prop_map(|number| AlgorithmSuite::new(number).unwrap())
}

fn scope() -> impl Strategy<Value = FlushScope> {
    prop_oneof![
        Just(FlushScope::All),
        session().prop_map(FlushScope::Session),
        tool().prop_map(FlushScope::Tool),
        agent().prop_map(FlushScope::Agent),
    ]
}

fn id() -> impl Strategy<Value = RequestId> {
    prop_oneof![
        any::<u64>().prop_map(RequestId::Number),
        any::<[u8; 16]>().prop_map(|bytes| RequestId::text(String::from_utf8_lossy(&bytes)).unwrap()),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let code = prop_oneof![
        Just(ErrorCode::ParseError),
        Just(ErrorCode::InvalidRequest),
        Just(ErrorCode::MethodNotAllowed),
        Just(ErrorCode::InvalidArgument),
        (any::<bool>(), any::<u64>()).prop_map(|(renewal_pending, retry_after_ms)| ErrorCode::QueueEmpty {
            renewal_pending,
            retry_after_ms
        }),
        Just(ErrorCode::PolicyDeny),
        Just(ErrorCode::NoSession),
        Just(ErrorCode::SessionFlushed),
        any::<u64>().prop_map(|retry_after_ms| ErrorCode::Overloaded { retry_after_ms }),
        Just(ErrorCode::Unavailable),
        Just(ErrorCode::NotRegistered),
        Just(ErrorCode::Suspended),
        any::<u64>().prop_map(|retry_after_ms| ErrorCode::AuthorityUnreachable { retry_after_ms }),
    ];
    (code, any::<String>()).prop_map(|(code, message)| Refusal::new(code, message))
}

fn agent_request() -> impl Strategy<Value = AgentRequest> {
    prop_oneof![
        (
            tool(),
            0..=MAX_WAIT_MS,
            option::of(audience()),
            option::of(any::<[u8; 32]>()),
            option::of("[!-~]{1,40}")
        )
            .prop_map(|(tool, wait, audience, hash, approval)| {
                let wait_ms = WaitMs::new(wait).unwrap();
                let pop_for = hash.map(ArgumentsHash::from_bytes);
                let approval_id = approval.map(|id| Label::new(id).unwrap());
                AgentRequest::DequeueToken(DequeueTokenParams {
                    tool,
                    wait_ms,
                    audience,
                    pop_for,
                    approval_id,
                })
            }),
        (option::of(tool()), option::of(any::<u64>()), option::of(audience())).prop_map(
            |(tool, from, audience)| AgentRequest::TokenStatus(TokenStatusParams { tool, from, audience })
        ),
        Just(()).prop_map(|()| AgentRequest::SessionInfo(Empty {})),
    ]
}

fn channel() -> impl Strategy<Value = TokenChannel> {
    (any::<bool>(), vec("[A-Za-z0-9_-]{1,60}", 5)).prop_map(|(aes, texts)| {
        let mut texts = texts.into_iter().map(|text| ChannelText::new(text).unwrap());
        let mut next = || texts.next().unwrap();
        TokenChannel {
            alg: if aes { ChannelAlgorithm::Aes256Gcm } else { ChannelAlgorithm::ChaCha20Poly1305 },
            request_key: next(),
            request_aad: next(),
            response_key: next(),
            response_iv: next(),
            response_aad: next(),
        }
    })
}

fn agent_reply() -> impl Strategy<Value = AgentReply> {
    let tools = option::of(btree_map(tool(), any::<u64>(), 0..5));
    prop_oneof![
        ("[A-Za-z0-9_-]{1,600}", tool(), any::<u64>(), option::of(channel())).prop_map(
            |(token, tool, expires_at, channel)| {
                let token = TokenText::new(token).unwrap();
                let sig = ProofSignature::from_bytes([expires_at.to_le_bytes()[0]; 64]);
                let pop = (expires_at % 2 == 0).then_some(TokenProof { alg: ProofAlgorithm::Ed25519, sig });
                AgentReply::DequeueToken(DequeueTokenResult { token, tool, expires_at, channel, pop })
            }
        ),
        (any::<u64>(), any::<u64>(), any::<bool>(), any::<bool>(), any::<Option<u64>>(), tools).prop_map(
            |(queue_depth, ttl, session_active, renewal_pending, retry_after_ms, tools)| {
                AgentReply::TokenStatus(TokenStatusResult {
                    queue_depth,
                    ttl,
                    session_active,
                    renewal_pending,
                    retry_after_ms,
                    tools,
                    next: None,
                    sealed: ttl % 2 == 0,
                })
            }
        ),
        (session(), agent(), time(), suite(), time()).prop_map(
            |(session_id, agent_instance_id, established_at, algorithm_suite, expires_at)| {
                AgentReply::SessionInfo(SessionInfoResult {
                    session_id,
                    agent_instance_id,
                    established_at,
                    algorithm_suite,
                    expires_at,
                })
            }
        ),
    ]
}

fn control_request() -> impl Strategy<Value = ControlRequest> {
    Union::new([
        (any::<u64>(), "[a-z \u{e9}]{0,20}", any::<bool>())
            .prop_map(|(key, value, resume)| {
                let document = serde_json::json!({ "key": key, "nested": { "value": [value, null] } });
                let session = SessionDocumentText::new(document.to_string()).unwrap();
                ControlRequest::Provision(ProvisionParams { session, resume })
            })
            .boxed(),
        (scope(), reason())
            .prop_map(|(scope, reason)| ControlRequest::Flush(FlushParams { scope, reason }))
            .boxed(),
        ("[!-~]{1,40}", scope(), reason())
            .prop_map(|(kind, subject, reason)| {
                let kind = EventKind::new(kind).unwrap();
                ControlRequest::SecurityEvent(SecurityEventParams { kind, subject, reason })
            })
            .boxed(),
        (any::<u64>(), vec(tool(), 0..5))
            .prop_map(|(epoch, denied_tools)| ControlRequest::Policy(PolicyParams { epoch, denied_tools }))
            .boxed(),
        any::<Option<u64>>().prop_map(|from| ControlRequest::Status(StatusParams { from })).boxed(),
        Just(()).prop_map(|()| ControlRequest::Health(Empty {})).boxed(),
        Just(()).prop_map(|()| ControlRequest::Drain(Empty {})).boxed(),
        Just(()).prop_map(|()| ControlRequest::Resume(Empty {})).boxed(),
        tool().prop_map(|tool| ControlRequest::Deny(ToolParams { tool })).boxed(),
        tool().prop_map(|tool| ControlRequest::Allow(ToolParams { tool })).boxed(),
        any::<u64>()
            .prop_map(|heard_seconds_ago| ControlRequest::Lease(LeaseParams { heard_seconds_ago }))
            .boxed(),
    ])
}

fn flush_result() -> impl Strategy<Value = FlushResult> {
    (any::<[u64; 3]>(), vec(session(), 0..5), any::<bool>()).prop_map(|(numbers, sessions, held)| {
        let [sessions_ended, partitions, tokens_discarded] = numbers;
        FlushResult { sessions_ended, partitions, tokens_discarded, sessions, held }
    })
}

fn hold() -> impl Strategy<Value = HoldStatus> {
    (time(), any::<String>(), any::<String>()).prop_map(|(since, scope, reason)| HoldStatus {
        since,
        scope,
        reason,
    })
}

fn status() -> impl Strategy<Value = StatusResult> {
    let state = prop::sample::select(&[
        SessionState::Active,
        SessionState::Expired,
        SessionState::Flushed,
        SessionState::Held,
        SessionState::Lapsed,
    ]);
    let session = (session(), agent(), suite(), time(), state, option::of(time())).prop_map(
        |(session_id, agent_instance_id, algorithm_suite, expires_at, state, lease_ends_at)| SessionStatus {
            session_id,
            agent_instance_id,
            algorithm_suite,
            expires_at,
            state,
            lease_ends_at,
        },
    );
    let flags = (any::<[bool; 2]>(), any::<Option<u64>>());
    let tool = (self::session(), tool(), audience(), any::<[u64; 7]>(), flags).prop_map(
        |(session_id, tool, audience, numbers, ([denied, renewal_pending], retry_after_ms))| ToolStatus {
            session_id,
            tool,
            audience,
            ready: numbers[0],
            stored: numbers[1],
            handed_out: numbers[2],
            minted: numbers[3],
            expired: numbers[4],
            discarded: numbers[5],
            ttl: numbers[6],
            denied,
            renewal_pending,
            retry_after_ms,
        },
    );
    let denials = btree_map(self::tool(), any::<u64>(), 0..4);
    let denied = (self::tool(), any::<[bool; 2]>()).prop_map(|(tool, [by_operator, by_policy])| DeniedTool {
        tool,
        by_operator,
        by_policy,
    });
    let page = (vec(session, 0..4), vec(tool, 0..4), denials, any::<Option<u64>>());
    let users = (any::<u32>(), vec("@?[a-z0-9]{1,9}", 0..3));
    let orders = (option::of(hold()), vec(denied, 0..4));
    ("[0-9.]{1,9}", any::<u32>(), users, any::<u64>(), page, orders).prop_map(
        |(
            version,
            pid,
            (uid, agent_users),
            uptime_seconds,
            (sessions, tools, denials, next),
            (hold, denied),
        )| StatusResult {
            version,
            pid,
            uid,
            agent_users,
            uptime_seconds,
            sessions,
            tools,
            denials,
            next,
            hold,
            denied,
        },
    )
}

fn control_reply() -> impl Strategy<Value = ControlReply> {
    prop_oneof![
        (session(), any::<u64>())
            .prop_map(|(session_id, grants)| ControlReply::Provision(ProvisionResult { session_id, grants })),
        flush_result().prop_map(ControlReply::Flush),
        flush_result().prop_map(ControlReply::SecurityEvent),
        Just(()).prop_map(|()| ControlReply::Policy(Empty {})),
        status().prop_map(ControlReply::Status),
        (any::<bool>(), option::of(any::<String>()))
            .prop_map(|(ready, reason)| ControlReply::Health(HealthResult { ready, reason })),
        Just(()).prop_map(|()| ControlReply::Drain(Empty {})),
        option::of(hold()).prop_map(|hold| ControlReply::Resume(ResumeResult { hold })),
        Just(()).prop_map(|()| ControlReply::Lease(Empty {})),
        any::<bool>().prop_map(|granted| ControlReply::Deny(DenyResult { granted })),
        any::<[bool; 2]>().prop_map(|[was_denied, denied_by_policy]| {
            ControlReply::Allow(AllowResult { was_denied, denied_by_policy })
        }),
    ]
}

fn rs_control_request() -> impl Strategy<Value = RsControlRequest> {
    let scope = prop_oneof![
        Just(RevokeScope::All),
        session().prop_map(RevokeScope::Session),
        agent().prop_map(RevokeScope::Agent),
    ];
    prop_oneof![
        (scope, reason())
            .prop_map(|(scope, reason)| RsControlRequest::Revoke(RevokeParams { scope, reason })),
        any::<Option<u64>>().prop_map(|from| RsControlRequest::Status(StatusParams { from })),
        Just(()).prop_map(|()| RsControlRequest::Health(Empty {})),
        Just(()).prop_map(|()| RsControlRequest::Reload(Empty {})),
    ]
}

fn rs_control_reply() -> impl Strategy<Value = RsControlReply> {
    let kept = || prop::sample::select(&[Kept::Memory, Kept::File, Kept::Shared]);
    let state =
        prop::sample::select(&[RsSessionState::Active, RsSessionState::Expired, RsSessionState::Revoked]);
    let shown = (session(), option::of(agent()), option::of(time()), state).prop_map(
        |(session_id, agent_instance_id, expires_at, state)| RsSessionStatus {
            session_id,
            agent_instance_id,
            expires_at,
            state,
        },
    );
    let status = ("[0-9.]{1,9}", any::<u32>(), audience(), kept(), vec(shown, 0..4), any::<Option<u64>>());
    prop_oneof![
        (any::<u64>(), vec(session(), 0..4), kept()).prop_map(|(revoked, sessions, kept)| {
            RsControlReply::Revoke(RevokeResult { revoked, sessions, kept })
        }),
        status.prop_map(|(version, pid, audience, kept, sessions, next)| {
            RsControlReply::Status(RsStatusResult { version, pid, audience, kept, sessions, next })
        }),
        (any::<bool>(), option::of(any::<String>()))
            .prop_map(|(ready, reason)| RsControlReply::Health(HealthResult { ready, reason })),
        any::<u64>().prop_map(|sessions| RsControlReply::Reload(ReloadResult { sessions })),
    ]
}

/// Messages hold secrets and cannot be compared; their JSON can.
fn request_json<P: Protocol>(id: &RequestId, request: &P::Request) -> String {
    String::from_utf8(Codec::Json.encode_request::<P>(id, request).unwrap().body().to_vec()).unwrap()
}

fn response_json<P: Protocol>(id: Option<&RequestId>, outcome: Result<&P::Reply, &Refusal>) -> String {
    String::from_utf8(Codec::Json.encode_response::<P>(id, outcome).unwrap().body().to_vec()).unwrap()
}

fn assert_request_survives<P: Protocol>(id: &RequestId, request: &P::Request) -> Result<(), TestCaseError> {
    for codec in CODECS {
        let frame = codec.encode_request::<P>(id, request).unwrap();
        let decoded =
            codec.decode_request::<P>(frame.body()).unwrap_or_else(|error| panic!("{codec}: {error:?}"));
        prop_assert_eq!(&decoded.id, id);
        prop_assert_eq!(request_json::<P>(id, &decoded.call), request_json::<P>(id, request));
    }
    Ok(())
}

fn assert_reply_survives<P: Protocol>(id: &RequestId, reply: &P::Reply) -> Result<(), TestCaseError>
where
    P::Reply: Debug,
{
    let method = P::method_of_reply(reply);
    for codec in CODECS {
        let frame = codec.encode_response::<P>(Some(id), Ok(reply)).unwrap();
        let response = codec.decode_response(frame.body()).unwrap();
        prop_assert_eq!(response.id(), Some(id));
        let decoded = response.outcome::<P>(method).unwrap().unwrap();
        prop_assert_eq!(response_json::<P>(None, Ok(&decoded)), response_json::<P>(None, Ok(reply)));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_agent_request_survives_both_codecs(id in id(), request in agent_request()) {
        assert_request_survives::<AgentProtocol>(&id, &request)?;
    }

    #[test]
    fn every_control_request_survives_both_codecs(id in id(), request in control_request()) {
        assert_request_survives::<ControlProtocol>(&id, &request)?;
    }

    #[test]
    fn what_an_authenticators_operator_says_and_hears_survives_both_codecs(
        id in id(), agent_id in agent(), words in "[a-z -]{0,80}", rotate in any::<bool>()
    ) {
        let (request, reply) = if rotate {
            let done = RotateResult { agent_id, words };
            (AuthControlRequest::Rotate(Empty {}), AuthControlReply::Rotate(done))
        } else {
            let done = DeregisterResult { agent_id, words };
            (AuthControlRequest::Deregister(Empty {}), AuthControlReply::Deregister(done))
        };
        assert_request_survives::<AuthControlProtocol>(&id, &request)?;
        assert_reply_survives::<AuthControlProtocol>(&id, &reply)?;
    }

    #[test]
    fn every_request_of_a_servers_operator_survives_both_codecs(id in id(), request in rs_control_request()) {
        assert_request_survives::<RsControlProtocol>(&id, &request)?;
    }

    #[test]
    fn every_reply_to_a_servers_operator_survives_both_codecs(id in id(), reply in rs_control_reply()) {
        assert_reply_survives::<RsControlProtocol>(&id, &reply)?;
    }

    #[test]
    fn every_agent_reply_survives_both_codecs(id in id(), reply in agent_reply()) {
        assert_reply_survives::<AgentProtocol>(&id, &reply)?;
    }

    #[test]
    fn every_control_reply_survives_both_codecs(id in id(), reply in control_reply()) {
        assert_reply_survives::<ControlProtocol>(&id, &reply)?;
    }

    #[test]
    fn every_refusal_survives_both_codecs(id in option::of(id()), refusal in refusal()) {
        for codec in CODECS {
            let frame = codec.encode_response::<AgentProtocol>(id.as_ref(), Err(&refusal)).unwrap();
            let response = codec.decode_response(frame.body()).unwrap();
            prop_assert_eq!(response.id(), id.as_ref());
            let decoded = response.outcome::<AgentProtocol>(AgentMethod::DequeueToken).unwrap();
            prop_assert_eq!(decoded.unwrap_err(), refusal.clone());
        }
    }

    #[test]
    fn garbage_never_panics(body in vec(any::<u8>(), 0..200)) {
        decode_as_everything(&body);
    }

    #[test]
    fn damaged_messages_never_panic(
        request in control_request(), reply in agent_reply(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        for codec in CODECS {
            let request = codec.encode_request::<ControlProtocol>(&RequestId::Number(1), &request).unwrap();
            let reply = codec.encode_response::<AgentProtocol>(Some(&RequestId::Number(1)), Ok(&reply)).unwrap();
            for body in [request.body(), reply.body()] {
                let mut body = body.to_vec();
                let place = place.index(body.len());
                body[place] = byte;
                decode_as_everything(&body);
                body.truncate(place);
                decode_as_everything(&body);
            }
        }
    }
}

fn decode_as_everything(body: &[u8]) {
    for codec in CODECS {
        let _ = codec.decode_request::<AgentProtocol>(body);
        let _ = codec.decode_request::<ControlProtocol>(body);
        let _ = codec.decode_request::<RsControlProtocol>(body);
        for method in AgentProtocol::METHODS {
            let _ = codec.decode_response(body).map(|response| response.outcome::<AgentProtocol>(*method));
        }
        for method in ControlProtocol::METHODS {
            let _ = codec.decode_response(body).map(|response| response.outcome::<ControlProtocol>(*method));
        }
    }
}

#[test]
fn what_follows_a_message_is_refused_and_the_id_kept() {
    let id = RequestId::Number(7);
    let request = AgentRequest::SessionInfo(Empty {});
    let mut body = Codec::Bincode.encode_request::<AgentProtocol>(&id, &request).unwrap().body().to_vec();
    body.push(0);
    let rejected = Codec::Bincode.decode_request::<AgentProtocol>(&body).unwrap_err();
    assert_eq!(rejected.id, Some(id.clone()));
    assert_eq!(rejected.refusal.code(), ErrorCode::InvalidArgument);

    let mut body = Codec::Json.encode_request::<AgentProtocol>(&id, &request).unwrap().body().to_vec();
    body.extend_from_slice(b" {}");
    let rejected = Codec::Json.decode_request::<AgentProtocol>(&body).unwrap_err();
    assert_eq!(rejected.refusal.code(), ErrorCode::ParseError);
}

#[test]
fn a_message_as_long_as_a_frame_passes_and_one_byte_more_does_not() {
    // Many small numbers are what a reader's limit is most easily wrong about.
    let status = |tools: u64, filler: usize| {
        let mut map: BTreeMap<ToolName, u64> =
            (0..tools).map(|number| (ToolName::new(format!("{number}")).unwrap(), 1)).collect();
        if filler > 0 {
            map.insert(ToolName::new("x".repeat(filler)).unwrap(), 1);
        }
        AgentReply::TokenStatus(TokenStatusResult {
            queue_depth: 1,
            ttl: 1,
            session_active: true,
            renewal_pending: false,
            retry_after_ms: None,
            tools: Some(map),
            next: None,
            sealed: false,
        })
    };
    for codec in CODECS {
        let encode = |tools, filler| {
            codec.encode_response::<AgentProtocol>(Some(&RequestId::Number(1)), Ok(&status(tools, filler)))
        };
        // Twelve more could be named, at most, before one with a long name fills the frame to the last byte.
        let (mut fits, mut too_many) = (0, 1 << 16);
        while too_many - fits > 1 {
            let middle = u64::midpoint(fits, too_many);
            *(if encode(middle, 0).is_ok() { &mut fits } else { &mut too_many }) = middle;
        }
        let tools = fits - 12;
        let filler = 1 + MAX_BODY_BYTES - encode(tools, 1).unwrap().body().len();
        let frame = encode(tools, filler).unwrap();
        assert_eq!(frame.body().len(), MAX_BODY_BYTES, "{codec}");
        let response = codec.decode_response(frame.body()).unwrap();
        assert!(response.outcome::<AgentProtocol>(AgentMethod::TokenStatus).unwrap().is_ok(), "{codec}");
        assert_eq!(encode(tools, filler + 1).unwrap_err(), EncodeError::TooLong, "{codec}");
    }
}

#[test]
fn a_refusal_always_fits_a_frame() {
    let id = RequestId::text("\u{1}".repeat(MAX_REQUEST_ID_BYTES)).unwrap();
    let refusal = Refusal::invalid_argument("\"\\".repeat(100_000));
    for codec in CODECS {
        codec.encode_response::<AgentProtocol>(Some(&id), Err(&refusal)).unwrap();
    }
}

#[test]
fn rejections_do_not_grow_with_what_they_quote() {
    let method = "\u{e9}".repeat(30_000);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    let rejected = Codec::Json.decode_request::<AgentProtocol>(body.as_bytes()).unwrap_err();
    assert!(rejected.refusal.message().len() <= crate::refusal::MAX_MESSAGE_BYTES);
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let reply = AgentReply::DequeueToken(DequeueTokenResult {
        token: TokenText::new("c2VjcmV0").unwrap(),
        tool: ToolName::new("t").unwrap(),
        expires_at: 1,
        channel: None,
        pop: None,
    });
    let session = SessionDocumentText::new(r#"{"K_session":"c2VjcmV0"}"#).unwrap();
    let request = ControlRequest::Provision(ProvisionParams { session, resume: false });
    let id = RequestId::Number(1);
    let frame = Codec::Json.encode_request::<ControlProtocol>(&id, &request).unwrap();
    let decoded = Codec::Json.decode_request::<ControlProtocol>(frame.body()).unwrap();
    let response = Codec::Json.encode_response::<AgentProtocol>(Some(&id), Ok(&reply)).unwrap();
    let incoming = Codec::Json.decode_response(response.body()).unwrap();
    let printed = format!("{reply:?} {request:?} {frame:?} {decoded:?} {response:?} {incoming:?}");
    assert!(!printed.contains("c2VjcmV0"), "{printed}");
}

#[test]
fn a_codec_is_found_by_its_name_alone() {
    for codec in CODECS {
        assert_eq!(Codec::from_name(codec.name()), Some(codec));
    }
    assert_eq!(Codec::from_name("JSON"), None);
    assert_eq!(Codec::from_name(""), None);
}
