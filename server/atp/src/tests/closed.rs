//! What cannot be kept is refused, and a key for tokens is no agent's secret.

use std::sync::Arc;

use http::StatusCode;
use obol_atp::Secret;
use obol_verify::{Mark, SpendError, SpendTicket, SpentSet};

use super::{SECRET, START, World, book};
use crate::{BuildError, SecretBook, Store};

/// Marks that cannot be kept, for this reason.
#[derive(Debug)]
struct Broken(SpendError);

impl SpentSet for Broken {
    fn is_spent(&self, _: &Mark) -> Result<bool, SpendError> {
        Err(self.0.clone())
    }

    fn spend_with(&self, _: Mark, _: Option<Mark>) -> SpendTicket {
        SpendTicket::ready(Err(self.0.clone()))
    }

    fn fence(&self) -> Option<u64> {
        None
    }

    fn keep_after_expiry(&self) -> u64 {
        120
    }

    fn health(&self) -> Result<(), SpendError> {
        Err(self.0.clone())
    }

    fn marks(&self) -> Option<usize> {
        None
    }
}

#[tokio::test]
async fn without_a_mark_there_is_no_token() {
    for why in [SpendError::Unavailable("full".into()), SpendError::Forgotten] {
        let world =
            World::with(Store::memory(), |builder| builder.spent(Arc::new(Broken(why)) as Arc<dyn SpentSet>));
        let (status, answer) = world.ask(&world.body(&["read"]), SECRET).await;
        assert_eq!((status, &answer["error"]), (StatusCode::SERVICE_UNAVAILABLE, &"unavailable".into()));
        assert_eq!(answer.get("token"), None);
        assert!(world.router.metrics().contains("obol_ready 0"), "and it says that it is not ready");
    }
    let sound = World::new();
    assert_eq!(sound.ask(&sound.body(&["read"]), SECRET).await.0, StatusCode::OK, "control");
}

#[tokio::test]
async fn a_secret_that_is_the_key_for_tokens_is_refused() {
    let world = World::new();
    let key = {
        let provider = &world.router.provider;
        let kept = provider.store.kept();
        kept.keys.current(provider.key_policy, START).unwrap().expose().to_vec()
    };
    for secret in [obol_secret::text::to_hex(&key).into_bytes(), key] {
        let book = SecretBook::shared(&secret).unwrap();
        assert_eq!(world.router.reload(book).unwrap_err(), BuildError::SecretIsKey);
    }
    assert!(world.token(&["read"]).await.len() > 1, "what was in force is");
    world.router.reload(book()).unwrap();
}

#[tokio::test]
async fn a_body_for_a_token_ends_none() {
    let world = World::new();
    let token = world.token(&["read"]).await;
    let body = world.body(&["read"]).signed_with(&Secret::of_any_length(SECRET));
    let (status, answer) = world.call("POST", "/v1/agent-tokens/revoke", "", body.clone()).await;
    assert_eq!((status, &answer["error"]), (StatusCode::BAD_REQUEST, &"invalid_request".into()));
    assert!(world.is_valid(&token).await);
    assert_eq!(
        world.call("POST", "/v1/agent-tokens", "", body).await.0,
        StatusCode::OK,
        "control: nor was it spent"
    );
}
