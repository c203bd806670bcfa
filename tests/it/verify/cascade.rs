//! The cascade: every refusal, the order in which faults are found, and what a refusal leaves behind.

use std::sync::Arc;

use obol_token::{
    Audience, Jti, Minter, Nonces, ResponseKey, SessionId, SessionMaterial, TokenSeed, Validity,
};
use obol_verify::{
    Arguments, Clock, ConfigError, MemorySessionTable, MemorySpentSet, Request, Session, SessionTable,
    SessionTableUnavailable, SpendError, SpendTicket, SpentSet, Template, Unverified, Verifier, Window,
};
use obol_world::ManualClock;
use obol_world::forge::{Forge, tlv};
use obol_world::scope::{parsed, scope_json, scope_with};
use obol_world::server::{Server, names, reading, session};
use obol_world::{AUDIENCE, KEYS, NOW, SESSION, TOOL};
use serde_json::json;

const FRAMING: (&str, &str) = ("MALFORMED_TOKEN", "FRAMING_CHECK");
const STALE: (&str, &str) = ("STALE_TIMESTAMP", "TEMPORAL_VALIDATION");
const REPLAYED: (&str, &str) = ("TOKEN_REPLAYED", "REPLAY_CONSUME");
const SESSION_OVER: (&str, &str) = ("SESSION_EXPIRED", "SESSION_VALIDITY");

fn framed(bytes: Vec<u8>) -> (&'static str, &'static str) {
    names(Unverified::from_bytes(bytes))
}

#[test]
fn a_token_in_good_order_is_accepted_once() {
    let server = Server::new();
    let token = Forge::standard(1);
    let spent = server.accept(&token).unwrap();
    assert_eq!((spent.session_id(), spent.jti()), (SESSION, token.jti()));
    assert_eq!(*spent.scope(), parsed(&scope_json()));
    assert_eq!(names(server.accept(&token)), REPLAYED);
    assert!(server.accept(&Forge::standard(2)).is_ok());
}

#[test]
fn step_1_refuses_what_is_not_framed_as_a_token() {
    let token = Forge::standard(1).token();
    let with = |offset: usize, byte: u8| {
        let mut token = token.clone();
        token[offset] = byte;
        framed(token)
    };
    assert_eq!(framed(token[..183].to_vec()), FRAMING);
    assert_eq!(framed(Vec::new()), FRAMING);
    for (offset, byte) in
        [(0, 2), (1, 0), (1, 2), (2, 0x08), (2, 0x09), (3, 0x02), (80, b'='), (102, 1), (103, 1)]
    {
        assert_eq!(with(offset, byte), FRAMING, "offset {offset}");
    }
    assert_eq!(with(3, 0x01), ("NON_JSON_POP_NOT_SUPPORTED", "CONFORMANCE_SCOPE"));
    let text = Forge::standard(1).text();
    assert!(Unverified::from_text(text.as_bytes()).is_ok());
    for bad in [format!("{text}="), format!(" {text}"), text.replace(['-', '_'], "+") + "+", "é".to_owned()]
    {
        assert_eq!(names(Unverified::from_text(bad.as_bytes())), FRAMING);
    }
    // A body that is cut off is found out by the signature.
    assert_eq!(framed(token[..184].to_vec()), ("ok", "ok"));
}

#[derive(Debug)]
struct NoTable;

