//! Ending things, replacing keys, and that nothing that has ended comes back.

use super::*;

tests![
    a_disabled_agent_opens_nothing_and_what_it_had_has_ended,
    an_enabled_agent_opens_sessions_again_and_what_was_ended_stays_ended,
    a_revoked_agent_never_returns_and_neither_does_its_key,
    one_session_ends_and_the_others_go_on,
    a_denied_tool_ends_the_sessions_that_grant_it,
    what_is_not_there_is_not_ended,
    a_key_is_replaced_in_two_steps_and_the_old_one_ends,
    a_key_that_nobody_named_replaces_none,
    an_agent_leaves_by_itself,
    whoever_starts_over_trusts_nothing_that_may_have_ended_meanwhile,
];

fn end(directory: &dyn Directory, scope: EndScope) -> Result<Ended, Refused> {
    directory.end(scope, "because".to_owned(), Human::local("anna"), NOW).unwrap()
}

fn a_disabled_agent_opens_nothing_and_what_it_had_has_ended(directory: &dyn Directory) {
    let (one, two) = (agent(directory, 1, "builder"), agent(directory, 2, "other"));
    open(directory, &one, 100);
    open(directory, &one, 101);
    open(directory, &two, 102);
    let before = events(directory).len();
    let ended = end(directory, EndScope::Agent("builder".into())).unwrap();
    assert_eq!(ended.agents, core::slice::from_ref(&one.id));
    assert_eq!(ended.sessions, [SessionId::from_u64(100), SessionId::from_u64(101)]);
    assert_eq!(ended.event, directory.last_event().unwrap());
    for number in [100, 101] {
        let session = directory.session(SessionId::from_u64(number)).unwrap().unwrap();
        assert_eq!(session.ended, Some(Ending { at: NOW, reason: "because".to_owned() }));
        assert!(half_of(directory, number, "https://a").is_none(), "its keys are gone");
    }
    assert!(half_of(directory, 102, "https://a").is_some());
    let told = &events(directory)[before..];
    assert!(
        matches!(told[0], Happening::SessionEnd { session, .. } if session == SessionId::from_u64(100)),
        "{told:?}"
    );
    assert!(
        matches!(told[1], Happening::SessionEnd { session, .. } if session == SessionId::from_u64(101)),
        "{told:?}"
    );
    assert!(matches!(&told[2], Happening::AgentEnd { agent, revoked: false, .. } if *agent == one.id));
    let KeyStanding::Agent(now) = directory.standing(key(1), NOW).unwrap() else { panic!("it is known") };
    assert_eq!(now.status, AgentStatus::Suspended);
    let again = directory.register(handshake(9), new_registration(1, "builder"), NOW, seal(1)).unwrap();
    assert_eq!(refused(again), Refused::Suspended, "registering anew does not help");
}

fn an_enabled_agent_opens_sessions_again_and_what_was_ended_stays_ended(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    end(directory, EndScope::Agent(agent.id.to_string())).unwrap();
    assert!(directory.enable_agent("builder", NOW).unwrap().is_ok());
    assert!(directory.session(SessionId::from_u64(100)).unwrap().unwrap().ended.is_some());
    assert!(half_of(directory, 100, "https://a").is_none());
    assert!(!open(directory, &agent, 101).clone_suspected);
    assert!(directory.enable_agent("builder", NOW).unwrap().is_ok(), "who is enabled stays so");
    assert_eq!(directory.sessions(&agent.id).unwrap().len(), 1);
}

fn a_revoked_agent_never_returns_and_neither_does_its_key(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    end(directory, EndScope::Revoke("builder".into())).unwrap();
    let id = agent.id.as_str();
    assert_eq!(directory.enable_agent(id, NOW).unwrap().unwrap_err(), Refused::Revoked);
    assert_eq!(end(directory, EndScope::Agent(id.into())).unwrap_err(), Refused::Revoked);
    assert!(half_of(directory, 100, "https://a").is_none());
    directory.forget(NOW + 10 * 365 * 86_400).unwrap();
    let again = new_registration(1, "builder");
    let carried = directory.register(handshake(9), again, NOW + 10 * 365 * 86_400, seal(1)).unwrap();
    assert_eq!(refused(carried), Refused::Revoked);
}

