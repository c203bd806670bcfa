//! What is kept how long, policy versions, and resource servers with their copies.

use super::*;

tests![
    what_is_over_is_forgotten_and_what_lasts_is_not,
    events_that_are_forgotten_are_missed_and_not_skipped,
    answers_are_forgotten_once_no_cookie_can_bring_them_back,
    each_policy_has_the_next_number_and_a_higher_epoch,
    a_policy_ends_the_sessions_of_those_it_takes_something_from,
    a_policy_can_be_gone_back_to_as_long_as_its_text_is_kept,
    a_policy_is_looked_at_until_another_is_or_it_is_in_force,
    a_join_code_is_good_for_one_copy_once,
    a_cursor_never_falls,
    lists_come_in_pages,
];

fn forget_all(directory: &dyn Directory, now: u64) {
    while directory.forget(now).unwrap() {}
}

fn what_is_over_is_forgotten_and_what_lasts_is_not(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    let new = new_registration(2, "waits");
    let (poll, id) = (new.poll_hash, new.id.clone());
    done(directory.register(handshake(2), new, NOW, seal(2)).unwrap());

    forget_all(directory, NOW + 899);
    assert!(half_of(directory, 100, "https://a").is_some());
    forget_all(directory, NOW + 900);
    assert!(half_of(directory, 100, "https://a").is_none(), "its time is over");
    assert!(directory.sessions(&agent.id).unwrap().is_empty());
    let session = directory.session(SessionId::from_u64(100)).unwrap().unwrap();
    assert_eq!(session.ended, Some(Ending { at: NOW + 900, reason: "expired".to_owned() }));
    assert_eq!(directory.poll(id.clone(), poll, NOW + 900).unwrap(), Some(Polled::Expired));

    forget_all(directory, NOW + 900 + 86_400);
    assert_eq!(directory.session(SessionId::from_u64(100)).unwrap(), None);
    assert_eq!(directory.poll(id, poll, NOW + 900).unwrap(), None);
    assert_eq!(directory.last_session().unwrap(), SessionId::from_u64(100), "its number never comes again");
    assert!(directory.agent("builder").unwrap().is_some());
}

fn events_that_are_forgotten_are_missed_and_not_skipped(directory: &dyn Directory) {
    for number in 0..5 {
        agent(directory, number, &format!("agent-{number}"));
    }
    assert_eq!(directory.events(3).unwrap().unwrap().len(), 2);
    assert_eq!(directory.events(5).unwrap(), Some(Vec::new()));
    forget_all(directory, NOW + EVENT_KEPT_SECS);
    assert_eq!(directory.events(4).unwrap(), None, "somebody who had got to 4 has missed one");
    assert_eq!(directory.events(5).unwrap(), Some(Vec::new()));
    assert_eq!(directory.last_event().unwrap(), 5);
    agent(directory, 9, "later");
    let seen = directory.events(5).unwrap().unwrap();
    assert_eq!(seen.iter().map(|event| event.seq).collect::<Vec<_>>(), [6]);
}

fn answers_are_forgotten_once_no_cookie_can_bring_them_back(directory: &dyn Directory) {
    let refuse = |now, number| directory.refuse(handshake(1), Refused::NoGrants, now, seal(number)).unwrap();
    assert!(matches!(refuse(NOW, 1), Carried::Now(..)));
    forget_all(directory, NOW + ANSWER_KEPT_SECS - 1);
    assert!(matches!(refuse(NOW, 2), Carried::Again(_)));
    forget_all(directory, NOW + ANSWER_KEPT_SECS);
    assert!(matches!(refuse(NOW, 3), Carried::Now(..)));
}

fn each_policy_has_the_next_number_and_a_higher_epoch(directory: &dyn Directory) {
    assert_eq!(directory.policy().unwrap(), None);
    for number in 1..4 {
        let by = Human::local("anna");
        let text = policy(&format!("digest-{number}"));
        let (version, _) =
            directory.activate_policy(text.clone(), Unharmed::new(), by.clone(), NOW).unwrap().unwrap();
        assert_eq!((version.version, version.epoch), (number, number));
        assert_eq!(directory.policy().unwrap(), Some(version));
        let again = directory.activate_policy(text, Unharmed::new(), by, NOW).unwrap();
        assert_eq!(again, Err(Refused::PolicyInForce), "it raises nothing");
    }
    let last = events(directory).pop();
    assert_eq!(last, Some(Happening::PolicyActivated { version: 3, epoch: 3 }));
}

fn a_policy_ends_the_sessions_of_those_it_takes_something_from(directory: &dyn Directory) {
    let agents = [(1, "same"), (2, "narrowed"), (3, "changed since")].map(|(number, name)| {
        let agent = agent(directory, number, name);
        open(directory, &agent, 100 + number);
        directory.agent(agent.id.as_str()).unwrap().unwrap()
    });
    let [same, narrowed, changed] = &agents;
    let unharmed = [(same.id.clone(), same.version), (changed.id.clone(), changed.version - 1)].into();
    let told = directory.activate_policy(policy("digest"), unharmed, Human::local("anna"), NOW).unwrap();
    let (version, mut ended) = told.unwrap();
    ended.sessions.sort_unstable();
    assert_eq!(ended.sessions, [102, 103].map(SessionId::from_u64));
    assert_eq!(ended.event, directory.last_event().unwrap(), "in the same step");
    for (agent, number) in [(narrowed, 110), (changed, 111)] {
        assert!(directory.sessions(&agent.id).unwrap().is_empty(), "{}", agent.wanted.name);
        assert_eq!(open(directory, agent, number).session.policy_epoch, version.epoch);
    }
    assert_eq!(directory.sessions(&same.id).unwrap().len(), 1);
    assert!(half_of(directory, 101, "https://a").is_some() && half_of(directory, 102, "https://a").is_none());
}

