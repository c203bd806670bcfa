//! What is known of the records: where each was written, until when it matters, and one sum over all of them.
//!
//! Who can write to this Redis can put back what it held before: an old row, a table without one of its rows, the whole table. So a
//! row opens only in its own incarnation of Redis and under its own number, and no number is used twice. With each change goes a manifest, sealed
//! under the number of that change: up to when records were forgotten, how many there are, and the sum of all their tags, each of
//! which nobody but the servers can compute. A row that is missing, or is there once more, does not fit the sum. A manifest that was
//! put back with all its rows is older than what a server has seen. Only a server that has seen nothing yet, and is alone, can be
//! shown an old table as a whole.
//!
//! A row: its end (8 bytes), the length of its name (1 byte), the name, the value. A row whose end is before the manifest's horizon is
//! over on every server, so taking it out needs no word to the others.

use std::collections::{BTreeSet, HashMap};

use obol_secret::seal;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Record;

/// The longest record, in bytes.
const MAX_RECORD_BYTES: usize = 64 << 10;
/// About as many records are forgotten in one change at most.
const MAX_FORGOTTEN: usize = 2_000;
const END_BYTES: usize = 8;
const MANIFEST_BYTES: usize = 32;

/// Why a table was not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unbelievable {
    DoesNotOpen,
    PlayedBack,
}

/// Who keeps the records: the keys, the namespace and the incarnation.
pub(super) struct Keeper<'a> {
    pub(super) seal: &'a [u8; 32],
    pub(super) sum: &'a [u8; 32],
    pub(super) namespace: &'a str,
    pub(super) incarnation: &'a str,
}

impl Keeper<'_> {
    fn place(&self, what: &str, number: u64) -> Vec<u8> {
        // Neither a namespace nor an incarnation's id has a stroke in it.
        format!("{}/{}/{what}/{number}", self.namespace, self.incarnation).into_bytes()
    }

    fn tag(&self, number: u64, sealed: &[u8]) -> u128 {
        let mut hash = Sha256::new();
        hash.update(self.sum);
        hash.update(number.to_be_bytes());
        hash.update(sealed);
        let digest: [u8; 32] = hash.finalize().into();
        digest.first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
    }
}

/// One row, as far as it is kept in mind.
#[derive(Clone, Debug)]
struct Known {
    number: u64,
    tag: u128,
    ends: u64,
}

/// A row to be written, or as it was read: its number and its sealed form.
pub(super) type Row = (u64, Vec<u8>);

/// What is known of the table, all of it authentic.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    changes: u64,
    last_row: u64,
    horizon: u64,
    sum: u128,
    rows: HashMap<Box<str>, Known>,
    ends: BTreeSet<(u64, Box<str>)>,
}

/// A change to be written, on top of the one known.
pub(super) struct Change {
    pub(super) known: u64,
    pub(super) number: u64,
    pub(super) manifest: Vec<u8>,
    /// Numbers of the rows that go.
    pub(super) gone: Vec<u64>,
    pub(super) rows: Vec<Row>,
    horizon: u64,
    names: Vec<(Box<str>, Known)>,
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of the last row that was read.
    pub(super) fn last_row(&self) -> u64 {
        self.last_row.max(self.changes)
    }

    pub(super) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// Seals a change. Of several records of one name the last counts.
    pub(super) fn draft(
        &self,
        keeper: &Keeper<'_>,
        records: &[Record<'_>],
        forget_before: u64,
    ) -> Result<Change, &'static str> {
        let horizon = self.reachable(forget_before);
        let over = self.ends.iter().take_while(|(ends, _)| *ends < horizon).map(|(_, name)| &**name);
        let over: Vec<&str> = over.collect();
        let (mut sum, mut count, mut gone) = (self.sum, self.rows.len(), Vec::new());
        let mut leave = |name: &str| {
            if let Some(known) = self.rows.get(name) {
                sum = sum.wrapping_sub(known.tag);
                count -= 1;
                gone.push(known.number);
            }
        };
        over.iter().for_each(|name| leave(name));
        let latest: HashMap<&str, &Record<'_>> = records.iter().map(|record| (record.name, record)).collect();
        let (mut rows, mut names) = (Vec::new(), Vec::new());
        for (number, record) in
            (self.changes + 1..).zip(latest.into_values().filter(|one| one.ends >= horizon))
        {
            if !over.contains(&record.name) {
                leave(record.name);
            }
            let sealed = sealed(keeper, number, record)?;
            let known = Known { number, tag: keeper.tag(number, &sealed), ends: record.ends };
            names.push((record.name.into(), known));
            rows.push((number, sealed));
        }
        for (_, known) in &names {
            sum = sum.wrapping_add(known.tag);
        }
        let number = self.changes + u64::try_from(rows.len()).unwrap_or(u64::MAX).max(1);
        let plain = manifest(horizon, count + rows.len(), sum);
        let manifest = seal::seal(keeper.seal, &keeper.place("manifest", number), &plain)
            .map_err(|_| "the system's random number generator failed")?;
        Ok(Change { known: self.changes, number, manifest, gone, rows, horizon, names })
    }

