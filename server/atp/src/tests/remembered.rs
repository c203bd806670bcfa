//! What the operator's file said before: a secret that was retired stays so, whatever copy of the file is put back. And what an agent
//! looks like that signs from two places.

use std::path::Path;

use axum::body::Body;
use http::{Request, StatusCode};
use obol_atp::Secret;
use tower::ServiceExt as _;

use super::{START, World, agent, read};
use crate::{Peer, SecretBook, Store};

const FIRST: &str = "the first secret of an agent";
const SECOND: &str = "the second secret of an agent";

fn file(secrets: &[(&str, Option<u64>)]) -> SecretBook {
    let rows: Vec<_> = secrets
        .iter()
        .map(|(secret, until)| match until {
            Some(until) => format!(r#"{{"secret":"{secret}","until":{until}}}"#),
            None => format!(r#"{{"secret":"{secret}"}}"#),
        })
        .collect();
    let agents = format!(r#"[{{"agent_id":"{}","secrets":[{}]}}]"#, agent(), rows.join(","));
    SecretBook::parse(
        format!(r#"{{"obol_atp":1,"shared":[{{"secret":"shared, and never used"}}],"agents":{agents}}}"#)
            .as_bytes(),
    )
    .unwrap()
}

fn world(folder: &Path, book: SecretBook) -> World {
    let store = Store::open(&folder.join("tokens.redb"), &folder.join("key")).unwrap();
    World::with(store, |builder| builder.secrets(book))
}

async fn holds(world: &World, secret: &str) -> bool {
    let (status, answer) = world.ask(&world.body(&["read"]), secret.as_bytes()).await;
    assert!(status == StatusCode::OK || answer["error"] == "invalid_signature", "{answer}");
    status == StatusCode::OK
}

#[tokio::test]
async fn a_retired_secret_stays_so_whatever_copy_of_the_file_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), file(&[(FIRST, None)]));
    assert!(holds(&world, FIRST).await, "control");
    world.router.reload(file(&[(SECOND, None), (FIRST, Some(START + 100))])).unwrap();
    assert!(holds(&world, FIRST).await && holds(&world, SECOND).await, "both, while they are rotated");
    world.router.reload(file(&[(SECOND, None)])).unwrap();
    assert!(!holds(&world, FIRST).await && holds(&world, SECOND).await);
    for copy in [&[(SECOND, None), (FIRST, None)][..], &[(FIRST, None)]] {
        world.router.reload(file(copy)).unwrap();
        assert!(!holds(&world, FIRST).await, "{copy:?}");
    }
    drop(world);
    let world = self::world(folder.path(), file(&[(FIRST, None)]));
    assert!(!holds(&world, FIRST).await, "after a restart");
    let fresh = tempfile::tempdir().unwrap();
    let other = self::world(fresh.path(), file(&[(FIRST, None)]));
    assert!(holds(&other, FIRST).await, "control: who never saw another file takes it");
    let bytes = std::fs::read(folder.path().join("tokens.redb")).unwrap();
    for secret in [FIRST, SECOND] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "no secret is kept");
    }
}

#[tokio::test]
async fn the_deadline_of_a_previous_secret_stands_in_an_old_copy_too() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), file(&[(FIRST, None)]));
    world.router.reload(file(&[(SECOND, None), (FIRST, Some(START + 100))])).unwrap();
    drop(world);
    let world = self::world(folder.path(), file(&[(FIRST, None)]));
    world.clock.set(START + 99);
    assert!(holds(&world, FIRST).await);
    world.clock.set(START + 100);
    assert!(!holds(&world, FIRST).await, "the copy names no deadline, and it stands");
    world.router.reload(file(&[(SECOND, None)])).unwrap();
    assert!(holds(&world, SECOND).await, "an old copy did not end the newest");
}

#[tokio::test]
async fn an_agent_that_signs_from_two_networks_is_told_of_and_served() {
    let world = World::new();
    let ask = |address: &str| {
        let body = world.body(&["read"]).signed_with(&Secret::of_any_length(super::SECRET));
        let request = Request::post("/v1/agent-tokens").header("content-type", "application/json");
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(Peer(address.parse().unwrap()));
        let answer = world.app.clone().oneshot(request);
        async { read(answer.await.unwrap()).await.0 }
    };
    let told = || world.router.metrics().contains("obol_atp_two_networks_total 1");
    assert_eq!((ask("192.0.2.1:1").await, ask("192.0.2.7:2").await), (StatusCode::OK, StatusCode::OK));
    assert!(!told(), "control: one network");
    assert_eq!(ask("198.51.100.1:3").await, StatusCode::OK);
    assert!(told());
}
