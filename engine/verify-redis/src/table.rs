//! The table of sessions as it is kept in Redis: each row sealed for its place, and one manifest sealed over all of them.
//!
//! Who can write to this Redis can put back what it held before: an old row, a row without its revocation, the whole
//! table. So a row opens only in its own incarnation and under its own number, and the manifest says which rows there are and
//! how many changes led to them. It opens only as the manifest of that change. A row that was put back does not fit the
//! manifest, and a manifest that was put back with all its rows is older than what a server has seen. Only a server that
//! has seen nothing yet, and is alone, can be shown an old table as a whole.
//!
//! A row: 0 or 1 for active or revoked, the oldest policy epoch that is accepted (8 bytes), the session's document. A
//! revocation and a policy epoch are taken over from the row before, so neither is ever undone by what is added later.

use std::collections::BTreeMap;

use obol_session::Cursor;
use obol_token::SessionId;
use obol_verify::{ResourceHalf, Session, SessionSealError, SessionSealKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes at both ends of what is sealed that no two rows share: the nonce and the tag.
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// The hash of all rows.
const DIGEST_BYTES: usize = 32;
/// State and policy epoch, before the document.
const HEADER_BYTES: usize = 9;

/// Why a table was not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unbelievable {
    /// It does not open with this key.
    Sealed(SessionSealError),
    /// It is not as its manifest says, or older than what was seen.
    PlayedBack,
    /// It makes no sense.
    Nonsense,
}

/// Who keeps the table: the key, the namespace and the incarnation.
pub(crate) struct Keeper<'a> {
    pub(crate) key: &'a SessionSealKey,
    pub(crate) namespace: &'a str,
    pub(crate) incarnation: &'a str,
}

impl Keeper<'_> {
    fn place(&self, what: &str) -> Vec<u8> {
        // Neither a namespace nor an incarnation has a stroke in it.
        format!("{}/{}/{what}", self.namespace, self.incarnation).into_bytes()
    }
}

/// One row, as far as it is kept in mind.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    fingerprint: [u8; FINGERPRINT_BYTES],
    policy_epoch: u64,
    /// The document's hash; `None` where the session was revoked.
    document: Option<[u8; 32]>,
}

/// What is known of the table, all of it authentic.
#[derive(Default, Debug)]
pub(crate) struct Table {
    changes: u64,
    rows: BTreeMap<u64, Row>,
    /// How far it has come with what a service says. It is in the manifest, so it changes with a row or not at all.
    cursor: Option<Cursor>,
}

/// What a change came to before it was written.
pub(crate) enum Draft {
    /// There is nothing to write.
    Known,
    /// It was revoked.
    Revoked,
    /// There are as many active sessions as there may be.
    Full,
    Change(Change),
}

/// A change to be written.
pub(crate) struct Change {
    /// 16 hex digits.
    pub(crate) number: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    /// The table once it is written.
    after: Table,
}

impl Change {
    pub(crate) fn number_of_change(&self) -> String {
        self.after.changes.to_string()
    }

    /// It was written.
    pub(crate) fn done(self) -> Table {
        self.after
    }
}

impl Table {
    /// How many changes led to it, as Redis knows it.
    pub(crate) fn changes(&self) -> String {
        self.changes.to_string()
    }

    /// How far it has come with what a service says.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The oldest policy epoch that a session's row accepts.
    pub(crate) fn policy_epoch(&self, id: SessionId) -> u64 {
        self.rows.get(&id.as_u64()).map_or(0, |row| row.policy_epoch)
    }

    /// Adds a session, or replaces the active one of its number.
    pub(crate) fn add(
        &self,
        keeper: &Keeper<'_>,
        half: &ResourceHalf,
        epoch_in_force: u64,
        max_active: usize,
        cursor: Option<Cursor>,
    ) -> Result<Draft, SessionSealError> {
        let known = self.rows.get(&half.session_id.as_u64());
        let policy_epoch = half.policy_epoch.max(epoch_in_force).max(known.map_or(0, |row| row.policy_epoch));
        let document = half.to_json();
        let hash: [u8; 32] = Sha256::digest(&*document).into();
        match known {
            Some(Row { document: None, .. }) => return Ok(Draft::Revoked),
            Some(row) if row.document == Some(hash) && row.policy_epoch == policy_epoch => {
                return Ok(Draft::Known);
            }
            Some(_) => {}
            None if self.rows.values().filter(|row| row.document.is_some()).count() >= max_active => {
                return Ok(Draft::Full);
            }
            None => {}
        }
        self.change(keeper, half.session_id, policy_epoch, Some((&document, hash)), cursor)
    }

