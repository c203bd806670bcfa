//! One handshake with the service, without its network: which suite, what the service's greeting must say, and what its
//! answer means.

use obol_handshake::{
    AwaitsReply, Established, HandshakeError, Header, IdentityKey, Initiator, Offer, Prologue, Purpose,
    ReadyToProve, SekKey, SystemRandom, open_answer,
};
use obol_secret::json::{Bounds, parse, parse_within};
use obol_secret::text::to_hex;
use obol_session::{AgentHalf, AgentIdentity, Establish, Grant, SessionId, Suite};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::error::AuthError;
use crate::pinned::Pinned;

/// The longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The most values in an answer that is not a session, and how deep it may be nested.
const BOUNDS: Bounds = Bounds { values: 256, depth: 4 };

/// Message A was sent.
pub(crate) struct Begun {
    waiting: AwaitsReply,
    suite: Suite,
}

/// What the service says before it knows who asks.
#[derive(Debug, Deserialize)]
struct Greeting {
    now: u64,
    suites: Vec<u8>,
}

/// Gives message A, for a suite of those that are offered.
pub(crate) fn begin(
    service: &Pinned,
    purpose: Purpose,
    suite: Suite,
    offered: &[Suite],
) -> Result<(Begun, Vec<u8>), AuthError> {
    let header = Header { purpose, suite, offer: Offer::of(offered), authority_key: service.key().id() };
    let prologue = Prologue::new(header, service.origin()).map_err(AuthError::NotTheService)?;
    let (waiting, hello) =
        Initiator::start(&prologue, service.key(), &mut SystemRandom).map_err(AuthError::NotTheService)?;
    Ok((Begun { waiting, suite }, hello))
}

impl Begun {
    /// Reads message B. What the service itself says it could have done must not be better than what is being done: else
    /// somebody on the way made it so. Also tells how far this machine's clock is ahead, in seconds.
    pub(crate) fn greeted(
        self,
        reply: &[u8],
        preferred: &[Suite],
        now: u64,
    ) -> Result<(Greeted, i64), AuthError> {
        let (ready, greeting) = self.waiting.read(reply).map_err(AuthError::NotTheService)?;
        let greeting: Greeting = parse(&greeting).map_err(|error| AuthError::Answer(error.to_string()))?;
        let better = preferred.iter().take_while(|suite| **suite != self.suite);
        if let Some(possible) =
            better.map(|suite| suite.number()).find(|suite| greeting.suites.contains(suite))
        {
            return Err(AuthError::Downgrade { used: self.suite.number(), possible });
        }
        let skew = i128::from(now) - i128::from(greeting.now);
        let skew = i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX });
        Ok((Greeted { ready }, skew))
    }
}

/// The service has shown who it is.
pub(crate) struct Greeted {
    ready: ReadyToProve,
}

impl Greeted {
    /// The fields by which the SEK is proven, for this handshake alone.
    pub(crate) fn sek_fields(&self, sek: &SekKey) -> Map<String, Value> {
        let proof = sek.prove(&self.ready.hash(), &mut SystemRandom);
        let mut fields = Map::new();
        fields.insert("sek_pk".to_owned(), json!(to_hex(&sek.public().0)));
        fields.insert("sek_proof".to_owned(), json!(to_hex(&proof)));
        fields
    }

    /// Gives message C.
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    pub(crate) fn prove(self, own: &IdentityKey, payload: Value) -> Result<(Proven, Vec<u8>), AuthError> {
        let suite = self.ready.suite();
        let payload = Zeroizing::new(payload.to_string());
        let proved = self.ready.prove(own, payload.as_bytes());
        let (established, message) = proved.map_err(|error| match error {
            HandshakeError::Length => AuthError::System("what is asked for is too long".to_owned()),
            error => AuthError::NotTheService(error),
        })?;
        Ok((Proven { established, suite }, message))
    }
}

/// Message C was sent.
pub(crate) struct Proven {
    pub(crate) established: Established,
    pub(crate) suite: Suite,
}

