//! Against disks that fail, lose what was not synced, and are cut off in the middle.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::sync::{Arc, Mutex};

use ::redb::StorageBackend;
use obol_clock::ManualClock;
use obol_token::{Jti, SessionId};

use super::*;
use crate::spent::index::{BUCKET_SECS, SETTLE_SECS};

const START: u64 = 1_000_000;

/// A disk in memory that keeps a log of what was done to it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    contents: Mutex<Vec<u8>>,
    /// Held to make a sync wait.
    stalled: Mutex<()>,
    log: Mutex<Vec<Step>>,
    broken: AtomicBool,
    /// Keeps no log, for those who write much.
    forgetful: AtomicBool,
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
    /// The test was told that this many spends are durable.
    Answered(u32),
}

impl Disk {
    fn of(contents: Vec<u8>) -> Self {
        let disk = Self::default();
        *disk.0.contents.lock().unwrap() = contents;
        disk
    }

    fn check(&self) -> io::Result<()> {
        if self.0.broken.load(Ordering::SeqCst) { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    fn note(&self, step: Step) {
        if self.0.forgetful.load(Ordering::Relaxed) {
            return;
        }
        self.0.log.lock().unwrap().push(step);
    }
}

/// What a power cut after `log` leaves: all that was synced, and of the writes since then each one wholly, in half, or
/// not at all, as `fate` decides.
fn after_power_cut(log: &[Step], mut fate: impl FnMut() -> u64) -> Vec<u8> {
    let last_sync = log.iter().rposition(|step| matches!(step, Step::Sync)).unwrap_or(0);
    let mut image = Vec::new();
    for (position, step) in log.iter().enumerate() {
        match step {
            Step::SetLen(length) => image.resize(*length, 0),
            Step::Write(offset, data) => {
                let kept = if position < last_sync { data.len() } else { data.len() * cut(fate()) / 2 };
                image[*offset..*offset + kept].copy_from_slice(&data[..kept]);
            }
            Step::Sync | Step::Answered(_) => {}
        }
    }
    image
}

fn cut(fate: u64) -> usize {
    usize::try_from(fate % 3).unwrap()
}

/// Numbers that look random and are the same in every run.
fn xorshift(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.contents.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.contents.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let length = usize::try_from(len).unwrap();
        self.note(Step::SetLen(length));
        self.0.contents.lock().unwrap().resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        drop(self.0.stalled.lock().unwrap());
        self.note(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = usize::try_from(offset).unwrap();
        self.note(Step::Write(offset, data.to_vec()));
        self.0.contents.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn mark(number: u32, expires_at: u64) -> Mark {
    let mut random = [0; 16];
    random[..4].copy_from_slice(&number.to_be_bytes());
    Mark::new(SessionId::from_u64(1), &Jti::from_random(random), expires_at)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

fn open(disk: &Disk, clock: &Arc<ManualClock>) -> RedbSpentSet {
    RedbSpentSetOptions::new("(disk)")
        .new_file(NewFile::Trusted)
        .open_backend(disk.clone(), Arc::clone(clock) as Arc<dyn Clock>)
        .unwrap()
}

fn unavailable(result: &Result<(), SpendError>) -> bool {
    matches!(result, Err(SpendError::Unavailable(_)))
}

#[test]
fn whatever_was_answered_yes_survives_a_power_cut_at_any_moment() {
    let disk = Disk::default();
    let clock = clock();
    let set = open(&disk, &clock);
    for number in 0..40 {
        set.spend(mark(number, START + u64::from(number))).wait().unwrap();
        disk.note(Step::Answered(number + 1));
    }
    drop(set);
    let log = disk.0.log.lock().unwrap().clone();
    let mut random = xorshift(0x0B01);
    for cut in 1..=log.len() {
        let before = &log[..cut];
        let answered = before.iter().rev().find_map(|step| match step {
            Step::Answered(count) => Some(*count),
            _ => None,
        });
        // Before the first answer the file may be half made; nobody was promised anything.
        let Some(answered) = answered else { continue };
        let after = open(&Disk::of(after_power_cut(before, &mut random)), &clock);
        for number in 0..answered {
            let again = after.spend(mark(number, START + u64::from(number))).wait();
            assert_eq!(again, Err(SpendError::AlreadySpent), "{number} of {answered}, cut at {cut}");
        }
    }
}

#[test]
fn a_failed_commit_stops_the_set_for_good() {
    let disk = Disk::default();
    let clock = clock();
    let set = open(&disk, &clock);
    set.spend(mark(1, START)).wait().unwrap();
    disk.0.broken.store(true, Ordering::SeqCst);
    assert!(unavailable(&set.spend(mark(2, START)).wait()));
    assert!(unavailable(&set.health()));
    // The disk comes back; what it holds is still unknown.
    disk.0.broken.store(false, Ordering::SeqCst);
    assert!(unavailable(&set.spend(mark(3, START)).wait()));
    assert!(unavailable(&set.spend(mark(1, START)).wait()));
    assert!(unavailable(&set.is_spent(&mark(3, START)).map(|_| ())));
    drop(set);
    let reopened = open(&Disk::of(disk.0.contents.lock().unwrap().clone()), &clock);
    assert_eq!(reopened.spend(mark(1, START)).wait(), Err(SpendError::AlreadySpent));
    reopened.spend(mark(3, START)).wait().unwrap();
}

#[test]
fn everyone_who_waits_for_a_failed_commit_is_refused() {
    let disk = Disk::default();
    let set = open(&disk, &clock());
    disk.0.broken.store(true, Ordering::SeqCst);
    let tickets: Vec<_> = (0..100).map(|number| set.spend(mark(number, START))).collect();
    assert!(tickets.into_iter().all(|ticket| unavailable(&ticket.wait())));
}

#[test]
fn a_disk_that_does_not_answer_shows_in_the_health() {
    let disk = Disk::default();
    let clock = clock();
    let set = open(&disk, &clock);
    let stall = disk.0.stalled.lock().unwrap();
    let ticket = set.spend(mark(1, START));
    while set.writer.inbox().with(|marks| marks.committing_since()).is_none() {
        std::thread::yield_now();
    }
    assert_eq!(set.health(), Ok(()));
    clock.advance(2);
    assert!(unavailable(&set.health()));
    // Duplicates are decided at once all the same.
    assert_eq!(set.spend(mark(1, START)).wait(), Err(SpendError::AlreadySpent));
    drop(stall);
    ticket.wait().unwrap();
    set.spend(mark(2, START)).wait().unwrap();
    while set.writer.inbox().with(|marks| marks.committing_since()).is_some() {
        std::thread::yield_now();
    }
    assert_eq!(set.health(), Ok(()));
}

#[test]
fn closing_writes_what_still_waits() {
    let disk = Disk::default();
    let clock = clock();
    let set = open(&disk, &clock);
    let tickets: Vec<_> = (0..100).map(|number| set.spend(mark(number, START))).collect();
    drop(set);
    assert!(tickets.into_iter().all(|ticket| ticket.wait() == Ok(())));
    let reopened = open(&disk, &clock);
    assert_eq!(reopened.marks(), Some(100));
}

#[test]
fn forgetting_empties_memory_and_file_and_revives_nothing() {
    let disk = Disk::default();
    let clock = clock();
    let set = open(&disk, &clock);
    for number in 0..100 {
        set.spend(mark(number, START)).wait().unwrap();
    }
    clock.advance(60 + 2 * KEEP_MARGIN_SECS + BUCKET_SECS);
    set.spend(mark(200, clock.now())).wait().unwrap();
    clock.advance(SETTLE_SECS);
    set.spend(mark(201, clock.now())).wait().unwrap();
    // Both spends may have gone into commits that came before the forgetting.
    set.spend(mark(202, clock.now())).wait().unwrap();
    assert_eq!(set.spend(mark(1, START)).wait(), Err(SpendError::Forgotten));
    assert_eq!(set.marks(), Some(3));
    drop(set);
    // After a restart with a clock that stepped back, what was deleted is still refused.
    let earlier = self::clock();
    let reopened = open(&disk, &earlier);
    assert_eq!(reopened.marks(), Some(3));
    assert_eq!(reopened.spend(mark(1, START)).wait(), Err(SpendError::Forgotten));
    assert_eq!(reopened.spend(mark(300, START)).wait(), Err(SpendError::Forgotten));
    assert_eq!(
        reopened.spend(mark(201, START + 60 + 2 * KEEP_MARGIN_SECS + BUCKET_SECS + SETTLE_SECS)).wait(),
        Err(SpendError::AlreadySpent)
    );
}

#[test]
fn the_file_stays_bounded_while_marks_come_and_go() {
    let disk = Disk::default();
    let clock = clock();
    let set = open(&disk, &clock);
    let mut lengths = Vec::new();
    for round in 0..40_u32 {
        let expires_at = clock.now() + 60;
        let tickets: Vec<_> =
            (0..2_000).map(|number| set.spend(mark(round * 2_000 + number, expires_at))).collect();
        assert!(tickets.into_iter().all(|ticket| ticket.wait() == Ok(())));
        clock.advance(SETTLE_SECS);
        lengths.push(disk.len().unwrap());
    }
    assert!(set.marks().unwrap() < 40_000, "{:?}", set.marks());
    assert!(lengths[20..].iter().max() <= lengths[..20].iter().max(), "{lengths:?}");
}

#[test]
fn a_mark_takes_at_most_forty_bytes_of_disk_also_when_spends_come_one_at_a_time() {
    const MARKS: u32 = 12_000;
    let disk = Disk::default();
    disk.0.forgetful.store(true, Ordering::Relaxed);
    let clock = clock();
    let set = open(&disk, &clock);
    for number in 0..MARKS {
        // Tokens of three lives at a time.
        set.spend(mark(number, START + u64::from(number % 3) * BUCKET_SECS)).wait().unwrap();
    }
    drop(set);
    let each = disk.len().unwrap() / u64::from(MARKS);
    println!("{each} bytes of disk for each mark");
    assert!(each <= 40, "{each} bytes a mark");
    let reopened = open(&disk, &clock);
    assert_eq!(reopened.marks(), Some(12_000));
    // Rows that were left unfinished are filled up, not written over.
    reopened.spend(mark(MARKS, START)).wait().unwrap();
    drop(reopened);
    assert_eq!(open(&disk, &clock).marks(), Some(12_001));
}
