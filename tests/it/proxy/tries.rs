//! What is sent again, and what never is: no call runs twice, whatever dies.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use obol_world::certificates;
use obol_world::home::{wait_until, write_private};
use parking_lot::Mutex;

use super::{Here, request};
use crate::gateway::{World, body, head};

const NOT_RUN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 0\r\n\
                       Content-Length: 22\r\n\r\n{\"code\":\"UNAVAILABLE\"}";
const FAILED: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

/// The heads that a gateway got.
type Heads = Arc<Mutex<Vec<String>>>;

/// A gateway that answers what it is told, one after the other; empty: it reads the request and says nothing.
fn gateway(answers: Vec<&'static str>) -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heads, next) = (listener.local_addr().unwrap().port(), Heads::default(), AtomicUsize::new(0));
    let (kept, next) = (Arc::clone(&heads), Arc::new(next));
    let answers = Arc::new(answers);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (heads, next, answers) = (Arc::clone(&kept), Arc::clone(&next), Arc::clone(&answers));
            std::thread::spawn(move || serve(stream.unwrap(), &heads, &next, &answers));
        }
    });
    (port, heads)
}

fn serve(mut stream: TcpStream, heads: &Heads, next: &AtomicUsize, answers: &[&str]) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let head = head(&mut reader);
        if head.is_empty() || body(&mut reader, &head).is_none() {
            return;
        }
        heads.lock().push(head);
        let answer = answers.get(next.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or_default();
        if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn before(answers: Vec<&'static str>) -> (Here, Heads) {
    let (port, heads) = gateway(answers);
    (Here::before(World::start(), &format!("http://127.0.0.1:{port}/saas"), &[]), heads)
}

fn token(head: &str) -> String {
    head.lines().find(|line| line.starts_with("authorization: tbac ")).unwrap().to_owned()
}

#[test]
fn a_request_of_which_nothing_was_run_is_sent_again_with_another_token() {
    for line in ["GET /saas/v1/search/a", "POST /saas/v1/search/a"] {
        let (here, heads) = before(vec![NOT_RUN, DONE]);
        let answer = here.ask(line, "", "");
        assert_eq!((answer.status, answer.text()), (200, "done"), "{}", here.log());
        let heads = heads.lock().clone();
        let [first, second] = heads.as_slice() else { panic!("{heads:?}") };
        assert_ne!(token(first), token(second));
    }
}

#[test]
fn a_request_that_may_have_been_run_is_sent_once() {
    for line in ["GET /saas/v1/search/a", "POST /saas/v1/pay"] {
        for more in ["", "Idempotency-Key: k1\r\n"] {
            let (here, heads) = before(vec!["", DONE]);
            let answer = here.ask(line, more, "");
            assert_eq!(answer.problem(), (502, "OUTCOME_UNKNOWN".to_owned(), String::new()), "{line} {more}");
            assert_eq!(answer.header("x-should-retry"), Some("false"));
            assert_eq!(heads.lock().len(), 1, "{line} {more}");
            assert_eq!(heads.lock()[0].contains("idempotency-key: k1\r\n"), !more.is_empty());

            let (here, heads) = before(vec![FAILED, DONE]);
            assert_eq!(here.ask(line, more, "").status, 502, "{line} {more}");
            assert_eq!(heads.lock().len(), 1, "{line} {more}");
        }
    }
}

#[test]
fn a_proxy_that_is_killed_in_the_middle_of_a_call_runs_it_never_again() {
    let mut here = Here::start(&[]);
    let at = here.at();
    let sending = std::thread::spawn(move || {
        crate::resource::send(at, request("GET /saas/v1/search/slow", "", "")).status
    });
    wait_until("the API has it", || here.world.count() == 1);
    here.kill();
    assert_eq!(sending.join().unwrap(), 0, "no answer");
    here.run();
    assert_eq!(here.ask("GET /saas/v1/search/a", "", "").status, 200, "{}", here.log());
    let seen = here.world.seen.lock().clone();
    let [first, second] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(first.contains("/slow") && second.starts_with("get /v1/search/a "), "{seen:?}");
}

#[test]
fn no_token_is_drawn_for_a_server_over_tls_where_nobody_is_trusted() {
    let (port, heads) = gateway(vec![DONE]);
    let mut here = Here::before(World::start(), &format!("https://127.0.0.1:{port}/saas"), &[]);
    here.kill();
    let home = here.world.home().to_owned();
    let ours = certificates::authority(&home, "ours");
    let none = home.join("none.crt");
    write_private(&none, "");
    here.run_with(&[("SSL_CERT_FILE", none)]);
    let told = here.ask("GET /saas/v1/search/a", "", "").text().to_owned();
    assert!(told.contains("ca-certificates"), "{told} {}", here.log());
    assert_eq!(here.world.drawn("search"), 0, "{told}");
    // For control: where somebody is trusted it is tried, with a token.
    here.kill();
    here.run_with(&[("SSL_CERT_FILE", ours)]);
    let told = here.ask("GET /saas/v1/search/a", "", "").text().to_owned();
    assert!(!told.contains("ca-certificates") && here.world.drawn("search") > 0, "{told}");
    assert_eq!(heads.lock().len(), 0, "it speaks no TLS");
}