fn one_session_ends_and_the_others_go_on(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    open(directory, &agent, 101);
    let ended = end(directory, EndScope::Session(SessionId::from_u64(100))).unwrap();
    assert_eq!((ended.agents.len(), ended.sessions.as_slice()), (0, &[SessionId::from_u64(100)][..]));
    assert_eq!(directory.sessions(&agent.id).unwrap().len(), 1);
    assert_eq!(
        end(directory, EndScope::Session(SessionId::from_u64(100))).unwrap_err(),
        Refused::Unknown("live session")
    );
}

fn a_denied_tool_ends_the_sessions_that_grant_it(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    let mut without = plan(&directory.agent("builder").unwrap().unwrap(), 101, 0);
    without.row.tools = vec!["search".to_owned()];
    without.presented = directory.agent("builder").unwrap().unwrap().chain.into_iter().collect();
    done(directory.open_session(handshake(101), without, NOW, seal(1)).unwrap());
    let ended = end(directory, EndScope::Tool("pay".into())).unwrap();
    assert_eq!((ended.sessions.as_slice(), ended.more), (&[SessionId::from_u64(100)][..], false));
    assert_eq!(directory.denied_tools().unwrap()[0].tool, "pay");
    assert!(
        end(directory, EndScope::Tool("pay".into())).unwrap().sessions.is_empty(),
        "again changes nothing"
    );
    assert_eq!(directory.denied_tools().unwrap().len(), 1);
    directory.enable_tool("pay", NOW).unwrap().unwrap();
    assert_eq!(directory.enable_tool("pay", NOW).unwrap().unwrap_err(), Refused::Unknown("denied tool"));
    // A tool that nobody is granted yet can be denied as well.
    assert!(end(directory, EndScope::Tool("fly".into())).unwrap().sessions.is_empty());
}

fn what_is_not_there_is_not_ended(directory: &dyn Directory) {
    agent(directory, 1, "builder");
    let before = events(directory);
    for name in ["nobody", "", "agt_aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        assert_eq!(end(directory, EndScope::Agent(name.into())).unwrap_err(), Refused::Unknown("agent"));
        assert_eq!(directory.enable_agent(name, NOW).unwrap().unwrap_err(), Refused::Unknown("agent"));
    }
    assert!(end(directory, EndScope::Session(SessionId::from_u64(1))).is_err());
    assert_eq!(events(directory), before);
}

fn rotate(directory: &dyn Directory, at: u64, by: u64, step: RotateStep, number: u64) -> Carried<AgentId> {
    directory.rotate_key(handshake(number), key(by), step, at, seal(number)).unwrap()
}

fn a_key_is_replaced_in_two_steps_and_the_old_one_ends(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    done(rotate(directory, NOW, 1, RotateStep::Name(key(2)), 11));
    assert_eq!(directory.standing(key(2), NOW).unwrap(), KeyStanding::Unknown, "it has yet to prove itself");
    let prove = RotateStep::Prove(handshake(11).hash);
    assert_eq!(done(rotate(directory, NOW, 2, prove.clone(), 12)), agent.id);
    let end = NOW + KEY_OVERLAP_SECS;
    assert!(matches!(directory.standing(key(2), end).unwrap(), KeyStanding::Agent(_)));
    assert!(
        matches!(directory.standing(key(1), end - 1).unwrap(), KeyStanding::Agent(_)),
        "both hold a while"
    );
    assert_eq!(directory.standing(key(1), end).unwrap(), KeyStanding::Retired);
    // The old key does nothing that lasts, not even while it holds.
    assert_eq!(refused(rotate(directory, NOW, 1, RotateStep::Name(key(3)), 13)), Refused::Revoked);
    let again = directory.register(handshake(14), new_registration(1, "x"), NOW, seal(1)).unwrap();
    assert_eq!(refused(again), Refused::Revoked);
    assert!(matches!(refused(rotate(directory, NOW, 2, prove, 15)), Refused::Unknown(_)), "it is good once");
}

