//! Stopped, killed, restarted, its socket removed: what becomes of the daemon and of those who use it.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;

use obol_client::CallError;
use obol_client::{AsyncClient, Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::PeerName;
use obol_world::home::{self, wait_until};
use obol_world::tqs;

use crate::sidecar::{PATIENCE, start, tool};

fn endpoint(home: &tempfile::TempDir) -> Endpoint {
    Endpoint::at(tqs::socket(home.path())).unwrap()
}

fn options() -> ConnectOptions {
    let mut options = ConnectOptions::new(PeerName::new("obol-tests/1").unwrap());
    options.answer_timeout = Duration::from_secs(60);
    options
}

/// Draws with a client whose daemon may be starting still; a machine that is crowded takes longer than a client does.
fn draw(client: &mut Client) -> String {
    loop {
        match client.dequeue_token(&tool("search"), PATIENCE) {
            Ok(drawn) => return drawn.token.expose().to_owned(),
            Err(CallError::NotSent(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_daemon_that_was_stopped_goes_on_where_it_was() {
    let home = home::home();
    let tqs = start(home.path());
    let mut client = Client::connect(endpoint(&home), options()).unwrap();
    draw(&mut client);
    tqs.signal("STOP");
    let waiting = std::thread::spawn(move || draw(&mut client));
    tqs.signal("CONT");
    assert!(waiting.join().unwrap().len() > 100);
}

#[test]
fn a_client_rides_over_a_kill_a_restart_and_a_socket_made_anew() {
    let home = home::home();
    let mut seen = HashSet::new();
    let tqs = start(home.path());
    let mut client = Client::connect(endpoint(&home), options()).unwrap();
    assert!(seen.insert(draw(&mut client)));
    tqs.kill();
    let tqs = start(home.path());
    assert!(seen.insert(draw(&mut client)), "after a kill");
    assert_eq!(tqs.terminate(), Some(0));
    let tqs = start(home.path());
    assert!(seen.insert(draw(&mut client)), "after a restart in good order");

    fs::remove_file(tqs::socket(home.path())).unwrap();
    assert!(seen.insert(draw(&mut client)), "an open connection does not need the path");
    wait_until("the daemon makes its socket anew", || tqs::is_served(&tqs::socket(home.path())));
    tqs.wait_for_log("the socket was removed; there is a new one");
    let mut other = Client::connect(endpoint(&home), options()).unwrap();
    assert!(seen.insert(draw(&mut other)));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(tqs::socket(home.path())).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    // Socket, lock and all.
    for file in fs::read_dir(home.path().join("run/obol")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    wait_until("the daemon makes its sockets anew", || {
        Client::connect(endpoint(&home), options()).is_ok()
            && tqs::is_served(&home.path().join("run/obol/control.sock"))
    });
    tqs.control().health().unwrap();
}

#[test]
fn an_async_client_rides_over_a_restart() {
    let home = home::home();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let tqs = start(home.path());
    let client = runtime.block_on(AsyncClient::connect(endpoint(&home), options())).unwrap();
    let draw = || {
        runtime.block_on(async {
            loop {
                match client.dequeue_token(&tool("search"), PATIENCE).await {
                    Ok(drawn) => return drawn.token.expose().to_owned(),
                    Err(CallError::NotSent(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    let first = draw();
    tqs.kill();
    let tqs = start(home.path());
    let second = draw();
    assert_eq!(tqs.terminate(), Some(0));
    let _tqs = start(home.path());
    assert_eq!(HashSet::from([first, second, draw()]).len(), 3);
}

#[test]
fn a_restart_in_good_order_leaves_no_caller_to_guess_and_repeats_no_token() {
    let home = home::home();
    let (seen, done) = (Mutex::new(HashSet::new()), AtomicBool::new(false));
    let mut tqs = start(home.path());
    std::thread::scope(|scope| {
        let callers = [(); 4].map(|()| {
            scope.spawn(|| {
                let mut client = Client::connect(endpoint(&home), options()).unwrap();
                while !done.load(Ordering::Relaxed) {
                    match client.dequeue_token(&tool("search"), Duration::ZERO) {
                        Ok(drawn) => assert!(seen.lock().unwrap().insert(drawn.token.expose().to_owned())),
                        // Nobody was there, or nothing was ready: both say that nothing was handed out.
                        Err(CallError::NotSent(_) | CallError::Refused(_)) => {}
                        Err(error) => panic!("a caller cannot tell what became of its token: {error}"),
                    }
                }
            })
        });
        for _ in 0..5 {
            let before = seen.lock().unwrap().len();
            wait_until("tokens are drawn", || seen.lock().unwrap().len() > before + 50);
            assert_eq!(tqs.terminate(), Some(0));
            tqs = start(home.path());
        }
        done.store(true, Ordering::Relaxed);
        // Before the daemon goes, which is killed when dropped.
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    assert!(seen.lock().unwrap().len() > 250);
}

#[test]
fn a_socket_that_somebody_else_put_in_place_is_left_alone_and_said() {
    let home = home::home();
    let tqs = start(home.path());
    let mut open = tqs.client();
    fs::remove_file(tqs::socket(home.path())).unwrap();
    fs::write(tqs::socket(home.path()), "not a socket").unwrap();
    tqs.wait_for_log("the socket was removed or replaced");
    open.dequeue_token(&tool("search"), PATIENCE).unwrap();
    assert_eq!(fs::read_to_string(tqs::socket(home.path())).unwrap(), "not a socket");
    fs::remove_file(tqs::socket(home.path())).unwrap();
    wait_until("the daemon comes back", || tqs.try_client().is_ok());
}