impl SessionTable for NoTable {
    fn look_up(&self, _id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable> {
        Err(SessionTableUnavailable("the database is down".to_owned()))
    }
}

#[test]
fn step_2_asks_for_a_known_and_active_session() {
    let server = Server::new();
    let unknown = Forge::standard(1).with(|token| token.session_id = 7);
    assert_eq!(names(server.accept(&unknown)), ("SESSION_NOT_FOUND", "SESSION_LOOKUP"));
    server.sessions.revoke(SESSION);
    assert_eq!(names(server.accept(&Forge::standard(1))), SESSION_OVER);
    server.sessions.remove(SESSION);
    assert_eq!(names(server.accept(&Forge::standard(1))), ("SESSION_NOT_FOUND", "SESSION_LOOKUP"));
}

#[test]
fn a_session_table_that_cannot_be_reached_refuses() {
    let spent = Arc::clone(&Server::new().spent);
    let verifier =
        Verifier::builder(Audience::new(AUDIENCE).unwrap(), Arc::new(NoTable), spent).build().unwrap();
    let token = Unverified::from_bytes(Forge::standard(1).token()).unwrap();
    assert_eq!(names(token.verify(&verifier, &reading())), ("UNAVAILABLE", "SESSION_TABLE"));
}

#[test]
fn step_3_keeps_the_times_to_the_second() {
    let at = |issued_at: u64, expires_at: u64| {
        let token = Forge::standard(1).with(|token| {
            token.issued_at = issued_at;
            token.expires_at = expires_at;
        });
        names(Server::new().accept(&token))
    };
    let ok = ("ok", "ok");
    assert_eq!(at(NOW + 60, NOW + 120), ok);
    assert_eq!(at(NOW + 61, NOW + 121), STALE);
    assert_eq!(at(NOW - 120, NOW - 60), ok);
    assert_eq!(at(NOW - 121, NOW - 61), STALE);
    assert_eq!(at(NOW, NOW), ok);
    assert_eq!(at(NOW, NOW + 61), STALE);
    assert_eq!(at(NOW, NOW - 1), ("MALFORMED_TOKEN", "TEMPORAL_VALIDATION"));
    // Near the end of the range no sum wraps around.
    assert_eq!(at(u64::MAX, u64::MAX), STALE);
    assert_eq!(at(NOW, u64::MAX), STALE);
    assert_eq!(at(0, 0), STALE);
}

#[test]
fn a_clock_at_the_end_of_its_range_accepts_nothing_by_wrapping() {
    let server = Server::new();
    server.clock.set(u64::MAX);
    assert_eq!(names(server.accept(&Forge::standard(1))), STALE);
}

#[test]
fn step_3_refuses_another_audience() {
    let mismatch = ("AUD_MISMATCH", "AUDIENCE_VALIDATION");
    let token = Forge::standard(1).with(|token| token.audience = format!("{AUDIENCE}/"));
    assert_eq!(names(Server::new().accept(&token)), mismatch);
    // Keys made for another server, in our table by mistake.
    let foreign =
        Session::new(KEYS.material(), Audience::new("https://other.example").unwrap(), "example-org");
    let server = Server::with_session(foreign, |builder| builder);
    assert_eq!(names(server.accept(&Forge::standard(1))), mismatch);
}

#[test]
fn step_4_asks_for_a_token_minted_inside_the_session() {
    let within = |start: u64, end: u64| {
        let session = Session::new(KEYS.material(), Audience::new(AUDIENCE).unwrap(), "example-org")
            .with_window(Window { start, end });
        names(Server::with_session(session, |builder| builder).accept(&Forge::standard(1)))
    };
    assert_eq!(within(NOW + 60, NOW + 100), ("ok", "ok"));
    assert_eq!(within(NOW + 61, NOW + 100), SESSION_OVER);
    assert_eq!(within(0, NOW), ("ok", "ok"));
    assert_eq!(within(0, NOW - 1), SESSION_OVER);
    // Issued after the session's end, by a clock that runs ahead of ours.
    let session = Session::new(KEYS.material(), Audience::new(AUDIENCE).unwrap(), "example-org")
        .with_window(Window { start: 0, end: NOW + 10 });
    let token = Forge::standard(1).with(|token| (token.issued_at, token.expires_at) = (NOW + 11, NOW + 60));
    assert_eq!(names(Server::with_session(session, |builder| builder).accept(&token)), SESSION_OVER);
}

#[test]
fn step_6_refuses_every_flipped_bit() {
    let server = Server::new();
    let token = Forge::standard(1).token();
    // Behind the header fields that earlier steps read: iv, epoch, jti, R, tag, signature and body.
    let covered = (12..24).chain(40..48).chain(104..token.len());
    for offset in covered {
        let mut token = token.clone();
        token[offset] ^= 1;
        let refusal = names(Unverified::from_bytes(token).unwrap().verify(&server.verifier, &reading()));
        assert_eq!(refusal, ("INVALID_SIGNATURE", "SCHNORR_VERIFICATION"), "offset {offset}");
    }
    assert_eq!(server.spent.marks(), Some(0));
}

#[test]
fn step_6_refuses_degenerate_signatures() {
    let server = Server::new();
    let invalid = ("INVALID_SIGNATURE", "SCHNORR_VERIFICATION");
    let zero_nonce = Forge::standard(1).with(|token| token.nonce = curve25519_dalek::Scalar::ZERO);
    assert_eq!(names(server.accept(&zero_nonce)), invalid);
    // σ + ℓ is the same scalar, not reduced: a second form of the same signature.
    let mut token = Forge::standard(1).token();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, add) in token[152..184].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xFF).unwrap();
        carry = sum >> 8;
    }
    let refusal = names(Unverified::from_bytes(token).unwrap().verify(&server.verifier, &reading()));
    assert_eq!(refusal, invalid);
}

