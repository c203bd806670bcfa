//! Two organisations at one service: what a ticket of the one does to an agent of the other, and a yes that was overtaken.

use super::*;

const OURS: &str = "https://corp.example";
const THEIRS: &str = "https://acme.example";

fn two() -> Authority {
    let settings = Settings::new(ORIGIN, "example").unwrap();
    authority_with(settings.organisation(OURS, "example").unwrap().organisation(THEIRS, "acme").unwrap())
}

/// Anna of this provider, who has the roles that there are.
fn anna(authority: &Authority, issuer: &str) -> Human {
    let human = Human { issuer: issuer.to_owned(), subject: "anna".to_owned() };
    let person = Person {
        roles: ["dev", "reader"].map(str::to_owned).into(),
        login_at: START,
        known_at: START,
        ..Person::unknown(human.clone())
    };
    authority.know_person(&person, at(START)).unwrap();
    human
}

fn ticket(authority: &Authority, by: &Human) -> Value {
    let roles = ["dev".to_owned()];
    let invited = authority.invite("coding", &roles, 5, 3_600, by.clone(), at(START)).unwrap();
    json!({ "ticket": invited.ticket.to_text().as_str() })
}

fn row(authority: &Authority, name: &str) -> Agent {
    authority.directory().agent(name).unwrap().unwrap()
}

#[test]
fn a_ticket_moves_no_agent_to_another_organisation() {
    let authority = two();
    let (ours, theirs) = (anna(&authority, OURS), anna(&authority, THEIRS));
    let mut client = Client::new();
    client.register(&authority, "builder", ticket(&authority, &ours), at(START));
    session(&client.open(&authority, Suite::HybridAesGcm, json!({}), at(START)));
    let before = row(&authority, "builder");
    assert_eq!(before.owner, ours);
    // Also by whoever reaches everything: that one looked at no agent.
    let foreign = ticket(&authority, &theirs);
    let strangers = Client::new();
    strangers.register(&authority, "stranger", foreign.clone(), at(START));
    let stranger = row(&authority, "stranger");
    assert_eq!(stranger.owner, theirs, "control: of an agent that nobody knows");
    let told = client.register(&authority, "builder", foreign, at(START));
    assert_eq!(code(&told), "INVITATION");
    let told =
        strangers.register(&authority, "stranger", ticket(&authority, &Human::local("root")), at(START));
    assert_eq!(code(&told), "INVITATION");
    assert_eq!((row(&authority, "builder"), row(&authority, "stranger")), (before.clone(), stranger));
    assert_eq!(authority.directory().sessions(&before.id).unwrap().len(), 1);
    // Control: a ticket of its own organisation approves it anew, and what it has open goes on.
    client.register(&authority, "builder", ticket(&authority, &ours), at(START));
    assert_eq!(row(&authority, "builder").version, before.version + 1);
    assert_eq!(authority.directory().sessions(&before.id).unwrap().len(), 1);
}

#[test]
fn an_agent_that_is_moved_by_somebodys_yes_has_no_session_of_where_it_was() {
    let authority = two();
    let theirs = anna(&authority, THEIRS);
    let mut client = Client::new();
    client.register(&authority, "builder", ticket(&authority, &theirs), at(START));
    let told = session(&client.open(&authority, Suite::HybridAesGcm, json!({}), at(START)));
    assert_eq!(told.org_id, "acme");
    let told = client.register(&authority, "builder", json!({}), at(START));
    let review = authority.review(&code_of(&told), at(START)).unwrap();
    let roles = ["dev".to_owned()];
    let moved = authority.approve(&review, &roles, None, Human::local("root"), at(START)).unwrap();
    assert!(authority.directory().sessions(&moved.id).unwrap().is_empty());
    let told = session(&client.open(&authority, Suite::HybridAesGcm, json!({}), at(START)));
    assert_eq!((told.org_id.as_str(), told.agent_instance_id.as_str()), ("example", moved.id.as_str()));
}

