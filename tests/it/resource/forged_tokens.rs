//! Forged tokens by the thousand leave a resource server as it was: its spent set, its file, its memory.
//!
//! `OBOL_SOAK_FORGED_TOKENS=1000000 cargo nextest run --release -p obol-tests forged_tokens` is the long form.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_token::text::to_base64url;
use obol_world::forge::Forge;
use obol_world::home::home;
use obol_world::http::Http;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::scope::scope_with;

/// How much the server's memory may grow after a tenth of the tokens, in bytes: what an allocator keeps for itself.
const MAX_GROWTH_BYTES: u64 = 4 << 20;
/// Connections at a time.
const SENDERS: usize = 4;
/// Originals of each kind; what is sent is a variation of one.
const ORIGINALS: u64 = 16;

/// Every kind of forgery: what a stranger makes up, what is wrong in the header, in the signature, in the body, and
/// what somebody with the keys made wrong.
fn originals(now: u64) -> Vec<(&'static str, Vec<u8>)> {
    let wide = scope_with(serde_json::json!({"tool": "another"}));
    let mut all = Vec::new();
    for number in 0..ORIGINALS {
        let good = || {
            Forge::standard(number).with(|token| {
                token.issued_at = now;
                token.expires_at = now + 50;
            })
        };
        let mut add = |kind, token: Forge| all.push((kind, token.token()));
        add("header: session", good().with(|token| token.session_id ^= 0xFFFF));
        add("header: expired", good().with(|token| token.expires_at = now - 1_000));
        add("header: audience", good().with(|token| token.audience = "https://elsewhere".to_owned()));
        add("signature", good().with(|token| token.bad_signature = true));
        add("signature: key", good().with(|token| token.keys.session_key[0] ^= 1));
        add("body: tag", good().with(|token| token.bad_tag = true));
        add("body: mutual auth", good().with(|token| token.mutual_auth[0] ^= 1));
        add("body: verifier secret", good().with(|token| token.verifier_secret[0] ^= 1));
        add("body: privilege", good().with(|token| token.signed_epoch = 9));
        add(
            "scope",
            Forge::new(number, &wide).with(|token| {
                token.issued_at = now;
                token.expires_at = now + 50;
            }),
        );
    }
    all
}

/// Flips a bit of every other token; the others stay of their kind.
fn vary(token: &[u8], number: u64) -> String {
    let mut token = token.to_vec();
    let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    if hash >> 63 == 0 {
        let place = usize::try_from(hash >> 16).unwrap() % token.len();
        token[place] ^= 1 << (hash & 7);
    }
    to_base64url(&token)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Sends that many and counts the answers.
fn send(rs: &RsProcess, first: u64, count: u64) -> BTreeMap<String, u64> {
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for sender in 0..SENDERS as u64 {
            let answers = &answers;
            scope.spawn(move || {
                let mut http = Http::new(rs.port());
                let mut forged = originals(now());
                for number in 0..count / SENDERS as u64 {
                    // Tokens do not live long.
                    if number % 5_000 == 4_999 {
                        forged = originals(now());
                    }
                    let number = first + number * SENDERS as u64 + sender;
                    let (kind, token) = &forged[usize::try_from(number % forged.len() as u64).unwrap()];
                    let answer = http.present(&vary(token, number)).expect("an answer");
                    assert_ne!(answer, "OK", "{kind}, number {number}");
                    *answers.lock().unwrap().entry(answer).or_default() += 1;
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

#[test]
fn forged_tokens_leave_everything_as_it_was() {
    let total: u64 = match std::env::var("OBOL_SOAK_FORGED_TOKENS") {
        Ok(tokens) => tokens.parse().expect("OBOL_SOAK_FORGED_TOKENS is a number of tokens"),
        Err(_) => 10_000,
    };
    let home = home();
    write_sessions(home.path(), now());
    let rs = RsProcess::start(home.path(), &["--spent", "spent.redb", "--first-start"]);
    let good = |number| {
        Forge::standard(number).with(|token| {
            token.issued_at = now();
            token.expires_at = now() + 50;
        })
    };
    // One good token, so that there is something to keep.
    assert_eq!(Http::new(rs.port()).present(&good(1 << 40).text()).unwrap(), "OK");
    let warm_up = total / 10;
    send(&rs, 0, warm_up);
    let state = || (rs.metric("obol_spent_marks"), std::fs::read(home.path().join("spent.redb")).unwrap());
    let (before, resident) = (state(), rs.resident_bytes());
    let answers = send(&rs, warm_up, total - warm_up);
    let growth = rs.resident_bytes().saturating_sub(resident);
    eprintln!("{total} forged tokens: memory grew by {growth} of {resident} bytes; answers {answers:?}");
    let after = state();
    assert_eq!(before.0, 1);
    assert_eq!(after.0, 1);
    assert!(before.1 == after.1, "the file of spent tokens changed");
    assert!(growth <= MAX_GROWTH_BYTES, "memory grew by {growth} bytes");
    for code in [
        "SESSION_NOT_FOUND",
        "STALE_TIMESTAMP",
        "AUD_MISMATCH",
        "INVALID_SIGNATURE",
        "DECRYPTION_FAILED",
        "MUTUAL_AUTH_MISMATCH",
        "VERIFIER_SECRET_MISMATCH",
        "PRIVILEGE_SIG_INVALID",
        "INSUFFICIENT_PRIVILEGE",
    ] {
        assert!(answers.contains_key(code), "{code} in {answers:?}");
    }
    // And it works as before.
    assert_eq!(Http::new(rs.port()).present(&good(1 << 41).text()).unwrap(), "OK");
}