#[test]
fn steps_7_to_9_look_at_the_body_in_order() {
    let refusal = |change: fn(&mut Forge)| names(Server::new().accept(&Forge::standard(1).with(change)));
    assert_eq!(refusal(|token| token.bad_tag = true), ("DECRYPTION_FAILED", "AEAD_DECRYPTION"));
    assert_eq!(refusal(|token| token.body = Some(Vec::new())), FRAMING);
    assert_eq!(refusal(|token| token.body = Some(tlv(&[(1, b"x"), (2, &[0; 32])]))), FRAMING);
    assert_eq!(refusal(|token| token.mutual_auth[31] ^= 1), ("MUTUAL_AUTH_MISMATCH", "MUTUAL_AUTH_CHECK"));
    assert_eq!(
        refusal(|token| token.verifier_secret[31] ^= 1),
        ("VERIFIER_SECRET_MISMATCH", "VERIFIER_SECRET_CHECK")
    );
    assert_eq!(refusal(|token| token.scope_tlv.extend_from_slice(&[0x20, 0])), FRAMING);
    assert_eq!(refusal(|token| token.scope_tlv.extend_from_slice(&[0xFF, 0])), FRAMING);
    assert_eq!(
        refusal(|token| token.scope_tlv.truncate(0)),
        ("SCOPE_FIELD_MISSING", "TBAC_SCOPE_EVALUATION")
    );
    let long_intent = tlv(&[(0x12, &[b'x'; 4097]), (0x13, &[b'0'; 64])]);
    let token = Forge::standard(1).with(|token| token.scope_tlv.extend_from_slice(&long_intent));
    assert_eq!(names(Server::new().accept(&token)), ("INTENT_PAYLOAD_TOO_LARGE", "INTENT_VALIDATION"));
    // Vendor fields are skipped, and covered by the privilege signature all the same.
    let vendor = Forge::standard(1).with(|token| token.scope_tlv.extend_from_slice(&[0x80, 1, 7]));
    assert!(Server::new().accept(&vendor).is_ok());
}

#[test]
fn steps_11_and_12_keep_policy() {
    let server = Server::configured(|builder| builder.policy_epoch(2));
    let expired = ("EPOCH_EXPIRED", "POLICY_EPOCH_VALIDATION");
    assert_eq!(names(server.accept(&Forge::standard(1))), expired);
    let newer =
        |epoch| Forge::standard(1).with(|token| (token.policy_epoch, token.signed_epoch) = (epoch, epoch));
    assert!(server.accept(&newer(2)).is_ok());
    let server = Server::with_session(session().with_policy_epoch(3), |builder| builder.policy_epoch(2));
    assert_eq!(names(server.accept(&newer(2))), expired);
    server.verifier.raise_policy_epoch(4);
    assert_eq!(names(server.accept(&newer(3))), expired);
    assert!(server.accept(&newer(5)).is_ok());
    let signed_before = Forge::standard(2).with(|token| token.policy_epoch = 5);
    assert_eq!(names(server.accept(&signed_before)), ("PRIVILEGE_SIG_INVALID", "PRIVILEGE_SIGNATURE"));
}

#[test]
fn a_scope_seen_before_is_held_to_its_own_signature_and_epoch() {
    let server = Server::new();
    let refused = ("PRIVILEGE_SIG_INVALID", "PRIVILEGE_SIGNATURE");
    let purpose = |number, purpose: &str| Forge::new(number, &scope_with(json!({"purpose": purpose})));
    // More scopes than a session remembers, in turns, each with a forged twin and one of another epoch.
    for round in 0..3 {
        for (place, name) in (0_u64..).zip(["a", "b", "c", "d", "e", "f"]) {
            let number = 100 * round + 10 * place;
            assert!(server.accept(&purpose(number, name)).is_ok());
            let forged = purpose(number + 1, name).with(|token| token.signed_epoch = 2);
            assert_eq!(names(server.accept(&forged)), refused);
            let newer = |token: &mut Forge| (token.policy_epoch, token.signed_epoch) = (2, 2);
            assert!(server.accept(&purpose(number + 2, name).with(newer)).is_ok());
            let other_scope = purpose(number + 3, name).with(|token| {
                let last = token.scope_tlv.last_mut().unwrap();
                *last = last.to_ascii_uppercase();
            });
            let spent = server.accept(&other_scope).unwrap();
            assert_eq!(spent.into_scope().purpose, Some(name.to_uppercase()));
        }
    }
}

