//! `obol atp secret` beside a running provider: what an operator types, and what its agents, and whoever copied their secrets, can do
//! then.

use std::fs;
use std::process::Output;

use obol_atp::AgentId;
use obol_world::home::{command, free_port, home, wait_until};
use tempfile::TempDir;

use crate::atp::provider::Serve;

/// An operator's home with a file of secrets, and a provider that has read it.
struct Operator {
    home: TempDir,
    serve: Option<Serve>,
}

impl Operator {
    fn new() -> Self {
        let home = home();
        fs::create_dir(home.path().join("etc")).unwrap();
        Self { home, serve: None }
    }

    fn try_secret(&self, deed: &str, arguments: &[&str]) -> Output {
        let mut obol = command(self.home.path());
        obol.args(["atp", "secret", deed, "--secrets", "etc/secrets.json"]).args(arguments);
        obol.output().unwrap()
    }

    /// `obol atp secret`, which must do it: what it prints.
    fn secret(&self, deed: &str, arguments: &[&str]) -> String {
        let output = self.try_secret(deed, arguments);
        assert!(output.status.success(), "{deed}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn start(&mut self) {
        self.serve = Some(Serve::start(self.home.path(), free_port(), &["--first-start"], &[]));
    }

    fn serve(&self) -> &Serve {
        self.serve.as_ref().unwrap()
    }

    /// Asks with this secret: the status, and the token or the code of the refusal.
    fn ask(&self, agent: AgentId, secret: &str) -> (u16, String) {
        self.serve().request(&self.serve().signed_by(agent, secret))
    }

    fn token(&self, agent: AgentId, secret: &str) -> String {
        let (status, token) = self.ask(agent, secret);
        assert_eq!(status, 200, "{token}");
        token
    }

    /// A token that holds, as soon as there is one: what was ended up to a second ends whatever was issued in it.
    fn live_token(&self, agent: AgentId, secret: &str) -> String {
        let mut token = String::new();
        wait_until("a token holds", || {
            token = self.token(agent, secret);
            self.serve().is_valid(&token)
        });
        token
    }
}

fn agents() -> [AgentId; 2] {
    [AgentId::from_random([1; 16]), AgentId::from_random([2; 16])]
}

fn refused(code: &str) -> (u16, String) {
    (if code == "agent_disabled" { 403 } else { 401 }, code.to_owned())
}

#[test]
fn a_rotated_secret_holds_beside_the_new_one_until_it_is_retired() {
    let mut operator = Operator::new();
    let [agent, _] = agents();
    let whose = ["--agent", &agent.to_string()];
    let old = operator.secret("new", &[&whose[..], &["--scope", "read"]].concat());
    operator.start();
    let before = operator.token(agent, &old);

    let new = operator.secret("rotate", &[&whose[..], &["--keep", "24h"]].concat());
    assert_eq!(operator.ask(agent, &new), refused("invalid_signature"), "control: it is not read yet");
    operator.serve().reload();
    for secret in [&old, &new] {
        assert_eq!(operator.ask(agent, secret).0, 200, "both hold");
    }

    operator.secret("retire", &whose);
    assert_eq!(operator.ask(agent, &old).0, 200, "control: it is not read yet");
    operator.serve().reload();
    assert_eq!(operator.ask(agent, &old), refused("invalid_signature"));
    assert_eq!(operator.ask(agent, &new).0, 200);
    assert!(operator.serve().is_valid(&before), "control: without --now its tokens live on");

    // A deadline that is over ends a secret without another command.
    let newest = operator.secret("rotate", &[&whose[..], &["--keep", "0s"]].concat());
    operator.serve().reload();
    assert_eq!(operator.ask(agent, &new), refused("invalid_signature"));
    assert_eq!(operator.ask(agent, &newest).0, 200);
}

#[test]
fn an_agent_that_was_cut_off_gets_nothing_whoever_has_its_secret_until_it_is_let_in_again() {
    let mut operator = Operator::new();
    let [agent, other] = agents();
    let whose = ["--agent", &agent.to_string()];
    let secret = operator.secret("new", &[&whose[..], &["--scope", "read"]].concat());
    let others = operator.secret("new", &["--agent", &other.to_string(), "--scope", "read"]);
    operator.start();
    let before = operator.token(agent, &secret);
    let others_token = operator.token(other, &others);
    assert!(operator.serve().is_valid(&before), "control");

    operator.secret("disable", &whose);
    operator.serve().reload();
    assert_eq!(operator.ask(agent, &secret), refused("agent_disabled"));
    assert!(!operator.serve().is_valid(&before), "its tokens are over at once");
    assert!(operator.serve().is_valid(&others_token), "control: another agent's are not");
    assert_eq!(operator.ask(other, &others).0, 200, "control");

    operator.secret("enable", &whose);
    operator.serve().reload();
    operator.live_token(agent, &secret);
    assert!(!operator.serve().is_valid(&before), "what it had before stays over");

    let unknown = operator.try_secret("disable", &["--agent", &AgentId::from_random([9; 16]).to_string()]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("no such agent"), "{said}");
}

#[test]
fn retiring_an_only_secret_changes_nothing_and_says_what_does() {
    let mut operator = Operator::new();
    let [agent, _] = agents();
    let whose = ["--agent", &agent.to_string()];
    let copied = operator.secret("new", &[&whose[..], &["--scope", "read"]].concat());
    let file = || fs::read(operator.home.path().join("etc/secrets.json")).unwrap();
    let before = file();
    for arguments in [&whose[..], &[&whose[..], &["--now"]].concat()] {
        let output = operator.try_secret("retire", arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("rotate"), "{said}");
        assert_eq!(said.contains("secret disable"), arguments.contains(&"--now"), "{said}");
        assert_eq!(file(), before, "nothing was written");
    }

    // What it says, step by step: nothing that the copied secret opens is left.
    operator.start();
    let stolen = operator.token(agent, &copied);
    let new = operator.secret("rotate", &[&whose[..], &["--keep", "0s"]].concat());
    operator.serve().reload();
    assert!(operator.serve().is_valid(&stolen), "control: a secret's end is not its tokens'");
    operator.secret("retire", &[&whose[..], &["--now"]].concat());
    operator.serve().reload();
    assert_eq!(operator.ask(agent, &copied), refused("invalid_signature"));
    assert!(!operator.serve().is_valid(&stolen));
    operator.live_token(agent, &new);
    assert!(!operator.serve().is_valid(&stolen), "control: it was not only that second");
}
