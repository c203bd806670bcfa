//! `docs/incident.md`, carried out as it is written: each section's blocks are pasted in order into a shell of somebody who
//! runs a sidecar and a resource server, and each must bring about what the page says.

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use obol_world::home::{self, obol};
use obol_world::http::Http;
use obol_world::rs::RsProcess;
use obol_world::tqs::Tqs;

use crate::resource::revocation::write_halves;
use crate::sidecar::tool;

/// What a reader of the page does.
#[derive(Debug, PartialEq)]
enum Step {
    Paste(String),
    Do(&'static str),
}

/// What the page asks for between two blocks, in these words.
const DEEDS: [&str; 4] =
    ["Stop the sidecar.", "Start the sidecar.", "Stop the resource server.", "Start the resource server."];

/// The steps of a section.
fn steps(section: &str) -> Vec<Step> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/incident.md")).unwrap();
    let begin = page.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = page[begin + 1..].lines().skip(1).take_while(|line| !line.starts_with("## "));
    let (mut steps, mut block) = (Vec::new(), None::<String>);
    for line in text {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (None, line) => {
                assert!(
                    !line.starts_with("```") && !line.starts_with("    "),
                    "code that is not tried: {line}"
                );
                steps.extend(DEEDS.iter().find(|deed| **deed == line).map(|deed| Step::Do(deed)));
            }
            (Some(_), "```") => steps.push(Step::Paste(block.take().unwrap())),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(block.is_none());
    steps
}

/// Somebody who runs a sidecar and a resource server, with session 1 of agent-1.
struct Operator {
    home: tempfile::TempDir,
    tqs: Option<Tqs>,
    rs: RsProcess,
}

impl Operator {
    fn new() -> Self {
        let home = home::home();
        let path = home.path();
        write_halves(path, &[(1, "agent-1")]);
        fs::rename(path.join("sessions.json"), path.join("rs-sessions.json")).unwrap();
        fs::create_dir_all(path.join(".config/obol")).unwrap();
        let audit = path.join(".local/state/obol/audit.jsonl");
        let settings = format!("[tqs]\naudit = \"{}\"\n", audit.display());
        fs::write(path.join(".config/obol/obol.toml"), settings).unwrap();
        let tqs = Some(Tqs::start(path, &["--session", "session-1.json"]));
        let rs = RsProcess::start_with(path, "rs-sessions.json", &["--spent", "memory", "--first-start"]);
        Self { home, tqs, rs }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn take(&mut self, step: &Step) -> String {
        match step {
            Step::Paste(block) => self.paste(block),
            Step::Do("Stop the sidecar.") => {
                assert_eq!(self.tqs.take().unwrap().terminate(), Some(0));
                String::new()
            }
            Step::Do("Start the sidecar.") => {
                self.tqs = Some(Tqs::start(self.path(), &[]));
                String::new()
            }
            Step::Do("Stop the resource server.") => {
                assert_eq!(self.rs.terminate(), Some(0));
                String::new()
            }
            Step::Do("Start the resource server.") => {
                self.rs.start_again();
                String::new()
            }
            Step::Do(deed) => panic!("{deed}"),
        }
    }

    /// Runs a block in a shell that stops at the first failure; what it printed.
    fn paste(&self, block: &str) -> String {
        let program = obol().parent().unwrap().display();
        let Output { status, stdout, stderr } = Command::new("/bin/bash")
            .args(["-euo", "pipefail", "-c", block])
            .env_clear()
            .env("PATH", format!("{program}:/usr/bin:/bin"))
            .env("HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .current_dir(self.path())
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(status.success(), "{block}\n{stdout}\n{stderr}");
        stdout
    }

    /// Takes all that is left.
    fn finish(&mut self, steps: impl Iterator<Item = Step>) {
        steps.for_each(|step| _ = self.take(&step));
    }

    fn draw(&self) -> Result<String, String> {
        let mut client = self.tqs.as_ref().unwrap().client();
        match client.dequeue_token(&tool("search"), Duration::from_secs(10)) {
            Ok(drawn) => Ok(drawn.token.expose().to_owned()),
            Err(error) => Err(error.refusal().unwrap().code().to_string()),
        }
    }

    /// Presents a token for the session's own action.
    fn present(&self, token: &str) -> String {
        Http::new(self.rs.port()).present_for(token, "search").unwrap()
    }

    /// The same for a session that `obol session create` made, which grants another action.
    fn is_accepted(&self, token: &str) -> bool {
        let answer = self.present(token);
        assert!(
            ["INSUFFICIENT_PRIVILEGE", "SESSION_EXPIRED", "SESSION_NOT_FOUND"].contains(&answer.as_str())
        );
        // A refusal for what the token is for comes after its session was found good.
        answer == "INSUFFICIENT_PRIVILEGE"
    }
}

#[test]
fn the_agent_was_hijacked() {
    let mut operator = Operator::new();
    let mut steps = steps("The agent was hijacked").into_iter();
    let (stolen, another) = (operator.draw().unwrap(), operator.draw().unwrap());
    assert_eq!(operator.present(&another), "OK");

    let said = operator.take(&steps.next().unwrap());
    assert!(said.contains("obol rs revoke 0000000000000001") && said.contains("obol resume"), "{said}");
    assert_eq!(operator.draw().unwrap_err(), "SESSION_FLUSHED");
    let said = operator.take(&steps.next().unwrap());
    assert!(said.contains("revoked") && said.contains("agent-1"), "{said}");
    assert_eq!(operator.present(&stolen), "SESSION_EXPIRED");
    let said = operator.take(&steps.next().unwrap());
    assert!(said.contains("no new session is taken since the flush of agent agent-1"), "{said}");
    operator.take(&steps.next().unwrap());
    let token = operator.draw().unwrap();
    assert!(operator.is_accepted(&token), "the new session is good on both sides");
    operator.finish(steps);
    operator.draw().unwrap();
}

#[test]
fn a_token_was_stolen() {
    let mut operator = Operator::new();
    let mut steps = steps("A token was stolen").into_iter();
    let (stolen, next) = (operator.draw().unwrap(), operator.draw().unwrap());
    assert_eq!(operator.present(&stolen), "OK", "the thief was faster");
    assert_eq!(operator.present(&stolen), "TOKEN_REPLAYED");
    operator.take(&steps.next().unwrap());
    assert_eq!(operator.draw().unwrap_err(), "SESSION_FLUSHED");
    assert_eq!(operator.present(&next), "SESSION_EXPIRED", "what else was stolen is worth nothing");
    let said = operator.take(&steps.next().unwrap());
    assert!(said.contains("agent-1"), "{said}");
    operator.finish(steps);
    let hold = operator.tqs.as_ref().unwrap().control().status().unwrap().hold;
    assert!(hold.is_none(), "the next session is taken again: {hold:?}");
}

#[test]
fn a_key_leaked() {
    let mut operator = Operator::new();
    let mut steps = steps("A key leaked").into_iter();
    let stolen = operator.draw().unwrap();
    operator.take(&steps.next().unwrap());
    assert_eq!(operator.draw().unwrap_err(), "SESSION_FLUSHED");
    assert_eq!(operator.present(&stolen), "SESSION_EXPIRED");

    // The master key is another day's leak.
    let mut operator = Operator::new();
    let stolen = operator.draw().unwrap();
    let key = || fs::read(operator.path().join(".local/state/obol/master.key")).unwrap();
    let leaked = key();
    let rest: Vec<_> = steps.collect();
    assert!(
        matches!(rest.as_slice(), [Step::Paste(_), Step::Do(_), Step::Paste(_), Step::Do(_)]),
        "{rest:?}"
    );
    operator.finish(rest.into_iter());
    assert_ne!(fs::read(operator.path().join(".local/state/obol/master.key")).unwrap(), leaked);
    assert_eq!(operator.present(&stolen), "SESSION_EXPIRED");
    assert_eq!(operator.draw().unwrap_err(), "NO_SESSION");
}

#[test]
fn the_resource_server_was_taken_over() {
    let mut operator = Operator::new();
    let mut steps = steps("The resource server was taken over").into_iter();
    let forged = operator.draw().unwrap();
    operator.take(&steps.next().unwrap());
    assert_eq!(operator.draw().unwrap_err(), "SESSION_FLUSHED");
    operator.finish(steps);
    assert_eq!(operator.present(&forged), "SESSION_NOT_FOUND", "what the taken server knew is worth nothing");
    assert!(operator.is_accepted(&operator.draw().unwrap()));
}

#[test]
fn tokens_are_refused() {
    let mut operator = Operator::new();
    let mut steps = steps("Tokens are refused").into_iter();
    let said = operator.take(&steps.next().unwrap());
    for shown in ["0000000000000001", "agent-1", "active", "https://api.example/mcp", "ready"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    operator.finish(steps);
}