/// What a human looked at has gone to another organisation before they said yes.
#[test]
fn a_yes_to_an_agent_that_has_gone_to_another_organisation_is_none() {
    let authority = two();
    let (ours, theirs) = (anna(&authority, OURS), anna(&authority, THEIRS));
    let client = Client::new();
    client.register(&authority, "builder", ticket(&authority, &theirs), at(START));
    let asked = |again: &str| {
        let told = client.register(&authority, again, json!({}), at(START));
        authority.review(&code_of(&told), at(START)).unwrap()
    };
    let roles = ["dev".to_owned()];
    let approve = |review: &Review, by: &Human| {
        authority.approve(review, &roles, None, by.clone(), at(START)).map(|agent| agent.owner)
    };
    let seen_by_theirs = asked("builder");
    let moved = Review { before: Some(row(&authority, "builder")), ..asked("builder") };
    assert_eq!(approve(&moved, &Human::local("root")), Ok(Human::local("root")));
    let late = Review { registration: asked("builder").registration, ..seen_by_theirs };
    assert_eq!(approve(&late, &theirs), Err(Refused::Changed));
    assert_eq!(row(&authority, "builder").owner, Human::local("root"));
    // Control: whoever reaches it where it is now.
    assert_eq!(approve(&asked("builder"), &theirs), Err(Refused::NoSuchCode));
    assert_eq!(approve(&asked("builder"), &ours), Ok(ours.clone()));
}

/// An agent of the service's own asks anew, and its owner has said yes to it in a browser.
#[test]
fn nobody_of_another_organisation_denies_what_has_yet_to_come_back() {
    let settings = Settings::new(ORIGIN, "example").unwrap().with_pages();
    let settings = settings.organisation(OURS, "example").unwrap().organisation(THEIRS, "acme").unwrap();
    let authority = authority_with(settings);
    let (ours, theirs) = (anna(&authority, OURS), anna(&authority, THEIRS));
    let client = Client::new();
    client.register(&authority, "builder", ticket(&authority, &ours), at(START));
    let told =
        client.register(&authority, "builder", json!({ "flow": { "loopback": { "port": 9 } } }), at(START));
    let review = authority.review(&code_of(&told), at(START)).unwrap();
    let id = review.registration.id.clone();
    authority.confirm(&review, &["dev".to_owned()], None, &ours, at(START)).unwrap();
    assert_eq!(authority.review_named(&id, at(START)).map(drop), Err(Refused::NoSuchCode), "on no page");
    let deny = |by: &Human| authority.deny(id.clone(), true, by, at(START)).map(drop);
    assert_eq!(deny(&theirs), Err(Refused::NoSuchCode));
    // It was neither ended nor its source blocked.
    let token = Bearer::parse(told["poll_token"].as_str().unwrap()).unwrap();
    let became = || authority.poll(id.clone(), &token, at(START)).unwrap();
    assert_eq!(became(), Some(Polled::Confirming));
    assert_eq!(deny(&ours), Ok(()), "control");
    assert_eq!(became(), Some(Polled::Denied));
    assert_eq!(deny(&ours), Err(Refused::NoSuchCode), "once");
}

#[test]
fn nobody_of_another_organisation_hears_of_resource_servers_that_hold_no_session_of_theirs() {
    let authority = two();
    let (ours, theirs) = (anna(&authority, OURS), anna(&authority, THEIRS));
    let asked = || ["https://a", "https://b", "https://secret.example"].map(str::to_owned).to_vec();
    let mut client = Client::new();
    client.register(&authority, "builder", ticket(&authority, &theirs), at(START));
    let id = row(&authority, "builder").id;
    let of = |by: &Human, agents: &[AgentId], event: u64| {
        authority.reached_audiences(asked(), agents, event, by).unwrap()
    };
    let own = core::slice::from_ref(&id);
    assert_eq!(of(&theirs, own, u64::MAX), [""; 0], "it has no session yet");
    session(&client.open(&authority, Suite::HybridAesGcm, json!({}), at(START)));
    assert_eq!(of(&theirs, own, u64::MAX), ["https://a", "https://b"], "of a session that lives");
    let scope = EndScope::Agent(id.to_string());
    let event = authority.end(&scope, "test", &theirs, at(START)).unwrap().ended.event;
    assert_eq!(of(&theirs, own, event), ["https://a", "https://b"], "of one that ended with it");
    assert_eq!(of(&theirs, &[], event), [""; 0]);
    assert_eq!(of(&theirs, own, 0), [""; 0], "of what was before it");
    // Control: whoever reaches what is the service's own.
    for by in [&ours, &Human::local("root")] {
        assert_eq!(of(by, &[], event), asked(), "{by}");
    }
}
