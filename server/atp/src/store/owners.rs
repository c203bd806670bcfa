//! What is remembered of secrets: which there were, until when, and which are over. The operator's file may be put back from a copy, or
//! edited by hand; what was retired stays so, and a deadline never moves to later, whatever the file says.
//!
//! A secret is remembered by a print: 16 bytes of an HMAC under a key of the store, over whose it is and what it is. Who reads the
//! store's rows and has no such key learns nothing about a secret.

use core::fmt;
use std::collections::{HashMap, HashSet};

use obol_atp::{AgentId, Secret};
use serde::{Deserialize, Serialize};

/// The most secrets that are over and remembered, of each; the oldest make room.
const MAX_RETIRED: usize = 64;
/// What the key of the prints is derived for.
pub(crate) const PURPOSE: &str = "obol-atp-secret-prints-v1";

/// Whose secrets.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum OwnerName {
    Agent(AgentId),
    Shared,
    Master(Box<str>),
}

impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent/{id}"),
            Self::Shared => f.write_str("shared"),
            Self::Master(name) => write!(f, "master/{name}"),
        }
    }
}

impl From<OwnerName> for String {
    fn from(name: OwnerName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for OwnerName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once('/') {
            None if text == "shared" => Ok(Self::Shared),
            Some(("agent", id)) => AgentId::parse(id).map(Self::Agent).ok_or("no agent id"),
            Some(("master", name)) => Ok(Self::Master(name.into())),
            _ => Err("nobody's name"),
        }
    }
}

/// What stands for a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(crate) struct Print([u8; 16]);

impl Print {
    pub(crate) fn of(key: &[u8; 32], owner: &OwnerName, secret: &[u8]) -> Self {
        let mut message = zeroize::Zeroizing::new(owner.to_string().into_bytes());
        message.push(0);
        message.extend_from_slice(secret);
        let signature = Secret::of_any_length(key).sign(&message);
        Self(signature.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Print")
    }
}

/// A secret, and when it stops to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) print: Print,
    pub(crate) until: Option<u64>,
}

/// What is remembered of one owner's secrets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) name: OwnerName,
    /// The newest first.
    live: Vec<Seen>,
    /// The oldest first.
    retired: Vec<Print>,
    /// The agent's tokens issued up to then (Unix seconds) are over.
    tokens_after: u64,
}

/// What the operator's file says of one owner; the newest secret first.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: OwnerName,
    pub(crate) secrets: Vec<Seen>,
    pub(crate) tokens_after: u64,
}

/// All owners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners(HashMap<OwnerName, Owner>);

impl Owners {
    pub(crate) fn put(&mut self, owner: Owner) {
        self.0.insert(owner.name.clone(), owner);
    }

    #[cfg(feature = "redis")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, name: &OwnerName) -> Option<&Owner> {
        self.0.get(name)
    }

    /// What has to be written so that all is known again that was known before.
    #[cfg(feature = "redis")]
    pub(crate) fn recall(&self, before: &Self) -> Vec<Owner> {
        let recalled = before.0.values().map(|before| match self.get(&before.name) {
            None => before.clone(),
            Some(known) => known.clone().recalling(before),
        });
        recalled.filter(|owner| self.get(&owner.name) != Some(owner)).collect()
    }

    /// Up to when (Unix seconds) an agent's tokens are over.
    pub(crate) fn tokens_after(&self, agent: AgentId) -> u64 {
        self.get(&OwnerName::Agent(agent)).map_or(0, |owner| owner.tokens_after)
    }

    /// What changes when the operator's file says this. `is_whole`: who is not in the file has no secrets any more.
    pub(crate) fn admit(&self, declared: &[Declared], is_whole: bool) -> Vec<Owner> {
        let mut changed: Vec<Owner> = Vec::new();
        for one in declared {
            let known = self.get(&one.name);
            let next = known.map_or_else(|| Owner::new(one.name.clone()), Owner::clone).with(one);
            if known != Some(&next) {
                changed.push(next);
            }
        }
        if is_whole {
            let named: HashSet<_> = declared.iter().map(|one| &one.name).collect();
            let gone = self.0.values().filter(|owner| !named.contains(&owner.name) && !owner.live.is_empty());
            changed.extend(gone.cloned().map(Owner::gone));
        }
        changed
    }
}

