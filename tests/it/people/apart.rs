//! Operators elsewhere, of two organisations at one service: all of them processes, the providers named in a file as an operator writes it.

use std::path::Path;

use obol_world::home::write_private;
use obol_world::idp::Idp as Attestor;
use obol_world::now;
use serde_json::{Value, json};

use super::browser::Browser;
use super::logins::Afar;
use super::several::callback;
use super::{Idp, SECRET};
use crate::authority::Agent;
use crate::authority::attested::{AUDIENCE, made, presented};

/// The service's own organisation has the provider `corp`; `acme` has another.
fn start() -> (Afar, Idp) {
    start_with(|_, _, _| Vec::new())
}

/// The same with what this makes in the service's home for the two: more arguments.
fn start_with(more: impl FnOnce(&Path, &Idp, &Idp) -> Vec<String>) -> (Afar, Idp) {
    let mut acme = None;
    let world = Afar::started(|home: &Path, origin| {
        let own = Idp::start(&callback(origin, "corp"));
        let other = Idp::start(&callback(origin, "acme"));
        write_private(&home.join("corp.secret"), SECRET);
        write_private(&home.join("acme.secret"), SECRET);
        let file = json!({ "providers": [
            { "name": "corp", "title": "Corp", "issuer": own.issuer, "client_id": "obol", "client_secret_file": "corp.secret" },
            { "name": "acme", "issuer": other.issuer, "client_id": "obol", "client_secret_file": "acme.secret",
              "organisation": "acme", "roles": { "ops": "ops", "dev": "dev" } },
        ] });
        write_private(&home.join("providers.json"), &file.to_string());
        let mut arguments = vec!["--providers".to_owned(), "providers.json".to_owned()];
        arguments.extend(more(home, &own, &other));
        acme = Some(other);
        (own, arguments)
    });
    (world, acme.unwrap())
}

/// A browser in which `anna` of this provider is logged in.
fn browser(world: &Afar, provider: &str) -> Browser {
    let mut browser = Browser::default();
    let page = browser.open(&format!("{}/login?provider={provider}&to=/activate", world.service.origin()));
    assert_eq!(page.status, 200, "{page:?}");
    browser
}

fn names(agents: &Value) -> Vec<&str> {
    let names = agents.as_array().unwrap().iter().map(|agent| agent["wishes"]["name"].as_str().unwrap());
    names.collect()
}

/// An agent of the class that whoever is logged in elsewhere has a ticket for.
fn invited(world: &Afar, name: &str, number: usize) -> Agent {
    let made = world.told(&["agent", "invite", "--class", "coding", "--role", "dev"]);
    let home = world.home.path().join(format!("agent-{number}"));
    std::fs::create_dir(&home).unwrap();
    let mut agent = Agent::new(&world.service, &home, name);
    agent.try_register(made["ticket"].as_str()).unwrap();
    agent
}

#[test]
fn operators_of_two_organisations_have_each_their_own_agents() {
    let (mut world, acme) = start();
    let choice = Browser::default().open(&format!("{}/login", world.service.origin()));
    for shown in ["Corp", "acme", world.idp.issuer.as_str(), acme.issuer.as_str()] {
        assert!(choice.body.contains(shown), "{shown}: {choice:?}");
    }
    let (mut corp, mut other) = (browser(&world, "corp"), browser(&world, "acme"));

    world.log_in(&mut corp);
    let _ours = invited(&world, "ours", 1);
    assert_eq!(names(&world.told(&["agent", "list"])), ["ours"], "control");
    assert_eq!(world.told(&["logins"])["logins"].as_array().unwrap().len(), 1);
    assert_eq!(world.told(&["as", "status"])["pin"], world.service.pin());

    // The same commands by the other, on a machine of theirs: the same roles, and another organisation.
    world.elsewhere = obol_world::home::home();
    world.log_in(&mut other);
    assert_eq!(names(&world.told(&["agent", "list"])), [""; 0]);
    let _theirs = invited(&world, "theirs", 2);
    assert_eq!(names(&world.told(&["agent", "list"])), ["theirs"]);
    for command in [
        &["agent", "show", "ours"][..],
        &["agent", "disable", "ours"],
        &["agent", "enable", "ours"],
        &["agent", "remove", "ours"],
    ] {
        let (code, told) = world.failing(command);
        assert!(code == 1 && told.contains("there is no agent ours"), "{command:?}: {code} {told}");
    }
    for command in [
        &["as", "status"][..],
        &["registrations"],
        &["rs", "list"],
        &["rs", "invite", "https://evil.example"],
        &["policy", "history"],
        &["agent", "disable", "--tool", "search"],
        &["as", "events", "status"],
    ] {
        let (code, told) = world.failing(command);
        assert!(code == 3 && told.contains("reach"), "{command:?}: {code} {told}");
    }
    let seen = world.told(&["logins"]);
    let humans: Vec<_> =
        seen["logins"].as_array().unwrap().iter().map(|login| login["human"].clone()).collect();
    assert_eq!(humans, [json!(format!("{}:anna", acme.issuer))], "{seen}");
    let (code, _) = world.failing(&["logins", "end", &format!("{}:anna", world.idp.issuer)]);
    assert_ne!(code, 0);

    // Whoever operates the service's own machine sees all of it, and nothing was done.
    let all = world.service.told(&["agent", "list"]);
    let mut seen = names(&all);
    seen.sort_unstable();
    assert_eq!(seen, ["ours", "theirs"]);
    assert!(all.as_array().unwrap().iter().all(|agent| agent["state"] == "active"), "{all}");
    assert_eq!(world.service.told(&["logins"])["logins"].as_array().unwrap().len(), 2);
    // Control: the same on one's own.
    assert_eq!(world.told(&["agent", "disable", "theirs"])["matched"], true);
    assert_eq!(world.told(&["agent", "enable", "theirs"])["matched"], true);
}

