//! What bodies of strangers cost a resource server: in places, in memory, in time and in work.

use core::time::Duration;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use obol_token::text::to_base64url;
use obol_world::forge::Forge;
use obol_world::home;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::{TOOL, now};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::resource::{fetch, post};

const PATIENCE: Duration = Duration::from_secs(60);
/// Connections of a stranger; more than there are places for bodies.
const MANY: usize = 1_100;
/// A body that is nearly as long as they may be.
const LONG: usize = (1 << 20) - 1_024;

fn start(home: &Path) -> RsProcess {
    write_sessions(home, now());
    RsProcess::start(home, &["--spent", "memory", "--first-start"])
}

fn fresh(number: u64) -> String {
    let forge = Forge::standard(number).with(|token| {
        token.issued_at = now();
        token.expires_at = token.issued_at + 60;
    });
    to_base64url(&forge.token())
}

fn address(rs: &RsProcess) -> core::net::SocketAddr {
    ([127, 0, 0, 1], rs.port()).into()
}

/// A call that is in order, with arguments of about this many bytes.
fn call(number: u64, arguments: usize) -> String {
    let text = "x".repeat(arguments);
    json!({
        "token": fresh(number), "tool": TOOL, "action": "read", "resource": "docs/a", "arguments": {"text": text}
    })
    .to_string()
}

fn announce(rs: &RsProcess, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address(rs)).unwrap();
    let head = format!("POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n");
    // Turned away is as good.
    let _refused = stream.write_all(head.as_bytes());
    stream
}

/// As many open files as there may be.
fn open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

#[test]
fn bodies_that_are_announced_and_never_sent_keep_nobody_out() {
    open_files();
    let home = home::home();
    let rs = start(home.path());
    let announced: Vec<_> = (0..MANY).map(|_| announce(&rs, 10)).collect();
    for number in 0..20 {
        assert_eq!(post(address(&rs), "/v1/verify", &call(number, 10)).status, 200, "call {number}");
        let headers = [
            ("Authorization", &*format!("TBAC {}", fresh(100 + number))),
            ("X-Obol-Tool", TOOL),
            ("X-Obol-Action", "read"),
            ("X-Obol-Resource", "docs/a"),
        ];
        assert_eq!(fetch(address(&rs), "/v1/authorize", &headers).status, 200, "call {number}");
    }
    drop(announced);
}

#[test]
fn bodies_that_lack_a_byte_hold_a_bounded_amount_of_memory_and_keep_no_long_call_out() {
    open_files();
    let home = home::home();
    let rs = start(home.path());
    assert_eq!(post(address(&rs), "/v1/verify", &call(1, LONG - 2_000)).status, 200);
    let before = rs.resident_bytes();
    let body = vec![b'0'; (1 << 20) - 1];
    let mut half: Vec<(TcpStream, usize)> = Vec::new();
    let (mut most, began) = (0, Instant::now());
    for _ in 0..1_000 {
        let stream = announce(&rs, 1 << 20);
        stream.set_nonblocking(true).unwrap();
        half.push((stream, 0));
        push(&mut half, &body);
        most = most.max(rs.resident_bytes().saturating_sub(before));
    }
    // All that it takes within a while, however slowly it does.
    while began.elapsed() < Duration::from_secs(8) && push(&mut half, &body) {
        most = most.max(rs.resident_bytes().saturating_sub(before));
    }
    assert!(most < 64 << 20, "{} MiB", most >> 20);
    assert_eq!(post(address(&rs), "/v1/verify", &call(2, LONG - 2_000)).status, 200);
}

