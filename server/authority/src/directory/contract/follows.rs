//! Who follows the events, and what they are told: streams begin once, copies are removed for good, and a session that another
//! took the place of is closed when its tokens are over.

use super::*;

tests![
    a_handshake_begins_one_stream_and_only_for_who_is_known,
    a_removed_copy_follows_no_more_and_never_joins_again,
    each_resource_server_is_given_its_own_halves_alone,
    the_incarnation_is_made_once,
    whoever_waits_for_events_is_woken_by_a_commit_and_by_nothing_else,
    a_session_that_another_took_the_place_of_is_closed_once_its_tokens_are_over,
];

const CODE: [u8; 32] = [0xC0; 32];

fn joined(directory: &dyn Directory, number: u64) -> Replica {
    let server = ResourceServer { audience: "https://a".to_owned(), suites: vec![1, 4], added_at: NOW };
    directory.add_resource_server(server, CODE, NOW + 900).unwrap().unwrap();
    let new =
        NewReplica { id: ReplicaId::generate(&mut SystemRandom), identity: key(number), code_hash: CODE };
    done(directory.join(handshake(number), new, NOW, seal(number)).unwrap())
}

fn begin(directory: &dyn Directory, number: u64, follows: Follows) -> Carried<Follower> {
    directory.begin_stream(handshake(number), follows, NOW + 5).unwrap()
}

fn a_handshake_begins_one_stream_and_only_for_who_is_known(directory: &dyn Directory) {
    let (replica, builder) = (joined(directory, 1), agent(directory, 2, "builder"));
    let follower = done(begin(directory, 50, Follows::Replica(key(1), 900)));
    assert!(
        matches!(&follower, Follower::Replica(found) if found.id == replica.id && found.seen_at == NOW + 5)
    );
    assert_eq!(replica.lease_secs, None);
    assert_eq!(directory.replica(key(1)).unwrap().unwrap().lease_secs, Some(900), "kept while it follows");
    assert!(
        !matches!(begin(directory, 50, Follows::Replica(key(1), 900)), Carried::Now(..)),
        "the same once more"
    );
    let follower = done(begin(directory, 51, Follows::Agent(key(2))));
    assert!(matches!(&follower, Follower::Agent(found) if found.id == builder.id));
    // Neither with a key of the other kind, nor with one that nobody knows.
    assert_eq!(refused(begin(directory, 52, Follows::Agent(key(1)))), Refused::NotRegistered);
    assert_eq!(refused(begin(directory, 53, Follows::Replica(key(2), 900))), Refused::NotJoined);
    assert_eq!(refused(begin(directory, 54, Follows::Replica(key(3), 900))), Refused::NotJoined);
    assert!(
        !matches!(begin(directory, 54, Follows::Replica(key(1), 900)), Carried::Now(..)),
        "a refusal uses it up"
    );
    // A suspended agent hears when it is let in; one that has ended for good hears nothing.
    let end = |scope| directory.end(scope, "test".to_owned(), Human::local("anna"), NOW).unwrap().unwrap();
    end(EndScope::Agent("builder".into()));
    assert!(matches!(done(begin(directory, 55, Follows::Agent(key(2)))), Follower::Agent(_)));
    end(EndScope::Revoke("builder".into()));
    assert_eq!(refused(begin(directory, 56, Follows::Agent(key(2)))), Refused::Revoked);
}

fn a_removed_copy_follows_no_more_and_never_joins_again(directory: &dyn Directory) {
    let replica = joined(directory, 1);
    assert!(directory.remove_replica(&replica.id, NOW).unwrap().is_ok());
    assert_eq!(directory.replicas().unwrap(), []);
    assert_eq!(refused(begin(directory, 50, Follows::Replica(key(1), 900))), Refused::NotJoined);
    let unknown = directory.remove_replica(&replica.id, NOW).unwrap();
    assert!(matches!(unknown, Err(Refused::Unknown(_))), "{unknown:?}");
    let server = ResourceServer { audience: "https://a".to_owned(), suites: vec![1], added_at: NOW };
    directory.add_resource_server(server, CODE, NOW + 900).unwrap().unwrap();
    let id = ReplicaId::generate(&mut SystemRandom);
    let again = NewReplica { id, identity: key(1), code_hash: CODE };
    assert_eq!(refused(directory.join(handshake(9), again, NOW, seal(9)).unwrap()), Refused::KeyInUse);
    assert!(matches!(events(directory).last(), Some(Happening::Removed { .. })));
}

