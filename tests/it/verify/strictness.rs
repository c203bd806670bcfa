//! What the format leaves no room for: bytes that mean the same as others, numbers that do not fit, marks that are
//! forgotten too early, and forgeries that cost memory.

use std::sync::Arc;

use obol_token::{Scope, Suite};
use obol_verify::{CascadeLimits, Clock, MemorySpentSet, Template, Unverified, Verifier};
use obol_world::ManualClock;
use obol_world::forge::{Forge, tlv};
use obol_world::scope::{parsed, scope_json, scope_with};
use obol_world::server::{Server, names, reading, session, session_of};
use obol_world::{AUDIENCE, KEYS, NOW};
use proptest::prelude::*;
use serde_json::{Value, json};

const FRAMING: (&str, &str) = ("MALFORMED_TOKEN", "FRAMING_CHECK");

/// A scope's fields in order, as tag and value.
fn fields(scope: &Value) -> Vec<(u8, Vec<u8>)> {
    let bytes = parsed(scope).to_tlv().unwrap();
    let (mut rest, mut fields) = (&bytes[..], Vec::new());
    while let [tag, length, tail @ ..] = rest {
        let (length, tail) = if *length < 0x80 {
            (usize::from(*length), tail)
        } else {
            (usize::from(*length & 0x7F) << 8 | usize::from(tail[0]), &tail[1..])
        };
        let (value, tail) = tail.split_at(length);
        fields.push((*tag, value.to_vec()));
        rest = tail;
    }
    fields
}

fn written(fields: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let fields: Vec<(u8, &[u8])> = fields.iter().map(|(tag, value)| (*tag, value.as_slice())).collect();
    tlv(&fields)
}

/// A genuine token, signed and sealed in order, with this scope.
fn sealed(scope_tlv: Vec<u8>) -> (&'static str, &'static str) {
    let token = Forge::standard(1).with(|token| token.scope_tlv = scope_tlv);
    names(Server::new().accept(&token))
}

