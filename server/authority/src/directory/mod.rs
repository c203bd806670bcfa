//! What the service must not forget, and what may happen to it: agents, registrations, invitations, sessions, resource
//! servers, policy versions, and the numbered events that others follow.
//!
//! [`Directory`] is the whole of it. Each method is one transaction: it happens as a whole, durably, or not at all, and what
//! it decides it decides by what it sees inside. Time comes in as an argument. Every list is bounded.
//!
//! The rules are written once, in `rules`, over rows of a store; a store has to give rows, and run transactions one after the
//! other. Two are here: [`MemoryDirectory`] and [`RedbDirectory`]. Whatever else implements [`Directory`] must pass the
//! `contract`, which the two pass.
//!
//! It must not know: sockets, HTTP, keys of the service, who decides policy.

#[cfg(test)]
pub(crate) mod contract;
mod event;
mod memory;
mod redb;
mod rows;
mod rules;
mod tables;

use core::fmt;
use std::path::PathBuf;

use obol_handshake::{HandshakeHash, IdentityPublic, SekPublic};
use obol_secret::file::PrivateFileError;
use obol_session::{ResourceHalf, SessionId};

pub use self::event::{Event, Happening};
use self::memory::MemoryStore;
pub use self::redb::RedbDirectory;
pub use self::rows::{
    Agent, AgentStatus, DeniedTool, Ending, Human, Invitation, PolicyVersion, Registration,
    RegistrationState, Replica, ResourceServer, SessionRow, Wanted,
};
pub use self::tables::Unavailable;
use crate::id::{AgentId, RegistrationId, ReplicaId};
use crate::refused::Refused;

/// The most rows that a method gives at a time.
pub const MAX_PAGE: usize = 1_000;
/// The most live sessions of one agent; one more ends the oldest.
pub const MAX_LIVE_SESSIONS: usize = 16;
/// How long a registration waits for a human, in seconds.
pub const PENDING_SECS: u64 = 600;
/// The most registrations that wait from one source.
pub const MAX_PENDING_PER_SOURCE: usize = 5;
/// The most registrations that wait in all.
pub const MAX_PENDING: u64 = 10_000;
/// The most approvals by one human within an hour.
pub const MAX_APPROVALS_PER_HOUR: usize = 20;
/// The most agents, revoked ones included.
pub const MAX_AGENTS: u64 = 1_000_000;
/// How long the key that an agent replaced is still taken, in seconds.
pub const KEY_OVERLAP_SECS: u64 = 600;
/// How long a handshake's answer is kept, in seconds: no cookie opens that is older.
pub const ANSWER_KEPT_SECS: u64 = 2 * obol_handshake::KEY_LIFE_SECS;
/// The most answers that are kept.
pub const MAX_ANSWERS: u64 = 500_000;
/// How long an event is kept, in seconds.
pub const EVENT_KEPT_SECS: u64 = 3_600;
/// The most events that are kept.
pub const MAX_EVENTS: u64 = 200_000;

/// What a method gives: its result, or that there is none because the store failed.
pub type Answer<T> = Result<T, Unavailable>;

impl From<Unavailable> for Refused {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Which handshake a transaction carries out. It is answered once; the same third message again gets the same answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The transcript before the third message: one for each cookie.
    pub before: HandshakeHash,
    /// The final transcript: one for each third message.
    pub hash: HandshakeHash,
}

/// Seals the answer of a handshake. It is called at most once, inside the transaction, so that nothing is sealed twice
/// under one key and number.
pub type Seal<T> = Box<dyn FnOnce(&Result<T, Refused>) -> Vec<u8> + Send>;

/// What became of a handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carried<T> {
    /// It was carried out, or refused, and this is the sealed answer.
    Now(Result<T, Refused>, Vec<u8>),
    /// It had been before, and this is the answer from then.
    Again(Vec<u8>),
    /// Its cookie served another third message. There is no answer.
    Used,
    /// What it was decided by has changed meanwhile. Nothing happened; decide again.
    Stale,
}

/// An agent that asks to be registered.
#[derive(Clone, Debug)]
pub struct NewRegistration {
    /// A fresh id.
    pub id: RegistrationId,
    /// A fresh id for the agent, should there be a new one.
    pub agent: AgentId,
    /// What the agent says of itself and asks for.
    pub wanted: Wanted,
    /// The key that it has proven.
    pub identity: IdentityPublic,
    /// The SEK that it has proven.
    pub sek: SekPublic,
    /// Where it comes from.
    pub source: String,
    /// Hash of what it will ask with.
    pub poll_hash: [u8; 32],
    /// Hash of the code that a human will type.
    pub code_hash: [u8; 32],
    /// Hash of an invitation's ticket.
    pub ticket_hash: Option<[u8; 32]>,
}

