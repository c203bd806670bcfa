//! What is said from outside about a human: its effect and that it was heard are one, and it has it once.

use super::*;

tests![
    what_is_done_to_a_human_is_done_to_all_of_their_agents_and_to_nobody_elses,
    who_is_suspended_invites_nobody_any_more,
    a_security_event_has_its_effect_once_in_thirty_days,
    a_security_event_about_one_session_or_agent_leaves_the_others,
    nobody_is_reached_under_the_name_of_another_issuer,
    a_human_of_many_agents_is_ended_in_steps_and_heard_with_the_last,
];

const ISSUER: &str = "https://idp.example";

fn anna() -> Human {
    Human::local("anna")
}

/// An agent that this human approved.
fn agent_by(directory: &dyn Directory, number: u64, name: &str, by: &str) -> Agent {
    // Approvals of one human within an hour are few.
    let then = NOW + number * 3_600;
    let new = new_registration(number, name);
    let carried = directory.register(handshake(1 << 33 | number), new, then, seal(number)).unwrap();
    let Registered::Waits(id) = done(carried) else { panic!("nobody was invited") };
    directory.approve(approval(&id, by), then).unwrap().unwrap()
}

fn heard(jti: &str, subject: Option<Subject>, deed: Option<OwnerEnd>) -> HeardSet {
    HeardSet {
        issuer: ISSUER.to_owned(),
        jti: jti.to_owned(),
        replayable_until: NOW + 1_200,
        subject,
        deed,
        reason: "account-disabled".to_owned(),
    }
}

fn whole(human: Human) -> Option<Subject> {
    Some(Subject { human, agent: None, session: None })
}

fn status(directory: &dyn Directory, agent: &Agent) -> AgentStatus {
    directory.agent(agent.id.as_str()).unwrap().unwrap().status
}

fn what_is_done_to_a_human_is_done_to_all_of_their_agents_and_to_nobody_elses(directory: &dyn Directory) {
    let (one, two) = (agent_by(directory, 1, "one", "anna"), agent_by(directory, 2, "two", "anna"));
    let other = agent_by(directory, 3, "other", "anna2");
    for (agent, number) in [(&one, 100), (&two, 101), (&other, 102)] {
        open(directory, agent, number);
    }
    let end = |deed| {
        directory.end(EndScope::Owner(anna(), deed), "because".to_owned(), Human::local("op"), NOW).unwrap()
    };
    let ended = end(OwnerEnd::Sessions).unwrap();
    assert_eq!((ended.agents.len(), ended.sessions.len()), (2, 2));
    assert_eq!(status(directory, &one), AgentStatus::Active, "they may open others");
    assert_eq!(end(OwnerEnd::Sessions).unwrap().sessions, [], "nothing is left");
    open(directory, &one, 103);
    let ended = end(OwnerEnd::Suspend).unwrap();
    assert_eq!((ended.agents.len(), ended.sessions.len()), (2, 1));
    assert!(end(OwnerEnd::Suspend).unwrap().agents.is_empty(), "once is enough");
    assert_eq!(status(directory, &two), AgentStatus::Suspended);
    assert_eq!(end(OwnerEnd::Revoke).unwrap().agents.len(), 2);
    assert_eq!(status(directory, &two), AgentStatus::Revoked);
    assert!(end(OwnerEnd::Revoke).unwrap().agents.is_empty());
    assert_eq!(status(directory, &other), AgentStatus::Active);
    assert!(half_of(directory, 102, "https://a").is_some() && half_of(directory, 103, "https://a").is_none());
}

fn who_is_suspended_invites_nobody_any_more(directory: &dyn Directory) {
    let invitation = Invitation { max_agents: 2, ..invitation(anna()) };
    directory.invite([5; 32], invitation).unwrap().unwrap();
    let mut new = new_registration(1, "one");
    new.ticket_hash = Some([5; 32]);
    assert!(matches!(
        done(directory.register(handshake(1), new, NOW, seal(1)).unwrap()),
        Registered::Active(_)
    ));
    let set = heard("1", whole(anna()), Some(OwnerEnd::Suspend));
    assert!(
        matches!(directory.take_set(set, NOW).unwrap(), TakenSet::Done(ended) if ended.agents.len() == 1)
    );
    let mut late = new_registration(2, "two");
    late.ticket_hash = Some([5; 32]);
    let carried = directory.register(handshake(2), late, NOW, seal(2)).unwrap();
    assert_eq!(refused(carried), Refused::Invitation);
}