    /// Revokes a session, also one that is not known.
    pub(crate) fn revoke(
        &self,
        keeper: &Keeper<'_>,
        id: SessionId,
        cursor: Option<Cursor>,
    ) -> Result<Draft, SessionSealError> {
        match self.rows.get(&id.as_u64()) {
            Some(Row { document: None, .. }) => Ok(Draft::Known),
            known => self.change(keeper, id, known.map_or(0, |row| row.policy_epoch), None, cursor),
        }
    }

    fn change(
        &self,
        keeper: &Keeper<'_>,
        id: SessionId,
        policy_epoch: u64,
        document: Option<(&[u8], [u8; 32])>,
        cursor: Option<Cursor>,
    ) -> Result<Draft, SessionSealError> {
        let text = document.map_or(&[][..], |(text, _)| text);
        let mut plain = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + text.len()));
        plain.push(u8::from(document.is_none()));
        plain.extend_from_slice(&policy_epoch.to_be_bytes());
        plain.extend_from_slice(text);
        let sealed = keeper.key.seal(&keeper.place("row"), id, &plain)?;
        let fingerprint = fingerprint(&sealed).ok_or(SessionSealError::DoesNotOpen)?;
        let row = Row { fingerprint, policy_epoch, document: document.map(|(_, hash)| hash) };
        let cursor = further(self.cursor, cursor);
        let mut after = Self { changes: self.changes + 1, rows: self.rows.clone(), cursor };
        after.rows.insert(id.as_u64(), row);
        let manifest = keeper.key.seal(
            &keeper.place("manifest"),
            SessionId::from_u64(after.changes),
            &after.manifest(),
        )?;
        Ok(Draft::Change(Change { number: id.to_string(), sealed, manifest, after }))
    }

    /// Reads the table anew: the sessions in it that are active, and what is known from now on.
    pub(crate) fn read(
        &self,
        keeper: &Keeper<'_>,
        changes: &str,
        manifest: &[u8],
        rows: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(Self, Vec<Session>), Unbelievable> {
        let changes: u64 = changes.parse().map_err(|_| Unbelievable::Nonsense)?;
        let (mut read, mut sessions) =
            (Self { changes, rows: BTreeMap::new(), cursor: None }, Vec::with_capacity(rows.len()));
        for (number, sealed) in rows {
            let number = core::str::from_utf8(number).ok().and_then(SessionId::parse);
            let id = number.ok_or(Unbelievable::Nonsense)?;
            let (row, session) = open_row(keeper, id, sealed)?;
            read.rows.insert(id.as_u64(), row);
            sessions.extend(session);
        }
        if changes <= self.changes || !read.fits(keeper, manifest)? {
            return Err(Unbelievable::PlayedBack);
        }
        Ok((read, sessions))
    }

    /// Whether the manifest is that of these rows; it says the cursor.
    fn fits(&mut self, keeper: &Keeper<'_>, manifest: &[u8]) -> Result<bool, Unbelievable> {
        let opened = keeper.key.open(&keeper.place("manifest"), SessionId::from_u64(self.changes), manifest);
        let opened = opened.map_err(Unbelievable::Sealed)?;
        let (digest, cursor) = opened.split_at_checked(DIGEST_BYTES).ok_or(Unbelievable::Nonsense)?;
        if digest != self.digest() {
            return Ok(false);
        }
        if !cursor.is_empty() {
            let cursor = core::str::from_utf8(cursor).ok().and_then(Cursor::parse);
            self.cursor = Some(cursor.ok_or(Unbelievable::Nonsense)?);
        }
        Ok(true)
    }

    /// What is sealed over the whole table: the hash of its rows, and the cursor where there is one.
    fn manifest(&self) -> Vec<u8> {
        let cursor = self.cursor.map(|cursor| cursor.to_string()).unwrap_or_default();
        [&self.digest()[..], cursor.as_bytes()].concat()
    }

    /// The hash of all rows, in the order of their numbers.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (number, row) in &self.rows {
            hash.update(number.to_be_bytes());
            hash.update(row.fingerprint);
        }
        hash.finalize().into()
    }
}

/// The further of two cursors. One of another incarnation takes the place of what was before it.
fn further(known: Option<Cursor>, new: Option<Cursor>) -> Option<Cursor> {
    match (known, new) {
        (Some(known), Some(new)) if known.incarnation == new.incarnation && known.seq > new.seq => {
            Some(known)
        }
        (known, new) => new.or(known),
    }
}

