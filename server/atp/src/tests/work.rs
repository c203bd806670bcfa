//! What answers could tell by their work or their form, and do not.

use http::StatusCode;
use obol_atp::{AgentId, Secret};

use super::{SECRET, START, World, agent, book};
use crate::store::owners::Owners;

/// How often a key signs what it is asked for, and so takes part.
fn keys_of(id: AgentId) -> [bool; 2] {
    let book = book();
    let keys = book.keys(id, START, &Owners::default());
    let signature = Secret::of_any_length(SECRET).sign(b"x");
    [keys.current, keys.previous].map(|key| key.signed(b"x", &signature))
}

#[test]
fn whoever_asks_meets_two_keys() {
    // The type says two; that the second is not the first one again, and that an unknown agent's are nobody's, is looked at here.
    assert_eq!(keys_of(agent()), [true, false], "control: the agent's own");
    let book = book();
    for number in 3..=u8::MAX {
        let id = AgentId::from_random([number; 16]);
        assert_eq!(keys_of(id), [false, false]);
        let keys = book.keys(id, START, &Owners::default());
        assert!(!keys.current.is_same(keys.previous.expose()), "two random keys");
        assert_eq!((keys.current.expose().len(), keys.previous.expose().len()), (32, 32));
    }
}

#[tokio::test]
async fn verify_and_revoke_tell_nothing() {
    let world = World::new();
    let live = world.token(&["read"]).await;
    let verify = "/v1/agent-tokens/verify";
    let (head, rest) = live.split_once('.').unwrap();
    let (claims, mac) = rest.split_once('.').unwrap();
    let other = if mac.starts_with('A') { "B" } else { "A" };
    let wrong = [
        String::new(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        format!("{head}.{claims}.{other}{}", &mac[1..]),
        format!("{head}.{claims}."),
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        format!("{head}.{claims}.{mac}.x"),
        "x".repeat(7_000),
    ];
    let control = world.call("POST", verify, &format!("Bearer {live}"), "").await;
    assert_eq!((control.0, control.1["valid"] == true), (StatusCode::OK, true));
    for token in &wrong {
        let (status, answer) = world.call("POST", verify, &format!("Bearer {token}"), "").await;
        assert_eq!((status, answer), (StatusCode::OK, serde_json::json!({"valid": false})), "{token}");
        let revoked = world.call("POST", "/v1/agent-tokens/revoke", &format!("Bearer {token}"), "").await;
        assert_eq!(revoked, (StatusCode::OK, serde_json::json!({"revoked": true})), "{token}");
    }
    assert!(world.is_valid(&live).await);
    world.call("POST", "/v1/agent-tokens/revoke", &format!("Bearer {live}"), "").await;
    let (_, over) = world.call("POST", verify, &format!("Bearer {live}"), "").await;
    assert_eq!(over, serde_json::json!({"valid": false}), "what was revoked looks like what never was");
}