fn a_security_event_has_its_effect_once_in_thirty_days(directory: &dyn Directory) {
    let agent = agent_by(directory, 1, "one", "anna");
    open(directory, &agent, 100);
    let set = || heard("a", whole(anna()), Some(OwnerEnd::Sessions));
    let TakenSet::Done(ended) = directory.take_set(set(), NOW).unwrap() else { panic!("it is new") };
    assert_eq!((ended.sessions.len(), ended.event), (1, directory.last_event().unwrap()));
    open(directory, &agent, 101);
    let last = NOW + SET_KEPT_SECS - 1;
    directory.forget(last).unwrap();
    assert_eq!(directory.take_set(set(), last).unwrap(), TakenSet::Again);
    assert!(directory.session(SessionId::from_u64(101)).unwrap().is_some());
    // The same name from somebody else is another event.
    let other = HeardSet { issuer: "https://other.example".to_owned(), ..set() };
    assert!(matches!(directory.take_set(other, NOW).unwrap(), TakenSet::Done(_)));
    directory.forget(NOW + SET_KEPT_SECS).unwrap();
    assert!(matches!(directory.take_set(set(), NOW).unwrap(), TakenSet::Done(_)), "forgotten");
}

fn a_security_event_about_one_session_or_agent_leaves_the_others(directory: &dyn Directory) {
    let (one, two) = (agent_by(directory, 1, "one", "anna"), agent_by(directory, 2, "two", "anna"));
    let others = agent_by(directory, 3, "other", "bert");
    for (agent, number) in [(&one, 100), (&one, 101), (&two, 102), (&others, 103)] {
        open(directory, agent, number);
    }
    let about = |session: Option<u64>, agent: Option<&Agent>| {
        let session = session.map(SessionId::from_u64);
        Some(Subject { human: anna(), agent: agent.map(|agent| agent.id.clone()), session })
    };
    let take = |jti: &str, subject, deed| directory.take_set(heard(jti, subject, Some(deed)), NOW).unwrap();
    let TakenSet::Done(ended) = take("1", about(Some(100), None), OwnerEnd::Sessions) else { panic!() };
    assert_eq!(ended.sessions, [SessionId::from_u64(100)]);
    assert_eq!(take("2", about(Some(103), None), OwnerEnd::Sessions), TakenSet::Unknown, "it is bert's");
    assert_eq!(take("3", about(Some(102), Some(&one)), OwnerEnd::Sessions), TakenSet::Unknown, "it is two's");
    assert_eq!(take("4", about(None, Some(&others)), OwnerEnd::Revoke), TakenSet::Unknown);
    assert!(matches!(take("5", about(None, Some(&two)), OwnerEnd::Suspend), TakenSet::Done(_)));
    assert_eq!(status(directory, &two), AgentStatus::Suspended);
    assert_eq!(status(directory, &one), AgentStatus::Active);
    assert_eq!(directory.sessions(&one.id).unwrap().len(), 1);
    assert_eq!(directory.sessions(&others.id).unwrap().len(), 1);
}

fn nobody_is_reached_under_the_name_of_another_issuer(directory: &dyn Directory) {
    let agent = agent_by(directory, 1, "one", "anna");
    let stranger =
        |issuer: &str, subject: &str| whole(Human { issuer: issuer.to_owned(), subject: subject.to_owned() });
    // The last two would be the same text as `local` and `anna`, one behind the other.
    let names = [("https://idp.example", "anna"), ("locala", "nna"), ("loca", "lanna")];
    for (number, (issuer, subject)) in names.into_iter().enumerate() {
        let set = heard(&number.to_string(), stranger(issuer, subject), Some(OwnerEnd::Revoke));
        assert_eq!(directory.take_set(set, NOW).unwrap(), TakenSet::Unknown, "{issuer}");
    }
    assert!(matches!(directory.take_set(heard("n", None, None), NOW).unwrap(), TakenSet::Done(_)));
    assert_eq!(status(directory, &agent), AgentStatus::Active);
}

fn a_human_of_many_agents_is_ended_in_steps_and_heard_with_the_last(directory: &dyn Directory) {
    for number in 0..105 {
        agent_by(directory, number, &format!("agent-{number}"), "anna");
    }
    let set = || heard("many", whole(anna()), Some(OwnerEnd::Suspend));
    let TakenSet::Done(first) = directory.take_set(set(), NOW).unwrap() else { panic!() };
    assert!(first.more && first.agents.len() == 100);
    let TakenSet::Done(rest) = directory.take_set(set(), NOW).unwrap() else { panic!("not heard yet") };
    assert!(!rest.more && rest.agents.len() == 5);
    assert_eq!(directory.take_set(set(), NOW).unwrap(), TakenSet::Again);
}
