//! Behind reverse proxies: what `/v1/authorize` answers them, and the manual's recipes run by the real programs.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;

use obol_world::home::{self, command, free_port, wait_until};
use obol_world::reverse::ReverseProxy;
use obol_world::tqs::Tqs;

use crate::resource::{fetch, send};

/// A sidecar and a server with one session for paths below `/docs/`.
struct Pair {
    home: tempfile::TempDir,
    tqs: Tqs,
    rs: Child,
    at: SocketAddr,
}

impl Pair {
    fn start() -> Self {
        let home = home::home();
        let create =
            ["session", "create", "--audience", "https://a", "--tool", "search", "--resource", "/docs/**"];
        assert!(command(home.path()).args(create).output().unwrap().status.success());
        let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut rs = command(home.path());
        rs.args(["rs", "--sessions", "rs-sessions.json", "--first-start", "--listen", &at.to_string()]);
        let rs = rs.stderr(fs::File::create(home.path().join("rs.log")).unwrap()).spawn().unwrap();
        let pair = Self { home, tqs, rs, at };
        wait_until("the server answers", || pair.get("/readyz", &[]) == 200);
        pair
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        if std::net::TcpStream::connect(self.at).is_err() {
            return 0;
        }
        fetch(self.at, path, headers).status
    }

    fn token(&self) -> String {
        let drawn = self
            .tqs
            .client()
            .dequeue_token(&crate::sidecar::tool("search"), Duration::from_secs(20))
            .unwrap();
        format!("TBAC {}", drawn.token.expose())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ended = self.rs.kill();
        let _ended = self.rs.wait();
    }
}

#[test]
fn what_a_proxy_appends_to_the_path_changes_nothing() {
    let pair = Pair::start();
    for path in
        ["/v1/authorize", "/v1/authorize/", "/v1/authorize/docs/a", "/v1/authorize/docs/../%2e%2e/a?x=1"]
    {
        let token = pair.token();
        let headers =
            [("Authorization", token.as_str()), ("X-Obol-Tool", "search"), ("X-Obol-Resource", "/docs/a")];
        assert_eq!(pair.get(path, &headers), 200, "{path}");
        assert_eq!(pair.get(path, &headers), 401, "{path}: spent");
    }
    assert_eq!(pair.get("/v1/authorized", &[]), 404);
}

#[test]
fn callers_faults_are_401_or_403_and_the_proxys_are_told_to_it() {
    let pair = Pair::start();
    let token = pair.token();
    let good = ("Authorization", token.as_str());
    let tool = ("X-Obol-Tool", "search");
    for faults in [
        vec![tool],
        vec![("Authorization", "TBAC x"), ("Authorization", "TBAC y"), tool],
        vec![("Authorization", "TBAC \u{e9}"), tool],
        vec![("Authorization", "Basic eA=="), tool],
        vec![good, tool, ("X-Obol-Resource", "/docs/../secrets")],
        vec![good, tool, ("X-Obol-Resource", "/docs/a?b")],
        vec![good, tool, ("X-Obol-Resource", "/elsewhere")],
        vec![good, ("X-Obol-Tool", "other")],
    ] {
        let status = pair.get("/v1/authorize/docs/a", &faults);
        assert!([401, 403].contains(&status), "{status}: {faults:?}");
    }
    let request = b"GET /v1/authorize HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Obol-Tool: search\r\nX-Obol-Resource: /\xff\r\nAuthorization: ";
    let request = [&request[..], token.as_bytes(), b"\r\n\r\n"].concat();
    assert_eq!(send(pair.at, request).status, 403, "no text at all");
    for (faults, word) in [
        (vec![good], "X-Obol-Tool is missing"),
        (vec![good, tool, tool], "more than once"),
        (vec![good, tool, ("X-Obol-Action", "a"), ("X-Obol-Action", "b")], "more than once"),
    ] {
        let answer = fetch(pair.at, "/v1/authorize", &faults);
        assert_eq!(answer.status, 400);
        assert!(answer.json()["detail"].as_str().unwrap().contains(word), "{faults:?}");
    }
    assert_eq!(
        pair.get("/v1/authorize", &[good, tool, ("X-Obol-Resource", "/docs/a")]),
        200,
        "nothing was burned"
    );
}

