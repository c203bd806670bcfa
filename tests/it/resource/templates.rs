//! `obol rs` has a policy of its own: what its sessions were granted, and a file of templates by agent and tool.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_world::TOOL;
use obol_world::forge::Forge;
use obol_world::http::Http;
use obol_world::rs::{RsProcess, write_sessions_with};
use obol_world::scope::scope_with;
use serde_json::{Value, json};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn configure(home: &Path, templates: &str) {
    let folder = home.join(".config/obol");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("obol.toml"), format!("[rs]\ntemplates = \"{templates}\"\n")).unwrap();
}

/// What a server says to a token of its session, minted with other or more fields; and its log.
fn answer(home: &Path, fields: Value) -> (String, String) {
    let mut server = RsProcess::start(home, &["--spent", "memory", "--first-start"]);
    let issued = now();
    let token = Forge::new(1, &scope_with(fields)).with(|token| {
        token.issued_at = issued;
        token.expires_at = issued + 50;
    });
    let said = Http::new(server.port()).present(&token.text()).unwrap();
    server.terminate();
    (said, server.log())
}

#[test]
fn a_server_holds_tokens_to_what_their_session_was_granted() {
    let home = tempfile::tempdir().unwrap();
    write_sessions_with(home.path(), now(), json!({}));
    assert_eq!(answer(home.path(), json!({})).0, "OK");
    for wider in [json!({"resource": "**"}), json!({"action": ["read", "write"]}), json!({"trust_level": 2})]
    {
        assert_eq!(answer(home.path(), wider.clone()).0, "INSUFFICIENT_PRIVILEGE", "{wider}");
    }
}

#[test]
fn a_session_with_neither_grants_nor_template_is_refused_unless_any_is_allowed() {
    let home = tempfile::tempdir().unwrap();
    write_sessions_with(home.path(), now(), json!({"grants": null}));
    let (said, log) = answer(home.path(), json!({}));
    assert_eq!(said, "INSUFFICIENT_PRIVILEGE");
    assert!(log.contains("has no grants") && log.contains("rs.templates"), "{log}");
    configure(home.path(), "any");
    assert_eq!(answer(home.path(), json!({"resource": "**"})).0, "OK");
    write_sessions_with(home.path(), now(), json!({}));
    assert_eq!(
        answer(home.path(), json!({"resource": "**"})).0,
        "INSUFFICIENT_PRIVILEGE",
        "grants hold all the same"
    );
}

#[test]
fn a_file_of_templates_is_the_servers_own_policy() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("templates.toml");
    configure(home.path(), file.to_str().unwrap());
    write_sessions_with(home.path(), now(), json!({"grants": null}));
    let with = |text: &str, fields: Value| {
        std::fs::write(&file, text).unwrap();
        answer(home.path(), fields).0
    };
    let docs = format!("[\"agent-1\".{TOOL}]\nresource = \"docs/**\"\nallowed_actions = [\"read\"]\n");
    assert_eq!(with(&docs, json!({})), "OK");
    for wider in
        [json!({"resource": "**"}), json!({"action": "write"}), json!({"agent_instance_id": "agent-2"})]
    {
        assert_eq!(with(&docs, wider.clone()), "INSUFFICIENT_PRIVILEGE", "{wider}");
    }
    assert_eq!(with("[agent-1.other]\n", json!({})), "INSUFFICIENT_PRIVILEGE", "what is not listed has none");
    // Beside grants both hold.
    write_sessions_with(home.path(), now(), json!({}));
    assert_eq!(with(&docs, json!({})), "OK");
    assert_eq!(with(&docs.replace("docs/**", "docs/a"), json!({})), "INSUFFICIENT_PRIVILEGE");
    assert_eq!(with("[agent-1.other]\n", json!({})), "INSUFFICIENT_PRIVILEGE");
}

#[test]
fn a_reload_puts_another_policy_in_force_and_a_wrong_one_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    // A folder of its own: the sandbox lets a server read again what is there, and never a whole home.
    std::fs::create_dir(home.path().join("policy")).unwrap();
    let file = home.path().join("policy/templates.toml");
    let wide = format!("[\"agent-1\".{TOOL}]\nresource = \"docs/**\"\n");
    let narrow = wide.replace("docs/**", "docs/b");
    std::fs::write(&file, &wide).unwrap();
    configure(home.path(), file.to_str().unwrap());
    write_sessions_with(home.path(), now(), json!({}));
    let server = RsProcess::start(home.path(), &["--spent", "memory", "--first-start"]);
    let present = |number| {
        let issued = now();
        let token = Forge::new(number, &scope_with(json!({}))).with(|token| {
            token.issued_at = issued;
            token.expires_at = issued + 50;
        });
        Http::new(server.port()).present(&token.text()).unwrap()
    };
    assert_eq!(present(1), "OK");
    // As editors do it: another file under the same name.
    let replace = |text: &str| {
        std::fs::write(home.path().join("policy/new"), text).unwrap();
        std::fs::rename(home.path().join("policy/new"), &file).unwrap();
        let mut reload = obol_world::home::command(home.path());
        reload.args(["rs", "reload", "--rs-control-socket"]).arg(server.control_socket()).output().unwrap()
    };
    assert!(replace(&narrow).status.success());
    assert_eq!(present(2), "INSUFFICIENT_PRIVILEGE");
    let refused = replace("[agent-1.search]\nmax_row = 5\n");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("templates.toml") && said.contains("max_row"),
        "{said}"
    );
    assert_eq!(present(3), "INSUFFICIENT_PRIVILEGE", "the policy before is still in force");
    let pid = server.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    obol_world::home::wait_until("the log says it", || server.log().contains("and templates stay"));

    let check = obol_world::home::command(home.path()).args(["config", "check"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.code() == Some(2) && said.contains("rs.templates: "), "{said}");
    assert!(replace(&wide).status.success());
    assert_eq!(present(4), "OK");
}

#[test]
fn a_grant_whose_tokens_live_too_long_is_warned_of() {
    let home = tempfile::tempdir().unwrap();
    let grants = json!([{"tool": TOOL, "aud": obol_world::AUDIENCE, "action": "read", "resource": "docs/**",
                         "trust_level": 1, "ttl": 300}]);
    write_sessions_with(home.path(), now(), json!({"grants": grants}));
    let (_, log) = answer(home.path(), json!({}));
    assert!(log.contains("live longer than rs.max_ttl") && log.contains("300"), "{log}");
    let made = obol_world::home::command(home.path())
        .args(["session", "create", "--audience", "https://a.example", "--tool", "search", "--ttl", "300"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.contains("max_ttl") && said.contains("300"), "{said}");
}
