//! Registrations: what waits, who decides, and how much of it there may be.

use super::*;

tests![
    an_approved_registration_is_an_agent_and_its_maker_hears_so,
    a_denied_registration_is_none_and_its_source_can_be_blocked,
    nobody_approves_what_is_over_or_decided,
    the_same_key_again_takes_the_place_of_its_earlier_registration,
    a_source_and_all_sources_together_have_so_many_places,
    a_name_belongs_to_one_agent,
    a_key_that_has_an_agent_renews_its_approval,
    a_human_approves_so_many_an_hour,
    an_invitation_admits_as_many_as_it_says_and_no_others,
    two_registrations_never_share_a_code,
    those_that_wait_are_listed_and_no_others,
];

fn register(directory: &dyn Directory, number: u64, new: NewRegistration, now: u64) -> Carried<Registered> {
    directory.register(handshake(number), new, now, seal(number)).unwrap()
}

fn waits(carried: Carried<Registered>) -> RegistrationId {
    match done(carried) {
        Registered::Waits(id) => id,
        Registered::Active(agent) => panic!("{agent:?}"),
    }
}

fn an_approved_registration_is_an_agent_and_its_maker_hears_so(directory: &dyn Directory) {
    let new = new_registration(1, "builder");
    let (poll, code) = (new.poll_hash, new.code_hash);
    let id = waits(register(directory, 1, new, NOW));
    assert_eq!(directory.poll(id.clone(), poll, NOW).unwrap(), Some(Polled::Pending));
    assert_eq!(directory.poll(id.clone(), [0; 32], NOW).unwrap(), None, "another's token");
    assert_eq!(directory.standing(key(1), NOW).unwrap(), KeyStanding::Pending);
    assert_eq!(directory.registration(code, NOW).unwrap().unwrap().id, id);

    let agent = directory.approve(approval(&id, "anna"), NOW + 5).unwrap().unwrap();
    assert_eq!((agent.status, agent.expires_at), (AgentStatus::Active, NOW + 5 + MONTH));
    assert_eq!((agent.owner.to_string().as_str(), agent.flow.as_str()), ("local:anna", "local"));
    let heard = directory.poll(id, poll, NOW + 5).unwrap().unwrap();
    assert_eq!(heard, Polled::Approved { agent: agent.id.clone(), expires_at: agent.expires_at });
    assert_eq!(directory.registration(code, NOW + 5).unwrap(), None, "a code is good once");
    assert_eq!(directory.agent("builder").unwrap().unwrap(), agent);
    assert_eq!(directory.agent(agent.id.as_str()).unwrap().unwrap(), agent);
    assert_eq!(directory.standing(key(1), NOW + 5).unwrap(), KeyStanding::Agent(Box::new(agent.clone())));
    assert_eq!(events(directory), [Happening::AgentApproved { agent: agent.id }]);
}

fn a_denied_registration_is_none_and_its_source_can_be_blocked(directory: &dyn Directory) {
    let new = new_registration(1, "builder");
    let (poll, source) = (new.poll_hash, new.source.clone());
    let id = waits(register(directory, 1, new, NOW));
    directory.deny(id.clone(), 3_600, NOW).unwrap().unwrap();
    assert_eq!(directory.poll(id.clone(), poll, NOW).unwrap(), Some(Polled::Denied));
    assert_eq!(directory.approve(approval(&id, "anna"), NOW).unwrap().unwrap_err(), Refused::NoSuchCode);
    assert_eq!(directory.standing(key(1), NOW).unwrap(), KeyStanding::Unknown);
    let again = |number| NewRegistration { source: source.clone(), ..new_registration(number, "x") };
    assert_eq!(refused(register(directory, 2, again(2), NOW + 3_599)), Refused::TooManyPending);
    waits(register(directory, 3, again(3), NOW + 3_600));
    assert!(events(directory).is_empty());
}