/// Sends what goes; whether anything did.
fn push(half: &mut Vec<(TcpStream, usize)>, body: &[u8]) -> bool {
    let mut moved = false;
    half.retain_mut(|(stream, sent)| match stream.write(&body[*sent..]) {
        Ok(0) => true,
        Ok(count) => {
            *sent += count;
            moved = true;
            true
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    });
    if !moved {
        std::thread::sleep(Duration::from_millis(5));
    }
    moved || half.iter().any(|(_, sent)| *sent < body.len())
}

#[test]
fn a_body_that_trickles_is_ended_by_its_rate_and_one_that_takes_a_rest_is_not() {
    let home = home::home();
    let rs = start(home.path());
    let body = call(1, 10);
    let mut rests = announce(&rs, body.len());
    rests.write_all(&body.as_bytes()[..10]).unwrap();
    let (mut trickles, began) = (announce(&rs, 100_000), Instant::now());
    trickles.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = [0; 12];
    let ended = loop {
        assert!(began.elapsed() < PATIENCE, "it has no end");
        let _refused = trickles.write_all(b"{");
        if trickles.read(&mut answer).is_ok_and(|count| count > 0) {
            break began.elapsed();
        }
        if began.elapsed() > Duration::from_secs(1) && !body.is_empty() {
            let _sent_before = rests.write_all(&body.as_bytes()[10..]);
        }
    };
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(ended > Duration::from_secs(1), "{ended:?}");
    // The limit of time alone would be 10 s.
    assert!(ended < Duration::from_secs(8), "{ended:?}");
    rests.set_read_timeout(Some(PATIENCE)).unwrap();
    rests.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Processor time that a process has used, in milliseconds.
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // A hundred ticks a second, whatever the kernel's own are.
    ticks * 10.0
}

/// A body of [`LONG`] bytes: a beginning, an end, and as much of something in between as it takes.
fn filled(start: &str, unit: &str, end: &str) -> String {
    let times = (LONG - start.len() - end.len()) / unit.len();
    format!("{start}{}{end}", unit.repeat(times))
}

#[test]
fn junk_costs_at_most_three_times_the_work_of_an_accepted_call_of_its_size() {
    const TIMES: u32 = 30;
    let home = home::home();
    let rs = start(home.path());
    let cost = |bodies: &mut dyn FnMut(u32) -> String, statuses: &[u16]| {
        let before = cpu_ms(rs.pid());
        for number in 0..TIMES {
            let answer = post(address(&rs), "/v1/verify", &bodies(number));
            assert!(statuses.contains(&answer.status), "{}: {}", answer.status, answer.text());
        }
        (cpu_ms(rs.pid()) - before) / f64::from(TIMES)
    };
    cost(&mut |number| call(u64::from(number), LONG - 2_000), &[200]);
    let accepted = cost(&mut |number| call(1_000 + u64::from(number), LONG - 2_000), &[200]).max(1.0);
    let names: Vec<_> = (0..98_000).map(|number| format!("\"{number:x}\":0")).collect();
    let forged = to_base64url(&Forge::standard(1).with(|token| token.bad_signature = true).token());
    let junk = [
        ("lists in lists", filled(r#"{"tool":"pay","arguments":{"a":[[]"#, ",[[[[[]]]]]", "]}}")),
        ("small objects", filled(r#"{"tool":"pay","arguments":{"a":[{}"#, r#",{"b":0}"#, "]}}")),
        ("many names", format!(r#"{{"tool":"pay","arguments":{{{}}}}}"#, names.join(","))),
        ("escapes", filled(r#"{"tool":"pay","arguments":{"a":""#, r"\\", r#""}}"#)),
        ("escapes apart", filled(r#"{"tool":"pay","arguments":{"a":""#, r"\na", r#""}}"#)),
        ("one number", filled(r#"{"tool":"pay","arguments":{"a":"#, "1", "}}")),
        ("blanks", filled("{", " ", "}")),
        ("an open end", filled(r#"{"arguments":["#, "[", "")),
        ("a forged token behind much", {
            filled(r#"{"tool":"pay","arguments":{"a":[{}"#, ",1", &format!(r#"]}},"token":"{forged}"}}"#))
        }),
        ("a token that is too long", filled(r#"{"tool":"pay","token":""#, "A", r#""}"#)),
    ];
    for (name, body) in junk {
        let ms = cost(&mut |_| body.clone(), &[400, 401]);
        assert!(ms <= 3.0 * accepted, "{name}: {ms:.1} ms, an accepted call {accepted:.1} ms");
    }
}

#[test]
fn values_and_depth_of_arguments_are_bounded_and_a_refused_call_burns_no_token() {
    let home = home::home();
    let rs = start(home.path());
    let call = |arguments: &Value| json!({"arguments": arguments, "token": fresh(1), "tool": TOOL, "action": "read", "resource": "docs/a"});
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let many = |values: usize| json!({"a": vec![0; values]});
    for (arguments, about) in [(many(40_000), "more values"), (json!({"a": nested(70)}), "inside each other")]
    {
        let answer = post(address(&rs), "/v1/verify", &call(&arguments).to_string());
        assert_eq!(answer.problem().0, 400);
        assert!(answer.json()["detail"].as_str().unwrap().contains(about), "{}", answer.text());
    }
    let mut within = many(30_000);
    within["deep"] = nested(60);
    assert_eq!(post(address(&rs), "/v1/verify", &call(&within).to_string()).status, 200);
}

#[test]
fn the_token_is_looked_at_before_the_rest_is_read() {
    let home = home::home();
    let rs = start(home.path());
    let stranger = Forge::standard(1).with(|token| token.bad_signature = true).text();
    for token in [json!(null), json!("rubbish"), json!(stranger)] {
        // None of the members is what it should be, and nobody is told.
        let body = json!({"arguments": [1], "action": 2, "pop": 3, "else": 4, "token": token}).to_string();
        let answer = post(address(&rs), "/v1/verify", &body);
        assert_eq!(answer.problem().0, 401, "{}", answer.text());
    }
    let body = json!({"arguments": [1], "tool": TOOL, "token": fresh(1)}).to_string();
    assert_eq!(post(address(&rs), "/v1/verify", &body).problem().0, 400, "who has one is told what is wrong");
    let escaped = call(1, 10).replace("\"token\"", "\"\\u0074oken\"");
    assert_eq!(post(address(&rs), "/v1/verify", &escaped).status, 200, "and may write it as JSON allows");
}