fn a_key_that_nobody_named_replaces_none(directory: &dyn Directory) {
    agent(directory, 1, "builder");
    agent(directory, 2, "other");
    assert_eq!(refused(rotate(directory, NOW, 9, RotateStep::Name(key(3)), 11)), Refused::NotRegistered);
    assert_eq!(refused(rotate(directory, NOW, 1, RotateStep::Name(key(2)), 12)), Refused::KeyInUse);
    done(rotate(directory, NOW, 1, RotateStep::Name(key(3)), 13));
    let prove = || RotateStep::Prove(handshake(13).hash);
    for (by, step, at, number) in [
        (4, prove(), NOW, 14),
        (3, RotateStep::Prove(handshake(99).hash), NOW, 15),
        (3, prove(), NOW + KEY_OVERLAP_SECS, 16),
    ] {
        assert!(matches!(refused(rotate(directory, at, by, step, number)), Refused::Unknown(_)), "{number}");
    }
    // Naming another takes the first one's place.
    done(rotate(directory, NOW, 1, RotateStep::Name(key(5)), 17));
    assert!(matches!(refused(rotate(directory, NOW, 3, prove(), 18)), Refused::Unknown(_)));
    // An agent that was disabled meanwhile stays as it is.
    end(directory, EndScope::Agent("builder".into())).unwrap();
    let named = RotateStep::Prove(handshake(17).hash);
    assert!(matches!(refused(rotate(directory, NOW, 5, named, 19)), Refused::Unknown(_)));
}

fn an_agent_leaves_by_itself(directory: &dyn Directory) {
    let agent = agent(directory, 1, "builder");
    open(directory, &agent, 100);
    let leave = |by: u64, number: u64| {
        directory.deregister(handshake(number), key(by), NOW, seal::<Ended>(number)).unwrap()
    };
    assert_eq!(refused(leave(9, 11)), Refused::NotRegistered);
    let ended = done(leave(1, 12));
    assert_eq!((ended.agents, ended.sessions), (vec![agent.id.clone()], vec![SessionId::from_u64(100)]));
    assert_eq!(refused(leave(1, 13)), Refused::Revoked);
    assert_eq!(directory.agent(agent.id.as_str()).unwrap().unwrap().status, AgentStatus::Revoked);
}

fn whoever_starts_over_trusts_nothing_that_may_have_ended_meanwhile(directory: &dyn Directory) {
    let (one, two) = (agent(directory, 1, "builder"), agent(directory, 2, "other"));
    open(directory, &one, 100);
    open(directory, &two, 101);
    end(directory, EndScope::Revoke("other".into())).unwrap();
    let invitation = invitation(Human::local("anna"));
    directory.invite([5; 32], invitation).unwrap().unwrap();
    let over = directory.start_over([9; 16], NOW + 5).unwrap();
    assert_eq!(
        (over.known_until, over.agents, over.sessions),
        (NOW, vec![one.id.clone()], vec![SessionId::from_u64(100)])
    );
    assert_eq!(directory.incarnation([1; 16]).unwrap(), [9; 16]);
    let known = directory.agent("builder").unwrap().unwrap();
    assert_eq!(known.status, AgentStatus::Suspended);
    assert!(half_of(directory, 100, "https://a").is_none(), "its keys are gone");
    let new = NewRegistration { ticket_hash: Some([5; 32]), ..new_registration(3, "ci") };
    let invited = directory.register(handshake(3), new, NOW + 6, seal(3)).unwrap();
    assert!(
        matches!(invited, Carried::Now(Err(_), _)),
        "a ticket that may have been used is used: {invited:?}"
    );
    directory.enable_agent("builder", NOW + 6).unwrap().unwrap();
    let known = directory.agent("builder").unwrap().unwrap();
    open(directory, &known, 102);
}
