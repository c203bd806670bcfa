//! Peers that ask for too much, too slowly, or not at all, and what the others notice of it.

use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use obol_world::home::{self, wait_until};
use obol_world::tqs::{self, Tqs};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::json;

use crate::sidecar::{PATIENCE, Raw, start, start_as, tool};

/// Connections in the test of many.
const MANY: usize = 10_000;

fn hello() -> Vec<u8> {
    let body = br#"{"obol":1,"codec":"json","client":"raw/1"}"#;
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

fn request(id: usize, method: &str) -> Vec<u8> {
    let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}}).to_string();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body.as_bytes()].concat()
}

/// The codes of this many answers, `OK` for results.
fn outcomes(raw: &mut Raw, answers: usize) -> Vec<String> {
    let code =
        |answer: serde_json::Value| answer["error"]["data"]["code"].as_str().unwrap_or("OK").to_owned();
    (0..answers).map(|_| code(raw.receive().unwrap())).collect()
}

fn open_descriptors(tqs: &Tqs) -> u64 {
    u64::try_from(std::fs::read_dir(format!("/proc/{}/fd", tqs.pid())).unwrap().count()).unwrap()
}

#[test]
fn a_peer_beyond_its_rate_is_refused_with_a_time_and_goes_on_after_it() {
    let home = home::home();
    let _tqs = start_as(home.path(), &[], |command| {
        command.env("OBOL_TQS__CONNECTION_RATE", "20");
    });
    let mut greedy = Raw::greeted(home.path(), "agent.sock");
    for id in 0..60 {
        greedy.0.write_all(&request(id, "sessionInfo")).unwrap();
    }
    let refused = outcomes(&mut greedy, 60).iter().filter(|outcome| *outcome == "OVERLOADED").count();
    assert!(refused > 0);
    // One that is refused with nothing behind it: of the sixty, a later one may have taken what the last refusal promised.
    let wait = (0..1000)
        .find_map(|_| greedy.call("sessionInfo", json!({}))["error"]["data"]["retryAfterMs"].as_u64());
    let wait = wait.expect("there is less room than requests");
    assert!((1..=1000).contains(&wait), "{wait} ms");
    std::thread::sleep(Duration::from_millis(wait));
    assert!(
        greedy.call("sessionInfo", json!({}))["result"].is_object(),
        "after the time it named there is room"
    );
}

#[test]
fn a_noisy_neighbour_at_ten_times_its_rate_takes_nothing_from_the_quiet_ones() {
    const RATE: usize = 200;
    let home = home::home();
    let _tqs = start_as(home.path(), &[], |command| {
        command.env("OBOL_TQS__CONNECTION_RATE", RATE.to_string());
    });
    let began = Instant::now();
    let path = tqs::socket(home.path());
    let noisy = std::thread::spawn(move || {
        let mut noisy = Raw(UnixStream::connect(path).unwrap());
        noisy.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        noisy.0.write_all(&hello()).unwrap();
        noisy.receive().unwrap();
        let mut writer = noisy.0.try_clone().unwrap();
        let sent = 10 * RATE;
        let writing = std::thread::spawn(move || {
            (0..sent).for_each(|id| writer.write_all(&request(id, "tokenStatus")).unwrap());
        });
        let outcomes = outcomes(&mut noisy, sent);
        writing.join().unwrap();
        outcomes.iter().filter(|outcome| *outcome == "OK").count()
    });
    let mut quiet: Vec<_> = (0..4).map(|_| Raw::greeted(home.path(), "agent.sock")).collect();
    for _ in 0..RATE / 4 {
        for peer in &mut quiet {
            // Within their own rate none of them is ever refused, whatever the other does.
            assert!(peer.call("sessionInfo", json!({}))["result"].is_object());
        }
    }
    let admitted = noisy.join().unwrap();
    // A second's worth at once, then the rate; measured over all the time it may have taken.
    let most = RATE * (2 + usize::try_from(began.elapsed().as_secs()).unwrap());
    assert!(admitted <= most, "{admitted} of its requests were answered, {most} were its due");
    assert!(admitted >= RATE, "its own rate it does get: {admitted}");
}