fn changed(scope: &Value, change: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> (&'static str, &'static str) {
    let mut fields = fields(scope);
    change(&mut fields);
    sealed(written(&fields))
}

#[test]
fn every_field_of_a_scope_has_one_form_only() {
    let full = scope_with(json!({
        "action": ["read", "write"], "purpose": "p", "txn_id": "00".repeat(16),
        "constraints": {"max_rows": 5, "max_calls": 1, "data_classification": "internal",
                        "allowed_parameters": {"a": "x", "b": "y"}}
    }));
    assert_eq!(changed(&full, |_| {}), ("ok", "ok"));
    let tags: Vec<u8> = fields(&full).iter().map(|(tag, _)| *tag).collect();
    for (place, tag) in tags.iter().copied().enumerate() {
        let text = matches!(tag, 1..=6 | 0x0B | 0x0C | 0x10);
        let number = matches!(tag, 8 | 0x0D | 0x0E);
        if text {
            let invalid = changed(&full, |fields| fields[place].1 = vec![b'a', 0xC3, 0x28]);
            assert_eq!(invalid, FRAMING, "tag {tag:02x}: not UTF-8, and not repaired");
        }
        if number {
            for length in [0, 1, 7, 9] {
                let wrong = changed(&full, |fields| fields[place].1 = vec![0; length]);
                assert_eq!(wrong, FRAMING, "tag {tag:02x} in {length} bytes");
            }
        }
        let required = !matches!(tag, 5 | 7 | 0x10 | 0x11);
        if required {
            let missing = changed(&full, |fields| drop(fields.remove(place)));
            assert_eq!(missing, ("SCOPE_FIELD_MISSING", "TBAC_SCOPE_EVALUATION"), "tag {tag:02x} is missing");
        }
        if tag != 5 {
            let twice = changed(&full, |fields| fields.insert(place, fields[place].clone()));
            assert_eq!(twice, FRAMING, "tag {tag:02x} stands twice");
        }
        if place > 0 && tags[place - 1] != tag {
            assert_eq!(
                changed(&full, |fields| fields.swap(place - 1, place)),
                FRAMING,
                "tag {tag:02x} is early"
            );
        }
    }
    let boolean = tags.iter().position(|tag| *tag == 0x0A).unwrap();
    for wrong in [vec![], vec![2], vec![0xFF], vec![0, 1]] {
        assert_eq!(changed(&full, |fields| fields[boolean].1 = wrong), FRAMING);
    }
    for unknown in [0x14, 0x7F, 0xFF] {
        assert_eq!(changed(&full, |fields| fields.push((unknown, vec![1]))), FRAMING, "tag {unknown:02x}");
    }
    for vendor in [0x80, 0xFE] {
        assert_eq!(changed(&full, |fields| fields.push((vendor, vec![1]))), ("ok", "ok"), "tag {vendor:02x}");
    }
}

#[test]
fn nested_fields_are_as_strict_as_those_around_them() {
    let with = |constraints: Vec<u8>| changed(&scope_json(), |fields| fields.insert(6, (7, constraints)));
    let integer = |value: u64| value.to_be_bytes().to_vec();
    let parameters = |pairs: &[(u8, &[u8])]| with(tlv(&[(6, &tlv(pairs))]));
    assert_eq!(with(tlv(&[(1, &integer(5)), (2, &integer(1))])), ("ok", "ok"));
    assert_eq!(with(tlv(&[(2, &integer(1)), (1, &integer(5))])), FRAMING, "order");
    assert_eq!(with(tlv(&[(1, &integer(5)), (1, &integer(5))])), FRAMING, "twice");
    assert_eq!(with(tlv(&[(1, &[5])])), FRAMING, "a short integer");
    assert_eq!(with(tlv(&[(4, &[2])])), FRAMING, "no boolean");
    assert_eq!(with(tlv(&[(5, &[0xFF])])), FRAMING, "no text");
    assert_eq!(with(tlv(&[(7, &[])])), FRAMING, "an unknown limit must not be dropped");
    assert_eq!(with(tlv(&[(0xFF, &[])])), FRAMING);
    assert_eq!(with(tlv(&[(0x80, &[])])), ("ok", "ok"));
    assert_eq!(with(vec![1, 0x80, 8, 0, 0, 0, 0, 0, 0, 0, 5]), FRAMING, "a long length");
    assert_eq!(with(vec![1, 8, 0]), FRAMING, "cut off");

    assert_eq!(parameters(&[(1, b"a"), (2, b"x"), (1, b"b"), (2, b"y")]), ("ok", "ok"));
    for (what, pairs) in [
        ("order of names", vec![(1, &b"b"[..]), (2, b"y"), (1, b"a"), (2, b"x")]),
        ("a name twice", vec![(1, b"a"), (2, b"x"), (1, b"a"), (2, b"y")]),
        ("a name without a pattern", vec![(1, b"a")]),
        ("a pattern without a name", vec![(2, b"x")]),
        ("two names", vec![(1, b"a"), (1, b"b")]),
        ("a vendor's field between them", vec![(1, b"a"), (0x80, b""), (2, b"x")]),
        ("a name that is not UTF-8", vec![(1, b"\xFF"), (2, b"x")]),
        ("a pattern that is not UTF-8", vec![(1, b"a"), (2, b"\xC3\x28")]),
    ] {
        assert_eq!(parameters(&pairs), FRAMING, "{what}");
    }
}

#[test]
fn the_body_is_the_five_fields_and_nothing_else() {
    let scope_tlv = parsed(&scope_json()).to_tlv().unwrap();
    let privilege = KEYS.material().privilege_signature(1, &scope_tlv);
    let good: [(u8, &[u8]); 5] = [
        (1, &scope_tlv),
        (2, &privilege),
        (3, &[0x55; 32]),
        (4, &KEYS.mutual_auth),
        (5, &KEYS.verifier_secret),
    ];
    let answer =
        |body: Vec<u8>| names(Server::new().accept(&Forge::standard(1).with(|t| t.body = Some(body))));
    assert_eq!(answer(tlv(&good)), ("ok", "ok"));
    for place in 0..good.len() {
        let mut missing = good.to_vec();
        missing.remove(place);
        assert_eq!(answer(tlv(&missing)), FRAMING, "field {place} is missing");
        let mut twice = good.to_vec();
        twice.insert(place, good[place]);
        assert_eq!(answer(tlv(&twice)), FRAMING, "field {place} stands twice");
        if place > 0 {
            let mut swapped = good;
            swapped.swap(place - 1, place);
            assert_eq!(answer(tlv(&swapped)), FRAMING, "fields {place} and the one before are swapped");
            for wrong in [&[][..], &[0; 31], &[0; 33]] {
                let mut cut = good;
                cut[place].1 = wrong;
                assert_eq!(answer(tlv(&cut)), FRAMING, "field {place} has {} bytes", wrong.len());
            }
        }
    }
    for unknown in [9, 0x7F, 0xFF] {
        assert_eq!(answer([tlv(&good), vec![unknown, 0]].concat()), FRAMING);
    }
    assert_eq!(answer([tlv(&good), vec![0x80, 0]].concat()), ("ok", "ok"), "a vendor's field");
    let consumers = |fields: &[(u8, &[u8])]| answer([tlv(&good), tlv(fields)].concat());
    let (signature, key, time) = ((6, &[0; 64][..]), (7, &[0; 32][..]), (8, &[0; 8][..]));
    for empty in [&[signature, key, time][..], &[signature], &[key], &[time], &[signature, time]] {
        assert_eq!(consumers(empty), ("ok", "ok"), "a consumer's fields, zeroed: {empty:?}");
    }
    for filled in [
        &[(6, &[1; 64][..])][..],
        &[(7, &[[0; 31].as_slice(), &[1]].concat())],
        &[(8, &[0, 0, 0, 0, 0, 0, 0, 1])],
        &[(6, &[0; 63])],
        &[(7, &[])],
        &[(8, &[0; 9])],
        &[key, signature],
        &[time, time],
        &[signature, key, time, (9, &[])],
    ] {
        assert_eq!(consumers(filled), FRAMING, "{filled:?}");
    }
    assert_eq!(answer([tlv(&good), vec![0]].concat()), FRAMING, "a stray byte");
}

#[test]
fn integers_keep_all_their_64_bits_in_bytes_and_in_json() {
    for value in [0, 1, (1 << 53) + 1, u64::MAX - 1, u64::MAX] {
        let json = scope_with(json!({"delegation_depth": value, "constraints": {"max_rows": value}}));
        let text = json.to_string();
        let read: Scope = serde_json::from_str(&text).unwrap();
        assert_eq!(read.delegation_depth, value);
        let again = Scope::from_tlv(&read.to_tlv().unwrap()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap()["constraints"]["max_rows"], json!(value));
        let token = Forge::new(1, &json);
        let limits = CascadeLimits { max_delegation_depth: u64::MAX, ..CascadeLimits::default() };
        let server = Server::configured(|builder| builder.limits(limits));
        assert_eq!(server.accept(&token).unwrap().scope().delegation_depth, value);
    }
    for wrong in ["-1", "1.0", "1e3", "18446744073709551616", "\"1\"", "null", "true"] {
        let text = scope_json()
            .to_string()
            .replace("\"delegation_depth\":0", &format!("\"delegation_depth\":{wrong}"));
        assert!(text.contains(wrong) && serde_json::from_str::<Scope>(&text).is_err(), "{wrong}");
    }
}

/// A verifier with these limits over a spent set in memory that keeps marks for as long as they call for.
fn verifier(limits: CascadeLimits) -> (Arc<ManualClock>, Verifier) {
    let clock = Arc::new(ManualClock::new(NOW));
    let spent = MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<dyn Clock>, limits.clock_skew);
    let sessions = obol_verify::MemorySessionTable::new();
    sessions.add(session()).unwrap();
    let builder =
        Verifier::builder(obol_token::Audience::new(AUDIENCE).unwrap(), Arc::new(sessions), Arc::new(spent));
    let builder = builder.templates(Arc::new(Template::Any)).clock(clock.clone()).limits(limits);
    (clock, builder.build().unwrap())
}