fn open_row(
    keeper: &Keeper<'_>,
    id: SessionId,
    sealed: &[u8],
) -> Result<(Row, Option<Session>), Unbelievable> {
    let fingerprint = fingerprint(sealed).ok_or(Unbelievable::Sealed(SessionSealError::DoesNotOpen))?;
    let plain = keeper.key.open(&keeper.place("row"), id, sealed).map_err(Unbelievable::Sealed)?;
    let (state, rest) = plain.split_first().ok_or(Unbelievable::Nonsense)?;
    let (epoch, document) = rest.split_first_chunk().ok_or(Unbelievable::Nonsense)?;
    let policy_epoch = u64::from_be_bytes(*epoch);
    match *state {
        0 => {
            let half = ResourceHalf::from_json(document).map_err(|_| Unbelievable::Nonsense)?;
            let session = Session::from_half(&half).map_err(|_| Unbelievable::Nonsense)?;
            if session.session_id() != id {
                return Err(Unbelievable::Nonsense);
            }
            session.raise_policy_epoch(policy_epoch);
            let document = Some(Sha256::digest(document).into());
            Ok((Row { fingerprint, policy_epoch, document }, Some(session)))
        }
        1 => Ok((Row { fingerprint, policy_epoch, document: None }, None)),
        _ => Err(Unbelievable::Nonsense),
    }
}

