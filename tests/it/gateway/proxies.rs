//! nginx and Caddy in front of the gateway, as the manual says, and between it and the API.

use core::net::SocketAddr;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use obol_world::home::{PATIENCE, free_port};
use obol_world::reverse::ReverseProxy;

use super::{GO_ON, SECRET, World, file, head};
use crate::resource::{Answer, send};

const PAGE: &str = include_str!("../../../docs/gateway.md");
/// Connections end soon, so that who reads them to their end does not wait long.
const NGINX_SOON: &str =
    "keepalive_timeout 1s; client_header_timeout 2s; client_body_timeout 2s; lingering_close off;";
const CADDY_SOON: &str = "timeouts {\n   idle 1s\n   read_header 2s\n   read_body 2s\n  }\n }\n";

/// Which program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Nginx,
    Caddy,
}

pub(super) const BOTH: [Kind; 2] = [Kind::Nginx, Kind::Caddy];

/// A proxy that listens.
pub(super) struct Beside {
    pub(super) at: SocketAddr,
    /// The same for HTTP/2 without TLS.
    pub(super) http2: SocketAddr,
    proxy: ReverseProxy,
}

impl Beside {
    /// By the manual's recipe in front of the gateway at this port. What has `hidden` in its path is refused by the proxy itself.
    pub(super) fn in_front(kind: Kind, folder: &Path, gateway: u16) -> Self {
        let (port, http2) = (free_port(), free_port());
        let text = recipe(kind).replace(":8730", &format!(":{gateway}"));
        let proxy = match kind {
            Kind::Nginx => {
                let listen = format!("127.0.0.1:{port}; listen 127.0.0.1:{http2} http2;");
                let text = text.replace("127.0.0.1:8080;", &format!("{listen} {NGINX_SOON}"));
                let text = text.replace("    location / {", "location ~ hidden { return 403; } location / {");
                ReverseProxy::nginx(&folder.join("front"), "events {}", &text)
            }
            Kind::Caddy => {
                let text = text.replace(
                    ":8080 {",
                    &format!(":{port}, :{http2} {{\n @hidden path *hidden*\n respond @hidden 403"),
                );
                let servers =
                    |port: u16, more: &str| format!(" servers 127.0.0.1:{port} {{\n {more} {CADDY_SOON}");
                let options = servers(port, "") + &servers(http2, "protocols h1 h2c\n");
                ReverseProxy::caddy(&folder.join("front"), &options, &text)
            }
        };
        Self::waited(proxy, port, http2)
    }

    /// In front of the API at this port, with connections that are kept.
    pub(super) fn behind(kind: Kind, folder: &Path, api: u16) -> Self {
        let port = free_port();
        let proxy = match kind {
            Kind::Nginx => {
                let text = format!(
                    "upstream api {{ server 127.0.0.1:{api}; keepalive 8; }}\nserver {{ listen 127.0.0.1:{port};\n\
                     location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n"
                );
                ReverseProxy::nginx(&folder.join("behind"), "events {}", &text)
            }
            Kind::Caddy => {
                let text = format!(":{port} {{\n bind 127.0.0.1\n reverse_proxy 127.0.0.1:{api}\n}}\n");
                ReverseProxy::caddy(&folder.join("behind"), "", &text)
            }
        };
        Self::waited(proxy, port, port)
    }

    fn waited(proxy: ReverseProxy, port: u16, http2: u16) -> Self {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut beside = Self { at: at(port), http2: at(http2), proxy };
        for at in [beside.at, beside.http2] {
            beside.proxy.wait(at);
        }
        beside
    }

    pub(super) fn log(&self) -> String {
        self.proxy.log()
    }
}

/// The manual's.
fn recipe(kind: Kind) -> &'static str {
    let language = match kind {
        Kind::Nginx => "```nginx\n",
        Kind::Caddy => "```caddyfile\n",
    };
    let text = PAGE.split_once(language).and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    for port in [":8080", ":8730"] {
        assert_eq!(text.matches(port).count(), 1, "{port} in {text}");
    }
    text
}

/// A gateway whose API is behind such a proxy, and lets longer bodies pass.
pub(super) fn world_behind(kind: Kind) -> (World, Beside) {
    let mut beside = None;
    let world = World::with(&[], |home, api| {
        let behind = Beside::behind(kind, home, api);
        let text = file(behind.at.port());
        beside = Some(behind);
        longer(&text)
    });
    (world, beside.unwrap())
}

/// The same file with longer bodies.
pub(super) fn longer(file: &str) -> String {
    file.replace("max_body_bytes = 1000", "max_body_bytes = 100000")
}