/// A registration that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Registered {
    /// It waits for a human.
    Waits(RegistrationId),
    /// An invitation approved it.
    Active(Box<Agent>),
}

/// A human's yes.
#[derive(Clone, Debug)]
pub struct Approval {
    /// To which registration.
    pub registration: RegistrationId,
    /// A fresh id for the agent, should there be a new one.
    pub agent: AgentId,
    /// Whose yes.
    pub by: Human,
    /// With which roles.
    pub roles: Vec<String>,
    /// For how many seconds.
    pub secs: u64,
}

/// What an agent hears that asks for its registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Polled {
    /// A human has yet to decide.
    Pending,
    /// A human said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// A human said yes.
    Approved {
        /// The agent's id.
        agent: AgentId,
        /// When the approval ends, in Unix seconds.
        expires_at: u64,
    },
}

/// Who has a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyStanding {
    /// Nobody.
    Unknown,
    /// Somebody who waits for a human.
    Pending,
    /// An agent.
    Agent(Box<Agent>),
    /// Nobody any more, for good.
    Retired,
}

/// What happens to an agent whose key seems to have a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClonePolicy {
    /// An event and a line in the log: a disk that was put back looks the same.
    #[default]
    Alert,
    /// It is suspended as well.
    Suspend,
}

/// A session as it was decided, with the keys for each resource server.
#[derive(Debug)]
pub struct SessionPlan {
    /// The session.
    pub row: SessionRow,
    /// The agent's version that it was decided by.
    pub agent_version: u64,
    /// What the agent presents of its last sessions.
    pub presented: Vec<[u8; 32]>,
    /// What its next session must present.
    pub chain: [u8; 32],
    /// What to do if it presents nothing that fits.
    pub clones: ClonePolicy,
    /// One half for each resource server.
    pub halves: Vec<ResourceHalf>,
}

/// A session that was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The session.
    pub session: SessionRow,
    /// Whether what the agent presented fits none of its last sessions.
    pub clone_suspected: bool,
    /// Older sessions that ended because there were too many.
    pub superseded: Vec<SessionId>,
    /// Its event's number.
    pub event: u64,
}

/// What is ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndScope {
    /// An agent, by name or id: it is suspended and its sessions end.
    Agent(String),
    /// An agent, by name or id, for good.
    Revoke(String),
    /// One session.
    Session(SessionId),
    /// A tool: nobody is granted it, and sessions that grant it end.
    Tool(String),
}

/// What was ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ended {
    /// The agents.
    pub agents: Vec<AgentId>,
    /// The sessions.
    pub sessions: Vec<SessionId>,
    /// The newest event's number: who has applied it has applied all of this.
    pub event: u64,
    /// Whether there is more to end; the same call again ends it.
    pub more: bool,
}

/// How a key is replaced, in two steps.
#[derive(Clone, Debug)]
pub enum RotateStep {
    /// The old key names the new one.
    Name(IdentityPublic),
    /// The new key proves itself; this is the transcript in which the old one named it.
    Prove(HandshakeHash),
}

/// A resource server's copy that wants to join.
#[derive(Clone, Debug)]
pub struct NewReplica {
    /// A fresh id.
    pub id: ReplicaId,
    /// The key that it has proven.
    pub identity: IdentityPublic,
    /// Hash of its join code.
    pub code_hash: [u8; 32],
}

/// The directory. Every method is one transaction.
pub trait Directory: Send + Sync + fmt::Debug {
    /// Takes a registration. The agent's name need not be free yet: that is decided with the approval.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], as for every method here.
    fn register(
        &self,
        handshake: Handshake,
        new: NewRegistration,
        now: u64,
        seal: Seal<Registered>,
    ) -> Answer<Carried<Registered>>;

