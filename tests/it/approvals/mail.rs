//! Whoever is to decide hears of it by e-mail, from a real mail server: with the link and nothing secret, over TLS, also when the
//! server is away for a while, and never so often that a mailbox fills.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use obol_ipc::approvals::WantedCall;
use obol_world::authority::write_settings;
use obol_world::certificates::{self, Holds};
use obol_world::home::{self, PATIENCE, wait_until, write_private};
use serde_json::{Value, json};

use super::{CATALOGUE, POLICIES, World, pay, request};
use crate::sdk::python;

const PASSWORD: &str = "a password of the mail server";

/// A mail server that runs until it is dropped.
struct MailServer {
    running: Child,
    port: u16,
    came: Receiver<Value>,
}

impl MailServer {
    fn start(folder: &Path, way: &str, answers: &[&str]) -> Self {
        let mut command = Command::new(python());
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/it/approvals/smtp.py"));
        command.arg(way).arg(folder).args(["obol", PASSWORD]).args(answers);
        let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let port = lines.next().expect("aiosmtpd runs; scripts/test installs it").unwrap().parse().unwrap();
        let (sender, came) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _nobody_waits = sender.send(serde_json::from_str::<Value>(&line).unwrap());
            }
        });
        Self { running, port, came }
    }

    /// The next message, whatever it was answered with.
    fn next(&self) -> Value {
        self.came.recv_timeout(PATIENCE).expect("a message")
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ended = self.running.kill();
        let _ended = self.running.wait();
    }
}

fn settings(home: &Path, server: &str, password: &str) {
    write_private(&home.join("mail-password"), password);
    write_settings(
        home,
        &format!(
            "[as]\nmail_server = \"{server}\"\nmail_from = \"obol@example.com\"\nmail_user = \"obol\"\n\
             mail_password = \"{}\"\nca_file = \"{}\"\nmail_approvals = [\"approver@example.com\", \"second@example.com\"]\n",
            home.join("mail-password").display(),
            home.join("ours.crt").display()
        ),
    );
}

/// How it stands with mail about approvals, as the operator is shown it.
fn status(world: &World) -> Value {
    let told = world.service.told(&["as", "events", "status"]);
    let outlets = told["outlets"].as_array().unwrap();
    outlets.iter().find(|one| one["kind"] == "mail" && one["name"] == "approvals").unwrap().clone()
}

/// The lines behind the headers, as a reader shows them.
fn body(message: &Value) -> String {
    let text = message["data"].as_str().unwrap();
    // Soft line breaks of quoted-printable.
    text.split_once("\r\n\r\n").unwrap().1.replace("=\r\n", "").replace("=3D", "=")
}

fn told_over(way: &str, scheme: &str) {
    let home = home::home();
    certificates::authority(home.path(), "ours");
    certificates::issued(home.path(), "ours", "as", "localhost", Holds::Now);
    let server = MailServer::start(home.path(), way, &["451 4.3.0 later", "250 2.0.0 taken"]);
    settings(home.path(), &format!("{scheme}://localhost:{}", server.port), PASSWORD);
    let world = World::at(home, CATALOGUE, POLICIES);

    // That the agent wants to be registered; the server does not take it at first.
    let (first, again) = (server.next(), server.next());
    assert_eq!((&first["answer"], &again["answer"]), (&json!("451 4.3.0 later"), &json!("250 2.0.0 taken")));
    let id = |message: &Value| {
        let data = message["data"].as_str().unwrap().to_owned();
        data.lines().find(|line| line.to_ascii_lowercase().starts_with("message-id:")).unwrap().to_owned()
    };
    assert_eq!(id(&first), id(&again), "one message, tried twice");
    assert!(body(&again).contains("waits for a human"), "{again}");

    let secret = json!({"amount": "12.50", "to": "account of the mistress"}).to_string();
    let mut asked = request(WantedCall { arguments: Some(secret), ..pay() });
    asked.purpose = Some("invoice 7\r\nBcc: all@evil.example".to_owned());
    let asked = world.auth().request_approval(asked).unwrap();
    let message = server.next();
    assert_eq!(message["to"], json!(["approver@example.com", "second@example.com"]));
    assert_eq!(
        (&message["from"], &message["user"], &message["tls"]),
        (&json!("obol@example.com"), &json!("obol"), &json!(way != "plain"))
    );
    let (text, data) = (body(&message), message["data"].as_str().unwrap());
    assert!(text.contains("agent builder asks for a human's yes to a call of pay"), "{text}");
    assert!(text.contains(&asked.approval_id), "what the human looks for: {text}");
    for private in ["12.50", "mistress", "invoice", "evil", PASSWORD] {
        assert!(!data.contains(private), "{private}: {data}");
    }
    wait_until("it is counted", || status(&world)["sent"] == 2);
    assert_eq!((&status(&world)["dropped"], &status(&world)["error"]), (&json!(0), &Value::Null));
    // The mail says where; the yes is said elsewhere, by who logs in.
    world.approve(&asked);
}

