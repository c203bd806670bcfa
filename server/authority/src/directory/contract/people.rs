//! Humans: what is known of them, and what follows for their agents.

use std::collections::BTreeSet;

use super::*;

tests![
    what_is_known_of_a_human_is_kept_as_it_was_said_last,
    nobody_gives_a_role_that_they_do_not_have,
    the_agents_of_a_human_end_and_those_of_others_go_on,
    whoever_is_disabled_answers_for_nothing_until_a_later_login,
    the_sessions_of_a_human_end_and_the_agents_may_open_others,
    more_agents_than_one_transaction_ends_are_ended_by_the_next,
    who_loses_a_role_has_the_sessions_ended_that_follow_from_it_and_no_others,
    an_agent_that_changes_hands_is_not_ended_with_its_first_owner,
    a_yes_in_a_browser_makes_no_agent_until_it_came_back,
    who_guesses_what_came_back_has_three_tries_and_no_other_has_any,
    a_yes_that_does_not_come_back_in_time_is_none,
];

fn human(name: &str) -> Human {
    Human { issuer: "https://idp.example".to_owned(), subject: name.to_owned() }
}

fn person(name: &str, roles: &[&str], at: u64) -> Person {
    Person {
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        login_at: at,
        known_at: at,
        ..Person::unknown(human(name))
    }
}

fn know(directory: &dyn Directory, person: Person) -> Result<Ended, Refused> {
    let now = person.known_at;
    directory.know_person(person, now).unwrap()
}

/// Registers a key under a name, approved by this human.
fn agent_of(directory: &dyn Directory, owner: &str, number: u64, roles: &[&str]) -> Result<Agent, Refused> {
    let new = new_registration(number, &format!("agent-{number}"));
    let carried = directory.register(handshake(1 << 32 | number), new, NOW, seal(number)).unwrap();
    let Registered::Waits(id) = done(carried) else { panic!("nobody was invited") };
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    directory.approve(Approval { by: human(owner), roles, ..approval(&id, owner) }, NOW).unwrap()
}

fn end(directory: &dyn Directory, owner: &str, how: OwnerEnd) -> Ended {
    let scope = EndScope::Owner(human(owner), how);
    directory.end(scope, "because".to_owned(), Human::local("anna"), NOW).unwrap().unwrap()
}

fn status(directory: &dyn Directory, agent: &Agent) -> AgentStatus {
    directory.agent(agent.id.as_str()).unwrap().unwrap().status
}

fn what_is_known_of_a_human_is_kept_as_it_was_said_last(directory: &dyn Directory) {
    assert!(directory.person(&human("anna")).unwrap().is_none());
    know(directory, person("anna", &["dev"], NOW)).unwrap();
    know(directory, person("anna", &["dev", "ops"], NOW + 1)).unwrap();
    let known = directory.person(&human("anna")).unwrap().unwrap();
    assert_eq!((known.roles.len(), known.known_at), (2, NOW + 1));
    assert!(directory.person(&human("bert")).unwrap().is_none());
    let elsewhere = Human { issuer: "https://other.example".to_owned(), ..human("anna") };
    assert!(directory.person(&elsewhere).unwrap().is_none(), "another issuer's is another human");
}

fn nobody_gives_a_role_that_they_do_not_have(directory: &dyn Directory) {
    assert_eq!(agent_of(directory, "anna", 1, &["dev"]).unwrap_err(), Refused::ApprovalDenied, "unknown");
    know(directory, person("anna", &["dev"], NOW)).unwrap();
    assert_eq!(agent_of(directory, "anna", 2, &["dev", "ops"]).unwrap_err(), Refused::ApprovalDenied);
    assert_eq!(agent_of(directory, "anna", 3, &["dev"]).unwrap().owner, human("anna"));
}

fn the_agents_of_a_human_end_and_those_of_others_go_on(directory: &dyn Directory) {
    for name in ["anna", "bert"] {
        know(directory, person(name, &["dev"], NOW)).unwrap();
    }
    let (one, two) = (
        agent_of(directory, "anna", 1, &["dev"]).unwrap(),
        agent_of(directory, "anna", 2, &["dev"]).unwrap(),
    );
    let other = agent_of(directory, "bert", 3, &["dev"]).unwrap();
    for (agent, number) in [(&one, 100), (&two, 101), (&other, 102)] {
        open(directory, agent, number);
    }
    let ended = end(directory, "anna", OwnerEnd::Suspend);
    let agents: BTreeSet<_> = ended.agents.iter().collect();
    assert_eq!(agents, BTreeSet::from([&one.id, &two.id]));
    assert_eq!((ended.sessions.len(), ended.more), (2, false));
    assert_eq!(ended.event, directory.last_event().unwrap());
    assert_eq!(
        (status(directory, &one), status(directory, &other)),
        (AgentStatus::Suspended, AgentStatus::Active)
    );
    assert!(half_of(directory, 100, "https://a").is_none() && half_of(directory, 102, "https://a").is_some());
    assert!(end(directory, "anna", OwnerEnd::Suspend).agents.is_empty(), "again it finds nothing");
    end(directory, "bert", OwnerEnd::Revoke);
    assert_eq!(status(directory, &other), AgentStatus::Revoked);
    assert!(end(directory, "nobody", OwnerEnd::Suspend).agents.is_empty());
}