/// The service's answer, read.
pub(crate) enum Told {
    /// It did what was asked.
    Done(Zeroizing<Vec<u8>>),
    /// It refused; the suite to use where that is why.
    Refused { code: String, detail: String, suite: Option<Suite> },
}

#[derive(Deserialize)]
struct ErrorDocument {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    detail: String,
    #[serde(default)]
    suite: Option<u8>,
}

impl Proven {
    /// Opens message D.
    pub(crate) fn told(&mut self, answer: &[u8]) -> Result<Told, AuthError> {
        let opened = open_answer(&mut self.established.receive, answer, MAX_ANSWER_BYTES)
            .map_err(|_| AuthError::NotTheService(HandshakeError::Tag))?;
        Ok(match parse_within::<ErrorDocument>(&opened, BOUNDS) {
            Ok(ErrorDocument { error }) => Told::Refused {
                code: error.code,
                detail: error.detail,
                suite: error.suite.and_then(Suite::from_number),
            },
            Err(_) => Told::Done(opened),
        })
    }
}

/// A session as the service tells it: all but its keys.
#[derive(Debug, Deserialize)]
struct SessionDocument {
    session_id: SessionId,
    suite: u8,
    agent_instance_id: String,
    org_id: String,
    iss: String,
    sub: String,
    established_at: u64,
    expires_at: u64,
    policy_epoch: u64,
    audiences: Vec<String>,
    grants: Vec<Grant>,
    /// A service of an older version does not say.
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(rename = "lease_sec")]
    _lease_secs: u64,
    #[serde(rename = "approval_expires_at")]
    approval_expires_at: u64,
    #[serde(rename = "as_keys")]
    _as_keys: Vec<Value>,
}

/// Requests that are calls of a tool.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Route {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub aud: String,
    /// What they lie under; absent: the resource server's own URL.
    #[serde(default)]
    pub url: Option<String>,
    /// The method; absent: any.
    #[serde(default)]
    pub method: Option<String>,
    /// The path, as a pattern.
    pub path: String,
    /// The gateway that they are sent to instead.
    #[serde(default)]
    pub via: Option<String>,
}

/// A session, with its keys.
pub(crate) struct OpenedSession {
    pub(crate) half: AgentHalf,
    pub(crate) routes: Vec<Route>,
    pub(crate) approval_expires_at: u64,
}

/// Derives the agent's half from what the service says and what the handshake left. The session's secret is gone then.
#[expect(clippy::needless_pass_by_value, reason = "what was proven is used once")]
pub(crate) fn derive(
    service: &Pinned,
    proven: Proven,
    document: &[u8],
    own: &IdentityKey,
    sek: &SekKey,
) -> Result<OpenedSession, AuthError> {
    let wrong = |why: &str| Err(AuthError::Answer(why.to_owned()));
    let told: SessionDocument = parse(document).map_err(|error| AuthError::Answer(error.to_string()))?;
    if told.suite != proven.suite.number() {
        return wrong("the session is of another suite than the handshake");
    }
    if told.iss != service.origin() || told.sub != own.public().subject() {
        return wrong("the session is another's, or of another service");
    }
    let Some(lifetime_secs) = told.expires_at.checked_sub(told.established_at) else {
        return wrong("the session ends before it begins");
    };
    let establish = Establish {
        session_id: told.session_id,
        suite: proven.suite,
        agent: AgentIdentity { agent_instance_id: told.agent_instance_id, iss: told.iss, sub: told.sub },
        org_id: told.org_id,
        lifetime_secs,
        policy_epoch: told.policy_epoch,
        sek_public: sek.public().0,
        // Whoever mints has it.
        pop_key: None,
    };
    let audiences: Vec<&str> = told.audiences.iter().map(String::as_str).collect();
    let secret = &proven.established.secret;
    let (half, _) = establish.from_secret(secret, &audiences, told.grants, told.established_at)?;
    Ok(OpenedSession { half, routes: told.routes, approval_expires_at: told.approval_expires_at })
}
