//! Tokens of masters, and revoked ids, in memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::rows::Row;

/// The most live tokens of masters.
const MAX_TOKENS: usize = 100_000;
/// The most revoked ids of tokens that have not ended.
const MAX_REVOKED: usize = 1_000_000;
/// How long a token that was rotated away still holds, in seconds.
pub(crate) const OVERLAP_SECS: u64 = 30;

/// A token of a master.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) master: String,
    pub(crate) label: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) ttl: u64,
    pub(crate) generation: u32,
    /// When this generation was issued, and ends, in Unix seconds.
    pub(crate) issued: u64,
    pub(crate) ends: u64,
    /// Which key signed this generation.
    pub(crate) kid: String,
}

/// What is live, and what of it was revoked.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    records: HashMap<String, Record>,
    /// The ids of each master's tokens, by label: to issue one must not cost a look at all.
    held: HashMap<String, HashMap<String, HashSet<String>>>,
    revoked: HashMap<String, u64>,
    /// When what can be forgotten.
    ends: BTreeSet<(u64, String)>,
}

impl Tokens {
    /// Whether one more token has room.
    pub(crate) fn has_room(&self) -> bool {
        self.records.len() < MAX_TOKENS && self.can_revoke()
    }

    /// Whether one more revocation has room.
    pub(crate) fn can_revoke(&self) -> bool {
        self.revoked.len() < MAX_REVOKED
    }

    /// Takes a token in, unless it was revoked: from a file rows come in any order.
    pub(crate) fn put(&mut self, record: Record) {
        if self.revoked.contains_key(&record.id) {
            return;
        }
        self.ends.insert((record.ends.saturating_add(OVERLAP_SECS), record.id.clone()));
        let labels = self.held.entry(record.master.clone()).or_default();
        labels.entry(record.label.clone()).or_default().insert(record.id.clone());
        self.records.insert(record.id.clone(), record);
    }

    /// Takes a token out, wherever it is listed.
    fn take(&mut self, id: &str) {
        let Some(record) = self.records.remove(id) else { return };
        let Some(labels) = self.held.get_mut(&record.master) else { return };
        let Some(ids) = labels.get_mut(&record.label) else { return };
        ids.remove(id);
        if ids.is_empty() {
            labels.remove(&record.label);
        }
        if labels.is_empty() {
            self.held.remove(&record.master);
        }
    }

    /// What ends a token for good; `None` if there is no room. Its latest expiry says how long that has to be remembered.
    pub(crate) fn revocation(&self, id: &str, ends: u64) -> Option<Row> {
        let until = ends.max(self.records.get(id).map_or(0, |record| record.ends));
        self.can_revoke().then(|| Row::Revoked { id: id.to_owned(), until })
    }

