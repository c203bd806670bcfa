//! The spent set as files and threads see it.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};

use obol_token::{Jti, SessionId};
use obol_verify::{
    Clock, Mark, NewFile, RedbSpentSet, RedbSpentSetOptions, SpendError, SpendTicket, SpentSet,
};
use obol_world::ManualClock;
use obol_world::NOW;
use obol_world::forge::Forge;
use obol_world::server::{Server, names, reading, session};
use redb::{Database, TableDefinition};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn options(path: &Path) -> RedbSpentSetOptions {
    RedbSpentSetOptions::new(path).new_file(NewFile::Trusted)
}

fn open(path: &Path) -> RedbSpentSet {
    options(path).open(clock()).unwrap()
}

fn refusal(path: &Path) -> String {
    options(path).open(clock()).unwrap_err().to_string()
}

fn mark(number: u64) -> Mark {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Mark::new(SessionId::from_u64(1), &Jti::from_random(random), NOW + 60)
}

#[test]
fn of_sixty_four_threads_with_one_token_exactly_one_is_served() {
    const THREADS: usize = 64;
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let set = options(&folder.path().join("spent.redb")).open(Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let server = Server::with_spent_set(session(), clock, Arc::new(set), |builder| builder);
    for round in 0..20 {
        let token = Forge::standard(round);
        let start = Barrier::new(THREADS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        names(server.present(&token, &reading())).0
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "ok").count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "TOKEN_REPLAYED").count(), THREADS - 1);
    }
}

/// A set that loses its marks while a spend is under way, as a shared one can.
#[derive(Debug, Default)]
struct LosesMarks {
    fence: core::sync::atomic::AtomicU64,
}

impl SpentSet for LosesMarks {
    fn is_spent(&self, _mark: &Mark) -> Result<bool, SpendError> {
        Ok(false)
    }

    fn spend_with(&self, _mark: Mark, _with: Option<Mark>) -> SpendTicket {
        self.fence.store(NOW, core::sync::atomic::Ordering::SeqCst);
        SpendTicket::ready(Ok(()))
    }

    fn fence(&self) -> Option<u64> {
        Some(self.fence.load(core::sync::atomic::Ordering::SeqCst))
    }

    fn keep_after_expiry(&self) -> u64 {
        120
    }

    fn health(&self) -> Result<(), SpendError> {
        Ok(())
    }

    fn marks(&self) -> Option<usize> {
        None
    }
}

#[test]
fn a_fence_that_rises_while_a_token_is_spent_stops_that_token() {
    let server =
        Server::with_spent_set(session(), clock(), Arc::new(LosesMarks::default()), |builder| builder);
    let token = Forge::standard(1);
    assert_eq!(names(server.present(&token, &reading())), ("STALE_TIMESTAMP", "TEMPORAL_VALIDATION"));
    // Issued after the loss.
    let later = Forge::standard(2).with(|token| token.issued_at = NOW + 1);
    assert_eq!(names(server.present(&later, &reading())).0, "ok");
}

#[test]
fn marks_survive_closing_and_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    for generation in 0..5 {
        let set = open(&path);
        for earlier in 0..generation {
            assert_eq!(set.spend(mark(earlier)).wait(), Err(SpendError::AlreadySpent));
        }
        set.spend(mark(generation)).wait().unwrap();
    }
}

#[test]
fn marks_do_not_need_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    let set = open(&path);
    for number in 0..10 {
        set.spend(mark(number)).wait().unwrap();
    }
    // The file as it is while the set is open, which is how a process that dies leaves it.
    let copy = folder.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    core::mem::forget(set);
    let reopened = open(&copy);
    for number in 0..10 {
        assert_eq!(reopened.spend(mark(number)).wait(), Err(SpendError::AlreadySpent));
    }
}

/// Names the file for the child process of the test below.
const CHILD_FILE: &str = "OBOL_TEST_SPENT_SET_FILE";

