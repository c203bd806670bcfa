//! Programs in Python and in Node, unmodified: they have a base URL, and a key that is worth nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use obol_world::home::PATIENCE;

use super::{Here, request};
use crate::gateway::{GO_ON, SECRET, head};
use crate::sdk::python;

/// What a library for an API does: base URL and key from the environment, JSON out and in, events as they come.
const PYTHON: &str = r#"
import os, httpx
client = httpx.Client(base_url=os.environ["SAAS_BASE_URL"], headers={"Authorization": "Bearer " + os.environ["SAAS_API_KEY"]}, timeout=60)
answer = client.post("/v1/search/a", params={"q": "x"}, json={"n": 1})
assert answer.status_code == 200, (answer.status_code, answer.text)
assert client.post("/v1/files/b", content=iter([b"one", b"two"])).status_code == 200
with client.stream("GET", "/v1/search/events") as events:
    for line in events.iter_lines():
        if line:
            print(line, flush=True)
assert client.get("/v1/other").status_code == 404
"#;

const NODE: &str = r#"
const base = process.env.SAAS_BASE_URL, headers = { "x-api-key": process.env.SAAS_API_KEY };
const json = { ...headers, "content-type": "application/json" };
const answer = await fetch(base + "/v1/search/a?q=x", { method: "POST", headers: json, body: JSON.stringify({ n: 1 }) });
if (answer.status !== 200) throw new Error(await answer.text());
const stream = new Blob(["one", "two"]).stream();
const put = await fetch(base + "/v1/files/b", { method: "POST", headers, body: stream, duplex: "half" });
if (put.status !== 200) throw new Error(await put.text());
const events = await fetch(base + "/v1/search/events", { headers });
for await (const piece of events.body) process.stdout.write(Buffer.from(piece).toString().trim() + "\n");
const other = await fetch(base + "/v1/other", { headers });
if (other.status !== 404) throw new Error(await other.text());
"#;

/// Runs a program to its end; it waits for the second event after the first.
fn runs(here: &Here, program: &Path, arguments: &[&str]) {
    let mut child = Command::new(program)
        .args(arguments)
        .env("SAAS_BASE_URL", format!("http://127.0.0.1:{}/saas", here.port))
        .env("SAAS_API_KEY", "worth-nothing")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || said.next().map(Result::unwrap);
    let first = next();
    here.world.seen.lock().push(GO_ON.to_owned());
    let second = next();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told} {} {}", here.log(), here.world.log());
    assert_eq!((first.as_deref(), second.as_deref()), (Some("data: one"), Some("data: two")), "{told}");
}

fn the_api_got(here: &Here) {
    let seen = here.world.seen.lock().clone();
    let [search, file, events, _] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(
        search.starts_with("post /v1/search/a?q=x http/1.1\r\n") && search.ends_with(r#"{"n":1}"#),
        "{search}"
    );
    assert!(file.starts_with("post /v1/files/b http/1.1\r\n") && file.ends_with("onetwo"), "{file}");
    assert!(events.starts_with("get /v1/search/events http/1.1\r\n"), "{events}");
    for seen in [search, file, events] {
        assert!(seen.contains(&format!("authorization: bearer {SECRET}\r\n")), "{seen}");
        assert!(!seen.contains("worth-nothing"), "{seen}");
    }
    for secret in [SECRET, "worth-nothing"] {
        assert!(!here.log().contains(secret), "in the proxy's log");
    }
}

#[test]
fn a_python_program_calls_an_api_by_its_base_url() {
    let here = Here::start(&["--drop-credentials"]);
    runs(&here, &python(), &["-c", PYTHON]);
    the_api_got(&here);
}

#[test]
fn a_node_program_calls_an_api_by_its_base_url() {
    let here = Here::start(&["--drop-credentials"]);
    runs(&here, Path::new("node"), &["--input-type=module", "-e", NODE]);
    the_api_got(&here);
}

#[test]
fn each_request_has_a_token_of_its_own_and_one_with_a_key_of_the_programs_is_refused_unless_told_otherwise() {
    let here = Here::start(&[]);
    let tokens = || here.world.drawn("search");
    let before = tokens();
    for header in ["Authorization: Bearer x", "X-Api-Key: x", "Cookie: a=b", "TBAC-PoP: x"] {
        let answer = here.ask("GET /saas/v1/search/a", &format!("{header}\r\n"), "");
        assert_eq!(answer.problem().1, "INVALID_ARGUMENT", "{header}");
    }
    for (line, code) in [
        ("GET /saas/v1/other", "UNKNOWN_DESTINATION"),
        ("GET /elsewhere.example/v1/search/a", "UNKNOWN_DESTINATION"),
        ("GET /nothing", "UNKNOWN_DESTINATION"),
        ("GET /saas/v1/search/../pay", "INVALID_ARGUMENT"),
        ("GET /saas/v1/search/%2e%2e/pay", "INVALID_ARGUMENT"),
        ("GET http://saas.example/v1/search/a", "INVALID_ARGUMENT"),
    ] {
        let answer = here.ask(line, "", "");
        assert_eq!(answer.problem().1, code, "{line}");
        let problem = answer.json();
        let (_, anchor) = problem["type"].as_str().unwrap().split_once("/docs/errors.md#").unwrap();
        let page = include_str!("../../../docs/errors.md");
        assert!(page.contains(&format!("<a id=\"{anchor}\"></a>`{code}`")), "{problem}");
    }
    assert_eq!((here.world.count(), tokens()), (0, before), "nothing was drawn for what is refused");
    let host = here.ask("GET /saas.example/v1/search/a", "", "");
    let name = here.ask("GET /saas/v1/search/a", "", "");
    assert_eq!((host.status, name.status), (200, 200), "{} {}", host.text(), here.log());
    assert_eq!((here.world.count(), tokens()), (2, before + 2));
}

#[test]
fn a_websocket_passes_and_takes_one_token() {
    let here = Here::start(&[]);
    let before = here.world.drawn("search");
    let mut stream = TcpStream::connect(here.at()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asks = "GET /saas/v1/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(asks.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let answer = head(&mut reader);
    assert!(answer.starts_with("http/1.1 101 "), "{answer} {} {}", here.log(), here.world.log());
    assert!(answer.contains("sec-websocket-accept: x\r\n"), "{answer}");
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
    assert_eq!((here.world.count(), here.world.drawn("search")), (1, before + 1));
}

#[test]
fn many_requests_on_one_connection_are_as_many_at_the_api() {
    let here = Here::start(&[]);
    let one = request("POST /saas/v1/search/a", "Content-Type: application/json\r\n", "{}")
        .replace("close", "keep-alive");
    let last = request("GET /saas/v1/search/b", "", "");
    let answers = crate::resource::send(here.at(), format!("{one}{one}{last}"));
    let all = format!("{} {}", answers.status, answers.text());
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "and the first: {all} {}", here.log());
    assert_eq!((answers.status, here.world.count()), (200, 3));
}
