//! A sidecar that somebody captured with all its keys invents a human, uses one yes twice, and changes what was approved. Each
//! with a control: without the defence it goes through.

use std::sync::Arc;

use obol_ipc::approvals::WantedCall;
use obol_token::{Audience, Scope};
use obol_verify::{MemorySessionTable, MemorySpentSet, SpentSet, SystemClock, Template, Verifier};
use obol_verify_redis::{RedisOptions, RedisSpentSet};
use obol_world::now;
use obol_world::redis::RedisServer;
use serde_json::json;

use super::{API, Replica, World, code, mint, pay, present, scope_of};

fn memory() -> Arc<dyn SpentSet> {
    Arc::new(MemorySpentSet::unfenced(Arc::new(SystemClock::new()), 60))
}

/// A verifier that takes r41 at its word: no grants, and no table of approvals.
fn believing(replica: &Replica) -> Verifier {
    let sessions = MemorySessionTable::new();
    sessions.add(replica.bare_session()).unwrap();
    let builder = Verifier::builder(Audience::new(API).unwrap(), Arc::new(sessions), memory());
    builder.templates(Arc::new(Template::Any)).build().unwrap()
}

/// As if a human had said yes to this a moment ago.
fn invented(scope: &Scope) -> Scope {
    let scope = Scope { txn_id: Some([7; 16]), ..scope.clone() };
    obol_session::approved_scope(scope, now()).unwrap()
}

#[test]
fn a_captured_sidecar_invents_no_human_and_changes_nothing_of_what_was_approved() {
    let world = World::new();
    let replica = Replica::start(&world.service, memory());
    let arguments = json!({"amount": "12.50"});
    let call = WantedCall { arguments: Some(arguments.to_string()), ..pay() };
    let token = world.approved_token(call);
    replica.knows(1);
    let (session, scope) = (replica.session(), scope_of(&replica.session(), &token));
    let believing = believing(&replica);

    let forged = mint(&session, &invented(&scope));
    assert_eq!(code(&replica.present(&forged, &arguments)), "APPROVAL_DIGEST_MISMATCH");
    assert_eq!(code(&present(&believing, &forged, &arguments)), "OK", "nothing but the table stops it");

    // The transaction of the real one, with more than was approved.
    let wider = Scope { resource: "accounts/**".to_owned(), ..scope.clone() };
    let wider = obol_session::approved_scope(wider, scope.human_confirmed_at).unwrap();
    let wider = mint(&session, &wider);
    assert_eq!(code(&replica.present(&wider, &arguments)), "APPROVAL_DIGEST_MISMATCH");
    assert_eq!(code(&present(&believing, &wider, &arguments)), "OK");
    // A later time, to make it last.
    let later = mint(&session, &Scope { human_confirmed_at: scope.human_confirmed_at + 30, ..scope.clone() });
    assert_eq!(code(&replica.present(&later, &arguments)), "APPROVAL_DIGEST_MISMATCH");

    let other = json!({"amount": "9000"});
    assert_eq!(code(&replica.present(&token, &other)), "APPROVAL_DIGEST_MISMATCH");
    assert_eq!(
        code(&present(&believing, &token, &other)),
        "OK",
        "nothing but the hash of the arguments stops it"
    );
    assert_eq!(code(&replica.present(&token, &arguments)), "OK", "what was refused burned nothing");
}

/// Two tokens of one yes at two replicas at the same time, a few times over: how many of the pairs were both accepted.
fn both_accepted(world: &World, replicas: &[Replica; 2]) -> usize {
    let mut both = 0;
    for round in 1..=3 {
        let token = world.approved_token(pay());
        replicas.iter().for_each(|replica| replica.knows(round));
        let session = replicas[0].session();
        let second = mint(&session, &scope_of(&session, &token));
        let outcomes = std::thread::scope(|scope| {
            let tried = [(&replicas[0], &token), (&replicas[1], &second)]
                .map(|(replica, token)| scope.spawn(|| code(&replica.present(token, &json!({})))));
            tried.map(|one| one.join().unwrap())
        });
        let accepted = outcomes.iter().filter(|outcome| **outcome == "OK").count();
        assert!(accepted >= 1, "{outcomes:?}");
        assert!(accepted == 2 || outcomes.contains(&"TOKEN_REPLAYED"), "{outcomes:?}");
        both += usize::from(accepted == 2);
        // Nor afterwards, at either.
        if accepted == 1 {
            for replica in replicas {
                let third = mint(&session, &scope_of(&session, &token));
                assert_eq!(code(&replica.present(&third, &json!({}))), "TOKEN_REPLAYED");
            }
        }
    }
    both
}

#[test]
fn one_yes_is_used_once_over_all_replicas_that_share_their_marks() {
    let world = World::new();
    let redis = RedisServer::start(&[]);
    let shared = || -> Arc<dyn SpentSet> {
        let options = RedisOptions::new(&redis.url(), "rs").unwrap();
        let options = options.reply_timeout(core::time::Duration::from_secs(5)).first_start();
        Arc::new(RedisSpentSet::open(options, Arc::new(SystemClock::new())).unwrap())
    };
    let replicas = [(); 2].map(|()| Replica::start(&world.service, shared()));
    assert_eq!(both_accepted(&world, &replicas), 0);
    drop(replicas);
    let alone = [(); 2].map(|()| Replica::start(&world.service, memory()));
    assert_eq!(both_accepted(&world, &alone), 3, "nothing but the shared marks stops it");
}
