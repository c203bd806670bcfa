//! Streams: who hears what, in which order, and what becomes of who does not read.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_handshake::{
    AuthoritySecret, Header, IdentityKey, Initiator, Opener, Prologue, Purpose, Random as _, SuiteOffer,
};
use obol_session::Suite;
use obol_stream::{Item, StreamId, What};

use super::hub::MAX_QUEUED;
use super::*;
use crate::directory::contract::{agent, events, open};
use crate::directory::{Directory, EndScope, Event, Happening, Human, MemoryDirectory};
use crate::id::{AgentId, ReplicaId, SystemRandom};

const AUDIENCE: &str = "https://a";

/// The end of a handshake that nobody speaks on.
fn opener() -> Opener {
    let secret = AuthoritySecret::generate(&mut SystemRandom);
    let (purpose, suite) = (Purpose::ResourceStream, Suite::AesGcm);
    let header = Header { purpose, suite, offer: SuiteOffer::of(&[suite]), authority_key: secret.key().id() };
    let prologue = Prologue::new(header, "https://as.example").unwrap();
    let (waiting, hello) = Initiator::start(&prologue, &secret.key(), &mut SystemRandom).unwrap();
    let (pending, reply) =
        obol_handshake::Responder::accept("https://as.example", &secret, &hello, b"{}", &mut SystemRandom)
            .unwrap();
    let ring = obol_handshake::CookieRing::new(0, &mut SystemRandom);
    let cookie = pending.seal(&ring, 0, &mut SystemRandom);
    let (ready, _) = waiting.read(&obol_handshake::reply(&cookie, &reply).unwrap()).unwrap();
    ready.prove(&IdentityKey::generate(&mut SystemRandom), b"{}").unwrap().0.receive
}

fn id() -> StreamId {
    let mut id = [0; 16];
    SystemRandom.fill(&mut id);
    StreamId(id)
}

fn replica() -> Who {
    Who::Replica { id: ReplicaId::generate(&mut SystemRandom), audience: AUDIENCE.to_owned() }
}

fn join(hub: &Hub, who: &Who) -> Joined {
    hub.join(id(), who.clone(), 300, opener())
}

fn end(seq: u64, agent: &AgentId, audience: &str) -> Event {
    let what = Happening::SessionEnd {
        session: obol_session::SessionId::from_u64(seq),
        agent: agent.clone(),
        audiences: vec![audience.to_owned()],
        reason: "test".to_owned(),
    };
    Event { seq, at: 0, what }
}

fn numbers(joined: &mut Joined) -> Vec<u64> {
    core::iter::from_fn(|| joined.queue.try_recv().ok()).map(|event| event.seq).collect()
}

#[test]
fn each_hears_what_concerns_it_in_order_and_nothing_twice() {
    let hub = Hub::new(10);
    let of_agent = AgentId::generate(&mut SystemRandom);
    let (mut one, mut two) = (join(&hub, &replica()), join(&hub, &replica()));
    let mut theirs = join(&hub, &Who::Agent(of_agent.clone()));
    assert_eq!([one.head, theirs.head], [10, 10]);
    let stranger = AgentId::generate(&mut SystemRandom);
    hub.dispatch(vec![end(11, &of_agent, AUDIENCE), end(12, &stranger, "https://b")]);
    hub.dispatch(vec![end(12, &stranger, AUDIENCE), end(13, &of_agent, "https://b")]);
    assert_eq!(numbers(&mut one), [11]);
    assert_eq!(numbers(&mut two), [11]);
    assert_eq!(numbers(&mut theirs), [11, 13]);
    assert_eq!(hub.dispatched(), 13);
    assert_eq!(join(&hub, &replica()).head, 13);
}

#[test]
fn who_does_not_read_is_cut_off_and_the_others_go_on() {
    let hub = Hub::new(0);
    let stranger = AgentId::generate(&mut SystemRandom);
    let (slow, mut quick) = (join(&hub, &replica()), join(&hub, &replica()));
    let mut heard = 0;
    for seq in 1..=MAX_QUEUED as u64 + 1 {
        hub.dispatch(vec![end(seq, &stranger, AUDIENCE)]);
        heard += numbers(&mut quick).len();
    }
    assert_eq!(heard, MAX_QUEUED + 1);
    assert!(hub.stream(slow.live.id).is_none() && hub.stream(quick.live.id).is_some());
    let mut slow = slow;
    assert_eq!(numbers(&mut slow).len(), MAX_QUEUED, "what it had is bounded");
    assert!(slow.queue.is_closed());
    assert_eq!(hub.count(), (1, 0));
}