#[test]
fn a_session_that_derives_its_nonces_accepts_one_signature_for_a_token() {
    let derived = || KEYS.material().with_nonces(Nonces::Derived);
    let audience = Audience::new(AUDIENCE).unwrap();
    let server = Server::with_session(Session::new(derived(), audience, "example-org"), |builder| builder);
    let refused = ("INVALID_SIGNATURE", "SCHNORR_VERIFICATION");
    // What anybody with the keys may sign, with a nonce of their own: good elsewhere, not here.
    assert!(Server::new().accept(&Forge::standard(1)).is_ok());
    assert_eq!(names(server.accept(&Forge::standard(1))), refused);

    let show = |server: &Server, token| {
        Unverified::from_bytes(token)?.verify(&server.verifier, &reading())?.spend().wait()
    };
    let seed = || TokenSeed {
        jti: Jti::from_random([7; 16]),
        iv: [7; 12],
        response_key: ResponseKey::from_bytes([7; 32]),
        nonce: Some(zeroize::Zeroizing::new([9; 64])),
    };
    let validity = Validity { issued_at: NOW, expires_at: NOW + 60 };
    let mint = |material: &SessionMaterial| {
        let minter = Minter::new(material, &parsed(&scope_json()), 1).unwrap();
        minter.mint(validity, &[seed()]).unwrap().remove(0)
    };
    let token = mint(&derived());
    let chosen = mint(&KEYS.material());
    assert_ne!(token, chosen, "a nonce that is asked for is not taken where all are derived");
    assert_eq!(names(show(&server, chosen)), refused);
    let (point, scalar) = (104..136, 152..184);
    for place in point.chain(scalar) {
        for bit in [0, 7] {
            let mut forged = token.clone();
            forged[place] ^= 1 << bit;
            assert_eq!(names(show(&server, forged)), refused, "byte {place}");
        }
    }
    assert!(show(&server, token.clone()).is_ok());
    assert_eq!(names(show(&server, token.clone())), REPLAYED);
    // The other rule accepts what this one does.
    assert!(show(&Server::new(), token).is_ok());
}

