//! When a yes counts, with a clock by hand: within its time, after no fence, and together with its token.

use std::sync::Arc;

use obol_token::Scope;
use obol_verify::{Approvals, KnownApproval, MemorySpentSet, ResourceHalf, Session, SpentSet};
use obol_world::forge::Forge;
use obol_world::scope::scope_json;
use obol_world::server::{Server, names, session};
use obol_world::{ManualClock, NOW};
use serde_json::{Value, json};

/// The fixture's scope, as a human said yes to it at [`NOW`].
fn approved(number: u8) -> Value {
    let mut scope: Scope = serde_json::from_value(scope_json()).unwrap();
    scope.txn_id = Some([number; 16]);
    serde_json::to_value(obol_session::approved_scope(scope, NOW).unwrap()).unwrap()
}

fn approval(scope: &Value, expires_at: u64) -> ([u8; 16], KnownApproval) {
    let scope: Scope = serde_json::from_value(scope.clone()).unwrap();
    let digest = scope.approval_digest.unwrap();
    (scope.txn_id.unwrap(), KnownApproval { digest, arguments: None, confirmed_at: NOW, expires_at })
}

fn at(token: Forge, issued_at: u64, expires_at: u64) -> Forge {
    token.with(|token| (token.issued_at, token.expires_at) = (issued_at, expires_at))
}

fn server(approvals: &Arc<Approvals>) -> Server {
    Server::configured(|builder| builder.approvals(Arc::clone(approvals)))
}

#[test]
fn a_yes_counts_until_its_time_is_over_and_not_once_it_was_taken_back() {
    let approvals = Arc::new(Approvals::new());
    let server = server(&approvals);
    let scopes = [1, 2, 3].map(approved);
    for scope in &scopes {
        approvals.allow([approval(scope, NOW + 120)], NOW);
    }
    let token = |number: u64, scope| at(Forge::new(number, scope), NOW + 150, NOW + 200);
    server.clock.set(NOW + 180);
    assert!(server.accept(&token(1, &scopes[0])).is_ok(), "clocks may differ by a minute");
    server.clock.set(NOW + 181);
    assert_eq!(names(server.accept(&token(2, &scopes[1]))), ("CIBA_APPROVAL_EXPIRED", "CIBA_VALIDATION"));
    server.clock.set(NOW + 100);
    let late = server.verify(&token(3, &scopes[2]), &obol_world::server::reading());
    approvals.end([[3; 16]]);
    let spent = late.unwrap().spend().wait();
    assert_eq!(names(spent), ("APPROVAL_DIGEST_MISMATCH", "CIBA_DIGEST_VALIDATION"), "taken back meanwhile");
}

#[test]
fn a_yes_from_before_marks_were_lost_may_have_been_used() {
    let (approvals, clock) = (Arc::new(Approvals::new()), Arc::new(ManualClock::new(NOW + 5)));
    let scope = approved(1);
    approvals.allow([approval(&scope, NOW + 300)], NOW);
    // It refuses what was issued up to a minute after its start.
    let fenced: Arc<dyn SpentSet> = Arc::new(MemorySpentSet::fenced(Arc::clone(&clock) as Arc<_>, 60));
    let with = |spent| {
        Server::with_spent_set(session(), Arc::clone(&clock), spent, |builder| {
            builder.approvals(Arc::clone(&approvals))
        })
    };
    let (fenced, open) =
        (with(fenced), with(Arc::new(MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<_>, 60))));
    clock.set(NOW + 100);
    // The token itself is younger than the fence, the yes is not.
    let token = |number| at(Forge::new(number, &scope), NOW + 90, NOW + 150);
    assert_eq!(names(fenced.accept(&token(1))).0, "STALE_TIMESTAMP");
    assert!(open.accept(&token(2)).is_ok(), "nothing but the fence stops it");
}

#[test]
fn a_server_that_hears_of_no_approvals_takes_none_where_the_session_asks_for_them() {
    let scope = scope_json();
    let grant = json!({
        "tool": scope["tool"], "aud": scope["aud"], "action": "read", "resource": scope["resource"], "trust_level": 2,
        "approval": "per_call"
    });
    let fields = json!({
        "agent_instance_id": scope["agent_instance_id"], "iss": scope["iss"], "sub": scope["sub"], "grants": [grant]
    });
    let file = obol_world::halves::resource_server_sessions(NOW, &fields).to_string();
    let half = ResourceHalf::from_json(file.as_bytes()).unwrap();
    let asking = || Session::from_half(&half).unwrap();
    let approvals = Arc::new(Approvals::new());
    approvals.allow([approval(&approved(4), NOW + 300)], NOW);

    let plain = Server::new();
    assert!(plain.accept(&Forge::new(1, &approved(1))).is_ok(), "as r41 has it, where nobody says otherwise");
    let deaf = Server::with_session(asking(), |builder| builder);
    assert_eq!(names(deaf.accept(&Forge::new(2, &approved(2)))).0, "APPROVAL_DIGEST_MISMATCH");
    assert_eq!(
        names(deaf.accept(&Forge::new(3, &scope))).0,
        "INSUFFICIENT_PRIVILEGE",
        "it is not minted ahead"
    );
    let told = Server::with_session(asking(), |builder| builder.approvals(Arc::clone(&approvals)));
    assert!(told.accept(&Forge::new(4, &approved(4))).is_ok());
    assert_eq!(
        names(told.accept(&Forge::new(5, &approved(4)))).0,
        "TOKEN_REPLAYED",
        "another token of the same yes"
    );
}
