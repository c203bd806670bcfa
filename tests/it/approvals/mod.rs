//! A human's yes to one call: asked for by an agent, given by commands of the operator, accepted by resource servers that heard
//! of it, once. Service, sidecar and authenticator are processes.

mod attacks;
mod cascade;
mod lasting;
mod mail;
mod sdk;
mod story;

use core::time::Duration;
use std::path::Path;
use std::sync::{Arc, Mutex};

use obol_client::{AuthClient, CallError, Client, ConnectOptions};
use obol_handshake::IdentityKey;
use obol_ipc::Endpoint;
use obol_ipc::approvals::{ApprovalResult, ApprovalState, RequestApprovalParams, WantedCall};
use obol_ipc::names::{Label, PeerName, ToolName};
use obol_probe::stop::Stop;
use obol_resource::provision::{Follower, Lease, join};
use obol_token::{Audience, Minter, Scope, SessionId, Validity};
use obol_uplink::{Pinned, Uplink, UplinkOptions};
use obol_verify::{
    Approvals, Arguments, Denial, MemorySessionTable, Request, ResourceHalf, Session, SessionStore,
    SessionStoreError, SessionTable, SessionTableUnavailable, Spent, SpentSet, SystemClock, Unverified,
    Verifier,
};
use obol_world::authority::{AsProcess, write_policy};
use obol_world::home::{self, command, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use crate::authenticator::Authenticator;

pub(super) const API: &str = "https://api.example";

/// `search` is minted ahead; for `pay` a human is asked about each call.
const CATALOGUE: &str = r#"
org = "example"

[[tool]]
name = "search"
audience = "https://api.example"
risk = "low"
  [[tool.offer]]
  name = "read"
  action = ["read"]
  resource = "docs/**"
  ttl = 60

[[tool]]
name = "pay"
audience = "https://api.example"
risk = "high"
  [[tool.offer]]
  name = "any account"
  action = ["pay", "refund"]
  resource = "accounts/**"
  ttl = 60
"#;

const POLICIES: &str = r#"
@id("use") permit (principal in Obol::Role::"dev", action == Obol::Action::"use", resource);
@id("ahead") permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource) when { resource.risk == "low" };
@id("register") permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource);
@id("approve") permit (principal in Obol::Role::"operator", action == Obol::Action::"approveCall", resource);
"#;