fn fingerprint(sealed: &[u8]) -> Option<[u8; FINGERPRINT_BYTES]> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let tag = rest.last_chunk::<TAG_BYTES>()?;
    let mut both = [0; FINGERPRINT_BYTES];
    both.iter_mut().zip(nonce.iter().chain(tag)).for_each(|(place, byte)| *place = *byte);
    Some(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7";

    fn half(id: u64, policy_epoch: u64) -> ResourceHalf {
        let document = format!(
            r#"{{"obol_rs_sessions":1,"sessions":[{{"session_id":"{id:016x}","suite":1,"aud":"https://rs","K_session":"{SECRET}",
            "verifier_secret":"{SECRET}","mutual_auth":"{SECRET}","SEK_PK":"{SECRET}","org_id":"org",
            "window":{{"start":1,"end":2}},"policy_epoch":{policy_epoch}}}]}}"#
        );
        ResourceHalf::from_json(document.as_bytes()).unwrap()
    }

    fn keeper<'a>(key: &'a SessionSealKey, incarnation: &'a str) -> Keeper<'a> {
        Keeper { key, namespace: "rs", incarnation }
    }

    /// What Redis holds, and what it can be made to hold again.
    #[derive(Clone, Default)]
    struct Kept {
        changes: String,
        manifest: Vec<u8>,
        rows: BTreeMap<Vec<u8>, Vec<u8>>,
    }

    impl Kept {
        fn write(&mut self, change: Change) -> Table {
            self.rows.insert(change.number.clone().into_bytes(), change.sealed.clone());
            (self.changes, self.manifest) = (change.number_of_change(), change.manifest.clone());
            change.done()
        }

        fn read(&self, by: &Table, keeper: &Keeper<'_>) -> Result<(Table, Vec<Session>), Unbelievable> {
            let rows: Vec<_> = self.rows.clone().into_iter().collect();
            by.read(keeper, &self.changes, &self.manifest, &rows)
        }
    }

    fn changed(draft: Result<Draft, SessionSealError>) -> Change {
        match draft.unwrap() {
            Draft::Change(change) => change,
            _ => panic!("a change"),
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_revocation_and_a_policy_epoch_are_never_undone() {
        let key = SessionSealKey::from_bytes([7; 32]);
        let keeper = keeper(&key, "e1");
        let mut kept = Kept::default();
        let mut table = Table::default();
        for (id, epoch, in_force) in [(1, 5, 5), (2, 0, 0), (1, 1, 5), (1, 7, 7)] {
            table = kept.write(changed(table.add(&keeper, &half(id, epoch), 0, 10, None)));
            assert_eq!(table.policy_epoch(SessionId::from_u64(id)), in_force);
        }
        assert!(matches!(table.add(&keeper, &half(1, 7), 0, 10, None), Ok(Draft::Known)));
        assert!(matches!(table.add(&keeper, &half(3, 7), 0, 2, None), Ok(Draft::Full)));
        let (read, sessions) = kept.read(&Table::default(), &keeper).unwrap();
        assert_eq!((read.changes, &read.rows), (table.changes, &table.rows));
        let epochs: Vec<_> =
            sessions.iter().map(|session| (session.session_id().as_u64(), session.policy_epoch())).collect();
        assert_eq!(epochs, [(1, 7), (2, 0)]);

        table = kept.write(changed(table.revoke(&keeper, SessionId::from_u64(1), None)));
        assert!(matches!(table.revoke(&keeper, SessionId::from_u64(1), None), Ok(Draft::Known)));
        assert!(matches!(table.add(&keeper, &half(1, 9), 0, 10, None), Ok(Draft::Revoked)));
        let (read, sessions) = kept.read(&read, &keeper).unwrap();
        assert_eq!(sessions.len(), 1);
        assert!(matches!(read.add(&keeper, &half(1, 9), 0, 10, None), Ok(Draft::Revoked)));
    }

    #[test]
    fn how_far_it_has_come_is_written_with_a_row_and_never_falls() {
        let key = SessionSealKey::from_bytes([7; 32]);
        let keeper = keeper(&key, "e1");
        let at = |incarnation, seq| Some(Cursor { incarnation: [incarnation; 16], seq });
        let mut kept = Kept::default();
        let mut table = kept.write(changed(Table::default().add(&keeper, &half(1, 1), 0, 10, None)));
        let read = |kept: &Kept| kept.read(&Table::default(), &keeper).unwrap().0.cursor();
        assert_eq!(read(&kept), None);
        for (id, cursor, expected) in [
            (2, at(9, 5), at(9, 5)),
            (3, None, at(9, 5)),
            (4, at(9, 4), at(9, 5)),
            (5, at(9, 8), at(9, 8)),
            (6, at(1, 2), at(1, 2)),
        ] {
            table = kept.write(changed(table.add(&keeper, &half(id, 1), 0, 10, cursor)));
            assert_eq!((table.cursor(), read(&kept)), (expected, expected), "{id}");
        }
        table = kept.write(changed(table.revoke(&keeper, SessionId::from_u64(6), at(1, 3))));
        assert_eq!((table.cursor(), read(&kept)), (at(1, 3), at(1, 3)));
    }

    #[test]
    fn no_row_and_no_revocation_can_be_played_back() {
        let key = SessionSealKey::from_bytes([7; 32]);
        let keeper = keeper(&key, "e1");
        let mut kept = Kept::default();
        let mut table = kept.write(changed(Table::default().add(&keeper, &half(1, 1), 0, 10, None)));
        table = kept.write(changed(table.add(&keeper, &half(2, 1), 0, 10, None)));
        let before = kept.clone();
        table = kept.write(changed(table.revoke(&keeper, SessionId::from_u64(1), None)));
        table = kept.write(changed(table.add(&keeper, &half(2, 3), 0, 10, None)));
        let number = |id: u64| SessionId::from_u64(id).to_string().into_bytes();
        let played_back = |kept: &Kept| {
            // By a server that has seen nothing, and by one that has seen what was before.
            let old = before.read(&Table::default(), &keeper).unwrap().0;
            [&Table::default(), &old].map(|by| kept.read(by, &keeper).err())
        };
        type Change = fn(&mut Kept, &Kept, Vec<u8>);
        let cases: [(u64, Change); 4] = [
            (1, |kept, before, number| drop(kept.rows.insert(number.clone(), before.rows[&number].clone()))),
            (2, |kept, before, number| drop(kept.rows.insert(number.clone(), before.rows[&number].clone()))),
            (1, |kept, _, number| drop(kept.rows.remove(&number))),
            (2, |kept, _, number| drop(kept.rows.remove(&number))),
        ];
        for (id, change) in cases {
            let mut changed = kept.clone();
            change(&mut changed, &before, number(id));
            assert_eq!(played_back(&changed), [Some(Unbelievable::PlayedBack); 2], "{id}");
        }
        // An older manifest does not open as this one, and the whole table of before is older than what was seen.
        let older_manifest = Kept { manifest: before.manifest.clone(), ..kept.clone() };
        assert!(matches!(older_manifest.read(&Table::default(), &keeper), Err(Unbelievable::Sealed(_))));
        assert_eq!(before.read(&table, &keeper).err(), Some(Unbelievable::PlayedBack));
        assert_eq!(kept.read(&table, &keeper).err(), Some(Unbelievable::PlayedBack), "the same once more");
    }

    #[test]
    fn nothing_opens_elsewhere() {
        let (key, other) = (SessionSealKey::from_bytes([7; 32]), SessionSealKey::from_bytes([8; 32]));
        let here = keeper(&key, "e1");
        let mut kept = Kept::default();
        kept.write(changed(Table::default().add(&here, &half(1, 1), 0, 10, None)));
        assert!(kept.read(&Table::default(), &here).is_ok());
        for elsewhere in
            [keeper(&key, "e2"), Keeper { namespace: "other", ..keeper(&key, "e1") }, keeper(&other, "e1")]
        {
            let read = kept.read(&Table::default(), &elsewhere);
            assert!(matches!(read, Err(Unbelievable::Sealed(SessionSealError::DoesNotOpen))));
        }
        let mut moved = kept.clone();
        let row = moved.rows.pop_first().unwrap().1;
        moved.rows.insert(SessionId::from_u64(2).to_string().into_bytes(), row);
        assert!(matches!(moved.read(&Table::default(), &here), Err(Unbelievable::Sealed(_))));
        for (changes, rows) in [("", 1), ("x", 1), ("1", 0)] {
            let mut kept = Kept { changes: changes.to_owned(), ..kept.clone() };
            if rows == 0 {
                kept.rows.insert(b"no number".to_vec(), vec![0; 40]);
            }
            assert_eq!(kept.read(&Table::default(), &here).err(), Some(Unbelievable::Nonsense));
        }
    }
}
