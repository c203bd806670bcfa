//! Scopes that were spent here and may still be delegated from (TBAC r41, section 8).
//!
//! A delegated token is accepted only after its parent was. The memory of parents is kept small: only scopes that
//! allow delegation at all, a bounded number of them, for a bounded time, in this process alone. What it has
//! forgotten, after a restart everything, makes children be refused; nothing is ever accepted on a guess.

use core::fmt;
use std::collections::{HashMap, VecDeque};

use obol_token::Scope;
use obol_token::delegation::scope_hash;
use parking_lot::Mutex;

/// How long a spent parent is remembered unless told otherwise, in seconds: the length of a task that hands
/// subtasks on.
const PARENT_KEEP_SECS: u64 = 3_600;
/// The most parents that are remembered. The oldest make room.
const MAX_PARENTS: usize = 16_384;
/// The most memory their scopes may take, in bytes. The oldest make room.
const MAX_PARENT_BYTES: usize = 16 << 20;

type Hash = [u8; 32];

/// The scopes that were spent here and may still be delegated from.
pub struct ConsumedParents {
    keep_sec: u64,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Canonical scopes by their hash, with the time until which they count.
    parents: HashMap<Hash, (u64, Box<[u8]>)>,
    /// When which was remembered, oldest first. Holds what was remembered again twice.
    order: VecDeque<(u64, Hash)>,
    bytes: usize,
}

impl ConsumedParents {
    /// An empty memory that keeps what it is told for an hour.
    pub fn new() -> Self {
        Self::keeping_for(PARENT_KEEP_SECS)
    }

    /// An empty memory that keeps what it is told for this many seconds.
    pub fn keeping_for(keep_sec: u64) -> Self {
        Self { keep_sec, memory: Mutex::default() }
    }

    /// Remembers a scope that was spent at `now` (Unix seconds), given as its canonical bytes. Scopes that do not
    /// allow delegation are not worth the room.
    pub fn remember(&self, scope: &Scope, scope_tlv: &[u8], now: u64) {
        if scope.delegation_depth == 0 {
            return;
        }
        let until = now.saturating_add(self.keep_sec);
        self.memory.lock().insert(scope_hash(scope_tlv), until, scope_tlv, now);
    }

    /// The scope of this hash, if it was spent here lately.
    pub fn find(&self, hash: &Hash, now: u64) -> Option<Scope> {
        let memory = self.memory.lock();
        let (until, scope_tlv) = memory.parents.get(hash)?;
        if now > *until {
            return None;
        }
        Scope::from_tlv(scope_tlv).ok()
    }

    /// How many parents are remembered.
    pub fn len(&self) -> usize {
        self.memory.lock().parents.len()
    }

    /// Whether no parent is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for ConsumedParents {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConsumedParents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumedParents").field("parents", &self.len()).finish_non_exhaustive()
    }
}

impl Memory {
    fn insert(&mut self, hash: Hash, until: u64, scope_tlv: &[u8], now: u64) {
        if let Some((known_until, _)) = self.parents.get_mut(&hash) {
            *known_until = until.max(*known_until);
        } else {
            self.bytes += scope_tlv.len();
            self.parents.insert(hash, (until, scope_tlv.into()));
        }
        self.order.push_back((until, hash));
        self.make_room(now);
    }

    fn make_room(&mut self, now: u64) {
        while let Some((until, hash)) = self.order.front().copied() {
            let full = self.order.len() > MAX_PARENTS || self.bytes > MAX_PARENT_BYTES;
            if !full && now <= until {
                return;
            }
            self.order.pop_front();
            // A parent that was spent again has a later place in the order, and goes when that comes up.
            let last_place = self.parents.get(&hash).is_some_and(|(known_until, _)| *known_until == until);
            if last_place && let Some((_, scope_tlv)) = self.parents.remove(&hash) {
                self.bytes -= scope_tlv.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(purpose: &str, delegation_depth: u64) -> Scope {
        serde_json::from_value(serde_json::json!({
            "iss": "as", "sub": "s", "agent_instance_id": "a", "tool": "t", "action": "r", "resource": "**",
            "delegation_depth": delegation_depth, "aud": "https://rs", "org_id": "org", "trust_level": 0,
            "human_confirmed_at": 0, "purpose": purpose
        }))
        .unwrap()
    }

    fn remember(parents: &ConsumedParents, scope: &Scope, now: u64) -> Hash {
        let tlv = scope.to_tlv().unwrap();
        parents.remember(scope, &tlv, now);
        scope_hash(&tlv)
    }

    #[test]
    fn a_parent_is_found_until_its_time_is_over() {
        let parents = ConsumedParents::new();
        let hash = remember(&parents, &scope("a", 1), 100);
        assert_eq!(parents.find(&hash, 100 + PARENT_KEEP_SECS), Some(scope("a", 1)));
        assert_eq!(parents.find(&hash, 101 + PARENT_KEEP_SECS), None);
        assert_eq!(parents.find(&[0; 32], 100), None);
    }

    #[test]
    fn scopes_that_cannot_be_delegated_take_no_room() {
        let parents = ConsumedParents::new();
        remember(&parents, &scope("a", 0), 100);
        assert!(parents.is_empty());
    }

    #[test]
    fn the_number_of_parents_is_bounded_and_the_oldest_goes_first() {
        let parents = ConsumedParents::new();
        let first = remember(&parents, &scope("first", 1), 100);
        let second = remember(&parents, &scope("second", 1), 100);
        remember(&parents, &scope("first", 1), 101);
        for number in 0..MAX_PARENTS - 1 {
            remember(&parents, &scope(&number.to_string(), 1), 102);
        }
        assert!(parents.len() <= MAX_PARENTS);
        assert_eq!(parents.find(&second, 102), None);
        assert!(parents.find(&first, 102).is_some(), "it was spent again later than the second");
    }

    #[test]
    fn the_memory_of_parents_is_bounded_in_bytes() {
        let parents = ConsumedParents::new();
        for number in 0..2 * MAX_PARENT_BYTES / 30_000 {
            remember(&parents, &scope(&format!("{number}{}", "x".repeat(30_000)), 1), 100);
        }
        assert!(parents.memory.lock().bytes <= MAX_PARENT_BYTES);
        assert!(!parents.is_empty());
    }

    #[test]
    fn expired_parents_give_their_room_back() {
        let parents = ConsumedParents::new();
        remember(&parents, &scope("a", 1), 100);
        remember(&parents, &scope("b", 1), 102 + PARENT_KEEP_SECS);
        assert_eq!(parents.len(), 1);
    }
}
