//! The rules, written once for every store: each function is what happens inside one transaction. It looks first and
//! writes then, so that what it refuses has changed nothing.

mod calls;
mod confirming;
mod ending;
mod forgetting;
mod handshakes;
mod heard;
mod humans;
mod keys;
mod people;
mod policy;
mod registering;
mod servers;
mod sessions;
mod sets;
mod starting_over;
mod telling;
mod waiting;

use obol_handshake::IdentityPublic;
use obol_session::{ResourceHalf, SessionId};
use tokio::sync::watch;

use super::tables::{Number, Store, Table, Transaction, Unavailable, read_row};
use super::{
    Agent, Answer, Approval, Bytes, CallApproval, CallDecision, CallPlace, Carried, DeniedTool, Directory,
    EndScope, Ended, Event, EventStream, Follower, Follows, HalvesPage, Handshake, HeardSet, Human,
    Invitation, KeyStanding, MAX_PAGE, MAX_POLICY_TEXTS, NewCallApproval, NewRegistration, NewReplica,
    Opened, Person, PolicyText, PolicyVersion, Polled, Registered, Registration, Replica, ResourceServer,
    RotateStep, Seal, SessionPlan, SessionRow, StartedOver, Stored, TakenSet, Unharmed,
};
use crate::id::{AgentId, ApprovalId, RegistrationId, ReplicaId};
use crate::refused::Refused;

pub(crate) use self::humans::index as index_owners;
pub(crate) use self::registering::make as approved_agent;

/// Where the incarnation is, among the single values.
const INCARNATION: &[u8] = b"incarnation";
/// Where the keys are that sign for others, among them.
const SIGNING_KEYS: &[u8] = b"signing_keys";

/// `time ‖ rest`: an index by time.
fn at(time: u64, rest: &[u8]) -> Vec<u8> {
    [&time.to_be_bytes()[..], rest].concat()
}

/// The number that a key ends with.
fn number_behind(key: &[u8]) -> Answer<SessionId> {
    let number = key.last_chunk::<8>().map(|bytes| SessionId::from_u64(u64::from_be_bytes(*bytes)));
    number.ok_or_else(|| Unavailable::new("a key of an index has another form"))
}

