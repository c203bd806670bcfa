//! `obol gateway rules`: a document becomes a file that is checked, served, and says what it leaves out.

use std::fs;
use std::path::Path;
use std::process::Output;

use obol_world::home::{command, free_port, home, write_private};
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::{SECRET, World, api, file};
use crate::end_to_end::create_session;

/// A document of an API at this place, as YAML.
fn document(server: &str) -> String {
    format!(
        r"
openapi: 3.0.3
info: {{title: Searches, version: '1'}}
servers: [{{url: '{server}/v1'}}]
security: [{{key: []}}]
paths:
  /search/{{what}}:
    get:
      tags: [search]
      parameters: [{{name: q, in: query, schema: {{type: string}}}}]
      responses: {{}}
    post:
      tags: [search]
      requestBody: {{content: {{application/json: {{schema: {{type: object}}}}}}}}
      responses: {{}}
  /files/{{name}}:
    put:
      tags: [search]
      requestBody: {{content: {{text/plain: {{}}}}}}
      responses: {{}}
  /files/{{name}}.zip:
    get: {{tags: [search], responses: {{}}}}
components:
  securitySchemes: {{key: {{type: http, scheme: bearer}}}}
"
    )
}

fn rules(home: &Path, more: &[&str]) -> Output {
    command(home).args(["gateway", "rules", "--openapi", "api.yaml"]).args(more).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// A gateway that was not started yet, with a session whose grants were changed, and the port of its API.
fn world(change: impl Fn(&mut Value)) -> (World, u16) {
    let home = home();
    create_session(home.path());
    for (file, place) in [("agent-session.json", "/grants"), ("rs-sessions.json", "/sessions/0/grants")] {
        let file = home.path().join(file);
        let mut half: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        half.pointer_mut(place).unwrap().as_array_mut().unwrap().iter_mut().for_each(&change);
        write_private(&file, &half.to_string());
    }
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let (api, seen) = api();
    let arguments = vec!["--sessions".to_owned(), "rs-sessions.json".to_owned()];
    (World { home, tqs, seen, port: free_port(), arguments, child: None }, api)
}

#[test]
fn a_file_that_was_written_from_a_document_is_checked_and_serves_a_call() {
    let (mut world, api) = world(|grant| {
        grant["action"] = json!(["read", "write"]);
        grant["resource"] = json!("**");
    });
    write_private(&world.home().join("api.yaml"), &document(&format!("http://127.0.0.1:{api}")));
    fs::create_dir(world.home().join("apis")).unwrap();
    let written = rules(world.home(), &["--out", "apis/saas.toml"]);
    assert!(written.status.success(), "{written:?}");
    world.seal("saas", SECRET);
    world.run(&["--first-start"]);
    let checked = command(world.home()).args(["gateway", "check", "--apis", "apis"]).output().unwrap();
    assert!(checked.status.success() && told(&checked).contains(", 3 routes"), "{checked:?}");

    let get = world.ask("GET /saas/v1/search/a?q=x", &world.token("search"), "", "");
    assert_eq!(get.status, 200, "{} {}", get.text(), world.log());
    let put =
        world.ask("PUT /saas/v1/files/a", &world.token("search"), "Content-Type: text/plain\r\n", "text");
    assert_eq!(put.status, 200, "{} {}", put.text(), world.log());
    let token = world.token("search");
    for (line, body) in [
        ("GET /saas/v1/search/a?other=x", ""),
        ("GET /saas/v1/files/a.zip", ""),
        ("GET /saas/v1/search/a", "{}"),
        ("DELETE /saas/v1/files/a", ""),
        ("GET /saas/search/a", ""),
    ] {
        let more = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        assert!(world.ask(line, &token, more, body).status >= 400, "{line}");
    }
    let post =
        world.ask("POST /saas/v1/search/a", &token, "Content-Type: application/json\r\n", r#"{"n":1}"#);
    assert_eq!(post.status, 200, "what was refused spent nothing: {} {}", post.text(), world.log());
    let lines: Vec<_> =
        world.seen.lock().iter().map(|seen| seen.lines().next().unwrap().to_owned()).collect();
    let expected =
        ["get /v1/search/a?q=x http/1.1", "put /v1/files/a http/1.1", "post /v1/search/a http/1.1"];
    assert_eq!(lines, expected);
}

#[test]
fn a_file_is_never_written_over_and_says_what_it_leaves_out() {
    let home = home();
    write_private(&home.path().join("api.yaml"), &document("https://api.example"));
    let written = rules(home.path(), &["--out", "saas.toml", "--prefix", "saas"]);
    assert!(written.status.success() && told(&written).contains("3 routes"), "{written:?}");
    let text = fs::read_to_string(home.path().join("saas.toml")).unwrap();
    assert!(text.contains("\n# - GET /files/{name}.zip: a segment is text or one parameter"), "{text}");
    assert!(text.contains("tool = \"saas_search\""), "{text}");
    let again = rules(home.path(), &["--out", "saas.toml"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(told(&again).contains("already exists"), "{again:?}");
    assert_eq!(fs::read_to_string(home.path().join("saas.toml")).unwrap(), text);
}

#[test]
fn a_document_that_cannot_be_read_writes_nothing() {
    let home = home();
    let file = home.path().join("api.yaml");
    write_private(&file, "");
    fs::File::options().write(true).open(&file).unwrap().set_len(100 << 20).unwrap();
    let long = rules(home.path(), &["--out", "saas.toml"]);
    assert!(!long.status.success() && told(&long).contains("33554432"), "{long:?}");
    for (text, why) in [
        ("swagger: '2.0'", "OpenAPI 3.0 or 3.1"),
        (&document("http://api.example"), "--server"),
        (
            &document("https://api.example").replace("/search", "/search/../search").replace("/files", "/*"),
            "route",
        ),
    ] {
        write_private(&file, text);
        let refused = rules(home.path(), &["--out", "saas.toml"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(told(&refused).contains(why), "{why}: {refused:?}");
    }
    let tool =
        rules(home.path(), &["--out", "saas.toml", "--server", "https://a.example", "--tool", "two words"]);
    assert!(!tool.status.success(), "{tool:?}");
    assert!(!home.path().join("saas.toml").exists());
}

#[test]
fn a_token_that_limits_arguments_is_good_for_a_request_without_a_body() {
    let (mut world, api) = world(|grant| grant["constraints"] = json!({"allowed_parameters": {"n": "1"}}));
    let route = "[[route]]\nmethod = \"GET\"\npath = \"/v1/plain\"\ntool = \"search\"\nbody = \"none\"\n";
    world.write("saas", &format!("{}\n{route}", file(api)));
    world.seal("saas", SECRET);
    world.run(&["--first-start"]);

    let token = world.token("search");
    let streamed = world.ask("POST /saas/v1/files/a", &token, "Content-Type: text/plain\r\n", "text");
    assert_eq!(streamed.status, 403, "what it holds is not looked at: {}", streamed.text());
    let other =
        world.ask("POST /saas/v1/search/a", &token, "Content-Type: application/json\r\n", r#"{"n":"2"}"#);
    assert_eq!(other.status, 403, "{}", other.text());
    let plain = world.ask("GET /saas/v1/plain", &token, "", "");
    assert_eq!((plain.status, world.count()), (200, 1), "{} {}", plain.text(), world.log());
}