    /// So far can be forgotten in one change: not halfway through those that end in one second.
    fn reachable(&self, wanted: u64) -> u64 {
        let last = self.ends.iter().take_while(|(ends, _)| *ends < wanted).nth(MAX_FORGOTTEN - 1);
        last.map_or(wanted, |(ends, _)| ends + 1).max(self.horizon)
    }

    /// A change was written.
    pub(super) fn apply(&mut self, change: Change) {
        self.forget(change.horizon);
        for (name, known) in change.names {
            self.put(name, known);
        }
        (self.changes, self.last_row) = (change.number, change.number);
    }

    fn put(&mut self, name: Box<str>, known: Known) {
        self.sum = self.sum.wrapping_add(known.tag);
        let ends = known.ends;
        self.ends.insert((ends, name.clone()));
        if let Some(before) = self.rows.insert(name.clone(), known) {
            self.sum = self.sum.wrapping_sub(before.tag);
            if before.ends != ends {
                self.ends.remove(&(before.ends, name));
            }
        }
    }

    fn forget(&mut self, horizon: u64) {
        self.horizon = self.horizon.max(horizon);
        while let Some((ends, _)) = self.ends.first()
            && *ends < self.horizon
            && let Some((_, name)) = self.ends.pop_first()
        {
            if let Some(known) = self.rows.remove(&name) {
                self.sum = self.sum.wrapping_sub(known.tag);
            }
        }
    }

    /// Takes rows in, in the order of their numbers; gives back their values.
    pub(super) fn read(
        &mut self,
        keeper: &Keeper<'_>,
        rows: &[Row],
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, Unbelievable> {
        let mut values = Vec::with_capacity(rows.len());
        for (number, sealed) in rows {
            if *number <= self.last_row() {
                return Err(Unbelievable::PlayedBack);
            }
            let plain = seal::open(keeper.seal, &keeper.place("row", *number), sealed);
            let plain = plain.ok_or(Unbelievable::DoesNotOpen)?;
            let (ends, name, value) = opened(&plain).ok_or(Unbelievable::DoesNotOpen)?;
            let known = Known { number: *number, tag: keeper.tag(*number, sealed), ends };
            self.put(name.into(), known);
            self.last_row = *number;
            values.push(Zeroizing::new(value.to_vec()));
        }
        Ok(values)
    }

    /// All rows up to this change were read: they must be what its manifest says.
    pub(super) fn settle(
        &mut self,
        keeper: &Keeper<'_>,
        number: u64,
        sealed: &[u8],
    ) -> Result<(), Unbelievable> {
        if number <= self.changes || number < self.last_row {
            return Err(Unbelievable::PlayedBack);
        }
        let said = seal::open(keeper.seal, &keeper.place("manifest", number), sealed);
        let said = said.ok_or(Unbelievable::DoesNotOpen)?;
        let horizon = said.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        self.forget(horizon);
        if *said != manifest(self.horizon, self.rows.len(), self.sum) {
            return Err(Unbelievable::PlayedBack);
        }
        (self.changes, self.last_row) = (number, number);
        Ok(())
    }
}

fn manifest(horizon: u64, count: usize, sum: u128) -> Vec<u8> {
    let mut plain = Vec::with_capacity(MANIFEST_BYTES);
    plain.extend_from_slice(&horizon.to_be_bytes());
    plain.extend_from_slice(&u64::try_from(count).unwrap_or(u64::MAX).to_be_bytes());
    plain.extend_from_slice(&sum.to_be_bytes());
    plain
}

fn sealed(keeper: &Keeper<'_>, number: u64, record: &Record<'_>) -> Result<Vec<u8>, &'static str> {
    let length = u8::try_from(record.name.len()).map_err(|_| "a record's name has more than 255 bytes")?;
    if record.value.len() > MAX_RECORD_BYTES {
        return Err("a record has more than 64 KiB");
    }
    let mut plain =
        Zeroizing::new(Vec::with_capacity(END_BYTES + 1 + record.name.len() + record.value.len()));
    plain.extend_from_slice(&record.ends.to_be_bytes());
    plain.push(length);
    plain.extend_from_slice(record.name.as_bytes());
    plain.extend_from_slice(record.value);
    seal::seal(keeper.seal, &keeper.place("row", number), &plain)
        .map_err(|_| "the system's random number generator failed")
}

