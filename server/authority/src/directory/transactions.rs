//! What transactions are given, and what they give.

use std::collections::BTreeMap;

use obol_handshake::{HandshakeHash, IdentityPublic, SekPublic};
use obol_session::{ResourceHalf, SessionId};

use super::rows::{Agent, Flow, Human, Replica, SessionRow, Wanted};
use super::tables::Bytes;
use crate::id::{AgentId, RegistrationId, ReplicaId};
use crate::refused::Refused;

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
    /// How a human's word comes back.
    pub flow: Flow,
    /// Hash of what it will ask with.
    pub poll_hash: [u8; 32],
    /// Hash of the code that a human will type.
    pub code_hash: [u8; 32],
    /// Hash of an invitation's ticket.
    pub ticket_hash: Option<[u8; 32]>,
    /// What somebody whom the service takes at their word says of it.
    pub attested: Option<Attested>,
    /// Who answers for the agent that has this key, where whoever gave ticket or word was found to reach them.
    pub reached: Option<Human>,
}

/// The flow of an agent for which such a word stood in for a human, in the words of policies.
pub(crate) const ATTESTED: &str = "attested";

/// A signed word of somebody else that stands in for a human, once it was checked. It is good for one registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attested {
    /// Who says it.
    pub issuer: String,
    /// Of whom: a workload, or a human.
    pub subject: String,
    /// Its name there.
    pub jti: String,
    /// Until when it would be taken as new were it not remembered, in Unix seconds.
    pub replayable_until: u64,
    /// Who answers for the agent.
    pub owner: Human,
    /// The roles that it gets.
    pub roles: Vec<String>,
    /// For how many seconds.
    pub secs: u64,
}

/// A registration that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Registered {
    /// It waits for a human.
    Waits(RegistrationId),
    /// An invitation, or a signed word of somebody else, approved it.
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
    /// How it was said, in the words of policies.
    pub flow: &'static str,
    /// Who answers for the agent that it renews, where whoever says it was found to reach them. Should it be somebody else by then,
    /// the yes counts for nothing.
    pub reached: Option<Human>,
}

/// What an agent hears that asks for its registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Polled {
    /// A human has yet to decide.
    Pending,
    /// A human said yes, and the agent has to show that it heard so.
    Confirming,
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
    /// Digests of what the agent presents of its last sessions.
    pub presented: Vec<[u8; 32]>,
    /// The session that it takes the place of: that is closed once tokens minted from it are over.
    pub previous: Option<SessionId>,
    /// The digest of what its next session must present.
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
    /// What a human answers for. Who is told to end more than their sessions may answer for nothing more, until they log in again.
    Owner(Human, OwnerEnd),
}

/// What becomes of the agents of a human; each does what those before it do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OwnerEnd {
    /// Their sessions end; they may open others.
    Sessions,
    /// They are suspended.
    Suspend,
    /// They end for good.
    Revoke,
}

/// Whom a security event is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The human.
    pub human: Human,
    /// Only this agent of theirs.
    pub agent: Option<AgentId>,
    /// Only this session of theirs.
    pub session: Option<SessionId>,
}

/// A security event that was heard and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeardSet {
    /// Who says it.
    pub issuer: String,
    /// Its name there.
    pub jti: String,
    /// Until when it would be taken as new were it not remembered, in Unix seconds.
    pub replayable_until: u64,
    /// Whom it is about, if that is somebody who can have agents.
    pub subject: Option<Subject>,
    /// What it brings about, if anything.
    pub deed: Option<OwnerEnd>,
    /// Why, for those who look at what was ended.
    pub reason: String,
}

/// What became of a security event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TakenSet {
    /// It was heard before, and has no effect again.
    Again,
    /// Nobody whom it is about has anything here. It is remembered.
    Unknown,
    /// This was ended. Where there is more, it is not remembered yet: take it again.
    Done(Ended),
}

/// Agents that lose nothing by a new policy, each with the version by which it was weighed.
pub type Unharmed = BTreeMap<AgentId, u64>;

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

/// Who wants to follow the events, by the key that it has proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follows {
    /// A copy of a resource server, and how many seconds it goes on without hearing anything.
    Replica(IdentityPublic, u64),
    /// An agent.
    Agent(IdentityPublic),
}

/// Who follows the events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Follower {
    /// A copy of a resource server: it hears of sessions for that.
    Replica(Replica),
    /// An agent: it hears of itself and its sessions.
    Agent(Box<Agent>),
}

/// Some halves, and where the next page begins.
#[derive(Debug, Default)]
pub struct HalvesPage {
    /// The sessions, each with its half as a session file has it.
    pub halves: Vec<(SessionId, Bytes)>,
    /// The page behind this session is the next, if there is one.
    pub next: Option<SessionId>,
}

/// What became of a directory that was put back from a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartedOver {
    /// When the newest thing happened that the copy knows of, in Unix seconds; 0 if it knows of none.
    pub known_until: u64,
    /// The agents that were suspended.
    pub agents: Vec<AgentId>,
    /// The sessions that were ended.
    pub sessions: Vec<SessionId>,
}