    /// Ends a token for good.
    pub(crate) fn revoke(&mut self, id: &str, until: u64) {
        let until = until.saturating_add(OVERLAP_SECS);
        self.revoked.insert(id.to_owned(), until);
        self.ends.insert((until, id.to_owned()));
        self.take(id);
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    pub(crate) fn live(&self) -> usize {
        self.records.len()
    }

    /// Whether a token that is sound in itself was revoked or rotated away.
    pub(crate) fn is_over(&self, id: &str, generation: u32, now: u64) -> bool {
        if self.revoked.contains_key(id) {
            return true;
        }
        self.records.get(id).is_some_and(|record| {
            let is_current = generation == record.generation;
            let was_just_rotated =
                generation.checked_add(1) == Some(record.generation) && now < record.issued + OVERLAP_SECS;
            !is_current && !was_just_rotated
        })
    }

    /// A master's live tokens, the oldest first.
    pub(crate) fn of(&self, master: &str, label: Option<&str>, now: u64) -> Vec<&Record> {
        let labels = self.held.get(master);
        let ids = labels.into_iter().flat_map(|labels| match label {
            Some(label) => labels.get(label).into_iter().collect::<Vec<_>>(),
            None => labels.values().collect(),
        });
        let records = ids.flatten().filter_map(|id| self.records.get(id));
        let mut found: Vec<_> = records.filter(|record| now < record.ends).collect();
        found.sort_by(|a, b| (a.issued, &a.id).cmp(&(b.issued, &b.id)));
        found
    }

    /// Whether something has ended before this time (Unix seconds).
    #[cfg(feature = "redis")]
    pub(crate) fn has_ended(&self, before: u64) -> bool {
        self.ends.first().is_some_and(|(until, _)| *until < before)
    }

    /// Forgets what has ended; gives back the ids.
    pub(crate) fn take_ended(&mut self, now: u64) -> Vec<String> {
        let mut ended = Vec::new();
        while let Some((until, _)) = self.ends.first()
            && *until < now
            && let Some((_, id)) = self.ends.pop_first()
        {
            let record_is_over =
                self.records.get(&id).is_none_or(|record| record.ends.saturating_add(OVERLAP_SECS) < now);
            let revocation_is_over = self.revoked.get(&id).is_none_or(|until| *until < now);
            if record_is_over && revocation_is_over {
                self.take(&id);
                self.revoked.remove(&id);
                ended.push(id);
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, generation: u32, issued: u64) -> Record {
        Record {
            id: id.into(),
            master: "ci".into(),
            label: "x".into(),
            scopes: vec!["a".into()],
            ttl: 600,
            generation,
            issued,
            ends: issued + 600,
            kid: "k".into(),
        }
    }

    #[test]
    fn a_token_that_was_rotated_away_holds_for_half_a_minute() {
        let mut tokens = Tokens::default();
        tokens.put(record("t", 0, 1_000));
        assert!(!tokens.is_over("t", 0, 1_000) && !tokens.is_over("unknown", 0, 1_000));
        tokens.put(record("t", 1, 1_100));
        assert!(
            !tokens.is_over("t", 1, 1_100) && !tokens.is_over("t", 0, 1_129) && tokens.is_over("t", 0, 1_130)
        );
        tokens.put(record("t", 2, 1_110));
        assert!(tokens.is_over("t", 0, 1_111) && !tokens.is_over("t", 1, 1_111));
        tokens.revoke("t", 1_710);
        assert!((0..4).all(|generation| tokens.is_over("t", generation, 1_111)));
    }

    #[test]
    fn a_revocation_is_remembered_until_the_token_has_ended() {
        let mut tokens = Tokens::default();
        tokens.put(record("t", 0, 1_000));
        tokens.put(record("t", 1, 1_500));
        let Some(Row::Revoked { until, .. }) = tokens.revocation("t", 0) else { panic!("there is room") };
        tokens.revoke("t", until);
        tokens.put(record("t", 1, 1_500));
        assert_eq!(tokens.live(), 0, "what was revoked does not come back");
        assert!(tokens.take_ended(2_100 + OVERLAP_SECS).is_empty() && tokens.is_over("t", 1, 2_100));
        assert_eq!(tokens.take_ended(2_101 + OVERLAP_SECS), ["t"]);
        assert!(tokens.ends.is_empty() && tokens.revoked.is_empty());
    }

    #[test]
    fn a_master_sees_its_own_tokens_of_a_label_and_nothing_is_left_of_those_that_ended() {
        let mut tokens = Tokens::default();
        let with = |id: &str, master: &str, label: &str, issued| Record {
            master: master.into(),
            label: label.into(),
            ..record(id, 0, issued)
        };
        for (id, master, label, issued) in [
            ("newer", "ci", "x", 1_001),
            ("older", "ci", "x", 1_000),
            ("other", "ci", "y", 1_000),
            ("foreign", "cd", "x", 1_000),
        ] {
            tokens.put(with(id, master, label, issued));
        }
        let ids = |tokens: &Tokens, label, now| {
            tokens.of("ci", label, now).iter().map(|record| record.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&tokens, Some("x"), 1_100), ["older", "newer"], "the oldest first");
        assert_eq!(ids(&tokens, None, 1_100).len(), 3);
        assert_eq!(ids(&tokens, Some("x"), 1_600), ["newer"], "what has ended is not live");
        tokens.put(Record { generation: 1, ..with("older", "ci", "x", 1_100) });
        tokens.revoke("newer", 1_700);
        assert_eq!(ids(&tokens, Some("x"), 1_100), ["older"]);
        tokens.take_ended(3_000);
        assert!(tokens.held.is_empty() && tokens.live() == 0);
    }
}
