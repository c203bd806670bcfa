//! Operators of other machines: `obol login` with a real provider, browser and service, all of them processes; what works from afar and
//! under which name, and what a link, a stolen file and a stranger's browser page are worth.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};

use obol_world::authority::{AsProcess, write_policy, write_settings};
use obol_world::home::{self, command, write_private};
use serde_json::{Value, json};

use super::browser::{Browser, Page};
use super::chromium::Chromium;
use super::{Idp, SECRET};

const CATALOGUE: &str = obol_world::authority::CATALOGUE;
/// `ops` operate, `dev` look; agents are invited by whoever may register them.
const POLICIES: &str = r#"
@id("search") permit (principal in Obol::Role::"dev", action == Obol::Action::"use", resource == Obol::Tool::"search");
@id("ahead") permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource);
@id("local") permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource);
@id("remote") permit (principal in Obol::Role::"ops", action == Obol::Action::"register", resource);
@id("operate") permit (principal in Obol::Role::"ops", action == Obol::Action::"operate", resource);
@id("look") permit (principal in Obol::Role::"dev", action == Obol::Action::"operate", resource)
  when { context.verb == "console.view" };
"#;

/// The provider and the service, and the home of somebody who operates it from another machine.
pub(super) struct Afar {
    pub(super) service: AsProcess,
    pub(super) idp: Idp,
    pub(super) home: tempfile::TempDir,
    pub(super) elsewhere: tempfile::TempDir,
}

impl Afar {
    fn start() -> Self {
        Self::started(|_, origin| {
            let idp = Idp::start(&format!("{origin}/callback"));
            let provider = ["--provider", &idp.issuer, "--provider-client-id", "obol"];
            let arguments = [&provider[..], &["--provider-client-secret", "client-secret"]].concat();
            let arguments = arguments.into_iter().map(str::to_owned).collect();
            (idp, arguments)
        })
    }

