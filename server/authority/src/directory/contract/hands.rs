//! Agents that are approved anew: whose yes counts, and what ends where another answers for the agent from then on.

use super::*;

tests![
    a_yes_counts_only_for_an_agent_of_whom_it_was_found_to_be_reached,
    a_yes_that_comes_back_counts_only_while_the_agent_is_still_of_the_same,
    neither_a_ticket_nor_a_word_takes_an_agent_of_whom_it_was_not_found_to_be_beside,
    an_agent_that_changes_hands_begins_anew_and_one_that_does_not_goes_on,
    a_registration_makes_nothing_of_a_key_that_became_somebody_elses,
    a_registration_makes_nothing_of_a_key_that_was_replaced,
    what_may_still_become_an_agent_is_found_also_between_yes_and_return,
];

const SHOWN: [u8; 32] = [0x51; 32];

fn register(directory: &dyn Directory, step: u64, new: NewRegistration) -> Carried<Registered> {
    directory.register(handshake(step), new, NOW, seal(step)).unwrap()
}

fn waits(directory: &dyn Directory, step: u64, new: NewRegistration) -> RegistrationId {
    match done(register(directory, step, new)) {
        Registered::Waits(id) => id,
        Registered::Active(agent) => panic!("{agent:?}"),
    }
}

/// The key of an agent asks again.
fn again(number: u64, step: u64) -> NewRegistration {
    NewRegistration { code_hash: key(step).0, flow: Flow::Code, ..new_registration(number, "builder") }
}

fn yes(id: &RegistrationId, by: &str, reached: Option<&str>) -> Approval {
    Approval { reached: reached.map(Human::local), ..approval(id, by) }
}

fn row(directory: &dyn Directory, agent: &Agent) -> Agent {
    directory.agent(agent.id.as_str()).unwrap().unwrap()
}

/// An agent of `human-1`.
fn builder(directory: &dyn Directory) -> Agent {
    agent(directory, 1, "builder")
}

fn a_yes_counts_only_for_an_agent_of_whom_it_was_found_to_be_reached(directory: &dyn Directory) {
    let before = builder(directory);
    let id = waits(directory, 2, again(1, 50));
    for reached in [None, Some("anna"), Some("human-2")] {
        let refused = directory.approve(yes(&id, "anna", reached), NOW).unwrap();
        assert_eq!(refused, Err(Refused::Changed), "{reached:?}");
        let refused = directory.confirm(yes(&id, "anna", reached), SHOWN, NOW).unwrap();
        assert_eq!(refused.map(drop), Err(Refused::Changed), "{reached:?}");
    }
    assert_eq!(row(directory, &before), before);
    let after = directory.approve(yes(&id, "anna", Some("human-1")), NOW).unwrap().unwrap();
    assert_eq!((after.id, after.owner), (before.id, Human::local("anna")), "control");
}

fn a_yes_that_comes_back_counts_only_while_the_agent_is_still_of_the_same(directory: &dyn Directory) {
    let before = builder(directory);
    let new = again(1, 50);
    let poll = new.poll_hash;
    let id = waits(directory, 2, new);
    directory.confirm(yes(&id, "anna", Some("human-1")), SHOWN, NOW).unwrap().unwrap();
    for reached in [None, Some(Human::local("human-2"))] {
        let refused = directory.complete(id.clone(), poll, SHOWN, reached, NOW).unwrap();
        assert_eq!(refused, Err(Refused::Changed));
    }
    assert_eq!(row(directory, &before), before);
    let reached = Some(Human::local("human-1"));
    let after = directory.complete(id, poll, SHOWN, reached, NOW).unwrap().unwrap();
    assert_eq!((after.id, after.owner), (before.id, Human::local("anna")), "control");
}

fn neither_a_ticket_nor_a_word_takes_an_agent_of_whom_it_was_not_found_to_be_beside(
    directory: &dyn Directory,
) {
    let before = builder(directory);
    let by = Human::local("anna");
    let invitation = invitation(by.clone());
    directory.invite([5; 32], invitation.clone()).unwrap().unwrap();
    assert_eq!(directory.invitation([5; 32]).unwrap(), Some(invitation));
    assert_eq!(directory.invitation([6; 32]).unwrap(), None);
    let word = Attested {
        issuer: "https://ci".into(),
        subject: "builder".into(),
        jti: "1".into(),
        replayable_until: NOW + 100,
        owner: by,
        roles: vec!["dev".into()],
        secs: 500,
    };
    let with = |step, is_ticket: bool, reached: Option<&str>| NewRegistration {
        ticket_hash: is_ticket.then_some([5; 32]),
        attested: (!is_ticket).then(|| word.clone()),
        reached: reached.map(Human::local),
        ..again(1, step)
    };
    for (step, reached) in [(10, None), (11, Some("anna"))] {
        assert_eq!(refused(register(directory, step, with(step, true, reached))), Refused::Invitation);
        let refused = refused(register(directory, 10 + step, with(step, false, reached)));
        assert!(matches!(refused, Refused::Assertion(_)), "{refused}");
    }
    assert_eq!(row(directory, &before), before);
    // Control, and neither was spent by being refused.
    let by_ticket = done(register(directory, 30, with(30, true, Some("human-1"))));
    let Registered::Active(after) = by_ticket else { panic!("it was invited") };
    assert_eq!((&after.id, &after.owner), (&before.id, &Human::local("anna")));
    let by_word = done(register(directory, 31, with(31, false, Some("anna"))));
    assert!(matches!(by_word, Registered::Active(after) if after.id == before.id));
}