/// An operator of `acme` with an agent, and from now on one of `corp` with an agent elsewhere; and the browsers of the two.
fn of_both(world: &mut Afar) -> ([Agent; 2], [Browser; 2]) {
    let [mut corp, mut acme] = ["corp", "acme"].map(|provider| browser(world, provider));
    world.log_in(&mut acme);
    let theirs = invited(world, "theirs", 1);
    world.elsewhere = obol_world::home::home();
    world.log_in(&mut corp);
    let ours = invited(world, "ours", 2);
    ([theirs, ours], [corp, acme])
}

fn shown(world: &Afar, agent: &str) -> Value {
    world.service.told(&["agent", "show", agent])["agent"].clone()
}

#[test]
fn neither_a_ticket_nor_a_word_moves_an_agent_to_another_organisation() {
    let attestor = Attestor::start();
    let claims = |sub: &str, jti: &str| {
        json!({ "alg": "RS256", "claims": { "iss": attestor.issuer, "aud": AUDIENCE, "sub": sub, "jti": jti,
            "iat": now(), "exp": now() + 600 } })
    };
    let made = made(&json!([claims("acme", "1"), claims("root", "2"), claims("acme", "3")]));
    attestor.publish(&made["jwks"]);
    let (mut world, acme) = start_with(|home, _, acme| {
        let rule = |sub: &str, owner: Value| {
            json!({ "claims": { "sub": sub }, "class": "coding", "names": ["ours", "theirs", "theirs-*"], "roles": ["dev"],
                "owner": owner })
        };
        let of_acme = rule("acme", json!({ "issuer": acme.issuer, "subject": "anna" }));
        let file = json!({ "attestors": [{ "issuer": attestor.issuer, "kind": "workload", "audience": AUDIENCE,
            "jwks_uri": format!("{}/jwks", attestor.issuer), "agents": [of_acme, rule("root", json!("local:root"))] }] });
        write_private(&home.join("attestors.json"), &file.to_string());
        vec!["--attestors".to_owned(), "attestors.json".to_owned()]
    });
    let word = |number: usize| made["tokens"][number].as_str().unwrap();

    let ([mut theirs, mut ours], _) = of_both(&mut world);
    let owners =
        || ["theirs", "ours"].map(|agent| shown(&world, agent)["owner"].as_str().unwrap().to_owned());
    let before = [format!("{}:anna", acme.issuer), format!("{}:anna", world.idp.issuer)];
    assert_eq!(owners(), before);
    // A ticket of `corp`, and words for `acme` and for whoever operates the machine.
    let ticket = world.told(&["agent", "invite", "--class", "coding", "--role", "dev", "--max", "3"]);
    let ticket = ticket["ticket"].as_str();
    assert_eq!(theirs.try_register(ticket).unwrap_err().code(), "INVITATION");
    for (agent, number) in [(&mut ours, 0), (&mut theirs, 1)] {
        let (code, detail) = presented(agent, word(number)).unwrap_err();
        assert!(code == "ASSERTION" && detail.contains("another organisation"), "{code} {detail}");
    }
    assert_eq!(owners(), before);
    // Control: on agents of one's own, and new ones; what was refused is not spent.
    ours.try_register(ticket).unwrap();
    assert_eq!(presented(&mut theirs, word(2)), Ok(()));
    assert_eq!(owners(), before);
    let new = |name: &str| Agent::new(&world.service, world.elsewhere.path(), name);
    assert_eq!(presented(&mut new("theirs-2"), word(0)), Ok(()));
}