#[test]
fn a_page_under_another_name_reads_nothing_on_loopback() {
    let pair = Pair::start();
    let ask = |path: &str, host: &str, more: &str| {
        send(pair.at, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"))
            .status
    };
    for host in ["localhost", "127.0.0.1:8700", "[::1]"] {
        assert_eq!(ask("/metrics", host, ""), 200);
        assert_eq!(ask("/metrics", host, "Origin: http://localhost:3000\r\n"), 200);
        assert_eq!(ask("/metrics", host, "Origin: https://evil.example\r\n"), 421);
    }
    for path in ["/metrics", "/livez", "/readyz", "/v1/verify", "/v1/authorized", "/"] {
        assert_eq!(ask(path, "evil.example", ""), 421, "{path}");
    }
    assert_eq!(
        ask("http://evil.example/metrics", "localhost", ""),
        421,
        "the name in the request line counts"
    );
    assert_eq!(
        ask("/v1/authorize", "api.example", "X-Obol-Tool: search\r\n"),
        401,
        "proxies hand on any name"
    );
}

/// An API that counts who gets through to it, and sees no token.
fn upstream() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut line) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                head.push_str(&line);
                line.clear();
            }
            assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
            counted.fetch_add(1, Ordering::SeqCst);
            let _gone =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    (port, count)
}

/// The manual's recipe in this language, with the ports of this test.
fn recipe(language: &str, proxy: u16, upstream: u16, rs: u16) -> String {
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")).unwrap();
    let (_, rest) = manual.split_once(&format!("```{language}\n")).unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    for port in [":8080", ":3000", ":8700"] {
        assert_eq!(text.matches(port).count(), 1, "{port} in {text}");
    }
    text.replace(":8080", &format!(":{proxy}"))
        .replace(":3000", &format!(":{upstream}"))
        .replace(":8700", &format!(":{rs}"))
}

/// What holds through any proxy whose recipe is right.
fn holds_through(pair: &Pair, proxy: &mut ReverseProxy, port: u16, passed: &AtomicUsize) {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    proxy.wait(at);
    let ask = |path: &str, headers: &[(&str, &str)]| fetch(at, path, headers);
    let token = pair.token();
    let good = ("Authorization", token.as_str());
    let absent = ask("/docs/a", &[]);
    assert_eq!(absent.status, 401);
    assert!(absent.header("www-authenticate").unwrap().contains("TBAC_REQUIRED"));
    for path in ["/docs/%2e%2e/secrets", "/docs/a%2f..%2f..%2fsecrets", "/docs/..%3b/secrets", "/docs/a%00"] {
        let status = ask(path, &[good]).status;
        // Some of these a proxy refuses by itself, or takes for a path that is not served.
        assert!((400..405).contains(&status), "{path}: {status}");
    }
    // The caller's own word for the call does not count.
    let forged = [("Authorization", "TBAC x"), ("X-Obol-Tool", "other"), ("X-Obol-Resource", "/elsewhere")];
    assert_eq!(ask("/docs/a", &forged).status, 401);
    assert!([400, 401].contains(&ask("/docs/a", &[good, ("Authorization", "TBAC y")]).status));
    assert_eq!(passed.load(Ordering::SeqCst), 0);
    assert_eq!(ask("/docs/a?page=2", &[good, ("X-Obol-Tool", "other")]).status, 200);
    assert_eq!(ask("/docs/a", &[good]).status, 401, "spent");
    assert_eq!(passed.load(Ordering::SeqCst), 1);
    let other = pair.token();
    assert_eq!(ask("/docs/a%20b/c", &[("Authorization", other.as_str())]).status, 200);
}

#[test]
fn the_recipe_for_nginx_works() {
    let pair = Pair::start();
    let (upstream, passed) = upstream();
    let port = free_port();
    let server = recipe("nginx", port, upstream, pair.at.port());
    let mut nginx = ReverseProxy::nginx(&pair.home.path().join("nginx"), "events {}", &server);
    holds_through(&pair, &mut nginx, port, &passed);
}

#[test]
fn the_recipe_for_caddy_works() {
    let pair = Pair::start();
    let (upstream, passed) = upstream();
    let port = free_port();
    let site = recipe("caddyfile", port, upstream, pair.at.port());
    let mut caddy = ReverseProxy::caddy(&pair.home.path().join("caddy"), "", &site);
    holds_through(&pair, &mut caddy, port, &passed);
}
