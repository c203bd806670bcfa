//! SIGKILL at any moment: what was answered holds, and nothing that was ended comes back.

use core::time::Duration;

use obol_world::authority::AsProcess;
use obol_world::home;
use obol_world::random::Random;

use super::{Agent, tools};

/// How often the service is killed.
const KILLS: u64 = 12;

#[test]
fn no_kill_of_the_service_loses_what_was_answered_or_revives_what_was_ended() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    let mut random = Random::new(13);
    let (mut lasting, _) = Agent::approved(&service, home.path(), "lasting");
    let (mut last_number, mut disabled, mut event) = (0, Vec::new(), 0);
    // One key, so one registration that waits: each takes the place of the one before.
    let mut busy = Agent::new(&service, home.path(), "busy");
    for round in 0..KILLS {
        // Approved, opened and disabled, each answered; then the end at a random moment of what comes next.
        let (mut agent, _) = Agent::approved(&service, home.path(), &format!("agent-{round}"));
        agent.open().unwrap();
        service.told(&["agent", "disable", &format!("agent-{round}")]);
        disabled.push(agent);
        let delay = Duration::from_micros(random.below(20_000));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Whatever becomes of these.
                while busy.try_register(None).is_ok() {}
            });
            std::thread::sleep(delay);
            service.kill();
        });
        service.start_again();

        let session = lasting.open().unwrap();
        assert_eq!(tools(&session), ["search"]);
        let number = session.half.session_id.as_u64();
        assert!(number > last_number, "a number came twice");
        last_number = number;
        for agent in &mut disabled {
            assert_eq!(agent.refused(), "SUSPENDED", "round {round}");
        }
        let newest = service.told(&["as", "status"])["lastEvent"].as_u64().unwrap();
        assert!(newest > event, "an event was lost");
        event = newest;
    }
    let shown = service.told(&["agent", "show", "lasting"]);
    assert_eq!(shown["agent"]["cloneSuspected"], false, "no false alarm");
    let sessions = shown["sessions"].as_array().unwrap().len() as u64;
    assert_eq!(sessions, KILLS.min(16), "none was lost: {shown}");
}