fn a_policy_can_be_gone_back_to_as_long_as_its_text_is_kept(directory: &dyn Directory) {
    let activate = |digest: &str| {
        directory
            .activate_policy(policy(digest), Unharmed::new(), Human::local("anna"), NOW)
            .unwrap()
            .unwrap()
            .0
            .epoch
    };
    let first = activate("digest-1");
    for number in 2..=MAX_POLICY_TEXTS {
        activate(&format!("digest-{number}"));
    }
    assert_eq!(directory.policies().unwrap().len() as u64, MAX_POLICY_TEXTS);
    assert_eq!(directory.policy_text("digest-1").unwrap(), Some(policy("digest-1")));
    assert!(activate("digest-1") > first, "going back raises the epoch");
    assert_eq!(directory.policy_text("digest-1").unwrap(), Some(policy("digest-1")), "it is in force");
    activate("digest-x");
    assert_eq!(directory.policy_text("digest-2").unwrap(), None, "too far back");
    let kept = directory.policies().unwrap();
    assert_eq!(kept.len() as u64, MAX_POLICY_TEXTS);
    assert!(kept.is_sorted_by_key(|version| version.version));
    for version in kept {
        assert!(directory.policy_text(&version.digest).unwrap().is_some(), "{}", version.digest);
    }
}

fn a_policy_is_looked_at_until_another_is_or_it_is_in_force(directory: &dyn Directory) {
    let by = || Human::local("anna");
    directory.activate_policy(policy("one"), Unharmed::new(), by(), NOW).unwrap().unwrap();
    assert_eq!(directory.observed_policy().unwrap(), None);
    assert_eq!(directory.observe_policy(Some(policy("one"))).unwrap(), Err(Refused::PolicyInForce));
    for other in ["two", "three"] {
        directory.observe_policy(Some(policy(other))).unwrap().unwrap();
        assert_eq!(directory.observed_policy().unwrap(), Some(policy(other)));
    }
    assert_eq!(directory.policy_text("two").unwrap(), None, "nobody needs it");
    let epoch =
        directory.activate_policy(policy("three"), Unharmed::new(), by(), NOW).unwrap().unwrap().0.epoch;
    assert_eq!((epoch, directory.observed_policy().unwrap()), (2, None));
    directory.observe_policy(Some(policy("one"))).unwrap().unwrap();
    directory.observe_policy(None).unwrap().unwrap();
    assert_eq!(directory.observed_policy().unwrap(), None);
    assert!(directory.policy_text("one").unwrap().is_some(), "it was in force lately");
    assert_eq!(directory.policy().unwrap().unwrap().epoch, 2, "looking raises nothing");
}

fn server(audience: &str) -> ResourceServer {
    ResourceServer { audience: audience.to_owned(), suites: vec![1, 4], added_at: NOW }
}

fn replica(number: u64, code: u8) -> NewReplica {
    NewReplica { id: ReplicaId::generate(&mut SystemRandom), identity: key(number), code_hash: [code; 32] }
}

fn join(directory: &dyn Directory, number: u64, new: NewReplica, now: u64) -> Carried<Replica> {
    directory.join(handshake(number), new, now, seal(number)).unwrap()
}

fn a_join_code_is_good_for_one_copy_once(directory: &dyn Directory) {
    directory.add_resource_server(server("https://a"), [5; 32], NOW + 900).unwrap().unwrap();
    directory.add_resource_server(server("https://a"), [6; 32], NOW + 900).unwrap().unwrap();
    assert_eq!(directory.resource_servers().unwrap(), [server("https://a")]);
    assert_eq!(refused(join(directory, 1, replica(1, 9), NOW)), Refused::JoinCode);
    assert_eq!(refused(join(directory, 2, replica(1, 5), NOW + 900)), Refused::JoinCode, "too late");
    let joined = done(join(directory, 3, replica(1, 5), NOW));
    assert_eq!((joined.audience.as_str(), joined.cursor), ("https://a", 0));
    assert_eq!(refused(join(directory, 4, replica(2, 5), NOW)), Refused::JoinCode, "used");
    assert_eq!(refused(join(directory, 5, replica(1, 6), NOW)), Refused::KeyInUse);
    agent(directory, 7, "builder");
    assert_eq!(refused(join(directory, 6, replica(7, 6), NOW)), Refused::KeyInUse, "an agent's");
    assert_eq!(directory.replica(key(1)).unwrap(), Some(joined.clone()));
    assert_eq!(directory.replica(key(2)).unwrap(), None);
    assert_eq!(directory.replicas().unwrap(), [joined]);
}

fn a_cursor_never_falls(directory: &dyn Directory) {
    directory.add_resource_server(server("https://a"), [5; 32], NOW + 900).unwrap().unwrap();
    let joined = done(join(directory, 1, replica(1, 5), NOW));
    for (cursor, expected) in [(5, 5), (3, 5), (9, 9)] {
        directory.acknowledge(&joined.id, cursor, NOW + cursor).unwrap();
        assert_eq!(directory.replica(key(1)).unwrap().unwrap().cursor, expected);
    }
    let unknown = ReplicaId::generate(&mut SystemRandom);
    directory.acknowledge(&unknown, 1, NOW).unwrap();
    assert_eq!(directory.replicas().unwrap().len(), 1);
}

fn lists_come_in_pages(directory: &dyn Directory) {
    let made: Vec<_> =
        (0..20).map(|number| agent(directory, number, &format!("agent-{number}")).id).collect();
    let mut seen = Vec::new();
    loop {
        let page = directory.agents(seen.last()).unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|agent| agent.id).take(7));
    }
    let mut made = made;
    made.sort();
    assert_eq!(seen, made);
}
