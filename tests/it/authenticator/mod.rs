//! An agent and everything around it, with real processes and sockets: the Authentication Service, the authenticator, the
//! sidecar, and a resource server that knows what the service tells it and nothing else.

mod audit;
mod ends;
mod fetching;
mod kills;
mod lease;
mod leaving;
mod renewal;
mod sdk;
mod second;
mod story;
mod strangers;
mod supervisor;

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use obol_authority::directory::{Agent, EndScope, Human, Person, RedbDirectory, SessionRow};
use obol_authority::http::{Handle, Options as ServiceOptions};
use obol_authority::id::UserCode;
use obol_authority::{Authority, Decided, Decider, Moment, Now, Parts, Route, Settings, Undecided};
use obol_client::{AuthClient, Client, ConnectOptions};
use obol_handshake::AuthoritySecret;
use obol_ipc::Endpoint;
use obol_ipc::auth::AuthStatusResult;
use obol_ipc::names::{PeerName, ToolName};
use obol_secret::key::Key32;
use obol_secret::text::to_hex;
use obol_session::{Grant, SessionId};
use obol_token::Audience;
use obol_verify::{
    Arguments, MemorySessionTable, MemorySpentSet, Request, SessionStore, SystemClock, Unverified, Verifier,
};
use obol_world::home::{self, PATIENCE, command, free_port, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The resource server that is there in these tests.
const SERVER: &str = "https://a";

/// Where requests with the tool `search` are sent, where they are.
static GATEWAY: OnceLock<String> = OnceLock::new();

/// Grants two tools to whoever has the role `dev`.
#[derive(Debug)]
struct Plain;

impl Decider for Plain {
    fn decide(&self, agent: &Agent, _owner: &Person, _moment: Moment) -> Result<Decided, Undecided> {
        let grant = |tool: &str, audience: &str, pop: bool| -> Grant {
            let fields = json!({
                "tool": tool, "aud": audience, "action": "call", "resource": "**", "trust_level": 2, "require_pop": pop,
                // Sessions of a few seconds have room for such tokens alone.
                "ttl": 4,
            });
            serde_json::from_value(fields).unwrap()
        };
        let all = || {
            vec![
                grant("search", SERVER, false),
                grant("sign", SERVER, true),
                grant("pay", "https://b", false),
            ]
        };
        let is_dev = agent.roles.iter().any(|role| role == "dev");
        let route = |via: &String| Route {
            tool: "search".to_owned(),
            aud: SERVER.to_owned(),
            url: None,
            method: None,
            path: "/v1/**".to_owned(),
            via: Some(via.clone()),
        };
        let routes = GATEWAY.get().map(route).into_iter().collect();
        let grants = if is_dev { all() } else { Vec::new() };
        Ok(Decided { grants, routes, ..Decided::default() })
    }

    fn may_register(&self, _: &Person, _: &str, _: &[String], _: &str, _: u64) -> Result<bool, Undecided> {
        Ok(true)
    }
}

fn moment() -> Now {
    Now { ms: now() * 1_000 }
}

fn anna() -> Human {
    Human::local("anna")
}

/// A service in this process, with its directory in a file.
struct Service {
    runtime: Runtime,
    authority: Arc<Authority>,
    handle: Handle,
    task: JoinHandle<obol_authority::http::Ended>,
}

impl Service {
    fn start(folder: &Path, address: SocketAddr, session_secs: u64, lease: Duration) -> Self {
        let settings = Settings::new(&format!("http://{address}"), "example").unwrap();
        let settings = settings.session_secs(session_secs).unwrap().lease_secs(lease.as_secs()).unwrap();
        let key = Key32::load_or_create(folder.join("authority.key")).unwrap();
        let master = Key32::load_or_create(folder.join("authority-master.key")).unwrap();
        let parts = Parts {
            settings,
            directory: Arc::new(RedbDirectory::open(&folder.join("authority.redb"), &master).unwrap()),
            decider: Arc::new(Plain),
            key: AuthoritySecret::from_bytes(key.expose()),
            code_key: [3; 32],
            audit: None,
        };
        let authority = Arc::new(Authority::new(parts, moment()).unwrap());
        let runtime = Runtime::new().unwrap();
        let options = ServiceOptions::new(address).rate(None);
        let service = runtime.block_on(options.bind(Arc::clone(&authority))).unwrap();
        let handle = service.handle();
        let task = runtime.spawn(service.run(core::future::pending()));
        Self { runtime, authority, handle, task }
    }

    fn stop(self) {
        let Self { runtime, authority, handle, task } = self;
        handle.stop();
        let _ended = runtime.block_on(task).unwrap();
        drop((authority, handle));
        runtime.shutdown_timeout(PATIENCE);
    }
}

/// A resource server in this process: it knows the halves that the service has for it.
struct Server {
    sessions: Arc<MemorySessionTable>,
    verifier: Verifier,
}

impl Server {
    fn new() -> Self {
        let (clock, sessions) = (Arc::new(SystemClock::new()), Arc::new(MemorySessionTable::new()));
        let spent = Arc::new(MemorySpentSet::unfenced(clock, 120));
        let audience = Audience::new(SERVER).unwrap();
        let verifier = Verifier::builder(audience, Arc::clone(&sessions) as Arc<_>, spent).build().unwrap();
        Self { sessions, verifier }
    }

    /// Presents a token: its session, or the code of the refusal.
    fn present(&self, authority: Option<&Authority>, token: &str, tool: &str) -> Result<SessionId, String> {
        let token = Unverified::from_text(token.as_bytes()).unwrap();
        let id = token.claimed_session_id();
        if let Some(half) = authority.and_then(|authority| authority.directory().half(id, SERVER).unwrap()) {
            let _known_already = SessionStore::add(&*self.sessions, &half, now());
        }
        let request = Request {
            action: Some("call"),
            resource: Some("x"),
            arguments: Arguments::Plain(None),
            ..Request::new(tool)
        };
        let verified = token.verify(&self.verifier, &request);
        let spent = verified.and_then(|verified| verified.spend().wait());
        spent.map(|_| id).map_err(|denial| denial.code.as_str().to_owned())
    }
}

/// All of it, in a home of its own.
struct World {
    home: tempfile::TempDir,
    address: SocketAddr,
    session_secs: u64,
    lease: Duration,
    service: Option<Service>,
    server: Server,
}

impl World {
    fn new(session_secs: u64) -> Self {
        Self::with_lease(session_secs, Duration::from_secs(300))
    }

    fn with_lease(session_secs: u64, lease: Duration) -> Self {
        home::obol();
        let home = home::home();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let service = Some(Service::start(home.path(), address, session_secs, lease));
        Self { home, address, session_secs, lease, service, server: Server::new() }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn authority(&self) -> &Authority {
        &self.service.as_ref().unwrap().authority
    }

    /// The service as agents pin it.
    fn pinned(&self) -> String {
        format!("http://{}#{}", self.address, to_hex(&self.authority().key().0))
    }

    fn stop_service(&mut self) {
        self.service.take().unwrap().stop();
    }

    fn start_service(&mut self) {
        self.service = Some(Service::start(self.home.path(), self.address, self.session_secs, self.lease));
    }

    fn tqs(&self) -> Tqs {
        Tqs::start(self.path(), &[])
    }

    fn authenticator(&self) -> Authenticator {
        Authenticator::start(self.path(), &["--url", &self.pinned()])
    }

    /// Runs a command of the agent or of its operator.
    fn obol(&self, arguments: &[&str]) -> Output {
        command(self.path()).args(arguments).output().unwrap()
    }

    fn obol_json(&self, arguments: &[&str]) -> Value {
        let output = self.obol(arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Does what a human does who typed the code and compared the words.
    fn approve(&self, code: &str, words: &str) {
        let authority = self.authority();
        let review = authority.review(&UserCode::parse(code).unwrap(), moment()).unwrap();
        assert_eq!(review.words, words, "both sides show the same words");
        authority.approve(&review, &["dev".to_owned()], None, anna(), moment()).unwrap();
    }

    /// Has the agent registered and approved, and waits for its first session.
    fn register(&self) -> AuthStatusResult {
        let asked = self.obol_json(&["register", "--name", "builder", "--role", "dev", "--json"]);
        assert_eq!(asked["state"], "waiting", "{asked}");
        self.approve(asked["code"].as_str().unwrap(), asked["words"].as_str().unwrap());
        self.wait_for("a session", |status| status.session.is_some())
    }

    fn auth(&self) -> AuthClient {
        let endpoint = Endpoint::at(auth_socket(self.path())).unwrap();
        AuthClient::connect(endpoint, options()).unwrap()
    }

    fn status(&self) -> AuthStatusResult {
        self.auth().auth_status().unwrap()
    }

    /// Waits until the authenticator's status is so.
    fn wait_for(&self, what: &str, is: impl Fn(&AuthStatusResult) -> bool) -> AuthStatusResult {
        let mut last = None;
        wait_until(what, || {
            let connected =
                Endpoint::at(auth_socket(self.path())).map(|at| AuthClient::connect(at, options()));
            last = connected.unwrap().ok().and_then(|mut client| client.auth_status().ok());
            last.as_ref().is_some_and(&is)
        });
        last.unwrap()
    }

    fn agent(&self) -> Agent {
        self.authority().directory().agent("builder").unwrap().unwrap()
    }

    /// The agent's sessions at the service.
    fn sessions(&self) -> Vec<SessionRow> {
        self.authority().directory().sessions(&self.agent().id).unwrap()
    }

    fn disable(&self) {
        let scope = EndScope::Agent("builder".to_owned());
        self.authority().end(&scope, "test", &anna(), moment()).unwrap();
    }

    fn enable(&self) {
        self.authority().enable_agent("builder", &anna(), moment()).unwrap();
    }

    /// Presents a token at the resource server.
    fn present(&self, token: &str) -> Result<SessionId, String> {
        self.server.present(self.service.as_ref().map(|service| &*service.authority), token, "search")
    }

    fn draw(&self, client: &mut Client) -> Result<String, obol_client::CallError> {
        let tool = ToolName::new("search").unwrap();
        client.dequeue_token(&tool, Duration::from_secs(5)).map(|drawn| drawn.token.expose().to_owned())
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::new(PeerName::new("obol-tests/1").unwrap())
}

fn auth_socket(home: &Path) -> PathBuf {
    home.join("run/obol/auth.sock")
}

/// A running `obol authenticator`, killed when dropped.
pub(crate) struct Authenticator {
    child: Child,
    home: PathBuf,
}

impl Authenticator {
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut command = command(home);
        command.arg("authenticator").args(arguments);
        Self::run(home, &mut command)
    }

    fn run(home: &Path, command: &mut Command) -> Self {
        let log = home.join("authenticator.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let mut running = Self { child, home: home.to_owned() };
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(auth_socket(home)).is_err() {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("obol authenticator ended with {status}: {}", running.log());
            }
            assert!(Instant::now() < deadline, "obol authenticator does not answer: {}", running.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("authenticator.log")).unwrap_or_default()
    }

    /// SIGKILL, as hard as a process can end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    fn terminate(mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        // Ours by its handle; ended already is fine.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn an_agent_is_approved_authenticates_draws_and_is_accepted_once() {
    let world = World::new(900);
    let tqs = world.tqs();
    let authenticator = world.authenticator();
    assert_eq!(world.obol(&["auth", "status"]).status.code(), Some(5), "it is not registered");
    let refused = world.obol(&["authenticate", "--json"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("NOT_REGISTERED"), "{refused:?}");

    // The same answer while a human has yet to decide, and the words that the human sees.
    let asked = world.obol_json(&["register", "--name", "builder", "--role", "dev", "--json"]);
    let again = world.obol_json(&["register", "--name", "builder", "--role", "dev", "--json"]);
    assert_eq!(asked, again);
    let (code, words) = (asked["code"].as_str().unwrap(), asked["words"].as_str().unwrap());
    let mut waiting = command(world.path());
    waiting.args(["register", "--name", "builder", "--wait"]).stdout(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    let pending = world.obol(&["authenticate", "--json"]);
    assert!(String::from_utf8_lossy(&pending.stderr).contains("APPROVAL_PENDING"), "{pending:?}");
    world.approve(code, words);
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success());
    let told = String::from_utf8(waited.stdout).unwrap();
    let id = world.agent().id.to_string();
    assert!(told.contains(code) && told.contains(words) && told.contains(&id), "{told}");

    // It authenticates by itself once it may, and says where tokens can go.
    let status = world.wait_for("a session", |status| status.session.is_some());
    assert_eq!(world.obol(&["auth", "status"]).status.code(), Some(0));
    let routes: Vec<_> =
        status.routes.iter().map(|route| (route.audience.to_string(), route.tools.len())).collect();
    assert_eq!(routes, [(SERVER.to_owned(), 2), ("https://b".to_owned(), 1)]);
    assert!(status.skew_seconds.is_some_and(|skew| skew.abs() <= 1), "{status:?}");

    let token = world.draw(&mut tqs.client()).unwrap();
    let session = status.session.unwrap();
    assert_eq!(world.present(&token), Ok(session.session_id));
    assert_eq!(world.present(&token), Err("TOKEN_REPLAYED".to_owned()));

    // Whoever asks for a session that is seconds old gets that one; the sidecar's agents see it as theirs.
    let opened = world.obol_json(&["authenticate", "--if-needed", "--json"]);
    assert_eq!(opened["sessionId"], session.session_id.to_string());
    assert_eq!(world.obol_json(&["session", "--json"])["agentInstanceId"], id.as_str());
    assert!(!authenticator.log().contains(" ERROR "), "{}", authenticator.log());
    assert_eq!(authenticator.terminate(), Some(0));
}

#[test]
fn the_key_for_proofs_is_the_sidecars_and_the_service_tells_its_public_half() {
    let world = World::new(900);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    let session = world.register().session.unwrap();
    let half = world.authority().directory().half(session.session_id, SERVER).unwrap().unwrap();
    let public = ed25519_dalek::VerifyingKey::from_bytes(&half.pop_pub.unwrap()).unwrap();
    let hash = obol_ipc::proof::ArgumentsHash::from_bytes([7; 32]);
    let tool = ToolName::new("sign").unwrap();
    let drawn = tqs.client().dequeue_token_with_proof(&tool, None, hash, PATIENCE / 4).unwrap();
    let token = Unverified::from_text(drawn.token.expose().as_bytes()).unwrap();
    let (id, jti) = (token.claimed_session_id(), token.claimed_jti());
    let transcript = obol_token::possession_transcript(id, &jti, &[7; 32]);
    let proof = ed25519_dalek::Signature::from_bytes(drawn.pop.unwrap().sig.as_bytes());
    public.verify_strict(&transcript, &proof).unwrap();
}

#[test]
fn an_invited_agent_needs_no_human_and_what_the_operator_set_stays() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let pinned = world.pinned();
    let mut command = command(world.path());
    command.args(["authenticator", "--url", &pinned]).env("OBOL_AUTHENTICATOR__NAME", "builder");
    let _authenticator = Authenticator::run(world.path(), &mut command);
    let refused = world.obol(&["register", "--name", "admin"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("authenticator.name"), "{refused:?}");
    let invited = world.authority().invite("agent", &["dev".to_owned()], 1, 60, anna(), moment()).unwrap();
    home::write_private(&world.path().join("ticket"), &invited.ticket.to_text());
    let told = world.obol_json(&["register", "--ticket-file", "ticket", "--json"]);
    assert_eq!(
        (told["state"].as_str(), told["agentId"].as_str()),
        (Some("active"), Some(world.agent().id.to_string().as_str()))
    );
    world.wait_for("a session", |status| status.session.is_some());
}

#[test]
fn a_human_who_says_no_is_told_and_another_registration_may_follow() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let _authenticator = world.authenticator();
    let asked = world.obol_json(&["register", "--name", "builder", "--json"]);
    let code = UserCode::parse(asked["code"].as_str().unwrap()).unwrap();
    let review = world.authority().review(&code, moment()).unwrap();
    world.authority().deny(review.registration.id, false, &anna(), moment()).unwrap();
    wait_until("it is told", || {
        world.auth().registration_status().unwrap().state != obol_ipc::auth::RegistrationState::Waiting
    });
    let refused = world.obol(&["authenticate", "--json"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("APPROVAL_DENIED"), "{refused:?}");
    // Not at once again: a human reads each.
    let soon = world.obol(&["register", "--name", "builder"]);
    assert_eq!(soon.status.code(), Some(4), "{soon:?}");
}

#[test]
fn a_session_longer_than_a_frame_reaches_the_sidecar_whole_or_not_at_all() {
    let home = home::home();
    let tqs = Tqs::start(home.path(), &[]);
    let tools: Vec<String> = (0..2_000).map(|number| format!("tool-{number:04}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    let session = obol_world::halves::AgentSession::new(1, now(), &tools);
    let text = session.agent_json().to_string();
    assert!(text.len() > 2 * obol_ipc::frame::MAX_BODY_BYTES, "{}", text.len());
    let mut control = tqs.control();
    // Half of it, and then something else: nothing is there.
    let cut = &text[..text.len() - 1];
    assert!(control.provision_in_parts(cut, None).is_err());
    let unknown = obol_ipc::proof::PopPublic::from_bytes([7; 32]);
    let refused = control.provision_in_parts(&text, Some(unknown)).unwrap_err();
    assert!(refused.to_string().contains("popPub"), "{refused}");
    assert!(control.status().unwrap().sessions.is_empty());
    let public = control.pop_key().unwrap();
    let done = control.provision_in_parts(&text, Some(public)).unwrap();
    assert_eq!((done.session_id.to_string(), done.grants), (session.session_id.clone(), 2_000));
    let tool = ToolName::new("tool-1999").unwrap();
    assert!(tqs.client().dequeue_token(&tool, PATIENCE / 4).is_ok());
    // The key was given away with it.
    let other = obol_world::halves::AgentSession::new(2, now(), &["search"]).agent_json().to_string();
    assert!(control.provision_in_parts(&other, Some(public)).is_err());
}
