//! Copies of a resource server that share their sessions in a Redis: an end counts at all of them, whoever heard of it, and one
//! that starts again goes on from where they are.

use obol_world::authority::AsProcess;
use obol_world::home::{self, wait_until};
use obol_world::redis::RedisServer;
use obol_world::rs::RsProcess;

use super::Agent;
use super::captured::minted;
use super::stream::API;

#[test]
fn copies_that_share_their_sessions_know_an_end_and_a_restart_goes_on_from_the_cursor() {
    let home = home::home();
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let service = AsProcess::start(home.path());
    let shared = ["--first-start", "--session-store", &url, "--spent", &url];
    let mut one = RsProcess::follow(home.path(), &service, API, &shared);
    let other = RsProcess::follow(home.path(), &service, API, &shared[1..]);
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let [ended, kept] = [(); 2].map(|()| agent.open().unwrap());
    for rs in [&one, &other] {
        for session in [&ended, &kept] {
            wait_until("both are known", || rs.present(&minted(session, |_| {}), "search") == "OK");
        }
    }
    one.kill();
    let disabled = service.told(&["agent", "end-session", &ended.half.session_id.to_string()]);
    let copies = disabled["copies"].as_array().unwrap();
    assert_eq!(copies.iter().filter(|copy| copy["confirmed"] == true).count(), 1, "{disabled}");
    assert_eq!(other.present(&minted(&ended, |_| {}), "search"), "SESSION_EXPIRED", "{}", other.log());
    one.start_again();
    assert!(one.log().contains("mode=Resume"), "{}", one.log());
    for rs in [&one, &other] {
        let answer = rs.present(&minted(&ended, |_| {}), "search");
        assert!(
            ["SESSION_EXPIRED", "SESSION_NOT_FOUND"].contains(&answer.as_str()),
            "{answer}: {}",
            rs.log()
        );
        assert_eq!(rs.present(&minted(&kept, |_| {}), "search"), "OK", "{}", rs.log());
    }
}