fn opened(plain: &[u8]) -> Option<(u64, &str, &[u8])> {
    let (ends, rest) = plain.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (name, value) = rest.split_at_checked(usize::from(*length))?;
    Some((u64::from_be_bytes(*ends), core::str::from_utf8(name).ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn keeper(incarnation: &str) -> Keeper<'_> {
        Keeper { seal: &[7; 32], sum: &[8; 32], namespace: "atp", incarnation }
    }

    /// What Redis holds, and what it can be made to hold again.
    #[derive(Clone, Default)]
    struct Kept {
        number: u64,
        manifest: Vec<u8>,
        rows: BTreeMap<u64, Vec<u8>>,
    }

    impl Kept {
        fn write(&mut self, ledger: &mut Ledger, records: &[(&str, u64, &str)], forget: u64) {
            let records: Vec<_> = records
                .iter()
                .map(|(name, ends, value)| Record { name, ends: *ends, value: value.as_bytes() })
                .collect();
            let change = ledger.draft(&keeper("e1"), &records, forget).unwrap();
            change.gone.iter().for_each(|number| drop(self.rows.remove(number)));
            self.rows.extend(change.rows.iter().cloned());
            (self.number, self.manifest) = (change.number, change.manifest.clone());
            ledger.apply(change);
        }

        fn read(&self, by: &mut Ledger, keeper: &Keeper<'_>) -> Result<Vec<String>, Unbelievable> {
            let rows: Vec<_> =
                self.rows.range(by.last_row() + 1..).map(|(number, row)| (*number, row.clone())).collect();
            let values = by.read(keeper, &rows)?;
            by.settle(keeper, self.number, &self.manifest)?;
            Ok(values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect())
        }
    }

    #[test]
    fn others_read_what_changed_and_forget_what_is_over_without_a_word() {
        let (mut kept, mut writer, mut reader) = (Kept::default(), Ledger::default(), Ledger::default());
        kept.write(&mut writer, &[("a", 10, "a1"), ("b", 20, "b1")], 0);
        let mut first = kept.read(&mut reader, &keeper("e1")).unwrap();
        first.sort();
        assert_eq!(first, ["a1", "b1"]);
        kept.write(&mut writer, &[("a", 30, "a2")], 0);
        assert_eq!(kept.read(&mut reader, &keeper("e1")).unwrap(), ["a2"]);
        kept.write(&mut writer, &[], 25);
        assert_eq!(kept.read(&mut reader, &keeper("e1")).unwrap(), [""; 0]);
        assert_eq!((reader.len(), kept.rows.len(), reader.horizon()), (1, 1, 25), "b is over");
        kept.write(&mut writer, &[("late", 24, "is over as it comes"), ("a", 40, "a3"), ("a", 41, "a4")], 0);
        assert_eq!(kept.read(&mut reader, &keeper("e1")).unwrap(), ["a4"]);
        let mut newcomer = Ledger::default();
        assert_eq!(kept.read(&mut newcomer, &keeper("e1")).unwrap(), ["a4"]);
        assert_eq!((newcomer.sum, newcomer.changes), (writer.sum, writer.changes));
    }

    #[test]
    fn what_ends_in_one_second_is_forgotten_together_and_the_rest_later() {
        let (mut kept, mut writer) = (Kept::default(), Ledger::default());
        let names: Vec<String> = (0..MAX_FORGOTTEN + 10).map(|number| number.to_string()).collect();
        let records: Vec<_> = names.iter().map(|name| (name.as_str(), 5, "x")).collect();
        kept.write(&mut writer, &records, 0);
        kept.write(&mut writer, &[("later", 6, "x")], 0);
        kept.write(&mut writer, &[], 100);
        assert_eq!((writer.len(), kept.rows.len()), (1, 1));
        kept.write(&mut writer, &[], 100);
        assert_eq!((writer.len(), kept.rows.len()), (0, 0));
    }

    #[test]
    fn no_row_can_be_taken_out_or_played_back() {
        let (mut kept, mut writer) = (Kept::default(), Ledger::default());
        kept.write(&mut writer, &[("token", 100, "live")], 0);
        kept.write(&mut writer, &[("other", 100, "live")], 0);
        let before = kept.clone();
        let mut seen = Ledger::default();
        before.read(&mut seen, &keeper("e1")).unwrap();
        kept.write(&mut writer, &[("token", 100, "revoked")], 0);
        kept.write(&mut writer, &[("last", 100, "live")], 0);
        let again = |kept: &Kept| kept.read(&mut Ledger::default(), &keeper("e1"));
        assert!(again(&kept).is_ok(), "control");
        for number in kept.rows.keys() {
            let mut changed = kept.clone();
            changed.rows.remove(number);
            assert_eq!(again(&changed), Err(Unbelievable::PlayedBack), "without row {number}");
        }
        let mut changed = kept.clone();
        changed.rows.insert(1, before.rows[&1].clone());
        let read = again(&changed).unwrap();
        assert_eq!(
            read,
            ["live", "live", "revoked", "live"],
            "of an old row and the newer one, that one counts"
        );
        changed.rows.remove(&3);
        assert_eq!(again(&changed), Err(Unbelievable::PlayedBack), "and in its place");
        let older = Kept { manifest: before.manifest.clone(), ..kept.clone() };
        assert_eq!(again(&older), Err(Unbelievable::DoesNotOpen));
        assert_eq!(before.read(&mut writer, &keeper("e1")), Err(Unbelievable::PlayedBack), "the whole table");
        for mut by in [Ledger::default(), seen] {
            assert!(kept.read(&mut by, &keeper("e2")).is_err(), "another incarnation's");
        }
    }
}
