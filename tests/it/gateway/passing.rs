//! What passes while it comes: events, and WebSockets.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use obol_world::home::PATIENCE;

use super::{GO_ON, World, head};

/// A request without a body, and a reader of what comes back.
fn open(world: &World, path: &str, token: &str, more: &str) -> (TcpStream, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(world.at()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    (stream, reader)
}

#[test]
fn events_arrive_while_the_api_still_speaks() {
    let world = World::start();
    let (_stream, mut reader) =
        open(&world, "/saas/v1/search/events", &world.token("search"), "Connection: close\r\n");
    let head = head(&mut reader);
    assert!(
        head.starts_with("http/1.1 200 ") && head.contains("content-type: text/event-stream\r\n"),
        "{head}"
    );
    let mut first = [0; 16];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(String::from_utf8_lossy(&first), "B\r\ndata: one\n\n\r\n");
    world.seen.lock().push(GO_ON.to_owned());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "B\r\ndata: two\n\n\r\n0\r\n\r\n");
}

#[test]
fn one_token_opens_one_websocket() {
    let world = World::start();
    let asks =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n";
    let token = world.token("search");
    let (mut stream, mut reader) = open(&world, "/saas/v1/socket", &token, asks);
    let answer = head(&mut reader);
    assert!(answer.starts_with("http/1.1 101 "), "{answer} {}", world.log());
    assert!(
        answer.contains("upgrade: websocket\r\n") && answer.contains("sec-websocket-accept: x\r\n"),
        "{answer}"
    );
    for said in [&b"\x81\x02hi"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 70_000]] {
        stream.write_all(said).unwrap();
        let mut heard = vec![0; said.len()];
        reader.read_exact(&mut heard).unwrap();
        assert!(heard == said, "{} bytes came back otherwise", said.len());
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");

    let (_stream, mut reader) = open(&world, "/saas/v1/socket", &token, asks);
    assert!(head(&mut reader).starts_with("http/1.1 401 "));
    assert_eq!(world.count(), 1);
    let (_stream, mut reader) = open(&world, "/saas/v1/search/socket", &world.token("search"), asks);
    assert!(
        head(&mut reader).starts_with("http/1.1 200 "),
        "where the route does not say so it is a plain request"
    );
    assert!(!world.seen.lock()[1].contains("upgrade"));
}
