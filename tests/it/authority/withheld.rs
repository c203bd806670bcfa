//! Somebody on the way between service and resource server who holds back what is said, or says it twice: an end that is
//! withheld counts from the end of the lease at the latest, and nothing that is repeated brings anything back.

use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use obol_session::SessionId;
use obol_verify::SessionTable as _;
use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, write_policy};
use obol_world::home::{self, free_port, wait_until};
use obol_world::rs::RsProcess;

use super::Agent;
use super::lease::{Followed, LEASE_SECS};
use super::stream::{API, Beside, drawn};

/// What happens to what the service says.
const PASSES: u8 = 0;
const HOLDS: u8 = 1;
const REPEATS: u8 = 2;

/// Passes on every connection to the service, as its mode says. Its threads end with the test's process.
struct Between(Arc<Mutex<Arc<AtomicU8>>>);

impl Between {
    fn start(port: u16, service: u16) -> Self {
        let mode = Arc::new(Mutex::new(Arc::new(AtomicU8::new(PASSES))));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let shared = Arc::clone(&mode);
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", service)) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, &AtomicU8::new(PASSES)));
                let mode = Arc::clone(&shared.lock().unwrap());
                std::thread::spawn(move || pass(server, client, &mode));
            }
        });
        Self(mode)
    }

    fn set(&self, mode: u8) {
        self.0.lock().unwrap().store(mode, Ordering::SeqCst);
    }

    /// From here on what is set is set for connections that come from now on alone; those that there are pass.
    fn apart(&self) {
        *self.0.lock().unwrap() = Arc::new(AtomicU8::new(PASSES));
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

#[test]
fn a_disabled_account_is_refused_where_it_is_heard_of_and_named_where_not_until_the_leases_end() {
    let home = home::home();
    write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
    let port = free_port();
    let mut service = AsProcess::unstarted(home.path(), &["--policy", "policy"]);
    service.call_it(&format!("http://127.0.0.1:{port}"), &[]);
    service.start_again();
    let between = Between::start(port, service.port());
    let memory = ["--first-start", "--spent", "memory"];
    let near = [(); 2].map(|()| RsProcess::follow(home.path(), &service, API, &memory));
    let _beside = Beside::start(home.path(), &service);
    between.apart();
    let away = Followed::start(&service, &service.pin());
    let tokens =
        near.each_ref().map(|server| (server, drawn(home.path()).unwrap(), drawn(home.path()).unwrap()));
    for (server, token, _) in &tokens {
        assert_eq!(server.present(token, "search"), "OK", "the control: {}", server.log());
    }
    let shown = service.told(&["agent", "show", "builder"]);
    let session = shown["sessions"][0]["sessionId"].as_str().unwrap();
    let session = SessionId::from_u64(u64::from_str_radix(session, 16).unwrap());
    let knows = || away.table.look_up(session).map(|found| found.map(|session| session.is_active()));
    wait_until("all know the session", || knows() == Ok(Some(true)));

    between.set(HOLDS);
    let event = ["as", "events", "test", "--agent", "builder", "--event", "account-disabled", "--wait", "2"];
    let begun = Instant::now();
    let done = service.told(&event);
    for (server, _, token) in &tokens {
        assert_eq!(server.present(token, "search"), "SESSION_EXPIRED", "{done}");
    }
    assert!(drawn(home.path()).is_err(), "the queue is empty");
    let copies = done["copies"].as_array().unwrap();
    let unheard: Vec<_> = copies.iter().filter(|copy| copy["confirmed"] == false).collect();
    assert_eq!((copies.len(), unheard.len()), (3, 1), "{done}");
    assert!(unheard[0]["leaseEndsAt"].is_string(), "until when it goes on is told: {done}");

    assert_eq!(knows(), Ok(Some(true)), "it cannot know, and its lease is not over");
    while knows().is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(LEASE_SECS + 3), "the lease has no end");
        std::thread::sleep(Duration::from_millis(50));
    }
    between.set(PASSES);
    wait_until("it hears of the end", || knows() == Ok(Some(false)));
    away.end();
}
