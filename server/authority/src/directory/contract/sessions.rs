//! Sessions: opened once for each handshake, by what is true at that moment, with all that belongs to them.

use super::*;

tests![
    a_session_is_there_with_its_halves_and_its_event,
    a_repeated_third_message_gets_the_same_answer_and_opens_nothing,
    another_third_message_for_the_same_cookie_gets_none,
    a_refusal_is_answered_once_too,
    a_session_is_not_opened_by_what_is_true_no_more,
    numbers_of_sessions_only_rise,
    a_value_that_does_not_fit_shows_a_copy_of_the_key,
    a_copy_can_be_made_to_end_both,
    an_agent_has_so_many_sessions_and_the_oldest_ends,
    the_same_handshake_at_once_from_many_opens_one_session,
    the_live_sessions_of_all_agents_are_told_in_pages,
];

fn a_session_is_there_with_its_halves_and_its_event(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    let opened = open(directory, &agent, 100);
    assert!(!opened.clone_suspected && opened.superseded.is_empty());
    assert_eq!(directory.session(SessionId::from_u64(100)).unwrap().unwrap(), opened.session);
    assert_eq!(directory.sessions(&agent.id).unwrap(), [opened.session]);
    assert_eq!(directory.last_session().unwrap(), SessionId::from_u64(100));
    for (audience, tool) in [("https://a", "search"), ("https://b", "pay")] {
        let half = half_of(directory, 100, audience).unwrap();
        assert_eq!((half.keys.aud.as_str(), half.session_id), (audience, SessionId::from_u64(100)));
        let tools: Vec<_> = half.grants.unwrap().into_iter().map(|grant| grant.tool).collect();
        assert_eq!(tools, [tool]);
    }
    assert!(half_of(directory, 100, "https://c").is_none() && half_of(directory, 99, "https://a").is_none());
    assert_eq!(
        events(directory)[1],
        Happening::SessionOpen {
            session: SessionId::from_u64(100),
            agent: agent.id,
            audiences: vec!["https://a".to_owned(), "https://b".to_owned()],
        }
    );
}

fn a_repeated_third_message_gets_the_same_answer_and_opens_nothing(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    let first = directory.open_session(handshake(5), plan(&agent, 100, 0), NOW, seal(1)).unwrap();
    let Carried::Now(Ok(_), reply) = first else { panic!("{first:?}") };
    let again = directory.open_session(handshake(5), plan(&agent, 101, 0), NOW + 29, seal(2)).unwrap();
    assert_eq!(again, Carried::Again(reply.clone()));
    // For any purpose, and also by the way of a refusal.
    let other = directory.refuse(handshake(5), Refused::NoGrants, NOW + 29, seal(3)).unwrap();
    assert_eq!(other, Carried::Again(reply));
    assert_eq!(directory.sessions(&agent.id).unwrap().len(), 1);
    assert_eq!(events(directory).len(), 2);
}

fn another_third_message_for_the_same_cookie_gets_none(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    let other = Handshake { hash: HandshakeHash([0xEE; 32]), ..handshake(100) };
    let answered = directory.open_session(other, plan(&agent, 101, 0), NOW, seal(2)).unwrap();
    assert_eq!(answered, Carried::Used);
    assert_eq!(directory.sessions(&agent.id).unwrap().len(), 1);
}

fn a_refusal_is_answered_once_too(directory: &dyn Directory) {
    let Carried::Now(Err(Refused::NotRegistered), reply) =
        directory.refuse(handshake(1), Refused::NotRegistered, NOW, seal(1)).unwrap()
    else {
        panic!("it was refused");
    };
    assert_eq!(reply, b"1 NOT_REGISTERED");
    // Meanwhile the agent was approved: the same message still gets the old answer.
    let agent = agent(directory, 1, "builder");
    let later = directory.open_session(handshake(1), plan(&agent, 100, 0), NOW, seal(2)).unwrap();
    assert_eq!(later, Carried::Again(reply));
}

fn a_session_is_not_opened_by_what_is_true_no_more(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    let try_open = |plan| directory.open_session(handshake(5), plan, NOW, seal(1)).unwrap();
    let by = || Human::local("anna");
    let old_agent = SessionPlan { agent_version: agent.version - 1, ..plan(&agent, 100, 0) };
    assert_eq!(try_open(old_agent), Carried::Stale);
    assert_eq!(
        directory.activate_policy(policy("digest"), Unharmed::new(), by(), NOW).unwrap().unwrap().0.epoch,
        1
    );
    assert_eq!(try_open(plan(&agent, 100, 0)), Carried::Stale, "of an older policy");
    directory.end(EndScope::Tool("pay".into()), "stop".into(), by(), NOW).unwrap().unwrap();
    assert_eq!(try_open(plan(&agent, 100, 1)), Carried::Stale, "with a tool that was denied");
    directory.enable_tool("pay", NOW).unwrap().unwrap();
    assert!(directory.sessions(&agent.id).unwrap().is_empty());
    done(try_open(plan(&agent, 100, 1)));
    // What says no by itself is a refusal, not a reason to try again.
    directory.end(EndScope::Agent("builder".into()), "stop".into(), by(), NOW).unwrap().unwrap();
    let suspended = directory.open_session(handshake(6), plan(&agent, 101, 1), NOW, seal(1)).unwrap();
    assert_eq!(refused(suspended), Refused::Suspended);
    directory.enable_agent("builder", NOW).unwrap().unwrap();
    let late = directory.open_session(handshake(7), plan(&agent, 101, 1), NOW + MONTH, seal(1)).unwrap();
    assert_eq!(refused(late), Refused::ApprovalExpired);
}

