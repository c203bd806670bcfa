//! Clients and servers as they are published, in Python and TypeScript, with `obol mcp wrap` and `obol mcp guard` between them:
//! neither knows of a token, and each call takes one.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use obol_world::home;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::pipe::{Pipe, create_session, guarded, program, wrapped};
use crate::sdk::{modules, python};

fn server_of_python(name: &str) -> OsString {
    python().with_file_name(name).into()
}

fn server_of_node(name: &str) -> Vec<OsString> {
    let file = modules().join("node_modules/@modelcontextprotocol").join(name).join("dist/index.js");
    assert!(file.exists(), "run scripts/test, which fetches {}", file.display());
    vec!["node".into(), file.into()]
}

pub(super) fn client_of_python(mode: &str, server: Vec<OsString>) -> Vec<OsString> {
    [vec![python().into(), program("client.py").into(), mode.into()], server].concat()
}

pub(super) fn client_of_typescript(server: Vec<OsString>) -> Vec<OsString> {
    [vec!["node".into(), program("client.js").into()], server].concat()
}

/// Starts a client; the revision that it speaks.
pub(super) fn start(home: &Path, client: &[OsString]) -> (Pipe, String) {
    let mut pipe = Pipe::start_with(home, client, |command: &mut Command| {
        command.env("MODULES", modules());
    });
    let version = pipe.answer()["version"].as_str().unwrap().to_owned();
    (pipe, version)
}

pub(super) fn call(client: &mut Pipe, tool: &str, arguments: &Value) -> Value {
    client.ask(&json!({"call": tool, "arguments": arguments}))
}

