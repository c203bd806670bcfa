//! Operators elsewhere, of two organisations at one service: all of them processes, the providers named in a file as an operator writes it.

use std::path::Path;

use obol_world::home::write_private;
use serde_json::{Value, json};

use super::browser::Browser;
use super::logins::Afar;
use super::several::callback;
use super::{Idp, SECRET};
use crate::authority::Agent;

/// The service's own organisation has the provider `corp`; `acme` has another.
fn start() -> (Afar, Idp) {
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
        acme = Some(other);
        (own, vec!["--providers".to_owned(), "providers.json".to_owned()])
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