fn present(verifier: &Verifier, token: &Forge) -> &'static str {
    let verified = Unverified::from_bytes(token.token()).unwrap().verify(verifier, &reading());
    names(verified.and_then(|verified| verified.spend().wait())).0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Under every skew and life that a verifier can be built with, presented again and again until long after its end,
    /// while others are spent and marks are forgotten.
    #[test]
    fn a_mark_outlives_its_token(
        skew in prop_oneof![Just(0_u64), 1..600_u64],
        life in prop_oneof![Just(0_u64), 1..600_u64],
        ahead in 0..1_200_u64,
        steps in prop::collection::vec(1..120_u64, 40),
    ) {
        let (clock, verifier) = verifier(CascadeLimits { clock_skew: skew, max_ttl: life, ..CascadeLimits::default() });
        let issued_at = NOW + ahead.min(skew);
        let token = Forge::standard(1).with(|token| {
            token.issued_at = issued_at;
            token.expires_at = issued_at + life;
        });
        prop_assert_eq!(present(&verifier, &token), "ok");
        for (number, step) in (2..).zip(steps) {
            clock.advance(step);
            let other = Forge::standard(number).with(|token| {
                token.issued_at = clock.now();
                token.expires_at = clock.now() + life;
            });
            prop_assert_eq!(present(&verifier, &other), "ok");
            let again = present(&verifier, &token);
            let expected = if clock.now() <= issued_at + life + skew { "TOKEN_REPLAYED" } else { "STALE_TIMESTAMP" };
            prop_assert_eq!(again, expected, "at {}", clock.now());
        }
    }
}

