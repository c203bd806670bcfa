//! Somebody between agent and service, who reads and changes what goes through.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use obol_session::Suite;
use obol_uplink::UplinkOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Running, code, free_port, now};

/// What is done to a request: `None` lets it pass with these bytes, `Some` answers in the service's place.
type Change = dyn Fn(&str, &mut Vec<u8>) -> Option<Vec<u8>> + Send + Sync;

/// Passes on one request of each connection, changed, and its answer; loses the first answers on a path.
pub(super) struct Between {
    pub(super) address: SocketAddr,
}

impl Between {
    /// Listens where agents believe the service to be.
    pub(super) async fn start(
        known: SocketAddr,
        service: SocketAddr,
        change: Arc<Change>,
        lose: Arc<AtomicUsize>,
    ) -> Self {
        let listener = TcpListener::bind(known).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (change, lose) = (Arc::clone(&change), Arc::clone(&lose));
                tokio::spawn(async move {
                    // A connection that ends is the attack's or the test's end.
                    let _ended = pass(stream, service, &*change, &lose).await;
                });
            }
        });
        Self { address: known }
    }
}

async fn pass(
    mut agent: TcpStream,
    service: SocketAddr,
    change: &Change,
    lose: &AtomicUsize,
) -> std::io::Result<()> {
    let mut service = TcpStream::connect(service).await?;
    loop {
        let (head, mut body) = message(&mut agent).await?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if let Some(answer) = change(&path, &mut body) {
            agent.write_all(&answer).await?;
            continue;
        }
        service.write_all(head.as_bytes()).await?;
        service.write_all(&body).await?;
        let (head, body) = message(&mut service).await?;
        if path == "/v1/sessions" && lose.load(Ordering::SeqCst) > 0 {
            lose.fetch_sub(1, Ordering::SeqCst);
            return Ok(());
        }
        agent.write_all(head.as_bytes()).await?;
        agent.write_all(&body).await?;
    }
}

/// One HTTP message: its head with the empty line, and its body.
async fn message(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

fn problem(code: &str, more: &str) -> Vec<u8> {
    let body = format!(r#"{{"code":"{code}","detail":"x"{more}}}"#);
    format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A service, and somebody before it who changes requests.
async fn attacked(change: Arc<Change>, lose: usize) -> (Running, Arc<AtomicUsize>) {
    let (known, real) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let service = Running::with(folder, known, &Suite::ALL, Some(real)).await;
    let lose = Arc::new(AtomicUsize::new(lose));
    let between = Between::start(known, real, change, Arc::clone(&lose)).await;
    assert_eq!(between.address, known);
    (service, lose)
}

fn sessions(service: &Running) -> usize {
    let agent = service.authority.directory().agent("builder").unwrap().unwrap();
    service.authority.directory().sessions(&agent.id).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_refusal_of_the_best_suite_is_noticed() {
    let on = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&on);
    let forge = move |path: &str, body: &mut Vec<u8>| {
        let hybrid = path == "/v1/handshake" && body.get(2) == Some(&4);
        (switch.load(Ordering::SeqCst) == 1 && hybrid).then(|| problem("SUITE", r#","suites":[1,2]"#))
    };
    let (service, _) = attacked(Arc::new(forge), 0).await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    on.store(1, Ordering::SeqCst);
    let error = agent.authenticate(None, now()).await.unwrap_err();
    assert_eq!(code(&error), "DOWNGRADE", "{error}");
    assert_eq!(sessions(&service), 0, "nothing was sent");
    on.store(0, Ordering::SeqCst);
    assert_eq!(agent.authenticate(None, now()).await.unwrap().half.suite, Suite::HybridAesGcm);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_was_stripped_ends_the_handshake() {
    let on = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&on);
    let strip = move |path: &str, body: &mut Vec<u8>| {
        if switch.load(Ordering::SeqCst) == 1 && path == "/v1/handshake" {
            // Suite 4 is in use; the offer of suite 3 is taken out.
            body[3] &= !0b0100;
        }
        None
    };
    let (service, _) = attacked(Arc::new(strip), 0).await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    on.store(1, Ordering::SeqCst);
    assert_eq!(code(&agent.authenticate(None, now()).await.unwrap_err()), "MALFORMED");
    assert_eq!(sessions(&service), 0);
    on.store(0, Ordering::SeqCst);
    agent.authenticate(None, now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_and_costs_no_second_session_and_no_alarm() {
    let (service, lose) = attacked(Arc::new(|_: &str, _: &mut Vec<u8>| None), 0).await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    agent.authenticate(None, now()).await.unwrap();
    lose.store(2, Ordering::SeqCst);
    let session = agent.authenticate(None, now()).await.unwrap();
    assert_eq!(lose.load(Ordering::SeqCst), 0);
    assert_eq!(sessions(&service), 2);
    assert!(service.authority.directory().half(session.half.session_id, "https://a").unwrap().is_some());
    // Lost for good: the session is there, and the agent does not know. The next one raises no alarm.
    lose.store(100, Ordering::SeqCst);
    assert_eq!(code(&agent.authenticate(None, now()).await.unwrap_err()), "AUTHORITY_UNREACHABLE");
    lose.store(0, Ordering::SeqCst);
    agent.authenticate(None, now()).await.unwrap();
    assert_eq!(sessions(&service), 4);
    assert!(!service.authority.directory().agent("builder").unwrap().unwrap().clone_suspected);
}
