//! What `docs/atp.md` shows of Rust is what the examples are made of, and they do what it says.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use obol_atp::{AgentId, Secret, TokenBody};
use obol_world::home::{example, free_port, home, wait_until, write_private};
use obol_world::http::Http;

use crate::atp::agent::{SECRET, World};
use crate::atp::provider::secrets;

const EXAMPLES: [&str; 2] = ["server/atp/examples/provider.rs", "client/atp/examples/token.rs"];

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)).unwrap()
}

/// Without comments and white space: a page is laid out otherwise than a program, and leaves a last comma out.
fn bare(code: &str) -> String {
    let lines = code.lines().map(|line| line.split(" //").next().unwrap_or_default());
    lines.collect::<String>().split_whitespace().collect::<String>().replace(",)", ")")
}

/// The blocks of Rust on a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Whether one of the programs has every statement of a block, in its order.
fn is_within(block: &str, programs: &[String]) -> bool {
    programs.iter().any(|program| {
        let mut rest = program.as_str();
        bare(block).split_inclusive(';').all(|statement| match rest.split_once(statement) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

#[test]
fn every_line_of_rust_on_the_page_is_one_of_an_example() {
    let programs = EXAMPLES.map(|path| bare(&file(path)));
    let page = file("docs/atp.md");
    let blocks = blocks(&page);
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        assert!(is_within(block, &programs), "{block}");
        let changed = block.replacen(")?;", ");", 1);
        assert!(changed != block && !is_within(&changed, &programs), "control: {changed}");
    }
}

/// A running example, ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn the_example_of_a_provider_opens_its_api_to_who_has_a_token() {
    let (home, port) = (home(), free_port());
    let file = home.path().join("secrets.json");
    write_private(&file, &secrets(&[SECRET]));
    let mut provider = Command::new(example("provider", &["--package", "obol-atp-server"]));
    provider.arg(port.to_string()).arg(&file).stdout(Stdio::piped());
    let mut provider = Running(provider.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(provider.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(&port.to_string()), "{line}");

    let ask = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let body = TokenBody {
            agent_id: AgentId::from_random([1; 16]),
            aud: Some("https://api.example.com/v1/agent-tokens".into()),
            nonce: None,
            purpose: None,
            // As far ahead as it may be: what was signed before a start without marks is refused.
            timestamp: u64::try_from(now).unwrap() + 59_000,
            scopes: vec!["read".into()],
        };
        let body = String::from_utf8(body.signed_with(&Secret::of_any_length(SECRET.as_bytes()))).unwrap();
        let length = body.len();
        Http::new(port).exchange(&format!(
            "POST /v1/agent-tokens HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .unwrap()
    };
    let mut answer = (0, String::new());
    wait_until("what is signed after the start is answered", || {
        answer = ask();
        answer.0 == 200
    });
    let answer: serde_json::Value = serde_json::from_str(&answer.1).unwrap();
    let data = |authorization: &str| {
        Http::new(port)
            .exchange(&format!("GET /v1/data HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n"))
            .unwrap()
    };
    let (status, text) = data(&format!("Authorization: Bearer {}\r\n", answer["token"].as_str().unwrap()));
    assert_eq!((status, text.trim()), (200, &*format!("Data for {}", AgentId::from_random([1; 16]))));
    assert_eq!(data("").0, 401, "control");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_an_agent_gets_a_token_and_gives_it_back() {
    let world = World::new(3_600).await;
    let mut agent = Command::new(example("token", &["--package", "obol-atp-client"]));
    agent.args([&world.host.to_string(), "read"]).arg(world.path("secret"));
    agent.arg("--ca-file").arg(world.path("cert.pem")).arg("--allow-private");
    let output = tokio::task::spawn_blocking(move || agent.output().unwrap()).await.unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    let seconds = lines[0].strip_prefix("a token for ").and_then(|rest| rest.split_once(" s"));
    let seconds = seconds.map_or(0, |(seconds, _)| seconds.parse::<u64>().unwrap());
    assert!(output.status.success() && (3_500..=3_600).contains(&seconds), "{text}{errors}");
    assert_eq!(lines[1..], ["valid: true", "valid: false", "signed: true"], "{text}");
    assert_eq!(world.issued(), 1);
}
