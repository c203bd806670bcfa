//! Folders of policies, by the commands that people use; and that no other part of Obol links Cedar.

use std::fs;
use std::path::Path;
use std::process::Command;

use obol_world::home::{self, obol};
use serde_json::Value;

use crate::cli::{run, stderr, stdout};
use crate::house::root;

/// A block of `docs/policy.md`, and the line before it.
struct Block {
    before: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let page = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    let (mut blocks, mut before, mut inside) = (Vec::<Block>::new(), String::new(), false);
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside;
            if inside {
                let (before, language) = (core::mem::take(&mut before), language.to_owned());
                blocks.push(Block { before, language, text: String::new() });
            }
        } else if inside {
            let text = &mut blocks.last_mut().unwrap().text;
            text.push_str(line);
            text.push('\n');
        } else if !line.is_empty() {
            line.clone_into(&mut before);
        }
    }
    blocks
}

/// The file that a block is, by the line before it.
fn file_of(block: &Block) -> Option<&str> {
    block.before.strip_prefix('`')?.split_once('`').map(|(name, _)| name)
}

/// Runs a block as a shell does that knows `obol`.
fn shell(home: &Path, script: &str) -> String {
    let folder = obol().parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let output = Command::new("/bin/bash")
        .args(["-euc", script])
        .env_clear()
        .envs([("HOME", home.as_os_str()), ("PATH", path.as_ref())])
        .current_dir(home)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// The folder `policy` that the page begins with.
fn home_of_the_page() -> tempfile::TempDir {
    let home = home::home();
    fs::create_dir(home.path().join("policy")).unwrap();
    for block in blocks() {
        if let Some(name) = file_of(&block).filter(|_| block.language != "sh") {
            fs::write(home.path().join(name), &block.text).unwrap();
        }
    }
    home
}

#[test]
fn every_example_of_the_page_does_what_it_says() {
    let (home, blocks) = (home_of_the_page(), blocks());
    let mut tried = 0;
    for pair in blocks.windows(2) {
        let [command, output] = pair else { continue };
        if command.language == "sh" {
            assert_eq!(output.language, "text", "{}", command.text);
            assert_eq!(shell(home.path(), &command.text), output.text, "{}", command.text);
            tried += 1;
        }
    }
    let commands = blocks.iter().filter(|block| block.language == "sh").count();
    assert_eq!((tried, commands), (5, 5));
    let languages = ["sh", "text", "toml", "cedar", "json"];
    assert!(
        blocks.iter().all(|block| languages.contains(&block.language.as_str())),
        "a block that nobody tries"
    );
}

#[test]
fn a_case_that_fails_says_how_and_so_does_the_exit_code() {
    let home = home_of_the_page();
    let path = home.path().join("policy/cases.toml");
    let cases = fs::read_to_string(&path).unwrap();
    fs::write(&path, cases.replace("expect = \"billing-read\"", "expect = \"full\"")).unwrap();
    let failed = run(home.path(), &["policy", "test"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stdout(&failed).contains("expected full, and it is billing-read"), "{}", stdout(&failed));
    assert!(stdout(&failed).contains("3 cases, 1 failed"));

    fs::write(&path, cases.replace("\"clerks-pay\", \"no", "\"no")).unwrap();
    let failed = run(home.path(), &["policy", "test", "--json"]);
    assert_eq!(failed.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((&report["failed"], &report["cases"][1]["passed"]), (&1.into(), &false.into()));

    // Strictly: a policy that no case needs is noticed; otherwise it is only said.
    fs::write(&path, cases.split("[[case]]\nagent = \"copy\"").next().unwrap()).unwrap();
    let lax = run(home.path(), &["policy", "test"]);
    assert_eq!(lax.status.code(), Some(0), "{}", stderr(&lax));
    assert!(stdout(&lax).contains("warning: policy clones-get-nothing decides no case"), "{}", stdout(&lax));
    assert_eq!(run(home.path(), &["policy", "test", "--strict"]).status.code(), Some(1));
    fs::write(&path, "").unwrap();
    let none = run(home.path(), &["policy", "test"]);
    assert_eq!(none.status.code(), Some(2), "no cases are not cases that passed");
}

#[test]
fn what_is_wrong_is_told_with_file_and_line_and_what_would_not_be_read_is_wrong() {
    let home = home_of_the_page();
    let policy = home.path().join("policy");
    let check = || {
        let output = run(home.path(), &["policy", "check"]);
        (output.status.code(), stderr(&output))
    };
    let broken = [
        (
            "more.cedar",
            "permit (principal, action, resource);",
            "more.cedar, line 1: this policy has no name",
        ),
        (
            "more.cedar",
            "@id(\"unattended\") permit (principal, action, resource);",
            "\n  policies.cedar, line 8: @id(\"unattended\") is taken, in more.cedar, line 1",
        ),
        (
            "more.cedar",
            "@id(\"x\")\npermit (principal, action, resource) when { resource.risky };",
            "more.cedar, line 2: policy x",
        ),
        ("more.CEDAR", "", "would not be read; its name must end with .cedar"),
    ];
    for (name, text, why) in broken {
        fs::write(policy.join(name), text).unwrap();
        let (code, error) = check();
        assert_eq!(code, Some(2));
        assert!(error.contains(why), "{why}\n is not in\n{error}");
        fs::remove_file(policy.join(name)).unwrap();
    }
    fs::write(policy.join("more.cedar"), "permit (principal, action, resource);\n".repeat(2)).unwrap();
    let told = run(home.path(), &["policy", "check", "--json"]);
    let told: Value = serde_json::from_slice(&told.stderr).unwrap();
    assert_eq!(told["error"]["details"].as_array().unwrap().len(), 2, "{told}");
    fs::remove_file(policy.join("more.cedar")).unwrap();
    fs::create_dir(policy.join("old")).unwrap();
    assert!(check().1.contains("policies in it would not be read"));
    fs::rename(policy.join("old"), policy.join(".git")).unwrap();
    assert_eq!(check().0, Some(0));

    let unreachable =
        "@id(\"never\") forbid (principal, action, resource == Obol::Tool::\"typo\") when { false };";
    fs::write(policy.join("more.cedar"), unreachable).unwrap();
    let warned = run(home.path(), &["policy", "check", "--json"]);
    let report: Value = serde_json::from_slice(&warned.stdout).unwrap();
    assert_eq!(
        (warned.status.code(), report["warnings"].as_array().unwrap().len()),
        (Some(0), 2),
        "{report}"
    );
    assert_eq!(run(home.path(), &["policy", "check", "--strict"]).status.code(), Some(1));
    fs::remove_file(policy.join("catalogue.toml")).unwrap();
    let (code, error) = check();
    assert!(code == Some(2) && error.contains("catalogue.toml"), "{error}");
}

#[test]
fn explain_and_diff_are_for_programs_too() {
    let home = home_of_the_page();
    let json = |arguments: &[&str]| {
        let output = run(home.path(), arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let explained = json(&["policy", "explain", "payer", "pay", "--json"]);
    let tool = &explained["tools"][0];
    assert_eq!((&tool["grant"], &tool["perCall"]), (&Value::Null, &serde_json::json!(["small"])));
    assert_eq!(tool["offers"][0]["unattended"]["policies"], serde_json::json!(["no-unattended-payments"]));
    for (agent, tool, why) in [
        ("nobody", "pay", "no agent \"nobody\"; they have: copy, payer, reporter"),
        ("payer", "fax", "no tool \"fax\""),
    ] {
        let unknown = run(home.path(), &["policy", "explain", agent, tool]);
        assert_eq!(unknown.status.code(), Some(2));
        assert!(stderr(&unknown).contains(why), "{}", stderr(&unknown));
    }
    shell(home.path(), "cp -r policy next && sed -i s/analyst/auditor/ next/policies.cedar");
    let diff = json(&["policy", "diff", "policy", "next", "--json"]);
    assert_eq!((&diff["held"], &diff["lost"], &diff["tooMuch"]), (&1.into(), &1.into(), &true.into()));
    let reporter = &diff["agents"][2];
    assert_eq!((&reporter["agent"], &reporter["standing"]), (&"reporter".into(), &"narrowed".into()));
    assert_eq!(reporter["changes"][0]["before"]["grant"]["constraints"]["max_rows"], 1000);
}

#[test]
fn init_overwrites_nothing() {
    let home = home_of_the_page();
    let before = fs::read_to_string(home.path().join("policy/catalogue.toml")).unwrap();
    let init = ["policy", "init", "--from-mcp", "tools.json", "--audience", "https://mcp.example"];
    let refused = run(home.path(), &init);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("nothing was written"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(home.path().join("policy/catalogue.toml")).unwrap(), before);
    // Without an organisation policy could not say who may look at the console, so there is one.
    let made = run(home.path(), &[&init[..2], &["fresh"], &init[2..]].concat());
    assert!(made.status.success(), "{}", stderr(&made));
    let catalogue = fs::read_to_string(home.path().join("fresh/catalogue.toml")).unwrap();
    assert!(catalogue.starts_with("org = \"default\"\n"), "{catalogue}");
    fs::write(home.path().join("tools.json"), "{\"tools\": [{\"name\": \"a b\"}]}").unwrap();
    let refused = run(home.path(), &[&init[..2], &["other"], &init[2..]].concat());
    assert!(stderr(&refused).contains("visible ASCII"), "{}", stderr(&refused));
    assert!(!home.path().join("other").exists());
}

/// The crates that a package is built from, without what only tests need.
fn tree(arguments: &[&str]) -> String {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.args(["tree", "--locked", "--offline", "--prefix", "none", "--edges", "normal,build"])
        .args(arguments);
    let output = tree.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn cedar_is_linked_by_policy_and_what_decides_and_by_nothing_else() {
    let links = |arguments: &[&str]| tree(arguments).lines().any(|line| line.starts_with("cedar-policy"));
    // The controls: what does link it is seen to.
    assert!(links(&["-p", "obol-policy"]) && links(&["-p", "obol"]));
    assert!(
        !links(&["-p", "obol", "--no-default-features"]),
        "a sidecar or a resource server alone links Cedar"
    );
    let members = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let folders = members.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let folders = folders
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|folder| !folder.starts_with("tests") && *folder != "benches");
    let mut looked_at = 0;
    for folder in folders {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let name =
            manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap();
        if !["obol", "obol-policy", "obol-authority"].contains(&name) {
            assert!(!links(&["-p", name, "--all-features"]), "{name} links Cedar");
            looked_at += 1;
        }
    }
    assert!(looked_at >= 15, "only {looked_at} crates were looked at");
}