fn an_agent_that_changes_hands_begins_anew_and_one_that_does_not_goes_on(directory: &dyn Directory) {
    let before = builder(directory);
    open(directory, &before, 100);
    open(directory, &before, 101);
    let stale = plan(&row(directory, &before), 102, 0);
    let id = waits(directory, 2, again(1, 50));
    directory.approve(yes(&id, "human-1", Some("human-1")), NOW).unwrap().unwrap();
    assert_eq!(directory.sessions(&before.id).unwrap().len(), 2, "control: it is whose it was");
    let id = waits(directory, 3, again(1, 51));
    let from = directory.last_event().unwrap();
    let after = directory.approve(yes(&id, "anna", Some("human-1")), NOW).unwrap().unwrap();
    assert_eq!(after.id, before.id);
    assert!(directory.sessions(&before.id).unwrap().is_empty());
    assert!(half_of(directory, 100, "https://a").is_none() && half_of(directory, 101, "https://b").is_none());
    let told: Vec<_> = directory.events(from).unwrap().unwrap().into_iter().map(|event| event.what).collect();
    let ends = told.iter().filter(|what| matches!(what, Happening::SessionEnd { .. })).count();
    assert!(ends == 2 && matches!(told.last(), Some(Happening::AgentApproved { .. })), "{told:?}");
    // One that was decided on before is none; the next is.
    let late = directory.open_session(handshake(102), stale, NOW, seal(102)).unwrap();
    assert_eq!(late, Carried::Stale);
    open(directory, &after, 103);
}

fn a_registration_makes_nothing_of_a_key_that_became_somebody_elses(directory: &dyn Directory) {
    let id = waits(directory, 2, new_registration(1, "other"));
    // Meanwhile the same key is registered by a ticket, under another name.
    directory.invite([5; 32], invitation(Human::local("bert"))).unwrap().unwrap();
    let new = NewRegistration { ticket_hash: Some([5; 32]), ..again(1, 50) };
    let Registered::Active(theirs) = done(register(directory, 3, new)) else { panic!("it was invited") };
    for reached in [None, Some("bert")] {
        let refused = directory.approve(yes(&id, "anna", reached), NOW).unwrap();
        assert_eq!(refused, Err(Refused::Changed), "{reached:?}");
    }
    assert_eq!(directory.agents(None).unwrap(), [*theirs]);
    // Control: once it asks anew, that is what is renewed.
    let id = waits(directory, 4, again(1, 51));
    directory.approve(yes(&id, "anna", Some("bert")), NOW).unwrap().unwrap();
}

fn a_registration_makes_nothing_of_a_key_that_was_replaced(directory: &dyn Directory) {
    let before = builder(directory);
    let id = waits(directory, 2, again(1, 50));
    let (first, step) = (handshake(60), RotateStep::Name(key(9)));
    done(directory.rotate_key(first, key(1), step, NOW, seal(60)).unwrap());
    let prove = RotateStep::Prove(first.hash);
    done(directory.rotate_key(handshake(61), key(9), prove, NOW, seal(61)).unwrap());
    let refused = directory.approve(yes(&id, "human-1", Some("human-1")), NOW).unwrap();
    assert_eq!(refused, Err(Refused::Revoked));
    assert_eq!(row(directory, &before).identity, key(9));
    // Control: by its own key it is approved anew.
    let id = waits(directory, 3, again(9, 51));
    directory.approve(yes(&id, "human-1", Some("human-1")), NOW).unwrap().unwrap();
}

fn what_may_still_become_an_agent_is_found_also_between_yes_and_return(directory: &dyn Directory) {
    let id = waits(directory, 2, again(1, 50));
    let found = |now| directory.open_registration(&id, now).unwrap().map(|found| found.state);
    assert_eq!(found(NOW), Some(RegistrationState::Pending));
    directory.confirm(yes(&id, "anna", None), SHOWN, NOW).unwrap().unwrap();
    assert!(directory.registration_named(&id, NOW).unwrap().is_none());
    assert!(matches!(found(NOW), Some(RegistrationState::Confirming(_))));
    assert_eq!(found(NOW + PENDING_SECS), None, "its time is over");
    directory.deny(id.clone(), 0, NOW).unwrap().unwrap();
    assert_eq!(found(NOW), None, "and it was decided");
}
