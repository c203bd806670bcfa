//! What a store must be able to do, and a transaction over it: rows by table and key, seen as if the transaction's own
//! changes were made already.
//!
//! A transaction's changes are kept aside until it has come to its end. What is refused, or fails on the way, changes
//! nothing.

use core::fmt;
use core::ops::Bound;
use std::collections::BTreeMap;

use obol_secret::wipe::Wiped;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::event::{Event, Happening};
use crate::id::keyed_hash;
use crate::refused::Refused;

/// A row's bytes. Some hold secrets, so all are wiped.
pub type Bytes = Zeroizing<Vec<u8>>;

/// The tables. The numbers are on disk and never change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Table {
    /// Counters and other single values, by name.
    Meta = 1,
    /// `Agent` by id.
    Agent = 2,
    /// Id of an agent that is not revoked, by its hidden name.
    AgentName = 3,
    /// `KeyOwner` by SHA-256 of an identity key. Rows stay for ever.
    IdentityKey = 4,
    /// `Registration` by id.
    Registration = 5,
    /// Id of a registration, by hash of its code.
    RegistrationCode = 6,
    /// Nothing, by hidden source ‖ id: what waits.
    RegistrationSource = 7,
    /// Nothing, by time of its end ‖ id.
    RegistrationEnd = 8,
    /// Unix seconds until when, by hidden source: registrations that are not taken.
    BlockedSource = 9,
    /// Nothing, by hidden human ‖ time ‖ registration: approvals of the last hour.
    ApprovalTime = 10,
    /// Final transcript ‖ sealed answer, by the transcript before the third message.
    Handshake = 11,
    /// Nothing, by time ‖ transcript.
    HandshakeTime = 12,
    /// `SessionRow` by number.
    Session = 13,
    /// A resource server's half as JSON, by number ‖ hidden audience. Holds keys.
    SessionAudience = 14,
    /// Nothing, by hidden agent ‖ number: live sessions.
    AgentSession = 15,
    /// Nothing, by hidden tool ‖ number: live sessions.
    ToolSession = 16,
    /// Nothing, by time ‖ number: when to look at a session again.
    SessionEnd = 17,
    /// `Event` by number.
    Event = 18,
    /// `Invitation` by hash of its ticket.
    Invitation = 19,
    /// `ResourceServer` by hidden audience.
    ResourceServer = 20,
    /// `Replica` by id.
    Replica = 21,
    /// Id of a replica, by SHA-256 of its key.
    ReplicaKey = 22,
    /// `JoinCode` by hash.
    JoinCode = 23,
    /// `DeniedTool` by hidden name.
    DeniedTool = 24,
    /// `PolicyVersion` by number.
    Policy = 25,
    /// `KeyRotation` by agent.
    Rotation = 26,
    /// Id of a registration that waits, by SHA-256 of its identity key.
    RegistrationKey = 27,
    /// `PolicyText` by digest.
    PolicyText = 28,
    /// The digest of the policy that is looked at beside the one in force; one row, without a key.
    ObservedPolicy = 29,
    /// Nothing, by hidden owner ‖ agent: agents that are not revoked.
    OwnerAgent = 30,
    /// `Person` by hidden human.
    Person = 31,
    /// Unix seconds until when its `iat` would be taken, by hidden issuer ‖ SHA-256 of its `jti`: security events that were heard.
    Set = 32,
    /// Nothing, by time ‖ key of a heard security event: when it is forgotten.
    SetTime = 33,
    /// `EventStream` by id.
    EventStream = 34,
    /// An event's number, by hidden name of who is told: how far they have come.
    Told = 35,
    /// `CallApproval` by id.
    CallApproval = 40,
    /// Nothing, by hidden agent ‖ time ‖ id: requests of agents.
    CallApprovalAgent = 41,
    /// Nothing, by time ‖ id: when to forget a request.
    CallApprovalEnd = 42,
    /// Nothing, by time of its end ‖ id: requests that wait for a human.
    CallApprovalWaiting = 43,
}

/// The directory cannot do what was asked, and neither did nor will. Whoever asked may ask again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unavailable(pub(crate) String);

