//! Minting that fails, seen from the socket: how long it backs off is told to the agent and to the operator.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::codec::Codec;
use obol_ipc::names::PeerName;
use obol_ipc::refusal::ErrorCode;
use obol_probe::contract::Ended;
use obol_queue::{AgentHalf, MasterKey, Order, Queue, SourceError, TokenSource, Tokens};
use obol_sidecar::{Handle, Options};
use obol_world::halves::AgentSession;
use obol_world::home::{self, command, wait_until};
use obol_world::now;
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};

use crate::sidecar::{PATIENCE, Raw, tool};

/// What backing off comes to in the end (30 s), and by chance half as much again.
const LONGEST_WAIT_MS: u64 = 45_000;
/// More than a renewal that goes well says, which is a second at most.
const BACKED_OFF_MS: u64 = 1_001;

/// Makes tokens that are their numbers; those of `broken` only once it works again.
#[derive(Clone, Debug, Default)]
struct Source {
    works: Arc<AtomicBool>,
}

impl TokenSource for Source {
    fn mint(&self, order: &Order<'_>, tokens: &mut Tokens<'_>) -> Result<(), SourceError> {
        if order.tool() == "broken" && !self.works.load(Ordering::SeqCst) {
            return Err(SourceError::new("the authority does not answer"));
        }
        let numbers = order.first_number()..;
        (0..order.count()).zip(numbers).try_for_each(|(_, number)| tokens.push(&number.to_be_bytes()))
    }
}

/// A daemon whose tokens come from elsewhere, on the sockets of this home.
struct Sidecar {
    handle: Handle,
    thread: Option<JoinHandle<Ended>>,
}

impl Sidecar {
    fn start(home: &Path, source: &Source) -> Self {
        let queue = Queue::builder()
            .token_source(source.clone())
            .open_with(InMemoryBackend::new(), InMemoryBackend::new(), MasterKey::from_bytes([7; 32]))
            .unwrap();
        let document = AgentSession::new(1, now(), &["broken", "sound"]).agent_json().to_string();
        queue.provision(AgentHalf::from_json(document.as_bytes()).unwrap()).unwrap();
        let options = Options::new(at(home, "agent.sock"), at(home, "control.sock"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let service = runtime.block_on(options.bind(Arc::new(queue))).unwrap();
        let handle = service.handle();
        let run = move || runtime.block_on(service.run(core::future::pending()));
        Self { handle, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(Ended { cut_off: 0 }))) || std::thread::panicking());
    }
}

fn at(home: &Path, socket: &str) -> Endpoint {
    Endpoint::at(home.join("run/obol").join(socket)).unwrap()
}

fn options(codec: Codec) -> ConnectOptions {
    let mut options = ConnectOptions::new(PeerName::new("test/1").unwrap());
    options.codec = codec;
    options
}

fn status(raw: &mut Raw, params: Value) -> Value {
    raw.call("tokenStatus", params)["result"].clone()
}

/// Minting fails again and again: status and refusal tell a wait that grows, up to its bound.
fn tells_how_long_it_backs_off(client: &mut Client) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    // Failure after failure the wait grows; while one try is under way it is short.
    let status = loop {
        let status = client.token_status(Some(&tool("broken"))).unwrap();
        if status.retry_after_ms >= Some(BACKED_OFF_MS) {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.renewal_pending && status.session_active && status.queue_depth == 0, "{status:?}");
    assert!(status.retry_after_ms <= Some(LONGEST_WAIT_MS), "{status:?}");
    // The refusal says the same.
    let refused = client.dequeue_token(&tool("broken"), Duration::ZERO).unwrap_err();
    let code = refused.refusal().unwrap().code();
    let ErrorCode::QueueEmpty { renewal_pending: true, retry_after_ms } = code else { panic!("{refused:?}") };
    assert!(retry_after_ms <= LONGEST_WAIT_MS, "{refused:?}");
}

#[test]
fn how_long_minting_backs_off_is_told_over_both_sockets_and_ends_with_the_failure() {
    home::obol();
    let home = home::home();
    let source = Source::default();
    let _sidecar = Sidecar::start(home.path(), &source);
    let mut clients = [Codec::Json, Codec::Bincode]
        .map(|codec| Client::connect(at(home.path(), "agent.sock"), options(codec)).unwrap());
    for client in &mut clients {
        tells_how_long_it_backs_off(client);
    }

    // The other tool has all it needs, and then there is nothing to say of it: no member, not a null.
    let mut raw = Raw::greeted(home.path(), "agent.sock");
    clients[0].dequeue_token(&tool("sound"), PATIENCE).unwrap();
    wait_until("the sound tool is full", || {
        let sound = status(&mut raw, json!({"tool": "sound"}));
        sound["renewalPending"] == false && sound.get("retryAfterMs").is_none()
    });
    wait_until("of all tools the longest wait is told", || {
        let all = status(&mut raw, json!({}));
        assert_eq!(all["tools"]["broken"], 0, "{all}");
        assert_eq!(all["renewalPending"], true, "{all}");
        all["retryAfterMs"].as_u64() >= Some(BACKED_OFF_MS)
    });

    // The operator sees it for each tool, in JSON and in words.
    let mut control = ControlClient::connect(at(home.path(), "control.sock"), options(Codec::Json)).unwrap();
    wait_until("the operator's status tells it", || {
        let tools = control.status().unwrap().tools;
        let wait = |name: &str| tools.iter().find(|row| row.tool == tool(name)).unwrap().retry_after_ms;
        assert_eq!(wait("sound"), None);
        wait("broken") >= Some(BACKED_OFF_MS)
    });
    let shown = |arguments: &[&str]| {
        let output = command(home.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let row = |text: &str| text.lines().find(|line| line.starts_with("broken")).unwrap().to_owned();
    for arguments in [&["status"][..], &["status", "broken"]] {
        wait_until("the table says when", || {
            // A tool that nobody wants is let go cold, and then nothing is tried.
            clients[0].dequeue_token(&tool("broken"), Duration::ZERO).unwrap_err();
            row(&shown(arguments)).contains("again in ")
        });
    }
    let json: Value = serde_json::from_str(&shown(&["status", "broken", "--json"])).unwrap();
    assert!(json["retryAfterMs"].is_u64(), "{json}");

    source.works.store(true, Ordering::SeqCst);
    wait_until("a token comes", || clients[0].dequeue_token(&tool("broken"), Duration::from_secs(5)).is_ok());
    wait_until("nothing is pending", || {
        status(&mut raw, json!({"tool": "broken"})).get("retryAfterMs").is_none()
    });
}