fn nobody_approves_what_is_over_or_decided(directory: &dyn Directory) {
    let new = new_registration(1, "builder");
    let (poll, code) = (new.poll_hash, new.code_hash);
    let id = waits(register(directory, 1, new, NOW));
    let over = NOW + PENDING_SECS;
    assert!(directory.registration(code, over - 1).unwrap().is_some());
    assert_eq!(directory.registration(code, over).unwrap(), None);
    assert_eq!(directory.approve(approval(&id, "anna"), over).unwrap().unwrap_err(), Refused::NoSuchCode);
    assert_eq!(directory.poll(id.clone(), poll, over).unwrap(), Some(Polled::Expired));
    assert_eq!(directory.standing(key(1), over).unwrap(), KeyStanding::Unknown);

    let unknown = RegistrationId::generate(&mut SystemRandom);
    assert_eq!(directory.approve(approval(&unknown, "anna"), NOW).unwrap().unwrap_err(), Refused::NoSuchCode);
    directory.approve(approval(&id, "anna"), NOW).unwrap().unwrap();
    assert_eq!(directory.approve(approval(&id, "anna"), NOW).unwrap().unwrap_err(), Refused::NoSuchCode);
    assert_eq!(directory.deny(id, 0, NOW).unwrap().unwrap_err(), Refused::NoSuchCode);
}

fn the_same_key_again_takes_the_place_of_its_earlier_registration(directory: &dyn Directory) {
    let first = new_registration(1, "builder");
    let code = first.code_hash;
    waits(register(directory, 1, first, NOW));
    for number in 2..20 {
        let again = NewRegistration { code_hash: key(number).0, ..new_registration(1, "builder") };
        waits(register(directory, number, again, NOW));
    }
    assert_eq!(directory.registration(code, NOW).unwrap(), None);
    assert!(directory.registration(key(19).0, NOW).unwrap().is_some());
}

fn a_source_and_all_sources_together_have_so_many_places(directory: &dyn Directory) {
    let from = |number: u64| NewRegistration { source: "192.0.2.1".into(), ..new_registration(number, "x") };
    for number in 0..MAX_PENDING_PER_SOURCE as u64 {
        waits(register(directory, number, from(number), NOW));
    }
    assert_eq!(refused(register(directory, 100, from(100), NOW)), Refused::TooManyPending);
    // From a source whose name begins like the other's.
    let near = NewRegistration { source: "192.0.2.10".into(), ..new_registration(101, "x") };
    waits(register(directory, 101, near, NOW));
    // Those whose time is over count no more.
    waits(register(directory, 102, from(102), NOW + PENDING_SECS));
    directory.forget(NOW + PENDING_SECS).unwrap();
    waits(register(directory, 103, from(103), NOW + PENDING_SECS));
}

fn a_name_belongs_to_one_agent(directory: &dyn Directory) {
    let one = agent(directory, 1, "builder");
    let id = waits(register(directory, 2, new_registration(2, "builder"), NOW));
    assert_eq!(directory.approve(approval(&id, "bert"), NOW).unwrap().unwrap_err(), Refused::NameTaken);
    // A name is free again once its agent has ended for good, and its key is not.
    let by = Human::local("anna");
    directory.end(EndScope::Revoke("builder".into()), "gone".into(), by, NOW).unwrap().unwrap();
    let two = directory.approve(approval(&id, "bert"), NOW).unwrap().unwrap();
    assert_ne!(one.id, two.id);
    assert_eq!(directory.agent("builder").unwrap().unwrap().id, two.id);
    assert_eq!(directory.agents(None).unwrap().len(), 2, "who was revoked stays on the list");
    let again = register(directory, 3, new_registration(1, "other"), NOW);
    assert_eq!(refused(again), Refused::Revoked);
}

fn a_key_that_has_an_agent_renews_its_approval(directory: &dyn Directory) {
    let before = agent(directory, 1, "builder");
    let later = NOW + MONTH;
    assert!(before.is_expired(later) && !before.is_expired(later - 1));
    let new = NewRegistration { code_hash: key(50).0, ..new_registration(1, "renamed") };
    let id = waits(register(directory, 2, new, later));
    let shown = directory.registration(key(50).0, later).unwrap().unwrap();
    assert_eq!(shown.renews, Some(before.id.clone()));
    assert!(matches!(directory.standing(key(1), later).unwrap(), KeyStanding::Agent(_)));
    let reached = Some(before.owner.clone());
    let after = directory.approve(Approval { reached, ..approval(&id, "anna") }, later).unwrap().unwrap();
    assert_eq!((&after.id, after.registered_at), (&before.id, NOW));
    assert!(after.version > before.version && after.expires_at == later + MONTH);
    assert_eq!(directory.agent("builder").unwrap(), None, "the old name is free");
    assert_eq!(directory.agent("renamed").unwrap().unwrap().id, before.id);
    assert_eq!(directory.agents(None).unwrap().len(), 1);
}