    /// With what this makes in the service's home for its origin: a provider, and the arguments that name it.
    pub(super) fn started(make: impl FnOnce(&Path, &str) -> (Idp, Vec<String>)) -> Self {
        let home = home::home();
        write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
        write_private(&home.path().join("client-secret"), SECRET);
        write_settings(home.path(), "[as]\noperator_roles = [\"ops\", \"dev\"]\n");
        let mut service =
            AsProcess::unstarted(home.path(), &["--policy", "policy", "--audit-log", "audit.jsonl"])
                .with_people();
        let origin = service.origin();
        let (idp, arguments) = make(home.path(), &origin);
        service.call_it(&origin, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        service.start_again();
        Self { service, idp, home, elsewhere: home::home() }
    }

    fn begin(&self, home: &Path, more: &[&str]) -> Terminal {
        let pin = self.service.pin();
        let mut child = command(home)
            .args(["login", "--as", &pin])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Terminal { child, said, seen: String::new() }
    }

    /// Logs in from the other machine as this human.
    fn login(&self, account: &str) {
        self.idp.control(json!({ "account": account }));
        self.log_in(&mut Browser::default());
    }

    /// Logs in from the other machine as whoever is logged in with this browser, or will be.
    pub(super) fn log_in(&self, browser: &mut Browser) {
        let mut terminal = self.begin(self.elsewhere.path(), &[]);
        let link = terminal.line_with("http://127.0.0.1:");
        let page = browser.open(&link);
        let landed = say(browser, &page, "approve");
        let landed = browser.follow(landed);
        assert!(landed.status == 200 && landed.body.contains("You are logged in"), "{landed:?}");
        let (code, told) = terminal.ends();
        assert_eq!(code, Some(0), "{told}\n{}", self.service.log());
        assert!(told.contains(&format!("Logged in at {}", self.service.origin())), "{told}");
    }

    /// A command from the other machine, to the service by name.
    fn operate(&self, home: &Path, arguments: &[&str]) -> Output {
        command(home).args(arguments).args(["--as", &self.service.origin()]).output().unwrap()
    }

    pub(super) fn told(&self, arguments: &[&str]) -> Value {
        let output = self.operate(self.elsewhere.path(), &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.service.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A command that fails: its exit code, and what it says.
    pub(super) fn failing(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.operate(self.elsewhere.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Waits until the audit log has such a line.
    fn wait_until_audited(&self, what: &str, is_it: impl Fn(&Value) -> bool) {
        home::wait_until(what, || {
            let text = std::fs::read_to_string(self.home.path().join("audit.jsonl")).unwrap();
            // The last one may be on its way.
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|line| is_it(&line))
        });
    }
}

/// `obol login`, which waits.
struct Terminal {
    child: Child,
    said: BufReader<ChildStdout>,
    seen: String,
}

impl Terminal {
    /// The next line with this in it.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "it ended without {text}: {}", self.seen);
            self.seen.push_str(&line);
            if line.contains(text) {
                return line.trim().to_owned();
            }
        }
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Its end: its code, and all that it said.
    fn ends(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        std::io::Read::read_to_string(&mut self.said, &mut self.seen).unwrap();
        (output.status.code(), format!("{}{}", self.seen, String::from_utf8_lossy(&output.stderr)))
    }

    fn is_waiting(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Says this on a page, and follows nothing.
fn say(browser: &mut Browser, page: &Page, word: &str) -> Page {
    assert_eq!(page.status, 200, "{page:?}");
    let token = page.hidden("token");
    browser.submit(&page.url, &[("token", &token), ("word", word)])
}

#[test]
fn whoever_logged_in_operates_the_service_from_afar_under_their_own_name() {
    let world = Afar::start();
    let (code, told) = world.failing(&["agent", "list"]);
    assert!(code == 5 && told.contains("obol login"), "{code} {told}");
    world.login("anna");
    let anna = format!("{}:anna", world.idp.issuer);
    assert_eq!(world.told(&["agent", "list"]), json!([]));
    // Without a name too, where this machine runs no service of its own.
    let output = command(world.elsewhere.path()).args(["agent", "list"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&world.service.origin()), "it is said where: {told}");

    let ticket = world.told(&["agent", "invite", "--class", "ci", "--role", "dev"]);
    assert!(ticket["ticket"].is_string(), "{ticket}");
    assert_eq!(world.told(&["as", "status"])["pin"], world.service.pin());
    assert_eq!(world.told(&["registrations"])["registrations"], json!([]));
    assert_eq!(world.told(&["approvals"])["approvals"], json!([]));
    let tool = world.told(&["agent", "disable", "--tool", "search", "--reason", "a drill"]);
    assert_eq!(tool["matched"], true, "{tool}");
    assert_eq!(world.told(&["as", "status"])["deniedTools"], json!(["search"]));
    assert!(world.operate(world.elsewhere.path(), &["agent", "enable", "--tool", "search"]).status.success());

    // A policy that takes several messages to send.
    let long = format!("{POLICIES}\n{}", "// ä \"quoted\" line\n".repeat(2_000));
    write_policy(&world.elsewhere.path().join("next"), CATALOGUE, &long);
    let done = world.told(&["policy", "activate", "next", "--yes"]);
    assert_eq!(done["version"]["by"], anna, "{done}");
    let versions = world.service.told(&["policy", "history"]);
    assert_eq!(versions["versions"].as_array().unwrap().last().unwrap()["by"], anna);

    let logins = world.service.told(&["logins"]);
    assert_eq!(logins["logins"][0]["human"], anna, "{logins}");
    for (event, scope) in [
        ("operator_login", "log_"),
        ("operate", "agent.disable"),
        ("operate", "policy.activate"),
        ("operate", "console.view"),
        ("disable", "search"),
        ("invite", "ci"),
    ] {
        world.wait_until_audited(&format!("{event} {scope} by {anna}"), |line| {
            line["event"] == event
                && line["client"] == anna
                && line["scope"].as_str().unwrap_or_default().contains(scope)
        });
    }
    let verified = world.service.operate(&["audit", "verify", "audit.jsonl"]);
    assert!(verified.status.success() || !verified.stderr.is_empty(), "{verified:?}");
}

#[test]
fn roles_make_what_can_be_done_smaller_and_who_has_none_is_not_let_in() {
    let world = Afar::start();
    world.login("bert");
    assert_eq!(world.told(&["agent", "list"]), json!([]), "he may look");
    let (code, told) = world.failing(&["agent", "disable", "--tool", "search"]);
    assert!(code == 3 && told.contains("agent.disable"), "{code} {told}");
    assert_eq!(world.service.told(&["as", "status"])["deniedTools"], json!([]));
    world.wait_until_audited("a denied command", |line| {
        line["event"] == "operate" && line["decision"] == "deny"
    });
    // Carl has no role at all: the page lets him say no more than no.
    let other = home::home();
    let mut terminal = world.begin(other.path(), &[]);
    let link = terminal.line_with("http://127.0.0.1:");
    world.idp.control(json!({ "account": "carl" }));
    let mut browser = Browser::default();
    let page = browser.open(&link);
    assert!(page.body.contains("none of your roles allows it"), "{page:?}");
    let refused = say(&mut browser, &page, "approve");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(terminal.is_waiting());
    assert_eq!(say(&mut browser, &page, "deny").status, 200);
    let (code, told) = terminal.ends();
    assert!(code == Some(3) && told.contains("denied in the browser"), "{code:?} {told}");
}

#[test]
fn a_stolen_file_is_worth_nothing_after_the_logout() {
    let world = Afar::start();
    world.login("anna");
    let folder = Path::new(".local/state/obol/logins");
    let file = std::fs::read_dir(world.elsewhere.path().join(folder)).unwrap().next().unwrap().unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // The thief copies it; while the login lasts it is the key, so that works.
    let thief = home::home();
    std::fs::create_dir_all(thief.path().join(folder)).unwrap();
    for part in [".local", ".local/state", ".local/state/obol", ".local/state/obol/logins"] {
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(thief.path().join(part), closed).unwrap();
    }
    let text = std::fs::read_to_string(file.path()).unwrap();
    write_private(&thief.path().join(folder).join(file.file_name()), &text);
    let works = world.operate(thief.path(), &["agent", "list"]);
    assert!(works.status.success(), "control: {works:?}");
    let output = command(world.elsewhere.path()).arg("logout").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!file.path().exists());
    let refused = world.operate(thief.path(), &["agent", "list"]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("NOT_LOGGED_IN"), "{refused:?}");
    // Nor does another service know it, which calls itself the same.
    let (code, _) = world.failing(&["agent", "list"]);
    assert_eq!(code, 5);
}

#[test]
fn a_login_ends_by_an_operator_by_a_lost_role_and_by_leaving() {
    let mut world = Afar::start();
    world.login("anna");
    let id = world.service.told(&["logins"])["logins"][0]["loginId"].as_str().unwrap().to_owned();
    assert!(world.service.operate(&["logins", "end", &id]).status.success());
    assert_eq!(world.failing(&["agent", "list"]).0, 5);

    world.login("anna");
    assert!(world.operate(world.elsewhere.path(), &["agent", "disable", "--tool", "pay"]).status.success());
    // At her next login, in any browser, the provider says that she is in another group: she may look, and no more.
    world.idp.control(json!({ "account": "anna", "groups": { "anna": ["dev"] } }));
    assert_eq!(Browser::default().open(&format!("{}/activate", world.service.origin())).status, 200);
    assert_eq!(world.failing(&["agent", "disable", "--tool", "search"]).0, 3);
    assert_eq!(world.told(&["agent", "list"]), json!([]));
    world.idp.control(json!({ "groups": { "anna": [] } }));
    assert_eq!(Browser::default().open(&format!("{}/activate", world.service.origin())).status, 200);
    assert_eq!(world.failing(&["agent", "list"]).0, 3, "not even look");

    world.idp.control(json!({ "groups": null }));
    world.login("anna");
    let issuer = world.idp.issuer.clone();
    let event =
        ["as", "events", "test", "--user", "anna", "--issuer", &issuer, "--event", "account-disabled"];
    assert!(world.service.operate(&event).status.success());
    assert_eq!(world.failing(&["agent", "list"]).0, 5, "who left is not logged in any more");

    world.login("bert");
    world.service.kill();
    world.service.start_again();
    assert_eq!(world.failing(&["agent", "list"]).0, 5, "logins end with the process");
}

/// Somebody mails the link of their own terminal, and the victim lets it in.
#[test]
fn a_victim_who_lets_in_a_mailed_link_lets_nobody_in() {
    let world = Afar::start();
    let mut attacker = world.begin(world.elsewhere.path(), &[]);
    let own = attacker.line_with("http://127.0.0.1:");
    let mailed = Browser::default().send("GET", &own, &[], "").leads_to().unwrap();
    assert!(mailed.starts_with(&world.service.origin()), "{mailed}");
    world.idp.control(json!({ "account": "anna" }));
    let mut victim = Browser::default();
    let page = victim.open(&mailed);
    assert!(page.body.contains("Compare the words first"), "{page:?}");
    let said = say(&mut victim, &page, "approve");
    // It leads to the victim's own machine, where nobody waits, and not to the attacker's.
    assert!(said.leads_to().unwrap().starts_with("http://127.0.0.1:"), "{said:?}");
    assert!(attacker.is_waiting());
    assert_eq!(world.service.told(&["logins"])["logins"], json!([]));
    // Control: had it come to the attacker's machine, they would be in.
    assert_eq!(victim.follow(said).status, 200);
    assert_eq!(attacker.ends().0, Some(0));
    assert_eq!(world.service.told(&["logins"])["logins"][0]["human"], format!("{}:anna", world.idp.issuer));
}

/// A page of a stranger in the operator's browser, or another user of the machine, says things to the port.
#[test]
fn nothing_that_a_stranger_says_to_the_port_logs_anybody_in() {
    let world = Afar::start();
    let mut terminal = world.begin(world.elsewhere.path(), &[]);
    let link = terminal.line_with("http://127.0.0.1:");
    let port = super::browser::origin(&link).to_owned();
    let code = "A".repeat(43);
    let begins = Browser::default().send("GET", &link, &[], "").leads_to().unwrap();
    let id = begins.rsplit('/').next().unwrap();
    for (method, path) in [
        ("GET", "/".to_owned()),
        ("GET", format!("/logged-in?login=log_aaaaaaaaaaaaaaaaaaaaaaaaaa&code={code}")),
        ("POST", format!("/logged-in?login={id}&code={code}")),
        ("GET", format!("/logged-in?login={id}&code=short")),
        ("GET", "/operate".to_owned()),
    ] {
        let answer = Browser::default().send(method, &format!("{port}{path}"), &[], "");
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
    }
    assert!(terminal.is_waiting());
    // The form of the page, sent by another site.
    world.idp.control(json!({ "account": "anna" }));
    let mut browser = Browser::default();
    let page = browser.open(&link);
    let token = page.hidden("token");
    let fields = [("token", token.as_str()), ("word", "approve")];
    let forged = browser.submit_from(&[("Sec-Fetch-Site", "cross-site")], &page.url, &fields);
    assert_eq!(forged.status, 403);
    let planted = [("token", "A".repeat(43)), ("word", "approve".to_owned())];
    let planted: Vec<_> = planted.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(browser.submit(&page.url, &planted).status, 403);
    assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    assert!(terminal.is_waiting());
    // Control: the same form, as its page sends it.
    let said = say(&mut browser, &page, "approve");
    assert_eq!(browser.follow(said).status, 200);
    assert_eq!(terminal.ends().0, Some(0));
}

#[test]
fn where_there_is_no_browser_a_code_is_typed_there_and_three_words_here() {
    let world = Afar::start();
    let mut terminal = world.begin(world.elsewhere.path(), &["--remote"]);
    let page = terminal.line_with("type this code");
    assert!(page.contains(&format!("{}/operate", world.service.origin())), "{page}");
    let code = terminal.line_with("-");
    let words = terminal.line_with("must show these words");
    world.idp.control(json!({ "account": "anna" }));
    let mut browser = Browser::default();
    let form = browser.open(&format!("{}/operate", world.service.origin()));
    let token = form.hidden("token");
    let wrong = browser.submit(&form.url, &[("token", &token), ("code", "BCDF-GHJK")]);
    assert_eq!(wrong.status, 404, "{wrong:?}");
    let found = browser.submit(&form.url, &[("token", &token), ("code", &code)]);
    let link = found.leads_to().unwrap();
    let mut other = Browser::default();
    assert_eq!(other.open(&link).status, 404, "who has only the link has not seen the terminal");
    let page = browser.follow(found);
    assert!(page.body.contains(words.rsplit(' ').next().unwrap()), "{page:?}");
    let said = say(&mut browser, &page, "approve");
    let three = said.between("<p class=\"words\">", "</p>");
    terminal.types("babad babad babad\n");
    terminal.line_with("2 more");
    terminal.types(&format!("{}\n", three.replace('-', " ")));
    let (code, told) = terminal.ends();
    assert!(code == Some(0) && told.contains("Logged in"), "{code:?} {told}");
    assert_eq!(world.told(&["agent", "list"]), json!([]));
}

#[test]
fn a_real_browser_lets_an_operator_in_by_the_keyboard_alone() {
    let world = Afar::start();
    world.idp.control(json!({ "account": "anna" }));
    let mut chromium = Chromium::start();
    let mut terminal = world.begin(world.elsewhere.path(), &[]);
    chromium.look(&terminal.line_with("http://127.0.0.1:"), "operate-login", 200);
    assert!(chromium.press("button[value=approve]", "").contains("You are logged in"));
    assert_eq!(terminal.ends().0, Some(0));

    let mut terminal = world.begin(world.elsewhere.path(), &["--remote"]);
    terminal.line_with("type this code");
    let code = terminal.line_with("-");
    chromium.look(&format!("{}/operate", world.service.origin()), "operate-code", 200);
    assert!(chromium.press("input[name=code]", "BCDF-GHJK").contains("code"));
    chromium.look_again("operate-code-wrong");
    chromium.look(&format!("{}/operate", world.service.origin()), "operate-code", 200);
    assert!(chromium.press("input[name=code]", &code).contains("Compare the words first"));
    chromium.look_again("operate-remote");
    assert!(chromium.press("button[value=approve]", "").contains("Tell them to no one"));
    chromium.look_again("operate-words");
    assert!(terminal.is_waiting(), "the words have yet to come back");
}