#[test]
fn a_second_stream_of_one_follower_ends_the_first_and_a_removed_copy_hears_nothing() {
    let hub = Hub::new(0);
    let who = replica();
    let (first, second) = (join(&hub, &who), join(&hub, &who));
    assert!(first.queue.is_closed() && !second.queue.is_closed());
    hub.leave(&first.live);
    assert!(hub.stream_of(who.id()).is_some(), "the end of the first is not the end of the second");
    let Who::Replica { id, audience } = who.clone() else { unreachable!() };
    hub.dispatch(vec![Event { seq: 1, at: 0, what: Happening::Removed { replica: id, audience } }]);
    assert!(second.queue.is_closed() && hub.stream_of(who.id()).is_none());
}

#[test]
fn waiting_ends_with_the_last_who_follows_and_not_before() {
    let hub = Arc::new(Hub::new(5));
    let (one, two) = (join(&hub, &replica()), join(&hub, &replica()));
    let audiences = [AUDIENCE.to_owned()];
    let soon = || Instant::now() + Duration::from_millis(50);
    let waited = |until: Instant| {
        hub.wait_written(&audiences, 5, until);
        Instant::now() >= until
    };
    hub.note_written(&one.live, 5);
    assert!(waited(soon()), "the other has not been sent it");
    let leaving = std::thread::spawn({
        let (hub, live) = (Arc::clone(&hub), Arc::clone(&two.live));
        move || hub.leave(&live)
    });
    assert!(!waited(Instant::now() + Duration::from_secs(30)), "one that is gone is not waited for");
    leaving.join().unwrap();
    hub.note_applied(&one.live, 9);
    assert_eq!(one.live.applied(), 5, "nobody has applied what was not handed out");
}

/// What a feed says, page by page.
fn told(feed: &mut Feed) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(page) = feed.page().unwrap() {
        items.extend(page.iter().map(|plain| Item::read(plain).unwrap()));
    }
    items
}

fn ended(directory: &dyn Directory, number: u64) {
    let scope = EndScope::Session(obol_session::SessionId::from_u64(number));
    directory.end(scope, "test".to_owned(), Human::local("anna"), 1_780_000_000).unwrap().unwrap();
}

#[test]
fn a_snapshot_lists_what_lives_and_a_cursor_goes_on_from_there_without_a_gap() {
    let directory: Arc<dyn Directory> = Arc::new(MemoryDirectory::new());
    let builder = agent(&*directory, 1, "builder");
    for number in 100..104 {
        open(&*directory, &builder, number);
    }
    ended(&*directory, 101);
    let head = directory.last_event().unwrap();
    let mut feed = Feed::new(Arc::clone(&directory), replica(), None, head).unwrap();
    assert!(feed.is_snapshot());
    let items = told(&mut feed);
    let live: Vec<u64> = items
        .iter()
        .filter_map(|item| match item {
            Item::Live { session, half: Some(half) } => {
                assert_eq!(half.keys.aud, AUDIENCE, "nobody else's keys");
                assert!(half.grants.is_some());
                Some(session.as_u64())
            }
            _ => None,
        })
        .collect();
    assert_eq!(live, [100, 102, 103]);
    assert!(matches!(items.last(), Some(Item::Listed { seq }) if *seq == head));
    // What happens after it, from a cursor in the middle.
    open(&*directory, &builder, 104);
    ended(&*directory, 104);
    ended(&*directory, 100);
    let mut feed =
        Feed::new(Arc::clone(&directory), replica(), Some(head), directory.last_event().unwrap()).unwrap();
    assert!(!feed.is_snapshot());
    let mut cursor = head;
    let mut what = Vec::new();
    for item in told(&mut feed) {
        let Item::Happened { seq, prev, what: happened } = item else { panic!("{item:?}") };
        assert!(prev == cursor && seq > prev, "{seq} behind {prev}");
        cursor = seq;
        what.push(match happened {
            What::SessionOpen { session, half } => {
                assert!(half.is_none(), "its keys are gone already");
                format!("open {}", session.as_u64())
            }
            What::SessionEnd { session, .. } => format!("end {}", session.as_u64()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(what, ["open 104", "end 104", "end 100"]);
    assert_eq!(events(&*directory).len() as u64, cursor);
}

#[test]
fn who_comes_from_nowhere_or_from_the_future_is_told_everything() {
    let directory: Arc<dyn Directory> = Arc::new(MemoryDirectory::new());
    let builder = agent(&*directory, 1, "builder");
    open(&*directory, &builder, 100);
    let head = directory.last_event().unwrap();
    for (after, is_snapshot) in [(None, true), (Some(head + 1), true), (Some(head), false), (Some(0), false)]
    {
        let feed = Feed::new(Arc::clone(&directory), replica(), after, head).unwrap();
        assert_eq!(feed.is_snapshot(), is_snapshot, "{after:?}");
    }
    // Events that are forgotten cannot be gone on from.
    while directory.forget(1_780_000_000 + 4_000).unwrap() {}
    assert!(Feed::new(directory, replica(), Some(0), head).unwrap().is_snapshot());
}