fn a_human_approves_so_many_an_hour(directory: &dyn Directory) {
    let wait = |number: u64, now| {
        waits(register(directory, number, new_registration(number, &format!("agent-{number}")), now))
    };
    for number in 0..MAX_APPROVALS_PER_HOUR as u64 {
        directory.approve(approval(&wait(number, NOW), "anna"), NOW).unwrap().unwrap();
    }
    let id = wait(100, NOW);
    let refused = directory.approve(approval(&id, "anna"), NOW).unwrap().unwrap_err();
    assert_eq!(refused, Refused::TooManyApprovals);
    directory.approve(approval(&id, "bert"), NOW).unwrap().unwrap();
    let later = NOW + 3_601;
    directory.approve(approval(&wait(101, later), "anna"), later).unwrap().unwrap();
}

fn an_invitation_admits_as_many_as_it_says_and_no_others(directory: &dyn Directory) {
    let invitation =
        Invitation { roles: vec!["ci".into()], max_agents: 2, ..invitation(Human::local("anna")) };
    directory.invite([5; 32], invitation).unwrap().unwrap();
    let new = |number: u64, hash| NewRegistration {
        ticket_hash: Some(hash),
        ..new_registration(number, &format!("agent-{number}"))
    };
    assert_eq!(refused(register(directory, 1, new(1, [6; 32]), NOW)), Refused::Invitation);
    let of_another_class =
        NewRegistration { wanted: Wanted { class: "admin".into(), ..wanted("x") }, ..new(2, [5; 32]) };
    assert_eq!(refused(register(directory, 2, of_another_class, NOW)), Refused::Invitation);
    assert_eq!(refused(register(directory, 3, new(3, [5; 32]), NOW + 100)), Refused::Invitation, "too late");
    for number in [4, 5] {
        let Registered::Active(agent) = done(register(directory, number, new(number, [5; 32]), NOW)) else {
            panic!("it was invited");
        };
        assert_eq!((agent.roles.as_slice(), agent.expires_at), (&["ci".to_owned()][..], NOW + 500));
        assert_eq!((agent.owner.clone(), agent.flow.as_str()), (Human::local("anna"), "invite"));
    }
    assert_eq!(refused(register(directory, 6, new(6, [5; 32]), NOW)), Refused::Invitation, "used up");
}

fn two_registrations_never_share_a_code(directory: &dyn Directory) {
    let new = |number| NewRegistration { code_hash: [3; 32], ..new_registration(number, "x") };
    waits(register(directory, 1, new(1), NOW));
    assert_eq!(register(directory, 2, new(2), NOW), Carried::Stale);
    // It was not carried out, so the same handshake may be tried with another code.
    let other = NewRegistration { code_hash: [4; 32], ..new(2) };
    waits(register(directory, 2, other, NOW));
}

fn those_that_wait_are_listed_and_no_others(directory: &dyn Directory) {
    let from = |number: u64, now| {
        let source = format!("192.0.2.{number}");
        let new = NewRegistration { source, ..new_registration(number, &format!("agent-{number}")) };
        waits(register(directory, number, new, now))
    };
    assert_eq!(directory.waiting(NOW, None).unwrap(), []);
    let ids: Vec<_> = (1..=4).map(|number| from(number, NOW + number)).collect();
    directory.approve(approval(&ids[1], "anna"), NOW + 5).unwrap().unwrap();
    directory.deny(ids[2].clone(), 0, NOW + 5).unwrap().unwrap();
    let waiting = |now| -> Vec<_> {
        directory.waiting(now, None).unwrap().into_iter().map(|registration| registration.id).collect()
    };
    assert_eq!(waiting(NOW + 5), [ids[0].clone(), ids[3].clone()]);
    assert_eq!(waiting(NOW + PENDING_SECS + 1), [ids[3].clone()], "the first one's time is over");
    while directory.forget(NOW + PENDING_SECS + 1).unwrap() {}
    assert_eq!(waiting(NOW + PENDING_SECS + 3), [ids[3].clone()]);
    assert_eq!(waiting(NOW + PENDING_SECS + 4), []);
}