/// How many forged tokens are shown; a million with `OBOL_SOAK_FORGED=1000000`.
fn forgeries() -> u64 {
    std::env::var("OBOL_SOAK_FORGED").ok().and_then(|count| count.parse().ok()).unwrap_or(50_000)
}

/// Memory in use, in pages, without those of files: pages of the program itself come and go as the system pleases.
fn resident_pages() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<u64> = statm.split_whitespace().map(|pages| pages.parse().unwrap()).collect();
    pages[1] - pages[2]
}

#[test]
fn forged_tokens_by_the_thousand_leave_the_spent_set_and_the_memory_as_they_were() {
    /// Less than one byte for each of a million.
    const SLACK_PAGES: u64 = 200;
    let server = Server::with_session(session_of(Suite::AesGcm), |builder| builder);
    let mut forged = Forge::standard(1).token();
    forged.drain(104..136);
    forged.drain(120..152);
    forged[1] = Suite::AesGcm.alg_id();
    let mut show = |range: core::ops::Range<u64>| {
        for number in range {
            forged[80..96].copy_from_slice(format!("{number:016x}").as_bytes());
            let refusal =
                Unverified::from_bytes(forged.clone()).unwrap().verify(&server.verifier, &reading());
            assert_eq!(names(refusal), ("DECRYPTION_FAILED", "AEAD_DECRYPTION"));
        }
    };
    show(0..5_000);
    let before = resident_pages();
    show(5_000..forgeries());
    let grown = resident_pages().saturating_sub(before);
    assert_eq!(server.spent.marks(), Some(0));
    // Other tests of the same process would be measured as well; cargo-nextest gives each its own.
    if std::env::var_os("NEXTEST").is_some() {
        assert!(grown <= SLACK_PAGES, "grew by {grown} pages");
    } else {
        eprintln!(
            "SKIPPED: memory is measured under cargo-nextest only, where a test has a process of its own"
        );
    }
}
