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

mod bounds;
mod calls;
#[cfg(test)]
pub(crate) mod contract;
mod event;
mod memory;
mod open_error;
mod redb;
mod rows;
mod rules;
mod tables;
mod transactions;

use core::fmt;

use obol_handshake::IdentityPublic;
use obol_session::{ResourceHalf, SessionId};
use tokio::sync::watch;

pub(crate) use self::bounds::{
    ANSWER_KEPT_SECS, EVENT_KEPT_SECS, MAX_AGENTS, MAX_ANSWERS, MAX_APPROVALS_PER_HOUR, MAX_EVENTS,
    MAX_PENDING, MAX_PENDING_PER_SOURCE, MAX_PERSONS, MAX_POLICY_TEXTS, MAX_POLICY_VERSIONS, MAX_SETS,
    MAX_WRONG_CODES, PENDING_SECS, SET_KEPT_SECS,
};
pub use self::bounds::{KEY_OVERLAP_SECS, MAX_LIVE_SESSIONS, MAX_PAGE};
pub(crate) use self::calls::{ASKED_SECS, MAX_APPROVED_SECS, MAX_CALL_APPROVALS, MAX_CALLS, MAX_USES};
pub use self::calls::{
    AskedCall, CallApproval, CallDecision, CallPlace, CallStanding, CallState, CallUse, NewCallApproval,
};
pub use self::event::{Event, Happening};
use self::memory::MemoryStore;
pub use self::open_error::DirectoryOpenError;
pub use self::redb::RedbDirectory;
pub use self::rows::{
    Agent, AgentStatus, Confirming, DeniedTool, Ending, EventStream, Flow, Human, Invitation, Person,
    PersonStatus, PolicyText, PolicyVersion, Registration, RegistrationState, Replica, ResourceServer,
    SessionRow, Wanted,
};
pub(crate) use self::rules::{approved_agent, index_owners};
pub use self::tables::{Bytes, Unavailable};
pub(crate) use self::transactions::ATTESTED;
pub use self::transactions::{
    Approval, Attested, Carried, ClonePolicy, EndScope, Ended, Follower, Follows, HalvesPage, Handshake,
    HeardSet, KeyStanding, NewRegistration, NewReplica, Opened, OwnerEnd, Polled, Registered, RotateStep,
    Seal, SessionPlan, StartedOver, Subject, TakenSet, Unharmed,
};
use crate::id::{AgentId, ApprovalId, RegistrationId, ReplicaId};
use crate::refused::Refused;

