//! What a provider does when it can write no more, or finds that what it wrote is gone: it refuses, and forgets nothing that it said.

use std::fs;

use obol_world::home::{free_port, limit_files};

use crate::atp::agent::SECRET;
use crate::atp::provider::{Serve, home_with};

const PLACES: [&str; 10] = [
    "--store",
    "log/tokens.redb",
    "--key",
    "log/atp.key",
    "--spent",
    "log/spent.redb",
    "--audit-log",
    "log/audit.jsonl",
    "--audit-key",
    "log/audit.key",
];

#[test]
fn a_provider_that_can_write_no_more_refuses_and_forgets_nothing() {
    let (home, port) = (home_with(&[SECRET]), free_port());
    let serve = Serve::start(home.path(), port, &[&PLACES[..], &["--first-start"]].concat(), &[]);
    let (answered, other) = (serve.signed(), serve.signed());
    let [(200, live), (200, revoked)] = [serve.request(&answered), serve.request(&other)] else {
        panic!("control: {}", serve.log())
    };
    assert_eq!(serve.call("POST", "/revoke", &revoked, "").unwrap().0, 200);
    assert_eq!(serve.issue(), Some(200), "control");

    // A full disk: nothing more is written to any file.
    limit_files(serve.pid(), Some(0));
    let refused = serve.signed();
    for _ in 0..5 {
        assert_eq!(serve.request(&refused), (503, "unavailable".to_owned()));
        assert_eq!(serve.issue(), Some(503));
        assert_eq!(serve.call("POST", "/revoke", &live, "").unwrap().0, 503, "not confirmed");
    }
    assert_eq!(serve.request(&serve.signed()), (503, "unavailable".to_owned()), "nor a request that is new");
    drop(serve);

    let serve = Serve::start(home.path(), port, &PLACES, &[]);
    assert!(serve.is_valid(&live) && !serve.is_valid(&revoked));
    for body in [&answered, &other] {
        assert_eq!(serve.request(body), (401, "replayed".to_owned()));
    }
    assert_eq!((serve.request(&serve.signed()).0, serve.issue()), (200, Some(200)), "with room it goes on");
}

#[test]
fn where_the_marks_are_gone_what_may_have_been_answered_is_refused() {
    let (home, port) = (home_with(&[SECRET]), free_port());
    let serve = Serve::start(home.path(), port, &[&PLACES[..], &["--first-start"]].concat(), &[]);
    let answered = serve.signed();
    let (status, token) = serve.request(&answered);
    assert_eq!(status, 200, "{}", serve.log());
    drop(serve);
    let serve = Serve::start(home.path(), port, &PLACES, &[]);
    assert_eq!(serve.request(&answered), (401, "replayed".to_owned()), "control: with its marks it knows");
    drop(serve);
    fs::remove_file(home.path().join("log/spent.redb")).unwrap();
    let serve = Serve::start(home.path(), port, &PLACES, &[]);
    for body in [answered, serve.signed()] {
        assert_eq!(serve.request(&body), (503, "unavailable".to_owned()), "signed before the fence");
    }
    assert!(serve.is_valid(&token), "its tokens are kept elsewhere");
    assert!(serve.log().contains("--first-start"), "what that costs, and why, is said: {}", serve.log());
}

#[test]
fn a_token_store_that_is_gone_ends_every_token() {
    let (home, port) = (home_with(&[SECRET]), free_port());
    let serve = Serve::start(home.path(), port, &[&PLACES[..], &["--first-start"]].concat(), &[]);
    let (status, token) = serve.request(&serve.signed());
    assert_eq!(status, 200, "{}", serve.log());
    drop(serve);
    let serve = Serve::start(home.path(), port, &PLACES, &[]);
    assert!(serve.is_valid(&token), "control");
    drop(serve);
    for gone in ["log/tokens.redb", "log/atp.key"] {
        fs::remove_file(home.path().join(gone)).unwrap();
    }
    let serve = Serve::start(home.path(), port, &PLACES, &[]);
    assert!(!serve.is_valid(&token), "what was revoked among them is not known any more");
    let (status, anew) = serve.request(&serve.signed());
    assert!(status == 200 && serve.is_valid(&anew), "agents ask anew");
}