    /// Opens a session.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn open_session(
        &self,
        handshake: Handshake,
        plan: SessionPlan,
        now: u64,
        seal: Seal<Opened>,
    ) -> Answer<Carried<Opened>>;

    /// Takes one step of replacing the key of `identity`, which the handshake has proven.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn rotate_key(
        &self,
        handshake: Handshake,
        identity: IdentityPublic,
        step: RotateStep,
        now: u64,
        seal: Seal<AgentId>,
    ) -> Answer<Carried<AgentId>>;

    /// Ends the agent with this key for good, by its own wish.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn deregister(
        &self,
        handshake: Handshake,
        identity: IdentityPublic,
        now: u64,
        seal: Seal<Ended>,
    ) -> Answer<Carried<Ended>>;

    /// Lets a resource server's copy join.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn join(
        &self,
        handshake: Handshake,
        new: NewReplica,
        now: u64,
        seal: Seal<Replica>,
    ) -> Answer<Carried<Replica>>;

    /// Answers a handshake that was refused before it came here.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn refuse(&self, handshake: Handshake, why: Refused, now: u64, seal: Seal<()>) -> Answer<Carried<()>>;

    /// The registration with this code, if it waits.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn registration(&self, code_hash: [u8; 32], now: u64) -> Answer<Option<Registration>>;

    /// Makes a registration an agent, or renews the approval of one.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn approve(&self, approval: Approval, now: u64) -> Answer<Result<Agent, Refused>>;

    /// Ends a registration. `block_secs`: how long nothing more is taken from where it came from.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn deny(
        &self,
        registration: RegistrationId,
        block_secs: u64,
        now: u64,
    ) -> Answer<Result<Registration, Refused>>;

    /// What became of a registration, for whoever made it.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn poll(&self, registration: RegistrationId, poll_hash: [u8; 32], now: u64) -> Answer<Option<Polled>>;

    /// Who has this key.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn standing(&self, identity: IdentityPublic, now: u64) -> Answer<KeyStanding>;

    /// Agents by id, those behind `after`, at most [`MAX_PAGE`].
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn agents(&self, after: Option<&AgentId>) -> Answer<Vec<Agent>>;

    /// The agent with this name or id.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn agent(&self, name: &str) -> Answer<Option<Agent>>;

    /// Live sessions of an agent.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn sessions(&self, agent: &AgentId) -> Answer<Vec<SessionRow>>;

    /// A session, also one that has ended, for a while.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn session(&self, id: SessionId) -> Answer<Option<SessionRow>>;

    /// What a resource server verifies a live session by.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn half(&self, session: SessionId, audience: &str) -> Answer<Option<ResourceHalf>>;

    /// The greatest number that a session had.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn last_session(&self) -> Answer<SessionId>;

    /// Ends agents, sessions, or the use of a tool, with events for those who must hear of it.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn end(&self, scope: EndScope, reason: String, by: Human, now: u64) -> Answer<Result<Ended, Refused>>;

    /// Lets a suspended agent open sessions again. What was ended stays ended.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn enable_agent(&self, name: &str, now: u64) -> Answer<Result<Agent, Refused>>;

    /// Lets a tool be granted again.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn enable_tool(&self, tool: &str, now: u64) -> Answer<Result<(), Refused>>;

    /// Tools that nobody is granted.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn denied_tools(&self) -> Answer<Vec<DeniedTool>>;

    /// Keeps an invitation.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn invite(&self, ticket_hash: [u8; 32], invitation: Invitation) -> Answer<Result<(), Refused>>;

    /// Keeps a resource server, and a code by which one copy of it may join until `expires_at`.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn add_resource_server(
        &self,
        server: ResourceServer,
        code_hash: [u8; 32],
        expires_at: u64,
    ) -> Answer<Result<(), Refused>>;

    /// Every resource server.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn resource_servers(&self) -> Answer<Vec<ResourceServer>>;

    /// Every copy of resource servers.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn replicas(&self) -> Answer<Vec<Replica>>;

    /// The copy with this key.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn replica(&self, identity: IdentityPublic) -> Answer<Option<Replica>>;

    /// Notes what a copy has applied. A cursor never falls.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn acknowledge(&self, replica: &ReplicaId, cursor: u64, now: u64) -> Answer<()>;

    /// Takes note that a policy is in force: the next version, and a higher epoch.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn activate_policy(&self, digest: String, by: Human, now: u64) -> Answer<PolicyVersion>;

    /// The policy in force, if any ever was.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn policy(&self) -> Answer<Option<PolicyVersion>>;

    /// Events behind `after`, at most [`MAX_PAGE`], or `None` where some of them are forgotten already.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn events(&self, after: u64) -> Answer<Option<Vec<Event>>>;

    /// The newest event's number.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn last_event(&self) -> Answer<u64>;

    /// Forgets some of what is over: call it every few seconds, and again at once where it says that there is more.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn forget(&self, now: u64) -> Answer<bool>;

    /// Whether changes can be kept.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] says why not.
    fn health(&self) -> Answer<()>;
}

/// A directory over a store of rows.
#[derive(Debug)]
pub struct Stored<S> {
    store: S,
}

/// A directory in memory.
pub type MemoryDirectory = Stored<MemoryStore>;

impl Stored<MemoryStore> {
    /// An empty directory. It ends with the process.
    pub fn new() -> Self {
        Self { store: MemoryStore::default() }
    }
}

impl Default for Stored<MemoryStore> {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a directory was not opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirectoryOpenError {
    /// The file cannot be used.
    File(PrivateFileError),
    /// The file is damaged, sealed under another key, or belongs to something else.
    NotOurs(PathBuf, String),
}

impl fmt::Display for DirectoryOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "the directory: {error}"),
            Self::NotOurs(path, why) => write!(
                f,
                "the directory {} was not opened: {why}. Moving it away starts over: every agent registers again",
                path.display()
            ),
        }
    }
}

impl core::error::Error for DirectoryOpenError {}