pub(super) fn text(result: &Value) -> &str {
    assert_ne!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

pub(super) fn is_refused(result: &Value) -> bool {
    result["isError"] == true
        && result["content"][0]["text"].as_str().unwrap().starts_with("The call is refused")
}

/// Lists tools of the server as it is, and of the guarded one through the wrapped client; they are the same.
fn same_tools(
    home: &Path,
    client: &dyn Fn(Vec<OsString>) -> Vec<OsString>,
    server: &[OsString],
    rules: &[&str],
) -> Pipe {
    let (mut bare, version) = start(home, &client(server.to_vec()));
    let tools = bare.ask(&json!({}));
    assert!(tools["tools"].as_array().is_some_and(|tools| !tools.is_empty()), "{tools}");
    bare.finish();
    let guard = guarded(&[&["--spent", "memory"], rules].concat(), server.to_vec());
    let (mut guarded, same) = start(home, &client(wrapped(guard)));
    assert_eq!(same, version);
    assert_eq!(guarded.ask(&json!({})), tools);
    guarded
}

/// A folder under version control with one file in it.
fn repository(home: &Path) -> String {
    let folder = home.join("repository");
    std::fs::create_dir(&folder).unwrap();
    let git = |arguments: &[&str]| {
        let ran = Command::new("git").current_dir(&folder).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    std::fs::write(folder.join("new.txt"), "x").unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_python_client_of_either_era_calls_the_guarded_git_server() {
    let home = home::home();
    let folder = repository(home.path());
    create_session(home.path(), &["--tool", "git_status"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = [server_of_python("mcp-server-git")];
    for mode in ["auto", "legacy"] {
        let client = |server| client_of_python(mode, server);
        let mut client = same_tools(home.path(), &client, &server, &[]);
        for _ in 0..2 {
            let status = call(&mut client, "git_status", &json!({"repo_path": folder}));
            assert!(text(&status).contains("new.txt"), "{status}");
        }
        assert!(is_refused(&call(
            &mut client,
            "git_add",
            &json!({"repo_path": folder, "files": ["new.txt"]})
        )));
        client.finish();
    }
    // A client that calls without having asked what the server can do.
    let guard = guarded(&["--spent", "memory"], server.to_vec());
    let (mut client, version) = start(home.path(), &client_of_python("2026-07-28", wrapped(guard)));
    assert_eq!(version, "2026-07-28");
    let status = call(&mut client, "git_status", &json!({"repo_path": folder}));
    assert!(text(&status).contains("new.txt"), "{status}");
}

#[test]
fn a_typescript_client_calls_the_guarded_filesystem_server_within_its_folder() {
    let home = home::home();
    let (inside, outside) = (home.path().join("inside"), home.path().join("outside"));
    for folder in [&inside, &outside] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("a.txt"), "hello").unwrap();
    }
    let granted = format!("{}/**", inside.display());
    let tools = ["--tool", "read_text_file", "--tool", "write_file", "--tool", "read_multiple_files"];
    create_session(home.path(), &[&tools[..], &["--action", "use", "--resource", &granted]].concat());
    let rules = "[tool.read_text_file]\naction = \"use\"\nresource = \"{*path}\"\n\
                 [tool.write_file]\naction = \"use\"\nresource = \"{*path}\"\n\
                 [tool.read_multiple_files]\naction = \"use\"\nresource = \"{*paths[]}\"\n";
    std::fs::write(home.path().join("rules.toml"), rules).unwrap();
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = [server_of_node("server-filesystem"), vec![home.path().into()]].concat();
    let mut client = same_tools(home.path(), &client_of_typescript, &server, &["--rules", "rules.toml"]);
    let path = |folder: &Path| folder.join("a.txt").display().to_string();
    let read = call(&mut client, "read_text_file", &json!({"path": path(&inside)}));
    assert_eq!(text(&read), "hello");
    let written = call(&mut client, "write_file", &json!({"path": path(&inside), "content": "changed"}));
    assert!(text(&written).contains("a.txt"), "{written}");
    assert_eq!(std::fs::read_to_string(inside.join("a.txt")).unwrap(), "changed");
    let several =
        call(&mut client, "read_multiple_files", &json!({"paths": [path(&inside), path(&outside)]}));
    assert!(is_refused(&several), "{several}");
    let beyond = format!("{}/../outside/a.txt", inside.display());
    for (tool, arguments) in [
        ("read_text_file", json!({"path": path(&outside)})),
        ("read_text_file", json!({"path": beyond})),
        ("write_file", json!({"path": path(&outside), "content": "changed"})),
        ("create_directory", json!({"path": inside.join("new")})),
    ] {
        assert!(is_refused(&call(&mut client, tool, &arguments)), "{tool} {arguments}");
    }
    assert_eq!(std::fs::read_to_string(outside.join("a.txt")).unwrap(), "hello");
}

#[test]
fn both_clients_call_the_guarded_memory_server() {
    let home = home::home();
    create_session(home.path(), &["--tool", "create_entities", "--tool", "read_graph"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = server_of_node("server-memory");
    let clients: [&dyn Fn(Vec<OsString>) -> Vec<OsString>; 2] =
        [&client_of_typescript, &|server| client_of_python("auto", server)];
    for client in clients {
        let mut client = same_tools(home.path(), client, &server, &[]);
        let entity = json!({"name": "obol", "entityType": "coin", "observations": ["pays once"]});
        let made = call(&mut client, "create_entities", &json!({"entities": [entity]}));
        assert_ne!(made["isError"], true, "{made}");
        assert!(text(&call(&mut client, "read_graph", &json!({}))).contains("pays once"));
        assert!(is_refused(&call(&mut client, "delete_entities", &json!({"entityNames": ["obol"]}))));
    }
}

/// Answers every request of HTTP with one page.
fn page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 4096]).unwrap();
            let _gone = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\nConnection: close\r\n\r\nfetched\r\n",
            );
        }
    });
    format!("http://{address}/a")
}

#[test]
fn a_typescript_client_calls_the_guarded_fetch_server_at_one_address() {
    let home = home::home();
    let url = page();
    create_session(home.path(), &["--tool", "fetch", "--action", "get", "--resource", &url]);
    std::fs::write(home.path().join("rules.toml"), "[tool.fetch]\naction = \"get\"\nresource = \"{*url}\"\n")
        .unwrap();
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server =
        [server_of_python("mcp-server-fetch"), "--ignore-robots-txt".into(), "--allow-private-ips".into()];
    let mut client = same_tools(home.path(), &client_of_typescript, &server, &["--rules", "rules.toml"]);
    let fetched = call(&mut client, "fetch", &json!({"url": url}));
    assert!(text(&fetched).contains("fetched"), "{fetched}");
    for other in [url.replace("/a", "/b"), format!("{url}?x=1"), url.replace("http", "https")] {
        assert!(is_refused(&call(&mut client, "fetch", &json!({"url": other}))), "{other}");
    }
}