impl Owner {
    fn new(name: OwnerName) -> Self {
        Self { name, live: Vec::new(), retired: Vec::new(), tokens_after: 0 }
    }

    /// Whether a secret of the file holds at that time (Unix seconds).
    pub(crate) fn holds(&self, print: Print, now: u64) -> bool {
        let deadline = self.live.iter().find(|seen| seen.print == print).and_then(|seen| seen.until);
        !self.retired.contains(&print) && deadline.is_none_or(|until| now < until)
    }

    /// How many of these are over for good.
    pub(crate) fn count_retired(&self, secrets: &[Seen]) -> usize {
        secrets.iter().filter(|seen| self.retired.contains(&seen.print)).count()
    }

    fn with(mut self, declared: &Declared) -> Self {
        self.tokens_after = self.tokens_after.max(declared.tokens_after);
        let has = |print| declared.secrets.iter().any(|seen| seen.print == print);
        let is_past = |print| {
            let superseded = self.live.iter().skip(1).any(|seen| seen.print == print);
            superseded || self.retired.contains(&print)
        };
        // An old copy of the file: it does not know the newest secret, so it does not say that one is over.
        let lacks_newest = self.live.first().is_some_and(|newest| !has(newest.print));
        if lacks_newest && declared.secrets.first().is_some_and(|first| is_past(first.print)) {
            return self;
        }
        let held = |seen: &Seen| {
            let known = self.live.iter().find(|known| known.print == seen.print);
            Seen { until: earlier(known.and_then(|known| known.until), seen.until), ..*seen }
        };
        let live = declared.secrets.iter().filter(|seen| !self.retired.contains(&seen.print)).map(held);
        let live: Vec<_> = live.collect();
        let over = self.live.iter().map(|seen| seen.print).filter(|print| !has(*print));
        self.retired.extend(over.collect::<Vec<_>>());
        self.retired.drain(..self.retired.len().saturating_sub(MAX_RETIRED));
        self.live = live;
        self
    }

    /// With what was retired before, the deadlines of then, and the tokens that were over.
    #[cfg(feature = "redis")]
    fn recalling(mut self, before: &Self) -> Self {
        let forgotten = before.retired.iter().filter(|print| !self.retired.contains(print));
        let forgotten: Vec<_> = forgotten.copied().collect();
        self.retired.splice(0..0, forgotten);
        self.retired.drain(..self.retired.len().saturating_sub(MAX_RETIRED));
        self.live.retain(|seen| !self.retired.contains(&seen.print));
        for seen in &mut self.live {
            let known = before.live.iter().find(|known| known.print == seen.print);
            seen.until = earlier(known.and_then(|known| known.until), seen.until);
        }
        self.tokens_after = self.tokens_after.max(before.tokens_after);
        self
    }

    fn gone(self) -> Self {
        let declared = Declared { name: self.name.clone(), secrets: Vec::new(), tokens_after: 0 };
        self.with(&declared)
    }
}

