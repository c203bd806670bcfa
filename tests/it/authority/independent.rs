//! The two ways of an end, to the sidecar and to the resource server, need nothing of each other.

use obol_world::authority::{AsProcess, command_in};
use obol_world::home::{self, wait_until};
use obol_world::rs::RsProcess;

use super::stream::{API, Beside, drawn};

#[test]
fn the_resource_server_refuses_while_the_sidecar_is_dead_and_the_sidecar_flushes_while_the_resource_server_is()
 {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let kept = ["--first-start", "--session-store", "sessions.redb"];
    let mut rs = RsProcess::follow(home.path(), &service, API, &kept);
    let beside = Beside::start(home.path(), &service);
    let [stolen, late] = [drawn(home.path()).unwrap(), drawn(home.path()).unwrap()];
    // Without the agent's side: what it handed out is refused.
    let Beside { tqs, authenticator } = beside;
    authenticator.kill();
    let disabled = service.told(&["agent", "disable", "builder"]);
    assert_eq!(disabled["copies"][0]["confirmed"], true, "{disabled}");
    let sidecar = &disabled["sidecars"][0];
    assert_eq!((&sidecar["confirmed"], &sidecar["follows"]), (&false.into(), &false.into()), "{disabled}");
    assert_eq!(rs.present(&stolen, "search"), "SESSION_EXPIRED", "{}", rs.log());
    assert!(drawn(home.path()).is_ok(), "the sidecar has not heard of it");
    // Its authenticator hears of it as soon as it is back.
    let authenticator = crate::authenticator::Authenticator::start(home.path(), &["--url", &service.pin()]);
    wait_until("the sidecar has", || drawn(home.path()).is_err());
    service.told(&["agent", "enable", "builder"]);
    wait_until("a session again", || command_in(home.path(), &["auth", "status"]).status.success());

    // Without the resource server: what was minted ahead is destroyed.
    let token = drawn(home.path()).unwrap();
    assert_eq!(rs.present(&token, "search"), "OK", "{}", rs.log());
    let [token, other] = [drawn(home.path()).unwrap(), drawn(home.path()).unwrap()];
    rs.kill();
    let disabled = service.told(&["agent", "disable", "builder", "--wait", "5"]);
    assert_eq!(disabled["sidecars"][0]["confirmed"], true, "{disabled}\n{}", authenticator.log());
    let copy = &disabled["copies"][0];
    assert_eq!((&copy["confirmed"], &copy["follows"]), (&false.into(), &false.into()), "{disabled}");
    assert!(copy["leaseEndsAt"].is_string(), "{disabled}");
    assert!(drawn(home.path()).unwrap_err().contains("SESSION_FLUSHED"));
    assert!(
        tqs.control()
            .status()
            .unwrap()
            .sessions
            .iter()
            .all(|session| { session.state != obol_ipc::control::SessionState::Active })
    );
    // Nor does what it kept help: it accepts nothing before it has heard.
    rs.start_again();
    for token in [&token, &other, &late] {
        let answer = rs.present(token, "search");
        assert!(
            ["SESSION_EXPIRED", "SESSION_NOT_FOUND"].contains(&answer.as_str()),
            "{answer}: {}",
            rs.log()
        );
    }
    assert!(rs.log().contains("mode=Resume"), "it went on from its cursor: {}", rs.log());
}
