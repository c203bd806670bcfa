//! Streams over the network: who does not read is cut off and can go on from where it was, and a session names the one that it
//! takes the place of.

use obol_authority::directory::EndScope;
use obol_stream::{Item, Mode, What};
use obol_uplink::Stream;
use tokio::time::timeout;

use super::*;

/// How often the agent is ended and let in while nobody reads: more events than wait for one follower.
const ROUNDS: usize = 700;

/// Whether the agent follows, as far as the service knows.
fn follows(service: &Running, agent: &str) -> bool {
    let asked = service.authority.confirmations(0, &[], &[agent.to_owned()], Duration::ZERO);
    asked.unwrap().1[0].follows
}

/// The number of the last event that this says.
async fn read_to(stream: &mut Stream, head: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        match timeout(Duration::from_secs(30), stream.next()).await.unwrap().unwrap() {
            Item::Happened { seq, prev, what: What::AgentEnd { .. } | What::AgentEnabled } => {
                assert!(seq > prev);
                seen.push(seq);
            }
            Item::Heartbeat { head: up_to, .. } if up_to >= head => return seen,
            Item::Heartbeat { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off_and_goes_on_from_its_cursor_without_a_gap() {
    let service = Running::start().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    while !matches!(agent.registration().await, Ok(RegistrationState::Approved { .. })) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let id = agent.identity().agent_id().unwrap().to_owned();
    let mut listening = agent.listening();
    let mut stream = listening.follow(None, now()).await.unwrap();
    assert_eq!(stream.hello().mode, Mode::Snapshot);
    let Item::Listed { seq } = stream.next().await.unwrap() else { panic!("an agent without sessions") };
    let cursor = obol_session::Cursor { incarnation: stream.hello().incarnation, seq };
    let authority = Arc::clone(&service.authority);
    let ended = tokio::task::spawn_blocking(move || {
        // More than the system's buffers take.
        let reason = "r".repeat(8 << 10);
        for _ in 0..ROUNDS {
            let by = Human::local("anna");
            authority.end(&EndScope::Agent("builder".to_owned()), &reason, &by, moment()).unwrap();
            authority.enable_agent("builder", &by, moment()).unwrap();
        }
        authority.directory().last_event().unwrap()
    });
    let head = ended.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    while follows(&service, &id) {
        assert!(Instant::now() < deadline, "it is still waited for");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stream);
    let mut stream = listening.follow(Some(cursor), now()).await.unwrap();
    assert_eq!(stream.hello().mode, Mode::Resume);
    let seen = read_to(&mut stream, head).await;
    assert_eq!(seen, (cursor.seq + 1..=head).collect::<Vec<_>>(), "nothing is left out");
    assert!(follows(&service, &id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_names_the_one_that_it_takes_the_place_of() {
    let service = Running::start().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    let first = agent.authenticate(None, now()).await.unwrap().half.session_id;
    let closes = |id| service.authority.directory().session(id).unwrap().unwrap().closes_at;
    let second = agent.authenticate(None, now()).await.unwrap().half.session_id;
    assert_eq!((closes(first), closes(second)), (None, None), "one that is not named goes on");
    agent.replaces(Some(first));
    let third = agent.authenticate(None, now()).await.unwrap().half.session_id;
    let longest = closes(first).expect("it is closed later");
    assert!(longest >= now() + 30, "not before its tokens are over");
    assert_eq!((closes(second), closes(third)), (None, None));
}
