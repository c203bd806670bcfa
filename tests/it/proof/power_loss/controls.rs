//! The checker checked: stores that must break promises, and whose breaking it must find.

use std::collections::VecDeque;

use obol_queue::StorageBackend;
use obol_world::random::Random;

use super::disk::{Drive, Fate, Name, SimulatedDisk, Survival};
use super::ledger::{Ledger, Verdict, Violation};
use super::life::{Life, Populated, Step};

/// Lives until a promise is broken.
fn until_broken(mut attempt: impl FnMut(u64) -> Verdict) -> Option<Violation> {
    (0..400).find_map(|seed| attempt(seed).err())
}

/// The queue works on a disk whose syncs do nothing for one of the files; a power cut takes it all.
fn on_a_lying_disk(populated: &Populated, about: Name, steps: &[Step], seed: u64) -> Verdict {
    let mut life = Life::begin(populated, seed);
    life.disk.lie_about(about);
    let queue = life.reopen()?.unwrap();
    for step in steps {
        life.act(&queue, step)?;
    }
    drop(queue);
    life.disk.cut_power(Survival::Nothing);
    life.end_well()
}

#[test]
fn a_database_disk_that_lies_about_syncs_is_found_to_repeat_tokens() {
    let populated = Populated::store(1);
    let steps = [Step::Draw { session: 1, tool: "search" }];
    let broken = until_broken(|seed| on_a_lying_disk(&populated, Name::Database, &steps, seed));
    assert!(matches!(broken, Some(Violation::Repeated(_))), "{broken:?}");
}

#[test]
fn a_database_disk_that_lies_about_syncs_is_found_to_lose_sessions_and_policies() {
    let populated = Populated::store(1);
    let provision = [Step::Provision { agent: 9, tools: vec!["pay"], audiences: 0 }];
    let broken = until_broken(|seed| on_a_lying_disk(&populated, Name::Database, &provision, seed));
    assert!(matches!(broken, Some(Violation::SessionLost(_))), "{broken:?}");
    let policy = [Step::Policy { epoch: 0, denied: ["pay".to_owned()].into() }];
    let broken = until_broken(|seed| on_a_lying_disk(&populated, Name::Database, &policy, seed));
    assert!(matches!(broken, Some(Violation::PolicyLost(_))), "{broken:?}");
}

#[test]
fn a_key_disk_that_lies_about_syncs_is_found_to_undo_flushes() {
    use super::ledger::Scope;
    let populated = Populated::store(1);
    for scope in [Scope::All, Scope::Session(1), Scope::Agent(0)] {
        // Only the key file forgets: the note that a session was flushed must not be on the disk either.
        let broken = until_broken(|seed| {
            let mut life = Life::begin(&populated, seed);
            life.disk.lie_about(Name::Keys);
            life.disk.lie_about(Name::Database);
            let queue = life.reopen()?.unwrap();
            life.act(&queue, &Step::Flush(scope.clone()))?;
            drop(queue);
            life.disk.cut_power(Survival::Nothing);
            life.end_well()
        });
        assert!(matches!(broken, Some(Violation::FlushUndone(_))), "{scope:?}: {broken:?}");
    }
    let tool = [Step::Flush(Scope::Tool("search"))];
    let broken = until_broken(|seed| {
        let mut life = Life::begin(&populated, seed);
        life.disk.lie_about(Name::Keys);
        // The power fails at once, before the rows are cleared away.
        let queue = life.reopen()?.unwrap();
        life.act(&queue, &tool[0])?;
        life.disk.cut_power(Survival::Nothing);
        drop(queue);
        life.end_well()
    });
    assert!(matches!(broken, Some(Violation::FlushUndone(_))), "{broken:?}");
}

/// When a queue writes down that a token is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    BeforeHandOut,
    AfterHandOut,
}

/// A queue as small as can be: a file of tokens, each with a byte that says it is gone.
struct ToyQueue {
    file: Drive,
    order: Order,
    owed: Option<u64>,
    tokens: VecDeque<(u64, Vec<u8>)>,
}

impl ToyQueue {
    fn open(file: Drive, order: Order, tokens: &[Vec<u8>]) -> Self {
        let is_left = |place: &u64| {
            let mut gone = [1];
            file.read(*place, &mut gone).is_ok() && gone == [0]
        };
        let tokens = (0..).zip(tokens).filter(|(place, _)| is_left(place)).map(|(p, t)| (p, t.clone()));
        let tokens = tokens.collect();
        Self { file, order, owed: None, tokens }
    }

    fn dequeue(&mut self) -> Option<Vec<u8>> {
        if let Some(place) = self.owed.take() {
            self.note_gone(place)?;
        }
        let (place, token) = self.tokens.pop_front()?;
        match self.order {
            Order::BeforeHandOut => self.note_gone(place)?,
            Order::AfterHandOut => self.owed = Some(place),
        }
        Some(token)
    }

    fn note_gone(&self, place: u64) -> Option<()> {
        self.file.write(place, &[1]).ok()?;
        self.file.sync_data().ok()
    }
}

/// Real tokens, for a checker that reads them.
fn real_tokens() -> (Ledger, Vec<Vec<u8>>) {
    let mut life = Life::begin(&Populated::store(1), 1);
    let ledger = life.ledger.clone();
    let queue = life.reopen().unwrap().unwrap();
    let draw = |_| queue.dequeue_within("search", super::PATIENCE).unwrap().as_bytes().to_vec();
    (ledger, (0..40).map(draw).collect())
}

fn toy_life(order: Order, ledger: &Ledger, tokens: &[Vec<u8>], seed: u64) -> Verdict {
    let (mut ledger, mut random) = (ledger.clone(), Random::new(seed));
    let disk = SimulatedDisk::empty(seed);
    let file = disk.open(Name::Database);
    file.set_len(tokens.len() as u64).and_then(|()| file.sync_data()).unwrap();
    for _ in 0..6 {
        disk.arm(Fate::PowerCut(1 + random.below(12)));
        let mut queue = ToyQueue::open(disk.open(Name::Database), order, tokens);
        while let Some(token) = queue.dequeue() {
            ledger.handed_out(1, "search", &token, super::START)?;
        }
        disk.cut_power(Survival::Sectors);
    }
    Ok(())
}

#[test]
fn a_queue_that_removes_after_it_hands_out_is_found_to_repeat_and_one_that_removes_before_is_not() {
    let (ledger, tokens) = real_tokens();
    let broken = until_broken(|seed| toy_life(Order::AfterHandOut, &ledger, &tokens, seed));
    assert!(matches!(broken, Some(Violation::Repeated(_))), "{broken:?}");
    let broken = until_broken(|seed| toy_life(Order::BeforeHandOut, &ledger, &tokens, seed));
    assert!(broken.is_none(), "{broken:?}");
}