/// An agent that is registered, with a session, and its service.
pub(super) struct World {
    pub(super) home: tempfile::TempDir,
    pub(super) service: AsProcess,
    pub(super) tqs: Tqs,
    _authenticator: Authenticator,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_policies(POLICIES)
    }

    pub(super) fn with_policies(policies: &str) -> Self {
        Self::with(CATALOGUE, policies)
    }

    pub(super) fn with(catalogue: &str, policies: &str) -> Self {
        Self::at(home::home(), catalogue, policies)
    }

    /// In a home where there may be settings.
    pub(super) fn at(home: tempfile::TempDir, catalogue: &str, policies: &str) -> Self {
        write_policy(&home.path().join("policy"), catalogue, policies);
        let service = AsProcess::start_with(home.path(), &["--policy", "policy"]);
        let tqs = Tqs::start(home.path(), &[]);
        home::write_private(&home.path().join("as.pin"), &service.pin());
        let authenticator = Authenticator::start(home.path(), &["--pin-file", "as.pin"]);
        let world = Self { home, service, tqs, _authenticator: authenticator };
        world.register();
        world
    }

    fn register(&self) {
        let asked =
            command(self.path()).args(["register", "--name", "builder", "--role", "dev", "--json"]).output();
        let asked: Value = serde_json::from_slice(&asked.unwrap().stdout).unwrap();
        self.service.told(&["approve", asked["code"].as_str().unwrap(), "--yes"]);
        wait_until("a session", || self.auth().auth_status().is_ok_and(|status| status.session.is_some()));
    }

    pub(super) fn path(&self) -> &Path {
        self.home.path()
    }

    pub(super) fn auth(&self) -> AuthClient {
        let endpoint = Endpoint::at(self.path().join("run/obol/auth.sock")).unwrap();
        AuthClient::connect(endpoint, options()).unwrap()
    }

    pub(super) fn client(&self) -> Client {
        self.tqs.client()
    }

    /// Asks for a yes to one call.
    pub(super) fn ask(&self, call: WantedCall) -> ApprovalResult {
        self.auth().request_approval(request(call)).unwrap()
    }

    /// The operator's yes, and the wait until the agent knows.
    pub(super) fn approve(&self, asked: &ApprovalResult) -> ApprovalResult {
        let told = self.service.told(&["approve", &asked.approval_id, "--yes"]);
        assert_eq!(told["state"], "approved", "{told}");
        self.status(asked)
    }

    pub(super) fn status(&self, asked: &ApprovalResult) -> ApprovalResult {
        let id = Label::new(asked.approval_id.as_str()).unwrap();
        self.auth().approval_status(id, Duration::from_secs(10)).unwrap()
    }

    /// Draws the token of an approved call.
    pub(super) fn draw(&self, id: &str) -> Result<String, CallError> {
        let drawn = self.client().dequeue_approved(&tool(), None, Label::new(id).unwrap(), None)?;
        Ok(drawn.token.expose().to_owned())
    }

    /// Asks, has it approved, and draws.
    pub(super) fn approved_token(&self, call: WantedCall) -> String {
        let asked = self.ask(call);
        assert_eq!(self.approve(&asked).state, ApprovalState::Approved);
        self.draw(&asked.calls[0]).unwrap()
    }
}

pub(super) fn options() -> ConnectOptions {
    ConnectOptions::new(PeerName::new("obol-tests/1").unwrap())
}

pub(super) fn tool() -> ToolName {
    ToolName::new("pay").unwrap()
}

/// Paying from one account, with whatever arguments.
pub(super) fn pay() -> WantedCall {
    WantedCall {
        tool: tool(),
        audience: None,
        actions: vec!["pay".to_owned()],
        resource: Some("accounts/7".to_owned()),
        constraints: None,
        arguments: None,
        count: None,
    }
}

pub(super) fn request(call: WantedCall) -> RequestApprovalParams {
    RequestApprovalParams { calls: vec![call], purpose: None, lifetime_seconds: None }
}

/// A table that keeps what it was told, as who has captured a server or a sidecar can.
#[derive(Debug)]
pub(super) struct Captured {
    table: MemorySessionTable,
    told: Mutex<Vec<ResourceHalf>>,
}

impl SessionTable for Captured {
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable> {
        self.table.look_up(id)
    }
}

impl SessionStore for Captured {
    fn add(&self, half: &ResourceHalf, now: u64) -> Result<(), SessionStoreError> {
        let copy = ResourceHalf::from_json(&half.to_json()).unwrap();
        self.told.lock().unwrap().push(copy);
        SessionStore::add(&self.table, half, now)
    }

    fn revoke(&self, id: SessionId, now: u64) -> Result<bool, SessionStoreError> {
        SessionStore::revoke(&self.table, id, now)
    }

    fn forget_ended(&self, before: u64) -> Result<usize, SessionStoreError> {
        self.table.forget_ended(before)
    }

    fn list(&self) -> Vec<Arc<Session>> {
        self.table.list()
    }
}

/// A copy of the resource server in this process, which follows the service.
pub(super) struct Replica {
    pub(super) sessions: Arc<Captured>,
    pub(super) verifier: Verifier,
    approvals: Arc<Approvals>,
    _runtime: Runtime,
}

