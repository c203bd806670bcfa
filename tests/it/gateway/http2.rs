//! HTTP/2 on the agent's side: the same tokens, the same limits, and nothing that becomes two requests.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use obol_probe::outward::tls;
use obol_world::certificates::{self, Holds};
use obol_world::home::PATIENCE;
use rustls::{ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::proxies::longer;
use super::smuggling::h2::{
    CONTINUATION, END_HEADERS, END_STREAM, Frame, GO_AWAY, HEADERS, RESET, SETTINGS, block, frame, frames,
    preface,
};
use super::smuggling::{h2, hidden, http2};
use super::{SECRET, World, file};

/// `PROTOCOL_ERROR`, `REFUSED_STREAM` and `ENHANCE_YOUR_CALM`.
const PROTOCOL_ERROR: u32 = 1;
const REFUSED: u32 = 7;
const CALM: u32 = 11;
/// `:status: 200` and `:status: 400` of the static table.
const OK: u8 = 0x88;
const BAD_REQUEST: u8 = 0x8c;

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn world() -> World {
    World::with(&["--tls-cert", "as.crt", "--tls-key", "as.key"], |home, api| {
        certificates::authority(home, "ours");
        certificates::issued(home, "ours", "as", "localhost", Holds::Now);
        longer(&file(api))
    })
}

/// A connection that speaks HTTP/2, and whatever is written on it.
fn connect(world: &World) -> Stream {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(world.home().join("ours.crt")).unwrap();
    roots.add(trusted).unwrap();
    let mut config = tls(roots).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(world.at()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(&preface()).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

fn head(method: &str, path: &str, token: &str) -> Vec<u8> {
    let authorization = format!("TBAC {token}");
    block(&[
        (":method", method),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("authorization", &authorization),
        ("content-type", "application/json"),
    ])
}

/// A request without a body, and the frames of its answer.
fn ask(stream: &mut Stream, number: u32, path: &str, token: &str) -> Vec<Frame> {
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &head("GET", path, token))).unwrap();
    frames(stream, |frame| frame.ends(number))
}

fn status(frames: &[Frame]) -> Option<u8> {
    frames.iter().find(|frame| frame.kind == HEADERS).map(|frame| frame.payload[0])
}

fn curl(world: &World, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    curl.env("CURL_CA_BUNDLE", world.home().join("ours.crt"));
    curl.args(["-q", "--silent", "--show-error", "--max-time", "60"]);
    let done = curl.args(arguments).output().expect("curl is installed by scripts/install");
    assert!(done.status.success(), "{done:?} {}", world.log());
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn a_client_that_prefers_http2_gets_it_and_a_token_is_good_for_one_request_there_too() {
    let world = world();
    let url = format!("https://localhost:{}/saas/v1/search/a?q=x", world.port);
    let (token, other) = (format!("Authorization: TBAC {}", world.token("search")), world.token("search"));
    let other = format!("Authorization: TBAC {other}");
    let json = "Content-Type: application/json";
    let shown = ["-w", "\n%{http_version} %{http_code} %{num_connects}\n"];
    let one = |token, version| {
        [&[version, "-H", token, "-H", json, "-d", r#"{"n": 1}"#, &url][..], &shown].concat()
    };
    let answer = curl(&world, &[one(&token, "--http2"), vec!["--next"], one(&other, "--http2")].concat());
    let told: Vec<_> = answer.lines().filter(|line| line.starts_with("2 200 ")).collect();
    assert_eq!(told, ["2 200 1", "2 200 0"], "both on one connection: {answer}");
    assert!(answer.contains("authorization: bearer ***") && !answer.contains(SECRET), "{answer}");
    let again = curl(&world, &one(&token, "--http2"));
    assert!(again.contains("TOKEN_REPLAYED") && again.contains("\n2 401 "), "{again}");
    assert_eq!(world.count(), 2);
    for seen in world.seen.lock().iter() {
        assert!(
            seen.starts_with("post /v1/search/a?q=x http/1.1\r\n") && seen.ends_with(r#"{"n":1}"#),
            "{seen}"
        );
    }
    let third = format!("Authorization: TBAC {}", world.token("search"));
    assert!(curl(&world, &one(&third, "--http1.1")).contains("\n1.1 200 "), "{}", world.log());
}

#[test]
fn nothing_of_http2_becomes_two_requests_or_one_that_no_route_lets_through() {
    let world = world();
    for number in 0..http2::count() {
        let path = format!("/saas/v1/files/a-{number}");
        let inner = hidden(number, &world.token("search"));
        let bytes = http2::bytes(number, "https", &path, &world.token("search"), &inner);
        let mut stream = connect(&world);
        stream.write_all(bytes.strip_prefix(&preface()[..]).unwrap()).unwrap();
        let answer = frames(&mut stream, |frame| frame.ends(1));
        assert!(answer.last().is_some_and(|frame| frame.ends(1)), "{}: {answer:?}", http2::shown(number));
        assert_ne!(status(&answer), Some(OK), "{}", http2::shown(number));
        assert_eq!(*world.seen.lock(), Vec::<String>::new(), "{}", http2::shown(number));
    }
    let mut stream = connect(&world);
    let good = ask(&mut stream, 1, "/saas/v1/search/a", &world.token("search"));
    assert_eq!((status(&good), world.count()), (Some(OK), 1), "the control: {}", world.log());
}

#[test]
fn a_websocket_is_not_offered_over_http2_and_refused() {
    let world = world();
    let authorization = format!("TBAC {}", world.token("search"));
    let opening = |own: &[(&str, &str)]| {
        let (mut stream, usual) = (connect(&world), [(":method", "CONNECT"), (":authority", "localhost")]);
        let said = [("authorization", authorization.as_str()), ("sec-websocket-version", "13")];
        let head = block(&[&usual, own, &said].concat());
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).unwrap();
        frames(&mut stream, |frame| frame.ends(1))
    };
    let extended = [(":protocol", "websocket"), (":scheme", "https"), (":path", "/saas/v1/socket")];
    let answer = opening(&extended);
    assert_eq!(answer.last().and_then(Frame::error), Some(PROTOCOL_ERROR), "{answer:?}");
    let settings = answer.iter().find(|frame| frame.kind == SETTINGS).unwrap();
    let offered: Vec<u8> = settings.payload.chunks(6).map(|setting| setting[1]).collect();
    assert!(!offered.contains(&8), "nor is it offered (RFC 8441): {offered:?}");
    let answer = opening(&[]);
    assert_eq!(status(&answer), Some(BAD_REQUEST), "{answer:?}");
    let text: Vec<u8> = answer
        .iter()
        .filter(|frame| frame.kind == h2::DATA)
        .flat_map(|frame| frame.payload.clone())
        .collect();
    assert!(String::from_utf8_lossy(&text).contains("offer http/1.1 alone"), "{answer:?}");
    assert_eq!(world.count(), 0);
}

#[test]
fn streams_resets_and_heads_without_end_are_bounded_and_others_are_served_meanwhile() {
    let world = world();
    let serves_others = |what: &str| {
        let answer = ask(&mut connect(&world), 1, "/saas/v1/search/a", &world.token("search"));
        assert_eq!(status(&answer), Some(OK), "{what}: {answer:?} {}", world.log());
    };

    // Requests whose bodies never come; 64 may be under way.
    let mut many = connect(&world);
    let stream_of = |number: u32| 2 * number + 1;
    for number in 0..70 {
        let head = head("POST", "/saas/v1/search/a", &world.token("search"));
        many.write_all(&frame(HEADERS, END_HEADERS, stream_of(number), &head)).unwrap();
    }
    let told = frames(&mut many, |frame| frame.kind == RESET || frame.kind == GO_AWAY);
    assert_eq!(told.last().and_then(Frame::error), Some(REFUSED), "{told:?}");
    assert!(told.last().unwrap().stream >= stream_of(64), "{told:?}");
    serves_others("many streams");

    // A few requests that are taken back are nothing; a thousand end the connection (CVE-2023-44487).
    let taken_back = |stream: &mut Stream, count: u32| {
        let head = head("GET", "/saas/v1/search/a", "x");
        let one = |number| {
            let number = stream_of(number);
            [frame(HEADERS, END_HEADERS | END_STREAM, number, &head), frame(RESET, 0, number, &[0, 0, 0, 8])]
                .concat()
        };
        let _closed_early = stream.write_all(&(0..count).flat_map(one).collect::<Vec<u8>>());
    };
    let mut few = connect(&world);
    taken_back(&mut few, 10);
    let answer = ask(&mut few, stream_of(10), "/saas/v1/search/a", &world.token("search"));
    assert_eq!(status(&answer), Some(OK), "the control: {answer:?}");
    let mut flood = connect(&world);
    taken_back(&mut flood, 1_000);
    let told = frames(&mut flood, |frame| frame.kind == GO_AWAY);
    assert_eq!(told.last().and_then(Frame::error), Some(CALM), "{told:?}");
    serves_others("resets");

    // A head that goes on and on, in pieces that hold nothing, and in pieces that hold much.
    for (piece, count) in [(Vec::new(), 10_000), (block(&[("x", &"y".repeat(8_000))]), 1_000)] {
        let mut endless = connect(&world);
        let begun = frame(HEADERS, END_STREAM, 1, &head("GET", "/saas/v1/search/a", "x"));
        let piece = frame(CONTINUATION, 0, 1, &piece);
        let _closed_early =
            endless.write_all(&begun).and_then(|()| (0..count).try_for_each(|_| endless.write_all(&piece)));
        let told = frames(&mut endless, |frame| frame.kind == GO_AWAY);
        assert!(status(&told).is_none(), "{told:?}");
        assert!(told.last().and_then(Frame::error).is_none_or(|error| error == CALM), "{told:?}");
        serves_others("heads without end");
    }
}
