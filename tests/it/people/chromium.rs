//! The whole way in a real browser, by the keyboard alone: an agent is registered, a call of it approved, the agent disabled.
//! Every page is held to WCAG 2 A and AA on the way, in light and dark, wide and narrow.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use obol_authority::directory::{AgentStatus, CallStanding};
use obol_world::home::wait_until;
use serde_json::{Value, json};

use super::{World, calls, crowd, policies, root};

/// Chromium, ended when dropped.
pub(super) struct Chromium {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Chromium {
    pub(super) fn start() -> Self {
        let modules = root().join("target/npm");
        for needed in [
            modules.join("node_modules/playwright-core"),
            modules.join("node_modules/axe-core"),
            "/usr/bin/chromium".into(),
        ] {
            assert!(needed.exists(), "{} is missing: scripts/test installs it", needed.display());
        }
        let mut child = Command::new("node")
            .arg(root().join("tests/it/people/drive.mjs"))
            .arg(modules)
            .args(std::env::var_os("OBOL_SCREENSHOTS"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut chromium = Self { child, to, from };
        assert_eq!(chromium.answer()["ready"], true);
        chromium
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the browser ended: {line:?}"))
    }

    pub(super) fn act(&mut self, what: &Value) -> Value {
        writeln!(self.to, "{what}").unwrap();
        let answer = self.answer();
        assert_eq!(answer["problems"], json!([]), "{what}: {answer:#}");
        answer
    }

    /// Opens a page, and looks at it in every way.
    pub(super) fn look(&mut self, url: &str, name: &str, status: u16) {
        let told = self.act(&json!({ "act": "open", "url": url, "name": name }));
        assert_eq!(told["status"], status, "{told:#}");
    }

    /// Looks at the page that is open.
    pub(super) fn look_again(&mut self, name: &str) {
        self.act(&json!({ "act": "look", "name": name }));
    }

    /// Opens a page in a tab of its own, and stays in this one: its number.
    fn tab(&mut self, url: &str) -> u64 {
        self.act(&json!({ "act": "tab", "url": url }))["tab"].as_u64().unwrap()
    }

    /// Goes on in another tab.
    fn switch(&mut self, tab: u64) {
        self.act(&json!({ "act": "switch", "tab": tab }));
    }

    /// Goes to something by the keyboard, and presses Enter: what the page says then.
    pub(super) fn press(&mut self, selector: &str, text: &str) -> String {
        let told = self.act(&json!({ "act": "press", "selector": selector, "text": text }));
        told["text"].as_str().unwrap().to_owned()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_real_browser_goes_the_whole_way_by_the_keyboard_alone() {
    let world = World::new();
    let _running = world.agent();
    let mut chromium = Chromium::start();
    chromium.look(&world.url("/console"), "console-empty", 200);
    for page in ["agents", "sessions", "servers", "audit", "policies", "keys"] {
        chromium.look(&world.url(&format!("/console/{page}")), &format!("{page}-empty"), 200);
    }
    chromium.look(&world.url("/console/approvals"), "approvals-empty", 200);
    chromium.look(&world.url("/console/approvals/apr_none"), "approval-none", 404);
    chromium.look(&world.url("/activate"), "code", 200);
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    chromium.look(&world.url("/console"), "console-waiting", 200);
    chromium.look(asked["page"].as_str().unwrap(), "registration", 200);
    assert!(chromium.press("button[value=approve]", "").contains("is registered"));
    let agent = world.agent_row().unwrap();
    wait_until("a session", || !world.authority.directory().sessions(&agent.id).unwrap().is_empty());

    let call = calls::ask(&world);
    chromium.look(&world.url("/console/approvals"), "approvals", 200);
    crowd::calls(&world, &call.approval_id, 120);
    chromium.look(&world.url("/console/approvals"), "many-approvals", 200);
    chromium.look(&world.url(&format!("/console/approvals/{}", call.approval_id)), "approval", 200);
    assert!(chromium.press("button[value=approve]", "").contains("Approved by"));
    assert!(matches!(calls::standing(&world, &call), CallStanding::Approved { .. }));
    chromium.look(&world.url(&format!("/console/approvals/{}", call.approval_id)), "approval-done", 200);

    chromium.look(&world.url("/console"), "console", 200);
    for page in ["agents", "sessions", "audit"] {
        chromium.look(&world.url(&format!("/console/{page}")), page, 200);
    }
    chromium.look(&world.url(&format!("/console/agents/{}", agent.id)), "agent", 200);
    assert!(chromium.press("button[value=disable]", "").contains("disabled"));
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Suspended);
    chromium.look(&world.url(&format!("/console/agents/{}?since=1", agent.id)), "agent-disabled", 200);
}

#[test]
fn the_console_is_the_same_with_hundreds_of_hostile_names_with_servers_and_where_something_is_wrong() {
    let world = World::new();
    let (rs, mut lost) = (world.server("https://a"), world.server("https://b.example/\u{5d0}"));
    lost.kill();
    for number in 1..=150 {
        let agent = crowd::agent(&world, number, &crowd::hostile(number));
        crowd::session(&world, 1_000 + number, &agent);
        crowd::registration(&world, 1_000 + number, &crowd::hostile(number));
    }
    let mut chromium = Chromium::start();
    let copies = world.authority.directory().replicas().unwrap();
    let agent = world.authority.directory().agents(None).unwrap().remove(0);
    let session = world.authority.directory().sessions(&agent.id).unwrap().remove(0);
    let pages = [
        ("/console", "many-console"),
        ("/console/agents", "many-agents"),
        ("/console/sessions", "many-sessions"),
        ("/console/servers", "servers"),
        ("/console/audit", "many-audit"),
        ("/console/audit?topic=calls&agent=nobody", "audit-nothing"),
        ("/console/agents?name=no%E2%80%AEbody", "agents-missed"),
        (&format!("/console/agents/{}", agent.id), "many-agent"),
        (&format!("/console/servers/{}", copies[0].id), "server"),
    ];
    for (path, name) in pages {
        chromium.look(&world.url(path), name, 200);
    }
    for path in ["agents/agt_none", "sessions/0", "servers/rsr_none"] {
        chromium.look(&world.url(&format!("/console/{path}")), "unknown", 404);
    }
    chromium.look(&world.url("/console/audit?before=1.1"), "audit-no-such-place", 400);
    let path = format!("/console/sessions/{}", session.id);
    chromium.look(&world.url(&path), "session", 200);
    let asked = crowd::again(&world, 1, &crowd::hostile(1));
    chromium.look(&world.url(&format!("/activate/{asked}")), "registration-again", 200);
    chromium.look(&world.url(&path), "session", 200);
    // Somebody else was faster.
    let other = chromium.tab(&world.url(&path));
    assert!(chromium.press("button[value=end]", "").contains("heard of it"), "{}", rs.log());
    chromium.look_again("session-ended");
    chromium.switch(other);
    assert!(chromium.press("button[value=end]", "").contains("live session"));
    chromium.look_again("session-ended-twice");
    // The page is older than the login: its form is none any more.
    let old = chromium.tab(&world.url(&format!("/console/agents/{}", agent.id)));
    chromium.look(&world.url("/login?to=/console"), "logged-in-again", 200);
    chromium.switch(old);
    assert!(chromium.press("button[value=disable]", "").contains("Nothing was done"));
    chromium.look_again("form-too-old");
    let (one, two) = (policies::version("dev"), policies::version("nobody"));
    policies::in_force_and_observed(&world, &one, &two);
    chromium.look(&world.url("/console/policies"), "policies", 200);
    chromium.look(&world.url(&format!("/console/policies/{}", two.digest())), "policy-observed", 200);
    chromium.look(&world.url(&format!("/console/policies/{}", one.digest())), "policy-in-force", 200);
    let diff = format!("/console/policies/diff?from={}&to={}", one.digest(), two.digest());
    chromium.look(&world.url(&diff), "policy-diff", 200);
    chromium.look(&world.url("/console/keys"), "keys", 200);
    assert_eq!(
        world.authority.directory().agent(agent.id.as_str()).unwrap().unwrap().status,
        AgentStatus::Active
    );
}