impl Replica {
    pub(super) fn start(service: &AsProcess, spent: Arc<dyn SpentSet>) -> Self {
        let runtime = Runtime::new().unwrap();
        let key = IdentityKey::generate(&mut obol_authority::id::SystemRandom);
        let pin = service.pin();
        let uplink = || Uplink::new(Pinned::parse(&pin).unwrap(), &UplinkOptions::new()).unwrap();
        let code = service.told(&["rs", "invite", API])["ticket"].as_str().unwrap().to_owned();
        runtime.block_on(join(&mut uplink(), &key, &code, now())).unwrap();
        let (clock, audience) = (Arc::new(SystemClock::new()), Audience::new(API).unwrap());
        let sessions = Arc::new(Captured { table: MemorySessionTable::new(), told: Mutex::default() });
        let kept: Arc<dyn SessionStore> = Arc::clone(&sessions) as Arc<_>;
        let lease = Arc::new(Lease::new(300, Arc::clone(&clock) as Arc<_>));
        let follower = Follower::new(uplink(), key, audience.clone(), kept, lease, clock);
        let approvals = follower.approvals();
        runtime.spawn(follower.run(Stop::new()));
        let builder = Verifier::builder(audience, Arc::clone(&sessions) as Arc<_>, spent);
        let verifier = builder.approvals(Arc::clone(&approvals)).build().unwrap();
        let replica = Self { sessions, verifier, approvals, _runtime: runtime };
        wait_until("the session is known", || !replica.sessions.list().is_empty());
        replica
    }

    /// The session that it has, with its keys: what a captured sidecar has.
    pub(super) fn session(&self) -> Arc<Session> {
        self.sessions.list().into_iter().next().unwrap()
    }

    /// The same session, as a server has it that hears of no grants.
    pub(super) fn bare_session(&self) -> Session {
        let told = self.sessions.told.lock().unwrap();
        let half = told.first().unwrap();
        let material = half.keys.material(half.session_id, half.suite).with_nonces(half.nonces);
        Session::new(material, half.keys.audience().unwrap(), half.org_id.as_str())
    }

    pub(super) fn knows(&self, approvals: usize) {
        wait_until("the approval is known", || self.approvals.len() >= approvals);
    }

    pub(super) fn present(&self, token: &str, arguments: &Value) -> Result<Spent, Denial> {
        present(&self.verifier, token, arguments)
    }
}

/// Presents a token for a payment from account 7.
pub(super) fn present(verifier: &Verifier, token: &str, arguments: &Value) -> Result<Spent, Denial> {
    let arguments: Map<String, Value> = arguments.as_object().unwrap().clone();
    let request = Request {
        action: Some("pay"),
        resource: Some("accounts/7"),
        arguments: Arguments::Plain(Some(&arguments)),
        ..Request::new("pay")
    };
    Unverified::from_text(token.as_bytes())?.verify(verifier, &request)?.spend().wait()
}

/// The code of a refusal, or `OK`.
pub(super) fn code(outcome: &Result<Spent, Denial>) -> &'static str {
    outcome.as_ref().map_or_else(|denial| denial.code.as_str(), |_| "OK")
}

/// Mints any scope with a session's keys, as who has captured a sidecar can.
pub(super) fn mint(session: &Session, scope: &Scope) -> String {
    use obol_handshake::Random as _;

    let minter = Minter::new(session.material(), scope, session.policy_epoch()).unwrap();
    let mut random = [0; 48];
    obol_authority::id::SystemRandom.fill(&mut random);
    let validity = Validity { issued_at: now(), expires_at: now() + 60 };
    let tokens = minter.mint(validity, &obol_world::mint::seeds(&random)).unwrap();
    obol_token::text::to_base64url(&tokens[0])
}

/// The scope inside a token, which the keys of its session open.
pub(super) fn scope_of(session: &Session, token: &str) -> Scope {
    let bytes = obol_token::text::from_base64url(token.as_bytes()).unwrap();
    let envelope = obol_token::Envelope::parse(&bytes).unwrap();
    session.material().open(&envelope).unwrap().scope().unwrap()
}