#[test]
fn ten_thousand_connections_are_served_and_leave_room_for_one_more() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let many = MANY.min(usize::try_from(most.saturating_sub(300)).unwrap_or(MANY));
    if many < MANY {
        eprintln!(
            "SCALED DOWN: {many} connections, not {MANY}; this machine allows {most} open files (ulimit -Hn)"
        );
    }
    let home = home::home();
    let tqs = start(home.path());
    let mut all: Vec<Raw> = (0..many).map(|_| Raw::connect(home.path(), "agent.sock")).collect();
    for raw in &mut all {
        raw.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        raw.0.write_all(&hello()).unwrap();
    }
    for (index, raw) in all.iter_mut().enumerate() {
        assert!(raw.receive().is_some_and(|hello| hello["codec"] == "json"), "connection {index}");
    }
    for index in [0, many / 2, many - 1] {
        let drawn = all[index].call("dequeueToken", json!({"tool": "search", "waitMs": 10_000}));
        assert!(drawn["result"]["token"].is_string(), "connection {index}: {drawn}");
    }
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    drop(all);
    // Asked, not counted: listing the descriptors of a process ten thousand times holds up their closing.
    wait_until("the daemon lets go of closed connections", || {
        let metrics = crate::sidecar::get(home.path(), "/metrics").1;
        metrics.lines().any(|line| line == "obol_connections 0")
    });
    wait_until("and of their descriptors", || open_descriptors(&tqs) < 100);
}

#[test]
fn hoarded_connections_make_room_for_others_if_they_are_silent() {
    let full = |idle: &str| {
        let home = home::home();
        let tqs = start_as(home.path(), &[], |command| {
            command.env("OBOL_TQS__CONNECTIONS", "8").env("OBOL_TQS__IDLE", idle);
        });
        // The one that Tqs::start_as tried the door with may take a moment to go.
        wait_until("the daemon is alone", || {
            let mut control = tqs.control();
            control.health().is_ok() && open_sockets(&tqs) <= 7
        });
        (home, tqs)
    };
    let (home, _tqs) = full("3600");
    let kept: Vec<_> = (0..8).map(|_| Raw::greeted(home.path(), "agent.sock")).collect();
    let mut one_more = Raw::connect(home.path(), "agent.sock");
    let _refused_before_it = one_more.0.write_all(&hello());
    assert_eq!(one_more.receive().unwrap()["error"]["code"], "OVERLOADED");
    drop(kept);

    let (home, _tqs) = full("0");
    let mut hoard: Vec<_> = (0..8).map(|_| Raw::greeted(home.path(), "agent.sock")).collect();
    let mut one_more = Raw::greeted(home.path(), "agent.sock");
    assert!(one_more.call("sessionInfo", json!({}))["result"].is_object());
    let gone = |raw: &mut Raw| raw.0.read(&mut [0; 1]).is_ok_and(|read| read == 0);
    for raw in &mut hoard {
        raw.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    assert_eq!(hoard.iter_mut().filter_map(|raw| gone(raw).then_some(())).count(), 1);
}

fn open_sockets(tqs: &Tqs) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", tqs.pid())).unwrap();
    let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn without_descriptors_the_open_connections_go_on_and_new_ones_wait_until_there_are_some() {
    let home = home::home();
    let tqs = start(home.path());
    let mut open = tqs.client();
    open.dequeue_token(&tool("search"), PATIENCE).unwrap();
    let pid = Pid::from_raw(i32::try_from(tqs.pid()).unwrap());
    let before =
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(open_descriptors(&tqs)), maximum: None });
    let before = before.unwrap_or_else(|_| {
        // Raising the hard limit needs a privilege; keep the one there is.
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(open_descriptors(&tqs)), maximum }).unwrap()
    });
    // As many as it takes to use up what a descriptor that was closed meanwhile left over.
    let mut waiting: Vec<_> = (0..8).map(|_| Raw::connect(home.path(), "agent.sock")).collect();
    tqs.wait_for_log("cannot accept connections for now");
    for _ in 0..5 {
        open.dequeue_token(&tool("search"), PATIENCE).unwrap();
    }
    prlimit(pid, Resource::Nofile, before).unwrap();
    for raw in &mut waiting {
        raw.0.write_all(&hello()).unwrap();
        assert_eq!(raw.receive().unwrap()["codec"], "json");
    }
    tqs.wait_for_log("connections are accepted again");
    assert_eq!(
        tqs.log().matches("cannot accept connections").count(),
        1,
        "said once, not twenty times a second"
    );
}

#[test]
fn half_requests_and_half_hellos_have_an_end_and_hold_up_nobody() {
    let home = home::home();
    let tqs = start(home.path());
    let mut silent = Raw::connect(home.path(), "agent.sock");
    let mut half = Raw::greeted(home.path(), "agent.sock");
    half.0.write_all(&request(1, "sessionInfo")[..9]).unwrap();
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    for raw in [&mut silent, &mut half] {
        raw.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    }
    let late = half.receive().unwrap();
    assert_eq!(late["error"]["data"]["code"], "INVALID_ARGUMENT");
    assert!(late["error"]["message"].as_str().unwrap().contains("did not arrive"), "{late}");
    assert!(half.receive().is_none() && silent.receive().is_none(), "both are closed");
}