/// A token and a server with every fault at once; each repair must uncover the next.
#[test]
fn faults_are_found_in_the_order_of_the_cascade() {
    type Repair = fn(&mut Forge, &mut Server);
    let t3 = scope_with(json!({
        "aud": "https://api.example/other", "org_id": "other-org", "trust_level": 3, "human_confirmed_at": NOW - 400,
        "approval_digest": "00".repeat(32), "require_pop": true, "resource": "private", "action": "write",
        "user_raw_intent": "list", "intent_hash": "00".repeat(32), "parent_token_hash": "A".repeat(43),
        "constraints": {"max_calls": 2, "require_channel_encryption": true, "allowed_parameters": {}},
    }));
    let mut token = Forge::new(1, &t3).with(|token| {
        token.session_id = 7;
        token.issued_at = NOW + 100;
        token.expires_at = NOW - 1;
        token.audience = "https://api.example/".to_owned();
        token.policy_epoch = 0;
        token.bad_signature = true;
        token.bad_tag = true;
        token.mutual_auth = [0; 32];
        token.verifier_secret = [0; 32];
        token.scope_tlv.extend_from_slice(&[0x20, 0]);
    });
    let ended = || session().with_window(Window { start: 0, end: NOW - 1 });
    let mut server =
        Server::with_session(ended(), |builder| builder.templates(Arc::new(Template::None)).policy_epoch(1));
    // The same token in good order, spent before.
    server.spent.spend(obol_verify::Mark::new(SESSION, &token.jti(), NOW + 60)).wait().unwrap();

    fn rescope(token: &mut Forge, field: &str, value: serde_json::Value) {
        let mut scope = serde_json::to_value(obol_token::Scope::from_tlv(&token.scope_tlv).unwrap()).unwrap();
        scope[field] = value;
        if scope["user_raw_intent"].is_null() {
            scope["intent_hash"] = json!(null);
        }
        token.scope_tlv = parsed(&scope).to_tlv().unwrap();
    }
    let steps: [(&str, Repair); 23] = [
        ("SESSION_NOT_FOUND", |t, _| t.session_id = SESSION.as_u64()),
        ("STALE_TIMESTAMP", |t, _| t.issued_at = NOW),
        ("MALFORMED_TOKEN", |t, _| t.expires_at = NOW + 61),
        ("STALE_TIMESTAMP", |t, _| t.expires_at = NOW + 60),
        ("AUD_MISMATCH", |t, _| t.audience = AUDIENCE.to_owned()),
        ("SESSION_EXPIRED", |_, s| s.sessions.add(session()).unwrap()),
        ("INVALID_SIGNATURE", |t, _| t.bad_signature = false),
        ("DECRYPTION_FAILED", |t, _| t.bad_tag = false),
        ("MUTUAL_AUTH_MISMATCH", |t, _| t.mutual_auth = KEYS.mutual_auth),
        ("VERIFIER_SECRET_MISMATCH", |t, _| t.verifier_secret = KEYS.verifier_secret),
        ("MALFORMED_TOKEN", |t, _| t.scope_tlv.truncate(t.scope_tlv.len() - 2)),
        ("TOKEN_REPLAYED", |t, _| t.jti[15] = 1),
        ("EPOCH_EXPIRED", |t, _| t.policy_epoch = 2),
        ("PRIVILEGE_SIG_INVALID", |t, _| t.signed_epoch = 2),
        ("AUD_MISMATCH", |t, _| rescope(t, "aud", json!(AUDIENCE))),
        ("ORG_ID_MISMATCH", |t, _| rescope(t, "org_id", json!("example-org"))),
        ("INSUFFICIENT_PRIVILEGE", |t, s| {
            // Template, action, resource and max_calls share a code; `scope_rules` tells them apart.
            rescope(t, "resource", json!("docs/**"));
            rescope(t, "action", json!("read"));
            rescope(t, "constraints", json!({"require_channel_encryption": true}));
            *s = Server::new();
        }),
        ("CHANNEL_ENCRYPTION_REQUIRED", |t, _| rescope(t, "constraints", json!(null))),
        ("APPROVAL_DIGEST_MISMATCH", |t, _| {
            let scope = obol_token::Scope::from_tlv(&t.scope_tlv).unwrap();
            let digest = obol_token::text::to_hex(&scope.compute_approval_digest().unwrap());
            rescope(t, "approval_digest", json!(digest));
        }),
        ("CIBA_APPROVAL_EXPIRED", |t, _| rescope(t, "human_confirmed_at", json!(NOW - 300))),
        ("INTENT_INTEGRITY_FAILED", |t, _| {
            rescope(t, "user_raw_intent", json!(null));
            let scope = obol_token::Scope::from_tlv(&t.scope_tlv).unwrap();
            let digest = obol_token::text::to_hex(&scope.compute_approval_digest().unwrap());
            rescope(t, "approval_digest", json!(digest));
        }),
        ("INSUFFICIENT_PRIVILEGE", |t, _| rescope(t, "parent_token_hash", json!(null))),
        ("POP_REQUIRED", |t, _| rescope(t, "require_pop", json!(false))),
    ];
    for (number, (expected, repair)) in steps.into_iter().enumerate() {
        assert_eq!(names(server.accept(&token)).0, expected, "fault {number}");
        repair(&mut token, &mut server);
    }
    assert!(server.accept(&token).is_ok());
}

#[test]
fn the_signature_is_checked_before_anything_is_decrypted() {
    // Both are wrong; a server that decrypted first would say so.
    let token = Forge::standard(1).with(|token| (token.bad_tag, token.bad_signature) = (true, true));
    assert_eq!(names(Server::new().accept(&token)).0, "INVALID_SIGNATURE");
}

#[test]
fn a_spent_token_is_a_replay_even_where_its_policy_has_expired_since() {
    let server = Server::new();
    server.accept(&Forge::standard(1)).unwrap();
    server.verifier.raise_policy_epoch(9);
    assert_eq!(names(server.accept(&Forge::standard(1))), REPLAYED);
    assert_eq!(names(server.accept(&Forge::standard(2))).0, "EPOCH_EXPIRED");
}

