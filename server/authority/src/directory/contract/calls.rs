//! A human's yes to calls: how many may be asked for, what a word does, and what an agent's end leaves of it.

use super::*;

tests![
    a_request_is_decided_once_and_told_with_its_event,
    nobody_decides_after_five_minutes_and_all_is_forgotten_in_the_end,
    one_agent_asks_as_often_an_hour_as_is_said,
    what_it_was_decided_by_must_still_hold,
    an_agents_end_takes_back_what_was_approved,
    what_waits_comes_in_pages_and_none_twice,
];

fn new(agent: &Agent, number: u64, directory: &dyn Directory) -> NewCallApproval {
    let identity = obol_session::AgentIdentity {
        agent_instance_id: agent.id.to_string(),
        iss: "https://as".to_owned(),
        sub: "key".to_owned(),
    };
    let scope = grant("pay", "https://b").scope(&identity, "org");
    let mut txn_id = [0; 16];
    txn_id[..8].copy_from_slice(&number.to_be_bytes());
    let call = AskedCall {
        offer: "small".to_owned(),
        scope,
        arguments: None,
        uses: vec![CallUse { txn_id, digest: [1; 32] }],
    };
    let approval = CallApproval {
        id: ApprovalId::generate(&mut SystemRandom),
        agent: agent.id.clone(),
        purpose: None,
        calls: vec![call],
        lifetime_secs: 60,
        created_at: NOW,
        expires_at: NOW + ASKED_SECS,
        state: CallState::Waiting,
        poll_hash: [2; 32],
    };
    let epoch = directory.policy().unwrap().map_or(0, |policy| policy.epoch);
    NewCallApproval { approval, decided_by: (agent.version, epoch), per_hour: 3 }
}

fn ask(directory: &dyn Directory, agent: &Agent, number: u64, now: u64) -> Carried<CallApproval> {
    let mut new = new(agent, number, directory);
    (new.approval.created_at, new.approval.expires_at) = (now, now + ASKED_SECS);
    directory.ask_approval(handshake(number), new, now, seal(number)).unwrap()
}

fn decision(approval: &CallApproval, agent: &Agent, approve: bool) -> CallDecision {
    CallDecision {
        id: approval.id.clone(),
        by: Human::local("anna"),
        approve,
        decided_by: (agent.version, 0),
    }
}

fn standing(directory: &dyn Directory, approval: &CallApproval, now: u64) -> CallStanding {
    directory.call_approval(&approval.id).unwrap().unwrap().standing(now)
}

fn a_request_is_decided_once_and_told_with_its_event(directory: &dyn Directory) {
    let one = agent(directory, 1, "builder");
    let [yes, no] = [10, 11].map(|number| done(ask(directory, &one, number, NOW)));
    assert_eq!(directory.waiting_calls(NOW, None, 9).unwrap().len(), 2);
    let before = directory.last_event().unwrap();
    let given = directory.decide_calls(decision(&yes, &one, true), NOW + 1).unwrap().unwrap();
    let CallState::Approved { event, at, .. } = given.state else { panic!("{given:?}") };
    assert_eq!((event, at), (before + 1, NOW + 1));
    let events = directory.events(before).unwrap().unwrap();
    let told = Happening::CallsDecided {
        approval: yes.id.clone(),
        agent: one.id.clone(),
        audiences: vec!["https://b".to_owned()],
    };
    assert_eq!(events.iter().map(|event| &event.what).collect::<Vec<_>>(), [&told]);
    directory.decide_calls(decision(&no, &one, false), NOW + 1).unwrap().unwrap();
    for approval in [&yes, &no] {
        let again = directory.decide_calls(decision(approval, &one, true), NOW + 2).unwrap();
        assert_eq!(again, Err(Refused::NoSuchApproval), "a word is said once");
    }
    let approved = CallStanding::Approved { confirmed_at: NOW + 1, expires_at: NOW + 61 };
    assert_eq!(standing(directory, &yes, NOW + 60), approved);
    assert_eq!(standing(directory, &yes, NOW + 61), CallStanding::Expired);
    assert_eq!(standing(directory, &no, NOW + 61), CallStanding::Denied);
    assert!(directory.waiting_calls(NOW, None, 9).unwrap().is_empty());
}

