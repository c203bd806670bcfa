//! One request in, one request out, whatever is written around it, and whoever stands in front or behind.

mod corpus;
pub(crate) mod h2;
pub(crate) mod http2;
mod naive;

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::net::TcpStream;

use self::corpus::{Entry, corpus};
use self::naive::naive;
use super::proxies::{BOTH, Beside, longer, world_behind};
use super::{World, api, file};
use crate::resource::send;

/// How long a connection may be silent until what was sent on it counts as answered. Those in front close it earlier.
const SILENCE: Duration = Duration::from_secs(6);
/// How many attack at a time.
const AT_ONCE: usize = 12;

#[test]
fn no_request_hides_in_another() {
    let world = World::start();
    let (outer, inner) = (world.token("search"), world.token("search"));
    let hidden = format!(
        "POST /saas/v1/search/hidden HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {inner}\r\nContent-Length: 0\r\n\r\n"
    );
    let length = hidden.len();
    for lines in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: {length}, 0\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        "X: y\nContent-Length: 0\r\n".to_owned(),
        "Content-Length: +0\r\n".to_owned(),
    ] {
        let front = format!(
            "POST /saas/v1/search/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {outer}\r\n{lines}\r\n"
        );
        for body in ["", "0\r\n\r\n"] {
            let answer = send(world.at(), format!("{front}{body}{hidden}"));
            assert_eq!((answer.status, world.count()), (400, 0), "{lines:?} {body:?}: {}", world.log());
        }
    }
    let chunked = format!(
        "POST /saas/v1/search/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {outer}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{hidden}"
    );
    assert_eq!(send(world.at(), chunked).status, 200);
    assert_eq!(world.count(), 1, "after chunks the connection is over");
    assert_eq!(
        send(world.at(), hidden.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).status,
        200,
        "the control"
    );
    assert_eq!(world.count(), 2);
}

/// A request that hides in another, and the beginning of one that would take the next one's head for its own.
pub(crate) fn hidden(number: usize, token: &str) -> String {
    let head = format!("POST /saas/v1/search/hidden-{number} HTTP/1.1\r\nHost: localhost\r\n");
    format!("{head}Authorization: TBAC {token}\r\nContent-Length: 0\r\n\r\n{head}X-Rest: ")
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream
}

/// Sends so many requests to the one address, several at a time; after each another caller asks at the other, who must get an answer
/// of its own.
fn attack(
    world: &World,
    [aim, at]: [SocketAddr; 2],
    count: usize,
    bytes: impl Fn(usize, &str, &str, &str) -> Vec<u8> + Sync,
) {
    let next = AtomicUsize::new(0);
    let one = |number: usize| {
        let path = format!("/saas/v1/files/a-{number}");
        let hidden = hidden(number, &world.token("search"));
        bytes(number, &path, &world.token("search"), &hidden)
    };
    let victim = |number: usize| {
        let token = world.token("search");
        let request = format!(
            "GET /saas/v1/search/victim-{number} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\n\
             Connection: close\r\n\r\n"
        );
        let answer = send(at, request);
        let own = format!("get /v1/search/victim-{number} http/1.1\r\n");
        assert!(
            answer.status == 200 && answer.text().starts_with(&own),
            "{number}: {} {}",
            answer.status,
            world.log()
        );
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    h2::exchange(&mut connect(aim), &one(number));
                    victim(number);
                }
            });
        }
    });
}

/// The first lines of what reached the API.
fn lines(world: &World) -> Vec<String> {
    world.seen.lock().iter().map(|seen| seen.lines().next().unwrap_or_default().to_owned()).collect()
}

/// Whether at most one request came of each, none that was hidden, and none that no route lets through; and nothing was taken from
/// the callers beside.
fn holds(world: &World, count: usize, shown: impl Fn(usize) -> String) {
    let lines = lines(world);
    for number in 0..count {
        let times = |line: &str| lines.iter().filter(|seen| seen.as_str() == line).count();
        assert!(times(&format!("post /v1/files/a-{number} http/1.1")) <= 1, "twice: {}", shown(number));
        assert_eq!(times(&format!("get /v1/search/victim-{number} http/1.1")), 1, "{}", shown(number));
    }
    for line in &lines {
        let is_known = line.starts_with("post /v1/files/a-") || line.starts_with("get /v1/search/victim-");
        assert!(is_known && line.ends_with(" http/1.1"), "{line}");
    }
    let came = lines.iter().filter(|line| line.starts_with("post ")).count();
    assert!((3..=count).contains(&came), "some are odd and can be read in one way only: {came}");
}

fn through(world: &World, at: SocketAddr) {
    let entries = corpus();
    attack(world, [at; 2], entries.len(), |number, path, token, hidden| {
        entries[number].bytes(path, token, hidden)
    });
    holds(world, entries.len(), |number| entries[number].shown());
}

fn world() -> World {
    World::with(&[], |_, api| longer(&file(api)))
}

#[test]
fn nothing_of_the_corpus_hides_from_the_gateway_alone() {
    let world = world();
    through(&world, world.at());
}

#[test]
fn nothing_of_the_corpus_passes_nginx_and_caddy_to_come_out_of_the_gateway_as_two() {
    for kind in BOTH {
        let world = world();
        let front = Beside::in_front(kind, world.home(), world.port);
        through(&world, front.at);
    }
}

#[test]
fn nothing_of_the_corpus_passes_the_gateway_to_become_two_behind_nginx_or_caddy() {
    for kind in BOTH {
        let (world, _behind) = world_behind(kind);
        through(&world, world.at());
    }
}

#[test]
fn nothing_of_http2_becomes_two_where_nginx_and_caddy_write_it_as_http1() {
    for kind in BOTH {
        let world = world();
        let front = Beside::in_front(kind, world.home(), world.port);
        let good = |number: usize| {
            let (path, token) = (format!("/saas/v1/files/good-{number}"), world.token("search"));
            let authorization = format!("TBAC {token}");
            h2::request(
                &[
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", &path),
                    (":authority", "localhost"),
                    ("authorization", &authorization),
                    ("content-type", "text/plain"),
                ],
                b"x",
            )
        };
        h2::exchange(&mut connect(front.http2), &good(0));
        assert_eq!(
            lines(&world),
            ["post /v1/files/good-0 http/1.1"],
            "the control: {kind:?} {}",
            front.log()
        );
        world.seen.lock().clear();
        attack(&world, [front.http2, front.at], http2::count(), |number, path, token, hidden| {
            http2::bytes(number, "http", path, token, hidden)
        });
        holds(&world, http2::count(), http2::shown);
    }
}

#[test]
fn what_hides_from_a_proxy_that_believes_the_length_does_not_hide_from_the_gateway_behind_it() {
    // The control: an API that believes chunks has two requests where such a proxy had one.
    let entries = corpus();
    let (api, seen) = api();
    let at = naive(SocketAddr::from(([127, 0, 0, 1], api)));
    let got_two_out = |entry: &Entry| {
        seen.lock().clear();
        let mut stream = connect(at);
        let bytes = entry.bytes("/v1/files/a", "x", &hidden(0, "x"));
        let _closed_early = std::io::Write::write_all(&mut stream, &bytes);
        let _gone = stream.shutdown(std::net::Shutdown::Write);
        h2::exchange(&mut stream, b"");
        seen.lock().iter().any(|seen| seen.starts_with("post /saas/v1/search/hidden-0 "))
    };
    let many = entries.iter().filter(|entry| got_two_out(entry)).count();
    assert!(many >= 3, "the corpus gets two out of one only {many} times");

    let world = world();
    through(&world, naive(world.at()));
}