/// What a method gives: its result, or that there is none because the store failed.
pub type Answer<T> = Result<T, Unavailable>;

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

    /// Takes a request for a human's yes to calls.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn ask_approval(
        &self,
        handshake: Handshake,
        new: NewCallApproval,
        now: u64,
        seal: Seal<CallApproval>,
    ) -> Answer<Carried<CallApproval>>;

    /// Such a request.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn call_approval(&self, id: &ApprovalId) -> Answer<Option<CallApproval>>;

    /// Those that wait for a human, the one whose time is over next first: those behind a place, so many and [`MAX_PAGE`] at most.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn waiting_calls(&self, now: u64, behind: Option<&CallPlace>, most: usize) -> Answer<Vec<CallApproval>>;

    /// Carries out a human's word. A yes and the event by which others hear of it are one.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn decide_calls(&self, decision: CallDecision, now: u64) -> Answer<Result<CallApproval, Refused>>;

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

    /// Registrations that wait for a human, the one whose time is over next first: those behind one, at most [`MAX_PAGE`].
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn waiting(&self, now: u64, behind: Option<&Registration>) -> Answer<Vec<Registration>>;

    /// Makes a registration an agent, or renews the approval of one.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn approve(&self, approval: Approval, now: u64) -> Answer<Result<Agent, Refused>>;

    /// The registration with this id, if it waits.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn registration_named(&self, id: &RegistrationId, now: u64) -> Answer<Option<Registration>>;

    /// The registration with this id, if it may still become an agent: it waits, or a yes to it has not come back.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn open_registration(&self, id: &RegistrationId, now: u64) -> Answer<Option<Registration>>;

    /// Notes a human's yes in a browser. The agent is none until whoever holds the poll token shows what the hash is of.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn confirm(&self, yes: Approval, code_hash: [u8; 32], now: u64) -> Answer<Result<Registration, Refused>>;

    /// Makes a registration an agent that a human said yes to. After three wrong codes it ends. `reached` is as that of [`Approval`].
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn complete(
        &self,
        registration: RegistrationId,
        poll_hash: [u8; 32],
        code_hash: [u8; 32],
        reached: Option<Human>,
        now: u64,
    ) -> Answer<Result<Agent, Refused>>;

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

    /// Live sessions of all agents, those of one beside each other: the first `most` behind this one of this agent, and at most
    /// [`MAX_PAGE`].
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn live_sessions(&self, after: Option<(&AgentId, SessionId)>, most: usize) -> Answer<Vec<SessionRow>>;

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

    /// What is known of a human, if anything.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn person(&self, human: &Human) -> Answer<Option<Person>>;

    /// Notes what is known of a human now. Sessions end of agents that had a role through them which they have lost; call it
    /// again where it says that there is more.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn know_person(&self, person: Person, now: u64) -> Answer<Result<Ended, Refused>>;

    /// Takes a security event from outside: that it was heard and what it brings about are one.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn take_set(&self, set: HeardSet, now: u64) -> Answer<TakenSet>;

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

    /// The invitation whose ticket has this hash, also one that is over.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn invitation(&self, ticket_hash: [u8; 32]) -> Answer<Option<Invitation>>;

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

    /// Forgets a copy for good: its key follows nothing any more and never joins again.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn remove_replica(&self, replica: &ReplicaId, now: u64) -> Answer<Result<Replica, Refused>>;

    /// Begins a stream for whoever has proven this key. A handshake begins one stream at the most.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn begin_stream(&self, handshake: Handshake, follower: Follows, now: u64) -> Answer<Carried<Follower>>;

    /// The halves of live sessions for this resource server as session files have them, of sessions behind `after`; and
    /// where the next page begins, if there is more.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn halves(&self, audience: &str, after: Option<SessionId>) -> Answer<HalvesPage>;

    /// Which life of the directory the events' numbers belong to. `fresh` becomes it where there is none yet.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn incarnation(&self, fresh: [u8; 16]) -> Answer<[u8; 16]>;

    /// Begins another life after the directory was put back from a copy, so that nothing which was ended since lives again: every
    /// live session ends, every active agent is suspended until somebody enables it, invitations and codes to join are gone, and
    /// `incarnation` is the new life, so that followers are told everything anew.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn start_over(&self, incarnation: [u8; 16], now: u64) -> Answer<StartedOver>;

    /// The private keys with which the service signs for others, as it keeps them. `fresh` become them where there are none.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn signing_keys(&self, fresh: Option<Bytes>) -> Answer<Option<Bytes>>;

    /// `fresh` become those keys in place of `known`, unless others have by now. Those that they are then.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn replace_signing_keys(&self, known: Bytes, fresh: Bytes) -> Answer<Bytes>;

    /// Every stream of security events for others.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn event_streams(&self) -> Answer<Vec<EventStream>>;

    /// Keeps a stream. Its cursor never falls.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn put_event_stream(&self, stream: EventStream) -> Answer<()>;

    /// Forgets a stream.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn remove_event_stream(&self, id: &str) -> Answer<()>;

    /// How far somebody was told who is not a follower, by name; where that is not known, it is `fresh` from now on.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn told(&self, name: &str, fresh: u64) -> Answer<u64>;

    /// Notes how far somebody was told. It never falls.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn come_to(&self, name: &str, cursor: u64) -> Answer<()>;

    /// Puts a policy in force, also one that was before: the next version, and a higher epoch. Its text is kept, so that a
    /// restart finds it and there is a way back. Sessions of agents that are not among the unharmed end in the same step.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn activate_policy(
        &self,
        text: PolicyText,
        unharmed: Unharmed,
        by: Human,
        now: u64,
    ) -> Answer<Result<(PolicyVersion, Ended), Refused>>;

    /// The newest versions whose texts are kept, oldest first; at most 50.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn policies(&self) -> Answer<Vec<PolicyVersion>>;

    /// The text of a policy that is, or lately was, in force or looked at.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn policy_text(&self, digest: &str) -> Answer<Option<PolicyText>>;

    /// Keeps which policy is looked at beside the one in force; `None` for no other.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn observe_policy(&self, other: Option<PolicyText>) -> Answer<Result<(), Refused>>;

    /// The policy that is looked at beside the one in force.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    fn observed_policy(&self) -> Answer<Option<PolicyText>>;

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

    /// The newest event's number as this process wrote it, for those who wait for the next.
    fn head(&self) -> watch::Receiver<u64>;

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
    /// The newest event's number, as far as it is durable.
    head: watch::Sender<u64>,
}

/// A directory in memory.
pub type MemoryDirectory = Stored<MemoryStore>;

impl Stored<MemoryStore> {
    /// An empty directory. It ends with the process.
    pub fn new() -> Self {
        Self { store: MemoryStore::default(), head: watch::Sender::new(0) }
    }
}

impl Default for Stored<MemoryStore> {
    fn default() -> Self {
        Self::new()
    }
}
