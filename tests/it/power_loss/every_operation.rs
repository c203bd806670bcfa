//! One fixed piece of work, and a power cut at each of its writes, length changes and syncs in turn.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Fate, Name, Survival};
use super::in_parallel;
use super::ledger::{Scope, Verdict, Violation};
use super::life::{LONG, Life, Populated, Step};

const SURVIVALS: [Survival; 4] = [Survival::Nothing, Survival::Everything, Survival::Odd, Survival::Torn];

/// Each kind of step once, so that a power cut can hit it.
fn steps() -> Vec<Step> {
    let draw = |session, tool| Step::Draw { session, tool };
    let policy = |epoch, denied: &[&str]| Step::Policy {
        epoch,
        denied: denied.iter().map(|tool| (*tool).to_owned()).collect::<BTreeSet<_>>(),
    };
    vec![
        draw(1, "search"),
        draw(1, "search"),
        Step::Provision { agent: 3, tools: vec!["search", "read"], audiences: 0 },
        draw(3, "read"),
        Step::Flush(Scope::Tool("search")),
        draw(1, "search"),
        policy(2, &["pay"]),
        draw(2, "read"),
        Step::Flush(Scope::Session(1)),
        Step::Flush(Scope::Agent(1)),
        draw(3, "search"),
        Step::Sync,
        Step::Flush(Scope::All),
    ]
}

fn growing_steps() -> Vec<Step> {
    let long = |agent| Step::Provision { agent, tools: vec!["search"], audiences: LONG };
    let draw = |session| Step::Draw { session, tool: "search" };
    vec![long(5), draw(3), long(6)]
}

/// Works through the steps; the power fails at operation `at`. Tells whether it did.
fn work(life: &mut Life, steps: &[Step], at: u64) -> Result<bool, Violation> {
    life.disk.arm(Fate::PowerCut(at));
    if let Some(queue) = life.reopen()? {
        for step in steps {
            if !life.disk.is_well() {
                break;
            }
            life.act(&queue, step)?;
        }
        drop(queue);
    }
    Ok(!life.disk.is_well())
}

/// One power cut at operation `at`, then one in the middle of the next start, and then all must be well.
fn cut_at(populated: &Populated, steps: &[Step], at: u64, survival: Survival) -> Verdict {
    let mut life = Life::begin(populated, at * 16 + survival as u64);
    work(&mut life, steps, at)?;
    life.disk.cut_power(survival);
    life.disk.arm(Fate::PowerCut(1 + at % 29));
    drop(life.reopen()?);
    life.disk.cut_power(survival);
    life.end_well()
}

/// Cuts power at each operation with each survival, or at `every` so many of these pairs. Gives back how many operations
/// the work takes.
fn cut_everywhere(populated: &Populated, steps: &[Step], survivals: &[Survival], every: u64) -> u64 {
    let mut life = Life::begin(populated, 0);
    work(&mut life, steps, u64::MAX).unwrap();
    let operations = life.disk.operations();
    life.disk.cut_power(Survival::Nothing);
    life.end_well().unwrap();
    // How many there are depends a little on how the threads meet; past the last one the idle store loses power.
    let places = (operations + operations / 8) * survivals.len() as u64;
    let next = AtomicU64::new(0);
    let work = || loop {
        let number = next.fetch_add(every, Ordering::SeqCst);
        if number >= places {
            return;
        }
        let at = 1 + number / survivals.len() as u64;
        let survival = survivals[usize::try_from(number).unwrap() % survivals.len()];
        cut_at(populated, steps, at, survival).unwrap_or_else(|broken| {
            panic!("power cut at operation {at}, survival {survival:?}: {broken:?}")
        });
    };
    in_parallel(work);
    eprintln!("{operations} operations, {} power cuts", 2 * places.div_ceil(every));
    operations
}

#[test]
fn a_power_cut_at_any_operation_breaks_no_promise() {
    // Unoptimised, each operation is hit with one or two of the four.
    let every = if cfg!(debug_assertions) { 3 } else { 1 };
    let operations = cut_everywhere(&Populated::store(2), &steps(), &SURVIVALS, every);
    assert!(operations > 100, "{operations}");
}

#[test]
fn a_power_cut_at_any_operation_of_creating_a_store_leaves_one_that_opens() {
    let nothing = Life::on_empty_disk(0).populated();
    let provision = [Step::Provision { agent: 0, tools: vec!["pay"], audiences: 0 }];
    let operations = cut_everywhere(&nothing, &provision, &SURVIVALS, 1);
    assert!(operations > 20, "{operations}");
}

#[test]
fn a_power_cut_at_any_operation_while_the_file_grows_breaks_no_promise() {
    let populated = Populated::store(2);
    let before = populated.files[Name::Database as usize].len();
    let mut life = Life::begin(&populated, 0);
    assert!(!work(&mut life, &growing_steps(), u64::MAX).unwrap());
    assert!(life.disk.durable()[Name::Database as usize].len() > before, "the file does not grow");
    // Unoptimised, long documents cost a good part of a second for each power cut.
    let every = if cfg!(debug_assertions) { 16 } else { 1 };
    cut_everywhere(&populated, &growing_steps(), &[Survival::Nothing, Survival::Sectors], every);
}