fn each_resource_server_is_given_its_own_halves_alone(directory: &dyn Directory) {
    let builder = agent(directory, 1, "builder");
    (100..104).for_each(|number| drop(open(directory, &builder, number)));
    let numbers = |page: &HalvesPage| page.halves.iter().map(|(id, _)| id.as_u64()).collect::<Vec<_>>();
    for audience in ["https://a", "https://b"] {
        let page = directory.halves(audience, None).unwrap();
        assert_eq!((numbers(&page), page.next), (vec![100, 101, 102, 103], None));
        for (id, text) in &page.halves {
            let half = ResourceHalf::from_json(text).unwrap();
            assert_eq!((half.session_id, half.keys.aud.as_str()), (*id, audience));
        }
    }
    assert_eq!(numbers(&directory.halves("https://a", Some(SessionId::from_u64(101))).unwrap()), [102, 103]);
    assert!(directory.halves("https://c", None).unwrap().halves.is_empty());
    let scope = EndScope::Session(SessionId::from_u64(102));
    directory.end(scope, "test".to_owned(), Human::local("anna"), NOW).unwrap().unwrap();
    assert_eq!(numbers(&directory.halves("https://a", None).unwrap()), [100, 101, 103]);
}

fn the_incarnation_is_made_once(directory: &dyn Directory) {
    assert_eq!(directory.incarnation([1; 16]).unwrap(), [1; 16]);
    assert_eq!(directory.incarnation([2; 16]).unwrap(), [1; 16]);
}

fn whoever_waits_for_events_is_woken_by_a_commit_and_by_nothing_else(directory: &dyn Directory) {
    let mut head = directory.head();
    head.mark_unchanged();
    directory.denied_tools().unwrap();
    directory.incarnation([1; 16]).unwrap();
    assert!(!head.has_changed().unwrap());
    agent(directory, 1, "builder");
    assert!(head.has_changed().unwrap());
    assert_eq!(*head.borrow_and_update(), directory.last_event().unwrap());
}

fn a_session_that_another_took_the_place_of_is_closed_once_its_tokens_are_over(directory: &dyn Directory) {
    let (builder, other) = (agent(directory, 1, "builder"), agent(directory, 2, "other"));
    open(directory, &builder, 100);
    open(directory, &other, 101);
    let replace = |number: u64, previous: u64| {
        let known = directory.agent(builder.id.as_str()).unwrap().unwrap();
        let mut plan = plan(&known, number, epoch(directory));
        plan.presented = known.chain.into_iter().collect();
        plan.previous = Some(SessionId::from_u64(previous));
        done(directory.open_session(handshake(number), plan, NOW, seal(number)).unwrap());
    };
    replace(110, 100);
    // Another's session is not closed by naming it, nor is one that is not there.
    replace(111, 101);
    replace(112, 999);
    let ended = |number| directory.session(SessionId::from_u64(number)).unwrap().unwrap().ended;
    let forget = |now| while directory.forget(now).unwrap() {};
    // The longest token lives 60 s.
    forget(NOW + 89);
    assert_eq!(ended(100), None);
    assert!(half_of(directory, 100, "https://a").is_some());
    forget(NOW + 90);
    assert_eq!(ended(100), Some(Ending { at: NOW + 90, reason: "renewed".to_owned() }));
    assert!(half_of(directory, 100, "https://a").is_none());
    assert!([101, 110, 111, 112].iter().all(|number| ended(*number).is_none()));
    let last = events(directory).pop();
    assert!(
        matches!(&last, Some(Happening::SessionEnd { session, .. }) if *session == SessionId::from_u64(100)),
        "{last:?}"
    );
}
