//! What agents say of tokens that somebody else spent.

use super::super::alarms::Stolen;
use super::*;

fn stolen(session: Option<SessionId>, times: u64) -> Stolen {
    Stolen { session, audience: "https://a".to_owned(), tool: "search".to_owned(), times }
}

#[test]
fn an_agent_says_what_it_likes_and_it_is_an_alarm_and_no_more() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let (mut other, another) = Client::approved(&authority, "other", &["dev"]);
    let own = session(&client.open(&authority, Suite::AesGcm, json!({}), at(START))).session_id;
    let foreign = session(&other.open(&authority, Suite::AesGcm, json!({}), at(START))).session_id;
    let of_agent = |said| authority.session_of(&agent.id, said).unwrap();
    assert_eq!(of_agent(Some(own)), Some(own));
    for not_its in [Some(foreign), Some(SessionId::from_u64(1)), None] {
        assert_eq!(of_agent(not_its), None, "nothing is said of a session that is another's, or none");
    }

    let said =
        (0..100).filter(|_| authority.token_stolen(&agent.id, &stolen(Some(foreign), 2), at(START)).unwrap());
    let lines = said.count();
    assert!((10..=12).contains(&lines), "{lines} lines");
    assert!(
        authority.token_stolen(&another.id, &stolen(None, 1), at(START)).unwrap(),
        "another agent is heard all the same"
    );
    assert_eq!(authority.stolen_tokens(), 201, "all of it is counted");
    for agent in [&agent, &another] {
        let seen = authority.directory().agent(agent.id.as_str()).unwrap().unwrap();
        assert_eq!((seen.status, seen.clone_suspected), (AgentStatus::Active, false));
    }
    assert_eq!(authority.directory().sessions(&another.id).unwrap().len(), 1);
}
