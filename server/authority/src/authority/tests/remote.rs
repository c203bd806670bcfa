//! Operators elsewhere: who is let in by which key, what each message is worth, and what ends it.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::authority::remote::Asked;
use crate::remote::{Of, Operator};

/// Counts what it is let do.
#[derive(Debug, Default)]
struct Counts(AtomicUsize);

impl Operator for Counts {
    fn operate(&self, request: &[u8], by: &Human, may: &dyn Fn(&str, Of) -> Result<(), Refused>) -> Vec<u8> {
        let verb = serde_json::from_slice::<Value>(request).unwrap()["verb"].as_str().unwrap().to_owned();
        match may(&verb, Of::Agents) {
            Ok(()) => {
                let count = self.0.fetch_add(1, Ordering::SeqCst) + 1;
                json!({ "done": count, "by": by.to_string() }).to_string().into_bytes()
            }
            Err(refused) => json!({ "refused": refused.code() }).to_string().into_bytes(),
        }
    }
}

impl Counts {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn anna() -> Human {
    Human { issuer: "https://idp.example".into(), subject: "anna".into() }
}

fn know(authority: &Authority, roles: &[&str]) {
    let roles = roles.iter().map(ToString::to_string).collect();
    let person = Person { name: "Anna".into(), roles, known_at: START, ..Person::unknown(anna()) };
    authority.know_person(&person, at(START)).unwrap();
}

fn service() -> Authority {
    let settings = Settings::new(ORIGIN, "example").unwrap().with_pages();
    let settings = settings.operator_roles(vec!["ops".into()]).login_secs(600).unwrap();
    let authority = authority_with(settings);
    know(&authority, &["ops"]);
    authority
}

fn opened(answer: &[u8], mut established: Established) -> Value {
    let text = open_answer(&mut established.receive, answer, 1 << 16).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn says(authority: &Authority, client: &Client, what: &Value, now: Now) -> Value {
    let sent = client.send(authority, (Purpose::Login, Suite::AesGcm), now, |_, _| what.clone()).unwrap();
    let answer = authority.prove(Purpose::Login, &sent.proof, "192.0.2.1", now).unwrap();
    opened(&answer, sent.established)
}

/// Asks, and gives the name under which it waits.
fn asks(authority: &Authority, client: &Client) -> crate::id::LoginId {
    let ask = json!({ "ask": { "flow": { "loopback": { "port": 9 } }, "host": "h", "user": "u", "software": "s" } });
    let told = says(authority, client, &ask, at(START));
    assert!(told["code"].is_null(), "a browser that comes by a link needs none: {told}");
    crate::id::LoginId::parse(told["login_id"].as_str().unwrap_or_else(|| panic!("{told}"))).unwrap()
}

fn yes(authority: &Authority, id: &crate::id::LoginId) -> String {
    let asked = authority.review_login(id, at(START)).unwrap();
    match authority.confirm_login(&asked, &anna(), at(START)).unwrap() {
        Confirmed::Loopback(9, code) => code.to_text().to_string(),
        other => panic!("{other:?}"),
    }
}

fn completes(authority: &Authority, client: &Client, id: &crate::id::LoginId, code: &str) -> Value {
    let complete = json!({ "complete": { "login_id": id, "code": code } });
    says(authority, client, &complete, at(START))
}

/// A client that is let in as Anna.
fn let_in(authority: &Authority) -> Client {
    let client = Client::new();
    let id = asks(authority, &client);
    let code = yes(authority, &id);
    assert_eq!(completes(authority, &client, &id, &code)["subject"], "anna");
    client
}

fn call(authority: &Authority, client: &Client, now: Now) -> Sent {
    let call = json!({ "call": { "verb": "agent.disable" } });
    client.send(authority, (Purpose::Operate, Suite::AesGcm), now, |_, _| call).unwrap()
}

fn carried_out(authority: &Authority, proof: &[u8], counts: &Counts, now: Now) -> Result<Vec<u8>, Rejected> {
    Ok(match authority.ask_to_operate(proof, now)? {
        Asked::Answer(answer) => answer,
        Asked::Asks(asks) => authority.operate(*asks, counts, now),
    })
}

/// What an operation comes to.
fn operates(authority: &Authority, client: &Client, counts: &Counts, now: Now) -> Value {
    let sent = call(authority, client, now);
    opened(&carried_out(authority, &sent.proof, counts, now).unwrap(), sent.established)
}

#[test]
fn whoever_was_let_in_does_what_policy_lets_them_and_under_their_own_name() {
    let (authority, counts) = (service(), Counts::default());
    let client = let_in(&authority);
    let told = operates(&authority, &client, &counts, at(START));
    assert_eq!(told["answer"], json!({ "done": 1, "by": "https://idp.example:anna" }));
    let stranger = operates(&authority, &Client::new(), &counts, at(START));
    assert_eq!(stranger["error"]["code"], "NOT_LOGGED_IN");
    assert_eq!(counts.count(), 1);
}

/// A request that was recorded on its way is worth nothing: it is answered as before, and not done again.
#[test]
fn a_request_that_is_sent_again_is_done_once_and_gets_the_same_bytes() {
    let (authority, counts) = (service(), Counts::default());
    let client = let_in(&authority);
    let sent = call(&authority, &client, at(START));
    let first = carried_out(&authority, &sent.proof, &counts, at(START)).unwrap();
    for _ in 0..100 {
        assert_eq!(carried_out(&authority, &sent.proof, &counts, at(START + 1)).unwrap(), first);
    }
    assert_eq!(counts.count(), 1);
    let late = carried_out(&authority, &sent.proof, &counts, at(START + VALIDITY_SECS + 1));
    assert_eq!(late.unwrap_err(), Rejected::CookieExpired);
    // At another service with the same name, or on the route of another purpose.
    let other = carried_out(&service(), &sent.proof, &counts, at(START));
    assert!(matches!(other, Err(Rejected::Malformed(_))), "{other:?}");
    let route = authority.prove(Purpose::Login, &sent.proof, "192.0.2.1", at(START));
    assert!(matches!(route, Err(Rejected::Malformed(_))), "{route:?}");
    assert_eq!(counts.count(), 1);
    // Control: the same request, asked for anew.
    operates(&authority, &client, &counts, at(START + 2));
    assert_eq!(counts.count(), 2);
}

#[test]
fn a_yes_is_worth_nothing_to_another_key_and_nothing_twice() {
    let authority = service();
    let (client, thief) = (Client::new(), Client::new());
    let id = asks(&authority, &client);
    assert_eq!(completes(&authority, &client, &id, &"A".repeat(43))["error"]["code"], "PENDING_APPROVAL");
    let code = yes(&authority, &id);
    assert_eq!(completes(&authority, &thief, &id, &code)["error"]["code"], "NO_SUCH_CODE");
    let told = says(&authority, &thief, &json!({ "state": { "login_id": id } }), at(START));
    assert_eq!(told["error"]["code"], "NO_SUCH_CODE", "nor is it told how it stands");
    assert_eq!(completes(&authority, &client, &id, &code)["subject"], "anna", "control");
    assert_eq!(completes(&authority, &client, &id, &code)["error"]["code"], "NO_SUCH_CODE");
}

#[test]
fn logging_out_ends_it_for_whoever_has_a_copy_and_so_does_time() {
    let (authority, counts) = (service(), Counts::default());
    let (client, other) = (let_in(&authority), let_in(&authority));
    let copy = Client { identity: IdentityKey::from_bytes(client.identity.expose()), ..Client::new() };
    assert!(operates(&authority, &copy, &counts, at(START))["answer"]["done"].is_u64(), "control");
    let waits = call(&authority, &copy, at(START));
    assert_eq!(says(&authority, &client, &json!({ "leave": {} }), at(START))["ended"], 1);
    let told = opened(&carried_out(&authority, &waits.proof, &counts, at(START)).unwrap(), waits.established);
    assert_eq!(told["error"]["code"], "NOT_LOGGED_IN", "also what was begun before");
    assert_eq!(operates(&authority, &copy, &counts, at(START))["error"]["code"], "NOT_LOGGED_IN");
    assert_eq!(says(&authority, &copy, &json!({ "leave": {} }), at(START))["error"]["code"], "NOT_LOGGED_IN");
    assert!(operates(&authority, &other, &counts, at(START + 599))["answer"]["done"].is_u64());
    assert_eq!(operates(&authority, &other, &counts, at(START + 600))["error"]["code"], "NOT_LOGGED_IN");
}

#[test]
fn who_lost_the_role_or_left_operates_nothing_more_and_no_one_without_it_is_let_in() {
    let (authority, counts) = (service(), Counts::default());
    let client = let_in(&authority);
    know(&authority, &["dev"]);
    let told = operates(&authority, &client, &counts, at(START));
    assert_eq!(told["answer"]["refused"], "MAY_NOT_LOG_IN");
    let asking = Client::new();
    let id = asks(&authority, &asking);
    let asked = authority.review_login(&id, at(START)).unwrap();
    let refused = authority.confirm_login(&asked, &anna(), at(START)).unwrap_err();
    assert_eq!(refused, Refused::MayNotLogIn);
    let local = authority.confirm_login(&asked, &Human::local("root"), at(START)).unwrap_err();
    assert_eq!(local, Refused::MayNotLogIn);
    know(&authority, &["ops"]);
    assert!(operates(&authority, &client, &counts, at(START))["answer"]["done"].is_u64(), "control");
    let code = yes(&authority, &id);
    // Between the yes and its coming back they leave: both end.
    let left = EndScope::Owner(anna(), OwnerEnd::Suspend);
    authority.end(&left, "left", &Human::local("test"), at(START)).unwrap();
    assert_eq!(completes(&authority, &asking, &id, &code)["error"]["code"], "NO_SUCH_CODE");
    assert_eq!(operates(&authority, &client, &counts, at(START))["error"]["code"], "NOT_LOGGED_IN");
    assert!(authority.logins(&Human::local("root"), at(START)).unwrap().is_empty());
}

#[test]
fn an_operator_ends_a_login_by_its_name_or_by_whose_it_is() {
    let (authority, counts) = (service(), Counts::default());
    let (first, second) = (let_in(&authority), let_in(&authority));
    let by = Human::local("root");
    let names: Vec<_> = authority.logins(&by, at(START)).unwrap().into_iter().map(|live| live.id).collect();
    assert_eq!(authority.end_logins("log_unknown", &by, at(START)), Ok(0));
    for name in &names {
        assert_eq!(authority.end_logins(name.as_str(), &by, at(START)), Ok(1));
    }
    for client in [&first, &second] {
        assert_eq!(operates(&authority, client, &counts, at(START))["error"]["code"], "NOT_LOGGED_IN");
    }
    drop((let_in(&authority), let_in(&authority)));
    assert_eq!(authority.end_logins("anna", &by, at(START)), Ok(2));
    assert!(authority.logins(&Human::local("root"), at(START)).unwrap().is_empty());
}

#[test]
fn nobody_is_let_in_unless_settings_say_who() {
    let ask = json!({ "ask": { "flow": "code", "host": "h", "user": "u", "software": "s" } });
    for settings in [
        Settings::new(ORIGIN, "example").unwrap().with_pages(),
        Settings::new(ORIGIN, "example").unwrap().operator_roles(vec!["ops".into()]),
    ] {
        let told = says(&authority_with(settings), &Client::new(), &ask, at(START));
        assert_eq!(told["error"]["code"], "NO_REMOTE_OPERATORS");
    }
    let told = says(&service(), &Client::new(), &ask, at(START));
    assert!(told["code"].is_string() && told["url"] == "https://as.example/operate", "control: {told}");
}

#[test]
fn three_words_that_are_wrong_end_it_and_a_link_does_not_show_what_takes_a_code() {
    let authority = service();
    let client = Client::new();
    let ask = json!({ "ask": { "flow": "code", "host": "h\u{202e}", "user": "u", "software": "s" } });
    let told = says(&authority, &client, &ask, at(START));
    let code = UserCode::parse(told["code"].as_str().unwrap()).unwrap();
    let asked = authority.review_login_coded(&code, at(START)).unwrap();
    assert_eq!(asked.said.host, "h\\u202e", "nothing that steers a terminal");
    let Confirmed::Code(_) = authority.confirm_login(&asked, &anna(), at(START)).unwrap() else { panic!() };
    let wrong = |left: &str| {
        let told = completes(&authority, &client, &asked.id, "babad-babad-babad");
        assert!(told["error"]["detail"].as_str().unwrap().contains(left), "{told}");
    };
    ["2 more", "1 more", "last try"].into_iter().for_each(wrong);
    let told = completes(&authority, &client, &asked.id, "babad-babad-babad");
    assert_eq!(told["error"]["code"], "NO_SUCH_CODE");
}