fn nobody_decides_after_five_minutes_and_all_is_forgotten_in_the_end(directory: &dyn Directory) {
    let one = agent(directory, 1, "builder");
    let late = done(ask(directory, &one, 10, NOW));
    let end = NOW + ASKED_SECS;
    assert_eq!(standing(directory, &late, end), CallStanding::Expired);
    let decided = directory.decide_calls(decision(&late, &one, true), end).unwrap();
    assert_eq!(decided, Err(Refused::NoSuchApproval));
    while directory.forget(NOW + 7_200).unwrap() {}
    assert_eq!(directory.call_approval(&late.id).unwrap(), None);
}

fn one_agent_asks_as_often_an_hour_as_is_said(directory: &dyn Directory) {
    let [one, other] = [(1, "builder"), (2, "other")].map(|(number, name)| agent(directory, number, name));
    for number in 10..13 {
        done(ask(directory, &one, number, NOW));
    }
    assert_eq!(refused(ask(directory, &one, 13, NOW)), Refused::TooManyAsked);
    done(ask(directory, &other, 14, NOW));
    done(ask(directory, &one, 15, NOW + 3_601));
}

fn what_it_was_decided_by_must_still_hold(directory: &dyn Directory) {
    let one = agent(directory, 1, "builder");
    let asked = done(ask(directory, &one, 10, NOW));
    let older = Agent { version: one.version - 1, ..one.clone() };
    assert!(matches!(ask(directory, &older, 11, NOW), Carried::Stale));
    let word = directory.decide_calls(decision(&asked, &older, true), NOW).unwrap();
    assert!(matches!(word, Err(Refused::Unavailable(_))), "{word:?}");
    directory
        .end(EndScope::Tool("pay".to_owned()), "test".to_owned(), Human::local("anna"), NOW)
        .unwrap()
        .unwrap();
    assert!(matches!(ask(directory, &one, 12, NOW), Carried::Stale));
    let word = directory.decide_calls(decision(&asked, &one, true), NOW).unwrap();
    assert!(matches!(word, Err(Refused::Unavailable(_))), "{word:?}");
    // A no needs nothing to hold.
    directory.decide_calls(decision(&asked, &older, false), NOW).unwrap().unwrap();
}

fn an_agents_end_takes_back_what_was_approved(directory: &dyn Directory) {
    let one = agent(directory, 1, "builder");
    let [yes, waiting] = [10, 11].map(|number| done(ask(directory, &one, number, NOW)));
    directory.decide_calls(decision(&yes, &one, true), NOW).unwrap().unwrap();
    let before = directory.last_event().unwrap();
    let scope = EndScope::Agent("builder".to_owned());
    directory.end(scope, "test".to_owned(), Human::local("anna"), NOW).unwrap().unwrap();
    for approval in [&yes, &waiting] {
        assert_eq!(standing(directory, approval, NOW), CallStanding::Expired);
    }
    let events = directory.events(before).unwrap().unwrap();
    let told = events.iter().filter(|event| matches!(&event.what, Happening::CallsDecided { .. })).count();
    assert_eq!(told, 2);
    assert_eq!(refused(ask(directory, &one, 12, NOW)), Refused::Suspended);
    let word = directory.decide_calls(decision(&waiting, &one, true), NOW).unwrap();
    assert_eq!(word, Err(Refused::NoSuchApproval));
}

fn what_waits_comes_in_pages_and_none_twice(directory: &dyn Directory) {
    let asked: Vec<_> = (0..5)
        .map(|number| {
            let one = agent(directory, number, &format!("agent-{number}"));
            done(ask(directory, &one, 10 + number, NOW + number % 2)).id
        })
        .collect();
    let (mut behind, mut seen) = (None, Vec::new());
    loop {
        let page = directory.waiting_calls(NOW + 1, behind.as_ref(), 2).unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        behind = Some((last.expires_at, last.id.clone()));
        seen.extend(page.into_iter().map(|approval| (approval.expires_at, approval.id)));
    }
    assert!(seen.is_sorted_by_key(|(expires_at, _)| *expires_at), "{seen:?}");
    assert_eq!(seen.len(), 5, "each once: {seen:?}");
    assert!(asked.iter().all(|id| seen.iter().any(|(_, other)| other == id)));
    // What is over is in no page, wherever that begins.
    let over = directory.waiting_calls(NOW + ASKED_SECS, Some(&(NOW, asked[0].clone())), 9).unwrap();
    assert_eq!(over.len(), 2, "those that were asked for a second later");
}