/// A deadline never moves to later, and never goes away.
fn earlier(known: Option<u64>, said: Option<u64>) -> Option<u64> {
    match (known, said) {
        (Some(known), Some(said)) => Some(known.min(said)),
        (known, said) => known.or(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(secret: &str) -> Print {
        Print::of(&[1; 32], &OwnerName::Shared, secret.as_bytes())
    }

    fn file(secrets: &[(&str, Option<u64>)]) -> [Declared; 1] {
        let secrets = secrets.iter().map(|(secret, until)| Seen { print: print(secret), until: *until });
        [Declared { name: OwnerName::Shared, secrets: secrets.collect(), tokens_after: 0 }]
    }

    fn admit(owners: &mut Owners, declared: &[Declared]) {
        owners.admit(declared, true).into_iter().for_each(|owner| owners.put(owner));
    }

    fn holds(owners: &Owners, secret: &str, now: u64) -> bool {
        owners.get(&OwnerName::Shared).is_none_or(|owner| owner.holds(print(secret), now))
    }

    #[test]
    fn what_was_retired_stays_so_and_a_deadline_never_moves_to_later() {
        let mut owners = Owners::default();
        admit(&mut owners, &file(&[("first", None)]));
        assert!(holds(&owners, "first", 1), "control");
        admit(&mut owners, &file(&[("second", None), ("first", Some(100))]));
        assert!(holds(&owners, "first", 99) && !holds(&owners, "first", 100));
        admit(&mut owners, &file(&[("second", None), ("first", Some(900))]));
        assert!(!holds(&owners, "first", 100), "later");
        admit(&mut owners, &file(&[("second", None), ("first", None)]));
        assert!(!holds(&owners, "first", 100), "never");
        admit(&mut owners, &file(&[("second", None), ("first", Some(50))]));
        assert!(!holds(&owners, "first", 50), "earlier is taken");
        admit(&mut owners, &file(&[("second", None)]));
        admit(&mut owners, &file(&[("second", None), ("first", None)]));
        assert!(!holds(&owners, "first", 1) && holds(&owners, "second", 1), "retired");
        admit(&mut owners, &[]);
        admit(&mut owners, &file(&[("second", None)]));
        assert!(!holds(&owners, "second", 1), "its owner was taken out");
        admit(&mut owners, &file(&[("third", None)]));
        assert!(holds(&owners, "third", 1));
    }

    #[test]
    fn an_old_copy_of_the_file_ends_nothing() {
        let mut owners = Owners::default();
        admit(&mut owners, &file(&[("first", None)]));
        admit(&mut owners, &file(&[("second", None), ("first", Some(100))]));
        let before = owners.get(&OwnerName::Shared).cloned();
        admit(&mut owners, &file(&[("first", None)]));
        assert_eq!(owners.get(&OwnerName::Shared).cloned(), before);
        assert!(!holds(&owners, "first", 100), "its deadline stands");
        admit(&mut owners, &file(&[("third", None)]));
        assert!(!holds(&owners, "second", 1), "control: a new file ends the newest secret");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn what_was_lost_is_written_again_by_who_still_knows_it() {
        let mut before = Owners::default();
        admit(&mut before, &file(&[("first", None)]));
        admit(&mut before, &file(&[("second", None), ("first", Some(100))]));
        admit(&mut before, &file(&[("third", None), ("second", Some(200))]));
        let recall = |mut lost: Owners| {
            let again = lost.recall(&before);
            let again: Vec<_> = again.into_iter().map(|owner| lost.put(owner)).collect();
            (again.len(), lost)
        };
        let (written, empty) = recall(Owners::default());
        assert_eq!((written, empty.get(&OwnerName::Shared)), (1, before.get(&OwnerName::Shared)));
        // Another one was faster, and has an old file.
        let mut other = Owners::default();
        admit(&mut other, &file(&[("second", None), ("first", None)]));
        assert!(holds(&other, "first", 1), "control");
        let (_, other) = recall(other);
        assert!(!holds(&other, "first", 1) && holds(&other, "second", 199) && !holds(&other, "second", 200));
        assert_eq!(other.recall(&before).len(), 0, "once");
    }

    #[test]
    fn as_many_are_remembered_as_there_is_room_for() {
        let mut owners = Owners::default();
        for number in 0..MAX_RETIRED + 3 {
            admit(&mut owners, &file(&[(&format!("secret {number}"), None)]));
        }
        assert!(!holds(&owners, "secret 2", 1) && holds(&owners, "secret 1", 1));
        let row = serde_json::to_string(owners.get(&OwnerName::Shared).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Owner>(&row).unwrap(), *owners.get(&OwnerName::Shared).unwrap());
    }
}