fn numbers_of_sessions_only_rise(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    for number in [100, 99, 1] {
        let plan = plan(&agent, number, 0);
        let carried = directory.open_session(handshake(number + 500), plan, NOW, seal(1)).unwrap();
        assert_eq!(carried, Carried::Stale, "{number}");
    }
}

fn present(directory: &dyn Directory, agent: &Agent, number: u64, values: &[[u8; 32]]) -> Carried<Opened> {
    let agent = directory.agent(agent.id.as_str()).unwrap().unwrap();
    let plan = SessionPlan { presented: values.to_vec(), ..plan(&agent, number, 0) };
    directory.open_session(handshake(number), plan, NOW, seal(number)).unwrap()
}

fn a_value_that_does_not_fit_shows_a_copy_of_the_key(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    let left = |number: u64| key(number ^ 0xCC).0;
    let suspected =
        |values: &[[u8; 32]], number| done(present(directory, &agent, number, values)).clone_suspected;
    assert!(!suspected(&[], 100), "the first session has nothing to present");
    assert!(!suspected(&[left(100)], 101));
    assert!(!suspected(&[left(100), [0; 32], left(101)], 102), "any of them may fit");
    assert!(suspected(&[left(100)], 103), "an old value");
    assert!(suspected(&[], 104), "none");
    assert!(directory.agent("builder").unwrap().unwrap().clone_suspected);
    let events = events(directory);
    let alarms = events.iter().filter(|what| matches!(what, Happening::CloneSuspected { .. }));
    assert_eq!(alarms.count(), 2);
}

fn a_copy_can_be_made_to_end_both(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    let now = directory.agent("builder").unwrap().unwrap();
    let forked = SessionPlan { clones: ClonePolicy::Suspend, ..plan(&now, 101, 0) };
    let carried = directory.open_session(handshake(101), forked, NOW, seal(1)).unwrap();
    assert_eq!(refused(carried), Refused::Suspended);
    assert!(directory.sessions(&agent.id).unwrap().is_empty(), "the other copy's session has ended");
    assert!(half_of(directory, 100, "https://a").is_none());
    let standing = directory.agent("builder").unwrap().unwrap();
    assert_eq!(standing.status, AgentStatus::Suspended);
    let rightful = SessionPlan { presented: now.chain.into_iter().collect(), ..plan(&standing, 102, 0) };
    let carried = directory.open_session(handshake(102), rightful, NOW, seal(1)).unwrap();
    assert_eq!(refused(carried), Refused::Suspended, "neither gets another");
}

fn an_agent_has_so_many_sessions_and_the_oldest_ends(directory: &dyn Directory) {
    let (one, two) = (agent(directory, 1, "builder"), agent(directory, 2, "other"));
    open(directory, &two, 50);
    let most = MAX_LIVE_SESSIONS as u64;
    for number in 100..100 + most {
        assert!(open(directory, &one, number).superseded.is_empty());
    }
    let opened = open(directory, &one, 100 + most);
    assert_eq!(opened.superseded, [SessionId::from_u64(100)]);
    assert_eq!(directory.sessions(&one.id).unwrap().len(), MAX_LIVE_SESSIONS);
    assert_eq!(directory.sessions(&two.id).unwrap().len(), 1, "another's are left alone");
    assert!(directory.session(SessionId::from_u64(100)).unwrap().unwrap().ended.is_some());
    assert!(half_of(directory, 100, "https://a").is_none());
}

fn the_same_handshake_at_once_from_many_opens_one_session(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..16)
            .map(|number| {
                let agent = &agent;
                scope.spawn(move || {
                    let plan = plan(agent, 100 + number, 0);
                    directory.open_session(handshake(5), plan, NOW, seal(number)).unwrap()
                })
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    let replies: Vec<_> = answers
        .iter()
        .map(|carried| match carried {
            Carried::Now(Ok(_), reply) | Carried::Again(reply) => reply.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(answers.iter().filter(|carried| matches!(carried, Carried::Now(..))).count(), 1);
    assert_eq!(directory.sessions(&agent.id).unwrap().len(), 1);
}

fn the_live_sessions_of_all_agents_are_told_in_pages(directory: &dyn Directory) {
    let agents: Vec<_> = (1..=3).map(|number| agent(directory, number, &format!("agent-{number}"))).collect();
    for number in 100..112_u64 {
        open(directory, &agents[usize::try_from(number % 3).unwrap()], number);
    }
    let by = Human::local("anna");
    directory.end(EndScope::Session(SessionId::from_u64(105)), "stop".into(), by, NOW).unwrap().unwrap();
    let (mut told, mut after) = (Vec::new(), None);
    loop {
        let place = after.as_ref().map(|(agent, session)| (agent, *session));
        let page = directory.live_sessions(place, 4).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        after = Some((last.agent.clone(), last.id));
        told.extend(page);
    }
    let mut numbers: Vec<u64> = told.iter().map(|row| row.id.as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (100..112).filter(|number| *number != 105).collect::<Vec<_>>());
    let mut runs: Vec<_> = told.iter().map(|row| row.agent.clone()).collect();
    runs.dedup();
    assert_eq!(runs.len(), 3, "those of one agent stand beside each other");
}