#[test]
fn whoever_decides_hears_of_it_by_mail_over_tls() {
    told_over("tls", "smtps");
}

#[test]
fn whoever_decides_hears_of_it_by_mail_over_starttls() {
    told_over("starttls", "smtp");
}

#[test]
fn nothing_leaves_in_the_clear_and_nobody_waits_for_a_mail_server() {
    let home = home::home();
    certificates::authority(home.path(), "ours");
    // It does not offer STARTTLS, as if somebody on the way had taken the word out.
    let stripped = MailServer::start(home.path(), "plain", &["250 2.0.0 taken"]);
    settings(home.path(), &format!("smtp://localhost:{}", stripped.port), PASSWORD);
    let mut world = World::at(home, CATALOGUE, POLICIES);
    let asked = world.ask(pay());
    wait_until("it was tried", || status(&world)["error"] != Value::Null);
    assert_eq!(world.approve(&asked).calls.len(), 1, "decided while the mail server takes nothing");
    assert!(stripped.came.try_recv().is_err());

    // The control: on this machine an operator may say so.
    settings(world.path(), &format!("smtp+plain://localhost:{}", stripped.port), PASSWORD);
    world.service.kill();
    world.service.start_again();
    wait_until("the agent's service is back", || world.auth().request_approval(request(pay())).is_ok());
    let message = stripped.next();
    assert_eq!((&message["tls"], &message["answer"]), (&json!(false), &json!("250 2.0.0 taken")));
    assert!(!world.service.log().contains(PASSWORD));
}

#[test]
fn a_mail_server_is_held_to_its_certificate_and_a_refusal_for_good_is_not_repeated() {
    let home = home::home();
    for name in ["ours", "others"] {
        certificates::authority(home.path(), name);
    }
    // Somebody else's authority vouches for this one.
    certificates::issued(home.path(), "others", "as", "localhost", Holds::Now);
    let impostor = MailServer::start(home.path(), "tls", &["250 2.0.0 taken"]);
    settings(home.path(), &format!("smtps://localhost:{}", impostor.port), PASSWORD);
    let mut world = World::at(home, CATALOGUE, POLICIES);
    world.ask(pay());
    wait_until("it was tried", || status(&world)["error"] != Value::Null);
    assert!(impostor.came.try_recv().is_err(), "neither message nor password");

    certificates::issued(world.path(), "ours", "as", "localhost", Holds::Now);
    let strict = MailServer::start(world.path(), "tls", &["550 5.7.1 not from you", "250 2.0.0 taken"]);
    settings(world.path(), &format!("smtps://localhost:{}", strict.port), PASSWORD);
    world.service.kill();
    world.service.start_again();
    wait_until("the agent's service is back", || world.auth().request_approval(request(pay())).is_ok());
    assert_eq!(strict.next()["answer"], "550 5.7.1 not from you");
    wait_until("it is given up", || status(&world)["dropped"] == 1);
    assert_eq!(status(&world)["sent"], 0);
    assert!(status(&world)["error"].as_str().unwrap().contains("not from you"));
}

#[test]
fn an_agent_that_asks_without_end_fills_no_mailbox() {
    let home = home::home();
    certificates::authority(home.path(), "ours");
    certificates::issued(home.path(), "ours", "as", "localhost", Holds::Now);
    let server = MailServer::start(home.path(), "tls", &["250 2.0.0 taken"]);
    settings(home.path(), &format!("smtps://localhost:{}", server.port), PASSWORD);
    let world = World::at(home, CATALOGUE, POLICIES);
    for _ in 0..10 {
        world.ask(pay());
    }
    // The registration, three of the agent's requests in one or two messages, and no more of it within the minute.
    let mut told = 0;
    while told < 3 {
        told += body(&server.next()).matches("asks for a human's yes").count();
    }
    assert_eq!(told, 3);
    wait_until("the rest is left out", || {
        world.service.metrics().contains("obol_authority_notices_left_out_total 7")
    });
    assert_eq!(
        world.service.told(&["approvals"])["approvals"].as_array().unwrap().len(),
        10,
        "all of them wait"
    );
}
