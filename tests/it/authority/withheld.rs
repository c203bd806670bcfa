//! Somebody on the way between service and resource server who holds back what is said, or says it twice: an end that is
//! withheld counts from the end of the lease at the latest, and nothing that is repeated brings anything back.

use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use obol_verify::SessionTable as _;
use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, write_policy};
use obol_world::home::{self, free_port, wait_until};

use super::Agent;
use super::lease::{Followed, LEASE_SECS};

/// What happens to what the service says.
const PASSES: u8 = 0;
const HOLDS: u8 = 1;
const REPEATS: u8 = 2;

/// Passes on every connection to the service, as its mode says. Its threads end with the test's process.
struct Between(Arc<AtomicU8>);

impl Between {
    fn start(port: u16, service: u16) -> Self {
        let mode = Arc::new(AtomicU8::new(PASSES));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let shared = Arc::clone(&mode);
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", service)) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, &AtomicU8::new(PASSES)));
                let mode = Arc::clone(&shared);
                std::thread::spawn(move || pass(server, client, &mode));
            }
        });
        Self(mode)
    }

    fn set(&self, mode: u8) {
        self.0.store(mode, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    let mut part = [0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut part) {
        while mode.load(Ordering::SeqCst) == HOLDS {
            std::thread::sleep(Duration::from_millis(10));
        }
        let times = if mode.load(Ordering::SeqCst) == REPEATS { 2 } else { 1 };
        if (0..times).any(|_| to.write_all(&part[..length]).is_err()) {
            break;
        }
    }
    let _gone = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn an_end_that_is_withheld_counts_from_the_leases_end_and_nothing_that_is_repeated_revives_anything() {
    let home = home::home();
    write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
    let port = free_port();
    let origin = format!("http://127.0.0.1:{port}");
    let service = AsProcess::start_with(home.path(), &["--policy", "policy", "--origin", &origin]);
    let between = Between::start(port, service.port());
    let pin = format!("{origin}#{}", service.pin().split_once('#').unwrap().1);
    let mut agent = Agent::pinned(&pin, home.path(), "builder");
    let (code, _) = agent.register();
    service.told(&["approve", &code, "--yes"]);
    let followed = Followed::start(&service, &pin);
    let (table, following) = (&followed.table, &followed.following);
    let [ended, kept] = [(); 2].map(|()| agent.open().unwrap().half.session_id);
    let active = |id| table.look_up(id).map(|found| found.map(|session| session.is_active()));
    wait_until("both are known", || [ended, kept].iter().all(|id| active(*id) == Ok(Some(true))));

    between.set(HOLDS);
    service.told(&["agent", "end-session", &ended.to_string(), "--wait", "0"]);
    let withheld = Instant::now();
    assert_eq!(active(ended), Ok(Some(true)), "it cannot know yet");
    while active(ended).is_ok() {
        assert!(withheld.elapsed() < Duration::from_secs(LEASE_SECS + 3), "the lease has no end");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("an end that is withheld: refused after {} ms", withheld.elapsed().as_millis());
    assert!(active(kept).is_err(), "everything is refused");
    // What was held back comes, in its order: the end before any word that all is well.
    between.set(PASSES);
    wait_until("it is heard again", || table.health().is_ok());
    assert_eq!((active(ended), active(kept)), (Ok(Some(false)), Ok(Some(true))));

    // Everything twice, handshakes and streams alike: lines break, and nothing is taken that was said before.
    between.set(REPEATS);
    wait_until("the line breaks", || !following.standing().follows);
    std::thread::sleep(Duration::from_secs(2));
    between.set(PASSES);
    wait_until("it is heard again", || following.standing().follows && table.health().is_ok());
    assert_eq!((active(ended), active(kept)), (Ok(Some(false)), Ok(Some(true))));
    let next = agent.open().unwrap().half.session_id;
    wait_until("what comes is known", || active(next) == Ok(Some(true)));
    followed.end();
}