impl Unavailable {
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the directory is not available: {}", self.0)
    }
}

impl core::error::Error for Unavailable {}

impl From<Unavailable> for Refused {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

pub(crate) type Kept<T> = Result<T, Unavailable>;

/// Bytes of a name that is hidden.
pub(crate) const HIDDEN_BYTES: usize = 16;

/// Rows as a store has them.
pub(crate) trait Rows {
    /// What names in keys are hidden under. Rows may be sealed; keys cannot be, for they are looked up.
    fn name_key(&self) -> &[u8; 32];

    fn get(&self, table: Table, key: &[u8]) -> Kept<Option<Bytes>>;

    /// The first `limit` rows whose keys are in `from..to`, in order. No `to` is the table's end.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<(Vec<u8>, Bytes)>>;
}

/// What a transaction changes; `None` removes.
pub(crate) type Changes = BTreeMap<(Table, Vec<u8>), Option<Bytes>>;

/// Where rows are kept.
pub(crate) trait Store: Send + Sync + fmt::Debug + 'static {
    /// Runs `act` in a transaction of its own, one after the other, and returns once what it changed is durable.
    fn write<T, F>(&self, act: F) -> Kept<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Kept<T> + Send + 'static;

    /// Runs `act` over what is durable.
    fn read<T>(&self, act: impl FnOnce(&Transaction<'_>) -> Kept<T>) -> Kept<T>;

    /// Whether changes can be kept.
    fn health(&self) -> Kept<()>;
}

/// One transaction.
pub(crate) struct Transaction<'a> {
    rows: &'a dyn Rows,
    changes: Changes,
}

/// The least key behind all that begin with `prefix`.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(rows: &'a dyn Rows) -> Self {
        Self { rows, changes: Changes::new() }
    }

    /// What it changes, once it has come to its end.
    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Changes also what one changed that was begun on top of this.
    pub(crate) fn absorb(&mut self, changes: Changes) {
        self.changes.extend(changes);
    }

    /// A name as it stands in keys: of one length, and nothing that can be read or guessed from outside.
    pub(crate) fn hidden(&self, name: &str) -> [u8; HIDDEN_BYTES] {
        let mut hidden = [0; HIDDEN_BYTES];
        let mac = keyed_hash(self.rows.name_key(), name.as_bytes());
        hidden.iter_mut().zip(mac).for_each(|(place, byte)| *place = byte);
        hidden
    }

    /// The hidden name, and something behind it.
    pub(crate) fn under(&self, name: &str, rest: &[u8]) -> Vec<u8> {
        [&self.hidden(name)[..], rest].concat()
    }

    pub(crate) fn get_bytes(&self, table: Table, key: &[u8]) -> Kept<Option<Bytes>> {
        match self.changes.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.rows.get(table, key),
        }
    }

    pub(crate) fn put_bytes(&mut self, table: Table, key: &[u8], row: Bytes) {
        self.changes.insert((table, key.to_vec()), Some(row));
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Kept<Option<T>> {
        self.get_bytes(table, key)?.map(|row| read_row(table, &row)).transpose()
    }

    pub(crate) fn put<T: Serialize>(&mut self, table: Table, key: &[u8], row: &T) -> Kept<()> {
        // What a `Vec` leaves behind as it grows is not wiped.
        let mut bytes = Wiped::default();
        serde_json::to_writer(&mut bytes, row).map_err(Unavailable::new)?;
        self.put_bytes(table, key, Zeroizing::new(bytes.to_vec()));
        Ok(())
    }

    /// A row without contents: an entry of an index.
    pub(crate) fn mark(&mut self, table: Table, key: &[u8]) {
        self.put_bytes(table, key, Zeroizing::default());
    }

    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) {
        self.changes.insert((table, key.to_vec()), None);
    }

    /// The first `limit` rows whose keys begin with `prefix` and lie behind `after`.
    pub(crate) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<(Vec<u8>, Bytes)>> {
        let from = match after {
            Some(after) => [after, &[0]].concat(),
            None => prefix.to_vec(),
        };
        self.range(table, &from, behind(prefix).as_deref(), limit)
    }

    /// As [`scan`](Self::scan), of the keys alone.
    pub(crate) fn keys(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<Vec<u8>>> {
        Ok(self.scan(table, prefix, after, limit)?.into_iter().map(|(key, _)| key).collect())
    }

    /// As [`scan`](Self::scan), with the rows read.
    pub(crate) fn list<T: DeserializeOwned>(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<T>> {
        self.scan(table, &[], after, limit)?.iter().map(|(_, row)| read_row(table, row)).collect()
    }

    /// A single value, 0 where it was never set.
    pub(crate) fn number(&self, name: Number) -> Kept<u64> {
        Ok(self.get(Table::Meta, name.key())?.unwrap_or(0))
    }

    pub(crate) fn set_number(&mut self, name: Number, value: u64) -> Kept<()> {
        self.put(Table::Meta, name.key(), &value)
    }

    /// Adds an event, with the next number. Numbers have no gaps: they are taken inside the transaction, and transactions
    /// come one after the other.
    pub(crate) fn emit(&mut self, at: u64, what: Happening) -> Kept<()> {
        let seq = self.number(Number::LastEvent)? + 1;
        self.set_number(Number::LastEvent, seq)?;
        self.put(Table::Event, &seq.to_be_bytes(), &Event { seq, at, what })
    }
}

/// Rows as they are behind its changes, for others on top of it.
impl Rows for Transaction<'_> {
    fn name_key(&self) -> &[u8; 32] {
        self.rows.name_key()
    }

    fn get(&self, table: Table, key: &[u8]) -> Kept<Option<Bytes>> {
        self.get_bytes(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<(Vec<u8>, Bytes)>> {
        let end = match to {
            Some(to) => Bound::Excluded((table, to.to_vec())),
            None => Bound::Unbounded,
        };
        let changed = || {
            let range = (Bound::Included((table, from.to_vec())), end.clone());
            self.changes.range(range).take_while(|((found, _), _)| *found == table)
        };
        let rows = self.rows.range(table, from, to, limit.saturating_add(changed().count()))?;
        let mut merged: BTreeMap<Vec<u8>, Bytes> = rows.into_iter().collect();
        for ((_, key), row) in changed() {
            match row {
                Some(row) => merged.insert(key.clone(), row.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

/// Single values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Number {
    /// The newest event's number.
    LastEvent,
    /// The newest event's number that was removed because it was old.
    ForgottenEvents,
    /// Registrations that wait.
    Pending,
    /// Handshakes that are remembered.
    Handshakes,
    /// The greatest number that a session had.
    LastSession,
    /// The policy epoch.
    PolicyEpoch,
    /// The policy version in force.
    PolicyVersion,
    /// Agents, revoked ones included.
    Agents,
    /// Humans that are known.
    Persons,
    /// Security events that are remembered.
    Sets,
    /// Requests for a human's yes that are kept.
    CallApprovals,
}

impl Number {
    fn key(self) -> &'static [u8] {
        match self {
            Self::LastEvent => b"last_event",
            Self::ForgottenEvents => b"forgotten_events",
            Self::Pending => b"pending",
            Self::Handshakes => b"handshakes",
            Self::LastSession => b"last_session",
            Self::PolicyEpoch => b"policy_epoch",
            Self::PolicyVersion => b"policy_version",
            Self::Agents => b"agents",
            Self::Persons => b"persons",
            Self::Sets => b"sets",
            Self::CallApprovals => b"call_approvals",
        }
    }
}

pub(crate) fn read_row<T: DeserializeOwned>(table: Table, row: &[u8]) -> Kept<T> {
    serde_json::from_slice(row)
        .map_err(|_| Unavailable(format!("a row of the table {table:?} has another form")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::memory::MemoryStore;

    fn keys(transaction: &Transaction<'_>, after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
        transaction.keys(Table::Meta, b"b", after, limit).unwrap()
    }

    #[test]
    fn a_scan_sees_the_transactions_own_changes_within_its_prefix_and_limit() {
        let store = MemoryStore::default();
        let fill = |transaction: &mut Transaction<'_>| {
            for key in [&b"a"[..], b"b1", b"b3", b"b5", b"c"] {
                transaction.mark(Table::Meta, key);
            }
            transaction.mark(Table::Agent, b"b2");
            Ok(())
        };
        store.write(fill).unwrap();
        store
            .write(|transaction| {
                transaction.remove(Table::Meta, b"b1");
                transaction.mark(Table::Meta, b"b4");
                assert_eq!(keys(transaction, None, 10), [b"b3", b"b4", b"b5"]);
                assert_eq!(keys(transaction, None, 1), [b"b3"]);
                assert_eq!(keys(transaction, Some(b"b3"), 1), [b"b4"]);
                assert!(keys(transaction, Some(b"b5"), 1).is_empty());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn what_fails_changes_nothing() {
        let store = MemoryStore::default();
        let failed = store.write(|transaction| {
            transaction.mark(Table::Meta, b"x");
            Err::<(), _>(Unavailable::new("stop"))
        });
        assert!(failed.is_err());
        assert!(store.read(|transaction| transaction.get_bytes(Table::Meta, b"x")).unwrap().is_none());
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_every_key_that_begins_with_it() {
        assert_eq!(behind(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(behind(&[1, 255]), Some(vec![2]));
        assert_eq!(behind(&[255]), None);
        assert_eq!(behind(&[]), None);
    }

    /// A key of a few, in one of two tables.
    type Place = (bool, Vec<u8>);

    /// What a transaction does, row by row; and whether it fails after that.
    type Deeds = (Vec<(Place, Option<u8>)>, bool);

    fn a_place() -> impl Strategy<Value = Place> {
        (any::<bool>(), proptest::collection::vec(0..3_u8, 0..3))
    }

    fn table(is_first: bool) -> Table {
        if is_first { Table::Meta } else { Table::Agent }
    }

    fn act(transaction: &mut Transaction<'_>, (deeds, fails): &Deeds) -> Kept<()> {
        for ((is_first, key), row) in deeds {
            match row {
                Some(row) => transaction.put_bytes(table(*is_first), key, Zeroizing::new(vec![*row])),
                None => transaction.remove(table(*is_first), key),
            }
        }
        if *fails { Err(Unavailable::new("stop")) } else { Ok(()) }
    }

    proptest! {
        #[test]
        fn transactions_on_top_of_each_other_see_and_change_what_they_do_one_after_the_other(
            before: Deeds,
            group in proptest::collection::vec(
                (proptest::collection::vec((a_place(), any::<Option<u8>>()), 0..6), any::<bool>()),
                1..5,
            ),
            (is_first, prefix) in a_place(),
            after in proptest::option::of(proptest::collection::vec(0..3_u8, 0..3)),
            limit in 0..6_usize,
        ) {
            let look = |transaction: &Transaction<'_>| {
                let after = after.as_deref().filter(|after| after.starts_with(&prefix));
                let page = transaction.scan(table(is_first), &prefix, after, limit)?;
                let all = [Table::Meta, Table::Agent].map(|table| transaction.scan(table, &[], None, 1_000));
                Ok((page, all, transaction.get_bytes(table(is_first), &prefix)?))
            };
            let (alone, under) = (MemoryStore::default(), MemoryStore::default());
            for store in [&alone, &under] {
                let before = (before.0.clone(), false);
                store.write(move |transaction| act(transaction, &before)).unwrap();
            }
            let mut seen = Vec::new();
            for deeds in group.clone() {
                let _failed = alone.write(move |transaction| act(transaction, &deeds));
                seen.push(alone.read(look).unwrap());
            }
            let changes = under.read(|rows| {
                let mut together = Transaction::new(rows);
                for (deeds, seen) in group.iter().zip(&seen) {
                    let mut transaction = Transaction::new(&together);
                    let changes = act(&mut transaction, deeds).is_ok().then(|| transaction.into_changes());
                    together.absorb(changes.unwrap_or_default());
                    assert_eq!(&look(&Transaction::new(&together))?, seen);
                }
                Ok(together.into_changes())
            });
            let changes = changes.unwrap();
            under.write(move |transaction| { transaction.absorb(changes); Ok(()) }).unwrap();
            prop_assert_eq!(&under.read(look).unwrap(), seen.last().unwrap());
        }
    }
}