fn whoever_is_disabled_answers_for_nothing_until_a_later_login(directory: &dyn Directory) {
    know(directory, person("anna", &["dev"], NOW - 10)).unwrap();
    end(directory, "anna", OwnerEnd::Suspend);
    assert_eq!(agent_of(directory, "anna", 1, &["dev"]).unwrap_err(), Refused::ApprovalDenied);
    let earlier = Person { known_at: NOW + 5, ..person("anna", &["dev"], NOW) };
    assert_eq!(know(directory, earlier).unwrap_err(), Refused::OwnerDisabled, "a login from before the end");
    know(directory, person("anna", &["dev"], NOW + 1)).unwrap();
    agent_of(directory, "anna", 2, &["dev"]).unwrap();
    let unknown = end(directory, "carl", OwnerEnd::Suspend);
    assert!(unknown.agents.is_empty());
    let carl = directory.person(&human("carl")).unwrap().unwrap();
    assert_eq!(carl.status, PersonStatus::Disabled, "also before they ever logged in");
}

fn the_sessions_of_a_human_end_and_the_agents_may_open_others(directory: &dyn Directory) {
    know(directory, person("anna", &["dev"], NOW)).unwrap();
    let one = agent_of(directory, "anna", 1, &["dev"]).unwrap();
    let planned = plan(&one, 99, epoch(directory));
    open(directory, &one, 100);
    let ended = end(directory, "anna", OwnerEnd::Sessions);
    assert_eq!((ended.agents, ended.sessions.len()), (vec![one.id.clone()], 1));
    assert_eq!(status(directory, &one), AgentStatus::Active);
    let stale = directory.open_session(handshake(99), planned, NOW, seal(1)).unwrap();
    assert_eq!(stale, Carried::Stale, "what was decided before is decided anew");
    open(directory, &one, 101);
    assert!(end(directory, "bert", OwnerEnd::Sessions).sessions.is_empty());
}

fn more_agents_than_one_transaction_ends_are_ended_by_the_next(directory: &dyn Directory) {
    let ticket = [5; 32];
    let invitation = Invitation { max_agents: 150, approval_secs: MONTH, ..invitation(human("anna")) };
    directory.invite(ticket, invitation).unwrap().unwrap();
    for number in 0..150 {
        let new = NewRegistration {
            ticket_hash: Some(ticket),
            ..new_registration(number, &format!("agent-{number}"))
        };
        let carried = directory.register(handshake(1 << 32 | number), new, NOW, seal(number)).unwrap();
        assert!(matches!(done(carried), Registered::Active(_)));
    }
    let first = end(directory, "anna", OwnerEnd::Suspend);
    let second = end(directory, "anna", OwnerEnd::Suspend);
    assert_eq!((first.agents.len(), first.more), (100, true));
    assert_eq!((second.agents.len(), second.more), (50, false));
}

fn who_loses_a_role_has_the_sessions_ended_that_follow_from_it_and_no_others(directory: &dyn Directory) {
    know(directory, person("anna", &["dev", "ops"], NOW)).unwrap();
    let one = agent_of(directory, "anna", 1, &["dev"]).unwrap();
    let two = agent_of(directory, "anna", 2, &["dev", "ops"]).unwrap();
    open(directory, &one, 100);
    open(directory, &two, 101);
    let ended = know(directory, person("anna", &["dev"], NOW + 1)).unwrap();
    assert_eq!((ended.agents, ended.sessions), (vec![two.id], vec![SessionId::from_u64(101)]));
    let again = know(directory, person("anna", &["dev"], NOW + 2)).unwrap();
    assert!(again.sessions.is_empty());
    assert!(know(directory, person("anna", &["dev", "ops"], NOW + 3)).unwrap().sessions.is_empty(), "gains");
}