#[test]
fn nobody_tries_a_security_event_on_another_organisation() {
    let (mut world, acme) = start();
    let _agents = of_both(&mut world);
    let test = ["as", "events", "test", "--event", "account-disabled"];
    let of_human = ["--user", "anna", "--issuer", acme.issuer.as_str()];
    for about in [&["--agent", "theirs"][..], &of_human] {
        let (code, told) = world.failing(&[&test[..], about].concat());
        assert!(code == 1 && told.contains("concerns no agent"), "{about:?}: {code} {told}");
    }
    assert_eq!(shown(&world, "theirs")["state"], "active");
    // Control: on one's own, and by whoever operates the machine.
    world.told(&[&test[..], &["--agent", "ours"]].concat());
    assert_eq!(
        [shown(&world, "ours")["state"].clone(), shown(&world, "theirs")["state"].clone()],
        ["suspended", "active"]
    );
    world.service.told(&[&test[..], &of_human].concat());
    assert_eq!(shown(&world, "theirs")["state"], "suspended");
}

#[test]
fn an_agent_that_asks_anew_is_shown_to_its_own_organisation_alone() {
    let (mut world, _acme) = start();
    let ([mut theirs, _ours], [mut corp, _]) = of_both(&mut world);
    let console = format!("{}/console", world.service.origin());
    let (code, words) = theirs.register();
    let waiting = |all: &Value| {
        let all = all["registrations"].as_array().unwrap().clone();
        all.iter().map(|one| one["wishes"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&world.told(&["registrations"])), [""; 0]);
    assert_eq!(world.told(&["as", "status"])["waiting"], 0);
    assert!(!corp.open(&console).body.contains(&words));
    let (no, told) = world.failing(&["approve", &code, "--yes"]);
    assert!(no != 0 && told.contains("no registration with this code"), "{no} {told}");
    assert_eq!(waiting(&world.service.told(&["registrations"])), ["theirs"], "whoever operates the machine");
    // Control: who is nobody's yet.
    let (_, words) = Agent::new(&world.service, world.elsewhere.path(), "stranger").register();
    assert_eq!(waiting(&world.told(&["registrations"])), ["stranger"]);
    assert_eq!(world.told(&["as", "status"])["waiting"], 1);
    assert!(corp.open(&console).body.contains(&words));
    assert_eq!(world.service.told(&["as", "status"])["waiting"], 2);
}

#[test]
fn the_code_of_an_agent_of_another_organisation_is_a_guess_that_is_none() {
    let (mut world, _acme) = start();
    let ([mut theirs, _ours], [mut corp, mut acme]) = of_both(&mut world);
    let (code, _) = theirs.register();
    let page = format!("{}/activate", world.service.origin());
    let guess = |browser: &mut Browser| {
        let token = browser.open(&page).hidden("token");
        browser.submit(&page, &[("token", &token), ("code", &code)]).status
    };
    for _ in 0..5 {
        assert_eq!(guess(&mut corp), 404);
    }
    assert_eq!(guess(&mut corp), 429, "it counts as one");
    assert_eq!(guess(&mut acme), 303, "control");
}

#[test]
fn a_file_of_providers_that_cannot_be_is_refused_with_what_to_do() {
    let home = obol_world::home::home();
    let refused = |file: &Value, more: &[&str]| {
        write_private(&home.path().join("providers.json"), &file.to_string());
        let arguments = [&["--no-sandbox", "--providers", "providers.json"][..], more].concat();
        let service = obol_world::authority::AsProcess::unstarted(home.path(), &arguments).with_people();
        let (code, told) = service.fails();
        assert_eq!(code, Some(2), "{told}");
        told
    };
    let one = |name: &str, issuer: &str| json!({ "name": name, "issuer": issuer, "client_id": "obol" });
    let (corp, acme) = (one("corp", "https://idp.example"), one("acme", "https://acme.example"));
    let several = |all: &[&Value]| json!({ "providers": all });
    assert!(refused(&several(&[&corp, &corp]), &[]).contains("named twice"));
    assert!(refused(&several(&[&corp, &one("corp", "https://b.example")]), &[]).contains("given twice"));
    assert!(refused(&several(&[&corp, &one("Acme", "https://b.example")]), &[]).contains("small letters"));
    let mut foreign = acme.clone();
    foreign["organisation"] = json!("acme");
    assert!(refused(&several(&[&corp, &foreign]), &[]).contains("which of its values stand for which role"));
    let mut secret = acme;
    secret["client_secret_file"] = json!("nowhere.secret");
    assert!(refused(&several(&[&corp, &secret]), &[]).contains("nowhere.secret"));
}
