//! A token that was opened before anybody read what it is for: what may change until it is spent.

use obol_verify::{Denial, Opened, Spent, Unverified};
use obol_world::forge::Forge;
use obol_world::server::{Server, names, reading};
use obol_world::{NOW, SESSION};

fn opened(server: &Server) -> Opened {
    Unverified::from_bytes(Forge::standard(1).token()).unwrap().open(&server.verifier).unwrap()
}

fn spent(opened: Opened) -> Result<Spent, Denial> {
    opened.verify(&reading())?.spend().wait()
}

#[test]
fn what_changes_after_a_token_was_opened_counts_when_it_is_spent() {
    type Change = fn(&Server);
    let changes: [(&str, Change); 5] = [
        ("ok", |_| {}),
        ("EPOCH_EXPIRED", |server| server.verifier.raise_policy_epoch(2)),
        ("STALE_TIMESTAMP", |server| server.clock.set(NOW + 121)),
        ("SESSION_EXPIRED", |server| assert!(server.sessions.revoke(SESSION))),
        ("TOKEN_REPLAYED", |server| drop(server.accept(&Forge::standard(1)).unwrap())),
    ];
    for (outcome, change) in changes {
        let server = Server::new();
        let opened = opened(&server);
        change(&server);
        assert_eq!(names(spent(opened)).0, outcome);
    }
}

#[test]
fn opening_refuses_all_that_does_not_depend_on_the_call_and_burns_nothing() {
    let server = Server::new();
    type Fault = fn(&mut Forge);
    let faults: [(&str, Fault); 5] = [
        ("INVALID_SIGNATURE", |token| token.bad_signature = true),
        ("AUD_MISMATCH", |token| token.audience = "https://other.example".to_owned()),
        ("SESSION_NOT_FOUND", |token| token.session_id += 1),
        ("STALE_TIMESTAMP", |token| token.issued_at += 1_000),
        ("PRIVILEGE_SIG_INVALID", |token| token.signed_epoch = 9),
    ];
    for (code, fault) in faults {
        let token = Forge::standard(1).with(fault).token();
        assert_eq!(names(Unverified::from_bytes(token).unwrap().open(&server.verifier)).0, code);
    }
    drop(opened(&server));
    assert_eq!(names(spent(opened(&server))).0, "ok", "a token that was opened before is as good as new");
}