fn an_agent_that_changes_hands_is_not_ended_with_its_first_owner(directory: &dyn Directory) {
    for name in ["anna", "bert"] {
        know(directory, person(name, &["dev"], NOW)).unwrap();
    }
    let one = agent_of(directory, "anna", 1, &["dev"]).unwrap();
    let carried = directory.register(handshake(7), new_registration(1, "agent-1"), NOW, seal(1)).unwrap();
    let Registered::Waits(id) = done(carried) else { panic!("nobody was invited") };
    let yes = Approval { by: human("bert"), reached: Some(human("anna")), ..approval(&id, "bert") };
    directory.approve(yes, NOW).unwrap().unwrap();
    assert!(end(directory, "anna", OwnerEnd::Suspend).agents.is_empty());
    assert_eq!(end(directory, "bert", OwnerEnd::Suspend).agents, [one.id]);
}

const SHOWN: [u8; 32] = [0x51; 32];

/// A registration by code that Anna said yes to; and the hash of its poll token.
fn confirmed(directory: &dyn Directory) -> (Registration, [u8; 32]) {
    know(directory, person("anna", &["dev"], NOW)).unwrap();
    let new = NewRegistration { flow: Flow::Code, ..new_registration(1, "builder") };
    let (poll_hash, code_hash) = (new.poll_hash, new.code_hash);
    let Registered::Waits(id) = done(directory.register(handshake(1), new, NOW, seal(1)).unwrap()) else {
        panic!("nobody was invited")
    };
    assert_eq!(directory.registration_named(&id, NOW).unwrap().unwrap().flow, Flow::Code);
    let asked = directory.complete(id.clone(), poll_hash, SHOWN, None, NOW).unwrap();
    assert_eq!(asked.unwrap_err(), Refused::PendingApproval, "before anybody said yes");
    let yes = Approval { by: human("anna"), ..approval(&id, "anna") };
    let registration = directory.confirm(yes, SHOWN, NOW).unwrap().unwrap();
    assert!(directory.registration(code_hash, NOW).unwrap().is_none(), "its code finds it no more");
    assert!(directory.registration_named(&id, NOW).unwrap().is_none(), "nor does its name");
    (registration, poll_hash)
}

fn a_yes_in_a_browser_makes_no_agent_until_it_came_back(directory: &dyn Directory) {
    let (registration, poll_hash) = confirmed(directory);
    let id = registration.id;
    assert!(!matches!(directory.standing(key(1), NOW).unwrap(), KeyStanding::Agent(_)));
    assert_eq!(directory.poll(id.clone(), poll_hash, NOW).unwrap(), Some(Polled::Confirming));
    let other = directory.complete(id.clone(), [1; 32], SHOWN, None, NOW).unwrap();
    assert_eq!(other.unwrap_err(), Refused::NoSuchCode, "of whoever has not asked for it");
    let agent = directory.complete(id.clone(), poll_hash, SHOWN, None, NOW).unwrap().unwrap();
    assert_eq!((agent.flow.as_str(), &agent.owner), ("code", &human("anna")));
    assert!(matches!(directory.poll(id.clone(), poll_hash, NOW).unwrap(), Some(Polled::Approved { .. })));
    let again = directory.complete(id, poll_hash, SHOWN, None, NOW).unwrap();
    assert_eq!(again.unwrap_err(), Refused::PendingApproval, "once");
}

fn who_guesses_what_came_back_has_three_tries_and_no_other_has_any(directory: &dyn Directory) {
    let (registration, poll_hash) = confirmed(directory);
    for left in [2, 1, 0] {
        let guess = directory.complete(registration.id.clone(), poll_hash, [left; 32], None, NOW).unwrap();
        assert_eq!(guess.unwrap_err(), Refused::WrongCode(left));
    }
    let late = directory.complete(registration.id.clone(), poll_hash, SHOWN, None, NOW).unwrap();
    assert_eq!(late.unwrap_err(), Refused::PendingApproval);
    assert_eq!(directory.poll(registration.id, poll_hash, NOW).unwrap(), Some(Polled::Denied));
}

fn a_yes_that_does_not_come_back_in_time_is_none(directory: &dyn Directory) {
    let (registration, poll_hash) = confirmed(directory);
    let later = registration.expires_at;
    let late = directory.complete(registration.id.clone(), poll_hash, SHOWN, None, later).unwrap();
    assert_eq!(late.unwrap_err(), Refused::NoSuchCode);
    assert_eq!(directory.poll(registration.id, poll_hash, later).unwrap(), Some(Polled::Expired));
}
