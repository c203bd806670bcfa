//! `obol dev`: what it prints works when it is pasted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use obol_world::home::{self, command};

use crate::sidecar::hardening::filters;

/// A running `obol dev`; killed when dropped.
struct Dev {
    child: Child,
    /// What it printed.
    said: Vec<String>,
}

impl Dev {
    fn start(home: &std::path::Path, more: &[&str]) -> Self {
        let log = std::fs::File::create(home.join("dev.log")).unwrap();
        let mut child = command(home)
            .args(["dev", "--listen", "127.0.0.1:0"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let last = line.contains("status --watch");
            said.push(line);
            if last {
                break;
            }
        }
        let log = std::fs::read_to_string(home.join("dev.log")).unwrap();
        assert!(said.iter().any(|line| line.contains("curl")), "{said:?} {log}");
        Self { child, said }
    }

    fn lines(&self, with: &str) -> String {
        let lines: Vec<_> =
            self.said.iter().filter(|line| line.contains(with)).map(|line| line.trim()).collect();
        lines.join("\n")
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn has_curl() -> bool {
    Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// What a shell says to lines that were printed.
fn pasted(dev: &Dev, lines: &str) -> String {
    let script = format!("{}\n{lines}\n", dev.lines("export OBOL_"));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat()
}

#[test]
fn what_it_prints_works_when_it_is_pasted_and_ctrl_c_leaves_nothing_behind() {
    let home = home::home();
    let dev = Dev::start(home.path(), &[]);
    let exports = dev.lines("export OBOL_");
    assert_eq!(exports.lines().count(), 4, "{exports}");
    let folder = exports.split("unix://").nth(1).unwrap().split("/agent.sock").next().unwrap().to_owned();
    if has_curl() {
        let answer = pasted(&dev, &dev.lines("curl"));
        assert!(answer.contains("\"ok\":true"), "{answer}");
    } else {
        eprintln!("SKIPPED: the printed line needs curl; install Debian's package curl");
    }
    assert!(std::path::Path::new(&folder).exists());
    let threads = filters(dev.child.id());
    assert!(threads.len() >= 2 && threads.iter().all(|filters| filters == "4"), "itself too: {threads:?}");
    assert_eq!(dev.interrupt(), Some(0));
    assert!(!std::path::Path::new(&folder).exists(), "a folder of its own is gone at the end");
}

#[test]
fn the_printed_verb_ends_the_agent_for_this_start_and_the_next_until_the_other_lets_it_in() {
    let home = home::home();
    let dev = Dev::start(home.path(), &["--dir", "here", "--tool", "lookup"]);
    assert!(dev.lines("session uses").contains("suite 4"), "{:?}", dev.said);
    let draw = format!("{} dequeue lookup", home::obol().display());
    assert!(pasted(&dev, &draw).len() > 100);
    let ended = pasted(&dev, &dev.lines("agent disable"));
    assert!(ended.contains("no longer accepts their tokens"), "{ended}");
    let refused = pasted(&dev, &draw);
    assert!(refused.contains("SESSION_FLUSHED"), "{refused}");
    assert_eq!(dev.interrupt(), Some(0));

    let dev = Dev::start(home.path(), &["--dir", "here"]);
    assert!(dev.lines("gets no session").contains("dev-agent"), "{:?}", dev.said);
    let enabled = pasted(&dev, &dev.lines("obol agent enable dev-agent"));
    home::wait_until(&format!("a token after {enabled}"), || {
        !pasted(&dev, &draw).contains("SESSION_FLUSHED")
    });
    assert!(pasted(&dev, &draw).len() > 100);
    assert_eq!(dev.interrupt(), Some(0));

    let output = command(home.path()).args(["dev", "--dir", "here", "--tool", "other"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("policy/catalogue.toml"), "{output:?}");
}

#[test]
fn a_folder_that_is_named_is_kept_and_started_on_again() {
    let home = home::home();
    for _ in 0..2 {
        let dev = Dev::start(home.path(), &["--dir", "here"]);
        assert_eq!(dev.interrupt(), Some(0));
        for file in ["tokens.redb", "spent.redb", "audit.jsonl"] {
            assert!(home.path().join("here").join(file).exists(), "{file}");
        }
    }
    let audit = command(home.path())
        .args(["audit", "verify", "here/audit.jsonl", "--master-key", "here/master.key"])
        .args(["--head", "here/tokens.redb.audit"])
        .output()
        .unwrap();
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn addresses_that_others_can_reach_are_refused() {
    let home = home::home();
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let output = command(home.path()).args(["dev", "--listen", address]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"), "{output:?}");
    }
}