fn ask(at: SocketAddr, line: &str, token: &str, more: &str, body: &str) -> Answer {
    let length = body.len();
    send(
        at,
        format!(
            "{line} HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: TBAC {token}\r\nConnection: close\r\n{more}\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

#[test]
fn a_call_goes_through_nginx_and_through_caddy_to_the_gateway_and_works_once() {
    for kind in BOTH {
        let world = World::start();
        let front = Beside::in_front(kind, world.home(), world.port);
        let token = world.token("search");
        let json = "Content-Type: application/json\r\nX-Forwarded-For: 1.2.3.4\r\n";
        let answer = ask(front.at, "POST /saas/v1/search/a?q=x", &token, json, r#"{"n": 1}"#);
        assert_eq!(answer.status, 200, "{kind:?} {} {} {}", answer.text(), front.log(), world.log());
        let seen = world.seen.lock().clone();
        let [seen] = seen.as_slice() else { panic!("{kind:?} {seen:?}") };
        assert!(
            seen.starts_with("post /v1/search/a?q=x http/1.1\r\n") && seen.ends_with(r#"{"n":1}"#),
            "{seen}"
        );
        assert!(seen.contains(&format!("authorization: bearer {SECRET}\r\n")), "{kind:?} {seen}");
        assert!(
            !["x-forwarded", "forwarded", "via: "].iter().any(|name| seen.contains(name)),
            "{kind:?} {seen}"
        );
        assert!(!answer.text().contains(SECRET));
        let again = ask(front.at, "POST /saas/v1/search/a?q=x", &token, json, r#"{"n": 1}"#);
        assert_eq!(again.problem().1, "TOKEN_REPLAYED", "{kind:?}");
        assert_eq!(
            ask(front.at, "DELETE /saas/v1/search/a", &world.token("search"), "", "").status,
            405,
            "{kind:?}"
        );
        assert_eq!(world.count(), 1, "{kind:?}");
    }
}

#[test]
fn events_and_websockets_pass_through_both() {
    for kind in BOTH {
        let world = World::start();
        let front = Beside::in_front(kind, world.home(), world.port);
        let open = |path: &str, more: &str| {
            let mut stream = TcpStream::connect(front.at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let token = world.token("search");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: TBAC {token}\r\n{more}\r\n")
                .unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            (head(&mut reader), stream, reader)
        };
        let (answer, _stream, mut reader) = open("/saas/v1/search/events", "Connection: close\r\n");
        assert!(answer.starts_with("http/1.1 200 "), "{kind:?} {answer} {}", front.log());
        let mut first = [0; 16];
        reader.read_exact(&mut first).unwrap();
        assert!(
            String::from_utf8_lossy(&first).contains("data: one"),
            "{kind:?}: while the API still speaks"
        );
        world.seen.lock().push(GO_ON.to_owned());
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: two"), "{kind:?} {rest}");

        let asks = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n";
        let (answer, mut stream, mut reader) = open("/saas/v1/socket", asks);
        assert!(answer.starts_with("http/1.1 101 "), "{kind:?} {answer} {}", front.log());
        for said in [&b"\x81\x02hi"[..], &[0; 70_000]] {
            stream.write_all(said).unwrap();
            let mut heard = vec![0; said.len()];
            reader.read_exact(&mut heard).unwrap();
            assert!(heard == said, "{kind:?}: {} bytes came back otherwise", said.len());
        }
    }
}

#[test]
fn an_api_behind_nginx_or_caddy_is_an_api_like_any_other() {
    for kind in BOTH {
        let (world, behind) = world_behind(kind);
        for body in [r#"{"n": 1}"#, "{}"] {
            let json = "Content-Type: application/json\r\n";
            let answer = world.ask("POST /saas/v1/search/a", &world.token("search"), json, body);
            assert_eq!(answer.status, 200, "{kind:?} {} {}", answer.text(), behind.log());
            assert!(answer.text().contains("authorization: bearer ***"), "{kind:?} {}", answer.text());
        }
        let long = "a".repeat(90_000);
        let answer = world.ask("POST /saas/v1/files/a", &world.token("search"), "", &long);
        assert_eq!(answer.status, 200, "{kind:?} {} {}", answer.text(), behind.log());
        assert!(world.seen.lock().last().unwrap().ends_with(&format!("\n{long}")), "{kind:?}");
        let refused = world.ask("GET /saas/v1/search/401", &world.token("search"), "", "");
        assert_eq!(refused.problem().1, "CREDENTIAL_REFUSED", "{kind:?}");
        assert_eq!(world.count(), 4, "{kind:?}");
        drop(behind);
        let gone = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
        assert!([502, 503].contains(&gone.status), "{kind:?} {}", gone.text());
    }
}