#[test]
fn a_refusal_does_not_burn_the_token() {
    let server = Server::new();
    let token = Forge::standard(1);
    for wrong in [
        Request::new("delete"),
        Request { action: Some("write"), ..reading() },
        Request { resource: Some("private/a"), ..reading() },
    ] {
        assert_eq!(names(server.present(&token, &wrong)).0, "INSUFFICIENT_PRIVILEGE");
    }
    // Verifying does not burn it either.
    drop(server.verify(&token, &reading()).unwrap());
    assert_eq!(server.spent.marks(), Some(0));
    assert!(server.accept(&token).is_ok());
}

#[test]
fn forged_tokens_leave_nothing_behind() {
    let clock = Arc::new(ManualClock::new(NOW));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    let set = obol_verify::RedbSpentSetOptions::new(&path)
        .new_file(obol_verify::NewFile::Trusted)
        .open(Arc::clone(&clock) as Arc<dyn Clock>)
        .unwrap();
    let server = Server::with_spent_set(session(), clock, Arc::new(set), |builder| builder);
    let before = std::fs::read(&path).unwrap();
    let mut token = Forge::standard(1).token();
    for number in 0..20_000_u32 {
        // A new name each, the way a flood would look, under a signature made for another.
        token[80..88].copy_from_slice(format!("{number:08x}").as_bytes());
        let refusal = Unverified::from_bytes(token.clone()).unwrap().verify(&server.verifier, &reading());
        assert_eq!(names(refusal).0, "INVALID_SIGNATURE");
    }
    assert_eq!(server.spent.marks(), Some(0));
    assert_eq!(server.sessions.len(), 1);
    assert!(std::fs::read(&path).unwrap() == before, "a forged token caused a write");
}

#[test]
fn revoking_a_session_refuses_tokens_in_flight() {
    let server = Server::new();
    let verified = server.verify(&Forge::standard(1), &reading()).unwrap();
    server.sessions.revoke(SESSION);
    assert_eq!(names(verified.spend().wait()), SESSION_OVER);
    assert_eq!(server.spent.marks(), Some(0));
}

