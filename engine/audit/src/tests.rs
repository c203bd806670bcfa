//! The log written, tampered with, torn and read again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::head::{Head, HeadFile};
use crate::verify::{LogProblemKind, Report, VerifyError, files_of, verify};
use crate::{AuditLog, ChainKey, Decision, Entry, Event, LogOpenError, LogOptions, Party, RequestTag};

fn key() -> ChainKey {
    ChainKey::from_bytes([7; 32])
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    fn head(&self) -> PathBuf {
        self.0.path().join("head")
    }

    fn options(&self) -> LogOptions {
        LogOptions::new(self.path(), self.head())
    }

    fn open(&self) -> AuditLog {
        self.options().open(key()).unwrap()
    }

    /// A log of one process that ended in good order.
    fn with_lines(count: u64) -> Self {
        let place = Self::new();
        let log = place.open();
        (0..count).for_each(|n| hand_out(&log, n));
        drop(log);
        place
    }

    fn verify(&self) -> Report {
        verify(&files_of(&self.path()).unwrap(), Some(&key()), Some(&self.head())).unwrap()
    }

    /// What is durable before the first line of a chain is written.
    fn begin_head(&self, chain: &str) {
        HeadFile::open(&self.head()).unwrap().write(&Head::begun(chain.to_owned()), &key()).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn put_lines(&self, lines: &[String]) {
        fs::write(self.path(), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
}

fn hand_out(log: &AuditLog, n: u64) {
    log.reserve().unwrap().put(Entry {
        decision: Some(Decision::Allow),
        request: Some(RequestTag { connection: 1, request: n }),
        session: Some(9),
        tool: Some("search".into()),
        jti: Some([b'a'; 22]),
        ..Entry::new(Event::HandOut)
    });
}

fn kinds(report: &Report) -> Vec<(LogProblemKind, u64)> {
    report.problems.iter().map(|problem| (problem.kind, problem.line)).collect()
}

#[test]
fn an_honest_log_is_good_also_across_restarts_and_files() {
    let place = Place::new();
    for run in 1..=3 {
        let log = place.options().max_file_bytes(4_000).open(key()).unwrap();
        log.introduce(9, "agent-1");
        for n in 0..20 {
            hand_out(&log, n);
            if n % 7 == 0 {
                log.sync().unwrap();
            }
        }
        drop(log);
        let report = place.verify();
        assert!(report.is_good(), "{report:?}");
        assert_eq!((report.hand_outs, report.starts, report.unclean_starts), (20 * run, run, 0));
        assert_eq!(report.last, Some(report.lines - 1));
        assert!(report.head_checked && report.sealed);
    }
    let files = files_of(&place.path()).unwrap();
    assert!(files.len() > 3, "{files:?}");
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let text = fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("\"agent\":\"agent-1\""));
    assert!(!text.contains(&"a".repeat(22)), "a jti is not written");
    // A file that is not there is missed, whichever it is, unless the log is read from a later one on.
    let report = verify(&[&files[..1], &files[2..]].concat(), Some(&key()), None).unwrap();
    assert_eq!(kinds(&report)[0].0, LogProblemKind::Removed);
    assert!(verify(&files[1..], Some(&key()), Some(&place.head())).unwrap().is_good());
    let cut = verify(&files[..2], Some(&key()), Some(&place.head())).unwrap();
    assert_eq!(kinds(&cut), [(LogProblemKind::Truncated, 0)]);
}

#[test]
fn every_line_changed_removed_moved_or_added_is_named() {
    let place = Place::with_lines(12);
    let honest = place.lines();
    let last = honest.len() - 1;
    for index in 0..honest.len() {
        let line = index as u64 + 1;
        let mut changed = honest.clone();
        changed[index] = changed[index].replace("\"event\"", "\"evenT\"");
        place.put_lines(&changed);
        let report = place.verify();
        assert!(kinds(&report).contains(&(LogProblemKind::Changed, line)), "changed {line}: {report:?}");

        let mut removed = honest.clone();
        removed.remove(index);
        place.put_lines(&removed);
        let report = place.verify();
        let kind = if index == last { LogProblemKind::Truncated } else { LogProblemKind::Removed };
        assert_eq!(kinds(&report)[0].0, kind, "removed {line}: {report:?}");

        if index < last {
            let mut moved = honest.clone();
            moved.swap(index, index + 1);
            place.put_lines(&moved);
            let report = place.verify();
            assert!(kinds(&report).contains(&(LogProblemKind::Moved, line + 1)), "moved {line}: {report:?}");
        }

        let mut forged = honest.clone();
        forged.insert(index, honest[index].replace("search", "delete"));
        place.put_lines(&forged);
        let report = place.verify();
        if index > 1 && index < last {
            assert_eq!(kinds(&report), [(LogProblemKind::Inserted, line)], "forged {line}: {report:?}");
        }
        assert!(!report.is_good(), "forged {line}");

        let mut copied = honest.clone();
        copied.insert(index + 1, honest[index].clone());
        place.put_lines(&copied);
        assert_eq!(kinds(&place.verify()), [(LogProblemKind::Moved, line + 1)], "copied {line}");

        place.put_lines(&honest[..index]);
        if index > 0 {
            assert_eq!(kinds(&place.verify()), [(LogProblemKind::Truncated, 0)], "cut before {line}");
        }
    }
    place.put_lines(&honest);
    assert!(place.verify().is_good());
}

#[test]
fn without_the_key_all_but_the_last_line_is_vouched_for_by_the_chain() {
    let place = Place::with_lines(8);
    let honest = place.lines();
    let check = || verify(&[place.path()], None, None).unwrap();
    assert!(check().is_good());
    for index in 0..honest.len() - 1 {
        let mut changed = honest.clone();
        changed[index] = changed[index].replacen("2", "3", 1);
        place.put_lines(&changed);
        assert!(kinds(&check()).contains(&(LogProblemKind::Changed, index as u64 + 1)), "{:?}", check());
        let mut removed = honest.clone();
        removed.remove(index);
        place.put_lines(&removed);
        assert!(!check().is_good());
        let mut moved = honest.clone();
        moved.swap(index, index + 1);
        place.put_lines(&moved);
        assert!(!check().is_good());
    }
}

/// A log torn at this byte, as a kill in the middle of a write or a power cut leaves it, then written on.
fn torn_at(honest: &[u8], cut: usize) -> Place {
    let place = Place::new();
    let options = place.options();
    let first: serde_json::Value =
        serde_json::from_slice(honest.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    place.begin_head(first["chain"].as_str().unwrap());
    fs::write(place.path(), &honest[..cut]).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let log = options.open(key()).unwrap();
    hand_out(&log, 1);
    drop(log);
    place
}

#[test]
fn a_log_torn_at_any_byte_goes_on_and_says_so() {
    let place = Place::with_lines(3);
    let honest = fs::read(place.path()).unwrap();
    let near_an_end = |cut: usize| honest[cut.saturating_sub(2)..honest.len().min(cut + 2)].contains(&b'\n');
    for cut in (0..honest.len()).filter(|cut| cut % 11 == 0 || near_an_end(*cut)) {
        let whole = honest[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let torn = place_report(&honest, cut);
        assert!(torn.is_good(), "cut at {cut}: {torn:?}");
        assert_eq!(
            torn.hand_outs,
            (whole.saturating_sub(2)).min(3) + 1 + u64::from(ends_whole(&honest, cut))
        );
        let on_a_line = cut == 0 || honest[cut - 1] == b'\n' || honest[cut] == b'\n';
        assert_eq!(torn.torn, u64::from(!on_a_line), "cut at {cut}: {torn:?}");
    }
}

/// Whether the cut took nothing of a hand-out's line but its line end.
fn ends_whole(honest: &[u8], cut: usize) -> bool {
    let line = honest[..cut].iter().filter(|byte| **byte == b'\n').count();
    honest[cut] == b'\n' && (2..5).contains(&line)
}

fn place_report(honest: &[u8], cut: usize) -> Report {
    torn_at(honest, cut).verify()
}

#[test]
fn what_was_durable_and_is_gone_is_missed_at_the_next_start_and_by_every_check() {
    let place = Place::with_lines(5);
    let honest = place.lines();
    place.put_lines(&honest[..4]);
    assert_eq!(kinds(&place.verify()), [(LogProblemKind::Truncated, 0)]);
    // Who cut it off lets the log write over the traces.
    drop(place.open());
    let report = place.verify();
    assert_eq!(kinds(&report), [(LogProblemKind::Truncated, 5)], "{report:?}");
    assert!(report.problems[0].message.starts_with("4 lines"), "{report:?}");

    fs::remove_file(place.path()).unwrap();
    drop(place.open());
    assert_eq!(kinds(&place.verify()), [(LogProblemKind::Truncated, 1)], "the whole log was taken away");
}

#[test]
fn a_head_that_was_taken_away_or_damaged_is_a_finding_now_and_after_the_next_start() {
    for (what, kind) in [("gone", LogProblemKind::NoHead), ("unreadable", LogProblemKind::Unreadable)] {
        let place = Place::with_lines(8);
        let honest = place.lines();
        place.put_lines(&honest[..honest.len() - 3]);
        if kind == LogProblemKind::NoHead {
            fs::remove_file(place.head()).unwrap();
        } else {
            fs::write(place.head(), "no head at all\n").unwrap();
        }
        let report = place.verify();
        assert_eq!(kinds(&report), [(kind, 0)], "{report:?}");
        assert!(!report.head_checked);
        drop(place.open());
        let report = place.verify();
        assert_eq!(kinds(&report), [(LogProblemKind::NoHead, honest.len() as u64 - 2)], "{report:?}");
        assert!(report.problems[0].message.contains(what) && report.head_checked, "{report:?}");
        // An emptied file is as good as none.
        fs::write(place.head(), "").unwrap();
        assert_eq!(kinds(&place.verify())[0], (LogProblemKind::NoHead, 0));
    }
}

#[test]
fn a_crash_before_a_chains_first_line_leaves_nothing_to_complain_of() {
    let place = Place::new();
    place.begin_head("0123456789abcdef0123456789abcdef");
    let log = place.open();
    assert_eq!(log.mark().chain(), "0123456789abcdef0123456789abcdef");
    hand_out(&log, 1);
    drop(log);
    assert!(place.verify().is_good(), "{:?}", place.verify());
    // The log is there, and empty, as soon as it was opened.
    let place = Place::new();
    place.begin_head("0123456789abcdef0123456789abcdef");
    fs::write(place.path(), "").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    drop(place.open());
    assert!(place.verify().is_good(), "{:?}", place.verify());
}

#[test]
fn who_remembers_the_chain_misses_it_when_log_and_head_are_gone() {
    let place = Place::with_lines(5);
    let log = place.open();
    let mark: crate::ChainMark = log.mark().to_string().parse().unwrap();
    assert_eq!(&mark, log.mark());
    drop(log);
    let start = |mark: &crate::ChainMark| place.options().known(Some(mark.clone())).open(key()).unwrap();
    assert!(!start(&mark).begins() && place.verify().is_good(), "nothing is missing");

    let kept = (fs::read(place.path()).unwrap(), fs::read(place.head()).unwrap());
    fs::remove_file(place.path()).unwrap();
    fs::remove_file(place.head()).unwrap();
    let log = start(&mark);
    assert!(log.begins() && log.mark().chain() != mark.chain());
    drop(log);
    let report = place.verify();
    assert_eq!(kinds(&report), [(LogProblemKind::Truncated, 1)], "{report:?}");

    // Put back together from an earlier copy.
    let place = Place::new();
    fs::write(place.path(), kept.0).unwrap();
    fs::write(place.head(), kept.1).unwrap();
    for path in [place.path(), place.head()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let later = format!("obol-audit 1 {} {}", mark.chain(), 1_000).parse().unwrap();
    drop(place.options().known(Some(later)).open(key()).unwrap());
    assert_eq!(kinds(&place.verify())[0].0, LogProblemKind::Truncated);
    for wrong in ["", "obol-audit 1 ab", "obol-audit 2 ab 3", "obol-audit 1 ab x", "obol-audit 1ab 3"] {
        assert!(wrong.parse::<crate::ChainMark>().is_err(), "{wrong}");
    }
}

#[test]
fn a_torn_line_that_is_changed_afterwards_is_tampering() {
    let place = Place::with_lines(2);
    let honest = fs::read(place.path()).unwrap();
    let place = torn_at(&honest, honest.len() - 40);
    let text = fs::read_to_string(place.path()).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut changed = lines.clone();
    changed[4] = changed[4].replace("stop", "stoq");
    place.put_lines(&changed);
    assert!(kinds(&place.verify()).contains(&(LogProblemKind::Changed, 6)), "{:?}", place.verify());
    let mut removed = lines;
    removed.remove(4);
    place.put_lines(&removed);
    assert!(!place.verify().is_good());
}

#[test]
fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
    let place = Place::new();
    let log = place.open();
    hand_out(&log, 1);
    log.sync().unwrap();
    let aside = place.path().with_extension("aside");
    fs::rename(place.path(), &aside).unwrap();
    for n in 0..10 {
        hand_out(&log, n);
        log.sync().unwrap();
    }
    drop(log);
    assert!(place.path().exists());
    let report = verify(&[place.path(), aside], Some(&key()), Some(&place.head())).unwrap();
    assert!(report.is_good() && report.hand_outs == 11, "{report:?}");
}

#[test]
fn what_is_no_log_of_ours_is_not_written_to() {
    let place = Place::new();
    fs::write(place.path(), "dear diary\n".repeat(10_000)).unwrap();
    assert!(place.options().open(key()).unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(place.options().open(key()), Err(LogOpenError::Damaged(_))));
    assert!(matches!(verify(&[place.path()], Some(&key()), None), Err(VerifyError::NotALog(_))));
    assert_eq!(fs::metadata(place.path()).unwrap().len(), 110_000);

    let place = Place::with_lines(2);
    let other = ChainKey::from_bytes([8; 32]);
    assert!(matches!(place.options().open(ChainKey::from_bytes([8; 32])), Err(LogOpenError::OtherKey(_))));
    assert!(matches!(verify(&[place.path()], Some(&other), None), Err(VerifyError::OtherKey(_))));
    let _log = place.open();
    assert!(matches!(place.options().open(key()), Err(LogOpenError::InUse(_))));
}

#[test]
fn a_full_disk_stops_hand_outs_and_nothing_is_lost() {
    // /dev/full takes no byte; a link to it stands for the log once it is open. Rotation is not in question here.
    let place = Place::new();
    if !Path::new("/dev/full").exists() {
        eprintln!("SKIPPED: this system has no /dev/full; run on Linux");
        return;
    }
    let inbox = std::sync::Arc::new(crate::inbox::Inbox::new(std::time::Instant::now()));
    let options = place.options();
    let opened = crate::recover::open(&options, &key()).unwrap();
    let chain = crate::chain::Chain::new(key(), opened.tip.clone());
    let mut writer = crate::writer::Writer::new(options, opened, chain, std::sync::Arc::clone(&inbox));
    writer.begin().unwrap();
    let good = writer.swap_file(fs::OpenOptions::new().append(true).open("/dev/full").unwrap());
    let shared = writer.file_slot();
    let thread = std::thread::spawn(move || writer.run());
    inbox.reserve().unwrap();
    inbox.put(Entry::new(Event::HandOut));
    while inbox.health().is_ok() {
        std::thread::yield_now();
    }
    assert!(inbox.reserve().unwrap_err().to_string().contains("nothing goes on unaudited"));
    *shared.lock() = Some(good);
    while inbox.health().is_err() {
        std::thread::yield_now();
    }
    inbox.reserve().unwrap();
    inbox.put(Entry::new(Event::HandOut));
    inbox.stop();
    thread.join().unwrap();
    let report = place.verify();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.hand_outs, report.refused), (2, 1));
}

fn denial(tool: &str) -> Entry {
    let decision = Some(Decision::Deny);
    Entry { decision, tool: Some(tool.into()), code: Some("POLICY_DENY"), ..Entry::new(Event::Denial) }
}

#[test]
fn refusals_without_end_cost_a_bounded_amount_and_each_is_counted() {
    const FLOOD: u64 = 20_000;
    let place = Place::new();
    let log = place.open();
    let began = std::time::Instant::now();
    let long = "\u{1}".repeat(100_000);
    for _ in 0..FLOOD {
        log.refusal(Party::Known, "POLICY_DENY", || denial(&long));
    }
    hand_out(&log, 1);
    drop(log);
    let earned = u64::try_from(began.elapsed().as_millis()).unwrap() / 100;
    let text = fs::read_to_string(place.path()).unwrap();
    // A name of control characters takes six bytes for each.
    assert!(text.len() as u64 <= (1_100 + earned) * 2_500, "{} bytes", text.len());
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let own = of("denial");
    assert!(own.iter().all(|line| line["cut"] == true && line["tool"].as_str().unwrap().len() == 256));
    let counted: u64 = of("denials").iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(own.len() as u64 + counted, FLOOD);
    assert_eq!(of("hand_out").len(), 1);
    assert!(of("hand_out")[0].get("cut").is_none());
    let report = place.verify();
    assert!(report.is_good() && report.denials == FLOOD, "{report:?}");
}

#[test]
fn refusals_take_no_place_from_hand_outs_nor_hand_outs_from_refusals() {
    // Nobody writes: all that is put stays there.
    let now = std::time::Instant::now();
    let inbox = crate::inbox::Inbox::new(now);
    let places = |inbox: &crate::inbox::Inbox| (0..).take_while(|_| inbox.reserve().is_ok()).count();
    let without_refusals = places(&crate::inbox::Inbox::new(now));
    for party in [Party::Known, Party::Stranger] {
        (0..10_000).for_each(|_| inbox.refusal(party, "POLICY_DENY", now, || denial("pay")));
    }
    assert_eq!(places(&inbox), without_refusals);

    let inbox = crate::inbox::Inbox::new(now);
    places(&inbox);
    let mut written = false;
    inbox.refusal(Party::Known, "POLICY_DENY", now, || {
        written = true;
        denial("pay")
    });
    assert!(written);
}

#[test]
fn what_was_counted_is_summed_up_though_nothing_else_happens() {
    let place = Place::new();
    let log = place.open();
    (0..101).for_each(|_| log.refusal(Party::Stranger, "TBAC_REQUIRED", || denial("pay")));
    let deadline = std::time::Instant::now() + crate::allowance::SUMMARY_EVERY * 6;
    while !fs::read_to_string(place.path()).unwrap().contains("\"denials\"") {
        assert!(std::time::Instant::now() < deadline, "the count is not told");
        std::thread::sleep(core::time::Duration::from_millis(50));
    }
    drop(log);
    assert_eq!(place.verify().denials, 101);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any change to the bytes of a log that leaves them different is found.
    #[test]
    fn any_edit_of_the_file_is_found(
        count in 1_u64..20,
        start in any::<prop::sample::Index>(),
        length in 0_usize..600,
        put in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let place = Place::with_lines(count);
        let honest = fs::read(place.path()).unwrap();
        let from = start.index(honest.len());
        let to = (from + length).min(honest.len());
        let mut edited = honest.clone();
        edited.splice(from..to, put);
        prop_assume!(edited != honest && [edited.as_slice(), b"\n"].concat() != honest);
        fs::write(place.path(), &edited).unwrap();
        match verify(&[place.path()], Some(&key()), Some(&place.head())) {
            Err(VerifyError::NotALog(_)) => {}
            // Behind the last line a piece without a line end may be one that is being written: said, no alarm.
            Ok(report) => prop_assert!(!report.is_good() || (edited.starts_with(&honest) && report.torn == 1), "{report:?}"),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

fn page(log: &AuditLog, before: Option<crate::Place>, most: usize) -> crate::LogPage {
    log.page(before, most, |_| true).unwrap()
}

#[test]
fn pages_of_a_log_that_is_written_hold_every_line_once_the_newest_first() {
    let place = Place::new();
    let log = place.options().max_file_bytes(10_000).open(key()).unwrap();
    for n in 0..300 {
        hand_out(&log, n);
        if n % 20 == 0 {
            log.sync().unwrap();
        }
    }
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let read = page(&log, before, 7);
        assert_eq!(read.problem, None);
        assert!(read.lines.len() <= 7);
        numbers.extend(read.lines.iter().map(|line| line.n));
        hand_out(&log, 1_000);
        let Some(next) = read.next else { break };
        before = Some(next.to_string().parse().unwrap());
    }
    assert!(files_of(&place.path()).unwrap().len() > 3, "it goes through files");
    let newest = *numbers.first().unwrap();
    assert_eq!(numbers, (0..=newest).rev().collect::<Vec<_>>());
}

#[test]
fn a_page_holds_what_is_wanted_and_every_line_that_was_read_is_checked() {
    let place = Place::with_lines(50);
    let honest = place.lines();
    let denials = |log: &AuditLog| log.page(None, 5, |line| line.event == "genesis").unwrap();
    let read = denials(&place.open());
    assert_eq!((read.lines.len(), read.problem, read.next), (1, None, None));
    assert!(read.read > 50 && read.numbers.unwrap().0 == 0);
    let mut changed = honest.clone();
    changed[20] = changed[20].replace("search", "wipe__");
    let mut moved = honest.clone();
    moved.swap(20, 21);
    let mut removed = honest.clone();
    removed.remove(20);
    let mut added = honest.clone();
    added.insert(20, "{\"n\":20}".to_owned());
    for (what, lines) in [("changed", changed), ("moved", moved), ("removed", removed), ("added", added)] {
        let place = Place::with_lines(0);
        let log = place.open();
        place.put_lines(&lines);
        let read = denials(&log);
        assert!(read.problem.is_some(), "{what}: {read:?}");
        let (report, is_whole) = log.check(u64::MAX).unwrap();
        assert!(!report.is_good() && is_whole, "{what}");
    }
}

#[test]
fn a_page_ends_where_a_line_does_and_what_a_crash_tore_is_no_alarm() {
    let place = Place::with_lines(5);
    let mut torn = fs::read(place.path()).unwrap();
    torn.extend_from_slice(b"{\"n\":7,\"time");
    fs::write(place.path(), &torn).unwrap();
    let log = place.open();
    hand_out(&log, 1);
    let read = page(&log, None, 100);
    assert_eq!((read.problem, read.next), (None, None));
    for wrong in ["1.1", "1.99999999", "1", "", "x.y", "1.-1"] {
        let parsed = wrong.parse::<crate::Place>();
        assert!(parsed.is_err() || log.page(parsed.ok(), 1, |_| true).is_err(), "{wrong}");
    }
    assert!(page(&log, Some("0.5".parse().unwrap()), 1).lines.is_empty(), "of a file that is not there");
}

#[test]
fn a_check_of_a_log_that_is_written_takes_nothing_half_written_for_tampering() {
    let place = Place::new();
    let log = place.options().max_file_bytes(30_000).open(key()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..3_000).for_each(|n| hand_out(&log, n)));
        for _ in 0..20 {
            let (report, is_whole) = log.check(u64::MAX).unwrap();
            assert!(report.is_good() && is_whole, "{:?}", report.problems);
        }
    });
    let (report, is_whole) = log.check(1_000).unwrap();
    assert!(report.is_good() && !is_whole && report.lines > 0, "the newest file alone: {report:?}");
}