#[test]
fn a_peer_that_never_reads_its_answers_is_held_back_by_its_own_socket() {
    let home = home::home();
    let tqs = start(home.path());
    let mut deaf = Raw::greeted(home.path(), "agent.sock");
    deaf.0.set_nonblocking(true).unwrap();
    let flood = (0..1000).flat_map(|id| request(id, "tokenStatus")).collect::<Vec<_>>();
    let mut taken = 0;
    // Until the socket has taken nothing for a while, although the daemon had every opportunity.
    let mut idle_rounds = 0;
    while idle_rounds < 20 {
        match deaf.0.write(&flood[taken % flood.len()..]) {
            Ok(count) => {
                taken += count;
                idle_rounds = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                tqs.client().session_info().unwrap();
                idle_rounds += 1;
            }
        }
        assert!(taken < 16 << 20, "the daemon goes on reading what it cannot answer");
    }
}

#[test]
fn a_connection_that_is_to_make_room_and_reads_nothing_is_cut_off() {
    let home = home::home();
    let tqs = start_as(home.path(), &[], |command| {
        command.env("OBOL_TQS__CONNECTIONS", "8").env("OBOL_TQS__IDLE", "0");
    });
    let mut deaf = Raw::greeted(home.path(), "agent.sock");
    deaf.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let flood = (0..1000).flat_map(|id| request(id, "tokenStatus")).collect::<Vec<_>>();
    let stuck = (0..1000).find_map(|_| deaf.0.write_all(&flood).err()).expect("the daemon stops reading it");
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    let others: Vec<_> = (1..8).map(|_| Raw::greeted(home.path(), "agent.sock")).collect();
    let full = open_sockets(&tqs);

    let mut one_more = Raw::greeted(home.path(), "agent.sock");
    assert!(one_more.call("sessionInfo", json!({}))["result"].is_object());
    wait_until("it is gone, and nobody else is", || open_sockets(&tqs) == full);
    // What was written before can be read; then the stream ends, or breaks because what it had sent was never read.
    let end = deaf.0.read_to_end(&mut Vec::new());
    assert!(
        end.as_ref().is_ok_and(|read| *read > 0)
            || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    );
    drop(others);
}

#[test]
fn another_user_is_turned_away_even_with_every_door_open() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let home = home::home();
    let tqs = start(home.path());
    if std::fs::metadata(home.path()).unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can connect as another user; run this test as root");
        return;
    }
    for path in ["", "run", "run/obol", "run/obol/agent.sock", "run/obol/control.sock", "run/obol/http.sock"]
    {
        std::fs::set_permissions(home.path().join(path), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket,sys\n\
                  for path in sys.argv[1:]:\n\
                  \ts=socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(path)\n\
                  \ttry:\n\
                  \t\ts.sendall(b'GET /metrics HTTP/1.1\\r\\n\\r\\n'); got=s.recv(1000)\n\
                  \texcept (ConnectionResetError, BrokenPipeError): got=b''\n\
                  \tassert not got or b'USER_NOT_SERVED' in got, (path, got)\n";
    let mut stranger = Command::new("python3");
    std::os::unix::process::CommandExt::uid(&mut stranger, 65_534);
    let sockets =
        ["agent.sock", "control.sock", "http.sock"].map(|name| home.path().join("run/obol").join(name));
    let outcome = stranger.args(["-c", script]).args(sockets).current_dir("/").output().unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    let told = || tqs.log().matches("a user who is not served was turned away").count();
    wait_until("both sockets tell", || told() >= 2);
    assert_eq!(told(), 2, "{}", tqs.log());
}

/// Agent and sidecar may be two containers: then the system tells neither of them the number of the other's process, and its user
/// all the same.
#[test]
fn an_agent_in_another_name_space_of_processes_draws() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a name space of processes; run this test as root");
        return;
    }
    let home = home::home();
    let _tqs = start(home.path());
    let mut apart = home::command_of("/usr/bin/unshare".as_ref(), home.path());
    let drawn =
        apart.args(["--pid", "--fork"]).arg(home::obol()).args(["dequeue", "search"]).output().unwrap();
    assert!(drawn.status.success(), "{drawn:?}");
    assert!(!drawn.stdout.is_empty());
}