#[test]
fn a_session_revoked_while_its_token_is_being_spent_yields_nothing() {
    #[derive(Debug)]
    struct RevokingSet(MemorySpentSet, Arc<MemorySessionTable>);
    impl SpentSet for RevokingSet {
        fn is_spent(&self, mark: &obol_verify::Mark) -> Result<bool, SpendError> {
            self.0.is_spent(mark)
        }
        fn spend_with(&self, mark: obol_verify::Mark, with: Option<obol_verify::Mark>) -> SpendTicket {
            let ticket = self.0.spend_with(mark, with);
            self.1.revoke(SESSION);
            ticket
        }
        fn fence(&self) -> Option<u64> {
            None
        }
        fn keep_after_expiry(&self) -> u64 {
            self.0.keep_after_expiry()
        }
        fn health(&self) -> Result<(), SpendError> {
            Ok(())
        }
        fn marks(&self) -> Option<usize> {
            None
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
    let sessions = Arc::new(MemorySessionTable::new());
    sessions.add(session()).unwrap();
    let set = RevokingSet(MemorySpentSet::unfenced(Arc::clone(&clock), 60), Arc::clone(&sessions));
    let builder = Verifier::builder(Audience::new(AUDIENCE).unwrap(), sessions, Arc::new(set)).clock(clock);
    let verifier = builder.templates(Arc::new(Template::Any)).build().unwrap();
    let token = Unverified::from_bytes(Forge::standard(1).token()).unwrap();
    assert_eq!(names(token.verify(&verifier, &reading()).unwrap().spend().wait()), SESSION_OVER);
}

#[test]
fn a_token_verified_long_ago_is_not_spent() {
    let server = Server::new();
    let kept = server.verify(&Forge::standard(1), &reading()).unwrap();
    server.accept(&Forge::standard(1)).unwrap();
    server.clock.advance(10_000);
    assert_eq!(names(kept.spend().wait()), STALE);
}

#[test]
fn the_fence_refuses_what_may_have_been_spent_before_a_restart() {
    let clock = Arc::new(ManualClock::new(NOW));
    let set = MemorySpentSet::fenced(Arc::clone(&clock) as Arc<dyn Clock>, 60);
    let server = Server::with_spent_set(session(), clock, Arc::new(set), |builder| builder);
    assert_eq!(names(server.accept(&Forge::standard(1))), STALE);
    let at = |issued_at| {
        Forge::standard(2).with(|token| (token.issued_at, token.expires_at) = (issued_at, issued_at + 60))
    };
    assert_eq!(names(server.accept(&at(NOW + 60))), STALE);
    server.clock.advance(1);
    assert!(server.accept(&at(NOW + 61)).is_ok());
}

#[test]
fn a_spent_set_that_forgets_too_soon_is_refused_as_configuration() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
    let set = Arc::new(MemorySpentSet::unfenced(clock, 10));
    let built =
        Verifier::builder(Audience::new(AUDIENCE).unwrap(), Arc::new(MemorySessionTable::new()), set).build();
    assert_eq!(built.unwrap_err(), ConfigError::SpentSetForgetsTooSoon { keeps: 70, needed: 120 });
}

#[test]
fn a_spent_set_that_fails_refuses() {
    #[derive(Debug)]
    struct Broken {
        looks: bool,
    }
    impl SpentSet for Broken {
        fn is_spent(&self, _mark: &obol_verify::Mark) -> Result<bool, SpendError> {
            if self.looks { Ok(false) } else { Err(SpendError::Unavailable("down".into())) }
        }
        fn spend_with(&self, _mark: obol_verify::Mark, _with: Option<obol_verify::Mark>) -> SpendTicket {
            SpendTicket::ready(Err(SpendError::Unavailable("down".into())))
        }
        fn fence(&self) -> Option<u64> {
            None
        }
        fn keep_after_expiry(&self) -> u64 {
            u64::MAX
        }
        fn health(&self) -> Result<(), SpendError> {
            Err(SpendError::Unavailable("down".into()))
        }
        fn marks(&self) -> Option<usize> {
            None
        }
    }
    for looks in [true, false] {
        let clock = Arc::new(ManualClock::new(NOW));
        let server = Server::with_spent_set(session(), clock, Arc::new(Broken { looks }), |builder| builder);
        assert_eq!(names(server.accept(&Forge::standard(1))), ("UNAVAILABLE", "SPENT_SET"));
    }
}

#[test]
fn channel_keys_are_handed_out_once() {
    let server = Server::new();
    let mut spent = server.accept(&Forge::standard(1)).unwrap();
    let keys = spent.take_channel_keys().unwrap();
    assert!(spent.take_channel_keys().is_none());
    let client = obol_token::ChannelKeys::derive(
        SESSION,
        &Forge::standard(1).jti(),
        &ResponseKey::from_bytes([0x55; 32]),
    );
    let iv = *keys.response_iv();
    assert_eq!(client.open_response(&iv, &keys.seal_response(b"rows").unwrap()).unwrap(), b"rows");
}

#[test]
fn sealed_arguments_are_opened_on_the_way() {
    let scope = scope_with(json!({
        "constraints": {"require_channel_encryption": true, "allowed_parameters": {"path": "/reports/*"}}
    }));
    let server = Server::new();
    let present = |number: u64, plaintext: &str, break_it: bool| {
        let token = Forge::new(number, &scope);
        let response_key = ResponseKey::from_bytes(token.response_key);
        let keys = obol_token::ChannelKeys::derive(SESSION, &token.jti(), &response_key);
        let mut ciphertext = keys.seal_request(&[9; 12], plaintext.as_bytes()).unwrap();
        ciphertext[0] ^= u8::from(break_it);
        let arguments = Arguments::Sealed { algorithm: None, iv: &[9; 12], ciphertext: &ciphertext };
        server.present(&token, &Request { arguments, ..Request::new(TOOL) })
    };
    let mut spent = present(1, r#"{"path": "/reports/q3"}"#, false).unwrap();
    assert_eq!(spent.take_opened_arguments().unwrap()["path"], "/reports/q3");
    assert_eq!(names(present(2, r#"{"path": "/etc/passwd"}"#, false)).0, "INSUFFICIENT_PRIVILEGE");
    let malformed = ("MALFORMED_REQUEST", "REQUEST_FRAMING");
    assert_eq!(names(present(3, "{}", true)), malformed);
    assert_eq!(names(present(4, "[1]", false)), malformed);
}