/// Runs a transaction, and wakes those who wait for events once it is durable.
fn write<S, T, F>(stored: &Stored<S>, act: F) -> Answer<T>
where
    S: Store,
    T: Send + 'static,
    F: FnOnce(&mut Transaction<'_>) -> Answer<T> + Send + 'static,
{
    let (done, head) = stored.store.write(move |transaction| {
        let done = act(transaction)?;
        Ok((done, transaction.number(Number::LastEvent)?))
    })?;
    stored.head.send_if_modified(|known| core::mem::replace(known, head.max(*known)) < head);
    Ok(done)
}

impl<S: Store> Directory for Stored<S> {
    fn register(
        &self,
        handshake: Handshake,
        new: NewRegistration,
        now: u64,
        seal: Seal<Registered>,
    ) -> Answer<Carried<Registered>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                registering::register(transaction, new, now)
            })
        })
    }

    fn open_session(
        &self,
        handshake: Handshake,
        plan: SessionPlan,
        now: u64,
        seal: Seal<Opened>,
    ) -> Answer<Carried<Opened>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                sessions::open(transaction, plan, now)
            })
        })
    }

    fn rotate_key(
        &self,
        handshake: Handshake,
        identity: IdentityPublic,
        step: RotateStep,
        now: u64,
        seal: Seal<AgentId>,
    ) -> Answer<Carried<AgentId>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                keys::rotate(transaction, handshake, &identity, &step, now).map(handshakes::Decided::Done)
            })
        })
    }

    fn deregister(
        &self,
        handshake: Handshake,
        identity: IdentityPublic,
        now: u64,
        seal: Seal<Ended>,
    ) -> Answer<Carried<Ended>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                ending::deregister(transaction, &identity, now).map(handshakes::Decided::Done)
            })
        })
    }

    fn join(
        &self,
        handshake: Handshake,
        new: NewReplica,
        now: u64,
        seal: Seal<Replica>,
    ) -> Answer<Carried<Replica>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                servers::join(transaction, new, now).map(handshakes::Decided::Done)
            })
        })
    }

    fn ask_approval(
        &self,
        handshake: Handshake,
        new: NewCallApproval,
        now: u64,
        seal: Seal<CallApproval>,
    ) -> Answer<Carried<CallApproval>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                calls::ask(transaction, new, now)
            })
        })
    }

    fn call_approval(&self, id: &ApprovalId) -> Answer<Option<CallApproval>> {
        self.store.read(|transaction| calls::get(transaction, id))
    }

    fn waiting_calls(&self, now: u64, behind: Option<&CallPlace>, most: usize) -> Answer<Vec<CallApproval>> {
        self.store.read(|transaction| calls::waiting(transaction, now, behind, most))
    }

    fn decide_calls(&self, decision: CallDecision, now: u64) -> Answer<Result<CallApproval, Refused>> {
        write(self, move |transaction| calls::decide(transaction, decision, now))
    }

    fn refuse(&self, handshake: Handshake, why: Refused, now: u64, seal: Seal<()>) -> Answer<Carried<()>> {
        write(self, move |transaction| {
            handshakes::once(transaction, handshake, now, seal, |_| Ok(handshakes::Decided::Done(Err(why))))
        })
    }

    fn registration(&self, code_hash: [u8; 32], now: u64) -> Answer<Option<Registration>> {
        self.store.read(|transaction| waiting::with_code(transaction, &code_hash, now))
    }

    fn waiting(&self, now: u64, behind: Option<&Registration>) -> Answer<Vec<Registration>> {
        self.store.read(|transaction| waiting::page(transaction, now, behind))
    }

    fn approve(&self, approval: Approval, now: u64) -> Answer<Result<Agent, Refused>> {
        write(self, move |transaction| registering::approve(transaction, approval, now))
    }

    fn registration_named(&self, id: &RegistrationId, now: u64) -> Answer<Option<Registration>> {
        self.store.read(|transaction| waiting::named(transaction, id, now))
    }

    fn open_registration(&self, id: &RegistrationId, now: u64) -> Answer<Option<Registration>> {
        self.store.read(|transaction| waiting::open_named(transaction, id, now))
    }

    fn confirm(&self, yes: Approval, code_hash: [u8; 32], now: u64) -> Answer<Result<Registration, Refused>> {
        write(self, move |transaction| confirming::confirm(transaction, yes, code_hash, now))
    }

    fn complete(
        &self,
        registration: RegistrationId,
        poll_hash: [u8; 32],
        code_hash: [u8; 32],
        reached: Option<Human>,
        now: u64,
    ) -> Answer<Result<Agent, Refused>> {
        write(self, move |transaction| {
            confirming::complete(transaction, &registration, (&poll_hash, &code_hash), reached, now)
        })
    }

    fn deny(
        &self,
        registration: RegistrationId,
        block_secs: u64,
        now: u64,
    ) -> Answer<Result<Registration, Refused>> {
        write(self, move |transaction| registering::deny(transaction, &registration, block_secs, now))
    }

    fn poll(&self, registration: RegistrationId, poll_hash: [u8; 32], now: u64) -> Answer<Option<Polled>> {
        self.store.read(|transaction| waiting::poll(transaction, &registration, &poll_hash, now))
    }

    fn standing(&self, identity: IdentityPublic, now: u64) -> Answer<KeyStanding> {
        self.store.read(|transaction| keys::standing(transaction, &identity, now))
    }

    fn agents(&self, after: Option<&AgentId>) -> Answer<Vec<Agent>> {
        let after = after.map(|id| id.as_str().as_bytes());
        self.store.read(|transaction| transaction.list(Table::Agent, after, MAX_PAGE))
    }

    fn agent(&self, name: &str) -> Answer<Option<Agent>> {
        self.store.read(|transaction| keys::agent_called(transaction, name))
    }

    fn sessions(&self, agent: &AgentId) -> Answer<Vec<SessionRow>> {
        self.store.read(|transaction| sessions::live(transaction, agent))
    }

    fn live_sessions(&self, after: Option<(&AgentId, SessionId)>, most: usize) -> Answer<Vec<SessionRow>> {
        self.store.read(|transaction| sessions::all_live(transaction, after, most.min(MAX_PAGE)))
    }

    fn session(&self, id: SessionId) -> Answer<Option<SessionRow>> {
        self.store.read(|transaction| transaction.get(Table::Session, &id.as_u64().to_be_bytes()))
    }

    fn half(&self, session: SessionId, audience: &str) -> Answer<Option<ResourceHalf>> {
        self.store.read(|transaction| sessions::half(transaction, session, audience))
    }

    fn last_session(&self) -> Answer<SessionId> {
        self.store.read(|transaction| transaction.number(Number::LastSession).map(SessionId::from_u64))
    }

    fn end(&self, scope: EndScope, reason: String, by: Human, now: u64) -> Answer<Result<Ended, Refused>> {
        write(self, move |transaction| match &scope {
            EndScope::Agent(name) => ending::end_agent(transaction, name, false, &reason, now),
            EndScope::Revoke(name) => ending::end_agent(transaction, name, true, &reason, now),
            EndScope::Session(id) => ending::end_session(transaction, *id, &reason, now),
            EndScope::Tool(tool) => ending::end_tool(transaction, tool, &reason, &by, now),
            EndScope::Owner(owner, how) => people::end(transaction, owner, *how, &reason, now),
        })
    }

    fn person(&self, human: &Human) -> Answer<Option<Person>> {
        self.store.read(|transaction| humans::person(transaction, human))
    }

    fn know_person(&self, person: Person, now: u64) -> Answer<Result<Ended, Refused>> {
        write(self, move |transaction| people::know(transaction, &person, now))
    }

    fn take_set(&self, set: HeardSet, now: u64) -> Answer<TakenSet> {
        write(self, move |transaction| sets::take(transaction, &set, now))
    }

    fn enable_agent(&self, name: &str, now: u64) -> Answer<Result<Agent, Refused>> {
        let name = name.to_owned();
        write(self, move |transaction| ending::enable_agent(transaction, &name, now))
    }

    fn enable_tool(&self, tool: &str, now: u64) -> Answer<Result<(), Refused>> {
        let tool = tool.to_owned();
        write(self, move |transaction| ending::enable_tool(transaction, &tool, now))
    }

    fn denied_tools(&self) -> Answer<Vec<DeniedTool>> {
        let list = |transaction: &Transaction<'_>| {
            transaction.list(Table::DeniedTool, None, ending::MAX_DENIED_TOOLS)
        };
        let mut denied: Vec<DeniedTool> = self.store.read(list)?;
        denied.sort_by(|one, other| one.tool.cmp(&other.tool));
        Ok(denied)
    }

    fn invite(&self, ticket_hash: [u8; 32], invitation: Invitation) -> Answer<Result<(), Refused>> {
        write(self, move |transaction| registering::invite(transaction, &ticket_hash, &invitation))
    }

    fn invitation(&self, ticket_hash: [u8; 32]) -> Answer<Option<Invitation>> {
        self.store.read(|transaction| transaction.get(Table::Invitation, &ticket_hash))
    }

    fn add_resource_server(
        &self,
        server: ResourceServer,
        code_hash: [u8; 32],
        expires_at: u64,
    ) -> Answer<Result<(), Refused>> {
        write(self, move |transaction| servers::add(transaction, &server, &code_hash, expires_at))
    }

    fn resource_servers(&self) -> Answer<Vec<ResourceServer>> {
        let list = |transaction: &Transaction<'_>| {
            transaction.list(Table::ResourceServer, None, servers::MAX_SERVERS)
        };
        let mut servers: Vec<ResourceServer> = self.store.read(list)?;
        servers.sort_by(|one, other| one.audience.cmp(&other.audience));
        Ok(servers)
    }

    fn replicas(&self) -> Answer<Vec<Replica>> {
        self.store.read(|transaction| transaction.list(Table::Replica, None, servers::MAX_REPLICAS))
    }

    fn replica(&self, identity: IdentityPublic) -> Answer<Option<Replica>> {
        self.store.read(|transaction| servers::replica_with(transaction, &identity))
    }

    fn acknowledge(&self, replica: &ReplicaId, cursor: u64, now: u64) -> Answer<()> {
        let replica = replica.clone();
        write(self, move |transaction| servers::acknowledge(transaction, &replica, cursor, now))
    }

    fn remove_replica(&self, replica: &ReplicaId, now: u64) -> Answer<Result<Replica, Refused>> {
        let replica = replica.clone();
        write(self, move |transaction| servers::remove(transaction, &replica, now))
    }

    fn begin_stream(&self, handshake: Handshake, follows: Follows, now: u64) -> Answer<Carried<Follower>> {
        write(self, move |transaction| {
            // A stream cannot be kept and told again, so its answer is none.
            let seal: Seal<Follower> = Box::new(|_| Vec::new());
            handshakes::once(transaction, handshake, now, seal, |transaction| {
                servers::follower(transaction, follows, now).map(handshakes::Decided::Done)
            })
        })
    }

    fn halves(&self, audience: &str, after: Option<SessionId>) -> Answer<HalvesPage> {
        self.store.read(|transaction| sessions::halves(transaction, audience, after))
    }

    fn incarnation(&self, fresh: [u8; 16]) -> Answer<[u8; 16]> {
        write(self, move |transaction| {
            if let Some(known) = transaction.get_bytes(Table::Meta, INCARNATION)? {
                let known = known.as_slice().try_into();
                return known.map_err(|_| Unavailable::new("its incarnation has another form"));
            }
            transaction.put_bytes(Table::Meta, INCARNATION, zeroize::Zeroizing::new(fresh.to_vec()));
            Ok(fresh)
        })
    }

    fn start_over(&self, incarnation: [u8; 16], now: u64) -> Answer<StartedOver> {
        write(self, move |transaction| starting_over::start_over(transaction, incarnation, now))
    }

    fn signing_keys(&self, fresh: Option<Bytes>) -> Answer<Option<Bytes>> {
        write(self, move |transaction| {
            let known = transaction.get_bytes(Table::Meta, SIGNING_KEYS)?;
            if let (None, Some(fresh)) = (&known, &fresh) {
                transaction.put_bytes(Table::Meta, SIGNING_KEYS, fresh.clone());
            }
            Ok(known.or(fresh))
        })
    }

    fn replace_signing_keys(&self, known: Bytes, fresh: Bytes) -> Answer<Bytes> {
        write(self, move |transaction| match transaction.get_bytes(Table::Meta, SIGNING_KEYS)? {
            Some(others) if others != known => Ok(others),
            _ => {
                transaction.put_bytes(Table::Meta, SIGNING_KEYS, fresh.clone());
                Ok(fresh.clone())
            }
        })
    }

    fn event_streams(&self) -> Answer<Vec<EventStream>> {
        self.store.read(telling::streams)
    }

    fn put_event_stream(&self, stream: EventStream) -> Answer<()> {
        write(self, move |transaction| telling::put(transaction, &stream))
    }

    fn remove_event_stream(&self, id: &str) -> Answer<()> {
        let id = id.to_owned();
        write(self, move |transaction| telling::remove(transaction, &id))
    }

    fn told(&self, name: &str, fresh: u64) -> Answer<u64> {
        let name = name.to_owned();
        write(self, move |transaction| telling::told(transaction, &name, fresh))
    }

    fn come_to(&self, name: &str, cursor: u64) -> Answer<()> {
        let name = name.to_owned();
        write(self, move |transaction| telling::come_to(transaction, &name, cursor))
    }

    fn activate_policy(
        &self,
        text: PolicyText,
        unharmed: Unharmed,
        by: Human,
        now: u64,
    ) -> Answer<Result<(PolicyVersion, Ended), Refused>> {
        write(self, move |transaction| policy::activate(transaction, &text, &unharmed, by.clone(), now))
    }

    fn policies(&self) -> Answer<Vec<PolicyVersion>> {
        self.store.read(|transaction| policy::versions(transaction, MAX_POLICY_TEXTS))
    }

    fn policy_text(&self, digest: &str) -> Answer<Option<PolicyText>> {
        self.store.read(|transaction| policy::text(transaction, digest))
    }

    fn observe_policy(&self, other: Option<PolicyText>) -> Answer<Result<(), Refused>> {
        write(self, move |transaction| policy::observe(transaction, other.as_ref()))
    }

    fn observed_policy(&self) -> Answer<Option<PolicyText>> {
        self.store.read(policy::observed)
    }

    fn policy(&self) -> Answer<Option<PolicyVersion>> {
        self.store.read(policy::in_force)
    }

    fn events(&self, after: u64) -> Answer<Option<Vec<Event>>> {
        self.store.read(|transaction| {
            if after < transaction.number(Number::ForgottenEvents)? {
                return Ok(None);
            }
            let rows = transaction.scan(Table::Event, &[], Some(&after.to_be_bytes()), MAX_PAGE)?;
            rows.iter().map(|(_, row)| read_row(Table::Event, row)).collect::<Answer<_>>().map(Some)
        })
    }

    fn last_event(&self) -> Answer<u64> {
        self.store.read(|transaction| transaction.number(Number::LastEvent))
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn forget(&self, now: u64) -> Answer<bool> {
        write(self, move |transaction| forgetting::forget(transaction, now))
    }

    fn health(&self) -> Answer<()> {
        self.store.health()
    }
}