/// The child: spends one token after the other and says so, until somebody kills it.
#[test]
fn spend_until_killed() {
    let Some(path) = std::env::var_os(CHILD_FILE) else { return };
    let set = open(Path::new(&path));
    let mut out = std::io::stdout().lock();
    for number in 0.. {
        set.spend(mark(number)).wait().unwrap();
        writeln!(out, "spent {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn whatever_was_answered_yes_survives_kill_dash_nine() {
    let folder = tempfile::tempdir().unwrap();
    // Killed after another number of spends each time.
    for kill_after in [50, 57, 64] {
        let path = folder.path().join(format!("{kill_after}.redb"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["verify::spent_set::spend_until_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD_FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut answered = 0;
        for line in lines.filter(|line| line.contains("spent ")) {
            answered = line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() + 1;
            if answered == kill_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(answered >= kill_after);
        let set = open(&path);
        for number in 0..answered {
            assert_eq!(set.spend(mark(number)).wait(), Err(SpendError::AlreadySpent), "{number}");
        }
    }
}

#[test]
fn a_new_file_is_private_and_fenced_unless_it_is_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    let set = RedbSpentSetOptions::new(&path).open(clock()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(set.fence(), Some(NOW + 60));
    drop(set);
    // The fence belongs to the file, not to the process.
    let later = Arc::new(ManualClock::new(NOW + 1_000));
    assert_eq!(RedbSpentSetOptions::new(&path).open(later).unwrap().fence(), Some(NOW + 60));
    let trusted = open(&folder.path().join("trusted.redb"));
    assert_eq!(trusted.fence(), None);
}

#[test]
fn one_process_at_a_time_has_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    let _open = open(&path);
    assert!(refusal(&path).contains("another process has it open"), "{}", refusal(&path));
}

#[test]
fn files_that_are_no_spent_set_are_named_as_such_and_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let private = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };

    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, but long enough to look at it more than once").unwrap();
    private(&text);
    let before = std::fs::read(&text).unwrap();
    assert!(refusal(&text).contains("damaged, or not a file of this kind"), "{}", refusal(&text));
    assert_eq!(std::fs::read(&text).unwrap(), before);

    let foreign = folder.path().join("foreign");
    write_table(&foreign, "somebody else's", "key", 1);
    private(&foreign);
    assert!(refusal(&foreign).contains("belongs to something else"), "{}", refusal(&foreign));

    let newer = folder.path().join("newer");
    drop(open(&newer));
    write_table(&newer, "obol.spent-set.meta", "format", 2);
    assert!(refusal(&newer).contains("format 2"), "{}", refusal(&newer));

    let missing = folder.path().join("missing/spent.redb");
    let named = format!("cannot open {}: No such file", missing.display());
    assert!(refusal(&missing).contains(&named), "{}", refusal(&missing));

    let shared = folder.path().join("shared");
    drop(open(&shared));
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o660)).unwrap();
    assert!(refusal(&shared).contains("chmod 600"), "{}", refusal(&shared));
}

fn write_table(path: &Path, table: &str, key: &str, value: u64) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(TableDefinition::<&str, u64>::new(table)).unwrap().insert(key, value).unwrap();
    writing.commit().unwrap();
}

#[test]
fn a_damaged_file_is_refused_and_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    let set = open(&path);
    let tickets: Vec<_> = (0..5_000).map(|number| set.spend(mark(number))).collect();
    assert!(tickets.into_iter().all(|ticket| ticket.wait() == Ok(())));
    drop(set);
    let intact = std::fs::read(&path).unwrap();
    // A bit in the middle of the marks.
    let place = intact.windows(16).position(|window| window == mark(2_500).id()).unwrap();
    let mut damaged = intact.clone();
    damaged[place] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert!(refusal(&path).contains("start over"), "{}", refusal(&path));
}

#[test]
fn a_mark_takes_at_most_forty_bytes_of_disk() {
    const MARKS: u64 = 200_000;
    let folder = tempfile::tempdir().unwrap();
    // How many spends arrive while one commit is under way.
    for at_once in [100, 500, 3_000] {
        let path = folder.path().join(format!("{at_once}.redb"));
        let set = open(&path);
        for batch in 0..MARKS / at_once {
            let tickets: Vec<_> =
                (0..at_once).map(|number| set.spend(mark(batch * at_once + number))).collect();
            assert!(tickets.into_iter().all(|ticket| ticket.wait() == Ok(())));
        }
        drop(set);
        let each = std::fs::metadata(&path).unwrap().len() / MARKS;
        assert!(each <= 40, "{each} bytes a mark, {at_once} at once");
    }
}

#[test]
fn a_full_set_refuses_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.redb");
    let set = options(&path).max_marks(2).open(clock()).unwrap();
    set.spend(mark(1)).wait().unwrap();
    set.spend(mark(2)).wait().unwrap();
    assert!(matches!(set.spend(mark(3)).wait(), Err(SpendError::Unavailable(_))));
    assert_eq!(set.spend(mark(1)).wait(), Err(SpendError::AlreadySpent));
    assert_eq!(set.health(), Ok(()));
}
