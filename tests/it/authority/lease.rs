//! A service that is dead, seen from a resource server: nothing for the length of the lease, and then everything is refused.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_handshake::IdentityKey;
use obol_ipc::time::UtcTime;
use obol_probe::stop::Stop;
use obol_resource::provision::{Follower, Following, Lease, LeasedTable, join};
use obol_token::Audience;
use obol_uplink::{Pinned, Uplink, UplinkOptions};
use obol_verify::{MemorySessionTable, SessionStore, SessionTable, SystemClock};
use obol_world::authority::AsProcess;
use obol_world::home::{self, wait_until};
use obol_world::now;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::Agent;
use super::stream::API;

/// Longer than the pause between two heartbeats, and not by much.
pub(super) const LEASE_SECS: u64 = 8;

/// A follower in this process, with a lease of [`LEASE_SECS`], that joins the service which is pinned so.
pub(super) struct Followed {
    pub(super) table: LeasedTable,
    pub(super) following: Following,
    stop: Stop,
    running: JoinHandle<()>,
    runtime: Runtime,
}

impl Followed {
    pub(super) fn start(service: &AsProcess, pin: &str) -> Self {
        Self::with_lease(service, pin, LEASE_SECS)
    }

    fn with_lease(service: &AsProcess, pin: &str, secs: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        let key = IdentityKey::generate(&mut obol_authority::id::SystemRandom);
        let uplink = || Uplink::new(Pinned::parse(pin).unwrap(), &UplinkOptions::new()).unwrap();
        let code = service.told(&["rs", "invite", API])["ticket"].as_str().unwrap().to_owned();
        let joined = runtime.block_on(join(&mut uplink(), &key, &code, now())).unwrap();
        assert_eq!(joined.audience, API);
        let clock = Arc::new(SystemClock::new());
        let sessions: Arc<dyn SessionStore> = Arc::new(MemorySessionTable::new());
        let lease = Arc::new(Lease::new(secs, Arc::clone(&clock) as Arc<_>));
        let table = LeasedTable::new(Arc::clone(&sessions), Arc::clone(&lease));
        let why = table.health().unwrap_err().to_string();
        assert!(why.contains("not heard since the start"), "{why}");
        let audience = Audience::new(API).unwrap();
        let follower = Follower::new(uplink(), key, audience, sessions, lease, clock);
        let (following, stop) = (follower.following(), Stop::new());
        let running = runtime.spawn(follower.run(stop.clone()));
        Self { table, following, stop, running, runtime }
    }

    pub(super) fn end(self) {
        self.stop.say();
        self.runtime.block_on(self.running).unwrap();
    }
}

#[test]
fn a_service_that_is_dead_stops_the_resource_server_at_the_end_of_the_lease_and_not_before() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    let followed = Followed::start(&service, &service.pin());
    let Followed { table, following, .. } = &followed;
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let session = agent.open().unwrap().half.session_id;
    wait_until("it is ready", || table.health().is_ok());
    wait_until("the session is there", || table.look_up(session).is_ok_and(|found| found.is_some()));

    service.kill();
    let killed = Instant::now();
    wait_until("the line is cut", || !following.standing().follows);
    assert!(table.look_up(session).unwrap().is_some(), "that costs nothing yet");
    let asked = Duration::from_millis(100);
    while table.health().is_ok() {
        assert!(killed.elapsed() < Duration::from_secs(LEASE_SECS + 3), "the lease has no end");
        std::thread::sleep(asked);
    }
    let refused = killed.elapsed();
    println!("refused {} ms after the service died, lease {LEASE_SECS} s", refused.as_millis());
    // It may have had its last heartbeat five seconds before, and clocks count whole seconds.
    assert!(refused > Duration::from_secs(LEASE_SECS - 5 - 2), "{refused:?}");
    let why = table.look_up(session).unwrap_err().to_string();
    assert!(why.contains("the lease is 8 s") && why.contains("not heard for"), "{why}");
    let standing = following.standing();
    // Both clocks count whole seconds, each its own.
    assert!(
        standing.lease_ends.is_some_and(|end| end <= now() + 1) && standing.problem.is_some(),
        "{standing:?}"
    );

    service.start_again();
    wait_until("it comes back by itself", || table.health().is_ok());
    assert!(table.look_up(session).unwrap().is_some_and(|session| session.is_active()));
    followed.end();
}

/// Until when the service says that its only copy of a resource server accepts tokens.
fn told_end(service: &AsProcess) -> u64 {
    let told = service.told(&["rs", "list"])["copies"][0]["leaseEndsAt"].take();
    serde_json::from_value::<UtcTime>(told).unwrap().unix_seconds()
}

#[test]
fn no_earlier_end_is_told_than_that_of_the_servers_own_lease_also_when_it_is_away_and_after_a_restart() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    // Three times what the service takes where a server says nothing.
    let followed = Followed::with_lease(&service, &service.pin(), 900);
    wait_until("it is ready", || followed.table.health().is_ok());
    let own_end = || followed.following.standing().lease_ends.unwrap();
    assert!(told_end(&service) >= own_end(), "while it follows");
    followed.stop.say();
    wait_until("it follows no more", || service.told(&["rs", "list"])["copies"][0]["follows"] == false);
    assert!(told_end(&service) >= own_end(), "once it is away");
    service.kill();
    service.start_again();
    assert!(told_end(&service) >= own_end(), "after a restart of the service");
    assert!(own_end() > now() + 600, "and it does go on for so long");
    followed.end();
}
